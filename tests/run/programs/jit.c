/* jit SEED STEPS PAGES: pieces of code are written, moved, protected and executed in random order, each must be the last one. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define MOST 600UL
#define PIECES 8UL

static unsigned long state, pages = 20;
static int wrong, calls, stores;

struct area {
    char *at, *alias;                 /* the same pages twice, if they are shared */
    int shared, rights[MOST], other[MOST]; /* of both */
    int value[MOST][PIECES];          /* what a call returns */
} areas[4];

static unsigned long any(unsigned long below)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (state >> 11) % below;
}

static int rights(void)
{
    static const int some[] = {0, PROT_READ, PROT_WRITE, PROT_EXEC, PROT_WRITE | PROT_EXEC};
    int to = some[any(5)];
    return to ? to | PROT_READ : PROT_NONE;
}

static char *piece(char *area, unsigned long page, unsigned long number)
{
    return area + page * PAGE + number * (PAGE / PIECES) + 16 * (number & 3);
}

static void protect(struct area *a, int alias, unsigned long page, unsigned long count, int to)
{
    if (mprotect((alias ? a->alias : a->at) + page * PAGE, count * PAGE, to)) perror("mprotect"), exit(1);
    for (unsigned long i = page; i < page + count; i++) (alias ? a->other : a->rights)[i] = to;
}

static void need(struct area *a, int alias, unsigned long page, int right)
{
    int now = (alias ? a->other : a->rights)[page];
    if (now & right) return;
    unsigned long count = any(2) ? 1 : any(pages - page) + 1;
    protect(a, alias, page, count, PROT_READ | right | (any(3) ? 0 : PROT_WRITE | PROT_EXEC));
}

static void store(struct area *a, unsigned long page, unsigned long number)
{
    int alias = a->shared && any(2), value = (int)any(1 << 20);
    need(a, alias, page, PROT_WRITE);
    char *p = piece(alias ? a->alias : a->at, page, number), code[6] = {(char)0xb8, 0, 0, 0, 0, (char)0xc3};
    memcpy(code + 1, &value, 4);
    if (any(2)) memcpy(p, code, 6);
    else
        for (int i = 5; i >= 0; i--) ((volatile char *)p)[i] = code[i];
    a->value[page][number] = value;
    stores++;
}

static void call(struct area *a, unsigned long page, unsigned long number)
{
    if (!a->value[page][number]) return;
    int alias = a->shared && any(3) == 0;
    need(a, alias, page, PROT_EXEC);
    int found = ((int (*)(void))piece(alias ? a->alias : a->at, page, number))();
    calls++;
    if (found != a->value[page][number]) {
        int expected = a->value[page][number];
        if (!wrong++) printf("area %d page %lu piece %lu: %d, not %d\n", (int)(a - areas), page, number, found, expected);
    }
}

static void make(struct area *a, int shared)
{
    int first = PROT_READ | PROT_WRITE;
    a->shared = shared;
    if (shared) {
        int fd = memfd_create("jit", 0);
        if (ftruncate(fd, pages * PAGE)) perror("ftruncate");
        a->at = mmap(0, pages * PAGE, first, MAP_SHARED, fd, 0);
        a->alias = mmap(0, pages * PAGE, first, MAP_SHARED, fd, 0);
        close(fd);
    } else {
        a->at = mmap(0, pages * PAGE, first, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    for (unsigned long i = 0; i < pages; i++) a->rights[i] = a->other[i] = first;
}

static void move(struct area *a)
{
    char *to = (char *)0x7d0000000000 + ((a - areas) << 36) + (any(1 << 10) << 21);
    protect(a, 0, 0, pages, rights());
    if (to == a->at) return;
    to = mremap(a->at, pages * PAGE, pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    if (to != MAP_FAILED) a->at = to; /* it may be more than one area to the kernel, which is refused */
}

static void step(int depth)
{
    struct area *a = &areas[any(depth ? 2 : 4)]; /* what a child stores into shared ones, its parent cannot know */
    unsigned long page = any(pages), number = any(PIECES), kind = any(100);
    if (kind < 40)
        for (unsigned long i = 0; i <= any(PIECES); i++) store(a, page, (number + i) % PIECES);
    else if (kind < 75)
        for (unsigned long i = 0; i <= any(PIECES); i++) call(a, page, (number + i) % PIECES);
    else if (kind < 82) protect(a, a->shared && any(2), page, any(pages - page) + 1, rights());
    else if (kind < 88) {
        /* one page behind the other */
        unsigned long count = any(pages - page) + 1;
        for (unsigned long i = page; i < page + count; i++) store(a, i, number);
    } else if (kind < 96) {
        unsigned long count = any(pages - page) + 1;
        for (unsigned long i = page; i < page + count; i++) call(a, i, number);
    } else if (kind < 97) move(a);
    else if (kind < 98 && !a->shared) {
        if (madvise(a->at + page * PAGE, PAGE, MADV_DONTNEED)) perror("madvise");
        memset(a->value[page], 0, sizeof a->value[page]);
    } else if (kind < 99 && depth == 0) {
        fflush(stdout);
        pid_t child = fork();
        if (!child) {
            for (int i = 0; i < 100; i++) step(1);
            fflush(stdout);
            _exit(wrong != 0);
        }
        int status;
        waitpid(child, &status, 0);
        wrong += status != 0;
    }
}

int main(int argc, char **argv)
{
    state = argc > 1 ? strtoul(argv[1], 0, 10) * 2654435761u + 88172645463325252u : 1;
    if (argc > 3) pages = strtoul(argv[3], 0, 10);
    for (int i = 0; i < 4; i++) make(&areas[i], i >= 2);
    for (int i = argc > 2 ? atoi(argv[2]) : 1000; i > 0; i--) step(0);
    printf("%d calls, %d stores, %d wrong\n", calls, stores, wrong);
    return wrong != 0;
}
