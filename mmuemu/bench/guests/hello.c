/* The smallest program that says something. */
#include "start.h"
int run(u64 count, char **words) {
    say("hello\n");
    return 0;
}
