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
        signal(SIGTTOU, SIG_IGN);
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
