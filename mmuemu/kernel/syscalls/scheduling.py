"""Scheduling calls that tell or change a task's policy, and calls about a machine of one CPU and one memory node."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.life import SCHED_RESET_ON_FORK
from mmuemu.kernel.syscalls.table import signed32, syscall

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

SCHED_OTHER: Final = 0
SCHED_FIFO: Final = 1
SCHED_RR: Final = 2
SCHED_BATCH: Final = 3
SCHED_IDLE: Final = 5
SCHED_DEADLINE: Final = 6
_REALTIME: Final = frozenset({SCHED_FIFO, SCHED_RR})
_POLICIES: Final = frozenset({SCHED_OTHER, SCHED_FIFO, SCHED_RR, SCHED_BATCH, SCHED_IDLE})
_TIMESPEC: Final = struct.Struct("<qq")
_QUANTUM: Final = 4_000_000
_ATTR: Final = struct.Struct("<IIQiIQQQ")
"""struct sched_attr, version 0: size, policy, flags, nice, priority, runtime, deadline, period."""
_FLAG_RESET_ON_FORK: Final = 1

MEMBARRIER_QUERY: Final = 0
MEMBARRIER_GET_REGISTRATIONS: Final = 1 << 9
_REGISTER: Final = (1 << 1 | 1 << 2, 1 << 4, 1 << 6)
_MEMBARRIER_GLOBAL: Final = 1 << 0 | 1 << 1
_MEMBARRIER_PRIVATE: Final = {1 << 3: 1 << 4, 1 << 5: 1 << 6}
"""PRIVATE_EXPEDITED and its SYNC_CORE kind, with the registrations they need."""
_MEMBARRIER_ALL: Final = 0x7F | MEMBARRIER_GET_REGISTRATIONS
_REGISTRATIONS: Final = 1 << 2 | 1 << 4 | 1 << 6

IOPRIO_WHO_PROCESS: Final = 1
IOPRIO_WHO_USER: Final = 3
_IOPRIO_CLASSES: Final = 4
KCMP_FILE: Final = 0


def _other(task: Task, tid: int) -> Task:
    """The task meant: EINVAL for a negative number, ESRCH for nobody."""
    if tid < 0:
        raise SyscallError(Errno.EINVAL)
    found = task.kernel.tasks.get(tid) if tid else task
    if found is None:
        raise SyscallError(Errno.ESRCH)
    return found


def _set_policy(task: Task, tid: int, policy: int, priority: int) -> None:
    """``__sched_setscheduler``: EINVAL, EPERM for real-time policies and other users' tasks."""
    other = _other(task, tid)
    plain = policy & ~SCHED_RESET_ON_FORK
    if plain not in _POLICIES or not 0 <= priority <= 99 or (priority > 0) != (plain in _REALTIME):
        raise SyscallError(Errno.EINVAL)
    if task.uid and (plain in _REALTIME or task.uid != other.uid):
        raise SyscallError(Errno.EPERM)
    other.scheduling = (policy, priority)


@syscall(144, "sched_setscheduler", "pid", "int", "ptr")
def sys_sched_setscheduler(task: Task, tid: int, policy: int, parameters: int) -> int:
    """sched_setscheduler(2): recorded; tasks run in turn whatever their policy."""
    if policy < 0 or not parameters or tid < 0:
        raise SyscallError(Errno.EINVAL)
    _set_policy(task, tid, policy, signed32(task.memory.read_u32(parameters)))
    return 0


@syscall(145, "sched_getscheduler", "pid")
def sys_sched_getscheduler(task: Task, tid: int) -> int:
    """sched_getscheduler(2)."""
    return _other(task, tid).scheduling[0]


@syscall(142, "sched_setparam", "pid", "ptr")
def sys_sched_setparam(task: Task, tid: int, parameters: int) -> int:
    """sched_setparam(2)."""
    if not parameters or tid < 0:
        raise SyscallError(Errno.EINVAL)
    priority = signed32(task.memory.read_u32(parameters))
    _set_policy(task, tid, _other(task, tid).scheduling[0], priority)
    return 0


@syscall(143, "sched_getparam", "pid", "ptr")
def sys_sched_getparam(task: Task, tid: int, parameters: int) -> int:
    """sched_getparam(2)."""
    if not parameters or tid < 0:
        raise SyscallError(Errno.EINVAL)
    task.memory.write_u32(parameters, _other(task, tid).scheduling[1])
    return 0


@syscall(146, "sched_get_priority_max", "int")
def sys_sched_get_priority_max(_task: Task, policy: int) -> int:
    """sched_get_priority_max(2)."""
    if policy not in _POLICIES and policy != SCHED_DEADLINE:
        raise SyscallError(Errno.EINVAL)
    return 99 if policy in _REALTIME else 0


@syscall(147, "sched_get_priority_min", "int")
def sys_sched_get_priority_min(_task: Task, policy: int) -> int:
    """sched_get_priority_min(2)."""
    if policy not in _POLICIES and policy != SCHED_DEADLINE:
        raise SyscallError(Errno.EINVAL)
    return 1 if policy in _REALTIME else 0


@syscall(148, "sched_rr_get_interval", "pid", "ptr")
def sys_sched_rr_get_interval(task: Task, tid: int, interval: int) -> int:
    """sched_rr_get_interval(2): 100 ms for SCHED_RR, none for SCHED_FIFO, a tick for others."""
    policy = _other(task, tid).scheduling[0] & ~SCHED_RESET_ON_FORK
    quantum = {SCHED_RR: 100_000_000, SCHED_FIFO: 0}.get(policy, _QUANTUM)
    task.memory.write(interval, _TIMESPEC.pack(0, quantum))
    return 0


@syscall(314, "sched_setattr", "pid", "ptr", "flags")
def sys_sched_setattr(task: Task, tid: int, attributes: int, flags: int) -> int:
    """sched_setattr(2)."""
    if not attributes or tid < 0 or flags:
        raise SyscallError(Errno.EINVAL)
    size = task.memory.read_u32(attributes) or _ATTR.size
    if not _ATTR.size <= size <= 4096:
        task.memory.write_u32(attributes, 56)
        raise SyscallError(Errno.E2BIG)
    raw = _ATTR.unpack(task.memory.read(attributes, _ATTR.size))
    _, policy, bits, _, priority = raw[:5]
    if policy >> 31 or bits & ~0x7F or policy == SCHED_DEADLINE:
        raise SyscallError(Errno.EPERM if policy == SCHED_DEADLINE and task.uid else Errno.EINVAL)
    reset = SCHED_RESET_ON_FORK if bits & _FLAG_RESET_ON_FORK else 0
    _set_policy(task, tid, policy | reset, priority)
    return 0


@syscall(315, "sched_getattr", "pid", "ptr", "uint", "flags")
def sys_sched_getattr(task: Task, tid: int, attributes: int, size: int, flags: int) -> int:
    """sched_getattr(2)."""
    if not attributes or tid < 0 or not _ATTR.size <= size <= 4096 or flags:
        raise SyscallError(Errno.EINVAL)
    policy, priority = _other(task, tid).scheduling
    bits = _FLAG_RESET_ON_FORK if policy & SCHED_RESET_ON_FORK else 0
    told = min(size, 56)
    data = _ATTR.pack(told, policy & ~SCHED_RESET_ON_FORK, bits, 0, priority, 0, 0, 0)
    task.memory.write(attributes, data.ljust(told, b"\0")[:told])
    return 0


@syscall(252, "ioprio_get", "int", "int")
def sys_ioprio_get(task: Task, which: int, who: int) -> int:
    """ioprio_get(2): no priority is kept: IOPRIO_CLASS_NONE."""
    if not IOPRIO_WHO_PROCESS <= which <= IOPRIO_WHO_USER:
        raise SyscallError(Errno.EINVAL)
    if which == IOPRIO_WHO_PROCESS and who and who not in task.kernel.tasks:
        raise SyscallError(Errno.ESRCH)
    return 0


@syscall(251, "ioprio_set", "int", "int", "int")
def sys_ioprio_set(task: Task, which: int, who: int, priority: int) -> int:
    """ioprio_set(2): checked and accepted; I/O has no order here."""
    level, level_class = priority & 0x1FFF, priority >> 13 & 7
    if not IOPRIO_WHO_PROCESS <= which <= IOPRIO_WHO_USER or not 0 <= level_class < _IOPRIO_CLASSES:
        raise SyscallError(Errno.EINVAL)
    if (level_class == 0 and level) or (level_class in (1, 2) and level & 0x7 != level):
        raise SyscallError(Errno.EINVAL)
    if level_class == 1 and task.uid:
        raise SyscallError(Errno.EPERM)
    if which == IOPRIO_WHO_PROCESS and who and who not in task.kernel.tasks:
        raise SyscallError(Errno.ESRCH)
    return 0


@syscall(324, "membarrier", "int", "flags", "int")
def sys_membarrier(task: Task, command: int, flags: int, _cpu: int) -> int:
    """membarrier(2): on one CPU every switch is a barrier; EPERM for an expedited one without registration."""
    if flags:
        raise SyscallError(Errno.EINVAL)
    if command == MEMBARRIER_QUERY:
        return _MEMBARRIER_ALL
    mm = task.mm
    if command == MEMBARRIER_GET_REGISTRATIONS:
        return mm.membarrier
    if command < 0 or command.bit_count() != 1 or command not in (1, 2, 4, 8, 16, 32, 64):
        raise SyscallError(Errno.EINVAL)
    needed = _MEMBARRIER_PRIVATE.get(command, 0)
    if needed and not mm.membarrier & needed:
        raise SyscallError(Errno.EPERM)
    mm.membarrier |= command & _REGISTRATIONS
    return 0


@syscall(312, "kcmp", "pid", "pid", "int", "ulong", "ulong")
def sys_kcmp(task: Task, first: int, second: int, kind: int, one: int, other: int) -> int:
    """kcmp(2): 0 when two tasks share the thing, 1 or 2 for an order between different ones."""
    tasks = [task.kernel.tasks.get(tid) for tid in (first, second)]
    if tasks[0] is None or tasks[1] is None:
        raise SyscallError(Errno.ESRCH)
    if task.uid and any(found is not None and found.uid != task.uid for found in tasks):
        raise SyscallError(Errno.EPERM)
    if kind == KCMP_FILE:
        things: list[object] = [tasks[0].files.get(one), tasks[1].files.get(other)]
    elif kind in _KCMP:
        things = [getattr(found, _KCMP[kind]) for found in tasks]
    else:
        raise SyscallError(Errno.EINVAL)
    if things[0] is things[1]:
        return 0
    return 1 if (first, one) < (second, other) else 2


_KCMP: Final = {1: "mm", 2: "files", 3: "fs", 4: "process", 5: "process", 6: "process"}
"""What each KCMP_ type compares; signal handlers, I/O context and semaphore undo lists are a process's."""


@syscall(239, "get_mempolicy", "ptr", "ptr", "ulong", "addr", "flags")
def sys_get_mempolicy(task: Task, mode: int, mask: int, maximum: int, address: int, flags: int) -> int:
    """get_mempolicy(2): MPOL_DEFAULT, and one node."""
    if flags & ~7 or (mask and maximum < 1) or (address and not flags & 2) or (flags & 4 and flags & 3):
        raise SyscallError(Errno.EINVAL)
    if flags & 2 and task.mm.vmas.find(address) is None:
        raise SyscallError(Errno.EFAULT)
    if mode:
        task.memory.write_u32(mode, 0)
    if mask:
        size = (maximum + 63) // 64 * 8
        if size > 4096:
            raise SyscallError(Errno.EINVAL)
        task.memory.write(mask, (1 if flags & 4 else 0).to_bytes(size, "little"))
    return 0


_MODE_FLAGS: Final = 0xE000
_MOST_NODES: Final = 4096 * 8


def _nodes(mask: int, maximum: int) -> None:
    """EINVAL for a mask of nodes longer than a page (mm/mempolicy.c: get_nodes)."""
    if mask and (maximum - 1) & ((1 << 64) - 1) > _MOST_NODES:
        raise SyscallError(Errno.EINVAL)


def _mode(mode: int) -> None:
    if not 0 <= mode & ~_MODE_FLAGS <= 6:
        raise SyscallError(Errno.EINVAL)


@syscall(238, "set_mempolicy", "int", "ptr", "ulong")
def sys_set_mempolicy(task: Task, mode: int, mask: int, maximum: int) -> int:
    """set_mempolicy(2): every policy means the one node."""
    _mode(mode)
    _nodes(mask, maximum)
    return 0


@syscall(237, "mbind", "addr", "size", "uint", "ptr", "ulong", "uint")
def sys_mbind(task: Task, address: int, length: int, mode: int, mask: int, maximum: int, flags: int) -> int:
    """mbind(2): every policy means the one node."""
    _mode(mode)
    _nodes(mask, maximum)
    end = (address + ((length + 0xFFF) & ~0xFFF)) & ((1 << 64) - 1)
    if address & 0xFFF or flags & ~7 or end < address:
        raise SyscallError(Errno.EINVAL)
    if end > address:
        areas = task.mm.vmas.overlapping(address, end)
        if not areas or areas[0].start >= end:
            raise SyscallError(Errno.EFAULT)
        if mode & ~_MODE_FLAGS:
            try:
                task.mm.covered(address, end)
            except SyscallError:
                raise SyscallError(Errno.EFAULT) from None
    return 0
