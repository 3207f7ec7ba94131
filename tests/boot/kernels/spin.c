/* Never comes back, and takes no interrupts. */
#include "io.h"

void kmain(void)
{
    serial_init();
    print("spinning\n");
    __asm__ volatile("cli\n1: jmp 1b");
}
