/* vfork, execve of the program itself (words[0] says where it is), exit and wait, count times. */
#include "start.h"
int run(u64 count, char **words) {
    u64 sum = 0;
    char *arguments[] = {words[0], 0}, *environment[] = {0};
    for (u64 i = 0; i < count; i++) {
        long pid = call3(VFORK, 0, 0, 0);
        if (!pid) {
            call3(EXECVE, (long)words[0], (long)arguments, (long)environment);
            leave(1);
        }
        if (pid < 0) return 1;
        sum += (u64)end_child(pid) == 0;
    }
    if (words[0]) hex(&sum, 8);
    return 0;
}
