"""IRET and far RET in ring 3, executed here: the engine reads their frames with supervisor rights.

SDM volume 2, IRET/IRETD/IRETQ and RET (far), for a return to ring 3 in IA-32e mode. Nothing changes when a check fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.cpu import window
from mmuemu.cpu.implicit import IRET
from mmuemu.cpu.linear import AccessFault, LinearMemory
from mmuemu.cpu.traps import Trap
from mmuemu.cpu.window import Segment
from mmuemu.x86.descriptors import Descriptor, descriptor
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import is_canonical
from mmuemu.x86.registers import (
    CR4_LA57,
    RFLAGS_AC,
    RFLAGS_ARITHMETIC,
    RFLAGS_DF,
    RFLAGS_ID,
    RFLAGS_IF,
    RFLAGS_NT,
    RFLAGS_RF,
    RFLAGS_TF,
)

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu

_ACCESSED: Final = 1 << 8
_ADDSEG: Final = 1 << 6
_POPPED: Final = RFLAGS_ARITHMETIC | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT
_POPPED_WIDE: Final = RFLAGS_RF | RFLAGS_AC | RFLAGS_ID


class _Return:
    """One far return, on a saved window."""

    def __init__(self, cpu: Cpu, opcode: int, size: int, discard: int) -> None:
        self.cpu = cpu
        self.opcode = opcode
        self.size = size
        self.discard = discard
        self.flags = cpu.rflags
        paging = cpu.paging
        self.user = LinearMemory(cpu, user=True).sync()
        self.system = LinearMemory(cpu).sync()
        self.state = cpu.window
        self.wide = bool(self.state.d[window.D_HFLAGS] & window.HFLAG_CS64)
        self.linear_bits = 57 if paging.cr4 & CR4_LA57 else 48

    def run(self) -> None:
        state = self.state
        q = state.q
        iret = self.opcode == IRET
        if iret and self.flags & RFLAGS_NT:
            raise AccessFault(Vector.GP, 0)
        count = (5 if self.wide else 3) if iret else 2
        words = self._pop(count)
        rip, selector = words[0], words[1] & 0xFFFF
        code, at = self._code(selector)
        stack = self._stack(words[4] & 0xFFFF) if count == 5 else None
        if not (is_canonical(rip, self.linear_bits) if code.long else rip <= code.limit):
            raise AccessFault(Vector.GP, 0)
        self._mark(at)
        if stack is not None:
            self._mark(stack[1])
            self._load(window.SS, words[4] & 0xFFFF, stack[0])
            q[window.Q_RSP] = words[3]
        else:
            self._advance(count * self.size + self.discard)
        self._load(window.CS, selector, code)
        q[window.Q_RIP] = rip
        if iret:
            popped = _POPPED | (_POPPED_WIDE if self.size > 2 else 0)
            popped |= RFLAGS_IF if self.flags >> 12 & 3 == 3 else 0
            state.set_rflags(self.flags & ~popped | words[2] & popped)
        self._hidden(code)
        state.restore()

    def _pop(self, count: int) -> list[int]:
        """The frame, read with the user's rights."""
        raw = self.user.read(self._top(), count * self.size, bad=Vector.SS)
        return [int.from_bytes(raw[n : n + self.size], "little") for n in range(0, len(raw), self.size)]

    def _top(self) -> int:
        rsp = self.state.q[window.Q_RSP]
        return rsp if self.wide else (rsp + self.state.q[window.SS.base]) & 0xFFFF_FFFF

    def _advance(self, count: int) -> None:
        q = self.state.q
        q[window.Q_RSP] = (q[window.Q_RSP] + count) & ((1 << 64) - 1 if self.wide else 0xFFFF_FFFF)

    def _read(self, selector: int) -> tuple[Descriptor, int]:
        """The descriptor that ``selector`` names, and its linear address."""
        state = self.state
        table = window.LDT if selector & 4 else window.GDT
        if selector & 0xFFF8 | 7 > state.d[table.limit]:
            raise AccessFault(Vector.GP, selector & 0xFFFC)
        at = (state.q[table.base] + (selector & 0xFFF8)) & (1 << 64) - 1
        return descriptor(self.system.read_int(at, 8)), at

    def _code(self, selector: int) -> tuple[Descriptor, int]:
        refused = AccessFault(Vector.GP, selector & 0xFFFC)
        if not selector & 0xFFFC:
            raise refused
        found, at = self._read(selector)
        if not found.is_code or selector & 3 != 3 or (found.long and found.big):
            raise refused
        if found.dpl != 3 and not found.is_conforming:
            raise refused
        if not found.present:
            raise AccessFault(Vector.NP, selector & 0xFFFC)
        return found, at

    def _stack(self, selector: int) -> tuple[Descriptor, int]:
        refused = AccessFault(Vector.GP, selector & 0xFFFC)
        if not selector & 0xFFFC:
            raise refused
        found, at = self._read(selector)
        if selector & 3 != 3 or not found.is_writable_data or found.dpl != 3:
            raise refused
        if not found.present:
            raise AccessFault(Vector.SS, selector & 0xFFFC)
        return found, at

    def _mark(self, at: int) -> None:
        """Set the descriptor's accessed bit, if it is clear."""
        kind = self.system.read_int(at + 5, 1)
        if not kind & 1:
            self.system.write(at + 5, bytes((kind | 1,)))

    def _load(self, segment: Segment, selector: int, found: Descriptor) -> None:
        d, q = self.state.d, self.state.q
        d[segment.selector] = selector
        q[segment.base] = found.base
        d[segment.limit] = found.limit
        d[segment.flags] = found.flags | _ACCESSED

    def _hidden(self, code: Descriptor) -> None:
        d, q = self.state.d, self.state.q
        hidden = d[window.D_HFLAGS] & ~(window.HFLAG_CS32 | window.HFLAG_CS64 | window.HFLAG_SS32 | _ADDSEG)
        if code.long:
            hidden |= window.HFLAG_CS64 | window.HFLAG_CS32 | window.HFLAG_SS32
        else:
            hidden |= window.HFLAG_CS32 if code.big else 0
            hidden |= window.HFLAG_SS32 if d[window.SS.flags] >> 22 & 1 else 0
            bases = q[window.DS.base] | q[window.ES.base] | q[window.SS.base]
            hidden |= _ADDSEG if bases or not code.big else 0
        d[window.D_HFLAGS] = hidden


def far_return(cpu: Cpu, rip: int, opcode: int, size: int, discard: int = 0) -> Trap | None:
    """Execute the far return at ``rip`` in ring 3: None, RIP is where it went; or the exception it raises.

    ``size`` is the operand size in bytes, ``discard`` the immediate of RETF.
    """
    try:
        _Return(cpu, opcode, size, discard).run()
    except AccessFault as refused:
        cpu.window.save()
        if refused.vector == Vector.PF:
            cpu.window.q[window.Q_CR2] = refused.address
            cpu.window.restore()
        return Trap(refused.vector, refused.error_code, rip, refused.address, 3)
    return None
