/* mmap, munmap, mprotect, mremap, madvise, mincore: anonymous and of files. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096ul
#define RW (PROT_READ | PROT_WRITE)

static void say(const char *what, long result) {
    if (result < 0 && result > -4096) printf("%s: error %d\n", what, errno);
    else printf("%s: ok\n", what);
}

static char *map(size_t pages) {
    char *at = mmap(NULL, pages * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) perror("mmap"), exit(1);
    return at;
}

static int areas(const char *low, const char *high) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[4400];
    int count = 0;
    while (fgets(line, sizeof line, maps)) {
        unsigned long start, end;
        char rights[5];
        if (sscanf(line, "%lx-%lx %4s", &start, &end, rights) != 3) continue;
        if (end <= (unsigned long)low || start >= (unsigned long)high) continue;
        long from = (long)start - (long)low, to = (long)end - (long)low;
        printf(" [%ld %ld %s]", from < 0 ? -1 : from / 4096, to > high - low ? -1 : to / 4096, rights);
        count++;
    }
    fclose(maps);
    printf("\n");
    return count;
}

static void anonymous(void) {
    char *at = map(16);
    for (int i = 0; i < 16; i++) at[i * PAGE] = (char)(i + 1);
    say("unmap the middle", munmap(at + 4 * PAGE, 2 * PAGE));
    say("protect a part", mprotect(at + 8 * PAGE, 2 * PAGE, PROT_READ));
    say("protect over the hole", mprotect(at + 3 * PAGE, 4 * PAGE, PROT_READ));
    areas(at, at + 16 * PAGE);
    say("protect back", mprotect(at + 8 * PAGE, 2 * PAGE, RW));
    say("and the page before the hole", mprotect(at + 3 * PAGE, PAGE, RW));
    areas(at, at + 16 * PAGE);
    char *hole = mmap(at + 4 * PAGE, 2 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    printf("fixed fills the hole: %d, zero: %d\n", hole == at + 4 * PAGE, hole[0]);
    areas(at, at + 16 * PAGE);
    say("no replace", (long)mmap(at, PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
    int sum = 0;
    for (int i = 0; i < 16; i++) sum += at[i * PAGE];
    printf("sum %d\n", sum);
    say("drop", madvise(at + 2 * PAGE, 3 * PAGE, MADV_DONTNEED));
    printf("after the drop: %d %d %d %d\n", at[PAGE], at[2 * PAGE], at[3 * PAGE], at[15 * PAGE]);
    unsigned char core[16] = {0};
    say("mincore", mincore(at, 16 * PAGE, core));
    for (int i = 0; i < 16; i++) putchar('0' + (core[i] & 1));
    puts("");
    say("bad alignment", mprotect(at + 1, PAGE, RW));
    say("bad length", munmap(at, 0));
    say("unmap all", munmap(at, 16 * PAGE));
    say("unmap again", munmap(at, 16 * PAGE));
    say("protect nothing", mprotect(at, PAGE, RW));
    say("mincore nothing", mincore(at, PAGE, core));
}

static void moving(void) {
    char *arena = map(64);
    mprotect(arena + 8 * PAGE, 56 * PAGE, PROT_NONE);
    munmap(arena, 8 * PAGE);
    char *at = mmap(arena, 4 * PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    strcpy(at, "first");
    strcpy(at + 3 * PAGE, "fourth");
    char *grown = mremap(at, 4 * PAGE, 8 * PAGE, 0);
    printf("grown in place: %d %s\n", grown == at, grown + 3 * PAGE);
    char *shrunk = mremap(grown, 8 * PAGE, 2 * PAGE, 0);
    printf("shrunk: %d\n", shrunk == at);
    areas(arena, arena + 64 * PAGE);
    mmap(arena + 4 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    say("no room to grow", (long)mremap(at, 2 * PAGE, 6 * PAGE, 0));
    char *moved = mremap(at, 2 * PAGE, 6 * PAGE, MREMAP_MAYMOVE);
    printf("moved: %d %s %d\n", moved != at, moved, moved[5 * PAGE]);
    char *placed = mremap(moved, 6 * PAGE, 6 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, arena + 32 * PAGE);
    printf("placed: %d %s\n", placed == arena + 32 * PAGE, placed);
    char *kept = mremap(placed, 6 * PAGE, 6 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
    printf("left behind: %d, zero %d, moved %s\n", kept != placed, placed[0], kept);
    areas(arena, arena + 64 * PAGE);
    say("remap nothing", (long)mremap(arena + 60 * PAGE, PAGE, PAGE * 2, MREMAP_MAYMOVE));
}

static int scratch(const char *name, size_t pages) {
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0600);
    char page[PAGE];
    for (size_t i = 0; i < pages; i++) {
        memset(page, 'a' + (int)i, PAGE);
        if (write(fd, page, PAGE) != PAGE) perror("write"), exit(1);
    }
    return fd;
}

static void files(void) {
    int fd = scratch("mapped", 4);
    char *shared = mmap(NULL, 4 * PAGE, RW, MAP_SHARED, fd, 0);
    char *again = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fd, PAGE);
    char *private = mmap(NULL, 4 * PAGE, RW, MAP_PRIVATE, fd, 0);
    char buffer[8] = {0};
    memcpy(shared + PAGE, "shared!", 7);
    pread(fd, buffer, 7, PAGE);
    printf("file sees %s, other map %.7s, private %.7s\n", buffer, again, private + PAGE);
    memcpy(private, "private", 7);
    pread(fd, buffer, 7, 0);
    printf("file keeps %s, private has %.7s\n", buffer, private);
    pwrite(fd, "written", 7, PAGE);
    printf("map sees %.7s\n", again);
    pwrite(fd, "hidden.", 7, 0);
    printf("private keeps %.7s\n", private);
    say("msync", msync(shared, 4 * PAGE, MS_SYNC));
    say("discard the private copy", madvise(private, PAGE, MADV_DONTNEED));
    printf("private now %.7s\n", private);
    say("write-only map", (long)mmap(NULL, PAGE, RW, MAP_SHARED, open("mapped", O_RDONLY), 0));
    say("odd offset", (long)mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 100));
    say("bad descriptor", (long)mmap(NULL, PAGE, PROT_READ, MAP_SHARED, 77, 0));
    ftruncate(fd, PAGE + 100);
    printf("tail of the last page: %d %d\n", shared[PAGE + 99], shared[PAGE + 100]);
    ftruncate(fd, 3 * PAGE);
    printf("grown again: %d %d\n", shared[2 * PAGE], shared[PAGE + 200]);
    close(fd);
    printf("usable after close: %.6s\n", shared);
    munmap(shared, 4 * PAGE);
    munmap(again, 2 * PAGE);
    munmap(private, 4 * PAGE);
    char *both = mmap(NULL, 2 * PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    both[PAGE] = 7;
    char *twin = mremap(both, 0, 2 * PAGE, MREMAP_MAYMOVE);
    twin[1] = 9;
    printf("aliases: %d %d %d\n", twin != both, twin[PAGE], both[1]);
}

int main(void) {
    anonymous();
    moving();
    files();
    return 0;
}
