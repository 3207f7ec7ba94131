/* One name, several versions. -DOLD builds the library as it was when the first program was linked. */
#include "free.h"
#if defined(LIB_V) && defined(OLD)
int f(void) { return 1; }
int g(void) { return 1; }
#elif defined(LIB_V)
__asm__(".symver f_1,f@V1\n.symver f_2,f@V2\n.symver f_3,f@@V3\n");
int f_1(void) { return 1; }
int f_2(void) { return 2; }
int f_3(void) { return 3; }
int g(void) { return 4; }
int h(void) { return f_2() + 5; }
#elif defined(LIB_W)
extern int f(void);
int new_f(void) { return f(); }
#elif defined(LIB_U)
int g(void) { return 70; }
#else
extern int f(void), g(void), new_f(void);
int run(u64 *stack) {
    number("program's f", f());
    number("library's f", new_f());
    number("g", g());
    return 0;
}
#endif
