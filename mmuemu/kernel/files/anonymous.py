"""Open files that belong to no file system a path leads to: event counters, timers, epoll (fs/anon_inodes.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.files.inode import Inode
from mmuemu.kernel.files.openfile import OpenFile

if TYPE_CHECKING:
    from mmuemu.kernel.files.inode import Caller, FileSystem


class AnonymousFile(OpenFile):
    """A description with an inode of no type, which cannot be opened again."""

    __slots__ = ()

    label = b"anon_inode"

    def __init__(self, fs: FileSystem, flags: int) -> None:
        super().__init__(Inode(fs, 0o600), flags)

    def path(self) -> bytes:
        """What /proc/self/fd shows."""
        return self.label

    def seek(self, offset: int, whence: int) -> int:
        """Nothing moves (``noop_llseek``)."""
        return 0

    def reopen(self, caller: Caller, flags: int) -> OpenFile:
        """ENXIO."""
        raise SyscallError(Errno.ENXIO)
