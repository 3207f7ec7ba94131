/* mprotect to nothing, a store, the SIGSEGV handled by mprotect to writable, and the store again; count times. */
#include "start.h"
#include "signals.h"
static u8 *page;
static volatile u64 caught;
static void on_fault(int signal, void *info, void *context) {
    caught += *(u64 *)((u8 *)info + 16) == (u64)page + 8;
    call3(MPROTECT, (long)page, 4096, 3);
}
int run(u64 count, char **words) {
    page = map(4096, 3);
    handle(11, on_fault);
    for (u64 i = 0; i < count; i++) {
        if (call3(MPROTECT, (long)page, 4096, 0)) return 1;
        page[8] = 1;
        __asm__ volatile("" ::: "memory");
    }
    hex((const void *)&caught, 8);
    return 0;
}
