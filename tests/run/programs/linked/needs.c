/* A program that needs one function of a library, and wants another. */
#include "free.h"
#if defined(LIB_A)
#ifndef EMPTY
int needed(void) { return 1; }
#endif
int other(void) { return WHICH; }
#else
extern int other(void);
#ifndef UNDEMANDING
extern int needed(void);
#else
#define needed() 1
#endif
extern int wanted(void) __attribute__((weak));
int run(u64 *stack) {
    number("needed", needed() + (wanted ? 1 : 0));
    number("other", other());
    return 0;
}
#endif
