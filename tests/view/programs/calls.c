// Makes most system calls once or twice, with results that are the same everywhere.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/msg.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>
#define S(...) syscall(__VA_ARGS__)
static char big[5000];
static void handler(int n) {}

static void files(void) {
    int fd = S(SYS_openat, AT_FDCWD, "file", O_RDWR | O_CREAT | O_TRUNC, 0640);
    S(SYS_open, "none\n\1\0012\377\"\\", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    S(SYS_open, "file", O_WRONLY | O_APPEND | O_SYNC | O_NOFOLLOW);
    S(SYS_open, "none", O_RDONLY | O_DIRECTORY);
    S(SYS_write, fd, "hello\0world\n", 12);
    S(SYS_write, fd, big, 40);
    S(SYS_write, fd, "0123456789012345678901234567890123456789", 40);
    S(SYS_write, -1, NULL, 3);
    S(SYS_lseek, fd, 0, SEEK_SET);
    S(SYS_lseek, fd, -5, SEEK_CUR);
    S(SYS_lseek, fd, 5, 77);
    S(SYS_read, fd, big, 12);
    S(SYS_read, fd, big, 100);
    S(SYS_read, fd, big, 100);
    S(SYS_read, fd, 8, 100);
    S(SYS_read, 99, big, 100);
    S(SYS_pread64, fd, big, 5, 0L);
    S(SYS_pwrite64, fd, "abc", 3, 2L);
    struct iovec v[2] = {{"one", 3}, {"three", 5}}, r[2] = {{big, 3}, {big + 100, 4}};
    S(SYS_writev, fd, v, 2);
    S(SYS_lseek, fd, 0, SEEK_SET);
    S(SYS_readv, fd, r, 2);
    S(SYS_preadv, fd, r, 2, 3L, 0L);
    S(SYS_pwritev, fd, v, 1, 3L, 0L);
    struct stat st;
    S(SYS_stat, "file", &st);
    S(SYS_stat, "none", &st);
    S(SYS_lstat, "/dev/null", &st);
    S(SYS_stat, NULL, NULL);
    S(SYS_fstat, fd, &st);
    S(SYS_newfstatat, AT_FDCWD, "file", &st, AT_SYMLINK_NOFOLLOW);
    S(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH);
    S(SYS_access, "file", R_OK | W_OK);
    S(SYS_access, "file", F_OK);
    S(SYS_faccessat, AT_FDCWD, "none", X_OK);
    S(SYS_faccessat2, AT_FDCWD, "file", R_OK, AT_EACCESS);
    S(SYS_fcntl, fd, F_GETFD);
    S(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC);
    S(SYS_fcntl, fd, F_GETFD);
    S(SYS_fcntl, fd, F_GETFL);
    S(SYS_fcntl, fd, F_SETFL, O_RDONLY | O_NONBLOCK);
    S(SYS_fcntl, fd, F_DUPFD, 20);
    S(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 21);
    struct flock lock = {F_WRLCK, SEEK_SET, 0, 10, 0};
    S(SYS_fcntl, fd, F_SETLK, &lock);
    S(SYS_fcntl, fd, F_GETLK, &lock);
    S(SYS_fcntl, fd, 777, 5);
    S(SYS_flock, fd, LOCK_EX | LOCK_NB);
    S(SYS_dup, fd);
    S(SYS_dup2, fd, 30);
    S(SYS_dup3, fd, 31, O_CLOEXEC);
    S(SYS_close, 31);
    S(SYS_close, 31);
    S(SYS_fsync, fd);
    S(SYS_fdatasync, fd);
    S(SYS_ftruncate, fd, 100L);
    S(SYS_truncate, "file", 50L);
    S(SYS_fallocate, fd, 0, 0L, 200L);
    S(SYS_fchmod, fd, 0600);
    S(SYS_chmod, "file", 0);
    S(SYS_chmod, "file", 04755);
    S(SYS_fchmodat, AT_FDCWD, "file", 0644);
    S(SYS_chown, "file", -1, -1);
    S(SYS_fchownat, AT_FDCWD, "file", -1, 0, AT_SYMLINK_NOFOLLOW);
    S(SYS_umask, 027);
    S(SYS_umask, 022);
    S(SYS_mkdir, "directory", 0755);
    S(SYS_mkdirat, AT_FDCWD, "directory", 0700);
    S(SYS_rename, "file", "directory/file");
    S(SYS_renameat2, AT_FDCWD, "directory/file", AT_FDCWD, "file", RENAME_NOREPLACE);
    S(SYS_symlink, "file", "link");
    S(SYS_readlink, "link", big, 100);
    S(SYS_readlink, "file", big, 100);
    S(SYS_readlinkat, AT_FDCWD, "link", big, 2);
    S(SYS_link, "file", "hard");
    S(SYS_linkat, AT_FDCWD, "hard", AT_FDCWD, "harder", AT_SYMLINK_FOLLOW);
    S(SYS_unlink, "hard");
    S(SYS_unlinkat, AT_FDCWD, "harder", 0);
    S(SYS_unlinkat, AT_FDCWD, "directory", AT_REMOVEDIR);
    S(SYS_rmdir, "directory");
    S(SYS_mknod, "fifo", S_IFIFO | 0600, 0);
    S(SYS_mknodat, AT_FDCWD, "none/x", S_IFCHR | 0600, 0x103);
    S(SYS_chdir, "/nowhere");
    S(SYS_fchdir, fd);
    struct timespec ts[2] = {{1, 5}, {0, UTIME_OMIT}};
    S(SYS_utimensat, AT_FDCWD, "file", ts, 0);
    S(SYS_utimensat, AT_FDCWD, "file", NULL, AT_SYMLINK_NOFOLLOW);
    struct timeval tv[2] = {{3, 7}, {4, 0}};
    S(SYS_utimes, "file", tv);
    S(SYS_utime, "file", &(long[]){5, 6});
    struct open_how how = {O_RDONLY | O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS};
    S(SYS_openat2, AT_FDCWD, "link", &how, sizeof how);
    char x[200];
    S(SYS_statx, AT_FDCWD, "file", AT_STATX_SYNC_AS_STAT, STATX_MODE | STATX_SIZE, x + 0);
    S(SYS_statx, AT_FDCWD, "none", AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, x + 0);
    S(SYS_getxattr, "file", "user.none", big, 100);
    S(SYS_setxattr, "none", "user.x", "value", 5, XATTR_CREATE);
    S(SYS_listxattr, "none", big, 100);
    S(SYS_memfd_create, "memory", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    S(SYS_fcntl, -1, F_ADD_SEALS, F_SEAL_GROW);
    S(SYS_copy_file_range, 99, NULL, fd, NULL, 10, 0);
    S(SYS_sendfile, 99, fd, NULL, 10L);
    S(SYS_fadvise64, fd, 0L, 0L, POSIX_FADV_SEQUENTIAL);
    S(SYS_sync_file_range, 99, 0L, 0L, SYNC_FILE_RANGE_WRITE);
    S(SYS_getdents64, fd, big, 100);
    mkdir("d", 0700);
    int dir = S(SYS_openat, AT_FDCWD, "d", O_RDONLY | O_DIRECTORY);
    S(SYS_getdents64, dir, big, 4096);
    S(SYS_getdents64, dir, big, 4096);
    S(SYS_close_range, 3, ~0U, 0);
}

static void memory(void) {
    char *p = (char *)S(SYS_mmap, NULL, 8192L, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L);
    S(SYS_mmap, p, 4096L, PROT_NONE, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0L);
    S(SYS_mmap, NULL, 0L, PROT_READ, MAP_SHARED, 5, 4096L);
    S(SYS_mmap, NULL, 4096L, PROT_EXEC, MAP_SHARED | MAP_POPULATE, 99, 0L);
    S(SYS_mprotect, p, 8192L, PROT_READ | PROT_EXEC);
    S(SYS_mprotect, p + 1, 8192L, PROT_READ);
    S(SYS_madvise, p, 8192L, MADV_DONTNEED);
    S(SYS_madvise, p, 8192L, 999);
    S(SYS_mremap, p, 8192L, 4096L, 0);
    S(SYS_msync, p, 4096L, MS_SYNC);
    S(SYS_mlock, p, 4096L);
    S(SYS_munlock, p, 4096L);
    S(SYS_munmap, p, 4096L);
    S(SYS_munmap, 1L, 4096L);
    S(SYS_brk, NULL);
}

static void signals(void) {
    struct { void *h; unsigned long f; void *r; unsigned long m; } a = {SIG_IGN, 0, 0, 0}, old;
    S(SYS_rt_sigaction, SIGUSR2, &a, NULL, 8);
    S(SYS_rt_sigaction, SIGUSR2, NULL, &old, 8);
    S(SYS_rt_sigaction, SIGKILL, &a, NULL, 8);
    S(SYS_rt_sigaction, 99, NULL, NULL, 8);
    signal(SIGUSR1, handler);
    unsigned long set = 1UL << (SIGINT - 1) | 1UL << (SIGTERM - 1) | 1UL << 33, full = ~0UL, out;
    S(SYS_rt_sigprocmask, SIG_BLOCK, &set, &out, 8);
    S(SYS_rt_sigprocmask, SIG_SETMASK, &full, &out, 8);
    S(SYS_rt_sigpending, &out, 8);
    out = 0;
    S(SYS_rt_sigprocmask, SIG_SETMASK, &out, NULL, 8);
    S(SYS_kill, getpid(), SIGUSR1);
    S(SYS_kill, getpid(), SIGUSR2);
    S(SYS_kill, getpid(), 0);
    S(SYS_tgkill, getpid(), getpid(), SIGUSR1);
    S(SYS_tkill, getpid(), 99);
    stack_t s = {0, SS_DISABLE, 0};
    S(SYS_sigaltstack, &s, NULL);
    S(SYS_sigaltstack, NULL, NULL);
    set = 1UL << (SIGUSR1 - 1);
    struct timespec t = {0, 0};
    S(SYS_rt_sigtimedwait, &set, NULL, &t, 8);
    siginfo_t i;
    memset(&i, 0, sizeof i);
    i.si_signo = SIGUSR1, i.si_code = SI_QUEUE, i.si_pid = getpid(), i.si_uid = 0, i.si_value.sival_int = 7;
    S(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, &i);
    struct itimerval v = {{0, 0}, {100, 0}};
    S(SYS_setitimer, ITIMER_REAL, &v, NULL);
    S(SYS_getitimer, ITIMER_VIRTUAL, &v);
    S(SYS_alarm, 0);
    S(SYS_signalfd4, -1, &set, 8, SFD_CLOEXEC | SFD_NONBLOCK);
    timer_t timer;
    struct sigevent e = {.sigev_notify = SIGEV_NONE, .sigev_signo = SIGALRM};
    int id;
    S(SYS_timer_create, CLOCK_MONOTONIC, &e, &id);
    struct itimerspec spec = {{0, 0}, {5, 6}};
    S(SYS_timer_settime, id, TIMER_ABSTIME, &spec, NULL);
    S(SYS_timer_delete, id);
}

static void processes(void) {
    int status;
    fflush(NULL);
    pid_t p = fork();
    if (!p) {
        S(SYS_getppid);
        S(SYS_exit_group, 300);
    }
    S(SYS_wait4, p, &status, 0, NULL);
    S(SYS_wait4, -1, &status, WNOHANG | WUNTRACED, NULL);
    p = fork();
    if (!p) {
        struct rlimit none = {0, 0};
        S(SYS_setrlimit, RLIMIT_CORE, &none);
        *(volatile int *)0x10 = 1;
    }
    struct rusage use;
    memset(&use, 0, sizeof use);
    S(SYS_wait4, p, &status, __WALL, NULL);
    p = fork();
    if (!p) {
        S(SYS_pause);
    }
    usleep(200000);
    S(SYS_kill, p, SIGTERM);
    siginfo_t i;
    S(SYS_waitid, P_PID, p, &i, WEXITED, NULL);
    S(SYS_waitid, P_ALL, 0, NULL, WEXITED | WNOHANG, NULL);
    p = fork();
    if (!p) {
        char *const arguments[] = {"nothing", "a\tb", NULL}, *const variables[] = {"A=1", NULL};
        S(SYS_execve, "/nowhere/nothing", arguments, variables);
        S(SYS_execveat, AT_FDCWD, "/nowhere/nothing", arguments, NULL, AT_SYMLINK_NOFOLLOW);
        S(SYS_exit, 5);
    }
    S(SYS_wait4, p, NULL, 0, NULL);
    struct rlimit64 { unsigned long a, b; } l;
    S(SYS_prlimit64, 0, RLIMIT_CORE, NULL, &l);
    S(SYS_getrlimit, 99, &l);
    S(SYS_prctl, PR_SET_NAME, "name");
    S(SYS_prctl, PR_GET_NAME, big);
    S(SYS_prctl, PR_GET_DUMPABLE);
    S(SYS_prctl, PR_SET_PDEATHSIG, SIGHUP);
    S(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    S(SYS_prctl, PR_GET_PDEATHSIG, &status);
    S(SYS_personality, 0xffffffff);
    S(SYS_getpriority, PRIO_PROCESS, 0);
    S(SYS_setpriority, PRIO_PROCESS, 0, 3);
    S(SYS_sched_yield);
    S(SYS_sched_getscheduler, 0);
    struct sched_param sp = {0};
    S(SYS_sched_getparam, 0, &sp);
    S(SYS_sched_setscheduler, 0, SCHED_BATCH, &sp);
    S(SYS_sched_get_priority_max, SCHED_FIFO);
    S(SYS_setpgid, 0, -1);
    S(SYS_setuid, 0);
    S(SYS_setresuid, -1, 0, -1);
    unsigned a, b, c;
    S(SYS_getresuid, &a, &b, &c);
    S(SYS_getgroups, -1, NULL);
    S(SYS_capget, &(int[]){0x20080522, 99999}, NULL);
    S(SYS_uname, NULL);
    S(SYS_getrandom, NULL, 0L, GRND_NONBLOCK | GRND_RANDOM);
    S(SYS_membarrier, 1 << 20, 0, 0);
    S(SYS_kcmp, 0, 0, 2, 0, 0);
    S(SYS_arch_prctl, 0x1002, 1UL << 63);
    int word = 5;
    S(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 4, NULL);
    struct timespec t = {0, 1234567};
    S(SYS_futex, &word, FUTEX_WAIT, 5, &t);
    S(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1);
    S(SYS_futex, &word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 4, NULL, NULL, -1);
    S(SYS_futex, &word, FUTEX_CMP_REQUEUE_PRIVATE, 1, 2, &word, 6);
    S(SYS_futex, &word, FUTEX_WAKE_OP, 1, 1, &word, 0x01001000 + 6);
    S(SYS_nanosleep, &t, NULL);
    S(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
    S(SYS_clock_getres, CLOCK_MONOTONIC, &t);
    S(SYS_clock_gettime, 99, &t);
    S(SYS_clock_settime, CLOCK_MONOTONIC, &t);
}

static void descriptors(void) {
    int p[2], s[2], n;
    S(SYS_pipe, p);
    S(SYS_pipe2, p, O_NONBLOCK | O_CLOEXEC);
    S(SYS_read, p[0], big, 1);
    struct pollfd f[3] = {{p[0], POLLIN, 0}, {p[1], POLLOUT | POLLPRI, 0}, {-1, 0, 0}};
    S(SYS_poll, f, 3, 0);
    S(SYS_poll, f, 1, 0);
    struct timespec t = {0, 0};
    S(SYS_ppoll, f, 1, &t, NULL, 8);
    fd_set in, out;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(p[0], &in);
    FD_SET(p[1], &out);
    struct timeval tv = {0, 0};
    S(SYS_select, p[1] + 1, &in, &out, NULL, NULL);
    FD_ZERO(&in);
    FD_SET(p[0], &in);
    S(SYS_select, p[1] + 1, &in, NULL, NULL, &tv);
    S(SYS_ioctl, p[0], FIONREAD, &n);
    S(SYS_ioctl, p[0], TCGETS, big);
    S(SYS_ioctl, p[0], FIONBIO, &n);
    S(SYS_fcntl, p[0], F_GETPIPE_SZ);
    int e = S(SYS_epoll_create1, EPOLL_CLOEXEC);
    struct epoll_event ev = {EPOLLIN | EPOLLET, {.u64 = 0x100000007}}, found[4];
    S(SYS_epoll_ctl, e, EPOLL_CTL_ADD, p[0], &ev);
    S(SYS_epoll_ctl, e, EPOLL_CTL_ADD, p[0], &ev);
    S(SYS_epoll_wait, e, found, 4, 0);
    S(SYS_write, p[1], "x", 1);
    S(SYS_epoll_wait, e, found, 4, -1);
    S(SYS_epoll_pwait, e, found, 4, 0, NULL, 8);
    S(SYS_epoll_ctl, e, EPOLL_CTL_DEL, p[0], NULL);
    S(SYS_eventfd2, 3, EFD_SEMAPHORE | EFD_NONBLOCK);
    int tf = S(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct itimerspec spec = {{1, 0}, {100, 0}};
    S(SYS_timerfd_settime, tf, 0, &spec, NULL);
    int w = S(SYS_inotify_init1, IN_NONBLOCK);
    S(SYS_inotify_add_watch, w, ".", IN_CREATE | IN_DELETE | IN_ONLYDIR);
    S(SYS_inotify_rm_watch, w, 77);
    S(SYS_tee, p[0], p[1], 10L, SPLICE_F_NONBLOCK);
    S(SYS_splice, 99, NULL, p[1], NULL, 10L, SPLICE_F_MOVE);
    S(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s);
    S(SYS_sendto, s[0], "hello", 5, MSG_NOSIGNAL, NULL, 0);
    S(SYS_recvfrom, s[1], big, 100, MSG_DONTWAIT, NULL, NULL);
    S(SYS_recvfrom, s[1], big, 100, MSG_DONTWAIT, NULL, NULL);
    int one = 1;
    socklen_t size = 4;
    S(SYS_setsockopt, s[0], SOL_SOCKET, SO_PASSCRED, &one, 4);
    S(SYS_getsockopt, s[0], SOL_SOCKET, SO_TYPE, &one, &size);
    S(SYS_getsockopt, s[0], SOL_SOCKET, SO_ERROR, &one, &size);
    struct iovec v = {"abc", 3};
    union { struct cmsghdr h; char b[CMSG_SPACE(4)]; } c;
    memset(&c, 0, sizeof c);
    c.h.cmsg_len = CMSG_LEN(4), c.h.cmsg_level = SOL_SOCKET, c.h.cmsg_type = SCM_RIGHTS;
    *(int *)CMSG_DATA(&c.h) = 0;
    struct msghdr m = {NULL, 0, &v, 1, &c, sizeof c, 0};
    S(SYS_sendmsg, s[1], &m, 0);
    struct iovec rv = {big, 100};
    struct msghdr r = {NULL, 0, &rv, 1, NULL, 0, 0};
    m.msg_control = NULL, m.msg_controllen = 0;
    S(SYS_sendmsg, s[1], &m, MSG_DONTWAIT);
    S(SYS_shutdown, s[0], SHUT_WR);
    int u = S(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    struct sockaddr_un a = {AF_UNIX, "socket"}, b;
    S(SYS_bind, u, &a, sizeof a);
    size = sizeof b;
    S(SYS_getsockname, u, &b, &size);
    S(SYS_getpeername, u, &b, &size);
    strcpy(a.sun_path, "nothing");
    S(SYS_connect, u, &a, sizeof a);
    S(SYS_sendto, u, "x", 1, 0, &a, 2 + 8);
    S(SYS_listen, u, 5);
    S(SYS_accept4, u, NULL, NULL, SOCK_CLOEXEC);
    memcpy(a.sun_path, "\0abstract", 10);
    S(SYS_connect, u, &a, 2 + 9);
    struct { unsigned short f, p; unsigned char h[4]; char z[8]; } inet = {AF_INET, 0x5000, {127, 0, 0, 1}, {0}};
    S(SYS_bind, 99, &inet, 16);
}

static void ipc(void) {
    int id = S(SYS_shmget, IPC_PRIVATE, 4096L, IPC_CREAT | 0600);
    void *at = (void *)S(SYS_shmat, id, NULL, SHM_RDONLY);
    S(SYS_shmdt, at);
    S(SYS_shmctl, id, IPC_RMID, NULL);
    id = S(SYS_semget, IPC_PRIVATE, 2, IPC_CREAT | 0600);
    struct sembuf op = {0, 1, IPC_NOWAIT | SEM_UNDO};
    S(SYS_semop, id, &op, 1L);
    S(SYS_semctl, id, 0, IPC_RMID, 0L);
    id = S(SYS_msgget, IPC_PRIVATE, IPC_CREAT | 0600);
    struct { long t; char x[10]; } m = {3, "text"};
    S(SYS_msgsnd, id, &m, 4L, IPC_NOWAIT);
    S(SYS_msgrcv, id, &m, 10L, 0L, MSG_NOERROR);
    S(SYS_msgctl, id, IPC_RMID, NULL);
}

// Arguments with every bit set, and values that mean nothing: all fail.
static void constants(void) {
    unsigned long A = ~0u;
    S(999, 0L, 1L, 2L, 0L, 0L, 5L);
    unsigned long sa[4]={0, 0xFC000FFFUL|0x4000000, 1, 0};
    S(SYS_rt_sigaction, 10, sa, 0, 8);
    S(SYS_mmap, 0, 0L, 0x0300000f, 0x1fffff, -1, 0L);
    S(SYS_mmap, 0, 0L, 0, 0x3, -1, 0L);
    S(SYS_mmap, 0, 0L, 0, 0x0, -1, 0L);
    S(SYS_open, "/nonexist/x", 0x7fffff);
    S(SYS_open, "/nonexist/x", 0x3|0x2000|0x1000);
    S(SYS_fcntl, 99, 4, 0x7fffff);
    S(SYS_clone, 0xffffff00UL&~0x4000000, 0L, 0L, 0L, 0L);
    int ev[3]={-1, -1, -1};
    S(SYS_epoll_ctl, 99, 1, 3, ev);
    struct pollfd p={99, -1, 0};
    S(SYS_poll, &p, 1, 0);
    S(SYS_mount, "a", "b", "c", 0x2104dfL & ~0x20L, 0);
    S(SYS_umount2, "/none", 0xff);
    S(SYS_umount2, "/none", 0xf0);
    S(SYS_sendto, 99, "", 0, A&0xfffffff, 0, 0);
    S(SYS_inotify_add_watch, 99, "/none", A);
    char b[512];
    S(SYS_statx, -100, "/none", 0xffff, A, b);
    S(SYS_mremap, 0L, 0L, 0L, 0xff, 0L);
    S(SYS_splice, 99, 0, 99, 0, 0L, 0xff);
    S(SYS_renameat2, -100, "/none", -100, "/none", 0xff);
    S(SYS_wait4, 1L, 0, -1, 0);
    S(SYS_wait4, 1L, 0, 0x6f00000e, 0);
    S(SYS_memfd_create, b, 0xffff&0xff);
    S(SYS_unlinkat, -100, "/none", 0xffff);
    S(SYS_faccessat2, -100, "/none", 15, 0xffff);
    S(SYS_shmget, 5, 0L, 0xffff);
    S(SYS_msgget, 5, 0xffff);
    S(SYS_semget, 5, 0, 0x1fff);
    S(SYS_shmat, -1, 0, 0xffff);
    S(SYS_msgrcv, -1, b, 0L, 0L, 0xffff);
    S(SYS_socket, 77, 0xffff, 99);
    S(SYS_socket, 2, 3, 255);
    S(SYS_eventfd2, 0, A);
    S(SYS_timerfd_settime, 99, 0xff, 0, 0);
    S(SYS_madvise, 0L, 0L, 100);
    S(SYS_msync, 1L, 0L, 0xff);
    S(SYS_mlockall, 0xff);
    S(SYS_fallocate, 99, 0xff, 0L, 0L);
    S(SYS_setxattr, "/none", "a", "", 0L, 0xff);
    S(SYS_preadv2, 99, 0, 0, 0L, 0L, 0xff);
    S(SYS_pipe2, 0, A);
    S(SYS_accept4, 99, 0, 0, A);
    S(SYS_dup3, 99, 98, A);
    S(SYS_signalfd4, 99, 0, 8L, A);
    S(SYS_inotify_init1, A);
    S(SYS_epoll_create1, A);
    S(SYS_close_range, 5, 4, A);
    S(SYS_getrandom, 0, 0L, A);
    S(SYS_futex, 4, A, 1, 0, 0, 0);
    S(SYS_futex, 0, 0xff0 , 1, 0, 0, 0);
    S(SYS_personality, A);
    S(SYS_prctl, 1234, 1, 2, 3, 4);
    S(SYS_arch_prctl, 0x9999, 1L);
    S(SYS_ioctl, 99, 0x12345678, 5);
    S(SYS_ioctl, 99, 0x5401, 5);
    S(SYS_clock_gettime, -6, 0);
    S(SYS_clock_gettime, (~5<<3)|2, 0);
    S(SYS_clock_gettime, 99, 0);
    S(SYS_kill, 0x7fffffff, 64);
    S(SYS_kill, 0x7fffffff, 32);
    S(SYS_kill, 0x7fffffff, 33);
    S(SYS_kill, 0x7fffffff, 65);
    S(SYS_lseek, 99, -1L, 9);
    S(SYS_flock, 99, 0xff);
    S(SYS_shutdown, 99, 5);
    S(SYS_waitid, 9, 5, 0, 0xff, 0);
    S(SYS_getrusage, 7, 0);
    S(SYS_setpriority, 9, 1, 1);
    S(SYS_sched_setscheduler, 0x7fffffff, 0x40000001, 0);
    S(SYS_setitimer, 9, 0, 0);
    S(SYS_rt_sigprocmask, 9, 0, 0, 8);
    S(SYS_fchownat, -100, "/none", -1, 5, 0xffff);
    S(SYS_newfstatat, -100, "/none", b, 0xffff);
    S(SYS_chmod, "/none", 0xffff);
    S(SYS_mknod, "/none/x", 0xf1ff, 0x123);
    S(SYS_mkdir, "/none/x", 07777);
    S(SYS_ioprio_set, 1, 0, 0x4003);
    S(SYS_pkey_alloc, 0, 0xf);
    S(SYS_membarrier, 3, 1);
    S(SYS_kcmp, 1, 2, 0, 3, 4);
    S(SYS_openat2, -100, "/none", (unsigned long[]){0x80040, 0644, 0xff}, 24);
    S(SYS_fadvise64, 99, 0L, 0L, 9);
    S(SYS_sync_file_range, 99, 0L, 0L, 0xff);
    S(SYS_utimensat, -100, "/none", (long[]){1700000000, 0x3fffffff, 1700000001, 5}, 0);
    S(SYS_fcntl, 99, 6, (long[]){0x20001, 0, 0, 0});
    S(SYS_fcntl, 99, 1024, 1);
    S(SYS_fcntl, 99, 1033, 0xff);
    S(SYS_fcntl, 99, 10, 9);
    S(SYS_getsockopt, 99, 1, 20, &ev, 0);
    S(SYS_mq_open, "/none", 0xc2, 0600, 0);
    S(SYS_timer_create, 1, (int[16]){5, 0, 10, 0}, 0);
    S(SYS_timer_create, 1, 0, 0);
    S(SYS_sigaltstack, (long[]){1, 7, 3}, 0);
    S(SYS_rt_sigqueueinfo, 1<<30, 9, (int[32]){9, 0, -2, 0, 5, 6, 7});
    S(SYS_semctl, -1, 0, 16, 5L);
    S(SYS_shmctl, -1, 0xff, 0);
    S(SYS_sched_setaffinity, 0x7fffffff, 8L, (long[]){5});
    S(999, 1L, 2L, 3L, 4L, 5L, 6L);
    S(SYS_getpriority, 0, 0);
    S(SYS_socketpair, 1, 1, 0, 0);
    S(SYS_bind, 99, (char[]){1, 0}, 2);
    S(SYS_bind, 99, (char[28]){10, 0, 0, 80, 0, 0, 0, 0, [23]=1}, 28);
}

int main(int argc, char **argv) {
    signal(SIGALRM, handler);
    S(SYS_access, "/begin", F_OK);
    if (strchr(argv[1], 'f')) files();
    if (strchr(argv[1], 'm')) memory();
    if (strchr(argv[1], 's')) signals();
    if (strchr(argv[1], 'p')) processes();
    if (strchr(argv[1], 'd')) descriptors();
    if (strchr(argv[1], 'i')) ipc();
    if (strchr(argv[1], 'c')) constants();
    return 7;
}
