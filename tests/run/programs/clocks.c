/* Time, randomness and names: what can be said of them without knowing the values. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

static int64_t now(clockid_t clock) {
    struct timespec t = {0, -1};
    if (clock_gettime(clock, &t)) return -errno;
    return t.tv_nsec < 0 || t.tv_nsec > 999999999 ? -1 : t.tv_sec * 1000000000ll + t.tv_nsec;
}

int main(void) {
    const clockid_t clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID,
                                CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME};
    for (unsigned i = 0; i < sizeof clocks / sizeof *clocks; i++) {
        int64_t a = now(clocks[i]), b = now(clocks[i]);
        struct timespec resolution;
        printf("clock %d: goes forward %d, has a resolution %d\n", clocks[i], a >= 0 && b >= a,
               clock_getres(clocks[i], &resolution) == 0 && resolution.tv_sec == 0);
    }
    printf("no such clock: %lld\n", (long long)now(99));
    struct timeval tv;
    gettimeofday(&tv, NULL);
    int64_t seconds = now(CLOCK_REALTIME) / 1000000000;
    printf("one wall clock: %d %d\n", seconds - tv.tv_sec <= 1, time(NULL) - seconds <= 1);
    printf("after 2020, before 2100: %d\n", seconds > 1577836800 && seconds < 4102444800);
    int64_t before = now(CLOCK_MONOTONIC);
    struct timespec nap = {0, 30000000};
    printf("sleep: %d", nanosleep(&nap, NULL));
    printf(" took it: %d\n", now(CLOCK_MONOTONIC) - before >= 30000000);
    nap.tv_nsec = 1000000000;
    printf("bad sleep: %d %d\n", nanosleep(&nap, NULL), errno);
    struct timespec until = {0, 1};
    printf("past deadline: %d\n", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL));
    int64_t cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    for (volatile int i = 0; i < 3000000; i++) {}
    printf("work takes CPU time: %d\n", now(CLOCK_PROCESS_CPUTIME_ID) > cpu);
    struct rusage usage;
    printf("rusage: %d", getrusage(RUSAGE_SELF, &usage));
    printf(" %d %d\n", usage.ru_maxrss > 0, usage.ru_minflt > 0);
    struct tms tms;
    printf("times: %d\n", times(&tms) != (clock_t)-1);
    unsigned char a[32] = {0}, b[32] = {0}, zero[32] = {0};
    printf("random: %zd %zd", getrandom(a, 32, 0), getrandom(b, 32, GRND_NONBLOCK));
    printf(" %d %d\n", memcmp(a, b, 32) != 0, memcmp(a, zero, 32) != 0);
    printf("bad flags: %zd %d\n", getrandom(a, 1, 0x100), errno);
    struct utsname name;
    printf("uname: %d", uname(&name));
    printf(" %s %s %d\n", name.sysname, name.machine, name.release[0] >= '4');
    struct rlimit limit;
    printf("stack limit: %d", getrlimit(RLIMIT_STACK, &limit));
    printf(" %llu\n", (unsigned long long)limit.rlim_cur);
    printf("pid: %d %d %d\n", getpid() > 1, getpid() == gettid(), getppid() > 0);
    printf("page size %ld, processors %d\n", sysconf(_SC_PAGESIZE), sysconf(_SC_NPROCESSORS_ONLN) >= 1);
    return 0;
}
