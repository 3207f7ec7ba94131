"""Descriptors of the host handed to the guest as open files: the standard streams, and captured ones."""

from __future__ import annotations

import contextlib
import os
import stat as host_stat
from typing import IO, TYPE_CHECKING

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import (
    FIONREAD,
    O_APPEND,
    O_RDWR,
    POLLERR,
    POLLHUP,
    POLLIN,
    POLLOUT,
    POLLRDNORM,
    POLLWRNORM,
    TCFLSH,
    TCGETS,
    TCSBRK,
    TCSETS,
    TCSETSF,
    TCSETSW,
    TCXONC,
    TIOCGWINSZ,
)
from mmuemu.kernel.abi.signals import Signal
from mmuemu.kernel.abi.stat import S_IFIFO, Stat
from mmuemu.kernel.files.hostfd import raise_guest
from mmuemu.kernel.files.inode import Caller, FileSystem, Inode
from mmuemu.kernel.files.openfile import ALWAYS_READY, Blocked, OpenFile, UserMemory
from mmuemu.kernel.wait import WaitQueue

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from mmuemu.kernel.files.terminal import HostTerminal, Terminal

_TERMINAL_REQUESTS = {TCGETS: 36, TIOCGWINSZ: 8, FIONREAD: 4}
"""Requests answered by the host's terminal, and the bytes they return (struct termios is 36, winsize 8)."""


class StreamInode(Inode):
    """The inode of a host descriptor, with the host's file type, by which programs choose their buffering."""

    __slots__ = ("fd", "label", "modes", "queue", "sink", "source", "terminal", "unread", "waiter")

    def __init__(self, fs: FileSystem, fd: int, label: bytes, uid: int = 1000, gid: int = 1000) -> None:
        try:
            mode = os.fstat(fd).st_mode if fd >= 0 else S_IFIFO | 0o600
        except OSError:
            mode = S_IFIFO | 0o600
        super().__init__(fs, mode, uid, gid)
        self.fd = fd
        self.label = label or b"pipe:[%d]" % (fd if fd >= 0 else self.ino)
        self.source: Callable[[int], bytes | None] | None = None
        self.sink: Callable[[bytes], int | None] | None = None
        self.unread = b""
        self.queue = WaitQueue()
        """Woken by every read, after which the host has to be asked again."""
        self.terminal: HostTerminal | None = None
        """The terminal that the descriptor is, where it is one."""
        self.modes = b""
        """The terminal's modes from before the guest changed them."""
        self.waiter: Callable[[int], object] | None = None
        """Whether something can be read within that many milliseconds; None where a read never waits."""
        if fd >= 0 and not host_stat.S_ISREG(mode):
            self.waiter = waiter(fd)

    def set_modes(self, request: int, modes: bytes) -> None:
        """Change the host terminal's modes, until :meth:`restore_modes`."""
        from fcntl import ioctl

        if not self.modes:
            self.modes = ioctl(self.fd, TCGETS, bytes(36))
        ioctl(self.fd, request, modes)

    def restore_modes(self) -> None:
        """Give the host its terminal back as it was."""
        if self.modes:
            modes, self.modes = self.modes, b""
            with contextlib.suppress(OSError):
                self.set_modes(TCSETSW, modes)
            self.modes = b""

    def open(self, caller: Caller, flags: int) -> OpenFile:
        """Another description of the same stream."""
        return HostStream(self, flags)

    @property
    def size(self) -> int:
        """The length of a redirected file."""
        return os.fstat(self.fd).st_size if self.fd >= 0 else 0

    def read_at(self, offset: int, count: int) -> bytes:
        """Bytes of a redirected file, as mapping it needs them."""
        if not self.is_regular:
            raise SyscallError(Errno.ENODEV)
        try:
            return os.pread(self.fd, count, offset)
        except OSError as error:
            raise_guest(error)

    def write_at(self, offset: int, data: bytes) -> int:
        """Write to a redirected file."""
        if not self.is_regular:
            raise SyscallError(Errno.ENODEV)
        try:
            return os.pwrite(self.fd, data, offset)
        except OSError as error:
            raise_guest(error)

    def truncate(self, size: int) -> None:
        """Set a redirected file's length."""
        if not self.is_regular:
            raise SyscallError(Errno.EINVAL)
        try:
            os.ftruncate(self.fd, size)
        except OSError as error:
            raise_guest(error)

    def stat(self) -> Stat:
        """The host's type, size and times; the guest's user as the owner. Of a terminal, what /dev/tty is."""
        if self.terminal is not None and self.terminal.node is not None:
            return self.terminal.node.stat()
        if self.fd < 0:
            return super().stat()
        st = os.fstat(self.fd)
        return Stat(
            st.st_dev, st.st_ino, st.st_mode, st.st_nlink, self.uid, self.gid, st.st_rdev, st.st_size,
            getattr(st, "st_blocks", 0), st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns,
            getattr(st, "st_blksize", 4096),
        )  # fmt: skip


class HostStream(OpenFile):
    """A standard stream: bytes go straight to the host descriptor, or to a Python object's read and write."""

    __slots__ = ("_seekable", "pollable")

    whole = True
    inode: StreamInode

    def __init__(self, inode: StreamInode, flags: int) -> None:
        super().__init__(inode, flags)
        self.reconnect()

    def reconnect(self) -> None:
        """Look at what the host descriptor is."""
        inode = self.inode
        self._seekable = host_stat.S_ISREG(inode.mode) and inode.fd >= 0
        self.pollable = inode.waiter is not None or inode.fd < 0

    @property
    def positioned(self) -> bool:
        """Only a regular file of the host."""
        return self._seekable

    @classmethod
    def of(cls, fs: FileSystem, stream: int | IO[bytes], flags: int = O_RDWR, label: bytes = b"") -> HostStream:
        """An open file over a host descriptor or a binary file object (flushed after every write).

        An object without a descriptor, such as ``io.BytesIO``, is a pipe to the guest.
        """
        if isinstance(stream, int):
            return cls(StreamInode(fs, stream, label), flags)
        inode = StreamInode(fs, -1, label)
        inode.source = getattr(stream, "read1", None) or getattr(stream, "read", None)
        if hasattr(stream, "write"):
            inode.sink = _flushing(stream)
        return cls(inode, flags)

    def path(self) -> bytes:
        """What /proc/self/fd shows."""
        mode = self.inode.mode
        if host_stat.S_ISCHR(mode) and self.inode.fd >= 0 and _same_device(self.inode.fd, "/dev/null"):
            return b"/dev/null"
        if host_stat.S_ISCHR(mode):
            return b"/dev/tty"
        return self.inode.label

    def read(self, count: int) -> bytes:
        """What the stream gives now, blocking until it gives something; empty at its end."""
        if not self.readable:
            raise SyscallError(Errno.EBADF)
        inode = self.inode
        if inode.unread:
            data, inode.unread = inode.unread[:count], inode.unread[count:]
            return data
        if inode.source is not None:
            return inode.source(count) or b""
        if inode.fd < 0:
            return b""
        if inode.terminal is not None:
            inode.terminal.check_foreground(Signal.SIGTTIN)
        if inode.waiter is not None and count and not inode.waiter(0):
            self._block(POLLIN)
        try:
            data = os.read(inode.fd, count)
            inode.queue.wake()
            return data
        except BlockingIOError:
            self._block(POLLIN)
        except OSError as error:
            raise_guest(error)

    def _block(self, events: int) -> NoReturn:
        if self.nonblocking:
            self.inode.queue.wake()
            raise SyscallError(Errno.EAGAIN)
        raise Blocked(host={self.inode.fd: events})

    def unread(self, data: bytes) -> None:
        """Keep ``data`` for the next read."""
        self.inode.unread = data + self.inode.unread

    def write(self, data: bytes) -> int:
        """Write what the host takes; EPIPE when nobody reads."""
        if not self.writable:
            raise SyscallError(Errno.EBADF)
        inode = self.inode
        try:
            if inode.fd < 0:
                done = inode.sink(data) if inode.sink is not None else None
                return len(data) if done is None else done
            if self.flags & O_APPEND and self._seekable:
                os.lseek(inode.fd, 0, os.SEEK_END)
            return os.write(inode.fd, data)
        except BlockingIOError:
            self._block(POLLOUT)
        except OSError as error:
            raise_guest(error)

    def pread(self, offset: int, count: int) -> bytes:
        """Read a redirected file."""
        if not self._seekable:
            raise SyscallError(Errno.ESPIPE)
        if not self.readable:
            raise SyscallError(Errno.EBADF)
        return self.inode.read_at(offset, count)

    def pwrite(self, offset: int, data: bytes) -> int:
        """Write to a redirected file."""
        if not self._seekable:
            raise SyscallError(Errno.ESPIPE)
        if not self.writable:
            raise SyscallError(Errno.EBADF)
        return self.inode.write_at(offset, data)

    def seek(self, offset: int, whence: int) -> int:
        """Seek in a redirected file; the host decides."""
        if self.inode.fd < 0:
            raise SyscallError(Errno.ESPIPE)
        try:
            return os.lseek(self.inode.fd, offset, whence)
        except (OSError, OverflowError) as error:
            if isinstance(error, OverflowError):
                raise SyscallError(Errno.EINVAL) from error
            raise_guest(error)

    def truncate(self, size: int) -> None:
        """Set a redirected file's length."""
        if not self.writable:
            raise SyscallError(Errno.EINVAL)
        self.inode.truncate(size)

    def ioctl(self, memory: UserMemory, request: int, argument: int) -> int:
        """A host terminal answers TCGETS, TIOCGWINSZ and FIONREAD, and takes new modes while the guest runs."""
        fd = self.inode.fd
        length = _TERMINAL_REQUESTS.get(request)
        if request in (TCSETS, TCSETSW, TCSETSF) and fd >= 0 and os.isatty(fd):
            modes = memory.read(argument, 36)
            if self.inode.terminal is not None:
                self.inode.terminal.check_foreground(Signal.SIGTTOU)
            try:
                self.inode.set_modes(request, modes)
            except OSError as error:
                raise_guest(error)
            return 0
        if request in (TCSBRK, TCXONC, TCFLSH) and self.inode.terminal is not None:
            return 0
        if length is None or fd < 0 or (request != FIONREAD and not os.isatty(fd)):
            raise SyscallError(Errno.ENOTTY)
        from fcntl import ioctl

        try:
            memory.write(argument, ioctl(fd, request, bytes(length)))
        except OSError as error:
            raise_guest(error)
        return 0

    def terminal(self) -> Terminal | None:
        """The host's terminal."""
        return self.inode.terminal

    def poll(self) -> int:
        """What the host's poll says now."""
        if self.inode.fd < 0:
            return ALWAYS_READY
        if self.inode.unread:
            return POLLIN | POLLRDNORM
        return host_poll({self.inode.fd: POLLIN | POLLOUT}, 0).get(self.inode.fd, 0)

    def wait_queues(self) -> tuple[WaitQueue, ...]:
        """For edge-triggered epoll."""
        return (self.inode.queue,)

    def add_host(self, wanted: dict[int, int], events: int) -> None:
        """The host descriptor."""
        fd = self.inode.fd
        if fd >= 0:
            wanted[fd] = wanted.get(fd, 0) | events & (POLLIN | POLLOUT)

    def sync(self) -> None:
        """Sync a redirected file."""
        if not self._seekable:
            raise SyscallError(Errno.EINVAL)
        os.fsync(self.inode.fd)


def host_poll(wanted: dict[int, int], timeout_ms: int | None) -> dict[int, int]:
    """Wait on host descriptors; the guest's POLL* bits that are true, by descriptor. None waits for ever."""
    import select

    if not hasattr(select, "poll"):
        return dict.fromkeys(wanted, ALWAYS_READY)
    poller = select.poll()
    for fd, events in wanted.items():
        inward = select.POLLIN if events & POLLIN else 0
        poller.register(fd, inward | (select.POLLOUT if events & POLLOUT else 0))
    ready = {}
    for fd, events in poller.poll(timeout_ms):
        bits = POLLIN | POLLRDNORM if events & select.POLLIN else 0
        bits |= POLLOUT | POLLWRNORM if events & select.POLLOUT else 0
        bits |= POLLHUP if events & select.POLLHUP else 0
        bits |= POLLERR if events & (select.POLLERR | select.POLLNVAL) else 0
        ready[fd] = bits
    return ready


def waiter(fd: int) -> Callable[[int], object] | None:
    import select

    if not hasattr(select, "poll"):
        return None
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return poller.poll


def _flushing(stream: IO[bytes]) -> Callable[[bytes], int | None]:
    flush = getattr(stream, "flush", None)

    def write(data: bytes) -> int | None:
        done = stream.write(data)
        if flush is not None:
            flush()
        return done

    return write


def _same_device(fd: int, path: str) -> bool:
    try:
        return os.fstat(fd).st_rdev == os.stat(path).st_rdev
    except OSError:
        return False
