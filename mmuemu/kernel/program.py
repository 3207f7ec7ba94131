"""Program files: finding one, reading it, following ``#!`` lines to its interpreter (execve(2)), mapping it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from mmuemu.errors import BadImage, Exit, MmuemuError
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import AT_FDCWD, O_NOFOLLOW, O_RDONLY, X_OK
from mmuemu.kernel.abi.mman import MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_WRITE
from mmuemu.kernel.files.inode import Caller
from mmuemu.kernel.files.opening import open_file
from mmuemu.kernel.files.paths import path_of, resolve
from mmuemu.kernel.images import content, image_of
from mmuemu.loader.elf import DT_NEEDED, ElfImage
from mmuemu.x86.paging import PAGE_SIZE

if TYPE_CHECKING:
    from mmap import mmap

    from mmuemu.kernel.address_space import AddressSpace
    from mmuemu.kernel.files.context import FsContext
    from mmuemu.kernel.files.fdtable import FdTable
    from mmuemu.kernel.files.openfile import OpenFile
    from mmuemu.kernel.user_memory import UserMemory
    from mmuemu.loader.libraries import Closure
    from mmuemu.loader.plan import LoadPlan

LINE: Final = 256
"""BINPRM_BUF_SIZE: a ``#!`` line ends there at the latest (include/uapi/linux/binfmts.h)."""
_LIBRARY_PATH: Final = b"LD_LIBRARY_PATH="
MOST_SCRIPTS: Final = 5
"""Scripts whose interpreter is a script, one after another (fs/exec.c: exec_binprm)."""


class NotFound(MmuemuError):
    """The program does not exist in the guest's view."""

    exit_code = Exit.NOT_FOUND


class NoLinker(BadImage):
    """The dynamic linker that PT_INTERP names does not exist."""

    errno = Errno.ENOENT


class NotLinked(BadImage):
    """A library, or a symbol that some library must have, is missing or broken."""

    errno = Errno.ELIBACC


class Starter:
    """Under whose identity the program file is looked up and opened, before there is a task."""

    def __init__(self, pid: int, uid: int, gid: int, fs: FsContext, files: FdTable) -> None:
        self.pid = pid
        self.uid = uid
        self.gid = gid
        self.fs = fs
        self.files = files
        self.call_state: object = None


class Program(NamedTuple):
    """What execve is to load: the image and its file, the dynamic linker, and the arguments that result."""

    image: ElfImage
    file: OpenFile
    interpreter: tuple[ElfImage, OpenFile] | None
    arguments: tuple[bytes, ...]
    filename: bytes
    """AT_EXECFN."""
    name: bytes
    """What the task is called: the last part of the path asked for."""
    libraries: Closure[LibraryFile] | None = None
    """What the kernel must link it with, for it names libraries and no dynamic linker."""


class LibraryFile(NamedTuple):
    """An opened library."""

    path: str
    data: bytes | mmap
    file: OpenFile


def open_program(caller: Caller, path: bytes, dirfd: int = AT_FDCWD, flags: int = 0) -> OpenFile:
    """The file to execute. ENOENT, ENOTDIR, ELOOP, EACCES (no regular file, or not executable)..."""
    inode = resolve(caller, path, dirfd, follow=not flags & O_NOFOLLOW).existing()
    if inode.is_symlink:
        raise SyscallError(Errno.ELOOP)
    if not inode.is_regular or not inode.permits(caller.uid, caller.gid, X_OK):
        raise SyscallError(Errno.EACCES)
    return open_file(caller, path, O_RDONLY, 0, dirfd)


def _interpreter_line(head: bytes) -> tuple[bytes, list[bytes]]:
    """The interpreter that a ``#!`` line names, and its argument if it has one.

    ENOEXEC without a name, or when the line is cut within it (fs/binfmt_script.c).
    """
    line, newline, _ = head[2 : LINE - 1].partition(b"\n")
    whole = bool(newline) or len(head) < LINE
    line = line.lstrip(b" \t")
    if not whole and b" " not in line and b"\t" not in line:
        raise SyscallError(Errno.ENOEXEC)
    line = line.rstrip(b" \t")
    path, _, argument = line.partition(b"\t" if b"\t" in line.split(b" ", 1)[0] else b" ")
    if not path:
        raise SyscallError(Errno.ENOEXEC)
    argument = argument.strip(b" \t")
    return path, [argument] if argument else []


def _libraries(caller: Caller, image: ElfImage, environment: Sequence[bytes]) -> Closure[LibraryFile] | None:
    """The libraries of a program that names some and no interpreter. Raises NotLinked."""
    if image.interp is not None or DT_NEEDED not in (image.dynamic or {}):
        return None
    from mmuemu.loader.libraries import find_libraries

    def opened(name: str) -> LibraryFile | None:
        try:
            if not resolve(caller, os.fsencode(name)).existing().is_regular:
                return None
            file = open_file(caller, os.fsencode(name), O_RDONLY)
        except SyscallError:
            return None
        path = os.fsdecode(path_of(file.inode))
        return LibraryFile(path, content(file, path), file)

    value = next((entry[len(_LIBRARY_PATH) :] for entry in environment if entry.startswith(_LIBRARY_PATH)), b"")
    directories = os.fsdecode(value).replace(";", ":").split(":") if value else []
    try:
        return find_libraries(image, image.name, opened, directories)
    except BadImage as error:
        raise NotLinked(error.name, error.why) from None


def _by_linker(caller: Caller, program: Program, linker: str, because: str) -> Program:
    """A program whose C library only its own dynamic linker can start, as that linker's argument (ld.so(8)).

    Made its interpreter by force, glibc's ends: ``rtld_setup_main_map`` asserts that there is a PT_INTERP, and without
    PT_PHDR, which goes with it, neither glibc's nor musl's finds where a PIE was loaded.
    """
    path, name = os.fsencode(linker), program.image.name
    arguments = (path, b"--argv0", *program.arguments[:1], os.fsencode(name), *program.arguments[1:])
    try:
        file = open_program(caller, path)
    except SyscallError as error:
        if error.errno not in (Errno.ENOENT, Errno.ENOTDIR):
            raise
        why = f"needs {because}, which only the dynamic linker {linker} can start"
        raise NoLinker(name, f"{why}, and that is not in the guest's view") from None
    real = os.fsdecode(path_of(file.inode))
    return Program(image_of(file, real), file, None, arguments, path, program.name)


def read_program(
    caller: Caller, file: OpenFile, path: bytes, arguments: Sequence[bytes], environment: Sequence[bytes] = ()
) -> Program:
    """Read ``file`` and whatever it needs to run; of the environment, LD_LIBRARY_PATH says where libraries are.

    Raises SyscallError (ENOENT for a missing ``#!`` interpreter, ELOOP for too many of them, ENOEXEC, EACCES) and
    BadImage, whose text says what is wrong with an ELF file.
    """
    argv, script = list(arguments), path
    for _ in range(MOST_SCRIPTS + 1):
        name = os.fsdecode(path_of(file.inode))
        head = file.inode.read_at(0, LINE)
        if not head.startswith(b"#!"):
            image = image_of(file, name)
            linker, libraries = _linker(caller, image), _libraries(caller, image, environment)
            program = Program(image, file, linker, tuple(argv), path, os.path.basename(path), libraries)
            if libraries is not None and libraries.interpreter is not None:
                return _by_linker(caller, program, libraries.interpreter, libraries.because)
            return program
        interpreter, extra = _interpreter_line(head)
        argv[:1] = [interpreter, *extra, script]
        script = interpreter
        file = open_program(caller, interpreter)
    raise SyscallError(Errno.ELOOP)


def _linker(caller: Caller, image: ElfImage) -> tuple[ElfImage, OpenFile] | None:
    if image.interp is None:
        return None
    path = os.fsencode(image.interp) if isinstance(image.interp, str) else image.interp
    name = os.fsdecode(path)
    try:
        file = open_program(caller, path)
    except SyscallError as error:
        if error.errno not in (Errno.ENOENT, Errno.ENOTDIR):
            raise
        raise NoLinker(image.name, f"needs the dynamic linker {name}, which is not in the guest's view") from None
    return image_of(file, name), file


def find_program(caller: Caller, path: bytes, arguments: Sequence[bytes], environment: Sequence[bytes] = ()) -> Program:
    """As execve would, but every refusal is an error whose text names the file: NotFound or BadImage."""
    name = os.fsdecode(path)
    try:
        inode = resolve(caller, path).existing()
    except SyscallError as error:
        if error.errno in (Errno.ENOENT, Errno.ENOTDIR):
            raise NotFound(f"{name}: no such program in the guest's view (see --mount and --root)") from None
        raise BadImage(name, f"cannot be reached: {words(error)}") from None
    if not inode.is_regular:
        raise BadImage(name, "is no regular file")
    if not inode.permits(caller.uid, caller.gid, X_OK):
        raise BadImage(name, "is not executable (chmod +x)")
    try:
        file = open_program(caller, path)
        return read_program(caller, file, path, arguments, environment)
    except SyscallError as error:
        raise BadImage(name, f"cannot be read: {words(error)}") from None


def words(error: SyscallError) -> str:
    """What the error number means."""
    return os.strerror(error.errno) if os.name == "posix" else error.errno.name


def map_image(space: AddressSpace, memory: UserMemory, planned: LoadPlan, file: OpenFile, path: str) -> None:
    """Map an image's regions and zero what follows a segment's file part (Linux's padzero). Raises SyscallError."""
    for region in planned.regions:
        flags = MAP_PRIVATE | MAP_FIXED
        length = region.end - region.start
        if region.file_offset is None:
            space.mmap(region.start, length, region.prot, flags | MAP_ANONYMOUS)
        else:
            space.mmap(region.start, length, region.prot, flags, file, region.file_offset, path)
    for region in planned.regions:
        if region.zero_from is not None and region.prot & PROT_WRITE:
            memory.write(region.zero_from, bytes(-region.zero_from % PAGE_SIZE))
