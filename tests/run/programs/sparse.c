/* 64 GiB reserved, 1,024 pages of it touched. */
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>

int main(void) {
    const uint64_t size = 64ull << 30, step = size / 1024;
    char *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    uint64_t wrong = 0, sum = 0;
    for (int i = 0; i < 1024; i++) {
        uint64_t *word = (uint64_t *)(at + i * step + (i * 8 & 0xff8));
        wrong += *word != 0;
        *word = (uint64_t)i * i;
    }
    for (int i = 0; i < 1024; i++) sum += *(uint64_t *)(at + i * step + (i * 8 & 0xff8));
    printf("%llu not zero, sum %llu\n", (unsigned long long)wrong, (unsigned long long)sum);
    printf("drop the upper half: %d\n", madvise(at + size / 2, size / 2, MADV_DONTNEED));
    sum = 0;
    for (int i = 0; i < 1024; i++) sum += *(uint64_t *)(at + i * step + (i * 8 & 0xff8));
    printf("sum %llu\n", (unsigned long long)sum);
    printf("unmap: %d\n", munmap(at, size));
    return 0;
}
