"""Machine code from operands: the little of the SDM's volume 2, chapter 2 that random programs need.

Much faster than an assembler, and it also encodes what no assembler would.
"""

from __future__ import annotations

from typing import Final, NamedTuple

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = range(16)
NAMES: Final = (
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip


class Mem(NamedTuple):
    """``[base + index * scale + disp]``; without a base the address is ``disp`` itself (below 2 GiB)."""

    base: int | None
    disp: int = 0
    index: int | None = None
    shift: int = 0
    """Binary logarithm of the scale."""


def imm(value: int, size: int) -> bytes:
    """The low ``size`` bytes of ``value``."""
    return (value & (1 << 8 * size) - 1).to_bytes(size, "little")


def encode(
    opcode: bytes, reg: int, rm: int | Mem, *, wide: bool = False, prefix: bytes = b"", tail: bytes = b"",
    low: bool = False,
) -> bytes:  # fmt: skip
    """One instruction with a ModR/M byte: ``prefix``, REX, ``opcode``, the operands, ``tail`` (an immediate).

    ``wide`` is REX.W; ``low`` says that registers are bytes, so that 4 to 7 mean SPL to DIL.
    """
    rex = 0x48 if wide else 0x40
    if reg & 8:
        rex |= 4
    if isinstance(rm, int):
        if rm & 8:
            rex |= 1
        operand = bytes((0xC0 | (reg & 7) << 3 | rm & 7,))
        forced = low and (4 <= reg < 8 or 4 <= rm < 8)
    else:
        operand, bits = _memory(reg, rm)
        rex |= bits
        forced = low and 4 <= reg < 8
    start = prefix + bytes((rex,)) if rex != 0x40 or forced else prefix
    return start + opcode + operand + tail


def _memory(reg: int, mem: Mem) -> tuple[bytes, int]:
    """ModR/M, SIB and displacement, and the REX bits they need."""
    field = (reg & 7) << 3
    rex = 0
    if mem.base is None:
        sib = 0x25 if mem.index is None else mem.shift << 6 | (mem.index & 7) << 3 | 5
        rex = 2 if mem.index is not None and mem.index & 8 else 0
        return bytes((field | 4, sib)) + imm(mem.disp, 4), rex
    if mem.base & 8:
        rex |= 1
    if mem.disp == 0 and mem.base & 7 != RBP:
        mode, disp = 0, b""
    elif -128 <= mem.disp < 128:
        mode, disp = 0x40, imm(mem.disp, 1)
    else:
        mode, disp = 0x80, imm(mem.disp, 4)
    if mem.index is None and mem.base & 7 != RSP:
        return bytes((mode | field | mem.base & 7,)) + disp, rex
    index = RSP if mem.index is None else mem.index
    if mem.index is not None and mem.index & 8:
        rex |= 2
    return bytes((mode | field | 4, mem.shift << 6 | (index & 7) << 3 | mem.base & 7)) + disp, rex


def sized(opcode: int, reg: int, rm: int | Mem, size: int, tail: bytes = b"", prefix: bytes = b"") -> bytes:
    """An instruction whose opcode's bit 0 tells bytes from words: ``size`` is 1, 2, 4 or 8; two-byte opcodes too."""
    code = opcode | (size > 1)
    raw = bytes((code,)) if code < 256 else code.to_bytes(2, "big")
    before = prefix + (b"\x66" if size == 2 else b"")
    return encode(raw, reg, rm, wide=size == 8, prefix=before, tail=tail, low=size == 1)


def load_immediate(reg: int, value: int) -> bytes:
    """``mov reg, value`` in the shortest form that any value of that size has."""
    value &= (1 << 64) - 1
    if value < 1 << 32:
        return (b"\x41" if reg & 8 else b"") + bytes((0xB8 | reg & 7,)) + imm(value, 4)
    return bytes((0x48 | reg >> 3, 0xB8 | reg & 7)) + imm(value, 8)
