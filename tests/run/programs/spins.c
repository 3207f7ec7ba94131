/* A loop that runs alone at first, then until a timer (`timer`), SIGINT (`signal`), a byte or (`none`) its end. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static volatile int flag;
static volatile long turns;
static char byte;

__attribute__((noipa)) static long spin(long most)
{
    long own = 0;
    while (!flag && own != most) {
        own++;
        turns++;
    }
    return own - turns;
}

static void handler(int signal)
{
    flag = signal;
}

static void *reads(void *unused)
{
    flag = read(0, &byte, 1);
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    long most = -1;
    static volatile int begun;
    const char *what = argv[1];
    spin(3000000);
    if (!strcmp(what, "timer")) {
        struct itimerval soon = {{0, 0}, {0, 2000}};
        signal(SIGALRM, handler);
        setitimer(ITIMER_REAL, &soon, NULL);
    } else if (!strcmp(what, "signal"))
        signal(SIGINT, handler);
    else if (!strcmp(what, "none"))
        most = 20000000;
    else
        pthread_create(&thread, NULL, reads, NULL);
    write(1, "spins\n", 6);
    begun++;
    turns = 0;
    long lost = spin(most);
    printf("lost %ld begun %d ended by %d\n", lost, begun, flag);
    return 0;
}
