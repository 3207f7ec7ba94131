"""Sets of descriptors watched together (epoll(7)), by fs/eventpoll.c's rules: a list of what may be ready.

A wake of a watched file puts it on that list. A wait looks at each file there: level-triggered ones stay on the
list while they are ready, edge-triggered ones leave it until the next wake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import O_RDWR, POLLERR, POLLHUP, POLLIN
from mmuemu.kernel.files.anonymous import AnonymousFile
from mmuemu.kernel.wait import WaitQueue

if TYPE_CHECKING:
    from mmuemu.kernel.files.inode import FileSystem
    from mmuemu.kernel.files.openfile import OpenFile

EPOLLEXCLUSIVE: Final = 1 << 28
EPOLLWAKEUP: Final = 1 << 29
EPOLLONESHOT: Final = 1 << 30
EPOLLET: Final = 1 << 31
_BEHAVIOUR: Final = EPOLLEXCLUSIVE | EPOLLWAKEUP | EPOLLONESHOT | EPOLLET
_ALWAYS: Final = POLLERR | POLLHUP
_EXCLUSIVE_OK: Final = _BEHAVIOUR & ~EPOLLONESHOT | 0x1D
"""What may stand beside EPOLLEXCLUSIVE: IN, OUT, ERR, HUP, WAKEUP, ET."""
MAX_NESTING: Final = 5


class Item:
    """One watched descriptor; it is what the file's queues wake."""

    __slots__ = ("data", "epoll", "events", "fd", "file", "on_host")

    def __init__(self, epoll: EpollFile, fd: int, file: OpenFile, events: int, data: int) -> None:
        self.epoll = epoll
        self.fd = fd
        self.file = file
        self.events = events
        self.data = data
        wanted: dict[int, int] = {}
        file.add_host(wanted, POLLIN)
        self.on_host = bool(wanted)
        """No queue tells when it is ready: the host must be asked."""

    def wake(self) -> None:
        """The file may be ready."""
        self.epoll.maybe_ready(self)

    def ready(self) -> int:
        """The wanted events that are true; 0 for one that EPOLLONESHOT switched off."""
        events = self.events & ~_BEHAVIOUR
        return self.file.poll() & (events | _ALWAYS) if events else 0


class EpollFile(AnonymousFile):
    """An epoll instance; ``queue`` is woken when one of its files may have become ready."""

    __slots__ = ("items", "may_be_ready", "queue")

    label = b"anon_inode:[eventpoll]"
    pollable = True

    def __init__(self, fs: FileSystem, flags: int) -> None:
        super().__init__(fs, O_RDWR | flags)
        self.items: dict[tuple[int, OpenFile], Item] = {}
        self.may_be_ready: dict[Item, None] = {}
        self.queue = WaitQueue()

    def read(self, count: int) -> bytes:
        """EINVAL."""
        raise SyscallError(Errno.EINVAL)

    # -- the set ---------------------------------------------------------------------------------------------------

    def add(self, fd: int, file: OpenFile, events: int, data: int) -> None:
        """EPOLL_CTL_ADD; EEXIST, EPERM for what is never waited for, ELOOP for instances in a circle."""
        if not file.pollable:
            raise SyscallError(Errno.EPERM)
        if events & EPOLLEXCLUSIVE and (events & ~_EXCLUSIVE_OK or isinstance(file, EpollFile)):
            raise SyscallError(Errno.EINVAL)
        if (fd, file) in self.items:
            raise SyscallError(Errno.EEXIST)
        if isinstance(file, EpollFile) and (file.reaches(self) or file.depth() + 1 >= MAX_NESTING):
            raise SyscallError(Errno.ELOOP)
        item = self.items[fd, file] = Item(self, fd, file, events, data)
        if file.on_close is None:
            file.on_close = []
        file.on_close.append(self._forget)
        for queue in file.wait_queues():
            queue.add(item)
        self.maybe_ready(item)

    def modify(self, fd: int, file: OpenFile, events: int, data: int) -> None:
        """EPOLL_CTL_MOD; ENOENT, EINVAL where EPOLLEXCLUSIVE is concerned."""
        item = self._item(fd, file)
        if (events | item.events) & EPOLLEXCLUSIVE:
            raise SyscallError(Errno.EINVAL)
        item.events = events
        item.data = data
        self.maybe_ready(item)

    def delete(self, fd: int, file: OpenFile) -> None:
        """EPOLL_CTL_DEL; ENOENT."""
        self._drop(self._item(fd, file))

    def _item(self, fd: int, file: OpenFile) -> Item:
        item = self.items.get((fd, file))
        if item is None:
            raise SyscallError(Errno.ENOENT)
        return item

    def _drop(self, item: Item) -> None:
        file = item.file
        del self.items[item.fd, file]
        self.may_be_ready.pop(item, None)
        for queue in file.wait_queues():
            queue.remove(item)
        if file.on_close is not None:
            file.on_close.remove(self._forget)

    def _forget(self, file: OpenFile) -> None:
        """A watched file was closed for good."""
        for item in [item for item in self.items.values() if item.file is file]:
            self._drop(item)

    def closed(self) -> None:
        """Nothing is watched any more."""
        super().closed()
        for item in list(self.items.values()):
            self._drop(item)

    def reaches(self, other: EpollFile) -> bool:
        """Whether ``other`` is this instance or watched by it, over however many."""
        inner = [item.file for item in self.items.values() if isinstance(item.file, EpollFile)]
        return self is other or any(file.reaches(other) for file in inner)

    def depth(self) -> int:
        """How many instances are nested below this one."""
        return max((1 + i.file.depth() for i in self.items.values() if isinstance(i.file, EpollFile)), default=0)

    # -- what is ready ---------------------------------------------------------------------------------------------

    def maybe_ready(self, item: Item) -> None:
        """Look at ``item`` at the next wait, and tell those who wait now."""
        self.may_be_ready[item] = None
        self.queue.wake()

    def harvest(self, limit: int) -> list[tuple[int, int]]:
        """Up to ``limit`` pairs of true events and the user's data, one a ready descriptor."""
        found: list[tuple[int, int]] = []
        again: list[Item] = []
        for item in list(self.may_be_ready):
            if len(found) == limit:
                break
            del self.may_be_ready[item]
            bits = item.ready()
            if bits:
                found.append((bits, item.data))
                if item.events & EPOLLONESHOT:
                    item.events &= _BEHAVIOUR
                elif not item.events & EPOLLET:
                    again.append(item)
            elif item.on_host:
                again.append(item)
        self.may_be_ready.update(dict.fromkeys(again))
        return found

    def poll(self) -> int:
        """Readable while something in the set is ready."""
        return POLLIN if any(item.ready() for item in self.may_be_ready) else 0

    def wait_queues(self) -> tuple[WaitQueue, ...]:
        """Its own."""
        return (self.queue,)

    def add_host(self, wanted: dict[int, int], events: int) -> None:
        """The host's part of the set."""
        for item in self.may_be_ready:
            if item.on_host or isinstance(item.file, EpollFile):
                item.file.add_host(wanted, item.events)
