/* The host's time of day, as the engine asks for it, at another speed: HOST_CLOCK times the true one. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    static long began;
    const char *speed = getenv("HOST_CLOCK");
    struct timespec true_time;
    clock_gettime(CLOCK_REALTIME, &true_time);
    long ns = true_time.tv_sec * 1000000000L + true_time.tv_nsec;
    if (!began) began = ns;
    ns = began + (long)((double)(ns - began) * (speed ? atof(speed) : 1));
    now->tv_sec = ns / 1000000000L;
    now->tv_usec = ns % 1000000000L / 1000;
    return 0;
}
