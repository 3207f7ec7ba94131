/* One thing threads do, many times: threads KIND COUNT. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long count, sum;

static void *add_one(void *unused) {
    __atomic_fetch_add(&sum, 1, __ATOMIC_RELAXED);
    return unused;
}

static void threads(void) {
    pthread_t thread[50];
    for (long done = 0; done < count; done += 50) {
        for (int i = 0; i < 50; i++)
            if (pthread_create(&thread[i], 0, add_one, 0)) exit(1);
        for (int i = 0; i < 50; i++) pthread_join(thread[i], 0);
    }
}

static void *yielding(void *unused) {
    for (long i = 0; i < count / 2; i++) sched_yield();
    return unused;
}

static void switches(void) {
    pthread_t thread;
    if (pthread_create(&thread, 0, yielding, 0)) exit(1);
    yielding(0);
    pthread_join(thread, 0);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static long turn;

static void *player(void *me) {
    for (long i = 0; i < count / 2; i++) {
        pthread_mutex_lock(&mutex);
        while (turn != (long)me) pthread_cond_wait(&condition, &mutex);
        turn = !turn;
        sum = sum * 3 + (long)me + 1 & 0xffffff;
        pthread_cond_signal(&condition);
        pthread_mutex_unlock(&mutex);
    }
    return 0;
}

static void handoffs(void) {
    pthread_t thread;
    if (pthread_create(&thread, 0, player, (void *)1)) exit(1);
    player((void *)0);
    pthread_join(thread, 0);
}

int main(int argc, char **argv) {
    struct {
        const char *name;
        void (*run)(void);
    } kinds[] = {{"threads", threads}, {"switches", switches}, {"handoffs", handoffs}};
    count = atol(argv[2]);
    for (int i = 0; count && i < 3; i++)
        if (!strcmp(argv[1], kinds[i].name)) kinds[i].run();
    printf("%ld\n", sum);
    return 0;
}
