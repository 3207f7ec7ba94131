/*
 * The control: reading the kernel's secret in every way that the architecture offers. All of them are refused.
 */
#define LAB_OWN_RECEIVER
#include "kernel.h"

static const char ABOUT[] = "ring 0 only";

static u64 secret;
static int ends[2], sink, value;

static void listen(void)
{
}

static void say_refused(const char *how, i64 result)
{
    say("note ");
    say(how);
    say(result < 0 ? " = -" : " = ");
    say_number(result < 0 ? -result : result);
    say("\n");
}

static int prepare(u64 bytes)
{
    (void)bytes;
    secret = secret_address();
    catch_faults();
    SYSCALL(pipe, ends, 0, 0);
    sink = SYSCALL(open, "/dev/zero", 2, 0);
    if (secret) {
        say_refused("write(pipe, secret, 1)", SYSCALL(write, ends[1], secret, 1));
        say_refused("read(/dev/zero, secret, 1)", SYSCALL(read, sink, secret, 1));
        say_refused("open(secret)", SYSCALL(open, secret, 0, 0));
    }
    return secret != 0;
}

static void attempt(u64 index)
{
    u8 got;
    value = -1;
    __asm__ volatile("movq $1f, landing\n\tmovzbl (%1), %0\n1:" : "+r"(value) : "r"(secret + index) : "memory");
    if (value < 0 && SYSCALL(write, ends[1], secret + index, 1) == 1 && SYSCALL(read, ends[0], &got, 1) == 1)
        value = got;
}

static void receive(void)
{
    if (value >= 0)
        count_hit(value);
}

static void done(void)
{
    say_value("faults", faults);
}
