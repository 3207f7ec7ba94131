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
from mmuemu.guest.build import load
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
from mmuemu.loader.layout import Bases, choose_bases
from mmuemu.loader.layouts import Layout
from mmuemu.loader.plan import LoadPlan, plan, plan_interpreter
from mmuemu.loader.relocate import Relocations, Resolver, relocate
from mmuemu.loader.selfrelocation import needs_relocation
from mmuemu.loader.stack import Credentials, auxiliary_vector, build_stack
from mmuemu.x86.paging import PAGE_SIZE, USER_TOP_5LEVEL
from mmuemu.x86.registers import RFLAGS_FIXED, RFLAGS_IF

if TYPE_CHECKING:
    from mmuemu.kernel.files.context import FsContext
    from mmuemu.kernel.files.fdtable import FdTable
    from mmuemu.kernel.files.openfile import OpenFile
    from mmuemu.kernel.kernel import Kernel

HWCAP2: Final = 2
"""HWCAP2_FSGSBASE: CR4.FSGSBASE is set."""
FIRST_PID: Final = 1000
LARGEST_FILE: Final = 4 << 30
"""The most bytes a program file may have."""
MAPPED_FROM: Final = 64 << 20
"""Host files with more bytes are mapped, not read."""
PROT_READ_EXEC: Final = 5


class NotFound(MmuemuError):
    """The program does not exist in the guest's view."""

    exit_code = Exit.NOT_FOUND


class _Caller:
    """Under whose identity the program file is looked up and opened."""

    def __init__(self, pid: int, fs: FsContext, files: FdTable) -> None:
        self.pid = pid
        self.uid = 1000
        self.gid = 1000
        self.fs = fs
        self.files = files


def _open_program(caller: _Caller, path: bytes) -> OpenFile:
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
        if not inode.permits(caller.uid, caller.gid, X_OK):
            raise BadImage(name, "is not executable (chmod +x)")
        return open_file(caller, path, O_RDONLY)
    except SyscallError as error:
        raise BadImage(name, f"cannot be read: {_words(error)}") from None


def _words(error: SyscallError) -> str:
    return os.strerror(error.errno) if os.name == "posix" else error.errno.name


def _content(file: OpenFile, name: str) -> bytes | mmap:
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
        return read_image(_content(file, name), name, USER_TOP_5LEVEL)
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


def _zero_tails(memory: UserMemory, planned: LoadPlan) -> None:
    """Zero what follows a segment's file part in its last page (Linux's padzero)."""
    for region in planned.regions:
        if region.zero_from is not None and region.prot & PROT_WRITE:
            memory.write(region.zero_from, bytes(-region.zero_from % PAGE_SIZE))


class Loader:
    """One start of one program."""

    def __init__(self, kernel: Kernel, layout: Layout | None = None) -> None:
        self.kernel = kernel
        self.layout = layout or kernel.layout

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
        caller = _Caller(pid, fs, files)
        file = _open_program(caller, path)
        name = os.fsdecode(path_of(file.inode))
        image = _image(file, name)
        interpreter = self._interpreter(caller, image)
        bases = choose_bases(self.layout, image, kernel.aslr, interpreter=interpreter[0] if interpreter else None)
        planned = plan(image, bases)
        space = AddressSpace(
            kernel.frames, kernel.memory.half,
            mmap_base=bases.mmap_base, start_brk=planned.brk_start, layout=self.layout,
        )  # fmt: skip
        kernel.adopt(space)
        task = Task(
            kernel, pid, space, UserMemory(space), files, fs,
            tid=pid, name=os.path.basename(name)[:15], exe=name, pgid=pid, sid=pid,
            arguments=tuple(argv), environment=tuple(envp),
        )  # fmt: skip
        task.exe_file = file
        try:
            self._fill(task, planned, file, bases, interpreter, path)
        except SyscallError as error:
            raise BadImage(name, f"cannot be mapped: {_words(error)}") from None
        kernel.tasks[pid] = task
        return task

    def _interpreter(self, caller: _Caller, image: ElfImage) -> tuple[ElfImage, OpenFile] | None:
        if image.interp is None:
            return None
        path = os.fsencode(image.interp) if isinstance(image.interp, str) else image.interp
        try:
            file = _open_program(caller, path)
        except NotFound:
            raise BadImage(
                image.name, f"needs the dynamic linker {os.fsdecode(path)}, which is not in the guest's view"
            ) from None
        return _image(file, os.fsdecode(path)), file

    def _fill(
        self,
        task: Task,
        planned: LoadPlan,
        file: OpenFile,
        bases: Bases,
        interpreter: tuple[ElfImage, OpenFile] | None,
        execfn: bytes,
    ) -> None:
        """Map everything, build the stack, set the registers."""
        space = task.mm
        _map_regions(space, planned, file, task.exe)
        _zero_tails(task.memory, planned)
        entry = planned.entry
        if interpreter is not None:
            linker = plan_interpreter(interpreter[0], bases)
            _map_regions(space, linker, interpreter[1], os.fsdecode(path_of(interpreter[1].inode)))
            _zero_tails(task.memory, linker)
            entry = linker.entry
        stack = self._stack(task, planned, bases, execfn)
        task.entry = entry
        stack_kernel = self.kernel.memory.new_stack()
        registers = {"rsp": stack, "rip": entry}
        if needs_relocation(planned.image):
            changes = relocate(planned.image, planned.load_bias)
            self._relocate(task, changes)
            registers |= self._resolvers(task, changes.resolvers, entry)
        self._start(task, stack_kernel, registers)

    def _stack(self, task: Task, planned: LoadPlan, bases: Bases, execfn: bytes) -> int:
        kernel = self.kernel
        auxv = auxiliary_vector(
            planned,
            bases.interp_bias,
            credentials=Credentials(task.uid, task.uid, task.gid, task.gid),
            hwcap=kernel.cpu.model.hwcap if kernel.cpu.model is not None else 0,
            hwcap2=HWCAP2,
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

    def _relocate(self, task: Task, changes: Relocations) -> None:
        """Apply what needs no guest code; read-only pages are written as a loader writes them, before RELRO."""
        for address, value in changes.writes:
            task.memory.poke(address, value.to_bytes(8, "little"))
        for destination, source, size in changes.copies:
            task.memory.poke(destination, task.memory.read(source, size))

    def _resolvers(self, task: Task, resolvers: Sequence[Resolver], entry: int) -> dict[str, int]:
        """Registers for the start-up code that calls the IRELATIVE resolvers in ring 3, then ``entry``."""
        if not resolvers:
            return {}
        table = b"".join(
            word.to_bytes(8, "little")
            for resolver in resolvers
            for word in (resolver.function, resolver.address, resolver.addend & (1 << 64) - 1)
        )
        code = load("ifunc_start")
        start = len(code) + 15 & ~15
        blob = code.ljust(start, b"\0") + table
        at = task.mm.mmap(0, len(blob), PROT_READ_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, name="[ifunc]")
        task.memory.poke(at, blob)
        return {"rip": at, "rbx": at + start, "rbp": len(resolvers), "r12": entry}

    def _start(self, task: Task, stack: KernelStack, registers: dict[str, int]) -> None:
        kernel = self.kernel
        kernel.switch_to(task, stack)
        kernel.cpu.set_ring(3)
        kernel.cpu.set_registers(rflags=RFLAGS_FIXED | RFLAGS_IF, **registers)
