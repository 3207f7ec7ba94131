"""Locks on files: record locks of processes and of open files (fcntl(2)), and flock(2)'s, which know no others.

Semantics: fs/locks.c. A record lock's owner is a descriptor table (POSIX) or an open file description (OFD).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from weakref import WeakSet

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import F_RDLCK, F_UNLCK, LOCK_EX, LOCK_UN
from mmuemu.kernel.wait import WaitQueue

if TYPE_CHECKING:
    from typing import TypeAlias

    from mmuemu.kernel.files.fdtable import FdTable
    from mmuemu.kernel.files.openfile import OpenFile

    Owner: TypeAlias = FdTable | OpenFile

LAST_BYTE: Final = (1 << 63) - 1
"""The end of a lock that reaches to the end of the file, however long it grows."""


class RecordLock:
    """Bytes ``start`` to ``end``, both included, locked for reading or writing by ``owner``."""

    __slots__ = ("end", "kind", "owner", "pid", "start")

    def __init__(self, owner: Owner, pid: int, kind: int, start: int, end: int) -> None:
        self.owner = owner
        self.pid = pid
        self.kind = kind
        self.start = start
        self.end = end


class LockWait:
    """``owner`` sleeps until ``holder`` gives way. It counts for as long as somebody keeps it."""

    __slots__ = ("__weakref__", "holder", "owner")

    def __init__(self, owner: Owner, holder: Owner) -> None:
        self.owner = owner
        self.holder = holder


_WAITS: WeakSet[LockWait] = WeakSet()


class FileLocks:
    """All locks on one file; ``queue`` is woken when one goes."""

    __slots__ = ("flocks", "queue", "records")

    def __init__(self) -> None:
        self.records: list[RecordLock] = []
        self.flocks: dict[OpenFile, int] = {}
        self.queue = WaitQueue()

    def conflict(self, wanted: RecordLock) -> RecordLock | None:
        """The first lock of another owner that stands in the way of ``wanted``."""
        for lock in self.records:
            if (
                lock.owner is not wanted.owner
                and lock.start <= wanted.end
                and wanted.start <= lock.end
                and not lock.kind == wanted.kind == F_RDLCK
            ):
                return lock
        return None

    def set(self, wanted: RecordLock) -> None:
        """Lock or, for F_UNLCK, unlock a range: it replaces what the owner has there, joining what it touches."""
        kept: list[RecordLock] = []
        start, end = wanted.start, wanted.end
        for lock in self.records:
            if lock.owner is not wanted.owner:
                kept.append(lock)
            elif lock.kind == wanted.kind and lock.start <= end + 1 and start <= lock.end + 1:
                start, end = min(start, lock.start), max(end, lock.end)
            else:
                if lock.start < wanted.start:
                    left = min(lock.end, wanted.start - 1)
                    kept.append(RecordLock(lock.owner, lock.pid, lock.kind, lock.start, left))
                if lock.end > wanted.end:
                    right = max(lock.start, wanted.end + 1)
                    kept.append(RecordLock(lock.owner, lock.pid, lock.kind, right, lock.end))
        if wanted.kind != F_UNLCK:
            kept.append(RecordLock(wanted.owner, wanted.pid, wanted.kind, start, end))
        kept.sort(key=lambda lock: lock.start)
        self.records = kept
        self.queue.wake()

    def wait_for(self, owner: Owner, holder: Owner) -> LockWait:
        """A note that ``owner`` waits for ``holder``; EDEADLK when ``holder`` waits, over whomever, for it."""
        seen: list[Owner] = []
        waited_for = [holder]
        while waited_for:
            one = waited_for.pop()
            if one is owner:
                raise SyscallError(Errno.EDEADLK)
            if not any(one is other for other in seen):
                seen.append(one)
                waited_for += [wait.holder for wait in _WAITS if wait.owner is one]
        note = LockWait(owner, holder)
        _WAITS.add(note)
        return note

    def remove_owner(self, owner: Owner) -> None:
        """Drop every record lock of ``owner``."""
        kept = [lock for lock in self.records if lock.owner is not owner]
        if len(kept) != len(self.records):
            self.records = kept
            self.queue.wake()

    def closed(self, file: OpenFile) -> None:
        """An open file description is gone: so are its OFD locks and its flock."""
        self.remove_owner(file)
        if self.flocks.pop(file, None) is not None:
            self.queue.wake()

    def flock(self, file: OpenFile, kind: int) -> bool:
        """Take (LOCK_SH, LOCK_EX) or drop (LOCK_UN) a file's lock; False when others' stand in the way.

        Changing a lock's kind drops it first, and does not get it back when the new one is refused.
        """
        if self.flocks.get(file) == kind:
            return True
        if self.flocks.pop(file, None) is not None:
            self.queue.wake()
        if kind == LOCK_UN:
            return True
        if LOCK_EX in self.flocks.values() or (kind == LOCK_EX and self.flocks):
            return False
        self.flocks[file] = kind
        return True
