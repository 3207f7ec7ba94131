/* Who is called when, with what, at start and end. -DNAME="x" names a library; -DPROGRAM is the program. */
#include "free.h"
#ifdef PROGRAM
static void early(int argc, char **argv, char **envp) { number("preinit", argc); say(argv[1]); say("\n"); }
__attribute__((section(".preinit_array"), used)) static void (*preinit)(int, char **, char **) = early;
__attribute__((constructor)) static void never(void) { say("program constructor\n"); }
__attribute__((destructor)) static void last(void) { say("program destructor\n"); }
__attribute__((destructor)) static void last_but_one(void) { say("program destructor 2\n"); }
int run(u64 *stack) {
    number("argc", stack[0]);
    number("aligned", (u64)stack % 16);
    return 3;
}
#else
static int up = 41;
__attribute__((constructor)) static void first(int argc, char **argv, char **envp) {
    u64 here;
    __asm__("mov %%rsp, %0" : "=r"(here));
    say(NAME " up ");
    say(argv[argc - 1]);
    say(envp == argv + argc + 1 ? " and environment" : " without environment");
    number("", up++);
}
__attribute__((constructor)) static void second(void) { number(NAME " up again", up); }
__attribute__((destructor)) static void down(void) { say(NAME " down\n"); }
__attribute__((destructor)) static void down_again(void) { say(NAME " down again\n"); }
void start_function(void) { say(NAME " DT_INIT\n"); }
void end_function(void) { say(NAME " DT_FINI\n"); }
#endif
