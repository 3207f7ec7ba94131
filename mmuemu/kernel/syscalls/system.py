"""Calls about the machine: names, limits, usage, randomness."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.accounting import process_usage, thread_usage
from mmuemu.kernel.clock import NANOSECONDS
from mmuemu.kernel.syscalls.table import syscall
from mmuemu.x86.paging import PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

SYSNAME: Final = "Linux"
RELEASE: Final = "6.1.0-mmuemu"
VERSION: Final = "#1 SMP mmuemu"
MACHINE: Final = "x86_64"
RLIM_INFINITY: Final = (1 << 64) - 1
RLIMIT_STACK: Final = 3
RLIMIT_NOFILE: Final = 7
RLIMIT_COUNT: Final = 16
RUSAGE_CHILDREN: Final = -1
GRND_FLAGS: Final = 7
_RLIMIT: Final = struct.Struct("<QQ")

DEFAULT_LIMITS: Final[dict[int, tuple[int, int]]] = {
    RLIMIT_STACK: (8 << 20, RLIM_INFINITY),
    4: (0, RLIM_INFINITY),
    6: (4096, 4096),
    RLIMIT_NOFILE: (1024, 4096),
    8: (64 << 20, 64 << 20),
    11: (4096, 4096),
    12: (819200, 819200),
    13: (0, 0),
    14: (0, 0),
}
"""(soft, hard) by RLIMIT_ number; the others are unlimited (a distribution's usual values)."""


@syscall(63, "uname", "ptr")
def sys_uname(task: Task, address: int) -> int:
    """uname(2)."""
    fields = (SYSNAME, task.kernel.hostname, RELEASE, VERSION, MACHINE, "(none)")
    task.memory.write(address, b"".join(field.encode().ljust(65, b"\0") for field in fields))
    return 0


@syscall(318, "getrandom", "ptr", "size", "flags")
def sys_getrandom(task: Task, address: int, count: int, flags: int) -> int:
    """getrandom(2), from the machine's seed."""
    if flags & ~GRND_FLAGS or flags & 6 == 6:
        raise SyscallError(Errno.EINVAL)
    count = min(count, 33554431)
    done = 0
    while done < count:
        part = min(count - done, 1 << 16)
        try:
            for piece in task.memory.chunks(address + done, part, True):
                piece[:] = task.kernel.random.randbytes(len(piece))
                done += len(piece)
        except SyscallError:
            if not done:
                raise
            return done
    return count


def _limit(task: Task, resource: int) -> tuple[int, int]:
    if not 0 <= resource < RLIMIT_COUNT:
        raise SyscallError(Errno.EINVAL)
    return task.limits.get(resource) or DEFAULT_LIMITS.get(resource, (RLIM_INFINITY, RLIM_INFINITY))


def _set_limit(task: Task, resource: int, new: tuple[int, int]) -> None:
    soft, hard = new
    if soft > hard:
        raise SyscallError(Errno.EINVAL)
    if hard > _limit(task, resource)[1] and task.uid:
        raise SyscallError(Errno.EPERM)
    task.limits[resource] = new
    if resource == RLIMIT_NOFILE:
        task.files.limit = min(soft, 1 << 20)
    elif resource == RLIMIT_STACK:
        task.mm.stack_limit = soft


@syscall(97, "getrlimit", "int", "ptr")
def sys_getrlimit(task: Task, resource: int, address: int) -> int:
    """getrlimit(2)."""
    task.memory.write(address, _RLIMIT.pack(*_limit(task, resource)))
    return 0


@syscall(160, "setrlimit", "int", "ptr")
def sys_setrlimit(task: Task, resource: int, address: int) -> int:
    """setrlimit(2)."""
    _limit(task, resource)
    soft, hard = _RLIMIT.unpack(task.memory.read(address, 16))
    _set_limit(task, resource, (soft, hard))
    return 0


@syscall(302, "prlimit64", "pid", "int", "ptr", "ptr")
def sys_prlimit64(task: Task, pid: int, resource: int, new: int, old: int) -> int:
    """prlimit(2), for the calling process."""
    if pid not in (0, task.pid):
        raise SyscallError(Errno.ESRCH)
    before = _limit(task, resource)
    if new:
        soft, hard = _RLIMIT.unpack(task.memory.read(new, 16))
        _set_limit(task, resource, (soft, hard))
    if old:
        task.memory.write(old, _RLIMIT.pack(*before))
    return 0


@syscall(98, "getrusage", "int", "ptr")
def sys_getrusage(task: Task, who: int, address: int) -> int:
    """getrusage(2): CPU time, peak resident size and page faults."""
    if who not in (0, -1, 1):
        raise SyscallError(Errno.EINVAL)
    if who == RUSAGE_CHILDREN:
        found = task.process.children_used
    else:
        found = process_usage(task.process) if who == 0 else thread_usage(task)
    task.memory.write(address, found.pack())
    return 0


@syscall(99, "sysinfo", "ptr")
def sys_sysinfo(task: Task, address: int) -> int:
    """sysinfo(2)."""
    kernel = task.kernel
    total, free = kernel.frames.limit * PAGE_SIZE, kernel.frames.free * PAGE_SIZE
    uptime = kernel.clock.monotonic() // NANOSECONDS
    data = struct.pack("<q3QQQQQQQHHIQQI", uptime, 0, 0, 0, total, free, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1)
    task.memory.write(address, data.ljust(112, b"\0"))
    return 0


@syscall(125, "capget", "ptr", "ptr")
def sys_capget(task: Task, header: int, data: int) -> int:
    """capget(2): none."""
    version = task.memory.read_u32(header)
    words = {0x19980330: 3, 0x20071026: 6, 0x20080522: 6}.get(version)
    if words is None:
        task.memory.write_u32(header, 0x20080522)
        raise SyscallError(Errno.EINVAL)
    if data:
        task.memory.write(data, bytes(4 * words))
    return 0


@syscall(170, "sethostname", "ptr", "size")
def sys_sethostname(task: Task, _name: int, _size: int) -> int:
    """sethostname(2): needs CAP_SYS_ADMIN."""
    raise SyscallError(Errno.EPERM)
