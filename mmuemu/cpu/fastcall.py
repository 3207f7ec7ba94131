"""How long a SYSCALL or SYSENTER is: the engine adds that to RIP after the hook, and RCX holds it; prefixes count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

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
        """Bytes of the SYSCALL or SYSENTER at linear ``rip``, which is being executed; the window has been saved."""
        cpu = self.cpu
        place = cpu.peek.sync().physical(rip)
        if place is not None and place + 1 < len(cpu.ram_bytes) and cpu.ram_bytes[place] == 0x0F:
            if len(self.places) >= _MOST_PLACES:
                self.places.clear()
            self.places[rip] = place
            return 2
        code = cpu.peek.available(rip, _LONGEST)
        return max(code.find(b"\x0f"), 0) + 2
