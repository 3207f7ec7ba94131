"""Questions about one instruction, answered with capstone (imported here only, since it takes 100 ms)."""

from __future__ import annotations

from mmuemu.cpu.window import D_HFLAGS, FS, GS, HFLAG_CS64, Q_RSP, REGISTERS, StateWindow
from mmuemu.x86.paging import is_canonical

_PUSHES = frozenset({"push", "call", "enter", "pushfq", "pushf"})
_POPS = frozenset({"pop", "ret", "popfq", "popf", "iretq"})


def disassemble(code: bytes, address: int) -> str | None:
    """The first instruction of ``code`` in Intel syntax, or None when it decodes to nothing."""
    import capstone

    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    for _, _, mnemonic, operands in engine.disasm_lite(code, address, 1):
        return f"{mnemonic} {operands}".strip()
    return None


def instruction_length(code: bytes, address: int) -> int:
    """Bytes of the first instruction of ``code``, 0 when it decodes to nothing."""
    import capstone

    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    return next((size for _, size, _, _ in engine.disasm_lite(code, address, 1)), 0)


def memory_operand(code: bytes, state: StateWindow) -> int | None:
    """The linear address of the memory operand of the first instruction, by a saved window; None without one."""
    import capstone
    from capstone import x86

    wide = bool(state.d[D_HFLAGS] & HFLAG_CS64)
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64 if wide else capstone.CS_MODE_32)
    engine.detail = True
    rip = state.q[REGISTERS["rip"]]
    for instruction in engine.disasm(code, rip, 1):
        for operand in instruction.operands:
            if operand.type != x86.X86_OP_MEM:
                continue
            memory = operand.mem
            address = int(memory.disp)
            for register, scale in ((memory.base, 1), (memory.index, memory.scale)):
                if register == x86.X86_REG_RIP:
                    address += rip + instruction.size
                elif register:
                    address += _register(instruction.reg_name(register), state) * scale
            if memory.segment in (x86.X86_REG_FS, x86.X86_REG_GS):
                address += state.q[(FS if memory.segment == x86.X86_REG_FS else GS).base]
            return address & (0xFFFF_FFFF_FFFF_FFFF if wide else 0xFFFF_FFFF)
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
    import capstone
    from capstone import x86

    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.detail = True
    for instruction in engine.disasm(code, address, 1):
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
