// What an address space lets a program do at its edges.
//   layout touch HEX r|w|x   access one address (and die, most often)
//   layout calls HEX         system calls given the address: errno of each
//   layout hints             mmap hints below and above 2 to the 47th
//   layout full              map until there is no room, by pieces of 256 MiB; tell the lowest and the highest
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WINDOW (1UL << 47)
#define FLAGS (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

static uintptr_t map(uintptr_t hint, size_t size, int more) {
    void *found = mmap((void *)hint, size, PROT_READ | PROT_WRITE, FLAGS | more, -1, 0);
    return found == MAP_FAILED ? 0 : (uintptr_t)found;
}

static const char *where(uintptr_t found, uintptr_t hint) {
    return !found ? "no" : found == hint ? "there" : found < WINDOW ? "below" : "above";
}

static void touch(uintptr_t address, char how) {
    // Through RAX: by RBP or RSP it would be a stack access, which faults otherwise.
    if (how == 'r') __asm__ volatile("movb (%0), %%cl" : : "a"(address) : "rcx", "memory");
    if (how == 'w') __asm__ volatile("movb $1, (%0)" : : "a"(address) : "memory");
    if (how == 'x') ((void (*)(void))address)();
}

static void calls(uintptr_t address) {
    errno = 0; write(1, (void *)address, 1); printf("write %d\n", errno);
    errno = 0; syscall(SYS_uname, address); printf("uname %d\n", errno);
    errno = 0; syscall(SYS_arch_prctl, ARCH_SET_GS, address); printf("gs %d\n", errno);
    errno = 0; munmap((void *)(address & ~4095UL), 4096); printf("munmap %d\n", errno);
    errno = 0; map(address & ~4095UL, 4096, MAP_FIXED); printf("fixed %d\n", errno);
}

static void hints(void) {
    uintptr_t high = 1UL << 50, first, second;
    printf("none: %s\n", where(map(0, 4096, 0), 0));
    printf("low: %s\n", where(map(0x300000000000, 4096, 0), 0x300000000000));
    printf("high: %s\n", where(first = map(high, 8192, 0), high));
    printf("high, taken: %s\n", where(second = map(high, 8192, 0), high));
    if (first && second) {
        strcpy((char *)first, "first");
        strcpy((char *)second + 4000, "second");
        printf("%s %s\n", (char *)first, (char *)second + 4000);
    }
    printf("across: %s\n", where(map(WINDOW - 8192, 16384, 0), WINDOW - 8192));
    printf("fixed: %s\n", where(map(1UL << 52, 4096, MAP_FIXED), 1UL << 52));
    printf("highest: %s\n", where(map((1UL << 56) - 8192, 4096, 0), (1UL << 56) - 8192));
    printf("too high: %s\n", where(map((1UL << 56) - 4096, 4096, MAP_FIXED), (1UL << 56) - 4096));
    if (first) {
        map(high + 8192, 4096, MAP_FIXED);
        uintptr_t moved = (uintptr_t)mremap((void *)first, 8192, 1 << 20, MREMAP_MAYMOVE);
        printf("moved: %s, %s\n", moved < WINDOW ? "below" : "above", (char *)moved);
        printf("unmapped: %d\n", munmap((void *)high, 8192));
    }
    printf("none again: %s\n", where(map(0, 1 << 20, 0), 0));
}

static void full(void) {
    uintptr_t low = ~0UL, high = 0, found;
    size_t size = 256UL << 20;
    int count = 0;
    while (count < 100 && (found = map(0, size, 0))) {
        if (found < low) low = found;
        if (found + size > high) high = found + size;
        count++;
    }
    printf("%d pieces from %#lx to %#lx\n", count, low, high);
}

int main(int argc, char **argv) {
    uintptr_t address = argc > 2 ? strtoul(argv[2], 0, 16) : 0;
    setvbuf(stdout, 0, _IONBF, 0);
    if (!strcmp(argv[1], "touch")) touch(address, argv[3][0]);
    if (!strcmp(argv[1], "calls")) calls(address);
    if (!strcmp(argv[1], "hints")) hints();
    if (!strcmp(argv[1], "full")) full();
    puts("done");
    return 0;
}
