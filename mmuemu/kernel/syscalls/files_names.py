"""System calls that change names and attributes: mkdir, link, rename, chmod, utimes, chdir and their kin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi import fcntl as c
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.stat import (
    PERMISSIONS,
    S_IFBLK,
    S_IFCHR,
    S_IFDIR,
    S_IFIFO,
    S_IFMT,
    S_IFREG,
    S_IFSOCK,
    S_ISGID,
    S_ISUID,
)
from mmuemu.kernel.files import notify
from mmuemu.kernel.files.inode import Directory
from mmuemu.kernel.files.naming import (
    change_directory,
    link,
    make_directory,
    make_node,
    make_symlink,
    owned,
    remove_directory,
    remove_file,
    rename,
)
from mmuemu.kernel.files.opening import check, truncate
from mmuemu.kernel.files.paths import lookup, path_of
from mmuemu.kernel.syscalls.files_stat import inode_at
from mmuemu.kernel.syscalls.table import signed32, signed64, syscall
from mmuemu.kernel.syscalls.transfer import may_grow

if TYPE_CHECKING:
    from mmuemu.kernel.files.inode import Inode
    from mmuemu.kernel.task import Task

_NS: Final = 1_000_000_000
MS_NOUSER: Final = 1 << 31
UMOUNT_NOFOLLOW: Final = 8
UMOUNT_FLAGS: Final = 15


def _path(task: Task, address: int) -> bytes:
    path: bytes = task.memory.read_cstring(address, c.PATH_MAX)
    return path


@syscall(79, "getcwd", "out_buffer", "size")
def sys_getcwd(task: Task, buffer: int, size: int) -> int:
    """The working directory's path with its NUL; the length counts the NUL."""
    cwd = task.fs.cwd
    path = path_of(cwd)
    if cwd.nlink == 0:
        raise SyscallError(Errno.ENOENT)
    if len(path) >= c.PATH_MAX:
        raise SyscallError(Errno.ENAMETOOLONG)
    if len(path) + 1 > size:
        raise SyscallError(Errno.ERANGE)
    task.memory.write(buffer, path + b"\0")
    return len(path) + 1


@syscall(80, "chdir", "path")
def sys_chdir(task: Task, path: int) -> int:
    """Change the working directory."""
    change_directory(task, lookup(task, _path(task, path)))
    return 0


@syscall(81, "fchdir", "fd")
def sys_fchdir(task: Task, fd: int) -> int:
    """Change the working directory to an open one."""
    change_directory(task, task.files.get(fd).inode)
    return 0


@syscall(95, "umask", "octal")
def sys_umask(task: Task, mask: int) -> int:
    """Set the file-creation mask; the old one is returned."""
    old, task.fs.umask = task.fs.umask, mask & 0o777
    return old


@syscall(83, "mkdir", "path", "octal")
def sys_mkdir(task: Task, path: int, mode: int) -> int:
    """Make a directory."""
    make_directory(task, _path(task, path), mode)
    return 0


@syscall(258, "mkdirat", "dirfd", "path", "octal")
def sys_mkdirat(task: Task, dirfd: int, path: int, mode: int) -> int:
    """Make a directory relative to another."""
    make_directory(task, _path(task, path), mode, dirfd)
    return 0


@syscall(84, "rmdir", "path")
def sys_rmdir(task: Task, path: int) -> int:
    """Remove an empty directory."""
    remove_directory(task, _path(task, path))
    return 0


@syscall(87, "unlink", "path")
def sys_unlink(task: Task, path: int) -> int:
    """Remove a name."""
    remove_file(task, _path(task, path))
    return 0


@syscall(263, "unlinkat", "dirfd", "path", "at_flags")
def sys_unlinkat(task: Task, dirfd: int, path: int, flags: int) -> int:
    """Remove a name or, with AT_REMOVEDIR, a directory."""
    if flags & ~c.AT_REMOVEDIR:
        raise SyscallError(Errno.EINVAL)
    (remove_directory if flags else remove_file)(task, _path(task, path), dirfd)
    return 0


@syscall(88, "symlink", "string", "path")
def sys_symlink(task: Task, target: int, path: int) -> int:
    """Make a symbolic link."""
    make_symlink(task, _path(task, target), _path(task, path))
    return 0


@syscall(266, "symlinkat", "string", "dirfd", "path")
def sys_symlinkat(task: Task, target: int, dirfd: int, path: int) -> int:
    """Make a symbolic link relative to a directory."""
    make_symlink(task, _path(task, target), _path(task, path), dirfd)
    return 0


@syscall(86, "link", "path", "path")
def sys_link(task: Task, old: int, new: int) -> int:
    """Give a file a further name."""
    return sys_linkat(task, c.AT_FDCWD, old, c.AT_FDCWD, new, 0)


@syscall(265, "linkat", "dirfd", "path", "dirfd", "path", "at_flags")
def sys_linkat(task: Task, old_dir: int, old: int, new_dir: int, new: int, flags: int) -> int:
    """Give a file a further name, relative to directories."""
    if flags & ~(c.AT_SYMLINK_FOLLOW | c.AT_EMPTY_PATH):
        raise SyscallError(Errno.EINVAL)
    if flags & c.AT_EMPTY_PATH and task.uid:
        raise SyscallError(Errno.ENOENT)
    follow = 0 if flags & c.AT_SYMLINK_FOLLOW else c.AT_SYMLINK_NOFOLLOW
    inode = inode_at(task, old_dir, old, flags & c.AT_EMPTY_PATH | follow)
    link(task, inode, _path(task, new), new_dir)
    return 0


@syscall(82, "rename", "path", "path")
def sys_rename(task: Task, old: int, new: int) -> int:
    """Move a name, replacing what has the new one."""
    rename(task, _path(task, old), _path(task, new))
    return 0


@syscall(264, "renameat", "dirfd", "path", "dirfd", "path")
def sys_renameat(task: Task, old_dir: int, old: int, new_dir: int, new: int) -> int:
    """rename relative to directories."""
    rename(task, _path(task, old), _path(task, new), old_dir, new_dir)
    return 0


@syscall(316, "renameat2", "dirfd", "path", "dirfd", "path", "flags")
def sys_renameat2(task: Task, old_dir: int, old: int, new_dir: int, new: int, flags: int) -> int:
    """renameat with RENAME_NOREPLACE and RENAME_EXCHANGE."""
    if flags & ~(c.RENAME_NOREPLACE | c.RENAME_EXCHANGE) or flags == c.RENAME_NOREPLACE | c.RENAME_EXCHANGE:
        raise SyscallError(Errno.EINVAL)
    rename(task, _path(task, old), _path(task, new), old_dir, new_dir, flags)
    return 0


@syscall(133, "mknod", "path", "octal", "ulong")
def sys_mknod(task: Task, path: int, mode: int, device: int) -> int:
    """Make a file or named pipe."""
    return sys_mknodat(task, c.AT_FDCWD, path, mode, device)


@syscall(259, "mknodat", "dirfd", "path", "octal", "ulong")
def sys_mknodat(task: Task, dirfd: int, path: int, mode: int, device: int) -> int:
    """Make a file, named pipe or socket; devices need a privilege nobody has here."""
    kind = mode & S_IFMT or S_IFREG
    if kind not in (S_IFREG, S_IFIFO, S_IFSOCK):
        raise SyscallError(Errno.EPERM if kind in (S_IFDIR, S_IFCHR, S_IFBLK) else Errno.EINVAL)
    make_node(task, _path(task, path), kind | mode & PERMISSIONS, dirfd)
    return 0


def _chmod(task: Task, inode: Inode, mode: int) -> int:
    owned(task, inode)
    if inode.is_symlink:
        raise SyscallError(Errno.EOPNOTSUPP)
    inode.set_mode(mode & (PERMISSIONS if task.uid == 0 or task.gid == inode.gid else PERMISSIONS & ~S_ISGID))
    notify.attributes(inode)
    return 0


@syscall(90, "chmod", "path", "octal")
def sys_chmod(task: Task, path: int, mode: int) -> int:
    """Change permission bits."""
    return _chmod(task, lookup(task, _path(task, path)), mode)


@syscall(91, "fchmod", "fd", "octal")
def sys_fchmod(task: Task, fd: int, mode: int) -> int:
    """Change an open file's permission bits."""
    return _chmod(task, task.files.get_opened(fd).inode, mode)


@syscall(268, "fchmodat", "dirfd", "path", "octal")
def sys_fchmodat(task: Task, dirfd: int, path: int, mode: int) -> int:
    """chmod relative to a directory."""
    return _chmod(task, inode_at(task, dirfd, path, 0), mode)


@syscall(452, "fchmodat2", "dirfd", "path", "octal", "at_flags")
def sys_fchmodat2(task: Task, dirfd: int, path: int, mode: int, flags: int) -> int:
    """fchmodat with flags."""
    if flags & ~(c.AT_SYMLINK_NOFOLLOW | c.AT_EMPTY_PATH):
        raise SyscallError(Errno.EINVAL)
    return _chmod(task, inode_at(task, dirfd, path, flags), mode)


def _chown(task: Task, inode: Inode, uid: int, gid: int) -> int:
    """Only root gives files away; an owner may choose its own group. setuid and setgid bits go (chown(2))."""
    user, group = signed32(uid), signed32(gid)
    if task.uid:
        if user not in (-1, inode.uid) or (group not in (-1, inode.gid) and group != task.gid):
            raise SyscallError(Errno.EPERM)
        if (user != -1 or group != -1) and inode.uid != task.uid:
            raise SyscallError(Errno.EPERM)
    inode.set_owner(user, group)
    if not inode.is_directory and inode.mode & (S_ISUID | S_ISGID):
        inode.set_mode(inode.mode & ~S_ISUID & (~S_ISGID if inode.mode & 0o10 else -1))
        user = 0
    if user != -1 or group != -1:
        notify.attributes(inode)
    return 0


@syscall(92, "chown", "path", "uid", "uid")
def sys_chown(task: Task, path: int, uid: int, gid: int) -> int:
    """Change owner and group."""
    return _chown(task, lookup(task, _path(task, path)), uid, gid)


@syscall(93, "fchown", "fd", "uid", "uid")
def sys_fchown(task: Task, fd: int, uid: int, gid: int) -> int:
    """Change an open file's owner and group."""
    return _chown(task, task.files.get_opened(fd).inode, uid, gid)


@syscall(94, "lchown", "path", "uid", "uid")
def sys_lchown(task: Task, path: int, uid: int, gid: int) -> int:
    """Change a link's own owner and group."""
    return _chown(task, lookup(task, _path(task, path), follow=False), uid, gid)


@syscall(260, "fchownat", "dirfd", "path", "uid", "uid", "at_flags")
def sys_fchownat(task: Task, dirfd: int, path: int, uid: int, gid: int, flags: int) -> int:
    """chown relative to a directory."""
    if flags & ~(c.AT_SYMLINK_NOFOLLOW | c.AT_EMPTY_PATH):
        raise SyscallError(Errno.EINVAL)
    return _chown(task, inode_at(task, dirfd, path, flags), uid, gid)


def _set_times(task: Task, inode: Inode, times: tuple[int | None, int | None] | None) -> int:
    """None: both become now, which write permission is enough for; otherwise only the owner may."""
    if times is None:
        if task.uid not in (0, inode.uid) and not inode.permits(task.uid, task.gid, c.W_OK):
            raise SyscallError(Errno.EACCES)
        now = inode.fs.clock()
        times = (now, now)
    else:
        owned(task, inode)
    inode.set_times(*times)
    notify.times_set(inode, *times)
    return 0


def _timespecs(task: Task, address: int) -> tuple[int | None, int | None] | None:
    """A pair of struct timespec as nanoseconds: None for UTIME_OMIT; None altogether when both are now."""
    if not address:
        return None
    raw = [signed64(v) for v in memoryview(task.memory.read(address, 32)).cast("Q").tolist()]
    if raw[1] == raw[3] == c.UTIME_NOW:
        return None
    times: list[int | None] = []
    for seconds, nanoseconds in ((raw[0], raw[1]), (raw[2], raw[3])):
        if nanoseconds == c.UTIME_NOW:
            times.append(task.fs.mounts.clock())
        elif nanoseconds == c.UTIME_OMIT:
            times.append(None)
        elif 0 <= nanoseconds < _NS:
            times.append(seconds * _NS + nanoseconds)
        else:
            raise SyscallError(Errno.EINVAL)
    return times[0], times[1]


@syscall(280, "utimensat", "dirfd", "path", "struct", "at_flags")
def sys_utimensat(task: Task, dirfd: int, path: int, times: int, flags: int) -> int:
    """Set times in nanoseconds; a null path means the descriptor."""
    wanted = _timespecs(task, times)
    if wanted == (None, None):
        return 0
    if flags & ~(c.AT_SYMLINK_NOFOLLOW | c.AT_EMPTY_PATH):
        raise SyscallError(Errno.EINVAL)
    if not path and dirfd != c.AT_FDCWD:
        if flags & c.AT_SYMLINK_NOFOLLOW:
            raise SyscallError(Errno.EINVAL)
        inode = task.files.get_opened(dirfd).inode
    else:
        inode = inode_at(task, dirfd, path, flags)
    return _set_times(task, inode, wanted)


def _timevals(task: Task, address: int) -> tuple[int | None, int | None] | None:
    if not address:
        return None
    raw = [signed64(v) for v in memoryview(task.memory.read(address, 32)).cast("Q").tolist()]
    if not (0 <= raw[1] < 1_000_000 and 0 <= raw[3] < 1_000_000):
        raise SyscallError(Errno.EINVAL)
    return raw[0] * _NS + raw[1] * 1000, raw[2] * _NS + raw[3] * 1000


@syscall(235, "utimes", "path", "struct")
def sys_utimes(task: Task, path: int, times: int) -> int:
    """Set times in microseconds."""
    return _set_times(task, lookup(task, _path(task, path)), _timevals(task, times))


@syscall(261, "futimesat", "dirfd", "path", "struct")
def sys_futimesat(task: Task, dirfd: int, path: int, times: int) -> int:
    """utimes relative to a directory."""
    descriptor = not path and dirfd != c.AT_FDCWD
    inode = task.files.get_opened(dirfd).inode if descriptor else inode_at(task, dirfd, path, 0)
    return _set_times(task, inode, _timevals(task, times))


@syscall(132, "utime", "path", "struct")
def sys_utime(task: Task, path: int, times: int) -> int:
    """Set times in seconds."""
    inode = lookup(task, _path(task, path))
    if not times:
        return _set_times(task, inode, None)
    raw = [signed64(v) * _NS for v in memoryview(task.memory.read(times, 16)).cast("Q").tolist()]
    return _set_times(task, inode, (raw[0], raw[1]))


@syscall(76, "truncate", "path", "off")
def sys_truncate(task: Task, path: int, size: int) -> int:
    """Set a file's length."""
    if size < 0:
        raise SyscallError(Errno.EINVAL)
    inode = lookup(task, _path(task, path))
    if isinstance(inode, Directory):
        raise SyscallError(Errno.EISDIR)
    if not inode.is_regular:
        raise SyscallError(Errno.EINVAL)
    check(task, inode, c.W_OK)
    may_grow(task, inode, size)
    truncate(inode, size)
    return 0


@syscall(161, "chroot", "path")
def sys_chroot(task: Task, path: int) -> int:
    """A privilege nobody has here, whatever the user."""
    change_directory(task, lookup(task, _path(task, path)), only_check=True)
    raise SyscallError(Errno.EPERM)


@syscall(165, "mount", "string", "path", "string", "flags", "ptr")
def sys_mount(task: Task, source: int, target: int, kind: int, flags: int, data: int) -> int:
    """A privilege nobody has here; what names the mount is looked at first (fs/namespace.c: do_mount)."""
    for text in (kind, source):
        if text:
            _path(task, text)
    if data:
        task.memory.read(data, 1)
    lookup(task, _path(task, target))
    raise SyscallError(Errno.EINVAL if flags & MS_NOUSER else Errno.EPERM)


@syscall(166, "umount2", "path", "flags")
def sys_umount2(task: Task, target: int, flags: int) -> int:
    """A privilege nobody has here."""
    if flags & ~UMOUNT_FLAGS:
        raise SyscallError(Errno.EINVAL)
    lookup(task, _path(task, target), follow=not flags & UMOUNT_NOFOLLOW)
    raise SyscallError(Errno.EPERM)
