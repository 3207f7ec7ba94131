/* Functions chosen at start: exported, private, in tables, in data that the program copies. */
#include "free.h"
#if defined(LIB_A)
static int one(void) { return 1; }
static int two(void) { return 2; }
int chooser = 1;
static int *volatile where = &chooser;
static int (*pick(void))(void) { return *where ? two : one; }
int chosen(void) __attribute__((ifunc("pick")));
static int quiet(void) __attribute__((ifunc("pick")));
static int hidden_one(void) __attribute__((ifunc("pick")));
int (*const pointers[3])(void) = {one, chosen, hidden_one};
int (*copied[2])(void) = {chosen, one};
__thread int (*in_tls)(void) = chosen;
int inside(void) { return chosen() * 100 + quiet() * 10 + pointers[1]() + in_tls(); }
int (*address(void))(void) { return chosen; }
#else
extern int chosen(void), inside(void), (*copied[2])(void), (*const pointers[3])(void), (*address(void))(void);
static int mine(void) { return 5; }
static int (*pick(void))(void) { return mine; }
int own(void) __attribute__((ifunc("pick")));
int run(u64 *stack) {
    number("chosen", chosen());
    number("inside", inside());
    number("copied", copied[0]() * 10 + copied[1]());
    number("pointers", pointers[0]() * 100 + pointers[1]() * 10 + pointers[2]());
    number("address", address() == chosen ? 1 : 0);
    number("own", own());
    return 0;
}
#endif
