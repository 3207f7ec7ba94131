"""Starting a program: image -> plan -> regions of a new address space -> stack -> a task ready in ring 3.

No frame of the program is touched here but those of its first stack and of relocated pages.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from mmap import ACCESS_READ, mmap
from random import Random
from typing import TYPE_CHECKING, Final

from mmuemu.errors import BadImage, Exit, MmuemuError
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import O_RDONLY, X_OK
from mmuemu.kernel.address_space import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_GROWSDOWN,
    MAP_PRIVATE,
    MAP_STACK,
    PROT_WRITE,
    AddressSpace,
)
from mmuemu.kernel.files.hostfs import HostFile
from mmuemu.kernel.files.opening import open_file
from mmuemu.kernel.files.paths import path_of, resolve
from mmuemu.kernel.half import KernelStack
from mmuemu.kernel.task import Task
from mmuemu.kernel.user_memory import UserMemory
from mmuemu.loader.elf import ElfImage, read_image
from mmuemu.loader.layout import Bases, Layout, choose_bases
from mmuemu.loader.libraries import needs_libraries
from mmuemu.loader.plan import LoadPlan, plan, plan_interpreter
from mmuemu.loader.selfrelocation import needs_relocation
from mmuemu.loader.stack import Credentials, auxiliary_vector, build_stack
from mmuemu.x86.paging import PAGE_SIZE
from mmuemu.x86.registers import RFLAGS_FIXED, RFLAGS_IF

if TYPE_CHECKING:
    from mmuemu.kernel.files.context import FsContext
    from mmuemu.kernel.files.fdtable import FdTable
    from mmuemu.kernel.files.openfile import OpenFile
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.linker import Libraries

HWCAP2: Final = 2
"""HWCAP2_FSGSBASE: CR4.FSGSBASE is set."""
FIRST_PID: Final = 1000
LARGEST_FILE: Final = 4 << 30
"""The most bytes a program file may have."""
MAPPED_FROM: Final = 64 << 20
"""Host files with more bytes are mapped, not read."""


class NotFound(MmuemuError):
    """The program does not exist in the guest's view."""

    exit_code = Exit.NOT_FOUND


class Caller:
    """Under whose identity the program file is looked up and opened."""

    def __init__(self, pid: int, fs: FsContext, files: FdTable) -> None:
        self.pid = pid
        self.uid = 1000
        self.gid = 1000
        self.fs = fs
        self.files = files


def open_program(caller: Caller, path: bytes, *, need_execute: bool = True) -> OpenFile:
    """Open a program, or a library, by guest path. Raises NotFound, BadImage."""
    name = os.fsdecode(path)
    try:
        inode = resolve(caller, path).existing()
    except SyscallError as error:
        if error.errno in (Errno.ENOENT, Errno.ENOTDIR):
            raise NotFound(f"{name}: no such program in the guest's view (see --mount and --root)") from None
        raise BadImage(name, f"cannot be reached: {_words(error)}") from None
    if not inode.is_regular:
        raise BadImage(name, "is no regular file")
    try:
        if need_execute and not inode.permits(caller.uid, caller.gid, X_OK):
            raise BadImage(name, "is not executable (chmod +x)")
        return open_file(caller, path, O_RDONLY)
    except SyscallError as error:
        raise BadImage(name, f"cannot be read: {_words(error)}") from None


def _words(error: SyscallError) -> str:
    return os.strerror(error.errno) if os.name == "posix" else error.errno.name


def content_of(file: OpenFile, name: str) -> bytes | mmap:
    """The bytes of a program file; a large one on the host is mapped, so that only what is looked at takes memory."""
    size = file.inode.size
    if size > LARGEST_FILE:
        raise BadImage(
            name,
            f"is {size >> 30} GiB large; program files of more than {LARGEST_FILE >> 30} GiB are not loaded",
        )
    if size > MAPPED_FROM and isinstance(file.inode, HostFile) and file.inode.content is None:
        try:
            return mmap(file.inode.reader.get(), size, access=ACCESS_READ)
        except (OSError, ValueError):
            pass
    return file.inode.read_at(0, size)


def _image(file: OpenFile, name: str) -> ElfImage:
    try:
        return read_image(content_of(file, name), name)
    except SyscallError as error:
        raise BadImage(name, f"cannot be read: {_words(error)}") from None


def _map_regions(space: AddressSpace, planned: LoadPlan, file: OpenFile, path: str) -> None:
    for region in planned.regions:
        flags = MAP_PRIVATE | MAP_FIXED
        length = region.end - region.start
        if region.file_offset is None:
            space.mmap(region.start, length, region.prot, flags | MAP_ANONYMOUS)
        else:
            space.mmap(region.start, length, region.prot, flags, file, region.file_offset, path)


def map_image(task: Task, planned: LoadPlan, file: OpenFile, path: str) -> None:
    """Map an image's regions and zero what follows a segment's file part. Raises SyscallError."""
    _map_regions(task.mm, planned, file, path)
    _zero_tails(task.memory, planned)


def _zero_tails(memory: UserMemory, planned: LoadPlan) -> None:
    """Zero what follows a segment's file part in its last page (Linux's padzero)."""
    for region in planned.regions:
        if region.zero_from is not None and region.prot & PROT_WRITE:
            memory.write(region.zero_from, bytes(-region.zero_from % PAGE_SIZE))


class Loader:
    """One start of one program."""

    def __init__(self, kernel: Kernel, layout: Layout | None = None) -> None:
        self.kernel = kernel
        self.layout = layout or Layout()

    def spawn(
        self,
        path: bytes,
        argv: Sequence[bytes],
        envp: Sequence[bytes],
        fs: FsContext,
        files: FdTable,
    ) -> Task:
        """A task that will run the program at guest ``path`` from its first instruction.

        Raises NotFound, BadImage, ArgumentsTooLong, OutOfFrames.
        """
        kernel = self.kernel
        pid = FIRST_PID + len(kernel.tasks)
        caller = Caller(pid, fs, files)
        file = open_program(caller, path)
        name = os.fsdecode(path_of(file.inode))
        image = _image(file, name)
        libraries = self._libraries(caller, image, envp)
        if libraries is not None and libraries.interpreter is not None:
            return self._by_linker(libraries, image, argv, envp, fs, files)
        interpreter = self._interpreter(caller, image)
        bases = choose_bases(
            self.layout,
            image,
            kernel.aslr,
            interpreter=interpreter[0] if interpreter else None,
            vdso_pages=kernel.vdso.pages,
        )
        planned = plan(image, bases)
        space = AddressSpace(kernel.frames, kernel.memory.half, mmap_base=bases.mmap_base, start_brk=planned.brk_start)
        kernel.adopt(space)
        task = Task(
            kernel, pid, space, UserMemory(space), files, fs,
            tid=pid, name=os.path.basename(name)[:15], exe=name, pgid=pid, sid=pid,
            arguments=tuple(argv), environment=tuple(envp),
        )  # fmt: skip
        task.exe_file = file
        try:
            self._fill(task, planned, file, bases, interpreter, path, libraries)
        except SyscallError as error:
            raise BadImage(name, f"cannot be mapped: {_words(error)}") from None
        kernel.tasks[pid] = task
        return task

    def _libraries(self, caller: Caller, image: ElfImage, envp: Sequence[bytes]) -> Libraries | None:
        """The libraries of a program that names some and no interpreter."""
        if image.interp is not None or not needs_libraries(image):
            return None
        from mmuemu.kernel.linker import Libraries

        return Libraries(caller, image, image.name, envp)

    def _by_linker(
        self,
        libraries: Libraries,
        image: ElfImage,
        argv: Sequence[bytes],
        envp: Sequence[bytes],
        fs: FsContext,
        files: FdTable,
    ) -> Task:
        """The same program started as an argument of the dynamic linker that its C library needs."""
        linker = libraries.interpreter or ""
        try:
            return self.spawn(os.fsencode(linker), libraries.linker_arguments(image.name, argv), envp, fs, files)
        except NotFound:
            raise BadImage(
                image.name,
                f"needs {libraries.because}, which only the dynamic linker {linker} can start, "
                "and that is not in the guest's view",
            ) from None

    def _interpreter(self, caller: Caller, image: ElfImage) -> tuple[ElfImage, OpenFile] | None:
        if image.interp is None:
            return None
        try:
            file = open_program(caller, os.fsencode(image.interp))
        except NotFound:
            raise BadImage(
                image.name, f"needs the dynamic linker {image.interp}, which is not in the guest's view"
            ) from None
        return _image(file, image.interp), file

    def _fill(
        self,
        task: Task,
        planned: LoadPlan,
        file: OpenFile,
        bases: Bases,
        interpreter: tuple[ElfImage, OpenFile] | None,
        execfn: bytes,
        libraries: Libraries | None,
    ) -> None:
        """Map everything, build the stack, set the registers."""
        space = task.mm
        map_image(task, planned, file, task.exe)
        entry = planned.entry
        if interpreter is not None:
            linker = plan_interpreter(interpreter[0], bases)
            map_image(task, linker, interpreter[1], os.fsdecode(path_of(interpreter[1].inode)))
            entry = linker.entry
        if bases.vdso_base is not None:
            self.kernel.vdso.map(space, bases.vdso_base)
        stack = self._stack(task, planned, bases, execfn)
        task.entry = entry
        stack_kernel = self.kernel.memory.new_stack()
        registers = {"rsp": stack, "rip": entry}
        if libraries is not None:
            registers |= libraries.start(task, planned)
        elif needs_relocation(planned.image):
            from mmuemu.kernel.linker import start_relocated

            registers |= start_relocated(task, planned)
        self._start(task, stack_kernel, registers)

    def _stack(self, task: Task, planned: LoadPlan, bases: Bases, execfn: bytes) -> int:
        kernel = self.kernel
        auxv = auxiliary_vector(
            planned,
            bases.interp_bias,
            credentials=Credentials(task.uid, task.uid, task.gid, task.gid),
            hwcap=kernel.cpu.model.hwcap if kernel.cpu.model is not None else 0,
            hwcap2=HWCAP2,
            sysinfo_ehdr=bases.vdso_base,
        )
        rng: Random | None = kernel.aslr
        built = build_stack(
            bases.stack_top,
            task.arguments,
            task.environment,
            auxv,
            kernel.random.randbytes(16),
            execfn,
            rng=rng,
        )
        strings = bases.stack_top - (built.arg_start & ~(PAGE_SIZE - 1))
        pointers = bases.stack_top - (built.sp & ~(PAGE_SIZE - 1))
        size = max(strings + self.layout.initial_stack - PAGE_SIZE, pointers)
        prot = 7 if planned.image.executable_stack else 3
        flags = MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_STACK
        task.mm.start_stack = built.sp
        task.mm.mmap(bases.stack_top - size, size, prot, flags)
        task.memory.write(built.sp, built.data)
        task.auxv = built.auxv
        task.stack_arguments = (built.arg_start, built.arg_end, built.env_start, built.env_end)
        return built.sp

    def _start(self, task: Task, stack: KernelStack, registers: dict[str, int]) -> None:
        kernel = self.kernel
        kernel.switch_to(task, stack)
        kernel.cpu.set_ring(3)
        kernel.cpu.set_registers(rflags=RFLAGS_FIXED | RFLAGS_IF, **registers)
