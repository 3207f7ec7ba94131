"""A bare Unicorn script: memory mapped flat, a few system calls answered by a hook; the yardstick of ``mmuemu bench``.

``python bare_unicorn.py PROGRAM [ARGS...]``. A program of its own: it knows nothing of mmuemu.
"""

from __future__ import annotations

import struct
import sys
from typing import Any

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
STACK = 0x7000_0000_0000
STACK_SIZE = 1 << 20
NULL = 3
"""The descriptor of the one file that can be opened: /dev/null."""


class Emulator:
    """One program, to be run once."""

    def __init__(self, program: str, arguments: list[str]) -> None:
        self.uc = Uc(UC_ARCH_X86, UC_MODE_64)
        self.next = 0x6000_0000_0000
        self.status = 0
        self.calls = {
            1: self.write, 2: lambda _: NULL, 9: self.mmap, 11: self.munmap, 39: lambda _: 1000, 60: self.exit,
        }  # fmt: skip
        with open(program, "rb") as file:
            self.entry = self.load(file.read())
        self.push([program, *arguments])
        self.uc.hook_add(UC_HOOK_INSN, self.syscall, None, 1, 0, UC_X86_INS_SYSCALL)

    def load(self, data: bytes) -> int:
        """Map the segments of a static ELF file; its entry point."""
        entry, phoff = struct.unpack_from("<QQ", data, 24)
        for number in range(struct.unpack_from("<H", data, 56)[0]):
            kind, _, offset, vaddr, _, filesz, memsz, _ = struct.unpack_from("<IIQQQQQQ", data, phoff + 56 * number)
            if kind == 1:
                start = vaddr & -PAGE
                self.uc.mem_map(start, (vaddr + memsz + PAGE - 1 & -PAGE) - start)
                self.uc.mem_write(vaddr, data[offset : offset + filesz])
        return int(entry)

    def push(self, words: list[str]) -> None:
        """A stack with ``words`` as the program's arguments, no environment and no auxiliary vector."""
        self.uc.mem_map(STACK, STACK_SIZE)
        top, pointers = STACK + STACK_SIZE - PAGE, []
        for word in words:
            pointers.append(top)
            self.uc.mem_write(top, word.encode() + b"\0")
            top += len(word) + 1
        vector = struct.pack(f"<{len(words) + 5}Q", len(words), *pointers, 0, 0, 0, 0)
        start = STACK + STACK_SIZE - 2 * PAGE
        self.uc.mem_write(start, vector)
        self.uc.reg_write(UC_X86_REG_RSP, start)

    def write(self, uc: Uc) -> int:
        count = uc.reg_read(UC_X86_REG_RDX)
        if uc.reg_read(UC_X86_REG_RDI) != NULL:
            sys.stdout.buffer.write(uc.mem_read(uc.reg_read(UC_X86_REG_RSI), count))
        return int(count)

    def mmap(self, uc: Uc) -> int:
        start, size = self.next, uc.reg_read(UC_X86_REG_RSI) + PAGE - 1 & -PAGE
        uc.mem_map(start, size)
        self.next += size
        return start

    def munmap(self, uc: Uc) -> int:
        uc.mem_unmap(uc.reg_read(UC_X86_REG_RDI), uc.reg_read(UC_X86_REG_RSI))
        return 0

    def exit(self, uc: Uc) -> int:
        self.status = uc.reg_read(UC_X86_REG_RDI)
        uc.emu_stop()
        return 0

    def syscall(self, uc: Uc, _: Any) -> None:
        number = uc.reg_read(UC_X86_REG_RAX)
        call = self.calls.get(number)
        if call is None:
            sys.exit(f"system call {number}")
        uc.reg_write(UC_X86_REG_RAX, call(uc))

    def run(self) -> int:
        """The exit code."""
        self.uc.emu_start(self.entry, 0)
        sys.stdout.buffer.flush()
        return self.status


if __name__ == "__main__":
    sys.exit(Emulator(sys.argv[1], sys.argv[2:]).run())
