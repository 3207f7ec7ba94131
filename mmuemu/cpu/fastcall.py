"""How long a SYSCALL or SYSENTER is: the engine adds that to RIP after the hook, and RCX holds it; prefixes count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.mmu.walk import page_walker
from mmuemu.x86.paging import PAGE_MASK

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu

_MOST_PLACES: Final = 4096
_LONGEST: Final = 15


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
            walker = page_walker(cpu.ram.qwords, state) if cpu.tlb is None else cpu.tlb.looker(state)
            found = walker(state.cr3, rip, 0, False, True, [], None)
            place = found & ~PAGE_MASK | rip & PAGE_MASK
            if found >= 0 and place < len(cpu.ram_bytes):
                if len(self.places) >= _MOST_PLACES:
                    self.places.clear()
                self.places[rip] = place
        return prefixes + 2
