/* UNIX sockets: pairs of each type, what goes along with bytes, names, options, ends. */
#define _GNU_SOURCE
#include "say.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int events(int fd, int wanted) {
    struct pollfd p = {fd, wanted, 0};
    poll(&p, 1, 0);
    return p.revents;
}

static void show(const char *what, int fd) {
    printf("%s: poll %x\n", what, events(fd, POLLIN | POLLOUT | POLLPRI | POLLRDHUP));
}

static socklen_t named(struct sockaddr_un *a, const char *name, int length) {
    memset(a, 0, sizeof *a);
    a->sun_family = AF_UNIX;
    memcpy(a->sun_path, name, length);
    return 2 + length;
}

static void print_name(const char *what, struct sockaddr_un *a, socklen_t length) {
    printf("%s: %d family %d ", what, (int)length, length >= 2 ? a->sun_family : -1);
    for (int i = 0; i < (int)length - 2; i++) printf("%c", a->sun_path[i] ? a->sun_path[i] : '@');
    puts("");
}

static void pair(int type, const char *name) {
    int s[2];
    char buffer[64] = "";
    printf("-- %s\n", name);
    say("socketpair", socketpair(AF_UNIX, type, 0, s) == 0);
    struct stat st;
    fstat(s[0], &st);
    printf("mode %o\n", st.st_mode);
    show("fresh", s[0]);
    say("send", send(s[0], "hello", 5, 0));
    say("send empty", send(s[0], "", 0, 0));
    say("write", write(s[0], " world", 6));
    int waiting = -1;
    say("FIONREAD", ioctl(s[1], FIONREAD, &waiting));
    printf("%d\n", waiting);
    show("readable", s[1]);
    say("peek", recv(s[1], buffer, 3, MSG_PEEK));
    say("peek trunc", recv(s[1], buffer, 3, MSG_PEEK | MSG_TRUNC));
    say("recv", recv(s[1], buffer, 3, 0));
    printf("%.3s\n", buffer);
    long got = say("rest", recv(s[1], buffer, 60, 0));
    printf("%.*s\n", (int)(got < 0 ? 0 : got), buffer);
    if (type != SOCK_STREAM) got = say("third", recv(s[1], buffer, 60, 0));
    say("nothing", recv(s[1], buffer, 60, MSG_DONTWAIT));
    say("seek", lseek(s[0], 0, SEEK_CUR));
    say("pread", pread(s[0], buffer, 1, 0));
    say("shutdown", shutdown(s[0], SHUT_WR));
    say("bad how", shutdown(s[0], 7));
    show("shut", s[0]);
    show("its peer", s[1]);
    say("at the end", recv(s[1], buffer, 60, MSG_DONTWAIT));
    say("send after shutdown", send(s[0], "x", 1, MSG_NOSIGNAL));
    say("the other way", send(s[1], "back", 4, MSG_NOSIGNAL));
    say("arrives", recv(s[0], buffer, 60, MSG_DONTWAIT));
    say("unread", send(s[1], "lost", 4, MSG_NOSIGNAL));
    close(s[0]);
    show("peer closed", s[1]);
    say("to nobody", send(s[1], "x", 1, MSG_NOSIGNAL));
    say("from nobody", recv(s[1], buffer, 60, MSG_DONTWAIT));
    say("again", recv(s[1], buffer, 60, MSG_DONTWAIT));
    close(s[1]);
}

static void passing(int type) {
    int s[2], p[2];
    char byte = 'r', buffer[8] = "";
    socketpair(AF_UNIX, type, 0, s);
    pipe(p);
    union { char bytes[CMSG_SPACE(3 * sizeof(int))]; struct cmsghdr align; } control;
    struct iovec v = {&byte, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = CMSG_SPACE(2 * sizeof(int))};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(2 * sizeof(int));
    memcpy(CMSG_DATA(c), p, sizeof p);
    say("sendmsg", sendmsg(s[0], &m, 0));
    send(s[0], "more", 4, 0);
    close(p[0]), close(p[1]);
    v.iov_base = buffer, v.iov_len = 8;
    m.msg_controllen = sizeof control;
    say("recvmsg", recvmsg(s[1], &m, MSG_CMSG_CLOEXEC));
    printf("controllen %d flags %x\n", (int)m.msg_controllen, m.msg_flags & ~MSG_CMSG_CLOEXEC);
    c = CMSG_FIRSTHDR(&m);
    printf("level %d type %d len %d\n", c->cmsg_level, c->cmsg_type, (int)c->cmsg_len);
    memcpy(p, CMSG_DATA(c), sizeof p);
    printf("cloexec %d\n", fcntl(p[0], F_GETFD));
    say("through it", write(p[1], "pass", 4));
    say("and back", read(p[0], buffer, 8));
    say("more", recv(s[1], buffer, 8, MSG_DONTWAIT));

    m.msg_controllen = CMSG_SPACE(2 * sizeof(int));
    c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET, c->cmsg_type = SCM_RIGHTS, c->cmsg_len = CMSG_LEN(2 * sizeof(int));
    memcpy(CMSG_DATA(c), p, sizeof p);
    sendmsg(s[0], &m, 0);
    m.msg_controllen = CMSG_LEN(sizeof(int));
    m.msg_flags = 0;
    say("short control", recvmsg(s[1], &m, 0));
    printf("ctrunc %d len %d\n", !!(m.msg_flags & MSG_CTRUNC), (int)m.msg_controllen);
    int bad = 999;
    m.msg_controllen = CMSG_SPACE(sizeof(int));
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &bad, sizeof bad);
    say("bad descriptor", sendmsg(s[0], &m, 0));
    c->cmsg_len = 5;
    say("bad length", sendmsg(s[0], &m, 0));

    int on = 1;
    say("passcred", setsockopt(s[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
    send(s[0], "c", 1, 0);
    m.msg_controllen = sizeof control;
    say("with credentials", recvmsg(s[1], &m, 0));
    c = CMSG_FIRSTHDR(&m);
    struct ucred *u = (void *)CMSG_DATA(c);
    printf("type %d len %d pid %d uid %d gid %d\n", c->cmsg_type, (int)c->cmsg_len, u->pid == getpid(), u->uid == getuid(), u->gid == getgid());
    struct ucred peer;
    socklen_t size = sizeof peer;
    say("peercred", getsockopt(s[0], SOL_SOCKET, SO_PEERCRED, &peer, &size));
    printf("%d %d\n", peer.pid == getpid(), peer.uid == getuid());
    close(s[0]), close(s[1]);
}

static void names(void) {
    struct sockaddr_un a, b;
    socklen_t size;
    puts("-- names");
    int server = say("socket", socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    int client = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    show("unconnected", client);
    size = sizeof b;
    say("getsockname", getsockname(server, (void *)&b, &size));
    print_name("unbound", &b, size);
    say("listen unbound", listen(server, 1));
    say("accept early", accept(server, 0, 0));
    size = named(&a, "sock", 4);
    say("connect to nothing", connect(client, (void *)&a, size));
    say("bind", bind(server, (void *)&a, size));
    say("bind again", bind(server, (void *)&a, size));
    int other = socket(AF_UNIX, SOCK_STREAM, 0);
    say("address in use", bind(other, (void *)&a, size));
    say("connect refused", connect(client, (void *)&a, size));
    say("listen", listen(server, 1));
    say("not a socket file", open("sock", O_RDWR));
    struct stat st;
    stat("sock", &st);
    printf("%o\n", st.st_mode & S_IFMT);
    int packet = socket(AF_UNIX, SOCK_DGRAM, 0);
    say("wrong type", connect(packet, (void *)&a, size));
    say("family", (b = a, b.sun_family = AF_INET, connect(client, (void *)&b, size)));
    say("too long", connect(client, (void *)&a, 200));
    say("too short", connect(client, (void *)&a, 1));
    show("listening", server);
    say("connect", connect(client, (void *)&a, size));
    say("connect again", connect(client, (void *)&a, size));
    show("pending", server);
    say("early bytes", send(client, "early", 5, 0));
    int second = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0), third = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    say("second", connect(second, (void *)&a, size));
    say("backlog full", connect(third, (void *)&a, size));
    size = sizeof b;
    memset(&b, 0, sizeof b);
    int conn = accept4(server, (void *)&b, &size, SOCK_NONBLOCK);
    say("accept4", conn >= 0);
    print_name("from", &b, size);
    printf("flags %d\n", !!(fcntl(conn, F_GETFL) & O_NONBLOCK));
    size = sizeof b;
    say("getpeername", getpeername(client, (void *)&b, &size));
    print_name("peer", &b, size);
    size = sizeof b;
    getsockname(conn, (void *)&b, &size);
    print_name("accepted", &b, size);
    char buffer[16];
    say("bytes waited", recv(conn, buffer, 16, 0));
    say("send to address", sendto(client, "x", 1, 0, (void *)&a, 6));
    close(server);
    say("reset", recv(second, buffer, 16, 0));
    say("closed", recv(second, buffer, 16, 0));
    say("refused now", connect(third, (void *)&a, 6));
    say("unlink", unlink("sock"));
    close(client), close(conn), close(second), close(third), close(other);

    size = named(&a, "\0abstract", 9);
    int one = socket(AF_UNIX, SOCK_DGRAM, 0), two = packet;
    say("abstract", bind(one, (void *)&a, size));
    say("in use", bind(two, (void *)&a, size));
    a.sun_family = AF_UNIX;
    say("autobind", bind(two, (void *)&a, 2));
    size = sizeof b;
    getsockname(two, (void *)&b, &size);
    printf("autobound %d %d\n", (int)size, b.sun_path[0]);
    size = named(&a, "\0abstract", 9);
    say("not connected", send(two, "x", 1, 0));
    say("sendto", sendto(two, "datagram", 8, 0, (void *)&a, size));
    size = sizeof b;
    say("recvfrom", recvfrom(one, buffer, 4, MSG_TRUNC, (void *)&b, &size));
    printf("from %d\n", (int)size);
    say("reply", sendto(one, "reply", 5, 0, (void *)&b, size));
    say("got", recv(two, buffer, 16, 0));
    size = named(&a, "\0abstract", 9);
    say("connect", connect(two, (void *)&a, size));
    say("full", 0);
    int n = 0;
    while (send(two, "y", 1, MSG_DONTWAIT) == 1 && n < 100) n++;
    printf("%s after %d\n", strerror(errno), n);
    show("full", two);
    say("listen", listen(two, 1));
    say("accept", accept(two, 0, 0));
    a.sun_family = AF_UNSPEC;
    say("disconnect", connect(two, (void *)&a, 2));
    say("gone", send(two, "x", 1, 0));
    close(one), close(two);
}

static void options(void) {
    puts("-- options");
    int s = socket(AF_UNIX, SOCK_SEQPACKET, 0), value = -1;
    const int asked[] = {SO_TYPE, SO_ERROR, SO_DOMAIN, SO_PROTOCOL, SO_ACCEPTCONN, SO_SNDBUF, SO_RCVBUF, SO_PASSCRED, SO_REUSEADDR,
        SO_KEEPALIVE, SO_BROADCAST, SO_RCVLOWAT, SO_SNDLOWAT};
    for (unsigned i = 0; i < sizeof asked / sizeof *asked; i++) {
        socklen_t size = sizeof value;
        value = -1;
        long result = getsockopt(s, SOL_SOCKET, asked[i], &value, &size);
        printf("%d: %ld %d %d\n", asked[i], result, value, (int)size);
    }
    value = 1;
    say("reuse", setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &value, sizeof value));
    value = 100;
    say("small", setsockopt(s, SOL_SOCKET, SO_SNDBUF, &value, sizeof value));
    socklen_t size = sizeof value;
    getsockopt(s, SOL_SOCKET, SO_SNDBUF, &value, &size);
    printf("%d\n", value);
    value = 1 << 30;
    setsockopt(s, SOL_SOCKET, SO_RCVBUF, &value, sizeof value);
    getsockopt(s, SOL_SOCKET, SO_RCVBUF, &value, &size);
    printf("grew %d\n", value > 100000);
    say("unknown", setsockopt(s, SOL_SOCKET, 9999, &value, sizeof value));
    say("read-only", setsockopt(s, SOL_SOCKET, SO_TYPE, &value, sizeof value));
    say("level", setsockopt(s, 6, 1, &value, sizeof value));
    say("get level", getsockopt(s, 6, 1, &value, &size));
    say("short", setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &value, 2));
    struct timeval t = {0, 20000};
    int p[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    say("timeout", setsockopt(p[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
    say("times out", recv(p[0], &value, 4, 0));
    say("read too", read(p[0], &value, 4));
    t.tv_usec = 2000000;
    say("bad time", setsockopt(p[0], SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t));
    say("family", socket(AF_NETLINK + 20, SOCK_STREAM, 0));
    say("type", socket(AF_UNIX, 77, 0));
    say("odd type", socket(AF_UNIX, SOCK_RDM, 0));
    say("protocol", socket(AF_UNIX, SOCK_STREAM, 9));
    say("flags", socket(AF_UNIX, SOCK_STREAM | 0x100000, 0));
    say("no socket", send(1, "x", 1, 0));
    say("bad fd", listen(555, 1));
}

static void server_and_client(void) {
    puts("-- two processes");
    struct sockaddr_un a;
    socklen_t size = named(&a, "\0server", 7);
    int server = socket(AF_UNIX, SOCK_STREAM, 0);
    bind(server, (void *)&a, size);
    listen(server, 5);
    pid_t child = fork();
    if (!child) {
        static char big[300000];
        int c = socket(AF_UNIX, SOCK_STREAM, 0);
        connect(c, (void *)&a, size);
        memset(big, 'b', sizeof big);
        long sent = send(c, big, sizeof big, 0);
        char answer[8];
        long got = recv(c, answer, 8, 0);
        _exit(sent == sizeof big && got == 2 ? 7 : 1);
    }
    int conn = accept(server, 0, 0);
    struct ucred peer;
    socklen_t length = sizeof peer;
    getsockopt(conn, SOL_SOCKET, SO_PEERCRED, &peer, &length);
    printf("peer is the child: %d\n", peer.pid == child);
    static char all[300000];
    say("everything", recv(conn, all, sizeof all, MSG_WAITALL));
    send(conn, "ok", 2, 0);
    int status;
    waitpid(child, &status, 0);
    printf("child %d\n", WEXITSTATUS(status));
    say("end", recv(conn, all, 10, 0));
    fflush(stdout);
    if (!fork()) {
        signal(SIGPIPE, SIG_DFL);
        write(conn, "x", 1);
        _exit(0);
    }
    wait(&status);
    printf("signal %d\n", WTERMSIG(status));
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    pair(SOCK_STREAM, "stream");
    pair(SOCK_DGRAM, "dgram");
    pair(SOCK_SEQPACKET, "seqpacket");
    passing(SOCK_STREAM);
    passing(SOCK_DGRAM);
    names();
    options();
    server_and_client();
    return 0;
}
