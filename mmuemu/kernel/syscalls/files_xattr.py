"""Extended attributes (xattr(7)): no file has any and none can be set, as on a file system without them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import PATH_MAX
from mmuemu.kernel.files.paths import lookup
from mmuemu.kernel.syscalls.table import syscall

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

XATTR_NAME_MAX: Final = 255
XATTR_SIZE_MAX: Final = 65536


def _exists(task: Task, path: int, follow: bool) -> None:
    lookup(task, task.memory.read_cstring(path, PATH_MAX), follow=follow)


def _name(task: Task, address: int) -> None:
    """The attribute's name must be there: ERANGE when empty or too long."""
    try:
        name = task.memory.read_cstring(address, XATTR_NAME_MAX + 1)
    except SyscallError as error:
        raise SyscallError(Errno.ERANGE if error.errno is Errno.ENAMETOOLONG else error.errno) from None
    if not name:
        raise SyscallError(Errno.ERANGE)


def _set(task: Task, name: int, size: int, flags: int) -> int:
    if flags & ~3:
        raise SyscallError(Errno.EINVAL)
    _name(task, name)
    if size > XATTR_SIZE_MAX:
        raise SyscallError(Errno.E2BIG)
    raise SyscallError(Errno.EOPNOTSUPP)


def _absent(task: Task, name: int) -> int:
    _name(task, name)
    raise SyscallError(Errno.EOPNOTSUPP)


@syscall(188, "setxattr", "path", "string", "in_buffer", "size", "flags")
def sys_setxattr(task: Task, path: int, name: int, value: int, size: int, flags: int) -> int:
    """Set an attribute: EOPNOTSUPP."""
    _exists(task, path, True)
    return _set(task, name, size, flags)


@syscall(189, "lsetxattr", "path", "string", "in_buffer", "size", "flags")
def sys_lsetxattr(task: Task, path: int, name: int, value: int, size: int, flags: int) -> int:
    """Set a link's attribute: EOPNOTSUPP."""
    _exists(task, path, False)
    return _set(task, name, size, flags)


@syscall(190, "fsetxattr", "fd", "string", "in_buffer", "size", "flags")
def sys_fsetxattr(task: Task, fd: int, name: int, value: int, size: int, flags: int) -> int:
    """Set an open file's attribute: EOPNOTSUPP."""
    task.files.get_opened(fd)
    return _set(task, name, size, flags)


@syscall(191, "getxattr", "path", "string", "out_buffer", "size")
def sys_getxattr(task: Task, path: int, name: int, value: int, size: int) -> int:
    """Read an attribute: EOPNOTSUPP."""
    _exists(task, path, True)
    return _absent(task, name)


@syscall(192, "lgetxattr", "path", "string", "out_buffer", "size")
def sys_lgetxattr(task: Task, path: int, name: int, value: int, size: int) -> int:
    """Read a link's attribute: EOPNOTSUPP."""
    _exists(task, path, False)
    return _absent(task, name)


@syscall(193, "fgetxattr", "fd", "string", "out_buffer", "size")
def sys_fgetxattr(task: Task, fd: int, name: int, value: int, size: int) -> int:
    """Read an open file's attribute: EOPNOTSUPP."""
    task.files.get_opened(fd)
    return _absent(task, name)


@syscall(194, "listxattr", "path", "out_buffer", "size")
def sys_listxattr(task: Task, path: int, names: int, size: int) -> int:
    """List attributes: none."""
    _exists(task, path, True)
    return 0


@syscall(195, "llistxattr", "path", "out_buffer", "size")
def sys_llistxattr(task: Task, path: int, names: int, size: int) -> int:
    """List a link's attributes: none."""
    _exists(task, path, False)
    return 0


@syscall(196, "flistxattr", "fd", "out_buffer", "size")
def sys_flistxattr(task: Task, fd: int, names: int, size: int) -> int:
    """List an open file's attributes: none."""
    task.files.get_opened(fd)
    return 0


@syscall(197, "removexattr", "path", "string")
def sys_removexattr(task: Task, path: int, name: int) -> int:
    """Remove an attribute: EOPNOTSUPP."""
    _exists(task, path, True)
    return _absent(task, name)


@syscall(198, "lremovexattr", "path", "string")
def sys_lremovexattr(task: Task, path: int, name: int) -> int:
    """Remove a link's attribute: EOPNOTSUPP."""
    _exists(task, path, False)
    return _absent(task, name)


@syscall(199, "fremovexattr", "fd", "string")
def sys_fremovexattr(task: Task, fd: int, name: int) -> int:
    """Remove an open file's attribute: EOPNOTSUPP."""
    task.files.get_opened(fd)
    return _absent(task, name)
