/* The first touch of count pages. */
#include "start.h"
int run(u64 count, char **words) {
    u64 sum = 0;
    if (count) {
        volatile u8 *p = map(count << 12, 3);
        for (u64 i = 0; i < count; i++) sum += ++p[i << 12];
    }
    hex(&sum, 8);
    return 0;
}
