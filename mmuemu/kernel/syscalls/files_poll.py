"""poll(2) and select(2): which descriptors are ready, waiting on the host's where there are some."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import POLLERR, POLLHUP, POLLIN, POLLNVAL, POLLOUT, POLLPRI
from mmuemu.kernel.files.openfile import Blocked
from mmuemu.kernel.files.stream import SLICE_MS, host_poll
from mmuemu.kernel.syscalls.table import signed64, syscall

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

_ALWAYS: Final = POLLERR | POLLHUP | POLLNVAL
_FD_SETSIZE: Final = 1024
_IN_SET: Final = POLLIN | POLLHUP | POLLERR
_OUT_SET: Final = POLLOUT | POLLERR
_EX_SET: Final = POLLPRI
"""Events that put a descriptor in select's sets (fs/select.c)."""


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


def wait(task: Task, wanted: list[tuple[int, int]], timeout_ns: int | None) -> list[int]:
    """:func:`ready` once something is, or after ``timeout_ns`` (None: no limit)."""
    result = ready(task, wanted)
    if any(result) or timeout_ns == 0:
        return result
    files = task.files
    hosts = {files.get(fd).poll_fd(): events for fd, events in wanted if fd in files}
    hosts.pop(-1, None)
    if hosts:
        return _wait_for_host(task, wanted, hosts, timeout_ns)
    if timeout_ns is None:
        raise Blocked()
    task.fs.sleep(timeout_ns / 1e9)
    return ready(task, wanted)


def _wait_for_host(
    task: Task, wanted: list[tuple[int, int]], hosts: dict[int, int], timeout_ns: int | None
) -> list[int]:
    """Wait in slices, so that stopping the machine ends the wait (EINTR)."""
    deadline = None if timeout_ns is None else time.monotonic_ns() + timeout_ns
    while True:
        left = SLICE_MS * 1_000_000 if deadline is None else max(deadline - time.monotonic_ns(), 0)
        host_poll(hosts, min(-(-left // 1_000_000), SLICE_MS))
        result = ready(task, wanted)
        if any(result) or left == 0:
            return result
        if task.fs.mounts.interrupted():
            raise SyscallError(Errno.EINTR)


def _poll(task: Task, address: int, count: int, timeout_ns: int | None) -> int:
    if count > task.files.limit:
        raise SyscallError(Errno.EINVAL)
    raw = bytearray(task.memory.read(address, 8 * count)) if count else bytearray()
    fds = memoryview(raw).cast("i") if raw else memoryview(b"")
    events = memoryview(raw).cast("H") if raw else memoryview(b"")
    wanted = [(fds[2 * i], events[4 * i + 2]) for i in range(count)]
    result = wait(task, wanted, timeout_ns)
    for i, bits in enumerate(result):
        events[4 * i + 3] = bits
    if count:
        task.memory.write(address, bytes(raw))
    return sum(map(bool, result))


@syscall(7, "poll", "struct", "uint", "int")
def sys_poll(task: Task, fds: int, count: int, timeout: int) -> int:
    """Wait for events on descriptors; the timeout is in milliseconds."""
    return _poll(task, fds, count, None if timeout < 0 else timeout * 1_000_000)


def _timespec(task: Task, address: int, scale: int = 1) -> int | None:
    """A struct timespec (or timeval, with ``scale`` 1000) in nanoseconds."""
    if not address:
        return None
    seconds, part = (signed64(v) for v in memoryview(task.memory.read(address, 16)).cast("Q").tolist())
    if seconds < 0 or part < 0 or part * scale >= 1_000_000_000:
        raise SyscallError(Errno.EINVAL)
    return seconds * 1_000_000_000 + part * scale


@syscall(271, "ppoll", "struct", "uint", "struct", "ptr", "size")
def sys_ppoll(task: Task, fds: int, count: int, timeout: int, mask: int, mask_size: int) -> int:
    """poll with a struct timespec; the signal mask would only matter to other threads' signals."""
    return _poll(task, fds, count, _timespec(task, timeout))


def _bits(task: Task, address: int, size: int) -> int:
    return int.from_bytes(task.memory.read(address, size), "little") if address and size else 0


def _select(task: Task, count: int, sets: tuple[int, int, int], timeout_ns: int | None) -> int:
    if count < 0:
        raise SyscallError(Errno.EINVAL)
    count = min(count, max(task.files.limit, _FD_SETSIZE))
    size = (count + 63) // 64 * 8
    masks = [_bits(task, address, size) & ((1 << count) - 1) for address in sets]
    kinds = (_IN_SET, _OUT_SET, _EX_SET)
    wanted = []
    for fd in range(count):
        events = 0
        for mask, kind in zip(masks, kinds, strict=True):
            events |= kind if mask >> fd & 1 else 0
        if events:
            if fd not in task.files:
                raise SyscallError(Errno.EBADF)
            wanted.append((fd, events))
    found = [0, 0, 0]
    for (fd, events), bits in zip(wanted, wait(task, wanted, timeout_ns), strict=True):
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
    return _select(task, count, (readable, writable, exceptional), _timespec(task, timeout, 1000))


@syscall(270, "pselect6", "int", "struct", "struct", "struct", "struct", "ptr")
def sys_pselect6(
    task: Task, count: int, readable: int, writable: int, exceptional: int, timeout: int, mask: int
) -> int:
    """select with a struct timespec."""
    return _select(task, count, (readable, writable, exceptional), _timespec(task, timeout))
