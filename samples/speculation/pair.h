/*
 * Two processes: the parent attacks, the child is the victim. It alone has the secret, and serves requests by pipe.
 *
 * A victim defines victim_prepare(), which makes the secret, and serve(i), what it does with byte i.
 */
#ifndef PAIR_H
#define PAIR_H
#include "lab.h"

static int requests[2], answers[2];

static void victim_prepare(u64 bytes);
static void serve(u64 index);

#ifndef LAB_OWN_WAIT
/* The number of the next byte, or -1 at the end. */
static i64 next_request(void)
{
    u8 index;
    return SYSCALL(read, requests[0], &index, 1) == 1 ? index : -1;
}
#else
static i64 next_request(void);
#endif

NOINLINE static void victim_main(u64 bytes)
{
    i64 index;
    for (u64 i = 0; i < sizeof probe; i += PAGE)
        touch(probe + i); /* fork() does not copy the entries of shared memory: it has used it before */
    victim_prepare(bytes);
    tell();
    SYSCALL(write, answers[1], requests, 1); /* any byte: "ready" */
    while ((index = next_request()) >= 0) {
        serve(index);
        SYSCALL(write, answers[1], requests, 1);
    }
    SYSCALL(exit, 0, 0, 0);
}

/* Both processes see what either of them does to the lines of probe[]. */
static int share_probe(void)
{
    if (failed(map(probe, sizeof probe, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_ANONYMOUS, -1)))
        return 0;
    for (u64 i = 0; i < sizeof probe; i += PAGE)
        probe[i] = 1;
    return 1;
}

/* Starts the child and waits until it has its secret. */
static int start_victim(u64 bytes)
{
    u8 ready;
    SYSCALL(pipe, requests, 0, 0);
    SYSCALL(pipe, answers, 0, 0);
    tell();
    i64 child = SYSCALL(fork, 0, 0, 0);
    if (child == 0) {
        SYSCALL(close, requests[1], 0, 0);
        victim_main(bytes);
    }
    SYSCALL(close, answers[1], 0, 0);
    return child > 0 && SYSCALL(read, answers[0], &ready, 1) == 1;
}

/* Lets the victim work with byte `index`. */
static ALWAYS_INLINE void ask_victim(u64 index)
{
    u8 request = index, answer;
    SYSCALL(write, requests[1], &request, 1);
    SYSCALL(read, answers[0], &answer, 1);
}

static void done(void)
{
    SYSCALL(close, requests[1], 0, 0);
    SYSCALL(wait4, -1, 0, 0);
}

#endif
