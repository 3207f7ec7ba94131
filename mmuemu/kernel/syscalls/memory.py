"""The memory calls: mmap, mprotect, munmap, brk, mremap, msync, mincore, madvise and the mlock family."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.mman import (
    MAP_ANONYMOUS,
    MAP_HUGETLB,
    MCL_CURRENT,
    MCL_FUTURE,
    MCL_ONFAULT,
    MLOCK_ONFAULT,
)
from mmuemu.kernel.keys import KEYS, lowest_free, set_pkru
from mmuemu.kernel.syscalls.table import syscall
from mmuemu.kernel.vma import VM_LOCKED
from mmuemu.x86.paging import PAGE_MASK, PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.kernel.files.openfile import OpenFile
    from mmuemu.kernel.task import Task

_DEV_ZERO: Final = 1 << 8 | 5
_MINCORE_CHUNK: Final = PAGE_SIZE * PAGE_SIZE
"""mincore's pages are looked at and copied out a page of the vector at a time (mm/mincore.c)."""


def _mappable(file: OpenFile) -> bool:
    """Whether the file has an mmap operation: regular files do, and /dev/zero."""
    return file.inode.is_regular and hasattr(file.inode, "punch")


@syscall(9, "mmap", "addr", "size", "prot", "map_flags", "fd", "off")
def sys_mmap(task: Task, addr: int, length: int, prot: int, flags: int, fd: int, offset: int) -> int:
    """Map a file or anonymous memory; the address."""
    if offset & PAGE_MASK:
        raise SyscallError(Errno.EINVAL)
    offset &= 0xFFFF_FFFF_FFFF_FFFF
    mm = task.mm
    if flags & MAP_ANONYMOUS:
        if flags & MAP_HUGETLB:
            raise SyscallError(Errno.ENOMEM)  # no huge page is ever reserved
        return mm.mmap(addr, length, prot, flags, None, offset)
    file = task.files.get_opened(fd)
    if flags & MAP_HUGETLB:
        raise SyscallError(Errno.EINVAL)
    if file.inode.rdev == _DEV_ZERO and file.readable:
        return mm.mmap(addr, length, prot, flags | MAP_ANONYMOUS, None, 0)
    name = os.fsdecode(file.path())
    return mm.mmap(addr, length, prot, flags, file, offset, name, mappable=_mappable(file))


@syscall(10, "mprotect", "addr", "size", "prot")
def sys_mprotect(task: Task, addr: int, length: int, prot: int) -> int:
    """Change the rights of a range."""
    task.mm.mprotect(addr, length, prot)
    return 0


@syscall(329, "pkey_mprotect", "addr", "size", "prot", "int")
def sys_pkey_mprotect(task: Task, addr: int, length: int, prot: int, key: int) -> int:
    """mprotect with a protection key, which must be allocated (EINVAL); -1: the range keeps the keys it has."""
    task.mm.mprotect(addr, length, prot, key)
    return 0


@syscall(330, "pkey_alloc", "ulong", "ulong")
def sys_pkey_alloc(task: Task, flags: int, rights: int) -> int:
    """The lowest free protection key, with ``rights`` in the caller's PKRU; ENOSPC without any (pkey_alloc(2))."""
    if flags or rights & ~3:
        raise SyscallError(Errno.EINVAL)
    mm, cpu = task.mm, task.kernel.cpu
    key = lowest_free(mm.keys)
    if key >= KEYS or mm.pkru is None:
        raise SyscallError(Errno.ENOSPC)
    mm.keys |= 1 << key
    cpu.window.save()
    set_pkru(cpu, mm.pkru() & ~(3 << 2 * key) | rights << 2 * key)
    return key


@syscall(331, "pkey_free", "int")
def sys_pkey_free(task: Task, key: int) -> int:
    """Give a protection key back; pages keep it (pkey_free(2))."""
    if not task.mm.has_key(key):
        raise SyscallError(Errno.EINVAL)
    task.mm.keys &= ~(1 << key)
    return 0


@syscall(11, "munmap", "addr", "size")
def sys_munmap(task: Task, addr: int, length: int) -> int:
    """Unmap a range."""
    task.mm.munmap(addr, length)
    return 0


@syscall(12, "brk", "addr")
def sys_brk(task: Task, addr: int) -> int:
    """Move the end of the heap; its end, whether that worked or not."""
    return task.mm.set_brk(addr)


@syscall(25, "mremap", "addr", "size", "size", "ulong", "addr")
def sys_mremap(task: Task, addr: int, old_length: int, new_length: int, flags: int, new_addr: int) -> int:
    """Resize or move a mapping; its address."""
    return task.mm.mremap(addr, old_length, new_length, flags, new_addr)


@syscall(26, "msync", "addr", "size", "int")
def sys_msync(task: Task, addr: int, length: int, flags: int) -> int:
    """Write a file mapping back."""
    task.mm.msync(addr, length, flags)
    return 0


@syscall(27, "mincore", "addr", "size", "out_buffer")
def sys_mincore(task: Task, addr: int, length: int, vector: int) -> int:
    """Say which pages are in memory."""
    mm = task.mm
    if addr & PAGE_MASK:
        raise SyscallError(Errno.EINVAL)
    if addr + length > mm.task_size:
        raise SyscallError(Errno.ENOMEM)
    end = addr + ((length + PAGE_MASK) & ~PAGE_MASK)
    if vector + ((end - addr) >> 12) > mm.task_size:
        raise SyscallError(Errno.EFAULT)
    while addr < end:
        stop = min(addr + _MINCORE_CHUNK, end)
        task.memory.write(vector, mm.mincore(addr, stop))
        vector += (stop - addr) >> 12
        addr = stop
    return 0


@syscall(28, "madvise", "addr", "size", "advice")
def sys_madvise(task: Task, addr: int, length: int, advice: int) -> int:
    """Give advice about a range."""
    task.mm.madvise(addr, length, advice)
    return 0


@syscall(149, "mlock", "addr", "size")
def sys_mlock(task: Task, addr: int, length: int) -> int:
    """Keep a range in memory."""
    task.mm.mlock(addr, length)
    return 0


@syscall(150, "munlock", "addr", "size")
def sys_munlock(task: Task, addr: int, length: int) -> int:
    """Undo mlock."""
    task.mm.mlock(addr, length, lock=False)
    return 0


@syscall(151, "mlockall", "int")
def sys_mlockall(task: Task, flags: int) -> int:
    """Keep everything in memory, now (MCL_CURRENT) or when it is mapped (MCL_FUTURE)."""
    if not flags & (MCL_CURRENT | MCL_FUTURE) or flags & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT):
        raise SyscallError(Errno.EINVAL)
    task.mm.mlock_all(current=bool(flags & MCL_CURRENT), future=VM_LOCKED if flags & MCL_FUTURE else 0)
    return 0


@syscall(152, "munlockall")
def sys_munlockall(task: Task) -> int:
    """Undo every mlock."""
    task.mm.munlock_all()
    return 0


@syscall(325, "mlock2", "addr", "size", "int")
def sys_mlock2(task: Task, addr: int, length: int, flags: int) -> int:
    """mlock, with MLOCK_ONFAULT only as pages are touched."""
    if flags & ~MLOCK_ONFAULT:
        raise SyscallError(Errno.EINVAL)
    task.mm.mlock(addr, length, on_fault=bool(flags & MLOCK_ONFAULT))
    return 0
