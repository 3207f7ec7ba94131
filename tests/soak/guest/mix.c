/* A process of everything, by the number on the command line: mix SEED STEPS.

   Maps, stores, forks, threads, signals, pipes, files and executions, nested; each process knows what its memory must
   hold. Exit status 0, or 1 where something else was found (a line on standard error says what). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { AREAS = 12, PAGES = 20, PAGE = 4096, THREADS = 4 };

static struct area {
    unsigned char *at;
    int pages, rights, shared, shift;
    unsigned char model[PAGES];
} areas[AREAS];
static unsigned long state;
static int depth;
static char *self;
static volatile sig_atomic_t signals;
static unsigned char number = 1;
static volatile long turns;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static unsigned below(unsigned limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state * 0x2545f4914f6cdd1dul >> 33) % limit;
}

static void wrong(const char *what, int is, int should)
{
    fprintf(stderr, "%s: %d, not %d (depth %d)\n", what, is, should, depth);
    _exit(1);
}

static void handler(int number)
{
    signals++;
}

static void look(struct area *a)
{
    if (!a->at || !(a->rights & PROT_READ) || a->shared)
        return;
    for (int page = 0; page < a->pages; page++)
        if (a->at[((long)page << a->shift) + 100] != a->model[page])
            wrong("memory", a->at[((long)page << a->shift) + 100], a->model[page]);
}

static void drop(struct area *a)
{
    if (a->at)
        munmap(a->at, (long)a->pages << a->shift);
    a->at = NULL;
}

static void map(struct area *a)
{
    int fd = -1, flags = MAP_PRIVATE | MAP_ANONYMOUS, kind = below(6);

    drop(a);
    memset(a, 0, sizeof *a);
    a->pages = 1 + below(PAGES);
    a->shift = 12;
    a->rights = PROT_READ | PROT_WRITE;
    if (kind == 0)
        flags = MAP_SHARED | MAP_ANONYMOUS, a->shared = 1;
    if (kind == 1 || kind == 2) {
        fd = kind == 1 ? memfd_create("m", 0) : open("mapped", O_RDWR | O_CREAT, 0600);
        ftruncate(fd, PAGES * PAGE);
        flags = below(2) ? MAP_SHARED : MAP_PRIVATE;
        a->shared = flags == MAP_SHARED || kind == 2;
    }
    if (kind == 3)
        a->shift += 6; /* some MiB, of which huge pages are made */
    a->at = mmap(NULL, (long)a->pages << a->shift, a->rights, flags, fd, 0);
    if (a->at == MAP_FAILED)
        a->at = NULL;
    if (fd >= 0)
        close(fd);
}

static void store(struct area *a)
{
    if (!a->at || !(a->rights & PROT_WRITE))
        return;
    for (int page = below(a->pages); page < a->pages; page += 1 + below(4))
        a->at[((long)page << a->shift) + 100] = a->model[page] = number;
    number = number * 5 + 3 | 1;
}

static void protect(struct area *a)
{
    long part = (long)a->pages << (a->shift - 1) & -PAGE;
    static const int rights[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC};

    if (a->at && mprotect(a->at, (long)a->pages << a->shift, a->rights = rights[below(4)]))
        wrong("mprotect", -1, 0);
    if (a->at && (mprotect(a->at + part, PAGE, PROT_READ) || mprotect(a->at + part, PAGE, a->rights)))
        wrong("mprotect of a page", -1, 0);
}

static void shrink(struct area *a)
{
    int pages;

    if (!a->at)
        return;
    pages = 1 + below(PAGES);
    if (a->shared && pages > a->pages)
        pages = a->pages;
    void *at = mremap(a->at, (long)a->pages << a->shift, (long)pages << a->shift, MREMAP_MAYMOVE);
    if (at == MAP_FAILED)
        return;
    for (int page = a->pages; page < pages; page++)
        a->model[page] = 0;
    a->at = at;
    a->pages = pages;
}

static void advise(struct area *a)
{
    if (!a->at || a->shared || a->rights == PROT_NONE)
        return;
    if (below(2)) {
        madvise(a->at, (long)a->pages << a->shift, MADV_FREE);
        madvise(a->at, (long)a->pages << a->shift, MADV_DONTNEED);
        memset(a->model, 0, sizeof a->model);
        /* A private file's page shows the file again, which others write to only where it is shared. */
    } else
        madvise(a->at, (long)a->pages << a->shift, MADV_WILLNEED);
}

static void *thread(void *argument)
{
    unsigned char *own = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    for (int i = 0; i < 30; i++) {
        own[i % 4 * PAGE] = i;
        pthread_mutex_lock(&lock);
        turns++;
        pthread_mutex_unlock(&lock);
        if (own[i % 4 * PAGE] != (unsigned char)i)
            wrong("a thread's memory", own[i % 4 * PAGE], i);
        if (i % 8 == (long)argument)
            sched_yield();
    }
    munmap(own, 4 * PAGE);
    return NULL;
}

static void threads(void)
{
    pthread_t ids[THREADS];
    int count = 1 + below(THREADS);
    long before = turns;

    for (int i = 0; i < count; i++)
        pthread_create(&ids[i], NULL, thread, (void *)(long)i);
    for (int i = 0; i < count; i++)
        pthread_join(ids[i], NULL);
    if (turns != before + 30 * count)
        wrong("turns", turns, before + 30 * count);
}

static void pipes(void)
{
    int fds[2], status, size = 1 + below(20000);
    char buffer[4096];
    pid_t pid;

    pipe(fds);
    pid = fork();
    if (pid == 0) {
        close(fds[0]);
        memset(buffer, 'x', sizeof buffer);
        for (int left = size; left > 0;) {
            int done = write(fds[1], buffer, left < 4096 ? left : 4096);
            if (done <= 0)
                _exit(2);
            left -= done;
        }
        _exit(0);
    }
    close(fds[1]);
    for (ssize_t got; (got = read(fds[0], buffer, sizeof buffer)) != 0;)
        if (got > 0)
            size -= got;
    close(fds[0]);
    waitpid(pid, &status, 0);
    if (size || status)
        wrong("a pipe", size, status);
}

static void segments(void)
{
    int id = shmget(IPC_PRIVATE, 3 * PAGE, 0600), status;
    volatile char *at = shmat(id, NULL, 0);
    pid_t pid;

    shmctl(id, IPC_RMID, NULL);
    pid = fork();
    if (pid == 0) {
        at[PAGE] = 77;
        _exit(0);
    }
    waitpid(pid, &status, 0);
    if (at[PAGE] != 77)
        wrong("shared memory", at[PAGE], 77);
    shmdt((void *)at);
}

static void files(void)
{
    char name[32], buffer[600];
    int fd;

    snprintf(name, sizeof name, "file%u", below(5));
    fd = open(name, O_RDWR | O_CREAT | (below(2) ? O_TRUNC : 0), 0600);
    memset(buffer, number, sizeof buffer);
    pwrite(fd, buffer, sizeof buffer, below(9000));
    if (below(3) == 0)
        ftruncate(fd, below(5000));
    close(fd);
    if (below(4) == 0)
        unlink(name);
}

static void alarms(void)
{
    struct itimerval soon = {{0, 0}, {0, 500 + below(2000)}};
    struct timespec pause = {0, 5000000};
    int before = signals;

    setitimer(ITIMER_REAL, &soon, NULL);
    while (nanosleep(&pause, &pause) == -1 || signals == before)
        ;
    kill(getpid(), SIGUSR1);
    if (signals < before + 2)
        wrong("signals", signals, before + 2);
}

static void steps(int count);

static void child(void)
{
    char seed[24], few[12];

    depth++;
    for (int i = 0; i < AREAS; i++)
        look(&areas[i]);
    if (below(4) == 0) {
        snprintf(seed, sizeof seed, "%lu", state);
        snprintf(few, sizeof few, "%d", 4);
        execl(self, "mix", seed, few, "deep", NULL);
        _exit(127);
    }
    if (below(8) == 0)
        kill(getpid(), SIGKILL);
    if (below(8) == 0)
        *(volatile int *)0 = 1;
    steps(3 + below(6));
    _exit(0);
}

static void forks(void)
{
    int count = 1 + below(3), status;

    if (depth > 2)
        return;
    for (int i = 0; i < count; i++) {
        below(2);
        if (fork() == 0)
            child();
        if (below(2))
            store(&areas[below(AREAS)]);
    }
    while (waitpid(-1, &status, 0) > 0)
        if (WIFEXITED(status) && WEXITSTATUS(status))
            wrong("a child", WEXITSTATUS(status), 0);
}

static void steps(int count)
{
    while (count-- > 0) {
        struct area *a = &areas[below(AREAS)];

        switch (below(16)) {
        case 0: case 1: case 2: map(a); break;
        case 3: case 4: case 5: look(a); store(a); break;
        case 6: protect(a); break;
        case 7: shrink(a); break;
        case 8: advise(a); break;
        case 9: threads(); break;
        case 10: pipes(); break;
        case 11: segments(); break;
        case 12: files(); break;
        case 13: alarms(); break;
        case 14: drop(a); break;
        case 15: forks(); break;
        }
        for (int i = 0; i < AREAS; i++)
            look(&areas[i]);
    }
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    state = strtoul(argv[1], NULL, 0) * 2 + 1;
    self = "/proc/self/exe";
    depth = argc > 3 ? 3 : 0;
    signal(SIGALRM, handler);
    signal(SIGUSR1, handler);
    steps(atoi(argv[2]));
    return 0;
}
