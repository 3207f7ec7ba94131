"""execve(2) and execveat(2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.errors import BadImage
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, O_NOFOLLOW, PATH_MAX, X_OK
from mmuemu.kernel.exec import Loader
from mmuemu.kernel.program import open_program, read_program
from mmuemu.kernel.syscalls.table import syscall
from mmuemu.loader.stack import ArgumentsTooLong

if TYPE_CHECKING:
    from mmuemu.kernel.files.openfile import OpenFile
    from mmuemu.kernel.task import Task

MAX_ARG_STRLEN: Final = 131072
MAX_ARG_STRINGS: Final = 0x7FFF_FFFF
ARG_LIMIT: Final = 2 << 20
"""A quarter of the usual 8 MiB stack: all strings and pointers together (execve(2))."""


def _strings(task: Task, address: int, used: int) -> tuple[list[bytes], int]:
    """The strings of a NULL-terminated array of pointers (none for NULL), and the bytes used so far."""
    found: list[bytes] = []
    while address:
        pointer = task.memory.read_u64(address)
        if not pointer:
            break
        try:
            text = task.memory.read_cstring(pointer, MAX_ARG_STRLEN)
        except SyscallError as error:
            raise SyscallError(Errno.E2BIG if error.errno is Errno.ENAMETOOLONG else error.errno) from None
        used += len(text) + 9
        if used > ARG_LIMIT:
            raise SyscallError(Errno.E2BIG)
        found.append(text)
        address += 8
    return found, used


def _written(task: Task, file: OpenFile) -> bool:
    """Whether anybody has the program file open for writing (``deny_write_access``)."""
    inode = file.inode
    return any(
        opened.inode is inode and opened.writable
        for files in {other.files for other in task.kernel.tasks.values()}
        for opened in files.opened()
    )


def _execute(task: Task, file: OpenFile, path: bytes, argv: int, envp: int, *, hidden: bool = False) -> int:
    """Execute ``file``; ``hidden``: an interpreter could not open ``path``, a descriptor that closes."""
    if _written(task, file):
        raise SyscallError(Errno.ETXTBSY)
    arguments, used = _strings(task, argv, 0)
    environment, _ = _strings(task, envp, used)
    try:
        program = read_program(task, file, path, arguments or [b""], environment)
        if hidden and program.file is not file:
            raise SyscallError(Errno.ENOENT)
        Loader(task.kernel).execute(task, program, environment)
    except ArgumentsTooLong:
        raise SyscallError(Errno.E2BIG) from None
    except BadImage as error:
        raise SyscallError(getattr(error, "errno", Errno.ENOEXEC)) from None
    return 0


@syscall(59, "execve", "path", "argv", "ptr")
def sys_execve(task: Task, path: int, argv: int, envp: int) -> int:
    """execve(2)."""
    name = task.memory.read_cstring(path, PATH_MAX)
    return _execute(task, open_program(task, name), name, argv, envp)


@syscall(322, "execveat", "dirfd", "path", "argv", "ptr", "at_flags")
def sys_execveat(task: Task, dirfd: int, path: int, argv: int, envp: int, flags: int) -> int:
    """execveat(2)."""
    if flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW):
        raise SyscallError(Errno.EINVAL)
    name = task.memory.read_cstring(path, PATH_MAX)
    if not name and flags & AT_EMPTY_PATH and dirfd != AT_FDCWD:
        inode = task.files.get(dirfd).inode
        if not inode.is_regular or not inode.permits(task.uid, task.gid, X_OK):
            raise SyscallError(Errno.EACCES)
        file, shown = task.files.get(dirfd).reopen(task, 0), b"/dev/fd/%d" % dirfd
        return _execute(task, file, shown, argv, envp, hidden=dirfd in task.files.cloexec)
    nofollow = O_NOFOLLOW if flags & AT_SYMLINK_NOFOLLOW else 0
    file = open_program(task, name, dirfd, nofollow)
    shown = name if name.startswith(b"/") or dirfd == AT_FDCWD else b"/dev/fd/%d/%s" % (dirfd, name)
    return _execute(task, file, shown, argv, envp, hidden=shown is not name and dirfd in task.files.cloexec)
