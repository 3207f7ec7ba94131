/* Six MiB of stack in small frames, then one large frame that skips pages. */
#include <stdio.h>
#include <string.h>

static int __attribute__((noinline)) descend(int depth, volatile char *above) {
    volatile char frame[1024];
    frame[0] = (char)depth;
    frame[1023] = (char)(depth >> 8);
    int below = depth ? descend(depth - 1, frame) : 0;
    return below + (frame[0] == (char)depth && frame[1023] == (char)(depth >> 8)) + (above == NULL);
}

static unsigned __attribute__((noinline)) wide(void) {
    volatile unsigned char frame[6 << 20];
    unsigned sum = 0;
    frame[0] = 1, frame[3 << 20] = 2, frame[sizeof frame - 1] = 4;
    for (size_t at = 0; at < sizeof frame; at += 1 << 16) sum += frame[at];
    return sum + frame[sizeof frame - 1];
}

static long ackermann(long m, long n) {
    if (m == 0) return n + 1;
    return n == 0 ? ackermann(m - 1, 1) : ackermann(m - 1, ackermann(m, n - 1));
}

int main(void) {
    printf("descend: %d\n", descend(5800, NULL));
    printf("wide frame touched: %d\n", wide() >= 7);
    printf("ackermann(2, 300) = %ld\n", ackermann(2, 300));
    return 0;
}
