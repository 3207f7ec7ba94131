/* System V IPC and POSIX message queues between processes: the order of events is forced, so that every line is. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(call) ({ long r_ = (long)(call); if (r_ == -1) printf("%s: %s\n", #call, strerror(errno)); r_; })

static int op(int id, int number, int change, int flags)
{
    struct sembuf b = {number, change, flags};
    return semop(id, &b, 1);
}

static unsigned long attached(int id)
{
    struct shmid_ds ds;
    shmctl(id, IPC_STAT, &ds);
    return ds.shm_nattch;
}

static int wait_for(pid_t pid)
{
    int status;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void shared_and_semaphores(void)
{
    FILE *f = fopen("keyfile", "w");
    fclose(f);
    key_t key = ftok("keyfile", 'k');
    int shm = CHECK(shmget(key, 4096 * 3, IPC_CREAT | IPC_EXCL | 0600));
    int sem = CHECK(semget(key, 3, IPC_CREAT | IPC_EXCL | 0600));
    int *a = (int *)CHECK(shmat(shm, NULL, 0));
    printf("attached %lu\n", attached(shm));
    pid_t child = fork();
    if (!child) {
        int *b = (int *)CHECK(shmat(CHECK(shmget(key, 0, 0)), NULL, 0));
        int s = CHECK(semget(key, 0, 0));
        CHECK(op(s, 0, -1, 0));
        printf("child sees %d %lu\n", b[1025], attached(shm));
        fflush(stdout);
        a[1] = 42;
        CHECK(op(s, 1, 1, SEM_UNDO));
        CHECK(op(s, 2, -2, 0));
        _exit(shmdt(b));
    }
    a[1025] = 17;
    CHECK(op(sem, 0, 1, 0));
    CHECK(op(sem, 1, -1, 0));
    printf("parent sees %d value %d\n", a[1], semctl(sem, 1, GETVAL));
    fflush(stdout);
    CHECK(op(sem, 1, 5, 0));
    CHECK(op(sem, 2, 2, 0));
    printf("child %d\n", wait_for(child));
    printf("undone to %d by %d\n", semctl(sem, 1, GETVAL), semctl(sem, 1, GETPID) == child);
    printf("attached %lu\n", attached(shm));
    fflush(stdout);
    for (int round = 0; round < 2; round++) {
        child = fork();
        if (!child) {
            if (round)
                op(sem, 2, -1, 0), printf("%s\n", strerror(errno));
            else
                for (op(sem, 0, -1, SEM_UNDO);;)
                    usleep(100000);
            fflush(stdout);
            _exit(3);
        }
        if (round) {
            while (semctl(sem, 2, GETNCNT) != 1)
                usleep(1000);
            printf("waiting %d\n", semctl(sem, 2, GETNCNT));
            fflush(stdout);
            CHECK(semctl(sem, 0, IPC_RMID));
        } else {
            CHECK(semctl(sem, 0, SETVAL, 1));
            while (semctl(sem, 0, GETVAL))
                usleep(1000);
            kill(child, SIGKILL);
        }
        printf("child %d\n", wait_for(child));
        if (!round)
            printf("killed, undone to %d\n", semctl(sem, 0, GETVAL));
        fflush(stdout);
    }
    CHECK(shmctl(shm, IPC_RMID, NULL));
    child = fork();
    if (!child) {
        a[2] = 5;
        execl("/proc/self/exe", "ipcfork", "nothing", NULL);
        _exit(1);
    }
    printf("child %d, ", wait_for(child));
    printf("%d\n", a[2]);
    printf("attached %lu\n", attached(shm));
    fflush(stdout);
    CHECK(shmdt(a));
    CHECK(shmctl(shm, IPC_STAT, NULL));
}

struct message { long type; int number; char text[4000]; };

static void messages(void)
{
    int id = CHECK(msgget(IPC_PRIVATE, 0600));
    struct message m;
    long sum = 0;
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        for (int i = 0; i < 40; i++) {
            m.type = 1 + i % 3;
            m.number = i;
            if (msgsnd(id, &m, sizeof m - sizeof(long), 0))
                _exit(errno);
        }
        if (msgrcv(id, &m, sizeof m, 9, 0) < 0)
            _exit(errno);
        _exit(m.number);
    }
    for (int i = 0; i < 40; i++) {
        CHECK(msgrcv(id, &m, sizeof m, 0, 0));
        sum = sum * 3 + m.number;
    }
    m.type = 9;
    m.number = 77;
    CHECK(msgsnd(id, &m, sizeof(int), 0));
    printf("messages %ld %d\n", sum, wait_for(child));
    fflush(stdout);
    child = fork();
    if (!child)
        _exit(msgrcv(id, &m, sizeof m, 5, 0) < 0 ? errno : 0);
    usleep(20000);
    CHECK(msgctl(id, IPC_RMID, NULL));
    printf("removed %d\n", wait_for(child) == EIDRM || errno == EINVAL);
}

static void posix(void)
{
    struct mq_attr attr = {.mq_maxmsg = 2, .mq_msgsize = 16};
    char text[16];
    unsigned prio;
    mq_unlink("/mmuemu-fork");
    mqd_t q = CHECK(mq_open("/mmuemu-fork", O_RDWR | O_CREAT | O_EXCL, 0600, &attr));
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        mqd_t mine = mq_open("/mmuemu-fork", O_WRONLY);
        for (int i = 0; i < 20; i++)
            if (mq_send(mine, text, 1 + i % 16, 7))
                _exit(errno);
        _exit(mq_receive(mine, text, 16, NULL) < 0 ? 5 : 0);
    }
    long sum = 0;
    for (int i = 0; i < 20; i++)
        sum = sum * 2 + CHECK(mq_receive(q, text, 16, &prio));
    printf("mqueue %ld %u %d\n", sum, prio, wait_for(child));
    CHECK(mq_unlink("/mmuemu-fork"));
}

int main(int argc, char **argv)
{
    if (argc > 1)
        return 23;
    shared_and_semaphores();
    messages();
    posix();
    return 0;
}
