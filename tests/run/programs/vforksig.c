/* Signals for a process that waits in vfork(2): handlers and stops come afterwards, death at once. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile int handled, children, seen;

static void handler(int signal)
{
    handled++;
}

static void nap(long milliseconds)
{
    struct timespec time = {0, milliseconds * 1000000};
    nanosleep(&time, NULL);
}

static void handled_later(int flags)
{
    struct sigaction action;
    struct itimerval soon = {{0, 0}, {0, 20000}};
    handled = children = seen = 0;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = flags;
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
    pid_t pid = vfork();
    if (!pid) {
        children++;
        nap(60);
        seen = handled;
        _exit(children);
    }
    int error = pid < 0 ? errno : 0, status = 0;
    waitpid(pid, &status, 0);
    printf("error %d children %d seen by the child %d handled %d status %#x\n", error, children, seen, handled, status);
}

/* How a process that waits in vfork ends or goes on when it is sent `signal`, and whether that is at once. */
static void sent(int signal)
{
    int status, tube[2];
    char byte;
    pipe(tube);
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        if (!vfork()) {
            nap(150);
            write(tube[1], "c", 1);
            _exit(0);
        }
        write(tube[1], "p", 1);
        _exit(7);
    }
    close(tube[1]);
    nap(40);
    kill(pid, signal);
    nap(20);
    int early = waitpid(pid, &status, WNOHANG | WUNTRACED) == pid;
    printf("signal %d early %d", signal, early);
    if (signal == SIGSTOP) {
        waitpid(pid, &status, WUNTRACED);
        printf(" stopped %#x", status);
        kill(pid, SIGCONT);
    }
    if (!early) waitpid(pid, &status, 0);
    printf(" status %#x:", status);
    while (read(tube[0], &byte, 1) == 1) printf(" %c", byte);
    puts("");
    close(tube[0]);
}

int main(void)
{
    handled_later(0);
    handled_later(SA_RESTART);
    sent(SIGTERM);
    sent(SIGKILL);
    sent(SIGQUIT);
    sent(SIGSTOP);
    sent(SIGCHLD);
    return 0;
}
