"""inotify: watching files and directories (inotify(7), fs/notify/inotify/inotify_user.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import O_CLOEXEC, O_NONBLOCK, PATH_MAX, R_OK
from mmuemu.kernel.abi.inotify import ALL_BITS, IN_DONT_FOLLOW, IN_MASK_ADD, IN_MASK_CREATE, IN_ONLYDIR
from mmuemu.kernel.files.inotify import InotifyFile
from mmuemu.kernel.files.opening import check
from mmuemu.kernel.files.paths import lookup
from mmuemu.kernel.syscalls.table import syscall

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task


@syscall(253, "inotify_init")
def sys_inotify_init(task: Task) -> int:
    """Make an instance."""
    return sys_inotify_init1(task, 0)


@syscall(294, "inotify_init1", "open_flags")
def sys_inotify_init1(task: Task, flags: int) -> int:
    """Make an instance with IN_CLOEXEC or IN_NONBLOCK; EMFILE over the limit of instances."""
    if flags & ~(O_CLOEXEC | O_NONBLOCK):
        raise SyscallError(Errno.EINVAL)
    task.files.lowest_free()
    mounts = task.fs.mounts
    if mounts.quota.full:
        raise SyscallError(Errno.ENFILE)
    file = InotifyFile(mounts.pipes, mounts.notifications, flags & O_NONBLOCK)
    return task.files.install(file, bool(flags & O_CLOEXEC))


def _instance(task: Task, fd: int) -> InotifyFile:
    file = task.files.get_opened(fd)
    if not isinstance(file, InotifyFile):
        raise SyscallError(Errno.EINVAL)
    return file


@syscall(254, "inotify_add_watch", "fd", "path", "flags")
def sys_inotify_add_watch(task: Task, fd: int, path: int, mask: int) -> int:
    """Watch a file or change its watch; read permission is needed."""
    if not mask & ALL_BITS:
        raise SyscallError(Errno.EINVAL)
    file = task.files.get_opened(fd)
    if mask & IN_MASK_ADD and mask & IN_MASK_CREATE:
        raise SyscallError(Errno.EINVAL)
    file = _instance(task, fd)
    name = task.memory.read_cstring(path, PATH_MAX)
    inode = lookup(task, name, follow=not mask & IN_DONT_FOLLOW)
    if mask & IN_ONLYDIR and not inode.is_directory:
        raise SyscallError(Errno.ENOTDIR)
    check(task, inode, R_OK)
    return file.watch(inode, mask)


@syscall(255, "inotify_rm_watch", "fd", "int")
def sys_inotify_rm_watch(task: Task, fd: int, wd: int) -> int:
    """Remove a watch; IN_IGNORED tells of it."""
    _instance(task, fd).unwatch(wd)
    return 0
