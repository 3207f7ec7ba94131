/* What a pseudo-terminal takes that nobody reads, and who waits for room in it. */
#define _GNU_SOURCE
#include "say.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

static char bytes[1 << 20];
static int master, slave;

static void mode(int flags) {
    struct termios t;
    tcgetattr(slave, &t);
    cfmakeraw(&t);
    t.c_lflag |= flags;
    tcsetattr(slave, TCSANOW, &t);
    tcflush(slave, TCIOFLUSH);
    usleep(20000);
}

static long emptied(void) {
    char text[1 << 16];
    long all = 0, n, most = 0;
    fcntl(slave, F_SETFL, O_NONBLOCK);
    for (int idle = 0; idle < 3;) {
        n = read(slave, text, sizeof text);
        if (n <= 0) idle++, usleep(20000);
        else all += n, most = n > most ? n : most;
    }
    fcntl(slave, F_SETFL, 0);
    printf("at most %ld at once\n", most);
    return all;
}

static void filled(void) {
    struct pollfd p = {master, POLLOUT, 0};
    long all = 0, n;
    int wait = 0;
    fcntl(master, F_SETFL, O_NONBLOCK);
    for (int idle = 0; idle < 3 && all < 1 << 20;) {
        n = write(master, bytes, 4096);
        if (n <= 0) idle++, usleep(20000);
        else all += n;
    }
    say("full", write(master, bytes, 1));
    printf("room for more than a line: %d, for 64 KiB: %d\n", all >= 4096, all >= 1 << 16);
    poll(&p, 1, 0);
    printf("writable: %d\n", p.revents & POLLOUT);
    ioctl(slave, FIONREAD, &wait);
    printf("of them %d at hand\n", wait);
    printf("all are read: %d\n", emptied() == all);
    poll(&p, 1, 0);
    printf("writable: %d\n", p.revents & POLLOUT);
    say("again", write(master, bytes, 1));
    fcntl(master, F_SETFL, 0);
}

static void waited_for(void) {
    long all = 0, n;
    int status;
    char text[1000];
    fflush(stdout);
    pid_t child = fork();
    if (!child) _exit(write(master, bytes, 100000) != 100000);
    while (all < 100001 && (n = read(slave, text, sizeof text)) > 0) all += n;
    waitpid(child, &status, 0);
    printf("a writer waits for room: %ld, %d\n", all, status);
}

static void on_alarm(int number) { (void)number; }

static void cut_short(const char *what, int zeros) {
    struct sigaction action = {.sa_handler = on_alarm};
    struct itimerval soon = {{0, 0}, {0, 200000}};
    sigaction(SIGALRM, &action, 0);
    setitimer(ITIMER_REAL, &soon, 0);
    long n = zeros < 0 ? write(master, bytes, sizeof bytes) : sendfile(master, zeros, 0, 0x7ffff000);
    printf("%s: a part %d\n", what, n > 0 && n < 1 << 20);
}

int main(void) {
    master = open("/dev/ptmx", O_RDWR | O_NOCTTY);
    unlockpt(master);
    slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    memset(bytes, 'a', sizeof bytes);
    mode(0);
    filled();
    waited_for();
    mode(0);
    cut_short("write", -1);
    mode(0);
    cut_short("sendfile", open("/dev/zero", O_RDONLY));
    mode(ICANON);
    say("what is lost needs no room", write(master, bytes, sizeof bytes));
    write(master, "b\n", 2);
    usleep(20000);
    long n = read(slave, bytes, sizeof bytes);
    printf("a line of %ld, %d\n", n, bytes[n - 1]);
    return 0;
}
