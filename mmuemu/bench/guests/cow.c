/* count children, each of which writes to the 500 pages it got from its parent. */
#include "start.h"
int run(u64 count, char **words) {
    u64 sum = 0;
    volatile u8 *p = map(500 << 12, 3);
    for (int i = 0; i < 500; i++) p[i << 12] = 1;
    for (u64 done = 0; done < count; done++) {
        long pid = call3(FORK, 0, 0, 0);
        if (!pid) {
            int seen = 0;
            for (int i = 0; i < 500; i++) seen += ++p[i << 12];
            leave(seen == 1000 ? 3 : 4);
        }
        if (pid < 0) return 1;
        sum += (u64)end_child(pid) + p[(done % 500) << 12];
    }
    hex(&sum, 8);
    return 0;
}
