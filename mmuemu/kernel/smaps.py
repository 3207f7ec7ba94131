"""/proc/PID/smaps, smaps_rollup and pagemap: what is in memory, out of the page tables (fs/proc/task_mmu.c).

How many entries map a frame is its reference count, less the one the page cache holds. The shared zero frame
belongs to nobody and counts nowhere, as on Linux.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from mmuemu.kernel import vma as v
from mmuemu.kernel.maps import maps_line
from mmuemu.x86.paging import ADDRESS_MASK, PAGE_MASK, PAGE_SIZE, PS, SIZE_2M, A, D, P

if TYPE_CHECKING:
    from mmuemu.kernel.address_space import AddressSpace
    from mmuemu.kernel.vma import Vma

_PSS_SHIFT: Final = 12
PM_PRESENT: Final = 1 << 63
PM_FILE: Final = 1 << 61
PM_MMAP_EXCLUSIVE: Final = 1 << 56
_SHMEM_DEV: Final = 1
"""Nameless shared memory lives on the kernel's own tmpfs, 00:01."""

_VM_NAMES: Final = (
    (v.VM_READ, "rd"), (v.VM_WRITE, "wr"), (v.VM_EXEC, "ex"), (v.VM_SHARED, "sh"), (v.VM_MAYREAD, "mr"),
    (v.VM_MAYWRITE, "mw"), (v.VM_MAYEXEC, "me"), (v.VM_MAYSHARE, "ms"), (v.VM_GROWSDOWN, "gd"),
    (v.VM_LOCKED, "lo"), (v.VM_SEQ_READ, "sr"), (v.VM_RAND_READ, "rr"), (v.VM_DONTCOPY, "dc"),
    (v.VM_DONTEXPAND, "de"), (v.VM_ACCOUNT, "ac"), (v.VM_NORESERVE, "nr"), (v.VM_WIPEONFORK, "wf"),
    (v.VM_DONTDUMP, "dd"), (v.VM_HUGEPAGE, "hg"), (v.VM_NOHUGEPAGE, "nh"), (v.VM_MERGEABLE, "mg"),
)  # fmt: skip
_NEVER: Final = ("KSM", "LazyFree")
_ZEROES: Final = (
    "ShmemPmdMapped", "FilePmdMapped", "Shared_Hugetlb", "Private_Hugetlb",
    "Swap", "SwapPss",
)  # fmt: skip
_COUNTS: Final = (
    "Rss", "Pss", "Pss_Dirty", "Pss_Anon", "Pss_File", "Pss_Shmem", "Shared_Clean", "Shared_Dirty", "Private_Clean",
    "Private_Dirty", "Referenced", "Anonymous", "Locked",
)  # fmt: skip
_PARTS: Final = frozenset({"Pss_Anon", "Pss_File", "Pss_Shmem"})
"""Lines of smaps_rollup only."""


class Usage:
    """How much of one or more areas is in memory, in bytes; Pss values are scaled by 4,096."""

    __slots__ = ("counts", "huge")

    def __init__(self) -> None:
        self.counts = dict.fromkeys(_COUNTS, 0)
        self.huge = 0

    def add(self, mm: AddressSpace, vma: Vma) -> None:
        """Count the pages of ``vma``."""
        counts, frames, mapping = self.counts, mm.frames, vma.mapping
        shmem = vma.file is not None and vma.file.inode.dev == _SHMEM_DEV
        blocks = set(mm.huge.whole(vma.start, vma.end))
        self.huge += len(blocks) * SIZE_2M
        for la, entry, _ in mm.page_table.iterate(vma.start, vma.end, absent=True):
            frame = entry & ADDRESS_MASK
            if frame == frames.zero_frame:
                continue
            index = vma.page_index(la)
            cached = mapping is not None and mapping.pages.get(index) == frame
            users = frames.refcount(frame) - cached
            share = (PAGE_SIZE << _PSS_SHIFT) // max(users, 1)
            dirty = bool(entry & D) or (cached and mapping is not None and index in mapping.dirty)
            counts["Rss"] += PAGE_SIZE
            counts["Pss"] += share
            counts["Pss_Dirty"] += share if dirty else 0
            counts[("Pss_Shmem" if shmem else "Pss_File") if cached else "Pss_Anon"] += share
            counts[f"{'Shared' if users > 1 else 'Private'}_{'Dirty' if dirty else 'Clean'}"] += PAGE_SIZE
            # One entry of 2 MiB would have one accessed flag; the touch that mapped it set that.
            counts["Referenced"] += PAGE_SIZE if entry & A or la & -SIZE_2M in blocks else 0
            counts["Anonymous"] += 0 if cached else PAGE_SIZE
            counts["Locked"] += share if vma.flags & v.VM_LOCKED else 0

    def lines(self, *, rollup: bool) -> Iterator[tuple[str, int]]:
        """(name, bytes) in Linux's order."""
        for name in _COUNTS[:-1]:
            if rollup or name not in _PARTS:
                yield name, self.counts[name] >> (_PSS_SHIFT if name.startswith("Pss") else 0)
        for name in _NEVER:
            yield name, 0
        yield "AnonHugePages", self.huge
        for name in _ZEROES:
            yield name, 0
        yield "Locked", self.counts["Locked"] >> _PSS_SHIFT


def _text(lines: Iterable[tuple[str, int]]) -> str:
    return "".join(f"{name + ':':<16}{size >> 10:8d} kB\n" for name, size in lines)


def smaps_text(mm: AddressSpace) -> str:
    """The whole of /proc/PID/smaps."""
    parts = []
    for vma in mm.vmas:
        usage = Usage()
        usage.add(mm, vma)
        sizes = (("Size", vma.end - vma.start), ("KernelPageSize", PAGE_SIZE), ("MMUPageSize", PAGE_SIZE))
        flags = "".join(f"{name} " for bit, name in _VM_NAMES if vma.flags & bit)
        key = "" if mm.pkru is None else f"ProtectionKey:  {vma.key:8d}\n"
        parts.append(
            f"{maps_line(mm, vma)}\n{_text(sizes)}{_text(usage.lines(rollup=False))}"
            f"THPeligible:    {mm.huge.eligible(vma):8d}\n{key}VmFlags: {flags}\n"
        )
    return "".join(parts)


def rollup_text(mm: AddressSpace) -> str:
    """The whole of /proc/PID/smaps_rollup; empty without areas."""
    areas = list(mm.vmas)
    if not areas:
        return ""
    usage = Usage()
    for vma in areas:
        usage.add(mm, vma)
    span = f"{areas[0].start:08x}-{areas[-1].end:08x} ---p 00000000 00:00 0 "
    return f"{span:<73}[rollup]\n{_text(usage.lines(rollup=True))}"


def shmem_bytes(mm: AddressSpace) -> int:
    """Bytes of nameless shared memory in memory (RssShmem)."""
    usage = Usage()
    for vma in mm.vmas:
        if vma.file is not None and vma.file.inode.dev == _SHMEM_DEV:
            usage.add(mm, vma)
    return usage.counts["Rss"] - usage.counts["Anonymous"]


def pagemap(mm: AddressSpace, offset: int, count: int, *, frames_shown: bool) -> bytes:
    """``count`` bytes at ``offset`` of /proc/PID/pagemap: 8 bytes a page; both are multiples of 8.

    Frame numbers are 0 unless ``frames_shown`` (CAP_SYS_ADMIN, since Linux 4.2).
    """
    first = offset // 8
    last = min(first + count // 8, mm.task_size + PAGE_MASK >> 12)
    values = [0] * max(last - first, 0)
    for vma in mm.vmas.overlapping(first << 12, max(last, first) << 12):
        low, high = max(vma.start, first << 12), min(vma.end, last << 12)
        for la, entry, _ in mm.page_table.iterate(low, high, absent=True):
            frame = entry & ADDRESS_MASK
            value = PM_PRESENT | (frame >> 12 if frames_shown else 0)
            if frame != mm.frames.zero_frame:
                cached = vma.mapping is not None and vma.mapping.pages.get(vma.page_index(la)) == frame
                value |= PM_FILE if cached else 0
                value |= PM_MMAP_EXCLUSIVE if mm.frames.refcount(frame) - cached == 1 else 0
            values[(la >> 12) - first] = value
    return b"".join(value.to_bytes(8, "little") for value in values)


def table_bytes(mm: AddressSpace) -> int:
    """Bytes of page tables below the top one, the user's half only (VmPTE)."""
    q = mm.frames.ram.qwords
    count = 0
    tables = [mm.page_table.root]
    for depth in range(mm.page_table.levels - 1):
        size = 256 if depth == 0 else 512
        entries = [entry for table in tables for entry in q[table >> 3 : (table >> 3) + size] if entry & P]
        tables = [entry & ADDRESS_MASK for entry in entries if depth == 0 or not entry & PS]
        count += len(tables)
    return count * PAGE_SIZE
