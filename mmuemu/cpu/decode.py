"""Questions about one instruction, answered with capstone (imported here only, since it takes 100 ms)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from mmuemu.cpu.window import D_HFLAGS, FS, GS, HFLAG_CS64, Q_RSP, REGISTERS, StateWindow
from mmuemu.x86.paging import is_canonical

_PUSHES = frozenset({"push", "call", "enter", "pushfq", "pushf"})
_POPS = frozenset({"pop", "ret", "popfq", "popf", "iretq"})


if TYPE_CHECKING:
    from capstone import Cs

_KEPT: Final = 1024
"""Decoded instructions that are kept."""


@lru_cache(2)
def _decoder(wide: bool) -> Cs:
    """The disassembler of 64-bit or of 32-bit code, with operands."""
    import capstone

    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64 if wide else capstone.CS_MODE_32)
    engine.detail = True
    return engine


def disassemble(code: bytes, address: int) -> str | None:
    """The first instruction of ``code`` in Intel syntax, or None when it decodes to nothing."""
    for _, _, mnemonic, operands in _decoder(True).disasm_lite(code, address, 1):
        return f"{mnemonic} {operands}".strip()
    return None


def instruction_length(code: bytes, address: int) -> int:
    """Bytes of the first instruction of ``code``, 0 when it decodes to nothing."""
    return next((size for _, size, _, _ in _decoder(True).disasm_lite(code, address, 1)), 0)


class Accesses(NamedTuple):
    """What an instruction reads and writes: registers by their 64-bit names (``rflags`` too), and memory."""

    reads: frozenset[str]
    writes: frozenset[str]
    loads: bool
    """Whether it reads memory that it names."""
    address: frozenset[str] = frozenset()
    """The registers that the address of its memory operand is made of."""


_NOTHING: Final = Accesses(frozenset(), frozenset(), False)
_ZEROING: Final = frozenset({"xor", "sub", "pxor", "xorps", "xorpd", "psubd", "psubq"})
"""Of two equal operands these give zero, whatever those held."""
_WHOLE: Final = {
    **{part: f"r{letter}x" for letter in "abcd" for part in (f"e{letter}x", f"{letter}x", f"{letter}l", f"{letter}h")},
    **{part: f"r{name}" for name in ("si", "di", "bp", "sp") for part in (f"e{name}", name, f"{name}l")},
    **{f"r{number}{size}": f"r{number}" for number in range(8, 16) for size in "dwb"},
}


@lru_cache(_KEPT)
def accesses(code: bytes) -> Accesses:
    """What the first instruction of ``code`` reads and writes; nothing when it decodes to nothing."""
    from capstone import x86

    for instruction in _decoder(True).disasm(code, 0, 1):
        reads, writes = (
            frozenset(_WHOLE.get(name, name) for name in map(instruction.reg_name, registers))
            for registers in instruction.regs_access()
        )
        operands = instruction.operands
        named = [one.reg for one in operands if one.type == x86.X86_OP_REG]
        if instruction.mnemonic in _ZEROING and len(named) == 2 and named[0] == named[1]:
            reads -= writes
        memory = [one for one in operands if one.type == x86.X86_OP_MEM]
        loads = any(one.access & 1 for one in memory) and instruction.mnemonic != "lea"
        parts = (instruction.reg_name(part) for one in memory for part in (one.mem.base, one.mem.index) if part)
        return Accesses(reads, writes, loads, frozenset(_WHOLE.get(name, name) for name in parts))
    return _NOTHING


def memory_operand(code: bytes, state: StateWindow) -> int | None:
    """The linear address of the memory operand of the first instruction, by a saved window; None without one."""
    wide = bool(state.d[D_HFLAGS] & HFLAG_CS64)
    operand = _memory_operand(code, wide)
    if operand is None:
        return None
    address, size, registers, segment = operand
    for register, scale in registers:
        if register == "rip":
            address += state.q[REGISTERS["rip"]] + size
        else:
            address += _register(register, state) * scale
    if segment:
        address += state.q[(FS if segment == "fs" else GS).base]
    return address & (0xFFFF_FFFF_FFFF_FFFF if wide else 0xFFFF_FFFF)


@lru_cache(_KEPT)
def _memory_operand(code: bytes, wide: bool) -> tuple[int, int, tuple[tuple[str, int], ...], str] | None:
    """(displacement, instruction size, registers with their scales, "fs", "gs" or "") of the memory operand."""
    from capstone import x86

    for instruction in _decoder(wide).disasm(code, 0, 1):
        for operand in instruction.operands:
            if operand.type != x86.X86_OP_MEM:
                continue
            memory = operand.mem
            parts = ((memory.base, 1), (memory.index, memory.scale))
            registers = tuple((instruction.reg_name(register), scale) for register, scale in parts if register)
            segment = {x86.X86_REG_FS: "fs", x86.X86_REG_GS: "gs"}.get(memory.segment, "")
            return int(memory.disp), instruction.size, registers, segment
    return None


def _register(name: str, state: StateWindow) -> int:
    """A 64- or 32-bit general register by its assembly name."""
    if name in REGISTERS:
        return state.q[REGISTERS[name]]
    wide = f"{name[:-1]}" if name.endswith("d") else f"r{name[1:]}"
    return state.q[REGISTERS[wide]] & 0xFFFF_FFFF


def is_non_canonical_stack_access(code: bytes, address: int, state: StateWindow) -> bool:
    """Whether the instruction at ``address`` reaches a non-canonical address through the stack segment.

    ``state`` is a saved window. RSP and RBP as a base imply SS unless an FS or GS override stands before them
    (SDM volume 1, section 3.7.4).
    """
    from capstone import x86

    for instruction in _decoder(True).disasm(code, address, 1):
        top = state.q[Q_RSP]
        if instruction.mnemonic in _PUSHES and not is_canonical((top - 8) & 0xFFFF_FFFF_FFFF_FFFF):
            return True
        if instruction.mnemonic in _POPS and not is_canonical(top):
            return True
        if instruction.mnemonic == "leave" and not is_canonical(state.q[REGISTERS["rbp"]]):
            return True
        for operand in instruction.operands:
            if operand.type != x86.X86_OP_MEM or operand.mem.segment in (x86.X86_REG_FS, x86.X86_REG_GS):
                continue
            base = instruction.reg_name(operand.mem.base) if operand.mem.base else ""
            if base not in ("rsp", "rbp"):
                continue
            index = instruction.reg_name(operand.mem.index) if operand.mem.index else ""
            effective = state.q[REGISTERS[base]] + operand.mem.disp
            if index in REGISTERS:
                effective += state.q[REGISTERS[index]] * operand.mem.scale
            if not is_canonical(effective & 0xFFFF_FFFF_FFFF_FFFF):
                return True
    return False
