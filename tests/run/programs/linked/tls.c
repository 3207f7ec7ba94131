/* Thread-local storage in three modules, by whatever model the compiler was told; -DIE makes the library's static. */
#include "free.h"
#if defined(LIB_A)
int target = 5;
__thread long counter = 100;
__thread int *to_target = &target;
__thread char large[5000];
static __thread int hidden = 7;
static __thread int hidden_zero;
__attribute__((aligned(256))) __thread char wide[256] = {9};
long bump(void) { return counter++ + hidden++ + hidden_zero++ + *to_target + large[4999]++; }
u64 wide_place(void) { return (u64)wide % 256 + wide[0]; }
extern __thread long from_b;
long of_b(void) { return from_b += 2; }
extern __thread int nowhere __attribute__((weak));
int *weak_tls(void) { return &nowhere; }
#elif defined(LIB_B)
__thread long from_b = 1000;
__thread char odd[3] = {1, 2, 3};
long sum(void) { return odd[0]++ + odd[1] + odd[2] + from_b; }
#else
extern __thread long counter;
extern long bump(void), of_b(void), sum(void);
extern u64 wide_place(void);
__thread int mine = 3;
__thread int mine_zero[100];
int run(u64 *stack) {
    u64 self, guard;
    __asm__("mov %%fs:0, %0" : "=r"(self));
    __asm__("mov %%fs:0x28, %0" : "=r"(guard));
    number("bump", bump());
    number("bump", bump());
    number("counter", counter);
    counter = 500;
    number("bump", bump());
    number("wide", wide_place());
    number("of b", of_b());
    number("sum", sum() + sum());
    number("mine", mine++ + mine_zero[99]);
    number("below the thread pointer", (u64)&mine < self && self - (u64)&mine < 4096);
    number("guard", guard != 0 && !(guard & 255));
    return 0;
}
#endif
