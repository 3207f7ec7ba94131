/* /proc/self/maps as it is, then the break and the addresses that a process knows of itself. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ;

int main(void) {
    char buffer[8192];
    long got;
    int fd = open("/proc/self/maps", O_RDONLY);
    while ((got = read(fd, buffer, sizeof buffer)) > 0)
        if (write(1, buffer, got) != got) return 1;
    close(fd);
    int length = snprintf(buffer, sizeof buffer, "main %p phdr %#lx entry %#lx base %#lx brk %#lx\n", (void *)main,
                          getauxval(AT_PHDR), getauxval(AT_ENTRY), getauxval(AT_BASE), syscall(SYS_brk, 0));
    return write(1, buffer, length) != length;
}
