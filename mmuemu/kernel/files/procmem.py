"""/proc/PID/mem and /proc/PID/pagemap (fs/proc/base.c: ``mem_rw``, ``mem_lseek``; fs/proc/task_mmu.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import SEEK_CUR, SEEK_SET
from mmuemu.kernel.abi.stat import S_IFREG
from mmuemu.kernel.files.inode import Caller, FileSystem, Inode
from mmuemu.kernel.files.openfile import OpenFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmuemu.kernel.files.procsource import ProcessMemory

_MASK: Final = (1 << 64) - 1
_ENTRY: Final = 8


class MemoryFileNode(Inode):
    """The file; ``opened`` is the kind of description it gives. ESRCH for a process without memory."""

    __slots__ = ("find", "opened")

    seekable = True

    def __init__(
        self, fs: FileSystem, mode: int, find: Callable[[], ProcessMemory | None], opened: type[OpenAddresses]
    ) -> None:
        super().__init__(fs, S_IFREG | mode)
        self.find = find
        self.opened = opened

    def open(self, caller: Caller, flags: int) -> OpenFile:
        """A description of the memory as it is now: an execve later does not change it."""
        memory = self.find()
        if memory is None:
            raise SyscallError(Errno.ESRCH)
        return self.opened(self, flags, memory, caller.uid == 0)

    def truncate(self, size: int) -> None:
        """O_TRUNC has no effect."""


class OpenAddresses(OpenFile):
    """What both files have in common: an offset of 64 bits without a sign."""

    __slots__ = ("memory", "privileged")

    bulk = True

    def __init__(self, inode: Inode, flags: int, memory: ProcessMemory, privileged: bool) -> None:
        super().__init__(inode, flags)
        self.memory = memory
        self.privileged = privileged

    def seek(self, offset: int, whence: int) -> int:
        """Any address; SEEK_END is EINVAL."""
        if whence not in (SEEK_SET, SEEK_CUR):
            raise SyscallError(Errno.EINVAL)
        self.offset = (offset + (self.offset if whence == SEEK_CUR else 0)) & _MASK
        return self.offset

    def read(self, count: int) -> bytes:
        """Read and move."""
        data = self.pread(self.offset, count)
        self.offset = (self.offset + len(data)) & _MASK
        return data


class OpenMem(OpenAddresses):
    """/proc/PID/mem: bytes, whatever the protection of the pages."""

    __slots__ = ()

    def pread(self, offset: int, count: int) -> bytes:
        """EIO where nothing is mapped."""
        if not self.readable:
            raise SyscallError(Errno.EBADF)
        data = self.memory.read(offset, count)
        if not data and count:
            raise SyscallError(Errno.EIO)
        return data

    def write(self, data: bytes) -> int:
        """Store and move."""
        count = self.pwrite(self.offset, data)
        self.offset = (self.offset + count) & _MASK
        return count

    def pwrite(self, offset: int, data: bytes) -> int:
        """EIO where nothing can be stored."""
        if not self.writable:
            raise SyscallError(Errno.EBADF)
        count = self.memory.write(offset, data)
        if not count and data:
            raise SyscallError(Errno.EIO)
        return count


class OpenPagemap(OpenAddresses):
    """/proc/PID/pagemap: 8 bytes a page."""

    __slots__ = ()

    def pread(self, offset: int, count: int) -> bytes:
        """EINVAL unless both are multiples of 8."""
        if offset % _ENTRY or count % _ENTRY:
            raise SyscallError(Errno.EINVAL)
        return self.memory.pagemap(offset, count, self.privileged)
