/* brk and sbrk, by the raw call so that every libc does the same. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static char *move(char *to) { return (char *)syscall(SYS_brk, to); }

int main(void) {
    char *start = move(NULL);
    char *top = (char *)(((unsigned long)start + 4095) & ~4095ul);
    printf("grow: %ld\n", move(top + 100000) - top);
    memset(top, 0x11, 100000);
    printf("shrink: %ld\n", move(top + 5000) - top);
    printf("grow again: %ld\n", move(top + 20000) - top);
    printf("kept %d, fresh %d %d\n", top[4999], top[8192], top[19999]);
    printf("odd: %ld\n", move(top + 20001) - top);
    printf("below the start is refused: %ld\n", move((char *)4096) - top);
    printf("too far is refused: %ld\n", move((char *)0x7ffffffff000) - top);
    mmap(top + 65536, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    printf("into a mapping is refused: %ld\n", move(top + 131072) - top);
    printf("up to it: %ld\n", move(top + 60000) - top);
    top[59999] = 3;
    printf("32 MiB: %s\n", (munmap(top + 65536, 4096), move(top + (32 << 20))) == top + (32 << 20) ? "yes" : "no");
    for (int i = 16; i < 32; i++) top[i << 20] = (char)i;
    int sum = 0;
    for (int i = 16; i < 32; i++) sum += top[i << 20];
    printf("sum %d\n", sum);
    printf("all back: %ld\n", move(start) - start);
    return 0;
}
