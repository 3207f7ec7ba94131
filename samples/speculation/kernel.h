/*
 * The kernel of the lab: the secret's address, and the vulnerable system call (docs/reference-guest.md).
 */
#ifndef KERNEL_H
#define KERNEL_H
#define MOST 32 /* bytes that the kernel's secret has */
#include "lab.h"

enum { LAB_CALL = 1000, LAB_READ = 0, LAB_DISPATCH = 1, LAB_USE = 2, LAB_FLUSH = 3, LAB_STORE = 4 };
enum { LINE_OF_SIZE = 0, LINE_OF_TABLE = 1, LINE_OF_SECRET = 2 };
enum { SECRET_AT = 0x80, COPY_AT = 0xc0, ARRAY_AT = 0x200 }; /* in a page of the kernel's data */

static i64 lab_call(u64 what, u64 index, const void *table, u64 shift, u64 address)
{
    return syscall6(LAB_CALL, what, index, (i64)table, shift, address, 0);
}

/* The kernel does something for which it reads the secret: afterwards the caches hold it. */
static void kernel_uses_secret(void)
{
    lab_call(LAB_USE, 0, 0, 0, 0);
}

static u64 read_number(const char *path)
{
    static char text[64];
    u64 number = 0;
    i64 file = SYSCALL(open, path, 0, 0);
    i64 size = file < 0 ? 0 : SYSCALL(read, file, text, sizeof text);
    SYSCALL(close, file, 0, 0);
    for (i64 i = text[0] == '0' && text[1] == 'x' ? 2 : 0; i < size; i++) {
        u8 digit = text[i] <= '9' ? text[i] - '0' : (text[i] | 32) - 'a' + 10;
        if (digit > 15)
            break;
        number = number << 4 | digit;
    }
    return number;
}

/* 0 when the machine does not tell (mmuemu run --show-secret does). */
static u64 secret_address(void)
{
    u64 address = read_number("/proc/mmuemu/secret_address");
    if (!address)
        note("/proc/mmuemu/secret_address is not there: run with --show-secret");
    return address;
}

#endif
