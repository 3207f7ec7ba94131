/* Code that changes under the processor's feet, in every way a user program can bring that about. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)
#define RX (PROT_READ | PROT_EXEC)

typedef int function(void);

/* mov eax, value; ret */
static void emit(unsigned char *at, int value) {
    at[0] = 0xb8;
    memcpy(at + 1, &value, 4);
    at[5] = 0xc3;
}

static int call(void *at) { return ((function *)at)(); }

static unsigned char *map(size_t pages, int prot) {
    void *at = mmap(NULL, pages * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) perror("mmap"), exit(1);
    return at;
}

static void in_place(void) {
    unsigned char *code = map(1, RW | PROT_EXEC);
    emit(code, 1);
    int a = call(code);
    emit(code, 2);
    int b = call(code);
    unsigned char other[8];
    emit(other, 3);
    memcpy(code, other, 6);
    printf("in place: %d %d %d\n", a, b, call(code));
    long sum = 0;
    for (int i = 0; i < 1000; i++) {
        emit(code + i % 64 * 8, i);
        sum += call(code + i % 64 * 8);
    }
    printf("a thousand rewrites: %ld\n", sum);
    munmap(code, PAGE);
}

static void write_xor_execute(void) {
    unsigned char *code = map(1, RW);
    int sum = 0;
    for (int i = 0; i < 50; i++) {
        mprotect(code, PAGE, RW);
        emit(code, i * 3);
        mprotect(code, PAGE, RX);
        sum += call(code);
    }
    printf("write xor execute: %d\n", sum);
    munmap(code, PAGE);
}

static void by_the_kernel(void) {
    unsigned char *code = map(2, RW | PROT_EXEC), image[8];
    int fd = open("code", O_RDWR | O_CREAT | O_TRUNC, 0600);
    for (int i = 10; i < 13; i++) emit(image, i), write(fd, image, 8);
    int sum[3];
    lseek(fd, 0, SEEK_SET);
    for (int i = 0; i < 3; i++) {
        if (read(fd, code + 100, 8) != 8) exit(1);
        sum[i] = call(code + 100);
    }
    printf("read(2) over code: %d %d %d\n", sum[0], sum[1], sum[2]);
    struct iovec parts[2] = {{code + 100, 3}, {code + 103, 5}};
    if (preadv(fd, parts, 2, 0) != 8) exit(1);
    printf("preadv(2): %d\n", call(code + 100));
    int ends[2];
    if (pipe(ends)) exit(1);
    emit(image, 77);
    write(ends[1], image, 8);
    if (read(ends[0], code + 100, 8) != 8) exit(1);
    printf("from a pipe: %d\n", call(code + 100));
    getcwd((char *)code + 200, 1000);
    printf("mapped over: ");
    emit(code, 20);
    printf("%d ", call(code));
    mmap(code, PAGE, RW | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, 0);
    printf("%d ", call(code + 8));
    mmap(code, PAGE, RW | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    emit(code, 21);
    printf("%d\n", call(code));
    close(fd);
    munmap(code, 2 * PAGE);
}

static void by_mremap(void) {
    unsigned char *first = map(1, RW | PROT_EXEC), *second = map(1, RW | PROT_EXEC);
    emit(first, 31);
    emit(second, 32);
    int a = call(first), b = call(second);
    if (mremap(second, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, first) != first) exit(1);
    printf("mremap over code: %d %d %d\n", a, b, call(first));
    munmap(first, PAGE);
}

static void through_an_alias(void) {
    int fd = open("shared", O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (ftruncate(fd, PAGE)) exit(1);
    unsigned char *writable = mmap(NULL, PAGE, RW, MAP_SHARED, fd, 0), image[8];
    unsigned char *code = mmap(NULL, PAGE, RX, MAP_SHARED, fd, 0);
    long sum = 0;
    for (int i = 0; i < 100; i++) {
        emit(writable + 64, i);
        sum += call(code + 64);
    }
    printf("through an alias: %ld\n", sum);
    emit(image, 1234);
    pwrite(fd, image, 6, 64);
    printf("pwrite(2) to the file: %d\n", call(code + 64));
    munmap(writable, PAGE);
    munmap(code, PAGE);
    close(fd);
}

static void reused_frames(void) {
    long sum = 0;
    for (int i = 0; i < 60; i++) {
        unsigned char *code = map(3, RW | PROT_EXEC);
        for (int page = 0; page < 3; page++) emit(code + page * PAGE + 16, i * 10 + page);
        for (int page = 0; page < 3; page++) sum += call(code + page * PAGE + 16);
        if (i % 3 == 0) madvise(code, PAGE, MADV_DONTNEED), emit(code + 16, 5), sum += call(code + 16);
        munmap(code, 3 * PAGE);
        unsigned char *plain = map(3, RW);
        memset(plain, 0xcc, 3 * PAGE);
        munmap(plain, 3 * PAGE);
    }
    printf("reused frames: %ld\n", sum);
}

static void own_block(void) {
    /* The store changes the instruction right behind it, in the same basic block. */
    unsigned char *code = map(1, RW | PROT_EXEC);
    const unsigned char text[] = {
        0xc6, 0x05, 0x01, 0x00, 0x00, 0x00, 0x2a, /* mov byte [rip+1], 42: the immediate of the next instruction */
        0xb8, 0x01, 0x00, 0x00, 0x00,             /* mov eax, 1 */
        0xc3,
    };
    memcpy(code, text, sizeof text);
    int a = call(code);
    printf("the next instruction: %d\n", a);
    /* A loop that counts its own immediate up. */
    const unsigned char loop[] = {
        0x31, 0xc0,                               /* xor eax, eax */
        0xb9, 0x64, 0x00, 0x00, 0x00,             /* mov ecx, 100 */
        0x83, 0xc0, 0x01,                         /* again: add eax, 1 */
        0xfe, 0x05, 0xf9, 0xff, 0xff, 0xff,       /* inc byte [rip-7]: the 1 above (wraps as signed) */
        0xff, 0xc9,                               /* dec ecx */
        0x75, 0xf3,                               /* jnz again */
        0xc3,
    };
    memcpy(code + 512, loop, sizeof loop);
    printf("a loop over itself: %d\n", call(code + 512));
    munmap(code, PAGE);
}

static void across_pages(void) {
    unsigned char *code = map(2, RW | PROT_EXEC);
    unsigned char *at = code + PAGE - 3;
    emit(at, 0x11223344);
    int a = call(at);
    code[PAGE + 1] = 0x55;
    int b = call(at);
    mprotect(code + PAGE, PAGE, RX);
    at[1] = 0x66;
    printf("across pages: %x %x %x\n", a, b, call(at));
    munmap(code, 2 * PAGE);
}

static void copy_on_write(void) {
    int fd = open("code", O_RDONLY);
    unsigned char *code = mmap(NULL, PAGE, RW | PROT_EXEC, MAP_PRIVATE, fd, 0);
    int a = call(code);
    emit(code, 55);
    int b = call(code);
    madvise(code, PAGE, MADV_DONTNEED);
    printf("copy on write: %d %d %d\n", a, b, call(code));
    munmap(code, PAGE);
    close(fd);
}

static int __attribute__((noinline, aligned(4096))) patched(void) { return 100; }

static void own_text(void) {
    unsigned char *page = (unsigned char *)((uintptr_t)patched & ~(PAGE - 1));
    int a = patched();
    if (mprotect(page, PAGE, RW | PROT_EXEC)) exit(1);
    emit((unsigned char *)(uintptr_t)patched, 101);
    function *volatile again = patched;
    printf("own text: %d %d\n", a, again());
}

int main(void) {
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    in_place();
    write_xor_execute();
    by_the_kernel();
    by_mremap();
    through_an_alias();
    reused_frames();
    own_block();
    across_pages();
    copy_on_write();
    own_text();
    return 0;
}
