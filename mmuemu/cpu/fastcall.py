"""SYSCALL's length, and SYSENTER, which the engine leaves to its hook (SDM volume 2, SYSCALL and SYSENTER).

The engine adds the length of either instruction to RIP after the hook; prefixes count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.cpu import window
from mmuemu.cpu.traps import Trap
from mmuemu.mmu.walk import page_walker
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import PAGE_MASK
from mmuemu.x86.registers import CR0_PE, EFER_LMA, RFLAGS_IF, RFLAGS_VM

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu

_MOST_PLACES: Final = 4096
_LONGEST: Final = 15
_CODE: Final = {True: 0x00AF_9B00, False: 0x00CF_9B00}
"""CS by whether long mode is on."""


class FastCalls:
    """What one CPU needs to know about these two instructions."""

    def __init__(self, cpu: Cpu) -> None:
        self.cpu = cpu
        self.places: dict[int, int] = {}
        """RIP of a SYSCALL without prefixes -> physical address of its first byte, while no translation changes."""

    def length(self, rip: int) -> int:
        """Bytes of the SYSCALL or SYSENTER at linear ``rip``, which is being executed."""
        cpu = self.cpu
        code = cpu.read_linear(rip, _LONGEST)
        prefixes = max(code.find(b"\x0f"), 0)
        if not prefixes:
            state = cpu.paging
            found = page_walker(cpu.ram.qwords, state)(state.root, rip, 0, False, True, [], None)
            place = found & ~PAGE_MASK | rip & PAGE_MASK
            if found >= 0 and place < len(cpu.bytes):
                if len(self.places) >= _MOST_PLACES:
                    self.places.clear()
                self.places[rip] = place
        return prefixes + 2

    def sysenter(self) -> None:
        """SYSENTER, from its hook: into ring 0 at IA32_SYSENTER_EIP, or #GP(0)."""
        cpu = self.cpu
        flags = cpu.rflags
        state = cpu.window
        state.save()
        q, d = state.q, state.d
        rip = q[window.Q_RIP]
        code = d[window.D_SYSENTER_CS] & 0xFFFC
        if not q[window.Q_CR0] & CR0_PE or not code:
            cpu.raise_trap(Trap(Vector.GP, 0, rip, 0, d[window.D_HFLAGS] & 3), state.snapshot())
            return
        length = self.length((rip + q[window.CS.base]) & (1 << 64) - 1)
        long = bool(q[window.Q_EFER] & EFER_LMA)
        mask = (1 << 64 if long else 1 << 32) - 1
        state.set_rflags(flags & ~(RFLAGS_IF | RFLAGS_VM))
        q[window.Q_RSP] = q[window.Q_SYSENTER_ESP] & mask
        q[window.Q_RIP] = ((q[window.Q_SYSENTER_EIP] & mask) - length) & mask
        for segment, selector, kind in (
            (window.CS, code, _CODE[long]),
            (window.SS, code + 8, 0x00CF_9300),
        ):
            d[segment.selector] = selector
            q[segment.base] = 0
            d[segment.limit] = 0xFFFF_FFFF
            d[segment.flags] = kind
        hidden = d[window.D_HFLAGS] & ~(window.HFLAG_CPL | window.HFLAG_CS64)
        d[window.D_HFLAGS] = hidden | window.HFLAG_CS32 | window.HFLAG_SS32 | (window.HFLAG_CS64 if long else 0)
        state.restore()
