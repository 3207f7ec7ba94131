"""Open file descriptions (Linux's ``struct file``): what open(2) makes and descriptors share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import (
    MAX_FILE_SIZE,
    O_ACCMODE,
    O_APPEND,
    O_CREAT,
    O_EXCL,
    O_NOCTTY,
    O_NONBLOCK,
    O_PATH,
    O_RDONLY,
    O_TRUNC,
    O_WRONLY,
    POLLIN,
    POLLNVAL,
    POLLOUT,
    POLLRDNORM,
    POLLWRNORM,
    SEEK_CUR,
    SEEK_DATA,
    SEEK_END,
    SEEK_HOLE,
    SEEK_SET,
)
from mmuemu.kernel.abi.stat import Stat, pack_dirent, pack_dirent64
from mmuemu.kernel.files import notify
from mmuemu.kernel.wait import Blocked as Blocked
from mmuemu.kernel.wait import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmuemu.kernel.files.inode import Caller, Directory, Inode
    from mmuemu.kernel.files.memfs import RegularInode
    from mmuemu.kernel.files.terminal import Terminal

_AT_OPEN_ONLY: Final = O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC
ALWAYS_READY: Final = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM


class UserMemory(Protocol):
    """The calling task's memory as ioctl needs it; every method may raise SyscallError(EFAULT)."""

    def read(self, address: int, count: int, /) -> bytes:
        """Copy from the guest."""

    def write(self, address: int, data: bytes, /) -> object:
        """Copy to the guest."""


class OpenFile:
    """An open file: an inode, how it was opened and where it stands. ``refs`` counts the descriptors."""

    __slots__ = ("flags", "inode", "offset", "on_close", "readable", "refs", "writable")

    bulk = False
    """Whether a large read is served to the end: a short piece means there is no more."""
    whole = False
    """Whether a write goes on, sleeping where it must, until everything is written."""
    pollable = False
    """Whether epoll(7) takes it: its readiness changes."""

    def __init__(self, inode: Inode, flags: int) -> None:
        self.inode = inode
        self.flags = flags & ~_AT_OPEN_ONLY
        access = flags & O_ACCMODE
        self.readable = access != O_WRONLY
        self.writable = access != O_RDONLY
        self.offset = 0
        self.refs = 0
        self.on_close: list[Callable[[OpenFile], None]] | None = None
        """Told when the last descriptor has been closed."""

    @property
    def positioned(self) -> bool:
        """Whether it can be read and written at an offset (FMODE_PREAD)."""
        return self.inode.seekable or self.bulk or self.inode.is_directory

    def stat(self) -> Stat:
        """What ``fstat(2)`` says."""
        return self.inode.stat()

    def path(self) -> bytes:
        """The guest path, as /proc/self/fd shows it."""
        from mmuemu.kernel.files.paths import path_of

        return path_of(self.inode)

    def reopen(self, caller: Caller, flags: int) -> OpenFile:
        """A new description of the same file, as opening /proc/self/fd/N makes."""
        return self.inode.open(caller, flags)

    def read(self, count: int) -> bytes:
        """Read at the offset and move it; empty at the end."""
        raise SyscallError(Errno.EINVAL if self.readable else Errno.EBADF)

    def unread(self, data: bytes) -> None:
        """Take back what :meth:`read` gave, because the guest's buffer was bad."""
        self.offset -= len(data)

    def write(self, data: bytes) -> int:
        """Write at the offset (the end with O_APPEND) and move it."""
        raise SyscallError(Errno.EINVAL if self.writable else Errno.EBADF)

    def pread(self, offset: int, count: int) -> bytes:
        """Read at ``offset``."""
        raise SyscallError(Errno.ESPIPE)

    def pwrite(self, offset: int, data: bytes) -> int:
        """Write at ``offset``."""
        raise SyscallError(Errno.ESPIPE)

    def seek(self, offset: int, whence: int) -> int:
        """Move the offset and return it."""
        raise SyscallError(Errno.ESPIPE)

    def truncate(self, size: int) -> None:
        """``ftruncate(2)``."""
        raise SyscallError(Errno.EINVAL)

    def getdents(self, caller: Caller, count: int, old: bool = False) -> bytes:
        """Directory entries filling up to ``count`` bytes."""
        raise SyscallError(Errno.ENOTDIR)

    def ioctl(self, memory: UserMemory, request: int, argument: int) -> int:
        """Device control; ENOTTY where the file knows no such request."""
        raise SyscallError(Errno.ENOTTY)

    def poll(self) -> int:
        """The POLL* bits that are true now."""
        return ALWAYS_READY

    def wait_queues(self) -> tuple[WaitQueue, ...]:
        """The queues, the same for its whole life, that are woken when what :meth:`poll` says may have changed."""
        return ()

    def add_host(self, wanted: dict[int, int], events: int) -> None:
        """Add to ``wanted`` the host descriptors, and their POLL* events, that tell when this becomes ready."""

    def terminal(self) -> Terminal | None:
        """The terminal this is, as job control knows it."""
        return None

    def sync(self) -> None:
        """``fsync(2)``; files that cannot be synced refuse with EINVAL."""
        raise SyscallError(Errno.EINVAL)

    def closed(self) -> None:
        """The last descriptor was closed."""
        if self.inode.locks is not None:
            self.inode.locks.closed(self)

    def acquire(self) -> OpenFile:
        """One more descriptor refers to this; ENFILE when the machine has as many open files as it may."""
        if self.refs == 0:
            self.inode.fs.quota.open_file()
            self.inode.opens += 1
        self.refs += 1
        return self

    def release(self) -> None:
        """One descriptor fewer."""
        self.refs -= 1
        if self.refs == 0:
            inode = self.inode
            inode.fs.quota.files -= 1
            if inode.fs.watched:
                notify.closed(self)
            self.closed()
            inode.opens -= 1
            if inode.fs.watched:
                notify.ended_if_unused(inode)
            if self.on_close is not None:
                for tell in self.on_close[:]:
                    tell(self)

    @property
    def nonblocking(self) -> bool:
        """O_NONBLOCK."""
        return bool(self.flags & O_NONBLOCK)


class OpenPath(OpenFile):
    """A file opened with O_PATH: a place to start from, without access to the bytes."""

    __slots__ = ()

    def __init__(self, inode: Inode, flags: int) -> None:
        super().__init__(inode, flags & ~O_ACCMODE | O_PATH)
        self.readable = self.writable = False

    def seek(self, offset: int, whence: int) -> int:
        """EBADF, as everything that needs an open file."""
        raise SyscallError(Errno.EBADF)

    def pread(self, offset: int, count: int) -> bytes:
        """EBADF."""
        raise SyscallError(Errno.EBADF)

    def pwrite(self, offset: int, data: bytes) -> int:
        """EBADF."""
        raise SyscallError(Errno.EBADF)

    def truncate(self, size: int) -> None:
        """EBADF."""
        raise SyscallError(Errno.EBADF)

    def getdents(self, caller: Caller, count: int, old: bool = False) -> bytes:
        """EBADF."""
        raise SyscallError(Errno.EBADF)

    def ioctl(self, memory: UserMemory, request: int, argument: int) -> int:
        """EBADF."""
        raise SyscallError(Errno.EBADF)

    def sync(self) -> None:
        """EBADF."""
        raise SyscallError(Errno.EBADF)

    def poll(self) -> int:
        """Polling an O_PATH descriptor is polling a closed one."""
        return POLLNVAL


def moved_offset(current: int, size: int, offset: int, whence: int) -> int:
    """The offset lseek(2) arrives at; EINVAL when it is negative, EOVERFLOW when it is too large."""
    if whence == SEEK_CUR:
        offset += current
    elif whence == SEEK_END:
        offset += size
    elif whence != SEEK_SET:
        raise SyscallError(Errno.EINVAL)
    if offset > MAX_FILE_SIZE:
        raise SyscallError(Errno.EOVERFLOW)
    if offset < 0:
        raise SyscallError(Errno.EINVAL)
    return offset


class OpenRegular(OpenFile):
    """A regular file opened for reading or writing."""

    __slots__ = ()

    bulk = True
    inode: RegularInode

    def __init__(self, inode: RegularInode, flags: int) -> None:
        super().__init__(inode, flags)
        if self.writable:
            inode.get_write_access()

    def closed(self) -> None:
        """The last descriptor was closed."""
        super().closed()
        if self.writable:
            self.inode.write_count -= 1

    def read(self, count: int) -> bytes:
        """Read and move the offset."""
        if not self.readable:
            raise SyscallError(Errno.EBADF)
        data = self.inode.read_at(self.offset, count)
        self.offset += len(data)
        return data

    def write(self, data: bytes) -> int:
        """Write and move the offset."""
        if not self.writable:
            raise SyscallError(Errno.EBADF)
        inode = self.inode
        if inode.seals:
            self._check_seals(self.offset + len(data))
        if not data:
            return 0
        if self.flags & O_APPEND:
            self.offset = inode.size
        done = inode.write_at(self.offset, data)
        self.offset += done
        return done

    def _check_seals(self, end: int) -> None:
        from mmuemu.kernel.abi.fcntl import F_SEAL_FUTURE_WRITE, F_SEAL_GROW, F_SEAL_WRITE

        seals = self.inode.seals or 0
        if seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE) or (seals & F_SEAL_GROW and end > self.inode.size):
            raise SyscallError(Errno.EPERM)

    def pread(self, offset: int, count: int) -> bytes:
        """Read elsewhere."""
        if not self.readable:
            raise SyscallError(Errno.EBADF)
        return self.inode.read_at(offset, count)

    def pwrite(self, offset: int, data: bytes) -> int:
        """Write elsewhere; with O_APPEND Linux appends whatever the offset (BUGS in pwrite(2))."""
        if not self.writable:
            raise SyscallError(Errno.EBADF)
        if self.inode.seals:
            self._check_seals(offset + len(data))
        if not data:
            return 0
        return self.inode.write_at(self.inode.size if self.flags & O_APPEND else offset, data)

    def seek(self, offset: int, whence: int) -> int:
        """Move the offset; SEEK_DATA and SEEK_HOLE know the holes of in-memory files."""
        if whence in (SEEK_DATA, SEEK_HOLE):
            size = self.inode.size
            if not 0 <= offset < size:
                raise SyscallError(Errno.ENXIO)
            offset = self.inode.data_from(offset) if whence == SEEK_DATA else self.inode.hole_from(offset)
            if whence == SEEK_DATA and offset >= size:
                raise SyscallError(Errno.ENXIO)
        else:
            size = self.inode.size if whence == SEEK_END else 0
            offset = moved_offset(self.offset, size, offset, whence)
        self.offset = offset
        return offset

    def truncate(self, size: int) -> None:
        """Set the length."""
        if not self.writable:
            raise SyscallError(Errno.EINVAL)
        if self.inode.seals:
            from mmuemu.kernel.abi.fcntl import F_SEAL_GROW, F_SEAL_SHRINK

            refused = F_SEAL_SHRINK if size < self.inode.size else F_SEAL_GROW
            if size != self.inode.size and self.inode.seals & refused:
                raise SyscallError(Errno.EPERM)
        self.inode.truncate(size)

    def ioctl(self, memory: UserMemory, request: int, argument: int) -> int:
        """FIONREAD says how much is left; everything else is ENOTTY."""
        from mmuemu.kernel.abi.fcntl import FIONREAD

        if request != FIONREAD:
            raise SyscallError(Errno.ENOTTY)
        left = self.inode.size - self.offset
        memory.write(argument, (left & 0xFFFF_FFFF).to_bytes(4, "little"))
        return 0

    def sync(self) -> None:
        """Memory needs no syncing; writable host files are the host's affair."""


class OpenDirectory(OpenFile):
    """A directory being listed: a snapshot taken when the listing starts, so removing entries is safe."""

    __slots__ = ("_snapshot",)

    inode: Directory

    def __init__(self, inode: Inode, flags: int) -> None:
        super().__init__(inode, flags)
        self._snapshot: list[tuple[bytes, int, int]] = []

    def read(self, count: int) -> bytes:
        """EISDIR."""
        raise SyscallError(Errno.EISDIR)

    def pread(self, offset: int, count: int) -> bytes:
        """EISDIR."""
        raise SyscallError(Errno.EISDIR)

    def write(self, data: bytes) -> int:
        """EBADF: a directory is never open for writing."""
        raise SyscallError(Errno.EBADF)

    def pwrite(self, offset: int, data: bytes) -> int:
        """EBADF."""
        raise SyscallError(Errno.EBADF)

    def seek(self, offset: int, whence: int) -> int:
        """Move to an offset that getdents gave, or to the start."""
        self.offset = moved_offset(self.offset, 1 << 31, offset, whence)
        return self.offset

    def getdents(self, caller: Caller, count: int, old: bool = False) -> bytes:
        """Entries from the offset on; EINVAL when not even one fits, ENOENT when the directory is gone."""
        if self.inode.nlink == 0:
            raise SyscallError(Errno.ENOENT)
        if self.offset == 0:
            parent = self.inode.parent
            self._snapshot = [(b".", self.inode.ino, 4), (b"..", parent.ino, 4), *self.inode.list(caller)]
        pack = pack_dirent if old else pack_dirent64
        pieces: list[bytes] = []
        used = 0
        index = self.offset
        for name, ino, kind in self._snapshot[index:]:
            piece = pack(ino, index + 1, kind, name)
            used += len(piece)
            if used > count:
                if not pieces:
                    raise SyscallError(Errno.EINVAL)
                break
            pieces.append(piece)
            index += 1
        self.offset = index
        return b"".join(pieces)

    def sync(self) -> None:
        """Nothing to write back."""
