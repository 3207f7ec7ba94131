"""Making, removing and moving names (fs/namei.c: do_mkdirat, do_unlinkat, do_linkat, do_renameat2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import AT_FDCWD, RENAME_EXCHANGE, RENAME_NOREPLACE, W_OK, X_OK
from mmuemu.kernel.abi.stat import PERMISSIONS, S_ISVTX
from mmuemu.kernel.files import notify
from mmuemu.kernel.files.inode import Directory
from mmuemu.kernel.files.opening import check
from mmuemu.kernel.files.paths import Resolved, is_beneath, resolve

if TYPE_CHECKING:
    from mmuemu.kernel.files.inode import Caller, Inode


def owned(caller: Caller, inode: Inode) -> None:
    """EPERM unless the caller owns ``inode`` or is root."""
    if caller.uid not in (0, inode.uid):
        raise SyscallError(Errno.EPERM)


def change_directory(caller: Caller, inode: Inode, only_check: bool = False) -> None:
    """Make ``inode`` the working directory; ENOTDIR, EACCES."""
    if not isinstance(inode, Directory):
        raise SyscallError(Errno.ENOTDIR)
    check(caller, inode, X_OK)
    if not only_check:
        caller.fs.cwd = inode


def _new_name(caller: Caller, path: bytes, dirfd: int, directory: bool = False) -> Resolved:
    """A place for a new name: EEXIST when taken, ENOENT for a trailing slash on anything but a directory."""
    where = resolve(caller, path, dirfd, follow=False, keep=True)
    if where.inode is not None:
        raise SyscallError(Errno.EEXIST)
    if where.slash and not directory:
        raise SyscallError(Errno.ENOENT)
    check(caller, where.parent, W_OK | X_OK)
    return where


def make_directory(caller: Caller, path: bytes, mode: int, dirfd: int = AT_FDCWD) -> None:
    """``mkdirat(2)``."""
    where = _new_name(caller, path, dirfd, directory=True)
    mode = mode & 0o1777 & ~caller.fs.umask
    made = where.parent.mkdir(where.name, mode, caller.uid, caller.gid)
    notify.created(where.parent, where.name, made)


def make_node(caller: Caller, path: bytes, mode: int, dirfd: int = AT_FDCWD) -> None:
    """``mknodat(2)`` of a regular file or named pipe."""
    where = _new_name(caller, path, dirfd)
    mode = mode & ~PERMISSIONS | mode & PERMISSIONS & ~caller.fs.umask
    made = where.parent.create(where.name, mode, caller.uid, caller.gid)
    notify.created(where.parent, where.name, made)


def make_symlink(caller: Caller, target: bytes, path: bytes, dirfd: int = AT_FDCWD) -> None:
    """``symlinkat(2)``."""
    if not target:
        raise SyscallError(Errno.ENOENT)
    where = _new_name(caller, path, dirfd)
    made = where.parent.symlink(where.name, target, caller.uid, caller.gid)
    notify.created(where.parent, where.name, made)


def link(caller: Caller, inode: Inode, path: bytes, dirfd: int = AT_FDCWD) -> None:
    """``linkat(2)``: the inode is found already. EPERM for directories, EXDEV across file systems."""
    where = _new_name(caller, path, dirfd)
    if inode.fs is not where.parent.fs:
        raise SyscallError(Errno.EXDEV)
    if isinstance(inode, Directory):
        raise SyscallError(Errno.EPERM)
    if inode.nlink == 0 and not inode.linkable:
        raise SyscallError(Errno.ENOENT)
    where.parent.link(where.name, inode)
    notify.linked(where.parent, where.name, inode)


def _may_delete(caller: Caller, parent: Directory, inode: Inode) -> None:
    """Write permission on the directory, and in a sticky one ownership of it or of the file (EPERM)."""
    check(caller, parent, W_OK | X_OK)
    if parent.mode & S_ISVTX and caller.uid not in (0, parent.uid, inode.uid):
        raise SyscallError(Errno.EPERM)


def _existing_name(where: Resolved) -> Inode:
    if where.inode is None:
        raise SyscallError(Errno.ENOENT)
    return where.inode


def _busy(inode: Inode) -> bool:
    return inode is inode.fs.root


def remove_file(caller: Caller, path: bytes, dirfd: int = AT_FDCWD) -> None:
    """``unlink(2)``."""
    where = resolve(caller, path, dirfd, follow=False, keep=True)
    inode = _existing_name(where)
    if not where.name:
        raise SyscallError(Errno.EISDIR)
    if where.slash:
        raise SyscallError(Errno.EISDIR if isinstance(inode, Directory) else Errno.ENOTDIR)
    _may_delete(caller, where.parent, inode)
    if isinstance(inode, Directory):
        raise SyscallError(Errno.EISDIR)
    if _busy(inode):
        raise SyscallError(Errno.EBUSY)
    where.parent.unlink(where.name, inode)
    notify.removed(where.parent, where.name, inode)


def remove_directory(caller: Caller, path: bytes, dirfd: int = AT_FDCWD) -> None:
    """``rmdir(2)``."""
    where = resolve(caller, path, dirfd, follow=False, keep=True)
    inode = _existing_name(where)
    if not where.name:
        raise SyscallError(
            Errno.ENOTEMPTY if where.last == b".." else Errno.EINVAL if where.last == b"." else Errno.EBUSY
        )
    _may_delete(caller, where.parent, inode)
    if not isinstance(inode, Directory):
        raise SyscallError(Errno.ENOTDIR)
    if _busy(inode):
        raise SyscallError(Errno.EBUSY)
    if not inode.is_empty():
        raise SyscallError(Errno.ENOTEMPTY)
    where.parent.rmdir(where.name, inode)
    notify.removed(where.parent, where.name, inode)


def rename(
    caller: Caller, old: bytes, new: bytes, old_dir: int = AT_FDCWD, new_dir: int = AT_FDCWD, flags: int = 0
) -> None:
    """``renameat2(2)`` with RENAME_NOREPLACE or RENAME_EXCHANGE in ``flags``."""
    source = resolve(caller, old, old_dir, follow=False, keep=True)
    target = resolve(caller, new, new_dir, follow=False, keep=True)
    if source.parent.fs is not target.parent.fs:
        raise SyscallError(Errno.EXDEV)
    if not source.name:
        raise SyscallError(Errno.EBUSY)
    if not target.name:
        raise SyscallError(Errno.EEXIST if flags & RENAME_NOREPLACE else Errno.EBUSY)
    inode = _existing_name(source)
    _check_target(source, inode, target, flags)
    if inode is target.inode:
        return
    replaced = target.inode
    exchange = bool(flags & RENAME_EXCHANGE)
    _may_delete(caller, source.parent, inode)
    if replaced is None:
        check(caller, target.parent, W_OK | X_OK)
    else:
        _may_delete(caller, target.parent, replaced)
        if not exchange:
            _check_replacing(inode, replaced)
    if _busy(inode) or (replaced is not None and _busy(replaced)):
        raise SyscallError(Errno.EBUSY)
    source.parent.rename(source.name, inode, target.parent, target.name, replaced, exchange)
    notify.renamed(source.parent, source.name, inode, target.parent, target.name, replaced, exchange)


def _check_target(source: Resolved, inode: Inode, target: Resolved, flags: int) -> None:
    """Existence, trailing slashes, and no directory into itself."""
    replaced = target.inode
    if replaced is not None and flags & RENAME_NOREPLACE:
        raise SyscallError(Errno.EEXIST)
    if flags & RENAME_EXCHANGE:
        if replaced is None:
            raise SyscallError(Errno.ENOENT)
        if target.slash and not isinstance(replaced, Directory):
            raise SyscallError(Errno.ENOTDIR)
    if not isinstance(inode, Directory):
        if source.slash or (target.slash and not flags & RENAME_EXCHANGE):
            raise SyscallError(Errno.ENOTDIR)
    elif is_beneath(target.parent, inode):
        raise SyscallError(Errno.EINVAL)
    if isinstance(replaced, Directory) and is_beneath(source.parent, replaced):
        raise SyscallError(Errno.EINVAL if flags & RENAME_EXCHANGE else Errno.ENOTEMPTY)


def _check_replacing(inode: Inode, replaced: Inode) -> None:
    """Like replaces like, and only an empty directory is replaced."""
    if isinstance(inode, Directory):
        if not isinstance(replaced, Directory):
            raise SyscallError(Errno.ENOTDIR)
        if not replaced.is_empty():
            raise SyscallError(Errno.ENOTEMPTY)
    elif isinstance(replaced, Directory):
        raise SyscallError(Errno.EISDIR)
