"""Exceptions on bare Unicorn: a hook is called, looks at what it was, and lets the program go on.

``python bare_exceptions.py pf|ud|int COUNT``. A program of its own: it knows nothing of mmuemu.
"""

from __future__ import annotations

import sys
from typing import Any

from unicorn import UC_ARCH_X86, UC_HOOK_INSN_INVALID, UC_HOOK_INTR, UC_HOOK_MEM_READ_UNMAPPED, UC_MODE_64, Uc
from unicorn.x86_const import UC_X86_REG_RCX, UC_X86_REG_RDI, UC_X86_REG_RIP

CODE, ABSENT, HALT = 0x40_0000, 0x90_0000, 0x50_0000
INSTRUCTIONS = {"pf": b"\x48\x8b\x07", "ud": b"\x0f\x0b", "int": b"\xcd\x80"}
"""MOV RAX, [RDI]; UD2; INT 0x80."""


def main(kind: str, count: int) -> int:
    """The exit code. A load from an unmapped page ends a run of Unicorn; the script starts it again behind it."""
    uc, seen = Uc(UC_ARCH_X86, UC_MODE_64), 0
    instruction = INSTRUCTIONS[kind]
    uc.mem_map(CODE, 4096)
    # dec rcx; jnz; nop
    uc.mem_write(CODE, instruction + b"\x48\xff\xc9\x75" + bytes([256 - len(instruction) - 5]) + b"\x90")
    end = CODE + len(instruction) + 5

    def hook(uc: Uc, *_: Any) -> bool:
        nonlocal seen
        seen += 1
        if kind == "ud":
            uc.reg_write(UC_X86_REG_RIP, uc.reg_read(UC_X86_REG_RIP) + 2)
        return kind != "pf"

    uc.hook_add({"pf": UC_HOOK_MEM_READ_UNMAPPED, "ud": UC_HOOK_INSN_INVALID, "int": UC_HOOK_INTR}[kind], hook)
    uc.reg_write(UC_X86_REG_RCX, count)
    uc.reg_write(UC_X86_REG_RDI, ABSENT)
    at = CODE
    while count:
        try:
            uc.emu_start(at, end)
            break
        except Exception:
            if kind != "pf" or seen > count:
                raise
            at = CODE + len(instruction)
    print(f"ok {seen}")
    return 0 if seen == count else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
