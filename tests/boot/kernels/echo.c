/* Serial input comes back in upper case, up to a character 4. */
/* Switching the FIFOs on would throw away what has come already. */
#define NO_FIFO
#include "io.h"

void kmain(void)
{
    int c;
    u32 count = 0;
    serial_init();
    print("ready\n");
    while ((c = getch()) != 4) {
        putch(c >= 'a' && c <= 'z' ? c - 32 : c);
        count++;
    }
    dec("\ncharacters ", count);
    print("\n");
    finish(4);
}
