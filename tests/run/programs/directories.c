/* Directories: making, listing, moving about, removing. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int say(const char *what, int result) {
    printf("%s: %d", what, result);
    if (result < 0) printf(" (%s)", strerror(errno));
    puts("");
    return result;
}

static int visible(const struct dirent *entry) { return entry->d_name[0] != '.' || entry->d_name[1]; }

static void list(const char *name) {
    struct dirent **entries;
    int count = scandir(name, &entries, visible, alphasort);
    printf("%s:", name);
    for (int i = 0; i < count; i++) {
        printf(" %s(%d)", entries[i]->d_name, entries[i]->d_type);
        free(entries[i]);
    }
    if (count < 0) printf(" %s", strerror(errno));
    else free(entries);
    puts("");
}

static const char *tail(void) {
    static char here[4096];
    if (!getcwd(here, sizeof here)) return strerror(errno);
    return strrchr(here, '/') + 1;
}

int main(void) {
    say("mkdir", mkdir("top", 0755));
    say("mkdir again", mkdir("top", 0755));
    say("mkdir deep", mkdir("top/a/b", 0755));
    say("mkdir a", mkdir("top/a", 0700));
    say("mkdir b", mkdir("top/a/b", 0755));
    close(creat("top/file", 0644));
    say("symlink", symlink("a", "top/link"));
    say("fifo", mkfifo("top/fifo", 0600));
    list("top");
    list("top/link");
    list("nowhere");
    list("top/file");
    say("chdir", chdir("top/link/b"));
    printf("in %s\n", tail());
    say("up", chdir(".."));
    printf("in %s\n", tail());
    say("up", chdir("../.."));
    int dir = open("top", O_RDONLY | O_DIRECTORY);
    int fd = openat(dir, "inside", O_CREAT | O_WRONLY, 0600);
    say("openat", fd < 0 ? -1 : 0);
    say("unlinkat directory as file", unlinkat(dir, "a", 0));
    say("rmdir full", rmdir("top/a"));
    say("rename directory", rename("top/a", "top/c"));
    say("rename into itself", rename("top/c", "top/c/d"));
    say("rename over full", (mkdir("top/e", 0755), rename("top/e", "top/c")));
    say("rename file over directory", rename("top/file", "top/c"));
    list("top");
    char name[64];
    for (int i = 0; i < 700; i++) {
        snprintf(name, sizeof name, "top/c/some-rather-long-file-name-%03d", i);
        close(creat(name, 0600));
    }
    DIR *many = opendir("top/c");
    int count = 0;
    while (readdir(many)) count++;
    rewinddir(many);
    int again = 0;
    while (readdir(many)) again++;
    closedir(many);
    printf("%d entries, again %d\n", count, again);
    for (int i = 0; i < 700; i++) {
        snprintf(name, sizeof name, "top/c/some-rather-long-file-name-%03d", i);
        unlink(name);
    }
    say("rmdir b", rmdir("top/c/b"));
    say("rmdir c", unlinkat(dir, "c", AT_REMOVEDIR));
    say("rmdir file", rmdir("top/file"));
    struct stat st;
    stat("top", &st);
    printf("mode %o\n", st.st_mode);
    list("top");
    say("chdir to file", chdir("top/file"));
    say("realpath", realpath("top/link/x", NULL) ? 0 : -1);
    say("fchdir", fchdir(dir));
    printf("in %s\n", tail());
    return 0;
}
