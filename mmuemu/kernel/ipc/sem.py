"""System V semaphores (ipc/sem.c): several operations at once, all or none."""

from __future__ import annotations

import struct
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.ipc.ids import IPC_NOWAIT, READ, WRITE, Ids, IpcObject, seconds
from mmuemu.kernel.sleeper import Sleeper, sleeping

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

SEM_UNDO: Final = 0x1000
SEMMSL: Final = 32000
SEMMNI: Final = 32000
SEMMNS: Final = SEMMSL * SEMMNI
SEMOPM: Final = 500
SEMVMX: Final = 32767
SEMAEM: Final = SEMVMX
_DS: Final = struct.Struct("<q8xq8xQ16x")

Operation = tuple[int, int, int]
"""struct sembuf: the semaphore's number, what is added, flags."""


def owner_of(task: Task) -> Hashable:
    """Whose SEM_UNDO adjustments ``task`` makes: its process's (threads share them, CLONE_SYSVSEM)."""
    return getattr(task, "process", task)


class SemSleeper(Sleeper):
    """A semop(2) that waits; ``blocking`` is the operation that cannot be done yet."""

    __slots__ = ("blocking", "operations")

    def __init__(self, task: Task, deadline: int | None, operations: Sequence[Operation], blocking: Operation) -> None:
        super().__init__(task, deadline)
        self.operations = operations
        self.blocking = blocking


class SemaphoreSet(IpcObject):
    """One set: values, who changed each last, who waits, and what is to be undone for whom."""

    def __init__(self, task: Task, key: int, mode: int, count: int) -> None:
        super().__init__(task, key, mode)
        self.values = [0] * count
        self.pids = [0] * count
        self.otime = 0
        self.pending: list[SemSleeper] = []
        self.undo: dict[Hashable, dict[int, int]] = {}
        """What is added to which semaphore when a process ends."""

    def try_operations(self, task: Task, operations: Sequence[Operation]) -> Operation | None:
        """Do all of ``operations`` or none; the one that has to wait, None when they are done.

        EAGAIN when that one has IPC_NOWAIT, ERANGE for a value or an adjustment out of bounds
        (``perform_atomic_semop``).
        """
        values: dict[int, int] = {}
        adjust: dict[int, int] = {}
        undo = self.undo.get(owner_of(task), {})
        for operation in operations:
            number, change, flags = operation
            value = values.get(number, self.values[number])
            if (not change and value) or value + change < 0:
                if flags & IPC_NOWAIT:
                    raise SyscallError(Errno.EAGAIN)
                return operation
            values[number] = value + change
            if value + change > SEMVMX:
                raise SyscallError(Errno.ERANGE)
            if flags & SEM_UNDO:
                adjust[number] = adjust.get(number, undo.get(number, 0)) - change
                if not -SEMAEM - 1 <= adjust[number] <= SEMAEM:
                    raise SyscallError(Errno.ERANGE)
        for number, value in values.items():
            self.values[number] = value
            self.pids[number] = task.pid
        if adjust:
            self.undo[owner_of(task)] = {**undo, **adjust}
        self.otime = seconds(task)
        return None

    def waiting(self) -> list[SemSleeper]:
        """Those whose operations wait, the oldest first."""
        self.pending = [sleeper for sleeper in self.pending if sleeper.asleep]
        return self.pending

    def update(self) -> None:
        """Values have changed: do what can be done now, in the order of arrival (``update_queue``)."""
        again = True
        while again:
            again = False
            for sleeper in self.waiting():
                try:
                    blocking = self.try_operations(sleeper.task, sleeper.operations)
                except SyscallError as error:
                    sleeper.finish(-error.errno)
                    continue
                if blocking is not None:
                    sleeper.blocking = blocking
                    continue
                sleeper.finish()
                if any(change for _, change, _ in sleeper.operations):
                    again = True
                    break

    def count(self, number: int, zero: bool) -> int:
        """How many wait for a semaphore to become zero, or to grow (GETZCNT, GETNCNT)."""
        blocking = [sleeper.blocking for sleeper in self.waiting()]
        return sum(which == number and (change == 0) == zero for which, change, _ in blocking)

    def set_values(self, task: Task, first: int, values: Sequence[int]) -> None:
        """SETVAL, SETALL: new values, for which nothing is undone any more."""
        for number, value in enumerate(values, first):
            self.values[number] = value
            self.pids[number] = task.pid
            for adjust in self.undo.values():
                adjust.pop(number, None)
        self.ctime = seconds(task)
        self.update()

    def undo_for(self, task: Task) -> None:
        """The process of ``task`` ends (``exit_sem``)."""
        adjust = self.undo.pop(owner_of(task), None)
        if adjust is None:
            return
        for number, change in adjust.items():
            if change:
                self.values[number] = min(max(self.values[number] + change, 0), SEMVMX)
                self.pids[number] = task.pid
        self.update()

    def pack(self) -> bytes:
        """The 104 bytes of ``struct semid64_ds``."""
        return self.pack_permissions() + _DS.pack(self.otime, self.ctime, len(self.values))

    def line(self) -> str:
        """Its line of /proc/sysvipc/sem."""
        return (
            f"{self.key:10d} {self.id:10d}  {self.mode:4o} {len(self.values):10d} {self.uid:5d} {self.gid:5d} "
            f"{self.cuid:5d} {self.cgid:5d} {self.otime:10d} {self.ctime:10d}\n"
        )


class Semaphores:
    """Every semaphore set of a machine."""

    HEADER: Final = "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n"

    def __init__(self) -> None:
        self.ids: Ids[SemaphoreSet] = Ids(SEMMNI)

    def get(self, task: Task, key: int, count: int, flags: int) -> int:
        """semget(2)."""
        if not 0 <= count <= SEMMSL:
            raise SyscallError(Errno.EINVAL)

        def make() -> SemaphoreSet:
            if not count:
                raise SyscallError(Errno.EINVAL)
            return SemaphoreSet(task, key, flags, count)

        return self.ids.get(task, key, flags, make, lambda found: count <= len(found.values))

    def operate(self, task: Task, identifier: int, operations: Sequence[Operation], deadline: int | None) -> int:
        """semop(2) and semtimedop(2): EFBIG, EACCES, EAGAIN, ERANGE; EIDRM when the set went meanwhile."""
        sleeper = sleeping(task, SemSleeper)
        if sleeper is None:
            found = self.ids.find(identifier)
            if any(number >= len(found.values) for number, _, _ in operations):
                raise SyscallError(Errno.EFBIG)
            alters = any(change for _, change, _ in operations)
            found.demand(task, WRITE if alters else READ)
            blocking = found.try_operations(task, operations)
            if blocking is None:
                if alters and found.pending:
                    found.update()
                return 0
            sleeper = SemSleeper(task, deadline, operations, blocking)
            found.pending.append(sleeper)
        return sleeper.wait(restart=False, late=Errno.EAGAIN)

    def remove(self, found: SemaphoreSet) -> None:
        """IPC_RMID: who waits gets EIDRM."""
        self.ids.remove(found)
        for sleeper in found.waiting():
            sleeper.finish(-Errno.EIDRM)

    def exit(self, task: Task) -> None:
        """The process of ``task`` ends: undo what it asked for with SEM_UNDO."""
        for found in self.ids:
            if found.undo:
                found.undo_for(task)

    def text(self) -> str:
        """/proc/sysvipc/sem."""
        return self.HEADER + "".join(found.line() for found in self.ids)
