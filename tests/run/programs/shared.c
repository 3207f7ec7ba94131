/* Stores through a shared mapping of the file argv[1] and ends without unmapping it, in the way argv[2] names. */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv) {
    int file = open(argv[1], O_RDWR);
    volatile char *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file < 0 || page == MAP_FAILED || argc < 3) return 1;
    page[0] = 'J';
    if (!strcmp(argv[2], "dies")) __builtin_trap();
    if (!strcmp(argv[2], "loops")) for (;;) page[1] = 'E';
    return 0;
}
