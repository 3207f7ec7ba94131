/* Stores to what is read-only after relocation: argument 1 says whose. */
#include "free.h"
#if defined(LIB_A)
int value;
int *const table[2] = {&value, &value};
void store(void) { *(int *volatile *)&table[0] = 0; }
#else
extern int value;
extern void store(void);
static void *const own[2] = {&value, (void *)store};
int run(u64 *stack) {
    char **argv = (char **)(stack + 1);
    number("before", *(void *volatile *)&own[1] == (void *)store);
    if (argv[1][0] == 'l') store();
    if (argv[1][0] == 'p') *(void *volatile *)&own[0] = 0;
    say("after\n");
    return 0;
}
#endif
