/* A bit of everything that has state, all at once: what it prints depends on every part of it. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/random.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 8

struct message {
    long type;
    char text[8];
};

static volatile int alarms, signals;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int turn;
static unsigned long sum;

static void on_signal(int number)
{
    if (number == SIGALRM)
        alarms++;
    else
        signals++;
}

static void *worker(void *argument)
{
    long id = (long)argument;
    for (int i = 0; i < 12; i++) {
        pthread_mutex_lock(&mutex);
        while (turn % 3 != id)
            pthread_cond_wait(&changed, &mutex);
        turn++;
        sum = sum * 31 + id + i;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&mutex);
    }
    return (void *)(id * 7);
}

static void child(int in, int out, int socket, char *shared, int *segment, int queue)
{
    char byte;
    signal(SIGALRM, SIG_IGN);
    while (read(in, &byte, 1) == 1 && byte != 'q') {
        struct message message = {1, "msg"};
        byte ^= 32;
        shared[byte & 127]++;
        segment[0] += byte;
        write(out, &byte, 1);
        write(socket, "xy", 2);
        msgsnd(queue, &message, 4, 0);
        kill(getppid(), SIGUSR1);
    }
    _exit(9);
}

int main(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 300}, {0, 300}};
    int to[2], from[2], pair[2], status;
    sigaction(SIGALRM, &action, 0);
    sigaction(SIGUSR1, &action, 0);
    setitimer(ITIMER_REAL, &often, 0);
    pipe(to);
    pipe(from);
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    char *shared = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int identifier = shmget(IPC_PRIVATE, 4096, 0600 | IPC_CREAT);
    int *segment = shmat(identifier, 0, 0);
    int queue = msgget(IPC_PRIVATE, 0600 | IPC_CREAT);
    int file = open("/tmp/moments", O_RDWR | O_CREAT | O_TRUNC, 0600);
    ftruncate(file, 8192);
    char *mapped = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    pid_t pid = fork();
    if (!pid)
        child(to[0], from[1], pair[1], shared, segment, queue);
    pthread_t threads[3];
    for (long i = 0; i < 3; i++)
        pthread_create(&threads[i], 0, worker, (void *)i);
    int poll = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, 0), counter = eventfd(3, 0);
    struct itimerspec soon = {{0, 200000}, {0, 200000}};
    timerfd_settime(timer, 0, &soon, 0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = timer};
    epoll_ctl(poll, EPOLL_CTL_ADD, timer, &event);
    unsigned hash = 5;
    uint64_t ticks;
    for (int i = 0; i < ROUNDS; i++) {
        char byte = 'a' + i, answer = 0, two[2];
        struct message message;
        struct timespec now;
        unsigned number;
        write(to[1], &byte, 1);
        read(from[0], &answer, 1);
        read(pair[0], two, 2);
        msgrcv(queue, &message, 8, 0, 0);
        getrandom(&number, 4, 0);
        hash = hash * 33 + answer + number;
        mapped[i * 300] = answer;
        char *area = mmap(0, 12288, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        area[5000] = answer;
        mprotect(area, 4096, PROT_READ);
        if (i & 1)
            munmap(area, 12288);
        epoll_wait(poll, &event, 1, -1);
        read(timer, &ticks, 8);
        write(counter, &ticks, 8);
        clock_gettime(CLOCK_MONOTONIC, &now);
        hash += now.tv_nsec;
        char *some = malloc(3000 * i + 10);
        some[9] = 1;
        if (i % 3 == 0)
            free(some);
        printf("%d %c %u\n", i, answer, hash);
        fflush(stdout);
        lseek(file, i, SEEK_SET);
        write(file, "#", 1);
    }
    for (int i = 0; i < 3; i++) {
        void *result;
        pthread_join(threads[i], &result);
        hash += (long)result;
    }
    write(to[1], "q", 1);
    while (waitpid(pid, &status, 0) < 0)
        ;
    read(counter, &ticks, 8);
    unsigned content = 0;
    char bytes[8192];
    pread(file, bytes, 8192, 0);
    for (int i = 0; i < 8192; i++)
        content = content * 3 + bytes[i];
    unlink("/tmp/moments");
    shmctl(identifier, IPC_RMID, 0);
    printf("%lu %u child %d shared %d file %u ticks %d alarms %d signals %d\n", sum, hash, WEXITSTATUS(status),
           segment[0], content, (int)ticks, alarms, signals);
    return 3;
}
