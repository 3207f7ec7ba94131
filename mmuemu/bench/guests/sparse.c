/* Pages touched alone in their 2 MiB, 500 at a time, and given back; count times 500. */
#include "start.h"
int run(u64 count, char **words) {
    u64 sum = 0;
    for (u64 pass = 0; pass < count; pass++) {
        u8 *all = map(500ul << 21, 3);
        volatile u8 *p = all;
        for (u64 i = 0; i < 500; i++) sum += ++p[i << 21];
        if (call3(MUNMAP, (long)all, 500ul << 21, 0)) return 1;
    }
    hex(&sum, 8);
    return 0;
}
