"""Watches on files and directories (inotify(7)); who tells them is :mod:`mmuemu.kernel.files.notify`."""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import FIONREAD, O_RDONLY, POLLIN, POLLRDNORM
from mmuemu.kernel.abi.inotify import (
    IN_ALL_EVENTS,
    IN_DELETE_SELF,
    IN_EXCL_UNLINK,
    IN_IGNORED,
    IN_ISDIR,
    IN_MASK_ADD,
    IN_MASK_CREATE,
    IN_MOVE_SELF,
    IN_ONESHOT,
    IN_Q_OVERFLOW,
    MAX_QUEUED_EVENTS,
    MAX_USER_INSTANCES,
    MAX_USER_WATCHES,
)
from mmuemu.kernel.files.anonymous import AnonymousFile
from mmuemu.kernel.wait import Blocked, WaitQueue

if TYPE_CHECKING:
    from mmuemu.kernel.files.inode import FileSystem, Inode
    from mmuemu.kernel.files.openfile import UserMemory

_HEADER: Final = struct.Struct("<iIII")
_KEPT: Final = IN_ALL_EVENTS | IN_ONESHOT | IN_EXCL_UNLINK
_SELF: Final = IN_DELETE_SELF | IN_MOVE_SELF
_LAST_WD: Final = 0x7FFF_FFFF


class Notifications:
    """What all instances of a machine share: how many they are, how many watches they have, the last cookie."""

    __slots__ = ("cookie", "instances", "watches")

    def __init__(self) -> None:
        self.instances = 0
        self.watches = 0
        self.cookie = 0


class Watch:
    """One instance's interest in one inode, which it keeps alive; ``wd`` is its number in the instance."""

    __slots__ = ("file", "inode", "mask", "wd")

    def __init__(self, file: InotifyFile, inode: Inode, wd: int, mask: int) -> None:
        self.file = file
        self.inode = inode
        self.wd = wd
        self.mask = mask

    @property
    def named_only(self) -> bool:
        """IN_EXCL_UNLINK: a file in the directory is of no interest once it has no name there."""
        return bool(self.mask & IN_EXCL_UNLINK)

    def next_cookie(self) -> int:
        """A number for the two halves of a move."""
        shared = self.file.shared
        shared.cookie = shared.cookie + 1 & 0xFFFF_FFFF or 1
        return shared.cookie

    def tell(self, mask: int, name: bytes = b"", cookie: int = 0) -> None:
        """``mask`` (one event, perhaps with IN_ISDIR) happened."""
        if not mask & self.mask & IN_ALL_EVENTS:
            return
        if mask & _SELF:
            mask &= ~IN_ISDIR
        self.file.queue_event(self.wd, mask, cookie, name)
        if self.mask & IN_ONESHOT:
            self.end()

    def end(self) -> None:
        """The watch is removed, which its instance hears of."""
        if self.wd in self.file.by_wd:
            self.file.queue_event(self.wd, IN_IGNORED)
            self.file.forget(self)


class InotifyFile(AnonymousFile):
    """One inotify instance: watches and the events that wait to be read."""

    __slots__ = ("by_wd", "last_wd", "overflowed", "pending", "queue", "shared")

    label = b"anon_inode:inotify"
    pollable = True

    def __init__(self, fs: FileSystem, shared: Notifications, flags: int) -> None:
        if shared.instances >= MAX_USER_INSTANCES:
            raise SyscallError(Errno.EMFILE)
        super().__init__(fs, O_RDONLY | flags)
        self.shared = shared
        self.by_wd: dict[int, Watch] = {}
        self.last_wd = 0
        self.pending: deque[tuple[int, int, int, bytes]] = deque()
        self.overflowed = False
        """Whether IN_Q_OVERFLOW waits to be read."""
        self.queue = WaitQueue()
        shared.instances += 1

    def watch(self, inode: Inode, mask: int) -> int:
        """Watch ``inode``, or change the watch it has; the number. EEXIST with IN_MASK_CREATE, ENOSPC."""
        wanted = mask & _KEPT
        for watch in inode.watches or ():
            if watch.file is self:
                if mask & IN_MASK_CREATE:
                    raise SyscallError(Errno.EEXIST)
                watch.mask = watch.mask | wanted if mask & IN_MASK_ADD else wanted
                return watch.wd
        if self.shared.watches >= MAX_USER_WATCHES:
            raise SyscallError(Errno.ENOSPC)
        wd = self.last_wd
        while True:
            wd = 1 if wd == _LAST_WD else wd + 1
            if wd not in self.by_wd:
                break
        watch = self.by_wd[wd] = Watch(self, inode, wd, wanted)
        self.last_wd = wd
        if inode.watches is None:
            inode.watches = []
        inode.watches.append(watch)
        inode.fs.watched += 1
        self.shared.watches += 1
        return wd

    def forget(self, watch: Watch) -> None:
        """Take a watch out of everything."""
        del self.by_wd[watch.wd]
        inode = watch.inode
        assert inode.watches is not None
        inode.watches.remove(watch)
        inode.fs.watched -= 1
        self.shared.watches -= 1

    def unwatch(self, wd: int) -> None:
        """Remove a watch by its number; EINVAL."""
        watch = self.by_wd.get(wd)
        if watch is None:
            raise SyscallError(Errno.EINVAL)
        watch.end()

    def queue_event(self, wd: int, mask: int, cookie: int = 0, name: bytes = b"") -> None:
        """Add an event, unless the last one is the same (inotify_merge) or there are too many."""
        pending = self.pending
        if len(pending) >= MAX_QUEUED_EVENTS:
            if self.overflowed:
                return
            self.overflowed = True
            wd, mask, cookie, name = -1, IN_Q_OVERFLOW, 0, b""
        elif pending and mask != IN_IGNORED:
            last = pending[-1]
            if last[0] == wd and last[1] == mask and last[3] == name:
                return
        pending.append((wd, mask, cookie, name))
        self.queue.wake()

    @staticmethod
    def _room(name: bytes) -> int:
        """Bytes a name takes with its NUL and padding."""
        return (len(name) + 16) & ~15 if name else 0

    def read(self, count: int) -> bytes:
        """As many events as fit; EINVAL when not even the first does."""
        pending = self.pending
        if not pending:
            raise SyscallError(Errno.EAGAIN) if self.nonblocking else Blocked(self.queue)
        parts: list[bytes] = []
        used = 0
        while pending:
            wd, mask, cookie, name = pending[0]
            room = self._room(name)
            used += _HEADER.size + room
            if used > count:
                break
            pending.popleft()
            if mask == IN_Q_OVERFLOW:
                self.overflowed = False
            parts.append(_HEADER.pack(wd, mask, cookie, room) + name.ljust(room, b"\0"))
        if not parts:
            raise SyscallError(Errno.EINVAL)
        return b"".join(parts)

    def unread(self, data: bytes) -> None:
        """What was taken is lost when the buffer was bad (fs/notify/inotify/inotify_user.c: inotify_read)."""

    def ioctl(self, memory: UserMemory, request: int, argument: int) -> int:
        """FIONREAD: the bytes that wait."""
        if request != FIONREAD:
            return super().ioctl(memory, request, argument)
        total = sum(_HEADER.size + self._room(event[3]) for event in self.pending)
        memory.write(argument, total.to_bytes(4, "little"))
        return 0

    def poll(self) -> int:
        """Readable while there are events."""
        return POLLIN | POLLRDNORM if self.pending else 0

    def wait_queues(self) -> tuple[WaitQueue, ...]:
        """Woken by every event."""
        return (self.queue,)

    def closed(self) -> None:
        """All watches go with the last descriptor."""
        super().closed()
        for watch in list(self.by_wd.values()):
            self.forget(watch)
        self.pending.clear()
        self.shared.instances -= 1
