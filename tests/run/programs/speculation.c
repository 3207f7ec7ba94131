/* What a thread may say about its speculation: prctl(PR_GET/PR_SET_SPECULATION_CTRL), fork, execve, /proc. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { GET = 52, SET = 53, STORE = 0, BRANCH = 1, L1D = 2 };
enum { ENABLE = 2, DISABLE = 4, FORCE = 8, NOEXEC = 16 };

static void get(unsigned long which)
{
    errno = 0;
    int value = prctl(GET, which, 0, 0, 0);
    printf("  get %ld: %d errno %d\n", (long)which, value, errno);
}

static void set(unsigned long which, unsigned long control)
{
    errno = 0;
    int value = prctl(SET, which, control, 0, 0);
    printf("  set %ld %ld: %d errno %d\n", (long)which, (long)control, value, errno);
}

static void status(void)
{
    char line[256];
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, "Speculation", 11))
            printf("  %s", line);
    if (file)
        fclose(file);
}

static void look(void)
{
    get(STORE);
    get(BRANCH);
    status();
}

static const unsigned long controls[] = {0, 1, ENABLE, DISABLE, FORCE, NOEXEC, 32, 6, -1UL, 1UL << 32 | ENABLE};
#define COUNT (sizeof controls / sizeof *controls)

static void in_child(const char *title, void (*run)(unsigned long, unsigned long), unsigned long a, unsigned long b)
{
    printf("%s %lu %lu\n", title, a, b);
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        run(a, b);
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

/* One control after another. */
static void pair(unsigned long first, unsigned long second)
{
    for (unsigned long which = STORE; which <= BRANCH; which++) {
        set(which, controls[first]);
        get(which);
        set(which, controls[second]);
        get(which);
    }
    status();
}

static void inherit(unsigned long control, unsigned long depth)
{
    if (depth == 0) {
        set(STORE, control);
        set(BRANCH, control);
    }
    look();
    fflush(stdout);
    if (depth < 2) {
        pid_t child = fork();
        if (!child) {
            inherit(control, depth + 1);
            fflush(stdout);
            _exit(0);
        }
        waitpid(child, NULL, 0);
        set(STORE, ENABLE);
    } else {
        execl("/proc/self/exe", "speculation", "again", NULL);
    }
}

int main(int count, char **arguments)
{
    if (count > 1) {
        printf("  executed\n");
        look();
        set(STORE, ENABLE);
        get(STORE);
        get(BRANCH);
        get(L1D);
        set(L1D, ENABLE);
        return 0;
    }
    look();
    get(L1D);
    set(L1D, ENABLE);
    set(L1D, 7);
    get(3);
    get(99);
    get(-1UL);
    set(99, ENABLE);
    set(3, 77);
    for (int place = 0; place < 3; place++) {
        errno = 0;
        int value = prctl(GET, STORE, place == 0, place == 1, place == 2);
        printf("get with %d: %d %d\n", place, value, errno);
        errno = 0;
        value = prctl(SET, STORE, ENABLE, place == 1, place == 2);
        printf("set with %d: %d %d\n", place, value, errno);
    }
    for (unsigned long first = 0; first < COUNT; first++)
        for (unsigned long second = 0; second < COUNT; second++)
            in_child("pair", pair, first, second);
    for (unsigned long control = ENABLE; control <= NOEXEC; control *= 2)
        in_child("inherit", inherit, control, 0);
    return 0;
}
