"""Two cascaded 8259A interrupt controllers at 0x20 and 0xa0, with the edge/level registers at 0x4d0.

Sources: Intel 8259A datasheet (order 231468-003): ICW1-4, OCW1-3, priority, EOI, poll, default IR7; Intel 82371SB
(PIIX3) datasheet 2.5.3 and 2.5.7 (LTIM replaced by ELCR1/2 and the lines that cannot be level). One thing follows
QEMU, not the datasheet: an edge stays latched in IRR when its line falls before the acknowledge, so that a driver
loses no interrupt that it silenced too early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from mmuemu.devices.bus import Range

MASTER_PORT: Final = 0x20
SLAVE_PORT: Final = 0xA0
ELCR_PORT: Final = 0x4D0
CASCADE: Final = 2
LINES: Final = 16
ELCR_MASKS: Final = (0xF8, 0xDE)
"""Lines that may be level-triggered: not IRQ 0, 1, 2, 8 and 13."""

ICW1: Final = 1 << 4
ICW1_IC4: Final = 1 << 0
ICW1_SNGL: Final = 1 << 1
ICW4_AEOI: Final = 1 << 1
ICW4_SFNM: Final = 1 << 4

OCW3: Final = 1 << 3
OCW3_RIS: Final = 1 << 0
OCW3_RR: Final = 1 << 1
OCW3_POLL: Final = 1 << 2
OCW3_SMM: Final = 1 << 5
OCW3_ESMM: Final = 1 << 6


class Pic:
    """One 8259A; ``irr``, ``isr``, ``imr``, ``lines`` and ``elcr`` are bit masks of its eight inputs."""

    def __init__(self, name: str, port: int, changed: Callable[[], None], *, slaves: int = 0) -> None:
        """``slaves``: the inputs that carry another 8259A; ``changed`` is called when INT may have changed."""
        self.name = name
        self._port = port
        self._changed = changed
        self._slaves = slaves
        self.base = 0
        self.irr = self.isr = self.imr = self.lines = self.elcr = 0
        self._lowest = 7
        self._expect: list[Callable[[int], None]] = []
        self._read_isr = self._poll = self._special_mask = False
        self._auto_eoi = self._rotate_auto = self._fully_nested = False

    def ports(self) -> Iterator[Range]:
        yield Range(self.name, self._port, 2, self._read, self._write)

    def set_line(self, line: int, level: bool) -> None:
        """Drive input ``line`` (0 to 7)."""
        bit = 1 << line
        rising = level and not self.lines & bit
        self.lines = self.lines | bit if level else self.lines & ~bit
        if self.elcr & bit:
            self.irr = self.irr & ~bit | self.lines & bit
        elif rising:
            self.irr |= bit
        self._changed()

    def pending(self) -> int | None:
        """The input that INT is raised for: the highest requested and unmasked one above those in service."""
        requests = self.irr & ~self.imr
        if not requests:
            return None
        # In special mask mode a masked input in service no longer holds back those below it.
        blocking = self.isr & ~self.imr if self._special_mask else self.isr
        if self._fully_nested:
            blocking &= ~self._slaves
        for line in self._by_priority():
            if blocking >> line & 1:
                return None
            if requests >> line & 1:
                return line
        return None

    def acknowledge(self) -> int:
        """The INTA cycle: the input now in service; 7, with nothing in service, when none asks any more."""
        line = self.pending()
        if line is None:
            return 7
        bit = 1 << line
        if not self.elcr & bit:
            self.irr &= ~bit
        if self._auto_eoi:
            if self._rotate_auto:
                self._lowest = line
        else:
            self.isr |= bit
        self._changed()
        return line

    def _by_priority(self) -> Iterator[int]:
        return ((self._lowest + 1 + n) % 8 for n in range(8))

    def _read(self, offset: int, _size: int) -> int:
        if self._poll:
            self._poll = False
            line = self.pending()
            return 0 if line is None else 0x80 | self.acknowledge()
        if offset == 1:
            return self.imr
        return self.isr if self._read_isr else self.irr

    def _write(self, offset: int, _size: int, value: int) -> None:
        if offset == 1:
            (self._expect.pop(0) if self._expect else self._ocw1)(value)
        elif value & ICW1:
            self._icw1(value)
        elif value & OCW3:
            self._ocw3(value)
        else:
            self._ocw2(value)
        self._changed()

    def _icw1(self, value: int) -> None:
        # "The edge sense circuit is reset": what is high now must fall and rise again.
        self.irr &= self.elcr
        self.imr = self.isr = 0
        self._lowest = 7
        self._read_isr = self._poll = self._special_mask = False
        self._auto_eoi = self._rotate_auto = self._fully_nested = False
        self._expect = [self._icw2]
        if not value & ICW1_SNGL:
            self._expect.append(lambda _icw3: None)
        if value & ICW1_IC4:
            self._expect.append(self._icw4)

    def _icw2(self, value: int) -> None:
        self.base = value & 0xF8

    def _icw4(self, value: int) -> None:
        self._auto_eoi = bool(value & ICW4_AEOI)
        self._fully_nested = bool(value & ICW4_SFNM)

    def _ocw1(self, value: int) -> None:
        self.imr = value

    def _ocw2(self, value: int) -> None:
        """R, SL, EOI (bits 7 to 5) and a level (bits 2 to 0)."""
        rotate, specific, eoi = value >> 7 & 1, value >> 6 & 1, value >> 5 & 1
        level = value & 7
        if eoi:
            line = level if specific else self._highest_in_service()
            if line is not None:
                self.isr &= ~(1 << line)
                if rotate:
                    self._lowest = line
        elif specific:
            if rotate:
                self._lowest = level
        else:
            self._rotate_auto = bool(rotate)

    def _highest_in_service(self) -> int | None:
        # Masked inputs are not cleared by a non-specific EOI in special mask mode.
        candidates = self.isr & ~self.imr if self._special_mask else self.isr
        return next((line for line in self._by_priority() if candidates >> line & 1), None)

    def _ocw3(self, value: int) -> None:
        if value & OCW3_ESMM:
            self._special_mask = bool(value & OCW3_SMM)
        self._poll = bool(value & OCW3_POLL)
        if value & OCW3_RR and not self._poll:
            self._read_isr = bool(value & OCW3_RIS)


class PicPair:
    """The PC's two controllers, the slave on the master's input 2; ``intr`` is the master's INT pin."""

    def __init__(self, intr: Callable[[bool], None]) -> None:
        """``intr`` is called when the INT pin changes, with its new level."""
        self._out = intr
        self.intr = False
        self.master = Pic("pic-master", MASTER_PORT, self._update, slaves=1 << CASCADE)
        self.slave = Pic("pic-slave", SLAVE_PORT, self._cascade)
        # An 8259A leaves a request of the slave pending until it is served, whatever the edges: its pin is a level.
        self.master.elcr = 1 << CASCADE

    def ports(self) -> Iterator[Range]:
        yield from self.master.ports()
        yield from self.slave.ports()
        yield Range("elcr", ELCR_PORT, 2, self._read_elcr, self._write_elcr)

    def set_line(self, line: int, level: bool) -> None:
        """Drive IRQ ``line`` (0 to 15; 2 is the cascade and cannot be driven)."""
        if line != CASCADE:
            (self.slave if line >= 8 else self.master).set_line(line & 7, level)

    def peek(self) -> int | None:
        """The vector an INTA cycle would give now; None while INT is low."""
        line = self.master.pending()
        if line is None:
            return None
        if line != CASCADE:
            return self.master.base + line
        inner = self.slave.pending()
        return self.slave.base + (7 if inner is None else inner)

    def acknowledge(self) -> int:
        """The INTA cycle: the vector; a spurious IRQ 7 or 15 if the request has gone."""
        line = self.master.acknowledge()
        # The slave takes part only if the master really put the cascade in service.
        if line == CASCADE:
            return self.slave.base + self.slave.acknowledge()
        return self.master.base + line

    def _cascade(self) -> None:
        self.master.set_line(CASCADE, self.slave.pending() is not None)

    def _update(self) -> None:
        level = self.master.pending() is not None
        if level != self.intr:
            self.intr = level
            self._out(level)

    def _read_elcr(self, offset: int, _size: int) -> int:
        return (self.slave if offset else self.master).elcr & ELCR_MASKS[offset]

    def _write_elcr(self, offset: int, _size: int, value: int) -> None:
        chip = self.slave if offset else self.master
        kept = chip.elcr & ~ELCR_MASKS[offset]
        chip.elcr = kept | value & ELCR_MASKS[offset]
        chip.irr = chip.irr & ~chip.elcr | chip.lines & chip.elcr
        (self._cascade if offset else self._update)()
