/* Physical addresses where nothing is: writes go nowhere, reads are what the bus gives. */
#include "io.h"

static const u32 places[] = {0xD0000000, 0xE0001234, 0xFD000000, 0xFEF00002};

void kmain(void)
{
    static volatile u32 witness = 0x12345678;
    serial_init();
    for (int i = 0; i < 4; i++) {
        volatile u32 *four = (volatile u32 *)places[i];
        hex("at ", places[i]);
        *four = 0x55AA55AA;
        hex(" ", *four);
        *(volatile u16 *)four = 0x1234;
        hex(" ", *(volatile u16 *)four);
        *(volatile u8 *)four = 0x56;
        hex(" ", *(volatile u8 *)four);
        print("\n");
    }
    hex("witness ", witness);
    print("\n");
    finish(5);
}
