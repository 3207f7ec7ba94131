"""mremap(2), after mm/mremap.c: shrink in place, grow in place, or move."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.errors import OutOfFrames
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.mman import MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE
from mmuemu.kernel.vma import VM_DONTEXPAND, VM_LOCKED, VM_MAYSHARE, Vma
from mmuemu.x86.paging import PAGE_MASK

if TYPE_CHECKING:
    from mmuemu.kernel.address_space import AddressSpace


def mremap(mm: AddressSpace, addr: int, old_length: int, new_length: int, flags: int, new_addr: int) -> int:
    """Resize or move the mapping at ``addr``; its address then. Raises SyscallError."""
    old_length = (old_length + PAGE_MASK) & ~PAGE_MASK
    new_length = (new_length + PAGE_MASK) & ~PAGE_MASK
    elsewhere = flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)
    if flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP) or addr & PAGE_MASK:
        raise SyscallError(Errno.EINVAL)
    if (elsewhere and not flags & MREMAP_MAYMOVE) or not 0 < new_length <= mm.task_size:
        raise SyscallError(Errno.EINVAL)
    if flags & MREMAP_DONTUNMAP and old_length != new_length:
        raise SyscallError(Errno.EINVAL)
    vma = mm.vmas.find(addr)
    if elsewhere:
        _check_target(mm, addr, old_length, new_length, new_addr)
    if vma is None:
        raise SyscallError(Errno.EFAULT)
    if elsewhere:
        return _move_to(mm, addr, old_length, new_length, flags, new_addr)
    if old_length >= new_length:
        if old_length > new_length:
            mm.munmap(addr + new_length, old_length - new_length)
        return addr
    return _grow(mm, vma, addr, old_length, new_length, flags)


def _check_target(mm: AddressSpace, addr: int, old_length: int, new_length: int, new_addr: int) -> None:
    if new_addr & PAGE_MASK or new_addr > mm.task_size - new_length:
        raise SyscallError(Errno.EINVAL)
    if addr + old_length > new_addr and new_addr + new_length > addr:
        raise SyscallError(Errno.EINVAL)
    if len(mm.vmas) + 2 >= mm.max_map_count - 3:
        raise SyscallError(Errno.ENOMEM)


def _resizable(mm: AddressSpace, addr: int, old_length: int, new_length: int, flags: int) -> Vma:
    """The area of the old range, if it may become ``new_length`` long (``vma_to_resize``)."""
    vma = mm.vmas.find(addr)
    if vma is None:
        raise SyscallError(Errno.EFAULT)
    if not old_length and not vma.flags & VM_MAYSHARE:
        raise SyscallError(Errno.EINVAL)
    if flags & MREMAP_DONTUNMAP and vma.flags & VM_DONTEXPAND:
        raise SyscallError(Errno.EINVAL)
    if old_length > vma.end - addr:
        raise SyscallError(Errno.EFAULT)
    if new_length > old_length:
        if vma.flags & VM_DONTEXPAND:
            raise SyscallError(Errno.EFAULT)
        mm.check_locked(vma.flags, new_length - old_length)
        mm.charge(vma.flags, new_length - old_length)
    return vma


def _move_to(mm: AddressSpace, addr: int, old_length: int, new_length: int, flags: int, new_addr: int) -> int:
    """MREMAP_FIXED and MREMAP_DONTUNMAP (``mremap_to``)."""
    if flags & MREMAP_FIXED:
        mm.munmap(new_addr, new_length)
    if old_length > new_length:
        mm.munmap(addr + new_length, old_length - new_length)
        old_length = new_length
    vma = _resizable(mm, addr, old_length, new_length, flags)
    new_addr = mm.unmapped_area(new_addr, new_length, fixed=bool(flags & MREMAP_FIXED))
    return _move(mm, vma, addr, old_length, new_length, new_addr, keep=bool(flags & MREMAP_DONTUNMAP))


def _grow(mm: AddressSpace, vma: Vma, addr: int, old_length: int, new_length: int, flags: int) -> int:
    vma = _resizable(mm, addr, old_length, new_length, flags)
    delta = new_length - old_length
    end = vma.end + delta
    if addr + old_length == vma.end and end <= mm.task_size and not mm.vmas.overlapping(vma.end, end):
        tail = vma.copy(vma.end, end)
        tail.offset = vma.offset + vma.end - vma.start
        tail.anon = 0
        mm.vmas.insert(tail)
        mm.account(vma.flags, delta)
        mm.vmas.join(tail)
        if vma.flags & VM_LOCKED:
            mm.populate(addr + old_length, addr + new_length)
        return addr
    if not flags & MREMAP_MAYMOVE:
        raise SyscallError(Errno.ENOMEM)
    return _move(mm, vma, addr, old_length, new_length, mm.unmapped_area(0, new_length), keep=False)


def _move(mm: AddressSpace, vma: Vma, addr: int, old_length: int, new_length: int, new_addr: int, *, keep: bool) -> int:
    """Move area and pages (``move_vma``); with ``keep`` the old area stays, empty."""
    if len(mm.vmas) >= mm.max_map_count - 3:
        raise SyscallError(Errno.ENOMEM)
    moved = vma.copy(new_addr, new_addr + new_length)
    moved.offset = vma.offset + addr - vma.start
    if vma.file is None and not vma.anon:
        moved.offset = new_addr  # not yet written: it counts as mapped there in the first place
    try:
        move_pages(mm, addr, addr + old_length, new_addr)
    except OutOfFrames:
        raise SyscallError(Errno.ENOMEM) from None
    mm.forget_last()
    mm.vmas.insert(moved)
    mm.account(moved.flags, new_length)
    locked = moved.flags & VM_LOCKED
    mm.vmas.join(moved)
    if keep:
        old = mm.vmas.find(addr)
        if old is not None:
            if (old.start, old.end) == (addr, addr + old_length):
                old.anon = 0
            mm.set_flags(old, addr, addr + old_length, old.flags & ~VM_LOCKED)
    elif old_length:
        mm.unmap_areas(addr, addr + old_length)
    if locked:
        mm.populate(new_addr + old_length, new_addr + new_length)
    return new_addr


def move_pages(mm: AddressSpace, start: int, end: int, target: int) -> None:
    """Move the table entries of ``[start, end)`` to ``target``. On OutOfFrames all stay where they are."""
    table = mm.page_table
    present = False
    try:
        for la, entry, _ in table.iterate(start, end, absent=True):
            table.map_page(target + la - start, entry)
            present = True
    except OutOfFrames:
        table.unmap_range(target, target + end - start)
        raise
    if present:
        table.unmap_range(start, end)
        mm.on_flush(start, end)
