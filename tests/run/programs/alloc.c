/* malloc and its relatives, from bytes to hundreds of MiB. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t state = 12345;

static uint32_t next(void) {
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

static void churn(void) {
    enum { SLOTS = 400 };
    static unsigned char *slot[SLOTS];
    static size_t size[SLOTS];
    unsigned long bad = 0, sum = 0;
    for (int round = 0; round < 6000; round++) {
        int i = next() % SLOTS;
        if (slot[i]) {
            for (size_t at = 0; at < size[i]; at += 97) bad += slot[i][at] != (unsigned char)(i + size[i]);
            if (next() & 1) {
                free(slot[i]);
                slot[i] = NULL;
                continue;
            }
        }
        size_t want = 1 + next() % (next() % 50 == 0 ? 300000 : 2000);
        slot[i] = realloc(slot[i], want);
        size[i] = want;
        memset(slot[i], (unsigned char)(i + want), want);
        sum += want;
    }
    for (int i = 0; i < SLOTS; i++) free(slot[i]);
    printf("churn: %lu bytes asked for, %lu wrong\n", sum, bad);
}

static void sparse(size_t mib) {
    size_t size = mib << 20, zeros = 0;
    unsigned char *block = malloc(size);
    if (!block) {
        printf("sparse %zu MiB: no memory\n", mib);
        return;
    }
    for (size_t at = 0; at < size; at += 1 << 20) zeros += block[at] == 0, block[at] = (unsigned char)(at >> 20);
    unsigned long sum = 0;
    for (size_t at = 0; at < size; at += 1 << 20) sum += block[at];
    printf("sparse %zu MiB: %zu zero, sum %lu\n", mib, zeros, sum);
    free(block);
}

static void full(size_t mib) {
    size_t words = (mib << 20) / 8;
    uint64_t *block = malloc(words * 8);
    uint64_t sum = 0;
    for (size_t i = 0; i < words; i += 64) block[i] = i * 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < words; i += 64) sum ^= block[i] >> 7;
    memset(block + words / 2, 0x5a, 4096 * 5);
    printf("full %zu MiB: %016llx %02x\n", mib, (unsigned long long)sum, ((unsigned char *)block)[mib << 19]);
    free(block);
}

int main(void) {
    churn();
    sparse(700);
    full(200);
    full(20);
    unsigned char *zeroed = calloc(3 << 20, 7);
    size_t nonzero = 0;
    for (size_t i = 0; i < (size_t)(3 << 20) * 7; i += 4096) nonzero += zeroed[i] != 0;
    printf("calloc: %zu\n", nonzero);
    zeroed[5] = 9;
    zeroed = realloc(zeroed, 64 << 20);
    printf("realloc keeps: %d\n", zeroed[5]);
    free(zeroed);
    void *aligned = NULL;
    printf("posix_memalign: %d %d\n", posix_memalign(&aligned, 1 << 16, 100), (int)((uintptr_t)aligned & 0xffff));
    printf("too much: %s\n", malloc((size_t)1 << 62) ? "given" : "refused");
    return 0;
}
