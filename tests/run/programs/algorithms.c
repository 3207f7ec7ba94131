/* What libcs do in user mode: sorting, searching, jumps, strings, numbers, wide characters. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <wchar.h>

static jmp_buf place;

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void sorting(void) {
    enum { COUNT = 20000 };
    static uint32_t values[COUNT];
    uint32_t x = 1, hash = 0;
    for (int i = 0; i < COUNT; i++) x ^= x << 13, x ^= x >> 17, x ^= x << 5, values[i] = x % 50000;
    qsort(values, COUNT, sizeof *values, ascending);
    for (int i = 0; i < COUNT; i++) hash = hash * 31 + values[i];
    int wrong = 0;
    for (int i = 1; i < COUNT; i++) wrong += values[i - 1] > values[i];
    uint32_t key = values[777];
    uint32_t *found = bsearch(&key, values, COUNT, sizeof *values, ascending);
    printf("%08x, %d out of order, found %d\n", hash, wrong, found && *found == key);
}

static void __attribute__((noinline)) deeper(int depth) {
    volatile char frame[200];
    frame[0] = (char)depth;
    if (depth == 0) longjmp(place, 42);
    deeper(depth - 1);
    printf("not reached %d\n", frame[0]);
}

static void jumps(void) {
    volatile int times = 0;
    int value = setjmp(place);
    printf("setjmp %d, times %d\n", value, times);
    if (times++ < 2) deeper(50 * times);
}

static long total(int count, ...) {
    va_list list;
    va_start(list, count);
    long sum = 0;
    for (int i = 0; i < count; i++) sum += i % 2 ? (long)va_arg(list, double) : va_arg(list, long);
    va_end(list);
    return sum;
}

static void strings(void) {
    char text[] = "the quick  brown,fox;jumps over", *rest = text, *word;
    while ((word = strsep(&rest, " ,;"))) printf("[%s]", word);
    puts("");
    static char big[70000];
    for (int align = 0; align < 20; align += 3) {
        memset(big, 'a', sizeof big - 1);
        big[30000 + align] = 0;
        big[29000] = 'b';
        printf("%zu %td %d %d ", strlen(big + align), (char *)memchr(big, 'b', 60000) - big,
               strcmp(big, big + 1) > 0, memcmp(big, big + 4, 28000));
        memmove(big + align, big, 25000);
        printf("%td\n", strstr(big + 28990, "ba") - big);
    }
    printf("%s %5.2s| %-6d|%06d %x %o %c %% %zu %" PRIx64 "\n", "str", "abc", 42, -42, 255, 8, 'z', (size_t)9, (uint64_t)-1);
    printf("%ld %s\n", total(6, 1l, 2.5, 3l, 4.5, 5l, 6.5), strerror(ENOENT));
    int a = 0, b = 0, read = sscanf("12 0x1f 3.5 word", "%d %i", &a, &b);
    printf("%d %d %d %ld %lu\n", read, a, b, strtol("-0777", NULL, 0), strtoul("18446744073709551616", NULL, 10));
    printf("%d\n", errno == ERANGE);
    wchar_t wide[8];
    size_t count = mbstowcs(wide, "wide", 8);
    printf("%zu %d\n", count, (int)wide[3]);
}

static void numbers(void) {
    unsigned __int128 big = (unsigned __int128)0xfedcba9876543210u * 0x123456789abcdefu;
    printf("%016llx%016llx\n", (unsigned long long)(big >> 64), (unsigned long long)big);
    big /= 1000000007;
    printf("%016llx\n", (unsigned long long)big);
    uint64_t x = 0x123456789abcdef0;
    printf("%d %d %d %016llx\n", __builtin_popcountll(x), __builtin_clzll(x), __builtin_ctzll(x),
           (unsigned long long)__builtin_bswap64(x));
    volatile int64_t minus = -7;
    printf("%lld %lld %lld\n", (long long)(minus / 2), (long long)(minus % 2), (long long)(minus >> 1));
    srand(1);
    struct tm tm = {.tm_year = 100, .tm_mon = 1, .tm_mday = 30};
    time_t when = timegm(&tm);
    char buffer[64];
    strftime(buffer, sizeof buffer, "%Y-%m-%d %A %j", gmtime(&when));
    printf("%lld %s\n", (long long)when, buffer);
}

int main(void) {
    sorting();
    jumps();
    strings();
    numbers();
    return 0;
}
