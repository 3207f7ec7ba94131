"""Whether processes share what they are to share and nothing else, found by walking every live page table by hand.

Nothing of :class:`mmuemu.memory.page_table.PageTable` is used but the roots: the entries are read as words of RAM.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from mmuemu.kernel.address_space import AddressSpace
from mmuemu.kernel.faults import PROTNONE
from mmuemu.kernel.half import STACK_PAGES
from mmuemu.kernel.kernel import Kernel
from mmuemu.kernel.page_cache import FileMapping
from mmuemu.kernel.vma import VM_EXEC, VM_MAYSHARE, VM_WRITE, Vma
from mmuemu.memory.page_table import PageTable
from mmuemu.x86.paging import ADDRESS_MASK, NX, PS, RW, US, A, P


@dataclass(frozen=True)
class Leaf:
    """One entry of the last level, present or kept for PROT_NONE."""

    space: AddressSpace
    linear: int
    entry: int
    vma: Vma

    @property
    def frame(self) -> int:
        return self.entry & ADDRESS_MASK

    @property
    def cached(self) -> bool:
        """Whether the page is the page cache's, not a private copy."""
        mapping = self.vma.mapping
        return mapping is not None and mapping.pages.get(self.vma.page_index(self.linear)) == self.frame

    def __str__(self) -> str:
        return f"{self.linear:#x} -> {self.entry:#x} in {self.vma!r}"


def _words(kernel: Kernel, table: int) -> Iterator[tuple[int, int]]:
    for index, entry in enumerate(kernel.ram.qwords[table >> 3 : (table >> 3) + 512].tolist()):
        if entry:
            yield index, entry


def spaces(kernel: Kernel) -> list[AddressSpace]:
    """Every live address space; the first process's stays to be looked at when it has ended."""
    found = {task.mm: None for task in kernel.tasks.values()}
    if kernel.main is not None and kernel.main.leader is not None:
        found[kernel.main.leader.mm] = None
    return [space for space in found if space.page_table in kernel.memory.half._live]


def mappings(kernel: Kernel) -> list[FileMapping]:
    """Every file that is mapped somewhere or whose pages are kept, and every System V segment."""
    found = {vma.mapping: None for space in spaces(kernel) for vma in space.vmas if vma.mapping is not None}
    kept = dict.fromkeys(kernel.idle_pages.mappings())
    return list(found | kept | {segment.pages: None for segment in kernel.ipc.shm.ids})


def user_half(kernel: Kernel, space: AddressSpace, tables: Counter[int]) -> Iterator[Leaf]:
    """The leaves of one user half; its tables are counted in ``tables``."""
    top = space.page_table.levels
    root = space.page_table.root
    tables[root] += 1
    todo = [(root, top, 0)]
    while todo:
        table, level, base = todo.pop()
        for index, entry in _words(kernel, table):
            if level == top and index >= 256:
                continue
            linear = base + (index << 12 + 9 * (level - 1))
            if level > 1:
                assert entry & (P | RW | US | PS) == P | RW | US, f"table entry {entry:#x} at {linear:#x}"
                tables[entry & ADDRESS_MASK] += 1
                todo.append((entry & ADDRESS_MASK, level - 1, linear))
                continue
            vma = space.vmas.find(linear)
            assert vma is not None, f"a page outside of every area: {linear:#x} -> {entry:#x}"
            if kernel.memory.half.inverts and not entry & P:
                entry ^= ADDRESS_MASK
            yield Leaf(space, linear, entry, vma)


def check_rights(kernel: Kernel, leaf: Leaf) -> None:
    """No entry allows more than its area, and only exclusive or shared pages can be written."""
    entry, flags = leaf.entry, leaf.vma.flags
    assert entry & P or entry & PROTNONE, f"neither present nor kept: {leaf}"
    if not entry & P:
        return
    assert entry & US, f"no user page: {leaf}"
    assert not entry & RW or flags & VM_WRITE, f"writable against its area: {leaf}"
    assert entry & NX or flags & VM_EXEC, f"executable against its area: {leaf}"
    if entry & RW and not flags & VM_MAYSHARE:
        assert kernel.frames.refcount(leaf.frame) == 1, f"private, writable and not alone: {leaf}"


def check_shared(kernel: Kernel, frame: int, leaves: list[Leaf]) -> None:
    """A frame that several entries map: each of them for a good reason."""
    if frame == kernel.frames.zero_frame:
        assert not any(leaf.entry & RW for leaf in leaves), "the zero frame is writable"
        return
    cached = [leaf for leaf in leaves if leaf.cached]
    if cached:
        assert len(cached) == len(leaves), f"a cached page is also private memory: {[str(leaf) for leaf in leaves]}"
        assert len({(leaf.vma.mapping, leaf.vma.page_index(leaf.linear)) for leaf in cached}) == 1
        assert not any(leaf.entry & RW for leaf in leaves if not leaf.vma.flags & VM_MAYSHARE)
        return
    assert len({leaf.space for leaf in leaves}) == len(leaves), f"twice in one space: {leaves[0]}"
    assert not any(leaf.vma.flags & VM_MAYSHARE for leaf in leaves), f"shared memory outside of its cache: {leaves[0]}"
    assert not any(leaf.entry & P and leaf.entry & RW for leaf in leaves), f"writable by several: {leaves[0]}"


def _half(kernel: Kernel, root: int, upper: bool) -> list[int]:
    """Entries of one half of a top table, accessed or not."""
    first = (root >> 3) + 256 * upper
    return [entry & ~A for entry in kernel.ram.qwords[first : first + 256].tolist()]


def kernel_half(kernel: Kernel) -> Counter[int]:
    """Check the upper half in every root, ring 3's with page-table isolation too, and count its frames."""
    half = kernel.memory.half
    counts: Counter[int] = Counter()
    _check_upper(kernel, half.table, counts)
    roots = [(space.page_table.root, half.table.root) for space in spaces(kernel)]
    if half.trampoline is not None:
        counts[half.table.user_root] += 1
        inside: Counter[int] = Counter()
        _check_upper(kernel, half.trampoline, inside)
        counts.update(frame for frame in inside if frame not in counts)
        for space in spaces(kernel):
            table = space.page_table
            counts[table.user_root] += 1
            of_ring_3 = _half(kernel, table.user_root, False)
            # No-execute for the kernel.
            assert _half(kernel, table.root, False) == [entry and entry | NX for entry in of_ring_3], "two user halves"
            roots.append((table.user_root, half.trampoline.root))
    for root, original in roots:
        assert _half(kernel, root, True) == _half(kernel, original, True), "another kernel half"
    return counts


def _check_upper(kernel: Kernel, table: PageTable, counts: Counter[int]) -> None:
    """Check the upper half of ``table``, which has no lower one, and count its frames."""
    counts[table.root] += 1
    assert not any(_half(kernel, table.root, False))
    direct = kernel.memory.layout.direct_map
    top = table.levels
    sign = (1 << 64) - (1 << 12 + 9 * top)
    todo = [
        (entry & ADDRESS_MASK, top - 1, index << 12 + 9 * (top - 1) | sign, entry)
        for index, entry in enumerate(_half(kernel, table.root, True), 256)
        if entry
    ]
    for below, level, base, parent in todo:
        assert parent & (P | US) == P, f"user rights in the kernel half: {parent:#x} at {base:#x}"
        counts[below] += 1
        for index, entry in _words(kernel, below):
            linear = base + (index << 12 + 9 * (level - 1))
            assert entry & (P | US) == P, f"user rights in the kernel half: {entry:#x} at {linear:#x}"
            assert not entry & RW or entry & NX or (level > 1 and not entry & PS), f"W and X at {linear:#x}"
            if level > 1 and not entry & PS:
                todo.append((entry & ADDRESS_MASK, level - 1, linear, entry))
            elif not direct <= linear < direct + kernel.ram.size:
                counts[entry & ADDRESS_MASK] += 1


def check(kernel: Kernel) -> int:
    """Prove the isolation of everything that lives now; how many frames several processes map."""
    expected = kernel_half(kernel)
    assert len(kernel.tasks) * STACK_PAGES <= len(expected)
    tables: Counter[int] = Counter()
    users: defaultdict[int, list[Leaf]] = defaultdict(list)
    for space in spaces(kernel):
        anon = file = 0
        for leaf in user_half(kernel, space, tables):
            check_rights(kernel, leaf)
            users[leaf.frame].append(leaf)
            file += leaf.cached
            anon += not leaf.cached and leaf.frame != kernel.frames.zero_frame
        assert (space.anon_pages, space.file_pages) == (anon, file)
    assert all(count == 1 for count in tables.values()), "a page table is used twice"
    expected += tables
    expected[kernel.frames.zero_frame] += 1
    for mapping in mappings(kernel):
        expected.update(mapping.pages.values())
    for frame, leaves in users.items():
        expected[frame] += len(leaves)
        if len(leaves) > 1:
            check_shared(kernel, frame, leaves)
    wrong = {
        hex(frame): (count, kernel.frames.refcount(frame))
        for frame, count in expected.items()
        if kernel.frames.refcount(frame) != count
    }
    assert not wrong, f"frames with other references than were found (found, counted): {wrong}"
    assert kernel.frames.used == len(expected), "frames in use that nothing refers to"
    return sum(len({leaf.space for leaf in leaves}) > 1 for leaves in users.values())


__all__ = ["check", "mappings", "spaces"]
