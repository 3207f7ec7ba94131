/* Bad instructions and bad accesses: what the handler of each signal is told. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define CODE ((unsigned char *)0x10000000)
#define DATA 0x20000000L

static sigjmp_buf back;
static long long frame[6];

static void handler(int number, siginfo_t *info, void *context)
{
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
    g[REG_EFL] &= ~0x100;
    frame[0] = info->si_code;
    frame[1] = (long long)info->si_addr;
    frame[2] = g[REG_TRAPNO];
    frame[3] = g[REG_ERR];
    frame[4] = g[REG_CR2];
    frame[5] = g[REG_RIP];
    siglongjmp(back, number);
}

static void show(const char *name, int number)
{
    printf("%-28s signal %2d code %3lld addr %#llx trap %lld err %#llx cr2 %#llx rip %#llx\n", name, number, frame[0],
           frame[1], frame[2], frame[3], frame[4], frame[5]);
}

/* Run code bytes with RDI = argument. */
static void attempt(const char *name, const char *bytes, int length, long argument)
{
    memset(CODE, 0x90, 64);
    memcpy(CODE, bytes, length);
    CODE[length] = 0xc3;
    int number = sigsetjmp(back, 1);
    if (number == 0) {
        ((void (*)(long))CODE)(argument);
        printf("%-28s nothing\n", name);
        return;
    }
    show(name, number);
}

#define TRY(name, bytes, argument) attempt(name, bytes, sizeof(bytes) - 1, argument)
#define READ "\x8b\x07"
#define WRITE "\x89\x07"
#define JUMP "\xff\xe7"
#define PUSH_THERE "\x48\x89\xe0\x48\x89\xfc\x50\x48\x89\xc4"
#define BP_THERE "\x55\x48\x89\xfd\x8b\x45\x00\x5d"
#define READ8_STRADDLE "\x48\x8b\x07"
#define UNMASK_X87 "\x48\x83\xec\x08\xc7\x04\x24\x00\x03\x00\x00\xd9\x2c\x24\x48\x83\xc4\x08"

static void accesses(void)
{
    static const struct { const char *name; long address; } places[] = {
        {"null", 0},
        {"null + 8", 8},
        {"unmapped", 0x30000000},
        {"read-only", DATA + 0x1000},
        {"PROT_NONE", DATA + 0x2000},
        {"no execute", DATA},
        {"beyond the file", DATA + 0x5000},
        {"last user page", 0x7ffffffff000},
        {"behind user space", 0x7ffffffff008},
        {"kernel's half", 0xffff800000000000},
        {"kernel text", 0xffffffff81000000},
        {"not canonical", 0x800000000000},
        {"not canonical, high", 0x8000000000000000},
        {"straddling", DATA + 0x1ffe},
    };
    char name[64];
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(name, sizeof name, "read %s", places[i].name);
        TRY(name, READ, places[i].address);
        snprintf(name, sizeof name, "write %s", places[i].name);
        TRY(name, WRITE, places[i].address);
        if (i == 0 || i == 13)
            continue;
        if (i == 11 || i == 12 || i == 7 || i == 8)
            continue;
        snprintf(name, sizeof name, "execute %s", places[i].name);
        TRY(name, JUMP, places[i].address);
    }
}

static void instructions(void)
{
    TRY("push, not canonical", PUSH_THERE, 0x8000000000001000);
    TRY("[rbp], not canonical", BP_THERE, 0x8000000000001000);
    TRY("divide by zero", "\x31\xc9\xb8\x01\x00\x00\x00\x99\xf7\xf9", 0);
    TRY("divide overflow", "\xb9\xff\xff\xff\xff\xb8\x00\x00\x00\x80\x99\xf7\xf9", 0);
    TRY("ud2", "\x0f\x0b", 0);
    TRY("lock nop", "\xf0\x90", 0);
    TRY("push cs", "\x0e", 0);
    TRY("hlt", "\xf4", 0);
    TRY("cli", "\xfa", 0);
    TRY("in", "\xe4\x60", 0);
    TRY("out", "\xe6\x60", 0);
    TRY("mov cr0", "\x0f\x20\xc0", 0);
    TRY("mov to cr3", "\x0f\x22\xd8", 0);
    TRY("rdmsr", "\x0f\x32", 0);
    TRY("wbinvd", "\x0f\x09", 0);
    TRY("invlpg", "\x0f\x01\x3f", DATA);
    TRY("int 3", "\xcc", 0);
    TRY("int $3", "\xcd\x03", 0);
    TRY("int $0x42", "\xcd\x42", 0);
    TRY("int $13", "\xcd\x0d", 0);
    TRY("single step", "\x9c\x81\x0c\x24\x00\x01\x00\x00\x9d\x90\x90", 0);
    TRY("bad selector", "\x8e\xdf", 0x1234);
    TRY("null ss", "\x31\xc0\x8e\xd0", 0);
    TRY("kernel selector", "\x8e\xdf", 0x18);
    TRY("x87 divide by zero", "\xdb\xe3" UNMASK_X87 "\xd9\xe8\xd9\xee\xde\xf9\x9b", 0);
    __asm__ volatile("fninit");
}

int main(void)
{
    static char room[65536];
    stack_t stack = {.ss_sp = room, .ss_size = sizeof room};
    sigaltstack(&stack, NULL);
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    for (int i = 0; i < 5; i++)
        sigaction(numbers[i], &action, NULL);
    mmap(CODE, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    mmap((void *)DATA, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    mmap((void *)(DATA + 0x1000), 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    mmap((void *)(DATA + 0x2000), 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    int file = open("file", O_RDWR | O_CREAT | O_TRUNC, 0600);
    ftruncate(file, 100);
    mmap((void *)(DATA + 0x4000), 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED | MAP_FIXED, file, 0);
    accesses();
    instructions();
    return 0;
}
