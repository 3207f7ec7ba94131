/* fork, exit of the child and wait, count times; sums those that went well. */
#include "start.h"
int run(u64 count, char **words) {
    u64 sum = 0;
    for (u64 i = 0; i < count; i++) {
        long pid = call3(FORK, 0, 0, 0);
        if (!pid) leave(0);
        if (pid < 0) return 1;
        sum += end_child(pid) == 0;
    }
    hex(&sum, 8);
    return 0;
}
