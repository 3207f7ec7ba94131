/* Jumps to where no memory is. */
#include "io.h"

void kmain(void)
{
    serial_init();
    print("jumping\n");
    while (!(inb(COM1 + 5) & 0x40)) ;
    ((void (*)(void))0xD0000000)();
    finish(6);
}
