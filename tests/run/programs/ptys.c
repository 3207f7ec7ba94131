/* Pseudo-terminals: line editing, echo, modes, sessions, ends. */
#define _GNU_SOURCE
#include "say.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static int master, slave;

static void shown(const char *what) {
    char text[4096];
    struct pollfd p = {master, POLLIN, 0};
    long n = poll(&p, 1, 0) == 1 && p.revents & POLLIN ? read(master, text, sizeof text) : 0;
    printf("%s: ", what);
    for (long i = 0; i < n; i++) printf(text[i] < 32 || text[i] > 126 ? "\\%03o" : "%c", text[i] & 255);
    puts("");
}

static void got(const char *what) {
    char text[4096];
    int wait = 0;
    ioctl(slave, FIONREAD, &wait);
    long n = read(slave, text, sizeof text);
    printf("%s: %ld ", what, n);
    for (long i = 0; i < n; i++) printf(text[i] < 32 || text[i] > 126 ? "\\%03o" : "%c", text[i] & 255);
    puts("");
}

/* The host handles what is typed a little later. */
static void type(const char *text) {
    write(master, text, strlen(text));
    usleep(20000);
}

static long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void timed(const char *what, int min, int time, const char *before, const char *later, int count) {
    struct termios t;
    char buffer[16];
    tcgetattr(slave, &t);
    t.c_lflag &= ~(ICANON | ECHO);
    t.c_cc[VMIN] = min, t.c_cc[VTIME] = time;
    tcsetattr(slave, TCSANOW, &t);
    type(before);
    fflush(stdout);
    pid_t child = 0;
    if (*later && !(child = fork())) {
        usleep(60000);
        type(later);
        _exit(0);
    }
    long start = now_ms();
    long n = read(slave, buffer, count);
    long took = now_ms() - start;
    printf("%s: %ld %.*s waited %d\n", what, n, n > 0 ? (int)n : 0, buffer, took >= 55);
    if (child) waitpid(child, NULL, 0);
    tcflush(slave, TCIFLUSH);
}

static void times(void) {
    timed("nothing comes", 0, 2, "", "", 8);
    timed("something is there", 0, 2, "ab", "", 8);
    timed("something comes", 0, 50, "", "xy", 8);
    timed("too few, then silence", 5, 2, "abc", "", 8);
    timed("enough", 3, 50, "abcd", "", 8);
    timed("enough in time", 4, 50, "ab", "cd", 8);
    timed("a small buffer", 5, 50, "abc", "", 2);
    timed("only a count", 3, 0, "a", "bcd", 8);
    fcntl(slave, F_SETFL, O_NONBLOCK);
    timed("not blocking", 5, 1, "ab", "", 8);
    timed("not blocking, empty", 5, 1, "", "", 8);
    fcntl(slave, F_SETFL, 0);
}

static void session(void) {
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        setsid();
        int t = open(ptsname(master), O_RDWR);
        printf("controls %d\n", tcgetsid(t) == getpid());
        printf("foreground %d\n", tcgetpgrp(t) == getpid());
        int tty = open("/dev/tty", O_RDWR);
        printf("tty %d\n", tty >= 0);
        say("no such group", tcsetpgrp(t, 99999));
        fflush(stdout);
        pid_t job = fork();
        if (!job) {
            setpgid(0, 0);
            char c;
            _exit(read(t, &c, 1) == 1 ? c : 1);
        }
        setpgid(job, job);
        waitpid(job, &status, WUNTRACED);
        printf("stopped %d by %d\n", WIFSTOPPED(status), WSTOPSIG(status));
        say("foreground", tcsetpgrp(t, job));
        kill(-job, SIGCONT);
        write(master, "Q\n", 2);
        waitpid(job, &status, 0);
        printf("job %c\n", WEXITSTATUS(status));
        struct termios mode;
        if (!(job = fork())) {
            setpgid(0, 0);
            _exit(write(t, "!", 1) == 1 ? 7 : 1);
        }
        signal(SIGTTOU, SIG_IGN);
        tcgetattr(t, &mode);
        tcsetpgrp(t, getpid());
        setpgid(job, job);
        waitpid(job, &status, 0);
        printf("writes from behind %d\n", WEXITSTATUS(status));
        mode.c_lflag |= TOSTOP;
        tcsetattr(t, TCSANOW, &mode);
        fflush(stdout);
        if (!(job = fork())) {
            signal(SIGTTOU, SIG_DFL);
            setpgid(0, 0);
            _exit(write(t, "!", 1) == 1 ? 8 : 1);
        }
        waitpid(job, &status, WUNTRACED);
        printf("stopped %d by %d\n", WIFSTOPPED(status), WSTOPSIG(status));
        kill(job, SIGKILL);
        waitpid(job, &status, 0);
        say("back", tcsetpgrp(t, getpid()));
        fflush(stdout);
        write(master, "\3", 1);
        usleep(1000);
        _exit(1);
    }
    waitpid(child, &status, 0);
    printf("interrupted by %d\n", WTERMSIG(status));
}

int main(void) {
    struct termios t;
    master = posix_openpt(O_RDWR | O_NOCTTY);
    char *name = ptsname(master);
    printf("name %d\n", !strncmp(name, "/dev/pts/", 9));
    say("locked", open(name, O_RDWR | O_NOCTTY));
    grantpt(master), unlockpt(master);
    slave = open(name, O_RDWR | O_NOCTTY);
    printf("slave %d tty %d master %d\n", slave >= 0, isatty(slave), isatty(master));
    printf("%d\n", !strcmp(ttyname(slave), name));
    tcgetattr(slave, &t);
    printf("%x %x %x %x\n", t.c_iflag, t.c_oflag, t.c_cflag, t.c_lflag);
    for (int i = 0; i < 17; i++) printf("%d ", t.c_cc[i]);
    puts("");
    write(slave, "line\ntwo\n", 9);
    shown("output");
    type("hello\r");
    shown("echo");
    got("line");
    type("abx\177c d\027e\nnext\n");
    shown("edited");
    got("first");
    got("second");
    type("gone\025kept\026\003\n\t\001");
    shown("keys");
    got("quoted");
    type("\004");
    got("tail");
    type("\004");
    got("end of file");
    type("partial");
    struct pollfd p = {slave, POLLIN, 0};
    printf("no line %d\n", poll(&p, 1, 0));
    t.c_lflag &= ~(ICANON | ECHO | ISIG);
    tcsetattr(slave, TCSANOW, &t);
    got("raw");
    type("\003x\r");
    shown("no echo");
    got("keys as they are");
    t.c_cc[VMIN] = 0;
    tcsetattr(slave, TCSANOW, &t);
    got("nothing, no wait");
    t.c_oflag &= ~OPOST;
    tcsetattr(slave, TCSANOW, &t);
    write(slave, "raw\n", 4);
    shown("unprocessed");
    struct winsize w = {10, 20, 0, 0};
    say("size", ioctl(master, TIOCSWINSZ, &w));
    w.ws_col = 0;
    ioctl(slave, TIOCGWINSZ, &w);
    printf("%d x %d\n", w.ws_row, w.ws_col);
    say("not ours", tcgetpgrp(slave));
    say("flush", tcflush(slave, TCIOFLUSH));
    times();
    cfmakeraw(&t);
    t.c_lflag = ISIG | ICANON, t.c_cc[VMIN] = 1;
    tcsetattr(slave, TCSANOW, &t);
    session();
    close(slave);
    p.fd = master;
    poll(&p, 1, 0);
    printf("hung up %x\n", p.revents);
    char c;
    say("nobody", read(master, &c, 1));
    slave = open(name, O_RDWR | O_NOCTTY);
    close(master);
    p.fd = slave, p.events = POLLIN | POLLOUT;
    poll(&p, 1, 0);
    printf("master gone %x\n", p.revents);
    say("read", read(slave, &c, 1));
    say("write", write(slave, &c, 1));
    return 0;
}
