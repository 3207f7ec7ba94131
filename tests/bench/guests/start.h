/* Freestanding start-up shared by the benchmark guests: system calls and nothing else. */
typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned char u8;

static inline long call3(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
}

static inline u8 *map(u64 bytes) {
    long result;
    register long r10 __asm__("r10") = 0x22, r8 __asm__("r8") = -1, r9 __asm__("r9") = 0;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(9), "D"(0), "S"(bytes), "d"(3), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return (u8 *)result;
}

static void say(const char *text) {
    long n = 0;
    while (text[n]) n++;
    call3(1, 1, (long)text, n);
}

static void hex(const void *data, int n) {
    static const char digits[] = "0123456789abcdef";
    char line[130];
    const u8 *p = data;
    for (int i = 0; i < n; i++) {
        line[2 * i] = digits[p[i] >> 4];
        line[2 * i + 1] = digits[p[i] & 15];
    }
    line[2 * n] = '\n';
    line[2 * n + 1] = 0;
    say(line);
}

int run(void);
void leave(void) { call3(60, run(), 0, 0); }
__asm__(".globl _start\n_start: and $-16, %rsp\n call leave\n");
