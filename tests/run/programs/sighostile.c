/* rt_sigreturn with frames no kernel made: how each ends, in a child of its own. */
#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static int which;
static ucontext_t *context_of_handler;

static void told(int number, siginfo_t *info, void *context)
{
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    printf("  signal %d code %d addr %p trap %lld err %#llx rip %#llx\n", number, info->si_code, info->si_addr,
           g[REG_TRAPNO], g[REG_ERR], g[REG_RIP] > 0x7000000000000000 || g[REG_RIP] < 0x1000 ? g[REG_RIP] : 0);
    fflush(stdout);
    _exit(7);
}

static void spoil(ucontext_t *u)
{
    greg_t *g = u->uc_mcontext.gregs;
    unsigned char *fp = (unsigned char *)u->uc_mcontext.fpregs;
    uint32_t size = *(uint32_t *)(fp + 480);
    switch (which) {
    case 0: break;
    case 1: g[REG_RIP] = 0x8000000000001234; break;
    case 2: g[REG_RIP] = 0xffffffff81000000; break;
    case 3: g[REG_RIP] = 0x10; break;
    case 4: g[REG_CSGSFS] = (g[REG_CSGSFS] & ~0xffffL) | 0x10; break;
    case 5: g[REG_CSGSFS] = (g[REG_CSGSFS] & ~0xffffL) | 0x18; break;
    case 6: g[REG_CSGSFS] = (g[REG_CSGSFS] & ~0xffffL) | 0xfff3; break;
    case 7: g[REG_CSGSFS] = (g[REG_CSGSFS] & ~0xffffL) | 0x30; break;       /* RPL 0: made 3 */
    case 8: g[REG_CSGSFS] = (g[REG_CSGSFS] & 0xffffffffffffL) | 0x18L << 48; break;
    case 9: g[REG_CSGSFS] = g[REG_CSGSFS] & 0xffffffffffffL; break;         /* SS null */
    case 10: u->uc_flags &= ~4L; g[REG_CSGSFS] &= 0xffffffffffffL; break;   /* SS null, to be repaired */
    case 11: u->uc_mcontext.fpregs = (void *)0x30; break;
    case 12: u->uc_mcontext.fpregs = NULL; break;
    case 13: u->uc_mcontext.fpregs = (void *)0xffff888000000000; break;
    case 14: u->uc_mcontext.fpregs = (void *)(fp + 8); break;
    case 15: *(uint32_t *)(fp + 24) |= 0x10000; break;                      /* MXCSR reserved */
    case 16: *(uint32_t *)(fp + 464) = 0; break;                            /* no magic: plain FXSAVE */
    case 17: *(uint32_t *)(fp + 464) = 0; *(uint32_t *)(fp + 24) |= 0x10000; break;
    case 18: *(uint32_t *)(fp + size) = 0; break;                           /* no end mark */
    case 19: *(uint64_t *)(fp + 512) |= 1UL << 62; break;                   /* XSTATE_BV with an unknown feature */
    case 20: *(uint64_t *)(fp + 520) = 1; break;                            /* XCOMP_BV */
    case 21: *(uint64_t *)(fp + 528) = 1; break;                            /* reserved header bytes */
    case 22: *(uint64_t *)(fp + 512) = 0; break;                            /* everything initial */
    case 23: *(uint64_t *)(fp + 472) = 1; break;                            /* xfeatures: x87 only */
    case 24: g[REG_EFL] = ~0x40100L; /* all but TF and AC */ break;
    case 25: u->uc_stack.ss_size = 1; u->uc_stack.ss_flags = 77; break;
    case 26: memset(&u->uc_sigmask, 0xff, 8); break;
    case 27: *(uint32_t *)(fp + 484 - 16) = 0; break;                       /* extended_size 0 */
    case 28: g[REG_RSP] = 0x8000000000000000; break;
    case 29: u->uc_mcontext.fpregs = (void *)(fp + 64); break;              /* magic elsewhere */
    }
}

static void handler(int number, siginfo_t *info, void *context)
{
    spoil(context);
}

static void on(int number, void *function)
{
    struct sigaction action = {.sa_sigaction = function, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(number, &action, NULL);
}

static void child(void)
{
    static char room[65536];
    stack_t stack = {.ss_sp = room, .ss_size = sizeof room};
    on(SIGSEGV, told);
    on(SIGBUS, told);
    on(SIGUSR1, handler);
    if (which >= 30) {
        /* No handler at all: a bare rt_sigreturn with RSP where the frame is not. */
        sigaltstack(&stack, NULL);
        long where = which == 30 ? 8 : which == 31 ? 0x8000000000000000 : 0x7ffffffff000;
        __asm__ volatile("mov %0, %%rsp; mov $15, %%eax; syscall; ud2" ::"r"(where));
    }
    double in = 1.5, out = 0;
    long flags;
    uint32_t mxcsr = 0x3f80, after;
    __asm__ volatile("ldmxcsr %0; fld1" ::"m"(mxcsr));
    long result;
    long pid = getpid();
    /* The alternate stack is for the second handler only. */
    on(SIGUSR1, handler);
    sigaltstack(&stack, NULL);
    __asm__ volatile("movsd %[in], %%xmm7; syscall; movsd %%xmm7, %[out]; pushfq; pop %[flags]; stmxcsr %[after]"
                     : "=a"(result), [out] "=m"(out), [flags] "=r"(flags), [after] "=m"(after)
                     : "0"(SYS_kill), "D"(pid), "S"(SIGUSR1), [in] "m"(in)
                     : "rcx", "r11", "xmm7", "memory");
    sigset_t mask;
    sigprocmask(SIG_SETMASK, NULL, &mask);
    stack_t now;
    sigaltstack(NULL, &now);
    printf("  back: %ld xmm7 %g mxcsr %x flags %lx mask %lx stack %x %zu\n", result, out, after & ~0x3f, flags & ~0x40244,
           *(long *)&mask, now.ss_flags, now.ss_size);
    fflush(stdout);
    __asm__ volatile("push $0x202; popfq");
    _exit(0);
}

int main(void)
{
    for (which = 0; which < 33; which++) {
        printf("%d\n", which);
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0)
            child();
        int status;
        waitpid(pid, &status, 0);
        printf("  status %x\n", status & ~0x80);
    }
    return 0;
}
