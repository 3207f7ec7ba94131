/* Two threads that need nothing of the kernel: whoever is interrupted must go on at the very instruction. */
#include <pthread.h>
#include <stdio.h>

static volatile int go = 1;
static volatile long word, count;

static void *spin(void *unused)
{
    while (go)
        ;
    return unused;
}

int main(void)
{
    pthread_t thread;
    long bad_exchanges = 0, bad_counts = 0, expected = 0;
    pthread_create(&thread, 0, spin, 0);
    for (long i = 0; i < 6000000; i++) {
        long old = 0;
        word = 0;
        __asm__ volatile("lock cmpxchg %2, %1" : "+a"(old), "+m"(word) : "r"(5L) : "memory", "cc");
        bad_exchanges += old != 0;
        __asm__ volatile("lock incq %0" : "+m"(count));
        expected++;
        if (count != expected) {
            bad_counts++;
            expected = count;
        }
    }
    go = 0;
    pthread_join(thread, 0);
    printf("%ld %ld\n", bad_exchanges, bad_counts);
    return 0;
}
