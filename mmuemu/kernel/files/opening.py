"""open(2): from a path and flags to an open file description (fs/namei.c: path_openat, do_open)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import (
    AT_FDCWD,
    O_ACCMODE,
    O_CREAT,
    O_DIRECTORY,
    O_EXCL,
    O_LARGEFILE,
    O_NOATIME,
    O_NOFOLLOW,
    O_PATH,
    O_RDONLY,
    O_TMPFILE,
    O_TRUNC,
    O_WRONLY,
    R_OK,
    W_OK,
    X_OK,
)
from mmuemu.kernel.abi.stat import PERMISSIONS, S_IFREG
from mmuemu.kernel.files import notify
from mmuemu.kernel.files.inode import Directory, Symlink
from mmuemu.kernel.files.openfile import OpenPath
from mmuemu.kernel.files.paths import resolve

if TYPE_CHECKING:
    from mmuemu.kernel.files.inode import Caller, Inode
    from mmuemu.kernel.files.openfile import OpenFile
    from mmuemu.kernel.files.paths import Resolved


_TMPFILE_BIT: Final = O_TMPFILE & ~O_DIRECTORY


def wanted_access(flags: int) -> int:
    """R_OK and W_OK bits for an access mode; 3 asks for both (fs/open.c: ACC_MODE)."""
    access = flags & O_ACCMODE
    want = R_OK if access == O_RDONLY else W_OK if access == O_WRONLY else R_OK | W_OK
    return want | W_OK if flags & O_TRUNC else want


def check(caller: Caller, inode: Inode, want: int) -> None:
    """EACCES unless the caller may do ``want``."""
    if not inode.permits(caller.uid, caller.gid, want):
        raise SyscallError(Errno.EACCES)


def open_file(
    caller: Caller, path: bytes, flags: int, mode: int = 0, dirfd: int = AT_FDCWD, scope: int = 0
) -> OpenFile:
    """Open, and with O_CREAT make, the file ``path``; SyscallError as open(2) lists them.

    ``scope`` has RESOLVE_* bits of openat2(2).
    """
    flags |= O_LARGEFILE
    if flags & _TMPFILE_BIT:
        return _open_unnamed(caller, path, flags, mode, dirfd, scope)
    create = flags & O_CREAT
    if create and flags & O_DIRECTORY:
        raise SyscallError(Errno.EINVAL)
    if flags & O_PATH:
        flags &= O_PATH | O_DIRECTORY | O_NOFOLLOW
        create = 0
    follow = not (flags & O_NOFOLLOW or (create and flags & O_EXCL))
    where = resolve(caller, path, dirfd, follow, keep=bool(create), scope=scope)
    if create:
        if where.slash and where.name:
            raise SyscallError(Errno.EISDIR)
        if where.inode is None:
            return _create(caller, where, flags, mode)
        if flags & O_EXCL:
            raise SyscallError(Errno.EEXIST)
    return _open_existing(caller, where.existing(), flags)


def _open_existing(caller: Caller, inode: Inode, flags: int) -> OpenFile:
    if isinstance(inode, Symlink) and not flags & O_PATH:
        raise SyscallError(Errno.ENOTDIR if flags & O_DIRECTORY else Errno.ELOOP)
    if flags & O_DIRECTORY and not isinstance(inode, Directory):
        raise SyscallError(Errno.ENOTDIR)
    if flags & O_PATH:
        return OpenPath(inode, flags)
    want = wanted_access(flags)
    if isinstance(inode, Directory) and (want & W_OK or flags & O_CREAT):
        raise SyscallError(Errno.EISDIR)
    check(caller, inode, want)
    if flags & O_NOATIME and caller.uid not in (0, inode.uid):
        raise SyscallError(Errno.EPERM)
    file = inode.open(caller, flags)
    notify.opened(file)
    if flags & O_TRUNC and inode.is_regular:
        try:
            truncate(inode, 0)
        except SyscallError:
            file.closed()
            raise
    return file


def truncate(inode: Inode, size: int) -> None:
    """Set the length of a file that is not open for writing; ETXTBSY while a program runs from it."""
    inode.get_write_access()
    try:
        inode.truncate(size)
        notify.modified(inode)
    finally:
        inode.write_count -= 1


def _create(caller: Caller, where: Resolved, flags: int, mode: int) -> OpenFile:
    check(caller, where.parent, W_OK | X_OK)
    mode = mode & PERMISSIONS & ~caller.fs.umask
    inode = where.parent.create(where.name, S_IFREG | mode, caller.uid, caller.gid)
    notify.created(where.parent, where.name, inode)
    file = inode.open(caller, flags)
    notify.opened(file)
    return file


def _open_unnamed(caller: Caller, path: bytes, flags: int, mode: int, dirfd: int, scope: int) -> OpenFile:
    """O_TMPFILE (with which O_EXCL means that it never gets a name)."""
    if not flags & O_DIRECTORY or flags & O_ACCMODE == O_RDONLY or flags & O_CREAT:
        raise SyscallError(Errno.EINVAL)
    directory = resolve(caller, path, dirfd, not flags & O_NOFOLLOW, scope=scope).existing()
    if not isinstance(directory, Directory):
        raise SyscallError(Errno.ENOTDIR)
    check(caller, directory, W_OK | X_OK)
    inode = directory.create_unnamed(mode & PERMISSIONS & ~caller.fs.umask, caller.uid, caller.gid)
    inode.linkable = not flags & O_EXCL
    return inode.open(caller, flags & ~O_DIRECTORY)
