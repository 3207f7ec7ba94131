/* getpid, count times. */
#include "start.h"
int run(u64 count, char **words) {
    u64 right = 0;
    for (u64 i = 0; i < count; i++) right += call3(GETPID, 0, 0, 0) > 0;
    hex(&right, 8);
    return 0;
}
