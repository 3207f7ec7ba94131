"""System V IPC calls: shmget and friends, semget and friends, msgget and friends (ipc/*.c; sysvipc(7))."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.clock import NANOSECONDS
from mmuemu.kernel.ipc import ids as ipc
from mmuemu.kernel.ipc.msg import (
    MSG_COPY,
    MSG_EXCEPT,
    MSGMAX,
    MSGMNB,
    MSGMNI,
    Message,
    MessageQueue,
    Wish,
)
from mmuemu.kernel.ipc.sem import SEMAEM, SEMMNI, SEMMNS, SEMMSL, SEMOPM, SEMVMX, SemaphoreSet
from mmuemu.kernel.ipc.shm import SHM_LOCKED, SHMMAX, SHMMNI, Segment
from mmuemu.kernel.syscalls.table import signed32, signed64, syscall

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

IPC_RMID, IPC_SET, IPC_STAT, IPC_INFO = ipc.IPC_RMID, ipc.IPC_SET, ipc.IPC_STAT, ipc.IPC_INFO
SHM_LOCK: Final = 11
SHM_UNLOCK: Final = 12
SHM_STAT: Final = 13
SHM_INFO: Final = 14
SHM_STAT_ANY: Final = 15
GETPID: Final = 11
GETVAL: Final = 12
GETALL: Final = 13
GETNCNT: Final = 14
GETZCNT: Final = 15
SETVAL: Final = 16
SETALL: Final = 17
SEM_STAT: Final = 18
SEM_INFO: Final = 19
SEM_STAT_ANY: Final = 20
MSG_STAT: Final = 11
MSG_INFO: Final = 12
MSG_STAT_ANY: Final = 13
_SEMBUF: Final = struct.Struct("<Hhh")
_TIMESPEC: Final = struct.Struct("<qq")


def _stat(task: Task, ids: ipc.Ids[Any], identifier: int, buffer: int, command: int, commands: tuple[int, ...]) -> int:
    """IPC_STAT, or one of ``commands`` (_STAT, _STAT_ANY), which look by place and return the identifier."""
    found = ids.find(identifier) if command == IPC_STAT else ids.at(identifier)
    if command != commands[1]:
        found.demand(task, ipc.READ)
    task.memory.write(buffer, found.pack())
    return 0 if command == IPC_STAT else int(found.id)


# Shared memory


@syscall(29, "shmget", "int", "size", "octal")
def sys_shmget(task: Task, key: int, size: int, flags: int) -> int:
    """shmget(2)."""
    return task.kernel.ipc.shm.get(task, key, size, flags)


@syscall(30, "shmat", "int", "addr", "octal")
def sys_shmat(task: Task, identifier: int, address: int, flags: int) -> int:
    """shmat(2)."""
    return task.kernel.ipc.shm.attach(task, identifier, address, flags)


@syscall(67, "shmdt", "addr")
def sys_shmdt(task: Task, address: int) -> int:
    """shmdt(2)."""
    task.kernel.ipc.shm.detach(task, address)
    return 0


@syscall(31, "shmctl", "int", "int", "ptr")
def sys_shmctl(task: Task, identifier: int, command: int, buffer: int) -> int:
    """shmctl(2)."""
    shm = task.kernel.ipc.shm
    if command < 0 or identifier < 0:
        raise SyscallError(Errno.EINVAL)
    if command == IPC_INFO:
        task.memory.write(buffer, struct.pack("<5Q32x", SHMMAX, 1, SHMMNI, SHMMNI, SHMMAX))
        return shm.ids.highest
    if command == SHM_INFO:
        total = sum(segment.size >> 12 for segment in shm.ids)
        resident = sum(len(segment.pages.pages) for segment in shm.ids)
        task.memory.write(buffer, struct.pack("<i4x5Q", len(shm.ids), total, resident, 0, 0, 0))
        return shm.ids.highest
    if command in (IPC_STAT, SHM_STAT, SHM_STAT_ANY):
        return _stat(task, shm.ids, identifier, buffer, command, (SHM_STAT, SHM_STAT_ANY))
    if command not in _SHM_CHANGES:
        raise SyscallError(Errno.EINVAL)
    data = task.memory.read(buffer, 112) if command == IPC_SET else b""
    segment = shm.ids.find(identifier)
    segment.demand_owner(task)
    _SHM_CHANGES[command](task, segment, data)
    return 0


def _shm_lock(bits: int) -> Callable[[Task, Segment, bytes], None]:
    def change(_task: Task, segment: Segment, _data: bytes) -> None:
        segment.mode = segment.mode & ~SHM_LOCKED | bits

    return change


_SHM_CHANGES: Final[dict[int, Callable[[Any, Segment, bytes], None]]] = {
    IPC_RMID: lambda task, segment, data: segment.remove(),
    IPC_SET: lambda task, segment, data: segment.set_permissions(task, data),
    SHM_LOCK: _shm_lock(SHM_LOCKED),
    SHM_UNLOCK: _shm_lock(0),
}


# Semaphores


@syscall(64, "semget", "int", "int", "octal")
def sys_semget(task: Task, key: int, count: int, flags: int) -> int:
    """semget(2)."""
    return task.kernel.ipc.sem.get(task, key, count, flags)


@syscall(65, "semop", "int", "ptr", "size")
def sys_semop(task: Task, identifier: int, operations: int, count: int) -> int:
    """semop(2)."""
    return sys_semtimedop(task, identifier, operations, count, 0)


@syscall(220, "semtimedop", "int", "ptr", "size", "ptr")
def sys_semtimedop(task: Task, identifier: int, operations: int, count: int, timeout: int) -> int:
    """semtimedop(2)."""
    deadline = None
    if timeout and task.call_state is None:
        seconds, nanoseconds = _TIMESPEC.unpack(task.memory.read(timeout, 16))
        if seconds < 0 or not 0 <= nanoseconds < NANOSECONDS:
            raise SyscallError(Errno.EINVAL)
        deadline = task.kernel.clock.now() + seconds * NANOSECONDS + nanoseconds
    count &= 0xFFFF_FFFF
    if not count or identifier < 0:
        raise SyscallError(Errno.EINVAL)
    if count > SEMOPM:
        raise SyscallError(Errno.E2BIG)
    parts = list(_SEMBUF.iter_unpack(task.memory.read(operations, 6 * count)))
    return task.kernel.ipc.sem.operate(task, identifier, parts, deadline)


@syscall(66, "semctl", "int", "int", "int", "ulong")
def sys_semctl(task: Task, identifier: int, number: int, command: int, argument: int) -> int:
    """semctl(2)."""
    sem = task.kernel.ipc.sem
    if identifier < 0:
        raise SyscallError(Errno.EINVAL)
    if command in (IPC_INFO, SEM_INFO):
        used = (len(sem.ids), sum(len(found.values) for found in sem.ids)) if command == SEM_INFO else (20, SEMAEM)
        limits = (SEMMNS, SEMMNI, SEMMNS, SEMMNS, SEMMSL, SEMOPM, SEMOPM, used[0], SEMVMX, used[1])
        task.memory.write(argument, struct.pack("<10i", *limits))
        return sem.ids.highest
    if command in (IPC_STAT, SEM_STAT, SEM_STAT_ANY):
        return _stat(task, sem.ids, identifier, argument, command, (SEM_STAT, SEM_STAT_ANY))
    if command == SETVAL and not 0 <= signed32(argument) <= SEMVMX:
        raise SyscallError(Errno.ERANGE)
    if command in (IPC_RMID, IPC_SET):
        data = task.memory.read(argument, 104) if command == IPC_SET else b""
        found = sem.ids.find(identifier)
        found.demand_owner(task)
        if command == IPC_RMID:
            sem.remove(found)
        else:
            found.set_permissions(task, data)
        return 0
    handler = _SEM_COMMANDS.get(command)
    if handler is None:
        raise SyscallError(Errno.EINVAL)
    return handler(task, sem.ids.find(identifier), number, argument)


def _all_values(task: Task, found: SemaphoreSet, _number: int, argument: int) -> int:
    found.demand(task, ipc.READ)
    task.memory.write(argument, struct.pack(f"<{len(found.values)}H", *found.values))
    return 0


def _set_all_values(task: Task, found: SemaphoreSet, _number: int, argument: int) -> int:
    found.demand(task, ipc.WRITE)
    count = len(found.values)
    values = struct.unpack(f"<{count}H", task.memory.read(argument, 2 * count))
    if any(value > SEMVMX for value in values):
        raise SyscallError(Errno.ERANGE)
    found.set_values(task, 0, values)
    return 0


def _one(found: SemaphoreSet, number: int) -> int:
    if not 0 <= number < len(found.values):
        raise SyscallError(Errno.EINVAL)
    return number


def _set_value(task: Task, found: SemaphoreSet, number: int, argument: int) -> int:
    _one(found, number)
    found.demand(task, ipc.WRITE)
    found.set_values(task, number, (signed32(argument),))
    return 0


def _reader(read: Callable[[SemaphoreSet, int], int]) -> Callable[[Task, SemaphoreSet, int, int], int]:
    def command(task: Task, found: SemaphoreSet, number: int, _argument: int) -> int:
        found.demand(task, ipc.READ)
        return read(found, _one(found, number))

    return command


_SEM_COMMANDS: Final[dict[int, Callable[[Any, SemaphoreSet, int, int], int]]] = {
    GETVAL: _reader(lambda found, number: found.values[number]),
    GETPID: _reader(lambda found, number: found.pids[number]),
    GETNCNT: _reader(lambda found, number: found.count(number, zero=False)),
    GETZCNT: _reader(lambda found, number: found.count(number, zero=True)),
    GETALL: _all_values,
    SETALL: _set_all_values,
    SETVAL: _set_value,
}


# Message queues


@syscall(68, "msgget", "int", "octal")
def sys_msgget(task: Task, key: int, flags: int) -> int:
    """msgget(2)."""
    return task.kernel.ipc.msg.get(task, key, flags)


@syscall(69, "msgsnd", "int", "ptr", "size", "octal")
def sys_msgsnd(task: Task, identifier: int, buffer: int, size: int, flags: int) -> int:
    """msgsnd(2)."""
    kind = signed64(task.memory.read_u64(buffer))
    if size > MSGMAX or identifier < 0 or kind < 1:
        raise SyscallError(Errno.EINVAL)
    text = task.memory.read(buffer + 8, size) if size else b""
    return task.kernel.ipc.msg.send(task, identifier, Message(kind, text), flags)


@syscall(70, "msgrcv", "int", "ptr", "size", "long", "octal")
def sys_msgrcv(task: Task, identifier: int, buffer: int, size: int, kind: int, flags: int) -> int:
    """msgrcv(2)."""
    if identifier < 0 or size >> 63:
        raise SyscallError(Errno.EINVAL)
    if flags & MSG_COPY and (flags & MSG_EXCEPT or not flags & ipc.IPC_NOWAIT):
        raise SyscallError(Errno.EINVAL)
    message = task.kernel.ipc.msg.receive(task, identifier, Wish(kind, flags, size))
    text = message.text[:size]
    task.memory.write_u64(buffer, message.kind)
    if text:
        task.memory.write(buffer + 8, text)
    return len(text)


@syscall(71, "msgctl", "int", "int", "ptr")
def sys_msgctl(task: Task, identifier: int, command: int, buffer: int) -> int:
    """msgctl(2)."""
    msg = task.kernel.ipc.msg
    if identifier < 0 or command < 0:
        raise SyscallError(Errno.EINVAL)
    if command in (IPC_INFO, MSG_INFO):
        used = (MSGMNI * MSGMNB >> 10, MSGMNB, MSGMNB)
        if command == MSG_INFO:
            used = (len(msg.ids), sum(len(q.messages) for q in msg.ids), sum(q.bytes for q in msg.ids))
        task.memory.write(buffer, struct.pack("<7iH2x", used[0], used[1], MSGMAX, MSGMNB, MSGMNI, 16, used[2], 0xFFFF))
        return msg.ids.highest
    if command in (IPC_STAT, MSG_STAT, MSG_STAT_ANY):
        return _stat(task, msg.ids, identifier, buffer, command, (MSG_STAT, MSG_STAT_ANY))
    if command not in (IPC_RMID, IPC_SET):
        raise SyscallError(Errno.EINVAL)
    data = task.memory.read(buffer, 120) if command == IPC_SET else b""
    found = msg.ids.find(identifier)
    found.demand_owner(task)
    if command == IPC_RMID:
        msg.remove(found)
    else:
        _set_queue(task, found, data)
    return 0


def _set_queue(task: Task, found: MessageQueue, data: bytes) -> None:
    (limit,) = struct.unpack_from("<Q", data, 88)
    if limit > MSGMNB and task.uid:
        raise SyscallError(Errno.EPERM)
    found.set_permissions(task, data)
    found.limit = limit
    found.admit()
