"""System calls that say what a file is: stat, statx, access, readlink, statfs, directory listings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import (
    AT_EACCESS,
    AT_EMPTY_PATH,
    AT_FDCWD,
    AT_NO_AUTOMOUNT,
    AT_STATX_SYNC_TYPE,
    AT_SYMLINK_NOFOLLOW,
    PATH_MAX,
)
from mmuemu.kernel.abi.stat import Stat, pack_stat, pack_statfs, pack_statx
from mmuemu.kernel.files.inode import Symlink
from mmuemu.kernel.files.notify import accessed
from mmuemu.kernel.files.opening import check
from mmuemu.kernel.files.paths import lookup
from mmuemu.kernel.syscalls.table import syscall

if TYPE_CHECKING:
    from mmuemu.kernel.files.inode import Inode
    from mmuemu.kernel.task import Task


def inode_at(task: Task, dirfd: int, path: int, flags: int) -> Inode:
    """The inode an ``*at`` call names, AT_EMPTY_PATH and AT_SYMLINK_NOFOLLOW in ``flags``."""
    name = task.memory.read_cstring(path, PATH_MAX) if path or not flags & AT_EMPTY_PATH else b""
    if not name and flags & AT_EMPTY_PATH:
        return task.fs.cwd if dirfd == AT_FDCWD else task.files.get(dirfd).inode
    return lookup(task, name, dirfd, not flags & AT_SYMLINK_NOFOLLOW)


def stat_at(task: Task, dirfd: int, path: int, flags: int) -> Stat:
    """What stat says of a path or, with an empty one, a descriptor."""
    if flags & AT_EMPTY_PATH and dirfd != AT_FDCWD:
        name = task.memory.read_cstring(path, PATH_MAX) if path else b""
        if not name:
            return task.files.get(dirfd).stat()
    return inode_at(task, dirfd, path, flags).stat()


@syscall(4, "stat", "path", "struct")
def sys_stat(task: Task, path: int, buffer: int) -> int:
    """What a file is."""
    name = task.memory.read_cstring(path, PATH_MAX)
    task.memory.write(buffer, pack_stat(lookup(task, name).stat()))
    return 0


@syscall(5, "fstat", "fd", "struct")
def sys_fstat(task: Task, fd: int, buffer: int) -> int:
    """What an open file is."""
    task.memory.write(buffer, pack_stat(task.files.get(fd).stat()))
    return 0


@syscall(6, "lstat", "path", "struct")
def sys_lstat(task: Task, path: int, buffer: int) -> int:
    """What a file is, links not followed."""
    name = task.memory.read_cstring(path, PATH_MAX)
    task.memory.write(buffer, pack_stat(lookup(task, name, follow=False).stat()))
    return 0


@syscall(262, "newfstatat", "dirfd", "path", "struct", "at_flags")
def sys_newfstatat(task: Task, dirfd: int, path: int, buffer: int, flags: int) -> int:
    """stat, lstat and fstat in one."""
    if flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT):
        raise SyscallError(Errno.EINVAL)
    task.memory.write(buffer, pack_stat(stat_at(task, dirfd, path, flags)))
    return 0


@syscall(332, "statx", "dirfd", "path", "at_flags", "flags", "struct")
def sys_statx(task: Task, dirfd: int, path: int, flags: int, mask: int, buffer: int) -> int:
    """The extended stat; the basic fields are always filled."""
    known = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_SYNC_TYPE
    if flags & ~known or flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE or mask & 0x8000_0000:
        raise SyscallError(Errno.EINVAL)
    task.memory.write(buffer, pack_statx(stat_at(task, dirfd, path, flags)))
    return 0


def _access(task: Task, inode: Inode, mode: int) -> int:
    if mode & ~7:
        raise SyscallError(Errno.EINVAL)
    if mode:
        check(task, inode, mode)
    return 0


@syscall(21, "access", "path", "int")
def sys_access(task: Task, path: int, mode: int) -> int:
    """Whether the caller may read, write or execute."""
    return sys_faccessat(task, AT_FDCWD, path, mode)


@syscall(269, "faccessat", "dirfd", "path", "int")
def sys_faccessat(task: Task, dirfd: int, path: int, mode: int) -> int:
    """access relative to a directory."""
    if mode & ~7:
        raise SyscallError(Errno.EINVAL)
    return _access(task, inode_at(task, dirfd, path, 0), mode)


@syscall(439, "faccessat2", "dirfd", "path", "int", "at_flags")
def sys_faccessat2(task: Task, dirfd: int, path: int, mode: int, flags: int) -> int:
    """faccessat with flags."""
    if mode & ~7 or flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH):
        raise SyscallError(Errno.EINVAL)
    return _access(task, inode_at(task, dirfd, path, flags), mode)


@syscall(89, "readlink", "path", "out_buffer", "int")
def sys_readlink(task: Task, path: int, buffer: int, size: int) -> int:
    """The target of a symbolic link."""
    return sys_readlinkat(task, AT_FDCWD, path, buffer, size)


@syscall(267, "readlinkat", "dirfd", "path", "out_buffer", "int")
def sys_readlinkat(task: Task, dirfd: int, path: int, buffer: int, size: int) -> int:
    """readlink relative to a directory; an empty path means the descriptor."""
    if size <= 0:
        raise SyscallError(Errno.EINVAL)
    name = task.memory.read_cstring(path, PATH_MAX)
    if name:
        inode = lookup(task, name, dirfd, follow=False)
    elif dirfd == AT_FDCWD:
        raise SyscallError(Errno.ENOENT)
    else:
        inode = task.files.get(dirfd).inode
    if not isinstance(inode, Symlink):
        raise SyscallError(Errno.EINVAL if name else Errno.ENOENT)
    target = inode.read_link(task)[:size]
    task.memory.write(buffer, target)
    return len(target)


@syscall(137, "statfs", "path", "struct")
def sys_statfs(task: Task, path: int, buffer: int) -> int:
    """The file system a path lies in."""
    name = task.memory.read_cstring(path, PATH_MAX)
    task.memory.write(buffer, pack_statfs(lookup(task, name).fs.statfs()))
    return 0


@syscall(138, "fstatfs", "fd", "struct")
def sys_fstatfs(task: Task, fd: int, buffer: int) -> int:
    """The file system of an open file."""
    task.memory.write(buffer, pack_statfs(task.files.get(fd).inode.fs.statfs()))
    return 0


def _getdents(task: Task, fd: int, buffer: int, count: int, old: bool) -> int:
    file = task.files.get_opened(fd)
    before = file.offset
    if count >> 31:
        raise SyscallError(Errno.EINVAL if file.inode.is_directory else Errno.ENOTDIR)
    data = file.getdents(task, min(count, 1 << 20), old)
    try:
        task.memory.write(buffer, data)
    except SyscallError:
        file.offset = before
        raise
    accessed(file.inode)
    return len(data)


@syscall(78, "getdents", "fd", "out_buffer", "uint")
def sys_getdents(task: Task, fd: int, buffer: int, count: int) -> int:
    """List a directory, old format."""
    return _getdents(task, fd, buffer, count, True)


@syscall(217, "getdents64", "fd", "out_buffer", "uint")
def sys_getdents64(task: Task, fd: int, buffer: int, count: int) -> int:
    """List a directory."""
    return _getdents(task, fd, buffer, count, False)
