/* Calls about scheduling and about a machine of one node, as far as they do not depend on who asks. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SAY(call) do { errno = 0; long r_ = (long)(call); printf("%s = %ld %s\n", #call, r_, r_ == -1 ? strerror(errno) : ""); } while (0)

struct attr { unsigned size, policy; unsigned long flags; int nice; unsigned priority; unsigned long runtime, deadline, period; };

int main(void)
{
    struct sched_param zero = {0}, one = {1};
    struct attr attr;
    struct timespec interval;
    int mode = 9;
    unsigned long mask[16] = {7};
    for (int policy = -1; policy < 7; policy++) {
        printf("policy %d\n", policy);
        SAY(sched_get_priority_max(policy));
        SAY(sched_get_priority_min(policy));
    }
    SAY(sched_getscheduler(0));
    SAY(sched_getscheduler(-1));
    SAY(sched_getscheduler(999999999));
    SAY(sched_setscheduler(0, SCHED_BATCH, &one));
    SAY(sched_setscheduler(0, SCHED_BATCH, &zero));
    SAY(sched_setscheduler(0, SCHED_FIFO, &zero));
    SAY(sched_setscheduler(0, 42, &zero));
    SAY(sched_setscheduler(0, SCHED_OTHER, NULL));
    SAY(sched_getscheduler(getpid()));
    SAY(sched_setparam(0, &one));
    SAY(sched_setparam(0, &zero));
    SAY(sched_getparam(0, &one));
    printf("%d\n", one.sched_priority);
    memset(&attr, 9, sizeof attr);
    SAY(syscall(SYS_sched_getattr, 0, &attr, sizeof attr, 0));
    printf("%u %u %lu %d %u\n", attr.size, attr.policy, attr.flags, attr.nice, attr.priority);
    SAY(syscall(SYS_sched_getattr, 0, &attr, 47, 0));
    SAY(syscall(SYS_sched_getattr, 0, NULL, sizeof attr, 0));
    SAY(sched_setscheduler(0, SCHED_BATCH | SCHED_RESET_ON_FORK, &zero));
    SAY(sched_getscheduler(0) == (SCHED_BATCH | SCHED_RESET_ON_FORK));
    fflush(stdout);
    if (!fork()) {
        SAY(sched_getscheduler(0));
        fflush(stdout);
        _exit(0);
    }
    wait(NULL);
    memset(&attr, 0, sizeof attr);
    attr.size = sizeof attr;
    attr.policy = 77;
    SAY(syscall(SYS_sched_setattr, 0, &attr, 0));
    attr.policy = SCHED_BATCH;
    SAY(syscall(SYS_sched_setattr, 0, &attr, 1));
    attr.flags = 1;
    SAY(syscall(SYS_sched_setattr, 0, &attr, 0));
    SAY(sched_rr_get_interval(-1, &interval));
    SAY(syscall(SYS_ioprio_get, 1, 0));
    SAY(syscall(SYS_ioprio_get, 9, 0));
    SAY(syscall(SYS_ioprio_get, 1, 999999999));
    SAY(syscall(SYS_ioprio_set, 1, 0, 2 << 13 | 4));
    SAY(syscall(SYS_ioprio_set, 1, 0, 7 << 13));
    SAY(syscall(SYS_ioprio_set, 1, 0, 3));
    SAY(syscall(SYS_membarrier, 0, 1, 0));
    SAY(syscall(SYS_membarrier, 1 << 20, 0, 0));
    SAY(syscall(SYS_membarrier, 3, 0, 0));
    SAY(syscall(SYS_membarrier, 8, 0, 0));
    SAY(syscall(SYS_membarrier, 16, 0, 0));
    SAY(syscall(SYS_membarrier, 8, 0, 0));
    SAY(syscall(SYS_membarrier, 1, 0, 0));
    SAY((syscall(SYS_membarrier, 0, 0, 0) & 0x1f) == 0x1f);
    SAY(syscall(SYS_kcmp, getpid(), getpid(), 1, 0, 0));
    SAY(syscall(SYS_kcmp, getpid(), getpid(), 0, 0, dup(0)));
    SAY(syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 99));
    SAY(syscall(SYS_kcmp, getpid(), getpid(), 99, 0, 0));
    SAY(syscall(SYS_kcmp, getpid(), 999999999, 1, 0, 0));
    SAY(syscall(SYS_rseq, NULL, 0, 0, 0) == -1);
    return 0;
}
