"""Page tables of four or five levels, kept as bytes in guest memory and edited there (SDM volume 3, section 4.5).

Nothing is remembered outside of those bytes: hardware sets A and D in them and a guest kernel may edit them
at any time, so every operation walks anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from mmuemu.errors import OutOfFrames
from mmuemu.memory.ram import ZERO_PAGE
from mmuemu.x86 import paging as x86
from mmuemu.x86.paging import ADDRESS_MASK, NX, PAGE_SIZE, PS, RW, US, A, D, P

if TYPE_CHECKING:
    from mmuemu.memory.frames import FrameAllocator
    from mmuemu.memory.kernel_half import KernelHalf

Release = Callable[[int, int, int], None]
"""Called with (entry, linear address, page size) for an entry that was just taken out of a table."""
Leaf = Callable[[int, int, int], "tuple[int, int]"]
"""Called with (linear address, entry, page size); the entry to leave here and the one to put into the clone."""

_SHIFT: Final = (0, 12, 21, 30, 39, 48)
"""By level: how far to shift a linear address to get the index into a table of that level."""
_LEVEL: Final = {PAGE_SIZE: 1, x86.SIZE_2M: 2, x86.SIZE_1G: 3}
_LARGE: Final = P | PS
_USER_TABLE: Final = P | RW | US
_KERNEL_TABLE: Final = P | RW
_ZERO_QUARTER: Final = bytes(1024)
_ZERO_PIECE: Final = bytes(128)


def _nothing(_entry: int, _la: int, _size: int) -> None:
    return None


class Mapping(NamedTuple):
    """What a linear address is mapped to: the base and size of its page and the entry that maps it.

    ``flags`` are the flag bits of the leaf with RW, US and NX combined over all levels as the processor does.
    """

    linear: int
    physical: int
    entry: int
    entry_address: int
    size: int
    flags: int


class PageTable:
    """One address space's tables. ``root`` is the physical address for CR3.

    A method that takes a linear address raises ValueError when it is not canonical.
    """

    __slots__ = (
        "__weakref__",
        "_bits",
        "_bytes",
        "_flip",
        "_owned",
        "_paired",
        "_q",
        "_user_bits",
        "frames",
        "kernel",
        "levels",
        "root",
    )

    def __init__(
        self,
        frames: FrameAllocator,
        root: int | None = None,
        levels: int = 4,
        *,
        kernel: KernelHalf | None = None,
    ) -> None:
        """Make empty tables, or edit those at ``root``, whose top table then stays its owner's.

        With ``kernel`` the upper half is the shared one; if that is isolated, :attr:`user_root` lies 4 KiB above
        :attr:`root`, which is 8 KiB aligned, and has the same user half (arch/x86/mm/pti.c). Raises OutOfFrames.
        """
        if levels not in (4, 5):
            raise ValueError(f"page tables have 4 or 5 levels, not {levels}")
        self.frames = frames
        self.levels = levels
        self.kernel = kernel
        self._q = frames.ram.qwords
        self._bytes = frames.ram.bytes
        self._bits = 12 + 9 * levels
        self._user_bits = self._bits - 1
        self._flip = ADDRESS_MASK if kernel is not None and kernel.inverts else 0
        self._owned = root is None
        self._paired = root is None and kernel is not None and kernel.trampoline is not None
        if root is None:
            root = frames.allocate_run(2, 2 * PAGE_SIZE) if self._paired else frames.allocate()
        self.root = root
        """Physical address of the top table: what CR3 holds in ring 0."""
        if kernel is not None:
            kernel.adopt(self)

    @property
    def user_root(self) -> int:
        """What CR3 holds in ring 3: :attr:`root` unless the kernel half is isolated."""
        return self.root + PAGE_SIZE if self._paired else self.root

    def kept(self, entry: int) -> int:
        """A leaf entry as it stands in a table for one as everybody means it, and the other way round.

        They differ where the entry is neither present nor zero and this table keeps such frame numbers inverted: then
        they mean an address beyond all memory to a processor that follows them nevertheless (L1TF).
        """
        return entry ^ self._flip if entry and not entry & P else entry

    # One address

    def _check(self, la: int) -> int:
        """The address without its sign extension."""
        top = la >> (self._bits - 1)
        if top and top != (1 << (65 - self._bits)) - 1:
            raise ValueError(f"linear address {la:#x} is not canonical")
        return la & ((1 << self._bits) - 1)

    def _extend(self, la: int) -> int:
        """The canonical address for one without sign extension."""
        return la - (1 << self._bits) & ((1 << 64) - 1) if la >> (self._bits - 1) else la

    def _slot(self, la: int, level: int) -> int:
        """Index into qwords of the level-``level`` entry for ``la``, its tables made as needed.

        Raises ValueError when a larger page is in the way, OutOfFrames with the tables as before.
        """
        q = self._q
        la = self._check(la)
        table = self.root
        for depth in range(self.levels, level, -1):
            slot = (table >> 3) + (la >> _SHIFT[depth] & 511)
            entry = q[slot]
            if not entry & P:
                entry = self._grow(slot, la, depth)
            elif entry & PS and depth <= 3:
                raise ValueError(f"{self._extend(la):#x} lies in a page of {1 << _SHIFT[depth]:#x} bytes")
            table = entry & ADDRESS_MASK
        return (table >> 3) + (la >> _SHIFT[level] & 511)

    def _grow(self, slot: int, la: int, depth: int) -> int:
        """Hang an empty table under the entry at ``slot``; the new entry."""
        upper = la >> (self._bits - 1)
        try:
            table = self.frames.allocate()
        except OutOfFrames:
            self._prune(la)
            raise
        entry = table | (_KERNEL_TABLE if upper else _USER_TABLE)
        self._hang(slot, entry, depth)
        if upper and depth == self.levels and self.kernel is not None:
            self.kernel.publish(slot & 511, entry)
        return entry

    def _hang(self, slot: int, entry: int, depth: int) -> None:
        """Write the entry of a table: every change of a top entry comes here.

        With two roots the user's gets it too, and the kernel's becomes no-execute (``__pti_set_user_pgtbl``).
        """
        if not entry:
            self.frames.ram.tables_gone += 1
        if self._paired and depth == self.levels and slot & 511 < 256:
            self._q[slot + 512] = entry
            entry |= NX if entry else 0
        self._q[slot] = entry

    def map(self, la: int, pa: int, flags: int, size: int = PAGE_SIZE) -> None:
        """Map the page at ``la`` to physical ``pa`` with the leaf's ``flags`` (PS is added for large pages).

        Raises ValueError on misalignment, a page size there is none of, missing P, or when something is
        mapped there already; OutOfFrames.
        """
        level = _LEVEL.get(size, 0)
        if not level or (la | pa) & (size - 1) or pa & ~ADDRESS_MASK or flags & (ADDRESS_MASK ^ x86.PAT_LARGE):
            raise ValueError(f"cannot map {la:#x} to {pa:#x} as a page of {size:#x} bytes, flags {flags:#x}")
        if not flags & P or (level == 1 and flags & x86.PAT_LARGE):
            raise ValueError(f"no flags of a present page of {size:#x} bytes: {flags:#x}")
        slot = self._slot(la, level)
        old = self._q[slot]
        if old & P and level > 1 and not old & PS and self._is_empty(old & ADDRESS_MASK):
            self._hang(slot, 0, level)
            self.frames.release(old & ADDRESS_MASK)
        elif old:
            raise ValueError(f"{la:#x} is mapped already (entry {old:#x})")
        self._q[slot] = pa | flags | (PS if level > 1 else 0)

    def map_page(self, la: int, entry: int) -> None:
        """Write the complete 4 KiB ``entry`` for ``la`` over whatever entry is there, making tables as needed.

        This is the path of demand paging. Raises ValueError when a larger page is in the way; OutOfFrames.
        """
        q = self._q
        if not la >> self._user_bits:
            upper = q[(self.root >> 3) + (la >> self._user_bits - 8)]
            if upper & P and self._user_bits == 56:
                upper = q[((upper & ADDRESS_MASK) >> 3) + (la >> 39 & 511)]
            if upper & P:
                middle = q[((upper & ADDRESS_MASK) >> 3) + (la >> 30 & 511)]
                if middle & _LARGE == P:
                    lower = q[((middle & ADDRESS_MASK) >> 3) + (la >> 21 & 511)]
                    if lower & _LARGE == P:
                        q[((lower & ADDRESS_MASK) >> 3) + (la >> 12 & 511)] = entry if entry & P else self.kept(entry)
                        return
        q[self._slot(la, 1)] = self.kept(entry)

    def entry_address(self, la: int) -> int:
        """Physical address of the 4 KiB entry for ``la``; -1 without a table for it or within a larger page."""
        q = self._q
        if not la >> self._user_bits:
            entry = q[(self.root >> 3) + (la >> self._user_bits - 8)]
            if entry & P and self._user_bits == 56:
                entry = q[((entry & ADDRESS_MASK) >> 3) + (la >> 39 & 511)]
        else:
            la = self._check(la)
            entry = self.root | P
            for depth in range(self.levels, 3, -1):
                if entry & P:
                    entry = q[((entry & ADDRESS_MASK) >> 3) + (la >> _SHIFT[depth] & 511)]
        if entry & P:
            entry = q[((entry & ADDRESS_MASK) >> 3) + (la >> 30 & 511)]
            if entry & _LARGE == P:
                entry = q[((entry & ADDRESS_MASK) >> 3) + (la >> 21 & 511)]
                if entry & _LARGE == P:
                    return (entry & ADDRESS_MASK) + (la >> 9 & 0xFF8)
        return -1

    def lookup(self, la: int) -> Mapping | None:
        """The present page ``la`` lies in, or None."""
        bits = self._check(la)
        table = self.root
        combined = US | RW
        never = 0
        for depth in range(self.levels, 0, -1):
            address = table + (bits >> _SHIFT[depth] - 3 & 0xFF8)
            entry = self._q[address >> 3]
            if not entry & P:
                return None
            combined &= entry
            never |= entry & NX
            if depth == 1 or (entry & PS and depth <= 3):
                size = 1 << _SHIFT[depth]
                flags = (entry & x86.FLAGS_MASK & ~(RW | US)) | combined | never
                if depth > 1:
                    flags |= entry & x86.PAT_LARGE
                return Mapping(la & -size, entry & ADDRESS_MASK & -size, entry, address, size, flags)
            table = entry & ADDRESS_MASK
        raise AssertionError("the last level always returns")

    def unmap(self, la: int) -> int:
        """Take out the page ``la`` lies in, whatever its size; its old entry (0: there was none)."""
        bits = self._check(la)
        table = self.root
        for depth in range(self.levels, 0, -1):
            slot = (table >> 3) + (bits >> _SHIFT[depth] & 511)
            entry = self._q[slot]
            if depth == 1 or (entry & (P | PS) == P | PS and depth <= 3):
                if entry:
                    self._q[slot] = 0
                    self._prune(bits)
                return self.kept(entry) if depth == 1 else entry
            if not entry & P:
                return 0
            table = entry & ADDRESS_MASK
        raise AssertionError("the last level always returns")

    def protect(self, la: int, flags: int) -> bool:
        """Give the present page ``la`` lies in the leaf ``flags``, keeping its frame, size, A and D.

        Returns whether the entry changed.
        """
        found = self.lookup(la)
        if found is None:
            return False
        kept = ADDRESS_MASK | A | D | (PS if found.size > PAGE_SIZE else 0)
        entry = (found.entry & kept) | (flags & ~kept)
        self._q[found.entry_address >> 3] = entry
        return entry != found.entry

    # Empty tables

    def _is_empty(self, table: int) -> bool:
        return bytes(self._bytes[table : table + PAGE_SIZE]) == ZERO_PAGE

    def _prune(self, la: int) -> None:
        """Free the tables on the path to ``la`` (no sign extension) that have become empty, from below."""
        path = []
        table = self.root
        for depth in range(self.levels, 1, -1):
            slot = (table >> 3) + (la >> _SHIFT[depth] & 511)
            entry = self._q[slot]
            if not entry & P or (entry & PS and depth <= 3):
                break
            table = entry & ADDRESS_MASK
            path.append((slot, table, depth))
        if self.kernel is not None and la >> (self._bits - 1):
            path = path[1:]  # the shared tables directly under the root stay
        for slot, table, depth in reversed(path):
            if not self._is_empty(table):
                break
            self._hang(slot, 0, depth)
            self.frames.release(table)

    # Ranges

    def _spans(self, start: int, end: int) -> list[tuple[int, int]]:
        """The canonical parts of ``[start, end)`` without sign extension. Raises ValueError on misalignment."""
        if (start | end) & (PAGE_SIZE - 1) or not 0 <= start <= end <= 1 << 64:
            raise ValueError(f"no range of pages: {start:#x} to {end:#x}")
        half = 1 << (self._bits - 1)
        away = (1 << 64) - 2 * half
        spans = [(start, min(end, half)), (max(start - away, half), end - away)]
        return [span for span in spans if span[0] < span[1]]

    def _live(self, low: int, high: int) -> list[tuple[int, int]]:
        """(index, entry) of the non-zero words among ``qwords[low:high]``; empty pieces are skipped by comparing."""
        data = bytes(self._bytes[low << 3 : high << 3])
        size = len(data)
        if data == ZERO_PAGE[:size]:
            return []
        q = self._q
        found: list[tuple[int, int]] = []
        for quarter in range(0, size, 1024):
            if data[quarter : quarter + 1024] == _ZERO_QUARTER:
                continue
            for piece in range(quarter, min(quarter + 1024, size), 128):
                if data[piece : piece + 128] != _ZERO_PIECE:
                    start = low + (piece >> 3)
                    words = q[start : min(start + 16, high)].tolist()
                    found += [pair for pair in enumerate(words, start) if pair[1]]
        return found

    def _entries(self, table: int, depth: int, base: int, start: int, end: int) -> list[tuple[int, int, int]]:
        """(index, entry, first linear address) of a table's non-zero entries for ``[start, end)``.

        A leaf's frame number is as everybody means it (:meth:`kept`).
        """
        shift = _SHIFT[depth]
        first = table >> 3
        low = start - base >> shift if start > base else 0
        high = (end - base - 1 >> shift) + 1
        live = self._live(first + low, first + (high if high < 512 else 512))
        if self._flip and depth == 1:
            live = [(slot, self.kept(entry)) for slot, entry in live]
        return [(slot, entry, base + (slot - first << shift)) for slot, entry in live]

    def _only_table(self, start: int, end: int) -> int:
        """The table that holds all entries for ``[start, end)``, the short way for a few pages; negative: none does."""
        if start >> 21 != end - 1 >> 21 or start >> self._user_bits or (start | end) & (PAGE_SIZE - 1) or start >= end:
            return -1
        return self.entry_address(start) & -PAGE_SIZE

    def unmap_range(self, start: int, end: int, release: Release = _nothing) -> None:
        """Take out every non-zero entry for ``[start, end)``, present or not, and call ``release`` for each.

        Absent stretches are skipped at the highest level; large pages that stick out are split (OutOfFrames).
        """
        table = self._only_table(start, end)
        if table >= 0:
            self._unmap(table, 1, start & -x86.SIZE_2M, start, end, release)
            self._prune(start)
            return
        for low, high in self._spans(start, end):
            self._unmap(self.root, self.levels, 0, low, high, release)

    def _unmap(self, table: int, depth: int, base: int, start: int, end: int, release: Release) -> None:
        q = self._q
        size = 1 << _SHIFT[depth]
        for slot, entry, la in self._entries(table, depth, base, start, end):
            whole = start <= la and la + size <= end
            if depth == 1:
                q[slot] = 0
                release(entry, self._extend(la), size)
            elif not entry & P:
                if whole:
                    q[slot] = 0
            elif entry & PS and depth <= 3 and whole:
                q[slot] = 0
                release(entry, self._extend(la), size)
            else:
                if entry & PS and depth <= 3:
                    entry = self._split(slot, entry, depth, la)
                lower = entry & ADDRESS_MASK
                self._unmap(lower, depth - 1, la, start, end, release)
                keep = depth == self.levels and self.kernel is not None and la >> (self._bits - 1)
                if not keep and (whole or self._is_empty(lower)):
                    self._hang(slot, 0, depth)
                    self.frames.release(lower)

    def _split(self, slot: int, entry: int, depth: int, la: int) -> int:
        """Replace a large page's entry by a table of pages one size smaller that maps the same; the new entry."""
        table = self.frames.allocate()
        step = 1 << _SHIFT[depth - 1]
        first = entry & ADDRESS_MASK & ~x86.PAT_LARGE
        flags = entry & x86.FLAGS_MASK
        if depth == 2:
            flags = flags & ~PS | (x86.PAT_4K if entry & x86.PAT_LARGE else 0)
        else:
            flags |= entry & x86.PAT_LARGE
        for index in range(512):
            self._q[(table >> 3) + index] = first + index * step | flags
        new = table | (_KERNEL_TABLE if la >> (self._bits - 1) else _USER_TABLE)
        self._q[slot] = new
        return new

    def protect_range(self, start: int, end: int, set: int = 0, clear: int = 0) -> bool:
        """Clear, then set, flag bits in every non-zero leaf entry of ``[start, end)``, present or not.

        Returns whether an entry that was present changed (so that its translation must be flushed). Large
        pages that stick out are split when they would change (OutOfFrames). Raises ValueError when P is
        cleared in a large page: nobody could find its frame again.
        """
        table = self._only_table(start, end)
        if table >= 0:
            return self._protect(table, 1, start & -x86.SIZE_2M, (start, end), set, clear)
        changed = False
        for low, high in self._spans(start, end):
            changed |= self._protect(self.root, self.levels, 0, (low, high), set, clear)
        return changed

    def _protect(self, table: int, depth: int, base: int, span: tuple[int, int], set: int, clear: int) -> bool:
        changed = False
        size = 1 << _SHIFT[depth]
        for slot, entry, la in self._entries(table, depth, base, *span):
            large = depth > 1 and entry & PS and depth <= 3
            if depth == 1 or large:
                new = entry & ~clear | set
                if new == entry or (large and not entry & P):
                    continue
                if large and clear & P and not set & P:
                    raise ValueError(f"a page of {size:#x} bytes at {self._extend(la):#x} cannot lose P")
                if span[0] <= la and la + size <= span[1]:
                    self._q[slot] = self.kept(new) if depth == 1 else new
                    changed |= bool(entry & P)
                    continue
                entry = self._split(slot, entry, depth, la)
            if entry & P:
                changed |= self._protect(entry & ADDRESS_MASK, depth - 1, la, span, set, clear)
        return changed

    def iterate(self, start: int = 0, end: int = 1 << 64, *, absent: bool = False) -> Iterator[tuple[int, int, int]]:
        """(linear address, entry, page size) of the present pages that touch ``[start, end)``, in address order.

        With ``absent`` also the 4 KiB entries that are not present but not zero. The tables may be edited
        meanwhile: each table is read when the iteration reaches it.
        """
        for low, high in self._spans(start, end):
            yield from self._iterate(self.root, self.levels, 0, low, high, absent)

    def _iterate(
        self, table: int, depth: int, base: int, start: int, end: int, absent: bool
    ) -> Iterator[tuple[int, int, int]]:
        size = 1 << _SHIFT[depth]
        for _, entry, la in self._entries(table, depth, base, start, end):
            if depth == 1:
                if absent or entry & P:
                    yield self._extend(la), entry, size
            elif entry & P:
                if entry & PS and depth <= 3:
                    yield self._extend(la), entry, size
                else:
                    yield from self._iterate(entry & ADDRESS_MASK, depth - 1, la, start, end, absent)

    # Whole address spaces

    def clone(self, leaf: Leaf | None = None, undo: Release = _nothing, *, share_upper: bool = True) -> PageTable:
        """New tables with the same user half, and the same shared upper half unless ``share_upper`` is false.

        ``leaf`` is asked for every non-zero leaf entry and may take references and write-protect: it returns
        the entry to leave here and the one for the clone (0 for none); without it entries are copied as they
        are. On OutOfFrames the half-made clone is taken down again, with ``undo`` called for its leaf
        entries.
        """
        twin = PageTable(self.frames, levels=self.levels, kernel=self.kernel if share_upper else None)
        try:
            self._copy(twin, self.root, twin.root, self.levels, 0, leaf)
        except OutOfFrames:
            twin.free(undo)
            raise
        return twin

    def _copy(self, twin: PageTable, source: int, target: int, depth: int, base: int, leaf: Leaf | None) -> None:
        q = self._q
        half = 1 << (self._bits - 1)
        size = 1 << _SHIFT[depth]
        for slot, entry, la in self._entries(source, depth, base, 0, half):
            other = (target >> 3) + (slot & 511)
            if depth == 1 or (entry & (P | PS) == P | PS and depth <= 3):
                mine, its = (entry, entry) if leaf is None else leaf(la, entry, size)
                q[other] = its if its & P else twin.kept(its)
                if mine != entry:
                    q[slot] = mine if mine & P else self.kept(mine)
            elif entry & P:
                below = twin.frames.allocate()
                twin._hang(other, below | _USER_TABLE, depth)
                self._copy(twin, entry & ADDRESS_MASK, below, depth - 1, la, leaf)

    def free(self, release: Release = _nothing) -> None:
        """Give all tables back, calling ``release`` for every leaf entry; the shared upper half stays."""
        half = 1 << (self._bits - 1)
        if self.kernel is not None:
            self.kernel.forget(self)
        self.unmap_range(0, half, release)
        if self.kernel is None:
            self.unmap_range((1 << 64) - half, 1 << 64, release)
        if self._owned:
            self.frames.release(self.root)
            if self._paired:
                self.frames.release(self.user_root)
            self._owned = False
