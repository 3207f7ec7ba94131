/* What pthreads does with futexes; every line is the same however the threads take turns. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define N 8
#define ROUNDS 200

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static long counter;

static void each(void *(*body)(void *), int count)
{
    pthread_t threads[N];
    for (long i = 0; i < count; i++)
        if ((errno = pthread_create(&threads[i], NULL, body, (void *)i)))
            perror("pthread_create"), exit(1);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

static void *adds(void *arg)
{
    for (int i = 0; i < ROUNDS; i++) {
        pthread_mutex_lock(&lock);
        long seen = counter;
        if (i % 16 == 0)
            sched_yield();
        counter = seen + 1;
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static int queue[4], head, tail, filled;
static long total;

static void *produces(void *arg)
{
    for (int i = 1; i <= 100; i++) {
        pthread_mutex_lock(&lock);
        while (filled == 4)
            pthread_cond_wait(&changed, &lock);
        queue[tail++ % 4] = i;
        filled++;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void *consumes(void *arg)
{
    for (int i = 1; i <= 100; i++) {
        pthread_mutex_lock(&lock);
        while (!filled)
            pthread_cond_wait(&changed, &lock);
        total += queue[head++ % 4];
        filled--;
        pthread_cond_broadcast(&changed);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void *either(void *arg)
{
    return (long)arg % 2 ? produces(arg) : consumes(arg);
}

static pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
static int first, second, torn;

static void *reads_or_writes(void *arg)
{
    for (int i = 0; i < 100; i++)
        if ((long)arg < 2) {
            pthread_rwlock_wrlock(&rw);
            first++;
            sched_yield();
            second++;
            pthread_rwlock_unlock(&rw);
        } else {
            pthread_rwlock_rdlock(&rw);
            torn += first != second;
            pthread_rwlock_unlock(&rw);
        }
    return NULL;
}

static pthread_barrier_t barrier;
static int serials, phase[N];

static void *meets(void *arg)
{
    for (int i = 0; i < 20; i++) {
        phase[(long)arg] = i;
        if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD)
            __sync_fetch_and_add(&serials, 1);
        for (int j = 0; j < 4; j++)
            torn += phase[j] < i;
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

static sem_t ping, pong;

static void *answers(void *arg)
{
    for (int i = 0; i < 50; i++) {
        sem_wait(&ping);
        counter++;
        sem_post(&pong);
    }
    return NULL;
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static __thread int mine;
static int destroyed, initialized;

static void destroy(void *value) { __sync_fetch_and_add(&destroyed, (long)value); }
static void initialize(void) { initialized++; pthread_key_create(&key, destroy); }

static void *keeps(void *arg)
{
    pthread_once(&once, initialize);
    pthread_setspecific(key, (void *)((long)arg + 1));
    mine = (long)arg;
    sched_yield();
    if (mine != (long)arg || pthread_getspecific(key) != (void *)((long)arg + 1))
        torn++;
    return NULL;
}

static pthread_mutex_t special;

static void *dies_holding(void *arg)
{
    pthread_mutex_lock(&special);
    return NULL;
}

static void kinds(void)
{
    pthread_mutexattr_t attr;
    struct timespec when;
    pthread_t thread;
    for (int pi = 0; pi < 2; pi++) {
        pthread_mutexattr_init(&attr);
        pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
        pthread_mutexattr_setprotocol(&attr, pi ? PTHREAD_PRIO_INHERIT : PTHREAD_PRIO_NONE);
        printf("init %d\n", pthread_mutex_init(&special, &attr));
        pthread_create(&thread, NULL, dies_holding, NULL);
        pthread_join(thread, NULL);
        printf("robust %d\n", pthread_mutex_lock(&special));
        printf("consistent %d\n", pthread_mutex_consistent(&special));
        printf("unlock %d\n", pthread_mutex_unlock(&special));
        printf("lock %d\n", pthread_mutex_lock(&special));
        printf("busy %d\n", pthread_mutex_trylock(&special));
        pthread_mutex_unlock(&special);
    }
    clock_gettime(CLOCK_REALTIME, &when);
    when.tv_nsec += 20000000;
    if (when.tv_nsec >= 1000000000)
        when.tv_sec++, when.tv_nsec -= 1000000000;
    pthread_mutex_lock(&lock);
    printf("timed wait %d\n", pthread_cond_timedwait(&changed, &lock, &when));
    pthread_mutex_unlock(&lock);
    sem_init(&ping, 0, 0);
    printf("sem %d %d\n", sem_timedwait(&ping, &when), errno == ETIMEDOUT);
}

static void *adds_inheriting(void *arg)
{
    for (int i = 0; i < ROUNDS; i++) {
        pthread_mutex_lock(&special);
        long seen = counter;
        sched_yield();
        counter = seen + 1;
        pthread_mutex_unlock(&special);
    }
    return NULL;
}

struct shared { pthread_mutex_t lock; pthread_cond_t cond; sem_t sem, go; int value; };

static void processes(void)
{
    struct shared *s = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutexattr_t mattr;
    pthread_condattr_t cattr;
    int status;
    pthread_mutexattr_init(&mattr);
    pthread_mutexattr_setpshared(&mattr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&mattr, PTHREAD_MUTEX_ROBUST);
    pthread_condattr_init(&cattr);
    pthread_condattr_setpshared(&cattr, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&s->lock, &mattr);
    pthread_cond_init(&s->cond, &cattr);
    sem_init(&s->sem, 1, 0);
    sem_init(&s->go, 1, 0);
    pid_t child = fork();
    if (!child) {
        for (int i = 0; i < 100; i++) {
            pthread_mutex_lock(&s->lock);
            while (s->value % 2)
                pthread_cond_wait(&s->cond, &s->lock);
            s->value++;
            pthread_cond_signal(&s->cond);
            pthread_mutex_unlock(&s->lock);
        }
        sem_post(&s->sem);
        sem_wait(&s->go);
        pthread_mutex_lock(&s->lock);
        _exit(7);
    }
    for (int i = 0; i < 100; i++) {
        pthread_mutex_lock(&s->lock);
        while (s->value % 2 == 0)
            pthread_cond_wait(&s->cond, &s->lock);
        s->value++;
        pthread_cond_signal(&s->cond);
        pthread_mutex_unlock(&s->lock);
    }
    sem_wait(&s->sem);
    sem_post(&s->go);
    waitpid(child, &status, 0);
    printf("processes %d %d %d\n", s->value, WEXITSTATUS(status), pthread_mutex_lock(&s->lock));
}

int main(void)
{
    each(adds, N);
    printf("mutex %ld\n", counter);
    each(either, 6);
    printf("condition %ld %d\n", total, filled);
    each(reads_or_writes, 6);
    printf("rwlock %d %d torn %d\n", first, second, torn);
    pthread_barrier_init(&barrier, NULL, 4);
    each(meets, 4);
    printf("barrier %d torn %d\n", serials, torn);
    counter = 0;
    sem_init(&ping, 0, 0);
    sem_init(&pong, 0, 0);
    pthread_t thread;
    pthread_create(&thread, NULL, answers, NULL);
    for (int i = 0; i < 50; i++) {
        sem_post(&ping);
        sem_wait(&pong);
    }
    pthread_join(thread, NULL);
    printf("semaphore %ld\n", counter);
    each(keeps, N);
    printf("once %d keys %d torn %d\n", initialized, destroyed, torn);
    kinds();
    counter = 0;
    each(adds_inheriting, 4);
    printf("inheriting %ld\n", counter);
    processes();
    fflush(stdout);
    return 0;
}
