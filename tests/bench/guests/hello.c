#include "start.h"
int run(void) {
    say("hello\n");
    return 0;
}
