/* A quarter of a megabyte of serial output: 4,096 numbered lines of 64 characters. */
#include "io.h"

static char text[64];

void kmain(void)
{
    serial_init();
    for (u32 line = 0; line < 4096; line++) {
        for (int i = 0; i < 8; i++) text[i] = "0123456789abcdef"[line >> (28 - 4 * i) & 15];
        for (int i = 8; i < 63; i++) text[i] = 'a' + (line + i) % 26;
        text[63] = '\n';
        for (int i = 0; i < 64; i++) {
            if (i % 16 == 0) while (!(inb(COM1 + 5) & 0x20)) ;      /* the FIFO takes 16 */
            outb(COM1, text[i]);
        }
    }
    finish(3);
}
