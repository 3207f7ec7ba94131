/* Signal frames: what a handler sees, what it may change, and what comes back. */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static void on(int number, void *handler, int flags, const sigset_t *mask)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = flags};
    if (mask)
        action.sa_mask = *mask;
    if (sigaction(number, &action, NULL))
        perror("sigaction");
}

/* -- floating point over a handler that clobbers it -- */

static unsigned seen_mxcsr, seen_fcw;
static double seen_xmm;

static void clobber(int number)
{
    unsigned short fcw;
    __asm__ volatile("stmxcsr %0" : "=m"(seen_mxcsr));
    __asm__ volatile("fnstcw %0" : "=m"(fcw));
    seen_fcw = fcw;
    unsigned mxcsr = 0x7f80;
    __asm__ volatile("movq %%xmm5, %0" : "=r"(*(uint64_t *)&seen_xmm));
    __asm__ volatile("fninit; fldz; fldz; fld1; ldmxcsr %0; pcmpeqd %%xmm0, %%xmm0; movdqa %%xmm0, %%xmm1\n\t"
                     "movdqa %%xmm0, %%xmm5; movdqa %%xmm0, %%xmm15" ::"m"(mxcsr) : "xmm0", "xmm1", "xmm5", "xmm15");
}

static void floating_point(void)
{
    double out[3];
    uint64_t x[4];
    unsigned mxcsr = 0x3f80;
    unsigned short fcw = 0x0a7f, after, status;
    on(SIGUSR1, clobber, 0, NULL);
    long pid = getpid(), result;
    __asm__ volatile("fninit; fldcw %[fcw]; ldmxcsr %[mx]; fldpi; fld1; fldl2t\n\t"
                     "mov $0x1122334455667788, %%r8; movq %%r8, %%xmm5; movq %%r8, %%xmm15\n\t"
                     "pshufd $0x4e, %%xmm15, %%xmm15\n\t"
                     "syscall\n\t"
                     "fstpl %[a]; fstpl %[b]; fstpl %[c]; fnstcw %[after]; fnstsw %[sw]; stmxcsr %[mx]\n\t"
                     "movdqu %%xmm5, %[x0]; movdqu %%xmm15, %[x1]"
                     : "=a"(result), [a] "=m"(out[0]), [b] "=m"(out[1]), [c] "=m"(out[2]), [after] "=m"(after),
                       [mx] "+m"(mxcsr), [x0] "=m"(x[0]), [x1] "=m"(x[2]), [sw] "=m"(status)
                     : "0"(SYS_kill), "D"(pid), "S"(SIGUSR1), [fcw] "m"(fcw)
                     : "r8", "rcx", "r11", "xmm5", "xmm15", "memory");
    printf("fp: %ld %.17g %.17g %.17g cw %x sw %x mxcsr %x\n", result, out[0], out[1], out[2], after, status & 0x3800, mxcsr);
    printf("xmm5 %lx %lx xmm15 %lx %lx\n", x[0], x[1], x[2], x[3]);
    printf("handler began with mxcsr %x cw %x xmm5 %g\n", seen_mxcsr, seen_fcw, seen_xmm);
    mxcsr = 0x1f80;
    __asm__ volatile("fninit; ldmxcsr %0" ::"m"(mxcsr));
}

/* -- a handler that changes registers -- */

static void skip(int number, siginfo_t *info, void *context)
{
    ucontext_t *u = context;
    u->uc_mcontext.gregs[REG_RIP] += 2;
    u->uc_mcontext.gregs[REG_RAX] = 0x5555;
    u->uc_mcontext.gregs[REG_EFL] |= 0x8d5 | 0x3000 | 0x20000; /* arithmetic flags yes, IOPL and VM no */
    struct _libc_fpstate *fp = u->uc_mcontext.fpregs;
    fp->_xmm[3].element[0] = 0xabcdef;
}

static void change(void)
{
    long rax = 1, flags;
    int xmm;
    on(SIGILL, skip, SA_SIGINFO, NULL);
    __asm__ volatile("xor %%ecx, %%ecx; ud2; pushfq; pop %1; movd %%xmm3, %2"
                     : "+a"(rax), "=&r"(flags), "=&r"(xmm)::"rcx", "xmm3", "cc");
    printf("skipped: rax %lx flags %lx xmm3 %x\n", rax, flags & ~0x202L, xmm);
}

/* Every register comes back, RCX and R11 too. */

static void nothing(int number)
{
}

static void all_registers(void)
{
    on(SIGILL, skip, SA_SIGINFO, NULL);
    uint64_t v[8];
    __asm__ volatile("mov $1, %%ecx; mov $2, %%r11d; mov $3, %%r8d; mov $4, %%r9d; mov $5, %%r10d; mov $6, %%edx\n\t"
                     "mov $7, %%esi; ud2\n\t"
                     "mov %%rcx, 0(%0); mov %%r11, 8(%0); mov %%r8, 16(%0); mov %%r9, 24(%0); mov %%r10, 32(%0)\n\t"
                     "mov %%rdx, 40(%0); mov %%rsi, 48(%0); mov %%rax, 56(%0)" ::"D"(v)
                     : "rcx", "r11", "r8", "r9", "r10", "rdx", "rsi", "rax", "memory", "xmm3");
    for (int i = 0; i < 8; i++)
        printf("%lx ", v[i]);
    printf("\n");
}

/* -- alternate stacks -- */

static char alternate[65536];
static sigjmp_buf back;

static void on_alternate(int number, siginfo_t *info, void *context)
{
    char here;
    stack_t now;
    ucontext_t *u = context;
    sigaltstack(NULL, &now);
    printf("signal %d on the alternate stack: %d, aligned %d, flags %x, size %zu, uc_stack %d %x %zu\n", number,
           &here >= alternate && &here < alternate + sizeof alternate, (int)((uintptr_t)__builtin_frame_address(0) % 16),
           now.ss_flags, now.ss_size, u->uc_stack.ss_sp == alternate, u->uc_stack.ss_flags, u->uc_stack.ss_size);
    stack_t other = {.ss_sp = alternate, .ss_size = 4096};
    int result = sigaltstack(&other, NULL);
    printf("changing it: %d %d\n", result, result ? errno : 0);
    if (number == SIGSEGV)
        siglongjmp(back, 1);
}

static int deep(int n)
{
    volatile char page[4096];
    page[0] = n;
    return n ? deep(n - 1) + page[0] : 0;
}

static void nested(int number)
{
    static volatile int depth;
    char here;
    printf("nested %d at depth %d: alternate %d\n", number, depth,
           &here >= alternate && &here < alternate + sizeof alternate);
    if (++depth < 3)
        raise(SIGUSR2);
    depth--;
}

static void alternates(void)
{
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate}, old;
    printf("%d ", sigaltstack(NULL, &old));
    printf("%x %zu\n", old.ss_flags, old.ss_size);
    printf("%d\n", sigaltstack(&stack, NULL));
    on(SIGUSR1, on_alternate, SA_SIGINFO | SA_ONSTACK, NULL);
    raise(SIGUSR1);
    on(SIGUSR1, on_alternate, SA_SIGINFO, NULL);
    raise(SIGUSR1);
    sigaltstack(&stack, NULL);
    on(SIGSEGV, on_alternate, SA_SIGINFO | SA_ONSTACK, NULL);
    if (!sigsetjmp(back, 1))
        deep(1 << 20);
    printf("survived the overflow\n");
    on(SIGUSR2, nested, SA_ONSTACK | SA_NODEFER, NULL);
    raise(SIGUSR2);
    stack.ss_flags = 1u << 31; /* SS_AUTODISARM */
    printf("%d\n", sigaltstack(&stack, NULL));
    on(SIGUSR1, on_alternate, SA_SIGINFO | SA_ONSTACK, NULL);
    raise(SIGUSR1);
    sigaltstack(NULL, &old);
    printf("after autodisarm: %x %zu\n", old.ss_flags, old.ss_size);
    stack.ss_flags = 4;
    printf("bad flags %d %d\n", sigaltstack(&stack, NULL), errno);
    stack.ss_flags = 0, stack.ss_size = 2047;
    printf("small %d %d\n", sigaltstack(&stack, NULL), errno);
    stack.ss_flags = SS_DISABLE;
    printf("off %d\n", sigaltstack(&stack, NULL));
    sigaltstack(NULL, &old);
    printf("%x %zu\n", old.ss_flags, old.ss_size);
}

/* -- flags and masks -- */

static void show_mask(const char *what)
{
    sigset_t now;
    sigprocmask(SIG_SETMASK, NULL, &now);
    printf("%s: mask %lx\n", what, *(long *)&now);
}

static volatile int depth;

static void masked(int number)
{
    show_mask("in the handler");
    if (depth++ == 0) {
        raise(number);
        printf("raised again\n");
    }
}

static void flags(void)
{
    sigset_t mask, old;
    struct sigaction action;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGKILL);
    for (int flag = 0; flag < 3; flag++) {
        depth = 0;
        on(SIGUSR1, masked, flag == 0 ? 0 : flag == 1 ? SA_NODEFER : SA_RESETHAND | SA_NODEFER, &mask);
        if (flag == 2)
            depth = 1;
        raise(SIGUSR1);
        show_mask("after it");
    }
    sigaction(SIGUSR1, NULL, &action);
    printf("reset: default %d flags %x mask %lx\n", action.sa_handler == SIG_DFL, action.sa_flags & ~0x04000000,
           *(long *)&action.sa_mask);
    on(SIGUSR2, nothing, 0x12345678 & ~0x04000000, NULL);
    sigaction(SIGUSR2, NULL, &action);
    printf("flags read back %x\n", action.sa_flags & ~0x04000000);
    printf("kill: %d %d\n", sigaction(SIGKILL, &action, NULL), errno);
    printf("65: %ld %d\n", syscall(SYS_rt_sigaction, 65, NULL, NULL, 8), errno);
    printf("size: %ld %d\n", syscall(SYS_rt_sigaction, 1, NULL, NULL, 4), errno);
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigprocmask(SIG_BLOCK, &mask, &old);
    on(SIGUSR1, masked, 0, NULL);
    depth = 1;
    raise(SIGUSR1);
    raise(SIGUSR1);
    sigpending(&mask);
    printf("pending %lx\n", *(long *)&mask);
    signal(SIGUSR1, SIG_IGN);
    sigpending(&mask);
    printf("ignored, pending %lx\n", *(long *)&mask);
    on(SIGUSR1, masked, 0, NULL);
    raise(SIGUSR1);
    raise(SIGUSR1);
    sigprocmask(SIG_SETMASK, &old, NULL);
    printf("depth %d\n", depth);
}

/* -- several at once: the frames stack up -- */

static void order(int number, siginfo_t *info, void *context)
{
    printf("%d (code %d, value %d, pid %d, uid %d)\n", number, info->si_code, info->si_value.sival_int,
           info->si_pid == getpid(), info->si_uid == getuid());
}

static void queued(void)
{
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    int numbers[] = {SIGUSR2, SIGUSR1, SIGRTMIN + 3, SIGRTMIN + 1, SIGTERM, SIGRTMIN + 3};
    for (int i = 0; i < 6; i++)
        on(numbers[i], order, SA_SIGINFO, &all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    for (int i = 0; i < 6; i++)
        sigqueue(getpid(), numbers[i], (union sigval){.sival_int = i + 1});
    raise(SIGUSR1);
    kill(getpid(), SIGUSR2);
    printf("sent\n");
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int i = 0; i < 6; i++)
        on(numbers[i], order, SA_SIGINFO, NULL);
    sigprocmask(SIG_SETMASK, &all, NULL);
    for (int i = 0; i < 6; i++)
        sigqueue(getpid(), numbers[i], (union sigval){.sival_int = i + 1});
    sigprocmask(SIG_SETMASK, &none, NULL);
    siginfo_t info = {.si_code = SI_USER};
    printf("as kill: %ld %d\n", syscall(SYS_rt_sigqueueinfo, getppid(), SIGUSR1, &info), errno);
    printf("no such: %d %d\n", sigqueue(99999999, SIGUSR1, (union sigval){0}), errno);
    printf("tgkill: %ld %d\n", syscall(SYS_tgkill, getpid(), 99999999, SIGUSR1), errno);
    printf("tkill: %ld %d\n", syscall(SYS_tkill, 0, SIGUSR1), errno);
    printf("kill: %d %d\n", kill(getpid(), 65), errno);
    printf("check: %d\n", kill(getpid(), 0));
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    floating_point();
    change();
    all_registers();
    alternates();
    flags();
    queued();
    return 0;
}
