"""The 8254 programmable interval timer at 0x40, and port 0x61 that gates and reads its channel 2.

Sources: Intel 8254 datasheet (order 231164-005): control word, modes, read-back, gate; Intel 82371SB (PIIX3) datasheet
2.5.6 (port 61h). The input clock runs at 105/88 MHz. A count is taken to be loaded by the write itself, not one clock
later. Counting is arithmetic on the clock's time: nothing happens between events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from mmuemu.devices.bus import Range
from mmuemu.devices.clock import NS_PER_SECOND, InstructionClock, ceil_div

PIT_PORT: Final = 0x40
PORT_B: Final = 0x61
HZ: Final = 1_193_182
REFRESH_TICKS: Final = 18
"""Channel 1's count on a PC: port 0x61 bit 4 toggles with each of its refresh requests."""

LOW: Final = 1
HIGH: Final = 2
BOTH: Final = 3

PORT_B_KEPT: Final = 0x0F
PORT_B_GATE: Final = 1 << 0
PORT_B_REFRESH: Final = 1 << 4
PORT_B_OUT: Final = 1 << 5


def tick_at(moment: int) -> int:
    """The input clock's ticks until ``moment`` (nanoseconds)."""
    return moment * HZ // NS_PER_SECOND


def moment_of(tick: int) -> int:
    """The first nanosecond at which the input clock has ticked ``tick`` times."""
    return ceil_div(tick * NS_PER_SECOND, HZ)


class Channel:
    """One counter. Times are absolute ticks of the input clock, which the caller passes in."""

    def __init__(self) -> None:
        self.mode = 3
        self.access = BOTH
        self.bcd = False
        self.gate = True
        self._count: int | None = None
        """The count being counted; None: none was loaded (or, in modes 1 and 5, triggered) yet."""
        self._register = 0
        """The count register: what the next trigger or reload uses."""
        self._start = 0
        self._held: int | None = None
        """Ticks already counted when the gate stopped the count; None: it runs."""
        self._next: tuple[int, int] | None = None
        """(tick of the reload, count) of a count written while modes 2 and 3 were running."""
        self._low_byte: int | None = None
        self._null = True
        self._latch: list[int] = []
        self._status: int | None = None
        self._read_high = False

    @property
    def modulus(self) -> int:
        """The period of the counter itself, and what a count of 0 means."""
        return 10_000 if self.bcd else 0x1_0000

    def control(self, word: int, tick: int) -> None:
        """The low six bits of a control word, or a counter latch command."""
        access = word >> 4 & 3
        if access == 0:
            self.latch_count(tick)
            return
        mode = word >> 1 & 7
        self.mode = mode - 4 if mode > 5 else mode
        self.access = access
        self.bcd = bool(word & 1)
        self._count = self._held = self._next = self._low_byte = self._status = None
        self._latch = []
        self._null = True
        self._read_high = False

    def latch_count(self, tick: int) -> None:
        """Hold the count for reading; a second latch before the first is read does nothing."""
        if not self._latch:
            self._latch = self._bytes(self.value(tick))

    def latch_status(self, tick: int) -> None:
        """Hold OUT, null count and the control word for the next read."""
        if self._status is None:
            self._settle(tick)
            word = self.access << 4 | self.mode << 1 | self.bcd
            self._status = self.out(tick) << 7 | self._null << 6 | word

    def write(self, byte: int, tick: int) -> None:
        """A byte of the count."""
        if self.access == BOTH and self._low_byte is None:
            self._low_byte = byte
            if self.mode == 0:
                self._count = None  # the first byte stops counting; OUT is low
            return
        if self.access == BOTH:
            assert self._low_byte is not None
            value = byte << 8 | self._low_byte
            self._low_byte = None
        else:
            value = byte << 8 if self.access == HIGH else byte
        self._load(self._binary(value) or self.modulus, tick)

    def read(self, tick: int) -> int:
        """A latched status, a latched byte, or a byte of the count as it is now."""
        if self._status is not None:
            status, self._status = self._status, None
            return status
        if self._latch:
            return self._latch.pop(0)
        both = self._bytes(self.value(tick))
        if self.access != BOTH:
            return both[0]
        self._read_high = not self._read_high
        return both[0 if self._read_high else 1]

    def set_gate(self, level: bool, tick: int) -> None:
        """Drive GATE (datasheet figure 22: the gate operations of each mode)."""
        if level == self.gate:
            return
        self._settle(tick)
        self.gate = level
        if self.mode in (1, 5):
            if level and self._register:
                self._begin(self._register, tick)
        elif self._count is None:
            return
        elif not level:
            self._held, self._next = tick - self._start, None
        elif self.mode in (2, 3):
            self._begin(self._register, tick)
        else:
            self._start, self._held = tick - (self._held or 0), None

    def value(self, tick: int) -> int:
        """The counter's value, as a binary number."""
        self._settle(tick)
        count = self._count
        if count is None:
            return self._register % self.modulus
        gone = self._gone(tick)
        if self.mode == 2:
            left = count - gone % count
        elif self.mode == 3:
            left = count - 2 * gone % count
            left -= left & 1
        else:
            left = count - gone
        return left % self.modulus

    def out(self, tick: int) -> bool:
        """The OUT pin."""
        self._settle(tick)
        count = self._count
        if count is None:
            return self.mode != 0
        gone = self._gone(tick)
        if self.mode < 2:
            return gone >= count
        if self.mode == 2:
            return not self.gate or gone % count != count - 1
        if self.mode == 3:
            return not self.gate or gone % count < (count + 1) // 2
        return gone != count

    def next_rise(self, tick: int) -> int | None:
        """The first tick after ``tick`` at which OUT goes from low to high; None if it will not by itself."""
        self._settle(tick)
        count = self._count
        if count is None or self._held is not None:
            return None
        if self._next is not None:
            return self._next[0]
        gone = tick - self._start
        if self.mode in (2, 3):
            return self._start + (gone // count + 1) * count
        rise = count if self.mode < 2 else count + 1
        return self._start + rise if gone < rise else None

    def _gone(self, tick: int) -> int:
        return tick - self._start if self._held is None else self._held

    def _load(self, count: int, tick: int) -> None:
        if self.mode in (2, 3):
            count = max(count, 2)
        self._settle(tick)
        self._register = count
        self._null = True
        if self.mode in (1, 5):
            return
        if self.mode in (2, 3) and self._count is not None and self._held is None:
            # Written while counting: the current period is finished first (mode 3 could also change at the half).
            periods = (tick - self._start) // self._count + 1
            self._next = (self._start + periods * self._count, count)
        else:
            self._begin(count, tick)
            if not self.gate:
                self._held = 0

    def _begin(self, count: int, tick: int) -> None:
        self._count, self._start, self._held, self._next, self._null = count, tick, None, None, False

    def _settle(self, tick: int) -> None:
        if self._next is not None and tick >= self._next[0]:
            self._begin(self._next[1], self._next[0])

    def _binary(self, value: int) -> int:
        """A count as written: in BCD each nibble counts as a digit."""
        if not self.bcd:
            return value
        return sum((value >> 4 * digit & 0xF) * 10**digit for digit in range(4))

    def _bytes(self, value: int) -> list[int]:
        """The bytes a read gives, in the order of the access mode."""
        if self.bcd:
            value = int(str(value), 16)
        low, high = value & 0xFF, value >> 8
        return [[low], [high], [low, high]][self.access - 1]


class Pit:
    """The three channels, channel 0's interrupt, and port 0x61. The interrupt is a pulse at each rise of OUT 0."""

    def __init__(self, clock: InstructionClock, irq: Callable[[bool], None]) -> None:
        self._clock = clock
        self._irq = irq
        self.channels = (Channel(), Channel(), Channel())
        self.channels[2].gate = False
        self._port_b = 0
        self._timer = clock.timer("pit", self._rise)

    def ports(self) -> Iterator[Range]:
        yield Range("pit", PIT_PORT, 4, self._read, self._write)
        yield Range("port-b", PORT_B, 1, self._read_port_b, self._write_port_b)

    def _tick(self) -> int:
        return tick_at(self._clock.now)

    def _read(self, offset: int, _size: int) -> int:
        # The control word register cannot be read.
        return self.channels[offset].read(self._tick()) if offset < 3 else 0xFF

    def _write(self, offset: int, _size: int, value: int) -> None:
        tick = self._tick()
        before = self.channels[0].out(tick)
        if offset < 3:
            self.channels[offset].write(value, tick)
        elif value >> 6 == 3:
            self._read_back(value, tick)
        else:
            self.channels[value >> 6].control(value & 0x3F, tick)
        if offset in (0, 3):
            after = self.channels[0].out(tick)
            if before != after:
                # The line is left high between rises, so a rise is always a fall and a rise.
                self._irq(False)
                self._irq(after)
            self._arm(tick)

    def _read_back(self, word: int, tick: int) -> None:
        """Bits 3 to 1 choose channels; bit 5 clear latches counts, bit 4 clear latches status (datasheet figure 12)."""
        for number, channel in enumerate(self.channels):
            if word >> number + 1 & 1:
                if not word & 1 << 5:
                    channel.latch_count(tick)
                if not word & 1 << 4:
                    channel.latch_status(tick)

    def _arm(self, tick: int) -> None:
        rise = self.channels[0].next_rise(tick)
        if rise is None:
            self._timer.cancel()
        else:
            self._timer.arm(moment_of(rise))

    def _rise(self, _deadline: int) -> None:
        self._irq(False)
        self._irq(True)
        self._arm(self._tick())

    def _read_port_b(self, _offset: int, _size: int) -> int:
        tick = self._tick()
        refresh = PORT_B_REFRESH if tick // REFRESH_TICKS & 1 else 0
        out = PORT_B_OUT if self.channels[2].out(tick) else 0
        return self._port_b | refresh | out

    def _write_port_b(self, _offset: int, _size: int, value: int) -> None:
        self._port_b = value & PORT_B_KEPT
        self.channels[2].set_gate(bool(value & PORT_B_GATE), self._tick())
