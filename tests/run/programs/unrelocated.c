/* No libc, no self-relocation: everything here works only if the loader relocates. */
static long call3(long n, long a, long b, long c) {
    long r;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return r;
}
static const char one[] = "pointer ok\n", two[] = "ifunc ok\n";
const char *const table[] = {one, two};          /* RELATIVE (or RELR) */
static void good(void) { call3(1, 1, (long)table[1], sizeof two - 1); }
static void (*pick(void))(void) { return good; }
void chosen(void) __attribute__((ifunc("pick")));  /* IRELATIVE */
int (*volatile entry)(void);
static int seven(void) { return 7; }
int (*volatile function)(void) = seven;
__attribute__((used)) void go(void) {
    call3(1, 1, (long)table[0], sizeof one - 1);
    chosen();
    call3(60, function(), 0, 0);
}
__asm__(".globl _start\n_start: and $-16, %rsp\n call go\n");
