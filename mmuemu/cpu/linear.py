"""Linear memory as the CPU itself accesses it: descriptor tables, task state, the stacks of exceptions.

These are implicit supervisor accesses: they have supervisor rights whatever the CPL, and EFLAGS.AC does not
suspend SMAP for them (SDM volume 3, section 4.6.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from mmuemu.cpu.window import Q_CR0, Q_CR3, Q_CR4, Q_EFER, Q_PKRU
from mmuemu.mmu.state import PagingState
from mmuemu.mmu.walk import NON_CANONICAL, PageWalker
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import PAGE_MASK, PAGE_SIZE
from mmuemu.x86.registers import CR0_PG, EFER_LMA

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu

_MASK_64: Final = (1 << 64) - 1
_LEVELS_KEPT: Final = 4
_MOST_KEPT: Final = 4096
_MOST_SPACES: Final = 32


class AccessFault(Exception):
    """An implicit access that was refused: #PF with its error code and address, or #SS/#GP for a bad address."""

    def __init__(self, vector: int, error_code: int, address: int = 0) -> None:
        super().__init__(vector, error_code, address)
        self.vector = vector
        self.error_code = error_code
        self.address = address


class LinearMemory:
    """Supervisor (or ``user``) reads and writes by the paging state in a CPU's saved window.

    Physical addresses beyond RAM read as ones. Call :meth:`sync` when the window has been saved anew. ``peek`` makes it
    a debugger's view: accesses as with EFLAGS.AC = 1, no accessed bits set.

    A translation is kept, by root, with the entries it was made from and used again while they read the same: the
    result is that of a walk, for a quarter of its price. Where the CPU has a TLB model, addresses are translated
    through it. ``live`` goes by the engine's own state in place of the saved one, for hooks.
    """

    __slots__ = ("_bytes", "_cpu", "_kept", "_peek", "_q", "_qwords", "_root", "_spaces", "_user", "_walk")

    def __init__(self, cpu: Cpu, *, peek: bool = False, user: bool = False, live: bool = False) -> None:
        self._cpu = cpu
        self._q = cpu.window.live_q if live else cpu.window.q
        self._bytes = cpu.ram_bytes
        self._qwords = cpu.ram.qwords
        self._peek = peek
        self._user = user
        self._root = 0
        self._walk: PageWalker | None = None
        self._spaces: dict[tuple[int, PageWalker | None], dict[int, tuple[int, ...]]] = {}
        self._kept: dict[int, tuple[int, ...]] = {}

    def sync(self) -> LinearMemory:
        """Take the paging state from the saved window; returns itself."""
        q = self._q
        root = q[Q_CR3]
        walk = self._walk_now() if q[Q_CR0] & CR0_PG else None
        if root != self._root or walk is not self._walk:
            if len(self._spaces) >= _MOST_SPACES:
                self._spaces.clear()
            self._kept = self._spaces.setdefault((root, walk), {})
            self._root, self._walk = root, walk
        return self

    def _walk_now(self) -> PageWalker:
        cpu = self._cpu
        if cpu.tlb is None:
            return cpu.engine.walk_now(self._q)
        q = self._q
        pkru = q[Q_PKRU] & 0xFFFF_FFFF
        state = PagingState(q[Q_CR3], q[Q_CR0], q[Q_CR4], q[Q_EFER], pkru=pkru, pkrs=cpu.pkrs)
        return cpu.tlb.looker(state) if self._peek else cpu.tlb.walker(state)

    def read(self, address: int, count: int, *, bad: int = Vector.GP) -> bytes:
        """``count`` bytes at ``address``; ``bad`` is the vector for an address that is not canonical."""
        if (address & PAGE_MASK) + count <= PAGE_SIZE:
            physical = self._translate(address & _MASK_64, 0, bad)
            return self._bytes[physical : physical + count].tobytes().ljust(count, b"\xff")
        parts = []
        for physical, size in self._pieces(address, count, 0, bad):
            parts.append(self._bytes[physical : physical + size].tobytes().ljust(size, b"\xff"))
        return b"".join(parts)

    def available(self, address: int, count: int) -> bytes:
        """Up to ``count`` bytes at ``address``, stopping at the first that cannot be read or is not RAM."""
        out = b""
        try:
            if (address & PAGE_MASK) + count <= PAGE_SIZE:
                physical = self._translate(address & _MASK_64, 0, Vector.GP)
                return self._bytes[physical : physical + count].tobytes()
            for physical, size in self._each(address, count, 0, Vector.GP):
                piece = self._bytes[physical : physical + size].tobytes()
                out += piece
                if len(piece) < size:
                    break
        except AccessFault:
            pass
        return out

    def physical(self, address: int) -> int | None:
        """Where ``address`` leads, or None."""
        try:
            return self._translate(address & _MASK_64, 0, Vector.GP)
        except AccessFault:
            return None

    def kept(self, address: int, access: int) -> tuple[int, ...] | None:
        """Frame, and number and content of the entries that lead to it, of a translation that is kept by now."""
        self._translate(address, access, Vector.GP)
        return self._kept.get(address >> 12 << 1 | access)

    def read_int(self, address: int, size: int, *, bad: int = Vector.GP) -> int:
        """A little-endian number of ``size`` bytes."""
        return int.from_bytes(self.read(address, size, bad=bad), "little")

    def qword(self, address: int) -> int:
        """The 8 bytes at ``address``: :meth:`read_int`, quicker where they are aligned."""
        kept = self._kept.get(address >> 12 << 1)
        if kept is not None and not address & 7:
            frame, a, entry_a, b, entry_b, c, entry_c, d, entry_d = kept
            words = self._qwords
            if words[a] == entry_a and words[b] == entry_b and words[c] == entry_c and words[d] == entry_d:
                return words[(frame | address & PAGE_MASK) >> 3]
        return self.read_int(address, 8)

    def write(self, address: int, data: bytes, *, bad: int = Vector.GP) -> None:
        """Store ``data`` at ``address``: all of it, or nothing when a part is refused."""
        count = len(data)
        if (address & PAGE_MASK) + count <= PAGE_SIZE:
            physical = self._translate(address & _MASK_64, 1, bad)
            if physical + count <= len(self._bytes):
                self._bytes[physical : physical + count] = data
            return
        done = 0
        for physical, size in self._pieces(address, count, 1, bad):
            if physical + size <= len(self._bytes):
                self._bytes[physical : physical + size] = data[done : done + size]
            done += size

    def _pieces(self, address: int, count: int, access: int, bad: int) -> list[tuple[int, int]]:
        """(physical, size) of each page's part, A and D bits set as the accesses set them."""
        return list(self._each(address, count, access, bad))

    def _each(self, address: int, count: int, access: int, bad: int) -> Iterator[tuple[int, int]]:
        done = 0
        while done < count:
            here = (address + done) & _MASK_64
            size = min(PAGE_SIZE - (here & PAGE_MASK), count - done)
            yield self._translate(here, access, bad), size
            done += size

    def _translate(self, address: int, access: int, bad: int) -> int:
        kept = self._kept.get(address >> 12 << 1 | access)
        if kept is not None:
            frame, a, entry_a, b, entry_b, c, entry_c, d, entry_d = kept
            words = self._qwords
            if words[a] == entry_a and words[b] == entry_b and words[c] == entry_c and words[d] == entry_d:
                return frame | address & PAGE_MASK
        return self._walked(address, access, bad)

    def _walked(self, address: int, access: int, bad: int) -> int:
        if self._walk is None:
            return address & 0xFFFF_FFFF
        updates: list[tuple[int, int]] = []
        trace: list[tuple[int, int, int]] = []
        found = self._walk(self._root, address, access, self._user, self._peek, updates, trace)
        if not self._peek:
            for index, bits in updates:
                self._qwords[index] |= bits
        if found < 0:
            if found == NON_CANONICAL:
                raise AccessFault(bad, 0)
            raise AccessFault(Vector.PF, -1 - found, address)
        frame = found & ~PAGE_MASK
        plain = self._cpu.tlb is None and frame < len(self._bytes)
        if plain and not updates and len(trace) <= _LEVELS_KEPT and self._q[Q_EFER] & EFER_LMA:
            self._keep(address >> 12 << 1 | access, frame, trace)
        return frame | address & PAGE_MASK

    def _keep(self, key: int, frame: int, trace: list[tuple[int, int, int]]) -> None:
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        entries = [*trace, *[trace[-1]] * (_LEVELS_KEPT - len(trace))]
        self._kept[key] = (frame, *(number for _, index, entry in entries for number in (index, entry)))
