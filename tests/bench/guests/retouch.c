/* First touch of 64 MiB, then 64 passes over it. */
#include "start.h"
int run(void) {
    u8 *p = map(64ul << 20);
    for (int pass = 0; pass < 65; pass++)
        for (u64 i = 0; i < 64ul << 20; i += 4096) p[i] += 1;
    say("ok\n");
    return 0;
}
