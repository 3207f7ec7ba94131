/* System V shared memory, semaphores, message queues and POSIX message queues within one process. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SAY(call) do { errno = 0; long r_ = (long)(call); printf("%s = %ld %s\n", #call, r_ < 0 ? r_ : r_ > 1000 ? 1001 : r_, r_ == -1 ? strerror(errno) : ""); } while (0)

static void shared(void)
{
    struct shmid_ds ds;
    int id = shmget(IPC_PRIVATE, 10000, IPC_CREAT | 0640);
    char *a = shmat(id, NULL, 0), *b = shmat(id, NULL, SHM_RDONLY);
    strcpy(a + 5000, "hello");
    puts(b + 5000);
    a[12287] = 1;
    SAY(shmctl(id, IPC_STAT, &ds));
    printf("%zu %lu %o %d %d\n", ds.shm_segsz, (unsigned long)ds.shm_nattch, ds.shm_perm.mode, ds.shm_cpid == getpid(),
           ds.shm_lpid == getpid());
    printf("%d %d %d\n", ds.shm_atime != 0, ds.shm_dtime != 0, ds.shm_ctime != 0);
    SAY(munmap(a + 4096, 4096));
    SAY(shmctl(id, IPC_STAT, &ds));
    printf("%lu\n", (unsigned long)ds.shm_nattch);
    SAY(shmctl(id, IPC_RMID, NULL));
    SAY(shmctl(id, IPC_STAT, &ds));
    printf("%o %d\n", ds.shm_perm.mode, ds.shm_perm.__key);
    char *room = mmap(NULL, 65536, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    SAY((long)shmat(id, room + 4096, 0));
    char *c = shmat(id, room + 4097, SHM_RND | SHM_REMAP);
    printf("%d %s\n", c == room + 4096, c + 5000);
    SAY(shmdt(c));
    SAY(shmdt(c));
    SAY(shmdt(b));
    SAY(shmdt(a));
    SAY(shmctl(id, IPC_STAT, &ds));
    SAY((long)shmat(id, NULL, 0));
    SAY(shmget(0x6d6d7531, 100, 0));
    SAY(shmget(IPC_PRIVATE, 0, IPC_CREAT));
    SAY(shmdt((void *)1));
    SAY(shmctl(-1, IPC_RMID, NULL));
    SAY(shmctl(0, 77, NULL));
    id = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600);
    SAY(mprotect(shmat(id, NULL, SHM_RDONLY), 4096, PROT_READ | PROT_WRITE));
    SAY((long)shmat(id, NULL, SHM_REMAP));
    SAY((long)shmat(id, (void *)123, 0));
    memset(&ds, 0, sizeof ds);
    ds.shm_perm.uid = getuid();
    ds.shm_perm.gid = getgid();
    ds.shm_perm.mode = 07450;
    SAY(shmctl(id, IPC_SET, &ds));
    SAY(shmctl(id, IPC_STAT, &ds));
    printf("%o\n", ds.shm_perm.mode);
    SAY(shmctl(id, IPC_RMID, NULL));
}

static void semaphores(void)
{
    struct semid_ds ds;
    unsigned short all[3] = {4, 0, 32767};
    struct timespec soon = {0, 1000000}, bad = {0, 1000000000};
    int id = semget(IPC_PRIVATE, 3, 0600);
    SAY(semctl(id, 0, SETALL, all));
    SAY(semop(id, (struct sembuf[]){{0, -3, 0}, {1, 2, SEM_UNDO}, {1, -1, 0}}, 3));
    memset(all, 9, sizeof all);
    SAY(semctl(id, 0, GETALL, all));
    printf("%d %d %d\n", all[0], all[1], all[2]);
    SAY(semop(id, (struct sembuf[]){{0, 1, 0}, {2, 1, 0}}, 2));
    SAY(semop(id, (struct sembuf[]){{0, 0, IPC_NOWAIT}}, 1));
    SAY(semop(id, (struct sembuf[]){{0, -9, IPC_NOWAIT}}, 1));
    SAY(semop(id, (struct sembuf[]){{3, -9, IPC_NOWAIT}}, 1));
    SAY(semtimedop(id, (struct sembuf[]){{0, -9, 0}}, 1, &soon));
    SAY(semtimedop(id, (struct sembuf[]){{0, -9, 0}}, 1, &bad));
    SAY(semop(id, NULL, 0));
    SAY(semop(id, NULL, 1));
    SAY(semop(id, (struct sembuf *)1, 501));
    SAY(semctl(id, 1, GETVAL));
    SAY(semctl(id, 1, GETPID) == getpid());
    SAY(semctl(id, 1, GETNCNT));
    SAY(semctl(id, 1, SETVAL, 40000));
    SAY(semctl(id, 3, SETVAL, 4));
    SAY(semctl(id, 1, SETVAL, -1));
    SAY(semctl(id, 0, IPC_STAT, &ds));
    printf("%lu %o %d %d\n", (unsigned long)ds.sem_nsems, ds.sem_perm.mode, ds.sem_otime != 0, ds.sem_ctime != 0);
    SAY(semctl(id, 0, IPC_RMID));
    SAY(semctl(id, 0, GETVAL));
    SAY(semget(0x6d6d7532, 0, IPC_CREAT));
    SAY(semget(0x6d6d7532, 1, 0));
}

static void messages(void)
{
    struct { long type; char text[100]; } m = {3, "three"};
    struct msqid_ds ds;
    int id = msgget(IPC_PRIVATE, 0600);
    SAY(msgsnd(id, &m, 6, 0));
    m.type = 1;
    SAY(msgsnd(id, &m, 0, 0));
    m.type = 0;
    SAY(msgsnd(id, &m, 1, 0));
    m.type = 2;
    strcpy(m.text, "two");
    SAY(msgsnd(id, &m, 4, IPC_NOWAIT));
    SAY(msgsnd(id, &m, 9000, 0));
    SAY(msgctl(id, IPC_STAT, &ds));
    printf("%lu %lu %d %d\n", (unsigned long)ds.msg_qnum, (unsigned long)ds.msg_qbytes, ds.msg_lspid == getpid(),
           ds.msg_lrpid);
    SAY(msgrcv(id, &m, 2, -9, IPC_NOWAIT));
    printf("%ld\n", m.type);
    SAY(msgrcv(id, &m, 2, -9, IPC_NOWAIT));
    SAY(msgrcv(id, &m, 2, -9, IPC_NOWAIT | MSG_NOERROR));
    printf("%ld %.2s\n", m.type, m.text);
    SAY(msgrcv(id, &m, 50, 3, IPC_NOWAIT | MSG_EXCEPT));
    SAY(msgrcv(id, &m, 50, 7, IPC_NOWAIT));
    SAY(msgrcv(id, &m, 50, 0, IPC_NOWAIT));
    printf("%ld %s\n", m.type, m.text);
    SAY(msgrcv(id, &m, 50, 0, IPC_NOWAIT));
    SAY(msgrcv(id, &m, -1, 0, IPC_NOWAIT));
    SAY(msgctl(id, IPC_RMID, NULL));
    SAY(msgctl(id, IPC_STAT, &ds));
    SAY(msgget(0x6d6d7533, 0));
}

static void posix(void)
{
    char text[64];
    unsigned prio;
    struct mq_attr attr = {.mq_maxmsg = 3, .mq_msgsize = 64}, now;
    struct timespec past = {1, 0};
    mq_unlink("/mmuemu-test");
    SAY(mq_open("/mmuemu-test", O_RDWR));
    SAY(mq_open("/mmuemu/test", O_RDWR | O_CREAT, 0600, NULL));
    mqd_t q = mq_open("/mmuemu-test", O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &attr);
    SAY(mq_open("/mmuemu-test", O_RDWR | O_CREAT | O_EXCL, 0600, &attr));
    SAY(mq_send(q, "low", 4, 1));
    SAY(mq_send(q, "high", 5, 9));
    struct pollfd p = {q, POLLIN | POLLOUT, 0};
    SAY(poll(&p, 1, 0));
    printf("%x\n", p.revents);
    SAY(mq_send(q, "low too", 8, 1));
    SAY(mq_send(q, "full", 5, 1));
    SAY(mq_send(q, text, 65, 1));
    SAY(mq_send(q, text, 5, 32768));
    SAY(mq_getattr(q, &now));
    printf("%ld %ld %ld %d\n", now.mq_maxmsg, now.mq_msgsize, now.mq_curmsgs, now.mq_flags == O_NONBLOCK);
    SAY(mq_receive(q, text, 63, &prio));
    for (int i = 0; i < 3; i++) {
        SAY(mq_receive(q, text, 64, &prio));
        printf("%s %u\n", text, prio);
    }
    SAY(mq_receive(q, text, 64, NULL));
    SAY(mq_setattr(q, &(struct mq_attr){0}, NULL));
    SAY(mq_timedreceive(q, text, 64, NULL, &past));
    SAY(mq_receive(0, text, 64, NULL));
    SAY(lseek(q, 0, SEEK_SET));
    SAY(mq_unlink("/mmuemu-test"));
    SAY(mq_unlink("/mmuemu-test"));
    SAY(mq_send(q, "still", 6, 0));
    SAY(mq_close(q));
    SAY(mq_close(q));
}

int main(void)
{
    setvbuf(stdout, NULL, _IONBF, 0);
    shared();
    semaphores();
    messages();
    posix();
    return 0;
}
