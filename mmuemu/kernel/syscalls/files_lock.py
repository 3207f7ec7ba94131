"""flock(2) and fcntl(2)'s record locks."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi import fcntl as c
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.files.locks import LAST_BYTE, FileLocks, RecordLock
from mmuemu.kernel.files.openfile import OpenFile
from mmuemu.kernel.syscalls.table import syscall
from mmuemu.kernel.wait import Blocked

if TYPE_CHECKING:
    from mmuemu.kernel.files.inode import Inode
    from mmuemu.kernel.task import Task

_FLOCK: Final = struct.Struct("<hhxxxxqqixxxx")
"""``struct flock``: type, whence, start, length, pid."""
_GET: Final = frozenset({c.F_GETLK, c.F_OFD_GETLK})
_WAIT: Final = frozenset({c.F_SETLKW, c.F_OFD_SETLKW})
_OFD: Final = frozenset({c.F_OFD_GETLK, c.F_OFD_SETLK, c.F_OFD_SETLKW})
LOCK_COMMANDS: Final = _GET | _WAIT | _OFD | {c.F_SETLK}


def _locks(inode: Inode) -> FileLocks:
    if inode.locks is None:
        inode.locks = FileLocks()
    return inode.locks


def _range(file: OpenFile, whence: int, start: int, length: int) -> tuple[int, int]:
    """First and last byte (fs/locks.c: flock64_to_posix_lock); EINVAL before byte 0, EOVERFLOW past the last."""
    if whence == c.SEEK_CUR:
        start += file.offset
    elif whence == c.SEEK_END:
        start += file.inode.size
    elif whence != c.SEEK_SET:
        raise SyscallError(Errno.EINVAL)
    if start > LAST_BYTE:
        raise SyscallError(Errno.EOVERFLOW)
    if start < 0:
        raise SyscallError(Errno.EINVAL)
    if length > 0:
        if start + length - 1 > LAST_BYTE:
            raise SyscallError(Errno.EOVERFLOW)
        return start, start + length - 1
    if length < 0:
        if start + length < 0:
            raise SyscallError(Errno.EINVAL)
        return start + length, start - 1
    return start, LAST_BYTE


def record_lock(task: Task, file: OpenFile, command: int, argument: int) -> int:
    """F_GETLK, F_SETLK, F_SETLKW and their F_OFD_ kinds; EACCES never, EAGAIN, EDEADLK, EBADF for the wrong mode."""
    kind, whence, first, length, pid = _FLOCK.unpack(task.memory.read(argument, _FLOCK.size))
    get = command in _GET
    ofd = command in _OFD
    if kind not in (c.F_RDLCK, c.F_WRLCK, c.F_UNLCK) or (command == c.F_GETLK and kind == c.F_UNLCK) or (ofd and pid):
        raise SyscallError(Errno.EINVAL)
    start, end = _range(file, whence, first, length)
    wanted = RecordLock(file if ofd else task.files, -1 if ofd else task.pid, kind, start, end)
    locks = _locks(file.inode)
    if get:
        found = locks.conflict(wanted) if kind != c.F_UNLCK else None
        if found is None:
            answer = _FLOCK.pack(c.F_UNLCK, whence, first, length, pid)
        else:
            size = 0 if found.end == LAST_BYTE else found.end - found.start + 1
            answer = _FLOCK.pack(found.kind, c.SEEK_SET, found.start, size, found.pid)
        task.memory.write(argument, answer)
        return 0
    if (kind == c.F_RDLCK and not file.readable) or (kind == c.F_WRLCK and not file.writable):
        raise SyscallError(Errno.EBADF)
    found = locks.conflict(wanted) if kind != c.F_UNLCK else None
    if found is None:
        locks.set(wanted)
        return 0
    if command not in _WAIT:
        raise SyscallError(Errno.EAGAIN)
    task.call_state = None
    task.call_state = None if ofd else locks.wait_for(wanted.owner, found.owner)
    raise Blocked(locks.queue)


@syscall(73, "flock", "fd", "int")
def sys_flock(task: Task, fd: int, operation: int) -> int:
    """Lock a whole file for the open file description."""
    file = task.files.get_opened(fd)
    if operation & c.LOCK_MAND:
        return 0
    kind = operation & ~c.LOCK_NB
    if kind not in (c.LOCK_SH, c.LOCK_EX, c.LOCK_UN):
        raise SyscallError(Errno.EINVAL)
    locks = _locks(file.inode)
    if not locks.flock(file, kind):
        raise SyscallError(Errno.EAGAIN) if operation & c.LOCK_NB else Blocked(locks.queue)
    return 0
