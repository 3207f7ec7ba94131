/* Two processes that yield to each other, count times together. */
#include "start.h"
int run(u64 count, char **words) {
    long pid = call3(FORK, 0, 0, 0);
    if (pid < 0) return 1;
    for (u64 i = 0; i < count / 2; i++) call3(24, 0, 0, 0);
    if (!pid) leave(5);
    u64 status = (u64)end_child(pid);
    hex(&status, 8);
    return 0;
}
