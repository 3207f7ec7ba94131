/* Files: opening, seeking, appending, truncating, renaming, unlinking, stat. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static long say(const char *what, long result) {
    printf("%s: %ld", what, result);
    if (result < 0) printf(" (%s)", strerror(errno));
    puts("");
    return result;
}

static void show(const char *name) {
    char buffer[256];
    int fd = open(name, O_RDONLY);
    long got = fd < 0 ? -1 : read(fd, buffer, sizeof buffer);
    printf("%s holds %ld:", name, got);
    for (long i = 0; i < got; i++) printf(buffer[i] >= 32 && buffer[i] < 127 ? "%c" : "<%d>", buffer[i]);
    puts("");
    if (fd >= 0) close(fd);
}

static void facts(const char *name) {
    struct stat st;
    if (say("stat", lstat(name, &st)) == 0)
        printf("%s: mode %o links %lu size %ld\n", name, st.st_mode, (unsigned long)st.st_nlink, (long)st.st_size);
}

static void opening(void) {
    umask(022);
    int fd = open("one", O_RDWR | O_CREAT | O_EXCL, 0666);
    say("exclusive", fd < 0 ? fd : 0);
    say("exclusive again", open("one", O_RDWR | O_CREAT | O_EXCL, 0666));
    say("write", write(fd, "hello, world\n", 13));
    say("seek", lseek(fd, 7, SEEK_SET));
    say("write", write(fd, "there", 5));
    say("seek from end", lseek(fd, -3, SEEK_END));
    say("seek beyond", lseek(fd, 20, SEEK_SET));
    say("write beyond", write(fd, "!", 1));
    say("seek before", lseek(fd, -1, SEEK_SET));
    say("bad whence", lseek(fd, 0, 99));
    show("one");
    facts("one");
    int more = open("one", O_WRONLY | O_APPEND);
    say("seek in append", lseek(more, 0, SEEK_SET));
    say("append", write(more, "tail", 4));
    say("offset", lseek(more, 0, SEEK_CUR));
    say("read of a write-only file", read(more, &fd, 0) < 0 ? -1 : 0);
    close(more);
    show("one");
    say("truncate", truncate("one", 5));
    show("one");
    say("extend", ftruncate(fd, 8));
    show("one");
    close(fd);
    say("closed twice", close(fd));
    say("read closed", read(fd, &more, 1));
    fd = open("one", O_RDWR | O_TRUNC);
    facts("one");
    close(fd);
    say("missing", open("missing", O_RDONLY));
    say("directory for writing", open(".", O_WRONLY));
    say("file as directory", open("one", O_RDONLY | O_DIRECTORY));
    say("below a file", open("one/two", O_RDONLY));
    say("empty name", open("", O_RDONLY));
    char longest[5000];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    say("long name", open(longest, O_RDONLY));
    longest[300] = 0;
    say("long component", open(longest, O_RDONLY | O_CREAT, 0600));
    say("bad pointer", open((char *)8, O_RDONLY));
    say("read into nowhere", read(open("/dev/zero", O_RDONLY), (void *)8, 10));
}

static void positioned(void) {
    int fd = open("data", O_RDWR | O_CREAT, 0600);
    char a[4] = "", b[6] = "", c[3] = "";
    struct iovec out[3] = {{"abc", 3}, {"", 0}, {"defghij", 7}}, in[3] = {{a, 3}, {b, 5}, {c, 2}};
    say("writev", writev(fd, out, 3));
    lseek(fd, 0, SEEK_SET);
    say("readv", readv(fd, in, 3));
    printf("%s|%s|%.2s\n", a, b, c);
    say("pwrite", pwrite(fd, "XY", 2, 4));
    say("pread", pread(fd, b, 5, 3));
    printf("%s, offset %ld\n", b, (long)lseek(fd, 0, SEEK_CUR));
    say("pread at end", pread(fd, b, 5, 10));
    say("pread before", pread(fd, b, 5, -1));
    say("preadv", preadv(fd, in, 2, 1));
    printf("%s|%s\n", a, b);
    say("readv nothing", readv(fd, in, 0));
    say("readv too many", readv(fd, in, 2000));
    close(fd);
}

static void names(void) {
    say("link", link("data", "hard"));
    facts("hard");
    say("symlink", symlink("data", "soft"));
    facts("soft");
    char target[64] = "";
    say("readlink", readlink("soft", target, sizeof target));
    printf("-> %s\n", target);
    say("nofollow", open("soft", O_RDONLY | O_NOFOLLOW));
    say("rename", rename("hard", "moved"));
    say("rename missing", rename("hard", "moved"));
    say("rename over", rename("moved", "one"));
    show("one");
    int fd = open("one", O_RDONLY);
    say("unlink open", unlink("one"));
    char byte;
    say("still readable", read(fd, &byte, 1));
    struct stat st;
    fstat(fd, &st);
    printf("links %lu\n", (unsigned long)st.st_nlink);
    say("gone", access("one", F_OK));
    say("unlink twice", unlink("one"));
    say("chmod", chmod("data", 0640));
    facts("data");
    symlink("loop", "loop");
    say("loop", open("loop", O_RDONLY));
    say("dangling", (symlink("nowhere", "dangling"), open("dangling", O_RDONLY)));
    struct timespec times[2] = {{1000000000, 5}, {1234567890, 123456789}};
    say("utimens", utimensat(AT_FDCWD, "data", times, 0));
    stat("data", &st);
    printf("%ld.%09ld\n", (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

static void streams(void) {
    FILE *f = fopen("text", "w+");
    for (int i = 0; i < 20000; i++) fprintf(f, "line %d\n", i);
    rewind(f);
    char line[64];
    long lines = 0, total = 0;
    while (fgets(line, sizeof line, f)) lines++, total += strlen(line);
    printf("%ld lines, %ld bytes, at %ld\n", lines, total, ftell(f));
    fseek(f, -7, SEEK_END);
    printf("last: %s", fgets(line, sizeof line, f));
    fclose(f);
    facts("text");
    unlink("text");
}

int main(void) {
    opening();
    positioned();
    names();
    streams();
    return 0;
}
