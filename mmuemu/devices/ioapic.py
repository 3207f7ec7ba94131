"""The I/O APIC at 0xfec00000: 24 inputs, each with a redirection entry that makes it a message to the local APIC.

Sources: Intel 82093AA datasheet (order 290566-001), 3.0 to 3.2; the EOI register at 0x40 of version 20h from the Intel
ICH9 datasheet, 13.5.1. Polarity is kept and ignored, as in QEMU: an input is asserted or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from mmuemu.devices.bus import Range

IOAPIC_BASE: Final = 0xFEC0_0000
IOAPIC_SIZE: Final = 0x1000
PINS: Final = 24
IOREGSEL: Final = 0x00
IOWIN: Final = 0x10
EOI_REGISTER: Final = 0x40

ID: Final = 0x00
VERSION: Final = 0x01
ARBITRATION: Final = 0x02
TABLE: Final = 0x10
VERSION_VALUE: Final = (PINS - 1) << 16 | 0x20

MODE_SHIFT: Final = 8
LOGICAL: Final = 1 << 11
REMOTE_IRR: Final = 1 << 14
LEVEL: Final = 1 << 15
MASKED: Final = 1 << 16
WRITABLE: Final = 0xFF00_0000_0001_AFFF
"""All but delivery status (12), remote IRR (14) and the reserved bits of an entry."""

Message = Callable[[int, bool, int, int, bool], bool]
"""(destination, logical, delivery mode, vector, level-triggered) -> accepted."""


class IoApic:
    """The registers and the inputs; messages go to ``send``."""

    def __init__(self, send: Message, *, apic_id: int = 0, base: int = IOAPIC_BASE) -> None:
        self._send = send
        self._id = apic_id
        self._base = base
        self._select = 0
        self._lines = 0
        self.entries = [MASKED] * PINS

    def ranges(self) -> Iterator[Range]:
        yield Range("ioapic", self._base, IOAPIC_SIZE, self._read, self._write, (1, 2, 4))

    def set_pin(self, pin: int, level: bool) -> None:
        """Drive an input. An edge on a masked input is lost; a level waits (82093AA 3.2.4, interrupt mask)."""
        bit = 1 << pin
        rising = level and not self._lines & bit
        self._lines = self._lines | bit if level else self._lines & ~bit
        entry = self.entries[pin]
        if entry & MASKED:
            return
        if entry & LEVEL:
            self._serve_level(pin)
        elif rising:
            self._message(entry)

    def end_of_interrupt(self, vector: int) -> None:
        """The EOI broadcast: every level-triggered entry of that vector is free, and asks again if still asserted."""
        for pin, entry in enumerate(self.entries):
            if entry & LEVEL and entry & REMOTE_IRR and entry & 0xFF == vector:
                self.entries[pin] &= ~REMOTE_IRR
                self._serve_level(pin)

    def serve_levels(self) -> None:
        """Send again what is asserted and was never accepted: the local APIC has been enabled."""
        for pin in range(PINS):
            self._serve_level(pin)

    def _serve_level(self, pin: int) -> None:
        entry = self.entries[pin]
        if not self._lines >> pin & 1 or not entry & LEVEL or entry & (MASKED | REMOTE_IRR):
            return
        # Set before the message: its acceptance may lead back here.
        self.entries[pin] |= REMOTE_IRR
        if not self._message(entry):
            self.entries[pin] &= ~REMOTE_IRR

    def _message(self, entry: int) -> bool:
        level = bool(entry & LEVEL)
        return self._send(entry >> 56, bool(entry & LOGICAL), entry >> MODE_SHIFT & 7, entry & 0xFF, level)

    def _read(self, offset: int, size: int) -> int:
        if offset == IOREGSEL:
            return self._select
        if offset != IOWIN:
            return 0
        if self._select == ID:
            return self._id << 24
        if self._select == VERSION:
            return VERSION_VALUE
        if self._select == ARBITRATION:
            return self._id << 24
        pin, half = divmod(self._select - TABLE, 2)
        if not 0 <= pin < PINS:
            return 0
        return self.entries[pin] >> 32 * half & (1 << 8 * size) - 1

    def _write(self, offset: int, size: int, value: int) -> None:
        if offset == IOREGSEL:
            self._select = value & 0xFF
        elif offset == EOI_REGISTER:
            self.end_of_interrupt(value & 0xFF)
        elif offset == IOWIN and size == 4:
            self._write_window(value)

    def _write_window(self, value: int) -> None:
        if self._select == ID:
            self._id = value >> 24 & 0xF
            return
        pin, half = divmod(self._select - TABLE, 2)
        if not 0 <= pin < PINS:
            return
        shift = 32 * half
        writable = WRITABLE & 0xFFFF_FFFF << shift
        entry = self.entries[pin] & ~writable | value << shift & writable
        # Remote IRR has no meaning for an edge-triggered entry: switching to edge clears it.
        self.entries[pin] = entry if entry & LEVEL else entry & ~REMOTE_IRR
        self._serve_level(pin)
