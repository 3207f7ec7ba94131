/* A page that is read, then written, is the alternate stack of a handler that stores nothing there before it returns. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

volatile int handled;
void handler(int);
__asm__("handler: incl handled(%rip)\n ret");

int main(void)
{
    char *page = mmap((void *)0x30000000, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    struct sigaction action;
    stack_t stack = {.ss_sp = page, .ss_size = 65536};
    long sum = 0;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGUSR1, &action, NULL);
    sigaltstack(&stack, NULL);
    for (long i = 0; i < 65536; i += 4096) sum += ((volatile char *)page)[i];
    ((volatile char *)page)[65536 - 4096] = 1;
    getppid();
    printf("handled %d sum %ld\n", handled, sum);
    return 0;
}
