/* A thread that was to take a signal of the process ends by exit(2) instead: another one that sleeps takes it. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile int handled;
static int tube[2];

static void handler(int signal)
{
    handled++;
}

static void *ends(void *unused)
{
    char byte;
    read(tube[0], &byte, 1);
    syscall(SYS_exit, 0);
    return unused;
}

static void *pauses(void *unused)
{
    pause();
    return unused;
}

int main(void)
{
    pthread_t first, second;
    struct sigaction action = {.sa_handler = handler};
    sigset_t set;
    pipe(tube);
    sigaction(SIGUSR1, &action, NULL);
    pthread_create(&first, NULL, ends, NULL);
    pthread_create(&second, NULL, pauses, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    usleep(10000);
    write(tube[1], "x", 1);
    pthread_join(first, NULL);
    pthread_join(second, NULL);
    printf("handled %d\n", handled);
    return 0;
}
