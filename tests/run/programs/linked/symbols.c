/* Binding: scope order, weak ones, copies, one address for a function, -Bsymbolic, visibility. */
#include "free.h"
#if defined(LIB_A)
int data[4] = {1, 2, 3, 4};
int *const inside = &data[2];
int zeroed[2000];
int both(void) { return 10; }
int through_a(void) { return both(); }
__attribute__((visibility("protected"))) int kept(void) { return 20; }
int through_kept(void) { return kept(); }
__attribute__((weak)) int weak_first(void) { return 30; }
void *address_of_both(void) { return (void *)both; }
extern int from_b(void);
int a_to_b(void) { return from_b(); }
int only_data = 77;
#elif defined(LIB_B)
int both(void) { return 11; }
int through_b(void) { return both(); }
int kept(void) { return 21; }
int weak_first(void) { return 31; }
int from_b(void) { return 40; }
extern int nowhere(void) __attribute__((weak));
int maybe(void) { return nowhere ? nowhere() : 50; }
extern int from_program(void) __attribute__((weak));
int asks_program(void) { return from_program ? from_program() : 60; }
int *nothing_weak(void) { extern int gone __attribute__((weak)); return &gone; }
#else
extern int data[4], zeroed[2000], *const inside;
extern int both(void), through_a(void), through_b(void), kept(void), through_kept(void), weak_first(void);
extern int a_to_b(void), maybe(void), asks_program(void);
extern void *address_of_both(void);
extern int *nothing_weak(void);
int from_program(void) { return 61; }
extern int optional(void) __attribute__((weak));
static int (*volatile table[])(void) = {both, kept, weak_first};
int run(u64 *stack) {
    data[2] = 99;
    number("copy seen from the library", *inside);
    number("zeros", zeroed[1999]);
    number("both", both());
    number("through a", through_a());
    number("through b", through_b());
    number("kept", kept());
    number("through kept", through_kept());
    number("weak", weak_first());
    number("table", table[0]() + table[1]() + table[2]());
    number("one address", address_of_both() == (void *)both);
    number("a to b", a_to_b());
    number("maybe", maybe());
    number("program", asks_program());
    number("optional", optional ? 1 : 0);
    number("nothing", (long)nothing_weak());
    return 0;
}
#endif
