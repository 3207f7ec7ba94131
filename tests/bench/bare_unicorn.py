"""A bare Unicorn script: memory mapped flat, the same few system calls answered in Python; the yardstick."""

from __future__ import annotations

import struct
import sys

from unicorn import UC_ARCH_X86, UC_HOOK_INSN, UC_MODE_64, Uc
from unicorn.x86_const import (
    UC_X86_INS_SYSCALL,
    UC_X86_REG_RAX,
    UC_X86_REG_RDI,
    UC_X86_REG_RDX,
    UC_X86_REG_RSI,
    UC_X86_REG_RSP,
)

PAGE = 4096


def main(path: str) -> int:
    with open(path, "rb") as file:
        data = file.read()
    uc = Uc(UC_ARCH_X86, UC_MODE_64)
    entry, phoff = struct.unpack_from("<QQ", data, 24)
    for number in range(struct.unpack_from("<H", data, 56)[0]):
        kind, _, offset, vaddr, _, filesz, memsz, _ = struct.unpack_from("<IIQQQQQQ", data, phoff + 56 * number)
        if kind == 1:
            start = vaddr & -PAGE
            uc.mem_map(start, (vaddr + memsz + PAGE - 1 & -PAGE) - start)
            uc.mem_write(vaddr, data[offset : offset + filesz])
    uc.mem_map(0x7000_0000_0000, 1 << 20)
    uc.reg_write(UC_X86_REG_RSP, 0x7000_0000_0000 + (1 << 20) - 64)
    state = {"next": 0x6000_0000_0000, "status": 0}

    def syscall(uc: Uc, _: object) -> None:
        number = uc.reg_read(UC_X86_REG_RAX)
        if number == 39:
            result = 1000
        elif number == 1:
            address, count = uc.reg_read(UC_X86_REG_RSI), uc.reg_read(UC_X86_REG_RDX)
            sys.stdout.buffer.write(uc.mem_read(address, count))
            result = count
        elif number == 9:
            size = uc.reg_read(UC_X86_REG_RSI)
            result = state["next"]
            uc.mem_map(result, size)
            state["next"] += size
        elif number == 60:
            state["status"] = uc.reg_read(UC_X86_REG_RDI)
            uc.emu_stop()
            return
        else:
            raise SystemExit(f"system call {number}")
        uc.reg_write(UC_X86_REG_RAX, result)

    uc.hook_add(UC_HOOK_INSN, syscall, None, 1, 0, UC_X86_INS_SYSCALL)
    uc.emu_start(entry, 0)
    sys.stdout.buffer.flush()
    return state["status"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
