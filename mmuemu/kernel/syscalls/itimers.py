"""Timers that send signals: alarm, setitimer and timer_create."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.signals import LAST_SIGNAL, Signal
from mmuemu.kernel.clock import NANOSECONDS
from mmuemu.kernel.itimers import (
    ITIMER_PROF,
    ITIMER_REAL,
    SIGEV_NONE,
    SIGEV_SIGNAL,
    SIGEV_THREAD,
    SIGEV_THREAD_ID,
    PosixTimer,
    interval_timer,
)
from mmuemu.kernel.syscalls.table import syscall
from mmuemu.kernel.syscalls.time import TIMER_ABSTIME, clock_offset, duration, is_cpu_clock

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

MOST_TIMERS: Final = 4096
"""Timers of timer_create that one process may have; Linux counts them with RLIMIT_SIGPENDING."""
_FOREVER: Final = (1 << 63) - 1
_ITIMERVAL: Final = struct.Struct("<4q")
_SIGEVENT: Final = struct.Struct("<8sii i")


def _timeval(seconds: int, microseconds: int) -> int:
    if seconds < 0 or not 0 <= microseconds < 1_000_000:
        raise SyscallError(Errno.EINVAL)
    return min(seconds * NANOSECONDS + microseconds * 1000, _FOREVER)


@syscall(37, "alarm", "uint")
def sys_alarm(task: Task, seconds: int) -> int:
    """alarm(2)."""
    timer = interval_timer(task.process, ITIMER_REAL)
    left = timer.remaining(1000)
    timer.set(task.kernel.clock.now() + seconds * NANOSECONDS if seconds else 0, 0)
    whole, rest = divmod(left, NANOSECONDS)
    return whole + (rest >= NANOSECONDS // 2 or (not whole and rest > 0))


def _read_itimer(task: Task, which: int) -> bytes:
    timer = interval_timer(task.process, which)
    left = timer.remaining(1000) // 1000
    interval = timer.interval // 1000
    return _ITIMERVAL.pack(*divmod(interval, 1_000_000), *divmod(left, 1_000_000))


@syscall(36, "getitimer", "int", "ptr")
def sys_getitimer(task: Task, which: int, address: int) -> int:
    """getitimer(2)."""
    if not ITIMER_REAL <= which <= ITIMER_PROF:
        raise SyscallError(Errno.EINVAL)
    task.memory.write(address, _read_itimer(task, which))
    return 0


@syscall(38, "setitimer", "int", "ptr", "ptr")
def sys_setitimer(task: Task, which: int, new: int, old: int) -> int:
    """setitimer(2)."""
    value = _ITIMERVAL.unpack(task.memory.read(new, _ITIMERVAL.size)) if new else (0, 0, 0, 0)
    interval, first = _timeval(*value[:2]), _timeval(*value[2:])
    if not ITIMER_REAL <= which <= ITIMER_PROF:
        raise SyscallError(Errno.EINVAL)
    before = _read_itimer(task, which)
    deadline = task.kernel.clock.now() + first if first else 0
    interval_timer(task.process, which).set(deadline, interval if first else 0)
    if old:
        task.memory.write(old, before)
    return 0


# -- timer_create ------------------------------------------------------------------------------------------------


def _event(task: Task, address: int, number: int) -> tuple[int, int, bytes, int]:
    """(notify, signal, value, tid) of a ``sigevent``, whose default is SIGALRM with the timer's number. EINVAL."""
    if not address:
        return SIGEV_SIGNAL, Signal.SIGALRM, number.to_bytes(8, "little"), 0
    value, signal, notify, tid = _SIGEVENT.unpack(task.memory.read(address, 64)[: _SIGEVENT.size])
    if notify not in (SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD, SIGEV_THREAD_ID):
        raise SyscallError(Errno.EINVAL)
    if notify != SIGEV_NONE and not 1 <= signal <= LAST_SIGNAL:
        raise SyscallError(Errno.EINVAL)
    if notify == SIGEV_THREAD_ID and tid not in task.process.threads:
        raise SyscallError(Errno.EINVAL)
    return notify, signal, value, tid


@syscall(222, "timer_create", "clockid", "struct", "ptr")
def sys_timer_create(task: Task, clock: int, event: int, address: int) -> int:
    """timer_create(2)."""
    process = task.process
    clock_offset(task, clock)
    if len(process.posix_timers) >= MOST_TIMERS:
        raise SyscallError(Errno.EAGAIN)
    number = process.next_timer
    notify, signal, value, tid = _event(task, event, number)
    task.memory.write_u32(address, number)
    timer = PosixTimer(process, number, clock, is_cpu_clock(clock), notify, signal, value)
    if notify == SIGEV_THREAD_ID:
        timer.thread = process.threads[tid]
    process.posix_timers[number] = timer
    process.next_timer = number + 1
    return 0


def _timer(task: Task, number: int) -> PosixTimer:
    timer = task.process.posix_timers.get(number)
    if timer is None:
        raise SyscallError(Errno.EINVAL)
    return timer


def _spec(timer: PosixTimer) -> bytes:
    left = timer.remaining(0 if timer.notify == SIGEV_NONE else 1)
    return _ITIMERVAL.pack(*divmod(timer.interval, NANOSECONDS), *divmod(left, NANOSECONDS))


@syscall(223, "timer_settime", "int", "int", "ptr", "ptr")
def sys_timer_settime(task: Task, number: int, flags: int, new: int, old: int) -> int:
    """timer_settime(2)."""
    if not new:
        raise SyscallError(Errno.EINVAL)
    interval, first = duration(task, new), duration(task, new + 16)
    timer = _timer(task, number)
    before = _spec(timer)
    deadline = 0
    if first:
        now = task.kernel.clock.now()
        deadline = max(first - clock_offset(task, timer.clock), 1) if flags & TIMER_ABSTIME else now + first
    timer.overrun = 0
    timer.set(deadline, interval)
    if old:
        task.memory.write(old, before)
    return 0


@syscall(224, "timer_gettime", "int", "ptr")
def sys_timer_gettime(task: Task, number: int, address: int) -> int:
    """timer_gettime(2)."""
    task.memory.write(address, _spec(_timer(task, number)))
    return 0


@syscall(225, "timer_getoverrun", "int")
def sys_timer_getoverrun(task: Task, number: int) -> int:
    """timer_getoverrun(2)."""
    return _timer(task, number).overrun


@syscall(226, "timer_delete", "int")
def sys_timer_delete(task: Task, number: int) -> int:
    """timer_delete(2)."""
    _timer(task, number).cancel()
    del task.process.posix_timers[number]
    return 0
