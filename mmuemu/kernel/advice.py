"""madvise(2), after mm/madvise.c."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi import mman
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.faults import FaultResult
from mmuemu.kernel.vma import (
    VM_DONTCOPY,
    VM_DONTDUMP,
    VM_HUGEPAGE,
    VM_LOCKED,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_MERGEABLE,
    VM_NOHUGEPAGE,
    VM_RAND_READ,
    VM_SEQ_READ,
    VM_SHARED,
    VM_WIPEONFORK,
    VM_WRITE,
    Vma,
)
from mmuemu.x86.paging import PAGE_MASK

if TYPE_CHECKING:
    from mmuemu.kernel.address_space import AddressSpace

_FLAGS: Final = {
    mman.MADV_NORMAL: (0, VM_RAND_READ | VM_SEQ_READ),
    mman.MADV_RANDOM: (VM_RAND_READ, VM_SEQ_READ),
    mman.MADV_SEQUENTIAL: (VM_SEQ_READ, VM_RAND_READ),
    mman.MADV_DONTFORK: (VM_DONTCOPY, 0),
    mman.MADV_DOFORK: (0, VM_DONTCOPY),
    mman.MADV_DONTDUMP: (VM_DONTDUMP, 0),
    mman.MADV_DODUMP: (0, VM_DONTDUMP),
    mman.MADV_WIPEONFORK: (VM_WIPEONFORK, 0),
    mman.MADV_KEEPONFORK: (0, VM_WIPEONFORK),
    mman.MADV_MERGEABLE: (VM_MERGEABLE, 0),
    mman.MADV_UNMERGEABLE: (0, VM_MERGEABLE),
    mman.MADV_HUGEPAGE: (VM_HUGEPAGE, VM_NOHUGEPAGE),
    mman.MADV_NOHUGEPAGE: (VM_NOHUGEPAGE, VM_HUGEPAGE),
}
"""Advice that only marks areas: VM_* flags to set and to clear."""
_POPULATE: Final = (mman.MADV_POPULATE_READ, mman.MADV_POPULATE_WRITE)
_PAGES: Final = (
    mman.MADV_WILLNEED, mman.MADV_DONTNEED, mman.MADV_FREE, mman.MADV_REMOVE, mman.MADV_COLD,
    mman.MADV_PAGEOUT, mman.MADV_DONTNEED_LOCKED, mman.MADV_COLLAPSE,
)  # fmt: skip


def madvise(mm: AddressSpace, addr: int, length: int, advice: int) -> None:
    """Act on advice for ``[addr, addr + length)``; holes are skipped and reported as ENOMEM at the end."""
    if addr & PAGE_MASK or (advice not in _FLAGS and advice not in _PAGES and advice not in _POPULATE):
        raise SyscallError(Errno.EINVAL)
    end = addr + ((length + PAGE_MASK) & ~PAGE_MASK)
    if end >= 1 << 64:
        raise SyscallError(Errno.EINVAL)
    if advice in _POPULATE:
        _populate(mm, addr, end, advice)
        return
    at = addr
    hole = False
    for vma, start, stop in mm.each(addr, end):
        hole |= start > at
        at = stop
        if advice in _FLAGS:
            _mark(mm, vma, start, stop, advice)
        else:
            _apply(mm, vma, start, stop, advice)
    if hole or at < end:
        raise SyscallError(Errno.ENOMEM)


def _mark(mm: AddressSpace, vma: Vma, start: int, stop: int, advice: int) -> None:
    if advice == mman.MADV_WIPEONFORK and (vma.file is not None or vma.flags & VM_SHARED):
        raise SyscallError(Errno.EINVAL)
    gain, lose = _FLAGS[advice]
    mm.set_flags(vma, start, stop, vma.flags & ~lose | gain)


def _apply(mm: AddressSpace, vma: Vma, start: int, stop: int, advice: int) -> None:
    """Advice about pages. What Linux would do with swap is not needed; huge pages are made at the first touch only."""
    if advice in (mman.MADV_DONTNEED, mman.MADV_FREE, mman.MADV_DONTNEED_LOCKED):
        if vma.flags & VM_LOCKED and advice == mman.MADV_DONTNEED:
            raise SyscallError(Errno.EINVAL)
        if advice == mman.MADV_FREE and vma.mapping is not None:
            raise SyscallError(Errno.EINVAL)
        if mm.zap(vma, start, stop):
            mm.on_flush(start, stop)
    elif advice == mman.MADV_REMOVE:
        _remove(mm, vma, start, stop)
    elif advice in (mman.MADV_COLD, mman.MADV_PAGEOUT) and vma.flags & VM_LOCKED:
        raise SyscallError(Errno.EINVAL)


def _remove(mm: AddressSpace, vma: Vma, start: int, stop: int) -> None:
    """Punch a hole: the pages of a shared mapping, and what its file holds there, become zeros."""
    if vma.flags & VM_LOCKED or vma.mapping is None:
        raise SyscallError(Errno.EINVAL)
    if vma.flags & (VM_SHARED | VM_MAYWRITE) != VM_SHARED | VM_MAYWRITE:
        raise SyscallError(Errno.EACCES)
    punch = getattr(vma.mapping.inode, "punch", None)
    if punch is None:
        raise SyscallError(Errno.EOPNOTSUPP)
    punch(vma.page_index(start) << 12, stop - start)


def _populate(mm: AddressSpace, addr: int, end: int, advice: int) -> None:
    """MADV_POPULATE_READ and _WRITE: fault every page in, and say when that cannot be."""
    write = advice == mman.MADV_POPULATE_WRITE
    for vma in mm.covered(addr, end):
        if write and vma.flags & (VM_WRITE | VM_MAYSHARE) == VM_MAYSHARE:
            raise SyscallError(Errno.EINVAL)
    result = mm.populate(addr, end, write=write)
    if result is FaultResult.OOM:
        raise SyscallError(Errno.ENOMEM)
    if result in (FaultResult.SEGV_ACCERR, FaultResult.SEGV_PKUERR):
        raise SyscallError(Errno.EINVAL)
    if result:
        raise SyscallError(Errno.EFAULT)
