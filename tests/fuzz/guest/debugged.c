/* What the gdb target debugs: a thread, a child, a signal handler, stores, calls, and an end. Small on purpose. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

volatile long watched;
static char stack[8192];

static void handler(int number)
{
    watched += number;
}

static int thread(void *argument)
{
    for (int i = 0; i < 20; i++)
        watched += (long)argument;
    return 0;
}

int main(void)
{
    int status;
    pid_t pid;

    signal(SIGUSR1, handler);
    sched_yield();
    for (int i = 0; i < 50; i++)
        watched = watched * 3 + i;
    clone(thread, stack + sizeof stack, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD, (void *)1);
    raise(SIGUSR1);
    pid = fork();
    if (pid == 0) {
        watched++;
        _exit(3);
    }
    waitpid(pid, &status, 0);
    write(1, "done\n", 5);
    return WEXITSTATUS(status);
}
