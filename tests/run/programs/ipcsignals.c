/* Waiting calls that signals interrupt: which go on after a handler, which fail, and what mq_notify tells. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>

#include <mqueue.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int semid, msqid, ticks, last;
static mqd_t queue;
static sem_t sem;
#define FUTEX_WAIT 0
#define FUTEX_WAKE 1
static unsigned word;
static pthread_mutex_t inheriting;

static void tick(int signal)
{
    struct { long type; char c; } m = {1, 'm'};
    struct sembuf up = {0, 1, 0};
    if (++ticks < last)
        return;
    semop(semid, &up, 1);
    msgsnd(msqid, &m, 1, 0);
    mq_send(queue, "q", 1, 0);
    sem_post(&sem);
    word = 1;
    syscall(SYS_futex, &word, FUTEX_WAKE, 1, 0, 0, 0);
}

static void start(int flags, int until)
{
    struct sigaction action = {.sa_handler = tick, .sa_flags = flags};
    struct itimerval timer = {{0, 20000}, {0, 20000}};
    sigaction(SIGALRM, &action, NULL);
    ticks = 0;
    last = until;
    word = 0;
    setitimer(ITIMER_REAL, &timer, NULL);
}

static void stop(const char *what, long result)
{
    int error = errno;
    struct itimerval none = {0};
    setitimer(ITIMER_REAL, &none, NULL);
    printf("%s: %ld %s, %d\n", what, result, result < 0 ? strerror(error) : "", ticks >= last);
    char text[8192];
    struct { long type; char c; } m;
    while (mq_receive(queue, text, sizeof text, NULL) > 0)
        ;
    while (msgrcv(msqid, &m, 1, 0, IPC_NOWAIT) >= 0)
        ;
    semctl(semid, 0, SETVAL, 0);
    while (!sem_trywait(&sem))
        ;
}

static void calls(int flags)
{
    struct { long type; char c; } m;
    struct sembuf down = {0, -1, 0};
    struct timespec second = {3, 0};
    struct mq_attr blocking = {0}, nonblocking = {.mq_flags = O_NONBLOCK};
    char text[8192];
    printf("flags %x\n", flags);
    start(flags, 3);
    stop("semop", semop(semid, &down, 1));
    start(flags, 3);
    stop("semtimedop", semtimedop(semid, &down, 1, &second));
    start(flags, 3);
    stop("msgrcv", msgrcv(msqid, &m, 1, 0, 0));
    mq_setattr(queue, &blocking, NULL);
    start(flags, 3);
    long got = mq_receive(queue, text, sizeof text, NULL);
    mq_setattr(queue, &nonblocking, NULL);
    stop("mq_receive", got);
    start(flags, 3);
    stop("sem_wait", sem_wait(&sem));
    start(flags, 3);
    stop("futex", syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, 0, 0));
    start(flags, 3);
    stop("futex with a time", syscall(SYS_futex, &word, FUTEX_WAIT, 0, &second, 0, 0));
}

static void *holds(void *arg)
{
    sigset_t set;
    sigfillset(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_mutex_lock(&inheriting);
    sem_post(&sem);
    while (ticks < 3)
        usleep(5000);
    pthread_mutex_unlock(&inheriting);
    return NULL;
}

static volatile int notified;

static void notify(int signal, siginfo_t *info, void *context)
{
    printf("signal %d code %d value %d from %d\n", signal == SIGUSR1, info->si_code, info->si_value.sival_int,
           info->si_pid == getpid());
    notified++;
}

static void notifications(void)
{
    struct sigaction action = {.sa_sigaction = notify, .sa_flags = SA_SIGINFO};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 42};
    char text[8192];
    sigaction(SIGUSR1, &action, NULL);
    printf("notify %d", mq_notify(queue, &event));
    printf(" again %d %s\n", mq_notify(queue, &event), strerror(errno));
    lseek(queue, 0, SEEK_SET);
    printf("state %zd\n", read(queue, text, 100));
    mq_send(queue, "a", 1, 0);
    mq_send(queue, "b", 1, 0);
    printf("notified %d, not empty: %d", notified, mq_notify(queue, &event));
    mq_send(queue, "c", 1, 0);
    printf(" %d\n", notified);
    printf("unregistered %d\n", mq_notify(queue, NULL));
    mqd_t other = mq_open("/mmuemu-signals", O_RDONLY);
    printf("by another %d", mq_notify(other, &event));
    printf(" busy %d", mq_notify(queue, &event));
    printf(" %s\n", strerror(errno));
    mq_close(other);
    printf("after closing %d\n", mq_notify(queue, &event));
}

int main(void)
{
    pthread_mutexattr_t attr;
    pthread_t thread;
    setvbuf(stdout, NULL, _IONBF, 0);
    semid = semget(IPC_PRIVATE, 1, 0600);
    msqid = msgget(IPC_PRIVATE, 0600);
    mq_unlink("/mmuemu-signals");
    queue = mq_open("/mmuemu-signals", O_RDWR | O_CREAT | O_NONBLOCK, 0600, NULL);
    sem_init(&sem, 0, 0);
    calls(0);
    calls(SA_RESTART);
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&inheriting, &attr);
    pthread_create(&thread, NULL, holds, NULL);
    sem_wait(&sem);
    start(0, 3);
    stop("inheriting", pthread_mutex_lock(&inheriting));
    pthread_join(thread, NULL);
    notifications();
    semctl(semid, 0, IPC_RMID);
    msgctl(msqid, IPC_RMID, NULL);
    mq_unlink("/mmuemu-signals");
    return 0;
}
