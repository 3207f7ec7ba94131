"""The two buses: I/O ports and memory-mapped registers, each a set of ranges that lead to devices.

An access that nobody claims reads all ones, and a write there vanishes, as on an ISA bus with pull-ups. An access
wider than the device is split into the device's own width at rising addresses, as the chipset does (Intel SDM
volume 1, 19.3: a 16-bit port is two adjacent 8-bit ports).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from mmuemu.errors import UsageError

PORTS: Final = 0x1_0000
ONES: Final = {1: 0xFF, 2: 0xFFFF, 4: 0xFFFF_FFFF, 8: 0xFFFF_FFFF_FFFF_FFFF}
"""What an access of so many bytes reads where nothing answers."""


class Range(NamedTuple):
    """``size`` addresses from ``first`` that lead to one device."""

    name: str
    first: int
    size: int
    read: Callable[[int, int], int]
    """(offset in the range, bytes) -> value."""
    write: Callable[[int, int, int], None]
    """(offset in the range, bytes, value)."""
    widths: tuple[int, ...] = (1,)
    """Access sizes the device understands, the smallest first; others are split."""


class Access(NamedTuple):
    """One access as the trace callback sees it."""

    device: str | None
    """The range's name; None: nobody answered."""
    write: bool
    address: int
    size: int
    value: int


class Bus:
    """Ranges by address; no two may overlap."""

    sizes: tuple[int, ...] = (1, 2, 4, 8)

    def __init__(self) -> None:
        self.trace: Callable[[Access], None] | None = None
        self._ranges: list[Range] = []
        self._firsts: list[int] = []

    def claim(self, new: Range) -> None:
        """Add a range. Raises UsageError if it overlaps one that is there or has no addresses."""
        if new.size < 1 or new.first < 0:
            raise UsageError(f"{new.name}: an empty range on a bus")
        for old in self._ranges:
            if new.first < old.first + old.size and old.first < new.first + new.size:
                raise UsageError(f"{new.name} at {new.first:#x} overlaps {old.name} at {old.first:#x}")
        self._ranges.append(new)
        self._index()

    def release(self, name: str) -> None:
        """Take every range of that name off the bus."""
        self._ranges = [old for old in self._ranges if old.name != name]
        self._index()

    def ranges(self) -> Iterable[Range]:
        """All ranges, by address."""
        return tuple(self._ranges)

    def find(self, address: int) -> Range | None:
        """The range that holds ``address``."""
        index = bisect_right(self._firsts, address) - 1
        if index < 0:
            return None
        found = self._ranges[index]
        return found if address < found.first + found.size else None

    def read(self, address: int, size: int) -> int:
        """What ``size`` bytes at ``address`` read. Raises UsageError for a size the bus does not have."""
        device = self.find(address)
        if device is not None and size in device.widths and address + size <= device.first + device.size:
            value = device.read(address - device.first, size) & ONES[size]
        else:
            value = self._read(device, address, self._valid(address, size))
        if self.trace is not None:
            self.trace(Access(device.name if device else None, False, address, size, value))
        return value

    def write(self, address: int, size: int, value: int) -> None:
        """Write the low ``size`` bytes of ``value``. Raises UsageError for a size the bus does not have."""
        device = self.find(address)
        value &= ONES[self._valid(address, size)]
        if self.trace is not None:
            self.trace(Access(device.name if device else None, True, address, size, value))
        self._write(device, address, size, value)

    def _index(self) -> None:
        self._ranges.sort(key=lambda r: r.first)
        self._firsts = [old.first for old in self._ranges]

    def _valid(self, address: int, size: int) -> int:
        if size not in self.sizes:
            raise UsageError(f"a {type(self).__name__} access at {address:#x} of {size} bytes")
        return size

    def _step(self, device: Range | None, address: int, size: int) -> int:
        """The widest part of an access that can go to ``device`` whole."""
        if device is None:
            return 1
        room = device.first + device.size - address
        fitting = [width for width in device.widths if width <= min(size, room)]
        return fitting[-1] if fitting else 0

    def _read(self, device: Range | None, address: int, size: int) -> int:
        value = done = 0
        while done < size:
            at = address + done
            here = device if done == 0 else self.find(at)
            step = self._step(here, at, size - done)
            if here is None or step == 0:
                step = step or size - done
                part = (1 << 8 * step) - 1
            else:
                part = here.read(at - here.first, step) & ONES[step]
            value |= part << 8 * done
            done += step
        return value

    def _write(self, device: Range | None, address: int, size: int, value: int) -> None:
        done = 0
        while done < size:
            at = address + done
            here = device if done == 0 else self.find(at)
            step = self._step(here, at, size - done)
            if here is not None and step:
                here.write(at - here.first, step, value >> 8 * done & ONES[step])
            done += step or size - done


class PortBus(Bus):
    """The 65,536 I/O ports; accesses of 1, 2 and 4 bytes. An access that runs past the last port finds nobody there."""

    sizes = (1, 2, 4)

    def __init__(self) -> None:
        super().__init__()
        self._at: dict[int, Range] = {}

    def find(self, address: int) -> Range | None:
        return self._at.get(address)

    def claim(self, new: Range) -> None:
        if new.first + new.size > PORTS:
            raise UsageError(f"{new.name}: port {new.first + new.size - 1:#x} does not exist")
        super().claim(new)

    def _index(self) -> None:
        super()._index()
        self._at = {port: old for old in self._ranges for port in range(old.first, old.first + old.size)}


class MmioBus(Bus):
    """Device registers by physical address; accesses of 1, 2, 4 and 8 bytes."""
