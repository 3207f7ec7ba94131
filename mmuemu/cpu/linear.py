"""Linear memory as the CPU itself accesses it: descriptor tables, task state, the stacks of exceptions.

These are implicit supervisor accesses: they have supervisor rights whatever the CPL, and EFLAGS.AC does not
suspend SMAP for them (SDM volume 3, section 4.6.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.cpu.window import Q_CR0, Q_CR3
from mmuemu.mmu.walk import NON_CANONICAL
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import PAGE_MASK, PAGE_SIZE
from mmuemu.x86.registers import CR0_PG

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu

_MASK_64 = (1 << 64) - 1


class AccessFault(Exception):
    """An implicit access that was refused: #PF with its error code and address, or #SS/#GP for a bad address."""

    def __init__(self, vector: int, error_code: int, address: int = 0) -> None:
        super().__init__(vector, error_code, address)
        self.vector = vector
        self.error_code = error_code
        self.address = address


class LinearMemory:
    """Supervisor reads and writes by the paging state in a CPU's saved window.

    Physical addresses beyond RAM read as ones. Make a new one when the paging state may have changed.
    """

    __slots__ = ("_bytes", "_qwords", "_root", "_walk")

    def __init__(self, cpu: Cpu) -> None:
        q = cpu.window.q
        self._bytes = cpu.ram_bytes
        self._qwords = cpu.ram.qwords
        self._root = q[Q_CR3]
        self._walk = cpu.engine.walk_now() if q[Q_CR0] & CR0_PG else None

    def read(self, address: int, count: int, *, bad: int = Vector.GP) -> bytes:
        """``count`` bytes at ``address``; ``bad`` is the vector for an address that is not canonical."""
        if (address & PAGE_MASK) + count <= PAGE_SIZE:
            physical = self._translate(address & _MASK_64, 0, bad)
            return self._bytes[physical : physical + count].tobytes().ljust(count, b"\xff")
        parts = []
        for physical, size in self._pieces(address, count, 0, bad):
            parts.append(self._bytes[physical : physical + size].tobytes().ljust(size, b"\xff"))
        return b"".join(parts)

    def read_int(self, address: int, size: int, *, bad: int = Vector.GP) -> int:
        """A little-endian number of ``size`` bytes."""
        return int.from_bytes(self.read(address, size, bad=bad), "little")

    def write(self, address: int, data: bytes, *, bad: int = Vector.GP) -> None:
        """Store ``data`` at ``address``: all of it, or nothing when a part is refused."""
        done = 0
        for physical, size in self._pieces(address, len(data), 1, bad):
            if physical + size <= len(self._bytes):
                self._bytes[physical : physical + size] = data[done : done + size]
            done += size

    def _pieces(self, address: int, count: int, access: int, bad: int) -> list[tuple[int, int]]:
        """(physical, size) of each page's part, A and D bits set as the accesses set them."""
        pieces = []
        done = 0
        while done < count:
            here = (address + done) & _MASK_64
            size = min(PAGE_SIZE - (here & PAGE_MASK), count - done)
            pieces.append((self._translate(here, access, bad), size))
            done += size
        return pieces

    def _translate(self, address: int, access: int, bad: int) -> int:
        if self._walk is None:
            return address & 0xFFFF_FFFF
        updates: list[tuple[int, int]] = []
        found = self._walk(self._root, address, access, False, False, updates, None)
        for index, bits in updates:
            self._qwords[index] |= bits
        if found < 0:
            if found == NON_CANONICAL:
                raise AccessFault(bad, 0)
            raise AccessFault(Vector.PF, -1 - found, address)
        return (found & ~PAGE_MASK) | (address & PAGE_MASK)
