/* One thing a process does, many times: processes KIND COUNT. With COUNT 0 nothing but the start-up is left. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

enum { PAGES = 1000 };

static int count;

static void forks(void)
{
    for (int i = 0; i < count; i++) {
        pid_t pid = fork();
        if (!pid)
            _exit(0);
        waitpid(pid, 0, 0);
    }
}

static const char *self;

static void execs(void)
{
    for (int i = 0; i < count; i++) {
        pid_t pid = vfork();
        if (!pid) {
            execl(self, self, "forks", "0", (char *)0);
            _exit(1);
        }
        waitpid(pid, 0, 0);
    }
}

static void yields(void)
{
    for (int i = 0; i < count / 2; i++)
        sched_yield();
}

static void *yielding(void *unused)
{
    yields();
    return unused;
}

static void process_switches(void)
{
    if (!fork()) {
        yields();
        _exit(0);
    }
    yields();
    wait(0);
}

static void thread_switches(void)
{
    pthread_t thread;
    pthread_create(&thread, 0, yielding, 0);
    yields();
    pthread_join(thread, 0);
}

static void *nothing(void *unused)
{
    return unused;
}

static void threads(void)
{
    for (int done = 0; done < count; done += 100) {
        pthread_t thread[100];
        for (int i = 0; i < 100; i++)
            pthread_create(&thread[i], 0, nothing, 0);
        for (int i = 0; i < 100; i++)
            pthread_join(thread[i], 0);
    }
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static long turn;

static void *player(void *me)
{
    for (int i = 0; i < count / 2; i++) {
        pthread_mutex_lock(&mutex);
        while (turn != (long)me)
            pthread_cond_wait(&condition, &mutex);
        turn = !turn;
        pthread_cond_signal(&condition);
        pthread_mutex_unlock(&mutex);
    }
    return 0;
}

static void handoffs(void)
{
    pthread_t thread;
    pthread_create(&thread, 0, player, (void *)1);
    player((void *)0);
    pthread_join(thread, 0);
}

static void copies(void)
{
    char *page = mmap(0, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < PAGES; i++)
        page[i * 4096] = 1;
    for (int done = 0; done < count; done += PAGES) {
        if (!fork()) {
            for (int i = 0; i < PAGES; i++)
                page[i * 4096] = 2;
            _exit(0);
        }
        wait(0);
    }
}

static void caught(int number, siginfo_t *info, void *context)
{
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 6;
}

static void faults(void)
{
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_NODEFER, .sa_sigaction = caught};
    sigaction(SIGSEGV, &action, 0);
    for (int i = 0; i < count; i++)
        __asm__ volatile("mov $16, %%eax\n\t.byte 0xc7, 0x00, 1, 0, 0, 0" ::: "eax", "memory");
}

int main(int argc, char **argv)
{
    struct {
        const char *name;
        void (*run)(void);
    } kinds[] = {{"forks", forks}, {"execs", execs}, {"process-switches", process_switches},
        {"thread-switches", thread_switches}, {"threads", threads}, {"handoffs", handoffs}, {"copies", copies},
        {"faults", faults}};
    self = argv[0];
    count = atoi(argv[2]);
    for (int i = 0; count && i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(argv[1], kinds[i].name))
            kinds[i].run();
    return 0;
}
