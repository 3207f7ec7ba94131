// storm KIND N: N system calls of one kind, or a mixture of five.
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char buffer[64];
    struct stat st;
    int many = atoi(argv[2]), fd = open("/etc/passwd", O_RDONLY);
    for (int i = 0; i < many; i++) {
        if (!strcmp(argv[1], "getppid")) {
            syscall(SYS_getppid);
        } else if (!strcmp(argv[1], "pread")) {
            pread(fd, buffer, sizeof buffer, 0);
        } else {
            switch (i % 5) {
            case 0: fd = open("/etc/passwd", O_RDONLY); break;
            case 1: fstat(fd, &st); break;
            case 2: read(fd, buffer, sizeof buffer); break;
            case 3: lseek(fd, i, SEEK_SET); break;
            case 4: close(fd); break;
            }
        }
    }
    return 0;
}
