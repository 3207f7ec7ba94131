"""Instructions that the engine does not know: INT1, RDPID and INVPCID (SDM volume 2)."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from mmuemu.cpu import window
from mmuemu.cpu.linear import AccessFault, LinearMemory
from mmuemu.cpu.traps import Trap
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import is_canonical
from mmuemu.x86.registers import CR4_PCIDE

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu

_INT1 = b"\xf1"
_RDPID = 0xC7
_INVPCID = (0x38, 0x82)
ALL = frozenset({"rdpid", "invpcid"})
_PREFIXES = bytes((0x66, 0xF3, *range(0x40, 0x50)))


@lru_cache(1024)
def may_be(raw: bytes) -> bool:
    """Whether :func:`emulate` may have to do with the code ``raw``."""
    code = raw.lstrip(_PREFIXES)
    return not code or code[:1] == _INT1 or code[:2] in (b"\x0f\xc7", b"\x0f\x38")


def emulate(cpu: Cpu, trap: Trap) -> Trap | None:
    """Execute the instruction that raised #UD if it is one of these: None, or the exception it raises itself.

    ``trap`` comes back for any other instruction.
    """
    raw = cpu.read_linear(trap.rip, 15)
    if raw[:1] == _INT1:
        return Trap(Vector.DB, 0, trap.rip + 1, 0, trap.cpl)
    prefixes = 0
    while prefixes < len(raw) and (raw[prefixes] in (0x66, 0xF3) or 0x40 <= raw[prefixes] < 0x50):
        prefixes += 1
    before, code = raw[:prefixes], raw[prefixes:]
    shown = ALL if cpu.model is None else cpu.model.features
    rex = before[-1] if before and 0x40 <= before[-1] < 0x50 else 0
    if (
        "rdpid" in shown
        and code[:2] == bytes((0x0F, _RDPID))
        and 0xF3 in before
        and code[2:3]
        and code[2] & 0xF8 == 0xF8
    ):
        _rdpid(cpu, trap, code[2] & 7 | (rex & 1) << 3, prefixes + 3)
        return None
    if (
        "invpcid" in shown
        and code[:3] == bytes((0x0F, *_INVPCID))
        and 0x66 in before
        and code[3:4]
        and code[3] >> 6 != 3
    ):
        return _invpcid(cpu, trap, raw, code[3] >> 3 & 7 | (rex & 4) << 1)
    return trap


def _rdpid(cpu: Cpu, trap: Trap, register: int, length: int) -> None:
    state = cpu.window
    state.save()
    state.q[register] = state.q[window.Q_TSC_AUX] & 0xFFFF_FFFF
    state.q[window.Q_RIP] = trap.rip + length
    state.restore()


def _invpcid(cpu: Cpu, trap: Trap, raw: bytes, register: int) -> Trap | None:
    """Flush; what other PCIDs have cached is the TLB model's business, told through the observers."""
    from mmuemu.cpu.decode import instruction_length, memory_operand

    if trap.cpl:
        return trap._replace(vector=Vector.GP)
    state = cpu.window
    state.save()
    address = memory_operand(raw, state)
    kind = state.q[register]
    pcide = state.q[window.Q_CR4] & CR4_PCIDE
    try:
        descriptor = LinearMemory(cpu).sync().read(address or 0, 16)
    except AccessFault as refused:
        return trap._replace(vector=refused.vector, error_code=refused.error_code, address=refused.address)
    pcid = int.from_bytes(descriptor[:8], "little")
    linear = int.from_bytes(descriptor[8:], "little")
    bad = kind > 3 or (kind < 2 and pcid >> 12) or (kind == 0 and not is_canonical(linear))
    if bad or (kind < 2 and pcid and not pcide):
        return trap._replace(vector=Vector.GP)
    state.save()
    state.q[window.Q_RIP] = trap.rip + instruction_length(raw, trap.rip)
    state.restore()
    if cpu.privileged is not None:
        for observer in cpu.privileged.observers:
            observer("invpcid", int(kind) << 12 | pcid, linear)
    cpu.engine.flush()
    return None
