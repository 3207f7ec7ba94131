"""futex(2), futex_waitv(2) and the robust list (kernel/futex/syscalls.c)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.clock import NANOSECONDS
from mmuemu.kernel.futex import (
    FUTEX_TID_MASK,
    MATCH_ANY,
    FutexWaiter,
    VectorWaiter,
    key_of,
)
from mmuemu.kernel.sleeper import Sleeper, sleeping
from mmuemu.kernel.syscalls.table import signed32, syscall
from mmuemu.kernel.syscalls.time import CLOCK_MONOTONIC, CLOCK_REALTIME
from mmuemu.kernel.wait import RESTART_ALWAYS

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

FUTEX_WAIT: Final = 0
FUTEX_WAKE: Final = 1
FUTEX_REQUEUE: Final = 3
FUTEX_CMP_REQUEUE: Final = 4
FUTEX_WAKE_OP: Final = 5
FUTEX_LOCK_PI: Final = 6
FUTEX_UNLOCK_PI: Final = 7
FUTEX_TRYLOCK_PI: Final = 8
FUTEX_WAIT_BITSET: Final = 9
FUTEX_WAKE_BITSET: Final = 10
FUTEX_WAIT_REQUEUE_PI: Final = 11
FUTEX_CMP_REQUEUE_PI: Final = 12
FUTEX_LOCK_PI2: Final = 13
FUTEX_PRIVATE_FLAG: Final = 128
FUTEX_CLOCK_REALTIME: Final = 256
_FLAGS: Final = FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME
_CHOOSES_CLOCK: Final = frozenset({FUTEX_WAIT_BITSET, FUTEX_WAIT_REQUEUE_PI, FUTEX_LOCK_PI2})
_TIMED: Final = frozenset({FUTEX_WAIT, FUTEX_LOCK_PI, FUTEX_LOCK_PI2, FUTEX_WAIT_BITSET, FUTEX_WAIT_REQUEUE_PI})
_WAITV_MAX: Final = 128
_SIZE_U32: Final = 2
_TIMESPEC: Final = struct.Struct("<qq")
_WAITV: Final = struct.Struct("<QQII")
ROBUST_LIST_HEAD: Final = 24

_OPERATIONS: Final[tuple[Callable[[int, int], int], ...]] = (
    lambda old, argument: argument,
    lambda old, argument: old + argument,
    lambda old, argument: old | argument,
    lambda old, argument: old & ~argument,
    lambda old, argument: old ^ argument,
)
_COMPARISONS: Final[tuple[Callable[[int, int], bool], ...]] = (
    lambda old, argument: old == argument,
    lambda old, argument: old != argument,
    lambda old, argument: old < argument,
    lambda old, argument: old <= argument,
    lambda old, argument: old > argument,
    lambda old, argument: old >= argument,
)


def _time(task: Task, address: int) -> int:
    seconds, nanoseconds = _TIMESPEC.unpack(task.memory.read(address, 16))
    if seconds < 0 or not 0 <= nanoseconds < NANOSECONDS:
        raise SyscallError(Errno.EINVAL)
    return int(seconds * NANOSECONDS + nanoseconds)


def _deadline(task: Task, address: int, *, relative: bool, realtime: bool) -> int | None:
    """When to give up, in nanoseconds of the monotonic clock; None without a time."""
    if not address:
        return None
    when = _time(task, address)
    clock = task.kernel.clock
    if relative:
        when += clock.now()
    elif realtime:
        when += clock.now() - clock.realtime()
    return when


class _Call:
    """The arguments of one futex(2), as its commands use them."""

    __slots__ = ("address", "command", "private", "realtime", "second", "table", "task", "third", "timeout", "value")

    def __init__(self, task: Task, address: int, operation: int, value: int, timeout: int) -> None:
        self.task = task
        self.address = address
        self.command = operation & ~_FLAGS
        self.private = bool(operation & FUTEX_PRIVATE_FLAG)
        self.realtime = bool(operation & FUTEX_CLOCK_REALTIME)
        self.value = value
        self.timeout = timeout
        self.second = 0
        self.third = 0
        self.table = task.kernel.futexes

    def deadline(self) -> int | None:
        """When a waiting command gives up."""
        realtime = self.realtime or self.command == FUTEX_LOCK_PI
        return _deadline(self.task, self.timeout, relative=self.command == FUTEX_WAIT, realtime=realtime)

    def key(self, *, write: bool = True) -> tuple[object, int]:
        """The first word's key."""
        return key_of(self.task, self.address, self.private, write=write)

    def second_key(self) -> tuple[object, int]:
        """The second word's key."""
        return key_of(self.task, self.second, self.private)


def _finish(call: _Call, waiter: FutexWaiter, *, restart: int) -> int:
    try:
        return waiter.wait(restart=restart)
    except SyscallError as error:
        if error.errno is Errno.ETIMEDOUT:
            call.table.remove(waiter)
        raise


def _wait(call: _Call) -> int:
    task = call.task
    waiter = sleeping(task, FutexWaiter)
    if waiter is None:
        bitset = MATCH_ANY if call.command == FUTEX_WAIT else call.third
        deadline = call.deadline()
        if not bitset:
            raise SyscallError(Errno.EINVAL)
        key = call.key(write=False)
        if task.memory.read_u32(call.address) != call.value:
            raise SyscallError(Errno.EAGAIN)
        waiter = FutexWaiter(task, key, call.address, bitset, deadline)
        call.table.add(waiter)
    return _finish(call, waiter, restart=not call.timeout)


def _wake(call: _Call) -> int:
    bitset = MATCH_ANY if call.command == FUTEX_WAKE else call.third
    if not bitset:
        raise SyscallError(Errno.EINVAL)
    return call.table.wake(call.key(write=False), signed32(call.value), bitset)


def _requeue(call: _Call) -> int:
    wake, move = signed32(call.value), signed32(call.timeout)
    if wake < 0 or move < 0:
        raise SyscallError(Errno.EINVAL)
    source, target = call.key(write=False), call.second_key()
    if call.command == FUTEX_CMP_REQUEUE and call.task.memory.read_u32(call.address) != call.third:
        raise SyscallError(Errno.EAGAIN)
    return call.table.requeue(source, target, wake, move)


def _wake_op(call: _Call) -> int:
    """FUTEX_WAKE_OP: change the second word, wake at the first, and at the second if it was as asked."""
    first, second = call.key(write=False), call.second_key()
    encoded, memory = call.third, call.task.memory
    operation, comparison = encoded >> 28 & 7, encoded >> 24 & 15
    argument, compared = (_signed12(encoded >> shift) for shift in (12, 0))
    if encoded >> 31:
        argument = 1 << (argument & 31)
    if operation >= len(_OPERATIONS):
        raise SyscallError(Errno.ENOSYS)
    old = memory.read_u32(call.second)
    memory.write_u32(call.second, _OPERATIONS[operation](old, argument) & MATCH_ANY)
    if comparison >= len(_COMPARISONS):
        raise SyscallError(Errno.ENOSYS)
    woken = call.table.wake(first, signed32(call.value))
    if _COMPARISONS[comparison](signed32(old), compared):
        woken += call.table.wake(second, signed32(call.timeout))
    return woken


def _signed12(bits: int) -> int:
    bits &= 0xFFF
    return bits - 0x1000 if bits & 0x800 else bits


def _lock_pi(call: _Call) -> int:
    task, table = call.task, call.table
    waiter = sleeping(task, FutexWaiter)
    if waiter is None:
        trying = call.command == FUTEX_TRYLOCK_PI
        deadline = None if trying else call.deadline()
        key = call.key()
        if table.lock(task, key, call.address, task):
            return 0
        if trying:
            raise SyscallError(Errno.EAGAIN)
        owner = task.kernel.tasks[task.memory.read_u32(call.address) & FUTEX_TID_MASK]
        waiter = FutexWaiter(task, key, call.address, deadline=deadline)
        table.wait_to_own(waiter, owner)
    return _finish(call, waiter, restart=RESTART_ALWAYS)


def _unlock_pi(call: _Call) -> int:
    """FUTEX_UNLOCK_PI: the first who waits gets the word, or it becomes 0. EPERM for a word of another."""
    task = call.task
    if task.memory.read_u32(call.address) & FUTEX_TID_MASK != task.tid:
        raise SyscallError(Errno.EPERM)
    if not call.table.hand_over(call.key()):
        task.memory.write_u32(call.address, 0)
    return 0


def _wait_requeue_pi(call: _Call) -> int:
    task = call.task
    waiter = sleeping(task, FutexWaiter)
    if waiter is None:
        deadline = call.deadline()
        if call.address == call.second:
            raise SyscallError(Errno.EINVAL)
        target = call.second_key()
        key = call.key(write=False)
        if task.memory.read_u32(call.address) != call.value:
            raise SyscallError(Errno.EAGAIN)
        if key == target:
            raise SyscallError(Errno.EINVAL)
        waiter = FutexWaiter(task, key, call.address, deadline=deadline)
        waiter.target, waiter.target_address = target, call.second
        call.table.add(waiter)
    return _finish(call, waiter, restart=RESTART_ALWAYS)


def _cmp_requeue_pi(call: _Call) -> int:
    move = signed32(call.timeout)
    if call.address == call.second or call.value != 1 or move < 0:
        raise SyscallError(Errno.EINVAL)
    source, target = call.key(write=False), call.second_key()
    if source == target:
        raise SyscallError(Errno.EINVAL)
    if call.task.memory.read_u32(call.address) != call.third:
        raise SyscallError(Errno.EAGAIN)
    return call.table.requeue_to_own(call.task, source, target, call.second, move)


_COMMANDS: Final[dict[int, Callable[[_Call], int]]] = {
    FUTEX_WAIT: _wait,
    FUTEX_WAIT_BITSET: _wait,
    FUTEX_WAKE: _wake,
    FUTEX_WAKE_BITSET: _wake,
    FUTEX_REQUEUE: _requeue,
    FUTEX_CMP_REQUEUE: _requeue,
    FUTEX_WAKE_OP: _wake_op,
    FUTEX_LOCK_PI: _lock_pi,
    FUTEX_LOCK_PI2: _lock_pi,
    FUTEX_TRYLOCK_PI: _lock_pi,
    FUTEX_UNLOCK_PI: _unlock_pi,
    FUTEX_WAIT_REQUEUE_PI: _wait_requeue_pi,
    FUTEX_CMP_REQUEUE_PI: _cmp_requeue_pi,
}


@syscall(202, "futex", "ptr", "int", "uint", "ptr", "ptr", "uint")
def sys_futex(task: Task, address: int, operation: int, value: int, timeout: int, second: int, third: int) -> int:
    """futex(2). FUTEX_FD and unknown commands are ENOSYS."""
    call = _Call(task, address, operation, value, timeout)
    call.second, call.third = second, third
    command = _COMMANDS.get(call.command)
    if command is None or (call.realtime and call.command not in _CHOOSES_CLOCK):
        raise SyscallError(Errno.ENOSYS)
    return command(call)


@syscall(449, "futex_waitv", "ptr", "uint", "flags", "ptr", "clockid")
def sys_futex_waitv(task: Task, vector: int, count: int, flags: int, timeout: int, clock: int) -> int:
    """futex_waitv(2): wait for any of several words; the place of the one that was woken."""
    whole = sleeping(task, Sleeper)
    if whole is None:
        whole = _wait_for_several(task, vector, count, flags, timeout, clock)
    return whole.wait(restart=not timeout)


def _wait_for_several(task: Task, vector: int, count: int, flags: int, timeout: int, clock: int) -> Sleeper:
    if flags or not 0 < count <= _WAITV_MAX or not vector:
        raise SyscallError(Errno.EINVAL)
    if timeout and clock not in (CLOCK_REALTIME, CLOCK_MONOTONIC):
        raise SyscallError(Errno.EINVAL)
    deadline = _deadline(task, timeout, relative=False, realtime=clock == CLOCK_REALTIME)
    raw = [_WAITV.unpack(task.memory.read(vector + place * 24, 24)) for place in range(count)]
    for value, _, word_flags, reserved in raw:
        if word_flags & ~(_SIZE_U32 | FUTEX_PRIVATE_FLAG) or reserved or not word_flags & _SIZE_U32 or value >> 32:
            raise SyscallError(Errno.EINVAL)
    keys = [key_of(task, address, bool(bits & FUTEX_PRIVATE_FLAG), write=False) for _, address, bits, _ in raw]
    for value, address, _, _ in raw:
        if task.memory.read_u32(address) != value:
            raise SyscallError(Errno.EAGAIN)
    whole = Sleeper(task, deadline)
    for place, key in enumerate(keys):
        task.kernel.futexes.add(VectorWaiter(whole, key, raw[place][1], place))
    return whole


@syscall(273, "set_robust_list", "ptr", "size")
def sys_set_robust_list(task: Task, head: int, size: int) -> int:
    """set_robust_list(2)."""
    if size != ROBUST_LIST_HEAD:
        raise SyscallError(Errno.EINVAL)
    task.robust_list = head
    return 0


@syscall(274, "get_robust_list", "pid", "ptr", "ptr")
def sys_get_robust_list(task: Task, tid: int, head: int, size: int) -> int:
    """get_robust_list(2), of a thread one could trace: ESRCH, EPERM."""
    other = task.kernel.tasks.get(tid) if tid else task
    if other is None:
        raise SyscallError(Errno.ESRCH)
    if task.uid not in (0, other.uid):
        raise SyscallError(Errno.EPERM)
    task.memory.write_u64(size, ROBUST_LIST_HEAD)
    task.memory.write_u64(head, other.robust_list)
    return 0
