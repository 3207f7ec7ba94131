/* Transparent huge pages as a program sees them: faults, mincore, smaps, advice, prctl, parts that go, fork. */
#define _GNU_SOURCE
#include "say.h"
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define HUGE (2UL << 20)
#define BASE ((char *)0x7e0000000000)

/* "Rss", "AnonHugePages", ...: kB of the areas in [BASE, BASE + 64 MiB). */
static long kib(const char *name) {
    FILE *file = fopen("/proc/self/smaps", "r");
    char line[512];
    unsigned long start, end;
    long found = 0, value;
    int inside = 0;
    while (fgets(line, sizeof line, file)) {
        char word[64];
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
            inside = start >= (unsigned long)BASE && end <= (unsigned long)BASE + (64UL << 20);
        else if (inside && sscanf(line, "%63[^:]: %ld", word, &value) == 2 && !strcmp(word, name))
            found += value;
    }
    fclose(file);
    return found;
}

/* The system's, in kB. */
static long huge_of_all(void) {
    FILE *file = fopen("/proc/meminfo", "r");
    char line[256];
    long found = -1;
    while (fgets(line, sizeof line, file)) sscanf(line, "AnonHugePages: %ld", &found);
    fclose(file);
    return found;
}

static long faults(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
}

static char *map(unsigned long size, int advice) {
    char *at = mmap(BASE, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (advice) say("madvise", madvise(at, size, advice));
    return at;
}

static void state(const char *when, unsigned long size) {
    unsigned char present[(8 << 20) / 4096];
    long pages = 0;
    if (mincore(BASE, size, present)) perror("mincore");
    for (unsigned long i = 0; i < size / PAGE; i++) pages += present[i] & 1;
    printf("%s: %ld pages, Rss %ld, Referenced %ld, AnonHugePages %ld, eligible %ld\n", when, pages, kib("Rss"),
           kib("Referenced"), kib("AnonHugePages"), kib("THPeligible"));
}

/* One page of each of `blocks`, then `small` MiB page by page: more than there is, were the blocks kept whole. */
static int fill(int blocks, unsigned long small) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    char *at = mmap(BASE, blocks * HUGE, PROT_READ | PROT_WRITE, flags | MAP_FIXED, -1, 0);
    char *pages = mmap(0, small << 20, PROT_READ | PROT_WRITE, flags, -1, 0);
    madvise(pages, small << 20, MADV_NOHUGEPAGE);
    for (int i = 0; i < blocks; i++) at[i * HUGE + i * PAGE] = 1 + i;
    printf("Rss %ld\n", kib("Rss"));
    for (unsigned long i = 0; i < small << 20; i += PAGE) pages[i] = 1;
    int wrong = 0;
    for (int i = 0; i < blocks; i++)
        for (unsigned long page = 0; page < HUGE / PAGE; page++)
            wrong += at[i * HUGE + page * PAGE] != (page == (unsigned long)i ? 1 + i : 0);
    printf("Rss %ld, %d wrong\n", kib("Rss"), wrong);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 2) return (int)say(argv[1], prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0)) ^ 1;
    if (argc == 3) return fill(atoi(argv[1]), strtoul(argv[2], 0, 10));
    volatile char *p = map(2 * HUGE, MADV_HUGEPAGE);
    kib("Rss"); /* whatever stdio touches is there now */
    state("mapped", 2 * HUGE);
    long before = faults();
    char sum = p[5];
    for (unsigned long i = 0; i < HUGE; i += PAGE) sum += p[i];
    printf("read: %ld faults, %d\n", faults() - before, sum);
    state("read", 2 * HUGE);
    before = faults();
    for (unsigned long i = 0; i < HUGE; i += PAGE) p[i] = (char)i;
    printf("written: %ld faults\n", faults() - before);
    state("written", 2 * HUGE);
    printf("of all: %d\n", huge_of_all() >= 2048);
    before = faults();
    p[HUGE + 17] = 1;
    p[2 * HUGE - 1] = 1;
    printf("written at once: %ld faults\n", faults() - before);
    state("written at once", 2 * HUGE);

    say("munmap of a page", munmap((char *)p + 3 * PAGE, PAGE));
    say("mprotect of a page", mprotect((char *)p + HUGE, PAGE, PROT_READ));
    printf("Rss %ld, %d %d\n", kib("Rss"), p[4 * PAGE], p[HUGE + 17]);
    say("MADV_DONTNEED", madvise((char *)p + HUGE, HUGE, MADV_DONTNEED));
    printf("Rss %ld, %d\n", kib("Rss"), p[HUGE + 17]);

    p = map(HUGE, MADV_HUGEPAGE);
    p[0] = 7;
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        before = faults();
        p[PAGE] = 8;
        printf("child: %d %d, %d\n", p[0], p[PAGE], p[2 * PAGE]);
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, 0, 0);
    printf("parent: %d %d\n", p[0], p[PAGE]);

    p = map(HUGE, MADV_NOHUGEPAGE);
    before = faults();
    p[0] = p[HUGE - 1] = 1;
    printf("not advised: %ld faults\n", faults() - before);
    state("not advised", HUGE);

    say("PR_GET_THP_DISABLE", prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
    say("PR_SET_THP_DISABLE", prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
    say("PR_SET_THP_DISABLE with more", prctl(PR_SET_THP_DISABLE, 1, 1, 0, 0));
    say("PR_GET_THP_DISABLE with more", prctl(PR_GET_THP_DISABLE, 1, 0, 0, 0));
    p = map(HUGE, MADV_HUGEPAGE);
    before = faults();
    p[0] = p[HUGE - 1] = 1;
    printf("disabled: %ld faults\n", faults() - before);
    if (!fork()) _exit((int)say("after fork", prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0)) ^ 1);
    wait(0);
    execl("/proc/self/exe", "hugepages", "executed", (char *)0);
    return 1;
}
