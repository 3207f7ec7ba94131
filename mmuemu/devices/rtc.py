"""The MC146818 real-time clock and the PC's CMOS memory on ports 0x70 and 0x71.

Sources: Motorola MC146818 datasheet (time, calendar and alarm bytes; registers A to D; update cycle); the CMOS map of
Bochs and SeaBIOS (``docs`` of both; memory sizes at 0x15-0x18, 0x30-0x35 and 0x5b-0x5d, CPUs at 0x5f). The time moves
with the clock the machine counts, from the epoch it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Final

from mmuemu.devices.bus import Range
from mmuemu.devices.clock import NS_PER_SECOND, InstructionClock, ceil_div

RTC_PORT: Final = 0x70
NMI_DISABLE: Final = 0x80

A_UIP: Final = 0x80
A_RATE: Final = 0x0F
A_DIVIDER: Final = 0x70
A_DIVIDER_32K: Final = 0x20
B_SET: Final = 0x80
B_PIE: Final = 0x40
B_AIE: Final = 0x20
B_UIE: Final = 0x10
B_BINARY: Final = 0x04
B_24H: Final = 0x02
C_IRQF: Final = 0x80
FLAGS: Final = 0x70
"""PF, AF and UF of register C, at the positions of their enables in register B."""
PF: Final = 0x40
AF: Final = 0x20
UF: Final = 0x10
D_VRT: Final = 0x80

SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM = range(6)
WEEKDAY, DAY, MONTH, YEAR = range(6, 10)
REG_A, REG_B, REG_C, REG_D = range(0x0A, 0x0E)
CENTURY: Final = 0x32
TIME_BYTES: Final = frozenset({SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY})
ALARM_BYTES: Final = ((SECONDS, SECONDS_ALARM), (MINUTES, MINUTES_ALARM), (HOURS, HOURS_ALARM))
DONT_CARE: Final = 0xC0
PM: Final = 0x80

UPDATE_NS: Final = 244_000
"""UIP is set this long before the second changes (t_BUC)."""
CRYSTAL: Final = 32_768
DAY_SECONDS: Final = 86_400

EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
KIB: Final = 1024
MIB: Final = 1024 * KIB


def memory_bytes(ram: int) -> dict[int, int]:
    """The CMOS bytes that tell the size of ``ram`` bytes, laid out as QEMU's "pc" does (a hole below 4 GiB)."""
    below = min(ram, 3 * 1024 * MIB)
    above_4g = ram - below
    fields = (
        ((0x15, 0x16), min(640, ram // KIB)),
        ((0x17, 0x18), min(max(below // KIB - 1024, 0), 0xFFFF)),
        ((0x30, 0x31), min(max(below // KIB - 1024, 0), 0xFFFF)),
        ((0x34, 0x35), min(max(below - 16 * MIB, 0) // (64 * KIB), 0xFFFF)),
        ((0x5B, 0x5C, 0x5D), above_4g // (64 * KIB)),
    )
    return {index: value >> 8 * n & 0xFF for indexes, value in fields for n, index in enumerate(indexes)}


def fields_of(time: datetime) -> dict[int, int]:
    """A time as the numbers its CMOS bytes stand for."""
    return {
        SECONDS: time.second,
        MINUTES: time.minute,
        HOURS: time.hour,
        WEEKDAY: time.isoweekday() % 7 + 1,
        DAY: time.day,
        MONTH: time.month,
        YEAR: time.year % 100,
        CENTURY: time.year // 100,
    }


def composed(fields: dict[int, int]) -> datetime:
    """The time those numbers mean; each that is out of range becomes the nearest that is not."""
    year = min(max(fields[CENTURY] * 100 + fields[YEAR], 1), 9000)
    month = min(max(fields[MONTH], 1), 12)
    last = (datetime(year + month // 12, month % 12 + 1, 1, tzinfo=timezone.utc) - timedelta(days=1)).day
    day = min(max(fields[DAY], 1), last)
    hour, minute, second = min(fields[HOURS], 23), min(fields[MINUTES], 59), min(fields[SECONDS], 59)
    return datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)


class Rtc:
    """The clock and 128 bytes of CMOS; IRQ 8 by ``irq``."""

    def __init__(self, clock: InstructionClock, irq: Callable[[bool], None], *, epoch: int, ram: int, cpus: int = 1):
        """``epoch``: seconds since 1970-01-01 UTC at which the machine starts."""
        self._clock = clock
        self._irq = irq
        self._index = 0
        self.nmi_disabled = False
        """Bit 7 of port 0x70: the guest has blocked NMI at the chipset."""
        self._cmos = bytearray(128)
        self._cmos[REG_A] = A_DIVIDER_32K | 6
        self._cmos[REG_B] = B_24H
        self._cmos[0x14] = 0x06
        self._cmos[0x5F] = cpus - 1
        for index, value in memory_bytes(ram).items():
            self._cmos[index] = value
        self._offset = epoch * NS_PER_SECOND
        """Nanoseconds since 1970 at the clock's zero, as the guest has set them."""
        self._flags = 0
        self._seen = clock.now
        """The moment up to which ``_flags`` is complete."""
        self._level = False
        self._frozen: dict[int, int] | None = None
        """The time shown while the clock stands still (SET, or the divider in reset)."""
        self._timer = clock.timer("rtc", lambda _deadline: self._update())

    def ports(self) -> Iterator[Range]:
        yield Range("rtc", RTC_PORT, 2, self._read, self._write)

    def time(self) -> datetime:
        """The time the clock has, in whatever zone the epoch meant."""
        if self._frozen is not None:
            return composed(self._frozen)
        return EPOCH + timedelta(seconds=self._second(self._clock.now))

    def _second(self, moment: int) -> int:
        return (self._offset + moment) // NS_PER_SECOND

    def _read(self, offset: int, _size: int) -> int:
        # The index register cannot be read on a PC.
        if offset == 0:
            return 0xFF
        index = self._index
        if index in TIME_BYTES:
            return self._encode_field(index, self._fields()[index])
        if index == REG_A:
            return self._cmos[REG_A] | (A_UIP if self._updating() else 0)
        if index == REG_C:
            return self._read_flags()
        return D_VRT if index == REG_D else self._cmos[index]

    def _write(self, offset: int, _size: int, value: int) -> None:
        if offset == 0:
            self._index = value & 0x7F
            self.nmi_disabled = bool(value & NMI_DISABLE)
        elif self._index in TIME_BYTES:
            self._set_time(self._index, value)
        elif self._index in (REG_A, REG_B):
            self._update()
            self._cmos[self._index] = value & ~A_UIP if self._index == REG_A else value
            self._run_or_stop()
            self._update()
        elif self._index not in (REG_C, REG_D):
            self._update()
            self._cmos[self._index] = value
            self._update()

    # The time as bytes.

    def _fields(self) -> dict[int, int]:
        return fields_of(self.time()) if self._frozen is None else self._frozen

    def _encode_field(self, index: int, value: int) -> int:
        if index == HOURS and not self._cmos[REG_B] & B_24H:
            return self._encode(value % 12 or 12) | (PM if value >= 12 else 0)
        return self._encode(value)

    def _decode_field(self, index: int, value: int) -> int:
        if index == HOURS and not self._cmos[REG_B] & B_24H:
            return self._decode(value & ~PM) % 12 + (12 if value & PM else 0)
        return self._decode(value)

    def _encode(self, value: int) -> int:
        return value if self._cmos[REG_B] & B_BINARY else value // 10 << 4 | value % 10

    def _decode(self, value: int) -> int:
        return value if self._cmos[REG_B] & B_BINARY else (value >> 4) * 10 + (value & 0xF)

    def _set_time(self, index: int, value: int) -> None:
        self._update()
        fields = self._fields() | {index: self._decode_field(index, value)}
        if self._frozen is not None:
            self._frozen = fields
        else:
            change = composed(fields) - self.time()
            self._offset += (change.days * DAY_SECONDS + change.seconds) * NS_PER_SECOND
        self._update()

    def _running(self) -> bool:
        return not self._cmos[REG_B] & B_SET and self._cmos[REG_A] & A_DIVIDER < 0x60

    def _run_or_stop(self) -> None:
        if self._running() and self._frozen is not None:
            since = composed(self._frozen) - EPOCH
            self._offset = (since.days * DAY_SECONDS + since.seconds) * NS_PER_SECOND - self._clock.now
            self._frozen = None
        elif not self._running() and self._frozen is None:
            self._frozen = fields_of(self.time())

    def _updating(self) -> bool:
        left = -(self._offset + self._clock.now) % NS_PER_SECOND
        return self._frozen is None and 0 < left <= UPDATE_NS

    # Flags and the interrupt.

    def _period(self) -> int:
        """The periodic rate as the divider of the crystal; 0: none (datasheet table 5)."""
        rate = self._cmos[REG_A] & A_RATE
        if rate == 0:
            return 0
        return 1 << (rate - 1 if rate > 2 else rate + 6)

    def _ticks(self, moment: int) -> int:
        period = self._period()
        return moment * CRYSTAL // NS_PER_SECOND // period if period else 0

    def _alarm_rings(self, after: int, until: int) -> bool:
        """Whether one of the seconds in (after, until] matches the alarm bytes."""
        alarm = [(at, self._cmos[byte]) for at, byte in ALARM_BYTES if self._cmos[byte] < DONT_CARE]
        for second in range(max(after, until - DAY_SECONDS) + 1, until + 1):
            time = {SECONDS: second % 60, MINUTES: second // 60 % 60, HOURS: second // 3600 % 24}
            if all(self._encode_field(at, time[at]) == value for at, value in alarm):
                return True
        return False

    def _collect(self) -> None:
        """Bring the flags up to now."""
        now, seen = self._clock.now, self._seen
        self._seen = now
        if self._ticks(now) != self._ticks(seen):
            self._flags |= PF
        before, after = self._second(seen), self._second(now)
        if self._frozen is None and after > before:
            self._flags |= UF
            if self._alarm_rings(before, after):
                self._flags |= AF

    def _update(self) -> None:
        """Flags, the line, and the next event, which is only needed for what is enabled."""
        self._collect()
        enabled = self._cmos[REG_B] & FLAGS
        level = bool(self._flags & enabled)
        if level != self._level:
            self._level = level
            self._irq(level)
        now = self._clock.now
        moments = []
        if enabled & B_PIE and self._period() and not level:
            moments.append(ceil_div((self._ticks(now) + 1) * self._period() * NS_PER_SECOND, CRYSTAL))
        if enabled & (B_AIE | B_UIE) and self._frozen is None and not level:
            moments.append((self._second(now) + 1) * NS_PER_SECOND - self._offset)
        if moments:
            self._timer.arm(min(moments))
        else:
            self._timer.cancel()

    def _read_flags(self) -> int:
        self._collect()
        value = self._flags | (C_IRQF if self._flags & self._cmos[REG_B] & FLAGS else 0)
        self._flags = 0
        self._update()
        return value
