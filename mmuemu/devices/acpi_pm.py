"""The ACPI fixed power-management block of QEMU's "pc": PM1a event and control registers, and the PM timer.

Sources: ACPI specification 6.5, 4.8.3 (PM1 registers, PM timer); QEMU ``hw/acpi/core.c`` and ``hw/acpi/piix4.c``
(S5 is SLP_TYP 0, S4 is 2). Firmware puts the block at 0x600; older QEMU and Bochs used 0xb000. Both answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from mmuemu.devices.bus import Range
from mmuemu.devices.clock import NS_PER_SECOND, InstructionClock

BASES: Final = (0x600, 0xB000)
BLOCK: Final = 12
PM1_STS: Final = 0
PM1_EN: Final = 2
PM1_CNT: Final = 4
PM_TMR: Final = 8

SCI_EN: Final = 1 << 0
SLP_EN: Final = 1 << 13
SLP_TYP_SHIFT: Final = 10
OFF_TYPES: Final = frozenset({0, 2})
"""SLP_TYP values that switch the machine off: S5 and S4."""

PM_TIMER_HZ: Final = 3_579_545
PM_TIMER_MASK: Final = 0xFF_FFFF


class AcpiPm:
    """PM1a status, enable, control; the 24-bit timer. No SCI is ever raised. SLP_EN with S4 or S5 ends the machine."""

    def __init__(self, clock: InstructionClock, shutdown: Callable[[], None]) -> None:
        self._clock = clock
        self._shutdown = shutdown
        self._enable = 0
        self._control = SCI_EN

    def ports(self) -> Iterator[Range]:
        for base in BASES:
            yield Range("acpi-pm", base, BLOCK, self._read, self._write, (1, 2, 4))

    def timer(self) -> int:
        """The PM timer: 24 bits at 3.579545 MHz."""
        return self._clock.now * PM_TIMER_HZ // NS_PER_SECOND & PM_TIMER_MASK

    def _read(self, offset: int, size: int) -> int:
        block = self._enable << 8 * PM1_EN | self._control << 8 * PM1_CNT | self.timer() << 8 * PM_TMR
        return block >> 8 * offset & (1 << 8 * size) - 1

    def _write(self, offset: int, size: int, value: int) -> None:
        if offset == PM1_STS and size == 4:
            offset, size, value = PM1_EN, 2, value >> 16
        if offset == PM1_EN and size >= 2:
            self._enable = value & 0xFFFF
        elif offset == PM1_CNT and size >= 2:
            self._control = (value & 0xFFFF & ~SLP_EN) | SCI_EN
            if value & SLP_EN and (value >> SLP_TYP_SHIFT & 7) in OFF_TYPES:
                self._shutdown()
