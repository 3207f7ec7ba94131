"""Clocks and sleeping."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.accounting import process_cpu_time, thread_cpu_time
from mmuemu.kernel.clock import NANOSECONDS
from mmuemu.kernel.syscalls.table import syscall
from mmuemu.kernel.wait import Blocked

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

CLOCK_REALTIME: Final = 0
CLOCK_MONOTONIC: Final = 1
CLOCK_PROCESS_CPUTIME_ID: Final = 2
CLOCK_THREAD_CPUTIME_ID: Final = 3
CLOCK_MONOTONIC_RAW: Final = 4
CLOCK_REALTIME_COARSE: Final = 5
CLOCK_MONOTONIC_COARSE: Final = 6
CLOCK_BOOTTIME: Final = 7
CLOCK_TAI: Final = 11
CLOCK_REALTIME_ALARM: Final = 8
CLOCK_BOOTTIME_ALARM: Final = 9
TIMER_ABSTIME: Final = 1
_REALTIMES: Final = frozenset({CLOCK_REALTIME, CLOCK_REALTIME_COARSE, CLOCK_TAI})
_MONOTONICS: Final = frozenset({CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_MONOTONIC_COARSE, CLOCK_BOOTTIME})
_UNWAITABLE: Final = frozenset({CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE})
"""Clocks that nothing can sleep by."""
_ALARMS: Final = frozenset({CLOCK_REALTIME_ALARM, CLOCK_BOOTTIME_ALARM})
"""Clocks that wake the machine: they need CAP_WAKE_ALARM."""
_FOREVER: Final = (1 << 63) - 1
"""The latest time there is (KTIME_MAX)."""
_TIMESPEC: Final = struct.Struct("<qq")


def _read_clock(task: Task, clock: int) -> int:
    if clock in _REALTIMES:
        return task.kernel.clock.realtime()
    if clock in _MONOTONICS:
        return task.kernel.clock.monotonic()
    if clock == CLOCK_PROCESS_CPUTIME_ID:
        return process_cpu_time(task.process)
    if clock == CLOCK_THREAD_CPUTIME_ID:
        return thread_cpu_time(task)
    raise SyscallError(Errno.EINVAL)


@syscall(228, "clock_gettime", "clockid", "ptr")
def sys_clock_gettime(task: Task, clock: int, address: int) -> int:
    """clock_gettime(2)."""
    task.memory.write(address, _TIMESPEC.pack(*divmod(_read_clock(task, clock), NANOSECONDS)))
    return 0


@syscall(229, "clock_getres", "clockid", "ptr")
def sys_clock_getres(task: Task, clock: int, address: int) -> int:
    """clock_getres(2): 1 ns, and one tick of 4 ms for the coarse clocks."""
    _read_clock(task, clock)
    if address:
        coarse = clock in (CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE)
        task.memory.write(address, _TIMESPEC.pack(0, 4_000_000 if coarse else 1))
    return 0


@syscall(227, "clock_settime", "clockid", "ptr")
def sys_clock_settime(task: Task, clock: int, address: int) -> int:
    """clock_settime(2): needs CAP_SYS_TIME."""
    if clock != CLOCK_REALTIME:
        raise SyscallError(Errno.EINVAL)
    task.memory.read(address, 16)
    raise SyscallError(Errno.EPERM)


@syscall(96, "gettimeofday", "ptr", "ptr")
def sys_gettimeofday(task: Task, address: int, zone: int) -> int:
    """gettimeofday(2)."""
    if address:
        seconds, nanoseconds = divmod(task.kernel.clock.realtime(), NANOSECONDS)
        task.memory.write(address, _TIMESPEC.pack(seconds, nanoseconds // 1000))
    if zone:
        task.memory.write(zone, bytes(8))
    return 0


@syscall(201, "time", "ptr")
def sys_time(task: Task, address: int) -> int:
    """time(2)."""
    seconds = task.kernel.clock.realtime() // NANOSECONDS
    if address:
        task.memory.write_u64(address, seconds)
    return seconds


def duration(task: Task, address: int) -> int:
    """The ``timespec`` at ``address`` in nanoseconds. EINVAL when it is not normalized."""
    seconds, nanoseconds = _TIMESPEC.unpack(task.memory.read(address, 16))
    if seconds < 0 or not 0 <= nanoseconds < NANOSECONDS:
        raise SyscallError(Errno.EINVAL)
    return min(int(seconds * NANOSECONDS + nanoseconds), _FOREVER)


def is_cpu_clock(clock: int) -> bool:
    """Whether it counts CPU time."""
    return clock in (CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID) or clock < 0


def clock_offset(task: Task, clock: int) -> int:
    """What a time of ``clock`` is ahead of ``kernel.clock.now()``. EINVAL, EOPNOTSUPP, EPERM."""
    if clock in _UNWAITABLE:
        raise SyscallError(Errno.EOPNOTSUPP)
    if clock in _ALARMS:
        raise SyscallError(Errno.EPERM)
    if clock in _MONOTONICS:
        return 0
    now = _read_clock(task, clock)
    return now - task.kernel.clock.now()


def _sleep_until(task: Task, deadline: int, remain: int) -> int:
    """Sleep until ``deadline``, whatever it was the first time; a handler's EINTR tells what was left at ``remain``."""
    kernel = task.kernel
    if task.call_state is None:
        task.call_state = deadline
    until: int = task.call_state  # type: ignore[assignment]
    if kernel.clock.now() >= until:
        return 0

    def interrupted() -> None:
        left = max(until - kernel.clock.now(), 0)
        task.memory.write(remain, _TIMESPEC.pack(*divmod(left, NANOSECONDS)))

    raise Blocked(deadline=until, restart=False, on_interrupt=interrupted if remain else None)


@syscall(35, "nanosleep", "ptr", "ptr")
def sys_nanosleep(task: Task, request: int, remain: int) -> int:
    """nanosleep(2)."""
    deadline = 0 if task.call_state is not None else task.kernel.clock.now() + duration(task, request)
    return _sleep_until(task, deadline, remain)


@syscall(230, "clock_nanosleep", "clockid", "int", "ptr", "ptr")
def sys_clock_nanosleep(task: Task, clock: int, flags: int, request: int, remain: int) -> int:
    """clock_nanosleep(2); CPU-time clocks sleep by the monotonic one."""
    absolute = flags & TIMER_ABSTIME
    if task.call_state is not None:
        return _sleep_until(task, 0, 0 if absolute else remain)
    if clock == CLOCK_THREAD_CPUTIME_ID:
        raise SyscallError(Errno.EOPNOTSUPP)
    offset = clock_offset(task, clock)
    start = -offset if absolute else task.kernel.clock.now()
    return _sleep_until(task, start + duration(task, request), 0 if absolute else remain)


@syscall(100, "times", "ptr")
def sys_times(task: Task, address: int) -> int:
    """times(2): 100 ticks a second."""
    process, tick = task.process, NANOSECONDS // 100
    if address:
        own, children = process_cpu_time(process) // tick, process.children_used.cpu // tick
        task.memory.write(address, struct.pack("<4q", own, 0, children, 0))
    return task.kernel.clock.monotonic() // (NANOSECONDS // 100)
