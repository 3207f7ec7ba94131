"""poll(2) and select(2): which descriptors are ready, and sleeping until one is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI
from mmuemu.kernel.abi.signals import Signal
from mmuemu.kernel.syscalls.table import signed64, syscall
from mmuemu.kernel.wait import Blocked, WaitQueue

if TYPE_CHECKING:
    from mmuemu.kernel.files.openfile import OpenFile
    from mmuemu.kernel.task import Task

_ALWAYS: Final = POLLERR | POLLHUP | POLLNVAL
_FD_SETSIZE: Final = 1024
_IN_SET: Final = POLLIN | POLLHUP | POLLERR
_OUT_SET: Final = POLLOUT | POLLERR
_EX_SET: Final = POLLPRI
"""Events that put a descriptor in select's sets (fs/select.c)."""
_UNBLOCKABLE: Final = 1 << (Signal.SIGKILL - 1) | 1 << (Signal.SIGSTOP - 1)

_LEAST_NS: Final = 1000
"""What even a call that need not sleep takes of its timeout."""


class Waiting:
    """What a call that waits for readiness remembers: its ``deadline`` in monotonic nanoseconds, None for never."""

    __slots__ = ("deadline",)

    def __init__(self, deadline: int | None) -> None:
        self.deadline = deadline


def waiting(task: Task, timeout_ns: int | None) -> Waiting:
    """The state of the present call, begun with its timeout when this is its first time."""
    state = task.call_state
    if not isinstance(state, Waiting):
        deadline = None if timeout_ns is None else task.kernel.clock.now() + timeout_ns
        task.call_state = state = Waiting(deadline)
    return state


def expired(task: Task, timeout_ns: int | None, masked: bool = False) -> bool:
    """Whether nothing being ready is the answer now. With ``masked`` a pending signal comes before it."""
    if timeout_ns is None:
        return False
    deadline = waiting(task, timeout_ns).deadline if timeout_ns else None
    if deadline is not None and task.kernel.clock.now() < deadline:
        return False
    return not (masked and (task.signals.bits | task.process.signals.bits) & ~task.signal_mask)


def with_mask(task: Task, address: int, size: int, call: Callable[[], int]) -> int:
    """Make a call with the signal mask at ``address`` (if any) in place of the task's own, while it lasts.

    When a handler has run, the kernel puts the old mask back after it (``task.saved_mask``).
    """
    if not address:
        return call()
    if task.call_state is None:
        if size != 8:
            raise SyscallError(Errno.EINVAL)
        mask = task.memory.read_u64(address)
        task.saved_mask = task.signal_mask
        task.signal_mask = mask & ~_UNBLOCKABLE
    try:
        result = call()
    except Blocked:
        raise
    except SyscallError:
        _restore_mask(task)
        raise
    _restore_mask(task)
    return result


def _restore_mask(task: Task) -> None:
    if task.saved_mask is not None:
        task.signal_mask = task.saved_mask
        task.saved_mask = None


def sleep_on(task: Task, files: list[tuple[OpenFile, int]], timeout_ns: int | None) -> Blocked:
    """What to raise to wait until one of ``files`` is ready for its events."""
    queues: list[WaitQueue] = []
    hosts: dict[int, int] = {}
    for file, events in files:
        queues += file.wait_queues()
        file.add_host(hosts, events)
    return Blocked(*queues, deadline=waiting(task, timeout_ns).deadline, host=hosts or None, restart=False)


def ready(task: Task, wanted: list[tuple[int, int]]) -> list[int]:
    """The true events of each (descriptor, events) pair; 0 for none, POLLNVAL for a closed descriptor."""
    files = task.files
    result = []
    for fd, events in wanted:
        if fd < 0:
            result.append(0)
        elif fd not in files:
            result.append(POLLNVAL)
        else:
            result.append(files.get(fd).poll() & (events | _ALWAYS))
    return result


def wait(task: Task, wanted: list[tuple[int, int]], timeout_ns: int | None, masked: bool) -> list[int]:
    """:func:`ready` once something is, or after ``timeout_ns`` (None: no limit)."""
    result = ready(task, wanted)
    if any(result) or expired(task, timeout_ns, masked):
        return result
    files = task.files
    raise sleep_on(task, [(files.get(fd), events) for fd, events in wanted if fd in files], timeout_ns)


def _poll(task: Task, address: int, count: int, timeout_ns: int | None, masked: bool = False) -> int:
    if count > task.files.limit:
        raise SyscallError(Errno.EINVAL)
    raw = bytearray(task.memory.read(address, 8 * count)) if count else bytearray()
    fds = memoryview(raw).cast("i") if raw else memoryview(b"")
    events = memoryview(raw).cast("H") if raw else memoryview(b"")
    wanted = [(fds[2 * i], events[4 * i + 2]) for i in range(count)]
    result = wait(task, wanted, timeout_ns, masked)
    for i, bits in enumerate(result):
        events[4 * i + 3] = bits
    if count:
        task.memory.write(address, bytes(raw))
    return sum(map(bool, result))


@syscall(7, "poll", "struct", "uint", "int")
def sys_poll(task: Task, fds: int, count: int, timeout: int) -> int:
    """Wait for events on descriptors; the timeout is in milliseconds."""
    return _poll(task, fds, count, None if timeout < 0 else timeout * 1_000_000)


def timespec(task: Task, address: int, scale: int = 1) -> int | None:
    """A struct timespec (or timeval, with ``scale`` 1000) in nanoseconds."""
    if not address:
        return None
    seconds, part = (signed64(v) for v in memoryview(task.memory.read(address, 16)).cast("Q").tolist())
    if seconds < 0 or part < 0 or part * scale >= 1_000_000_000:
        raise SyscallError(Errno.EINVAL)
    return min(seconds, 1 << 40) * 1_000_000_000 + part * scale


def _leave_rest(task: Task, address: int, timeout_ns: int | None, scale: int = 1) -> None:
    """Write what is left of the timeout, as Linux does, over the caller's."""
    if timeout_ns is None:
        return
    state = task.call_state
    left = max(timeout_ns - _LEAST_NS, 0)
    if isinstance(state, Waiting) and state.deadline is not None:
        left = max(state.deadline - task.kernel.clock.now(), 0)
    seconds, part = divmod(left, 1_000_000_000)
    rest = seconds.to_bytes(8, "little") + (part // scale).to_bytes(8, "little")
    try:
        task.memory.write(address, rest)
    except SyscallError:
        return


@syscall(271, "ppoll", "struct", "uint", "struct", "ptr", "size")
def sys_ppoll(task: Task, fds: int, count: int, timeout: int, mask: int, mask_size: int) -> int:
    """poll with a struct timespec and a signal mask."""
    timeout_ns = _first_timeout(task, timeout)
    result = with_mask(task, mask, mask_size, lambda: _poll(task, fds, count, timeout_ns, bool(mask)))
    _leave_rest(task, timeout, timeout_ns)
    return result


def _first_timeout(task: Task, address: int, scale: int = 1) -> int | None:
    """The timeout as it was when the call was first made."""
    if isinstance(task.call_state, Waiting):
        return 1 if task.call_state.deadline is not None else None
    return timespec(task, address, scale)


def _bits(task: Task, address: int, size: int) -> int:
    return int.from_bytes(task.memory.read(address, size), "little") if address and size else 0


def _select(task: Task, count: int, sets: tuple[int, int, int], timeout_ns: int | None, masked: bool = False) -> int:
    if count < 0:
        raise SyscallError(Errno.EINVAL)
    count = min(count, max(task.files.limit, _FD_SETSIZE))
    size = (count + 63) // 64 * 8
    masks = [_bits(task, address, size) & ((1 << count) - 1) for address in sets]
    kinds = (_IN_SET, _OUT_SET, _EX_SET)
    wanted = []
    for fd in range((masks[0] | masks[1] | masks[2]).bit_length()):
        events = 0
        for mask, kind in zip(masks, kinds, strict=True):
            events |= kind if mask >> fd & 1 else 0
        if events:
            if fd not in task.files:
                raise SyscallError(Errno.EBADF)
            wanted.append((fd, events))
    found = [0, 0, 0]
    for (fd, events), bits in zip(wanted, wait(task, wanted, timeout_ns, masked), strict=True):
        for i, kind in enumerate(kinds):
            if bits & events & kind and masks[i] >> fd & 1:
                found[i] |= 1 << fd
    for address, mask in zip(sets, found, strict=True):
        if address and size:
            task.memory.write(address, mask.to_bytes(size, "little"))
    return sum(bin(mask).count("1") for mask in found)


@syscall(23, "select", "int", "struct", "struct", "struct", "struct")
def sys_select(task: Task, count: int, readable: int, writable: int, exceptional: int, timeout: int) -> int:
    """Wait for descriptors in sets of bits; the timeout is a struct timeval."""
    timeout_ns = _first_timeout(task, timeout, 1000)
    result = _select(task, count, (readable, writable, exceptional), timeout_ns)
    _leave_rest(task, timeout, timeout_ns, 1000)
    return result


@syscall(270, "pselect6", "int", "struct", "struct", "struct", "struct", "ptr")
def sys_pselect6(
    task: Task, count: int, readable: int, writable: int, exceptional: int, timeout: int, mask: int
) -> int:
    """select with a struct timespec and, through a pair of address and size, a signal mask."""
    address = size = 0
    if mask:
        address, size = memoryview(task.memory.read(mask, 16)).cast("Q").tolist()
    timeout_ns = _first_timeout(task, timeout)
    sets = (readable, writable, exceptional)
    result = with_mask(task, address, size, lambda: _select(task, count, sets, timeout_ns, bool(address)))
    _leave_rest(task, timeout, timeout_ns)
    return result
