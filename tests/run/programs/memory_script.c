/* Obeys letters on the command line: processes that map, write, protect, unmap, fork and end, each of which knows
   what its own memory must hold. Exit status 1: memory of another process showed. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { AREAS = 4, PAGES = 6, PAGE = 4096 };
static char *area[AREAS];
static char kind[AREAS];
static int rights[AREAS];
static unsigned char model[AREAS][PAGES];
static unsigned char number = 1;
static int file, depth;

static void die(const char *what, int a, int page) {
    fprintf(stderr, "%s: area %d (%c) page %d holds %d, not %d\n", what, a, kind[a], page,
            area[a][page * PAGE + 8], model[a][page]);
    _exit(1);
}

static void look(int a) {
    if (!area[a] || !(rights[a] & PROT_READ)) return;
    for (int page = 0; page < PAGES; page++) {
        unsigned char found = area[a][page * PAGE + 8];
        if (kind[a] == 'p' && found != model[a][page]) die("private", a, page);
        if (kind[a] == 'f' && model[a][page] && found != model[a][page]) die("private file", a, page);
    }
}

static void map(int a, char how) {
    if (area[a]) munmap(area[a], PAGES * PAGE);
    int flags = how == 'p' ? MAP_PRIVATE | MAP_ANONYMOUS : how == 's' ? MAP_SHARED | MAP_ANONYMOUS : how == 'f' ? MAP_PRIVATE : MAP_SHARED;
    area[a] = mmap(0, PAGES * PAGE, PROT_READ | PROT_WRITE, flags, how == 'f' || how == 'F' ? file : -1, 0);
    if (area[a] == MAP_FAILED) area[a] = 0;
    kind[a] = how;
    rights[a] = PROT_READ | PROT_WRITE;
    memset(model[a], 0, PAGES);
}

static void store(int a, int page) {
    if (!area[a] || !(rights[a] & PROT_WRITE)) return;
    look(a);
    area[a][page * PAGE + 8] = number;
    model[a][page] = number;
    number = number * 5 + 3 | 1;
}

int main(int argc, char **argv) {
    file = memfd_create("f", 0);
    ftruncate(file, PAGES * PAGE);
    for (char *at = argv[1]; at[0] && at[1] && at[2]; at += 3) {
        int a = (at[1] - 'a') % AREAS, page = (at[2] - 'a') % PAGES, status;
        switch (at[0]) {
        case 'p': case 's': case 'f': case 'F': map(a, at[0]); break;
        case 'w': store(a, page); break;
        case 'l': look(a); break;
        case 'u': if (area[a]) { munmap(area[a], PAGES * PAGE); area[a] = 0; } break;
        case 'd': if (area[a]) madvise(area[a] + page * PAGE, PAGE, MADV_DONTNEED); if (kind[a] == 'p') model[a][page] = 0; else if (kind[a] == 'f') model[a][page] = 0; break;
        case 'r': if (area[a]) mprotect(area[a], PAGES * PAGE, rights[a] = page & 3); break;
        case 'R': if (area[a]) mprotect(area[a], PAGES * PAGE, rights[a] = PROT_READ | PROT_WRITE); break;
        case 'k':
            if (depth < 4 && !fork()) { depth++; number += 40; }
            break;
        case 'b': if (fork()) { wait(&status); if (status) _exit(1); } else { depth++; store(a, page); look(a); for (int i = 0; i < AREAS; i++) look(i); _exit(0); } break;
        case 'x': if (depth) { for (int i = 0; i < AREAS; i++) look(i); _exit(0); } break;
        }
    }
    for (int i = 0; i < AREAS; i++) look(i);
    int status, bad = 0;
    while (wait(&status) > 0) bad |= status;
    for (int i = 0; i < AREAS; i++) look(i);
    return bad ? 1 : 0;
}
