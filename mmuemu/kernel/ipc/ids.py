"""Identifiers, keys and permissions, the same for shared memory, semaphores and message queues (ipc/util.c)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.clock import NANOSECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmuemu.kernel.task import Task

IPC_PRIVATE: Final = 0
IPC_CREAT: Final = 0o1000
IPC_EXCL: Final = 0o2000
IPC_NOWAIT: Final = 0o4000
IPC_RMID: Final = 0
IPC_SET: Final = 1
IPC_STAT: Final = 2
IPC_INFO: Final = 3
PERMISSIONS: Final = 0o777
READ: Final = 0o444
WRITE: Final = 0o222
EXECUTE: Final = 0o111
MAX_IDS: Final = 1 << 15
"""IPCMNI: an identifier is a sequence number above a place of 15 bits."""
_CYCLE: Final = 64
_PERM: Final = struct.Struct("<iIIIIIH22x")
"""struct ipc64_perm: key, uid, gid, cuid, cgid, mode, sequence number."""
PERM_SIZE: Final = 48


def seconds(task: Task) -> int:
    """The time of day in seconds."""
    return task.kernel.clock.realtime() // NANOSECONDS


class IpcObject:
    """What every object has: key, identifier, owner, creator, mode, the time it was changed (``kern_ipc_perm``)."""

    def __init__(self, task: Task, key: int, mode: int) -> None:
        self.key = key
        self.id = -1
        self.uid = self.cuid = task.uid
        self.gid = self.cgid = task.gid
        self.mode = mode & PERMISSIONS
        self.ctime = seconds(task)
        self.removed = False

    def permits(self, task: Task, wanted: int) -> bool:
        """Whether ``task`` may do ``wanted`` (READ, WRITE, EXECUTE or a mode of all three digits; ``ipcperms``)."""
        requested = (wanted >> 6 | wanted >> 3 | wanted) & 7
        granted = self.mode
        if task.uid in (self.uid, self.cuid):
            granted >>= 6
        elif task.gid in (self.gid, self.cgid):
            granted >>= 3
        return not requested & ~granted or task.uid == 0

    def demand(self, task: Task, wanted: int) -> None:
        """EACCES unless ``task`` may do ``wanted``."""
        if not self.permits(task, wanted):
            raise SyscallError(Errno.EACCES)

    def demand_owner(self, task: Task) -> None:
        """EPERM unless ``task`` is the owner's, the creator's or root's."""
        if task.uid not in (0, self.uid, self.cuid):
            raise SyscallError(Errno.EPERM)

    def pack_permissions(self) -> bytes:
        """The 48 bytes of ``struct ipc64_perm``."""
        return _PERM.pack(self.key, self.uid, self.gid, self.cuid, self.cgid, self.mode, self.id >> 15 & 0xFFFF)

    def set_permissions(self, task: Task, data: bytes) -> None:
        """IPC_SET: owner and mode out of a ``struct ipc64_perm``."""
        _, uid, gid, _, _, mode, _ = _PERM.unpack(data[:PERM_SIZE])
        if 0xFFFF_FFFF in (uid, gid):
            raise SyscallError(Errno.EINVAL)
        self.uid, self.gid = uid, gid
        self.mode = self.mode & ~PERMISSIONS | mode & PERMISSIONS
        self.ctime = seconds(task)


T = TypeVar("T", bound=IpcObject)


class Ids(Generic[T]):
    """The objects of one kind, by identifier and by key; at most ``limit`` of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._objects: dict[int, T] = {}
        self._keys: dict[int, T] = {}
        self._last = -1
        self._sequence = 0

    def __iter__(self) -> Iterator[T]:
        """The objects by their places."""
        return iter([self._objects[place] for place in sorted(self._objects)])

    def __len__(self) -> int:
        return len(self._objects)

    @property
    def highest(self) -> int:
        """The highest place in use; 0 when there is none (what the _INFO commands return)."""
        return max(self._objects, default=0)

    def get(self, task: Task, key: int, flags: int, make: Callable[[], T], check: Callable[[T], bool]) -> int:
        """shmget(2) and its kin: the identifier of the object with ``key``, made if need be (``ipcget``).

        ``check`` says whether what is there is as was asked. EEXIST, ENOENT, EINVAL, EACCES, ENOSPC.
        """
        found = self._keys.get(key) if key != IPC_PRIVATE else None
        if found is None:
            if key != IPC_PRIVATE and not flags & IPC_CREAT:
                raise SyscallError(Errno.ENOENT)
            return self._add(make)
        if flags & IPC_CREAT and flags & IPC_EXCL:
            raise SyscallError(Errno.EEXIST)
        if not check(found):
            raise SyscallError(Errno.EINVAL)
        found.demand(task, flags)
        return found.id

    def _add(self, make: Callable[[], T]) -> int:
        made = make()
        if len(self._objects) >= self.limit:
            raise SyscallError(Errno.ENOSPC)
        cycle = min(max(len(self._objects) * 3 // 2, _CYCLE), self.limit)
        order = [*range(self._last + 1, cycle), *range(min(self._last + 1, cycle))]
        place = next(number for number in order if number not in self._objects)
        if place <= self._last:
            self._sequence = (self._sequence + 1) % (1 << 16)
        self._last = place
        made.id = self._sequence << 15 | place
        self._objects[place] = made
        if made.key != IPC_PRIVATE:
            self._keys[made.key] = made
        return made.id

    def find(self, identifier: int) -> T:
        """The object; EINVAL when there is none."""
        found = self._objects.get(identifier & (MAX_IDS - 1)) if identifier >= 0 else None
        if found is None or found.id != identifier:
            raise SyscallError(Errno.EINVAL)
        return found

    def at(self, place: int) -> T:
        """The object at a place (the _STAT commands); EINVAL when there is none."""
        found = self._objects.get(place)
        if found is None:
            raise SyscallError(Errno.EINVAL)
        return found

    def forget_key(self, item: T) -> None:
        """Nobody finds ``item`` by its key any more."""
        if self._keys.get(item.key) is item:
            del self._keys[item.key]
        item.key = IPC_PRIVATE

    def remove(self, item: T) -> None:
        """``item`` exists no more; its key stays readable in it."""
        if self._keys.get(item.key) is item:
            del self._keys[item.key]
        self._objects.pop(item.id & (MAX_IDS - 1), None)
        item.removed = True
