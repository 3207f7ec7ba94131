"""The character devices of the guest's /dev (mem(4), full(4), random(4), tty(4))."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.stat import S_IFCHR, makedev
from mmuemu.kernel.files.inode import Caller, FileSystem, Inode
from mmuemu.kernel.files.openfile import OpenFile

if TYPE_CHECKING:
    from collections.abc import Callable

_ZEROS: Final = bytes(1 << 16)


class CharDevice(Inode):
    """A device node; ``read`` and ``write`` say what it does (None: EBADF never arises, EINVAL does)."""

    __slots__ = ("device", "read_bytes", "takes")

    def __init__(
        self, fs: FileSystem, major: int, minor: int, read_bytes: Callable[[int], bytes], takes: bool = True
    ) -> None:
        super().__init__(fs, S_IFCHR | 0o666)
        self.device = makedev(major, minor)
        self.read_bytes = read_bytes
        self.takes = takes
        """Whether writes succeed (their bytes vanish) or fail with ENOSPC."""

    @property
    def rdev(self) -> int:
        """The device number."""
        return self.device

    def open(self, caller: Caller, flags: int) -> OpenFile:
        """A description of the device."""
        return OpenDevice(self, flags)

    def read_at(self, offset: int, count: int) -> bytes:
        """What a read gives, wherever."""
        return self.read_bytes(count)


class OpenDevice(OpenFile):
    """An opened device: every offset is the same."""

    __slots__ = ()

    bulk = True
    inode: CharDevice

    def read(self, count: int) -> bytes:
        """``count`` bytes, or none from /dev/null."""
        if not self.readable:
            raise SyscallError(Errno.EBADF)
        return self.inode.read_bytes(count)

    def write(self, data: bytes) -> int:
        """Swallow ``data``; ENOSPC from /dev/full."""
        if not self.writable:
            raise SyscallError(Errno.EBADF)
        if data and not self.inode.takes:
            raise SyscallError(Errno.ENOSPC)
        return len(data)

    def unread(self, data: bytes) -> None:
        """Nothing moved."""

    def pread(self, offset: int, count: int) -> bytes:
        """As read."""
        return self.read(count)

    def pwrite(self, offset: int, data: bytes) -> int:
        """As write."""
        return self.write(data)

    def seek(self, offset: int, whence: int) -> int:
        """Always at 0 (drivers/char/mem.c: null_lseek)."""
        return 0


class TerminalNode(Inode):
    """/dev/tty: the caller's controlling terminal; ENXIO without one."""

    __slots__ = ()

    def __init__(self, fs: FileSystem) -> None:
        super().__init__(fs, S_IFCHR | 0o666)

    @property
    def rdev(self) -> int:
        """tty's device number."""
        return makedev(5, 0)

    def open(self, caller: Caller, flags: int) -> OpenFile:
        """A description of the terminal."""
        from mmuemu.kernel.abi.fcntl import O_NOCTTY

        node = caller.fs.mounts.terminal_node(getattr(caller, "process", None))
        if node is None:
            raise SyscallError(Errno.ENXIO)
        return node.open(caller, flags | O_NOCTTY)


def zeros(count: int) -> bytes:
    """``count`` zero bytes."""
    return _ZEROS[:count] if count <= len(_ZEROS) else bytes(count)


def nothing(count: int) -> bytes:
    """The end of file, at once."""
    return b""
