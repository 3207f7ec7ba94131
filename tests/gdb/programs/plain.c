/* What a debugger is shown first: calls, a global that changes, a handler, a fault. */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

int counter;
char name[8] = "before";
volatile int handled;
volatile double half = 0.5;

static int add(int a, int b)
{
    int sum = a + b;
    counter += sum;
    return sum;
}

static int deep(int n)
{
    if (n == 0)
        return add(1, 2);
    return deep(n - 1) + 1;
}

static void on_usr1(int signal)
{
    handled += signal;
}

int main(int argc, char **argv)
{
    int total = 0;
    for (int i = 0; i < 4; i++)
        total = add(total, i);
    total += deep(3);
    signal(SIGUSR1, on_usr1);
    raise(SIGUSR1);
    raise(SIGUSR1);
    half *= 3;
    for (int i = 0; i < 2; i++)
        name[i] = "after"[i];
    fprintf(stdout, "%d %d %s\n", total, counter, name);
    fflush(stdout);
    if (argc > 1)
        *(volatile int *)0x1234 = 1;
    return total;
}
