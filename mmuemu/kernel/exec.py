"""Starting a program: image -> plan -> regions of a new address space -> stack -> registers for ring 3.

No frame of the program is touched here but those of its first stack and of relocated pages.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple

from mmuemu.errors import BadImage, OutOfFrames
from mmuemu.kernel import life, speculation_control
from mmuemu.kernel import registers as regs
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.signals import Signal
from mmuemu.kernel.address_space import (
    MAP_ANONYMOUS,
    MAP_FIXED,
    MAP_GROWSDOWN,
    MAP_PRIVATE,
    MAP_STACK,
    AddressSpace,
)
from mmuemu.kernel.files.paths import path_of
from mmuemu.kernel.images import relocates
from mmuemu.kernel.itimers import forget_posix_timers
from mmuemu.kernel.process import Process
from mmuemu.kernel.program import NotFound, Program, Starter, find_program, map_image, words
from mmuemu.kernel.registers import UserRegisters
from mmuemu.kernel.signals.frame import NO_ALTSTACK
from mmuemu.kernel.switching import first_state
from mmuemu.kernel.task import Task
from mmuemu.kernel.user_memory import UserMemory
from mmuemu.loader.layout import Bases, choose_bases
from mmuemu.loader.layouts import Layout
from mmuemu.loader.plan import LoadPlan, plan, plan_interpreter
from mmuemu.loader.stack import Credentials, auxiliary_vector, build_stack
from mmuemu.x86.paging import PAGE_SIZE
from mmuemu.x86.registers import RFLAGS_FIXED, RFLAGS_IF
from mmuemu.x86.segments import USER_CS, USER_SS

if TYPE_CHECKING:
    from mmuemu.kernel.files.context import FsContext
    from mmuemu.kernel.files.fdtable import FdTable
    from mmuemu.kernel.kernel import Kernel

__all__ = ["Loader", "NotFound"]

HWCAP2: Final = 2
"""HWCAP2_FSGSBASE: CR4.FSGSBASE is set."""


class Loaded(NamedTuple):
    """A program in an address space of its own, and what its task is to be."""

    mm: AddressSpace
    memory: UserMemory
    registers: dict[int, int]
    """User registers by index of pt_regs; the others are 0."""
    auxv: bytes
    entry: int
    stack_arguments: tuple[int, int, int, int]


class Loader:
    """Puts programs into new address spaces of one kernel."""

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
        """A new process that will run the program at guest ``path`` from its first instruction.

        Raises NotFound, BadImage, ArgumentsTooLong, OutOfFrames.
        """
        kernel = self.kernel
        pid = life.new_pid(kernel)
        uid, gid = kernel.options.user
        program = find_program(Starter(pid, uid, gid, fs, files), path, argv, envp)
        try:
            loaded = self.load(program, envp, Credentials(uid, uid, gid, gid))
        except SyscallError as error:
            raise BadImage(program.image.name, f"cannot be mapped: {words(error)}") from None
        stack = kernel.memory.new_stack()
        process = Process(kernel, pid, None, pid, pid)
        task = Task(
            kernel, process, pid, loaded.mm, loaded.memory, files, fs,
            stack, UserRegisters(kernel.ram.qwords, stack.registers), uid=uid, gid=gid,
        )  # fmt: skip
        self._become(task, program, loaded, envp)
        task.snapshot = first_state(kernel, task)
        life.enrol(task)
        if kernel.main is None:
            kernel.main = process
        kernel.scheduler.add(task)
        return task

    def load(self, program: Program, envp: Sequence[bytes], credentials: Credentials) -> Loaded:
        """Map everything and build the stack. Raises SyscallError, BadImage, ArgumentsTooLong, OutOfFrames."""
        kernel = self.kernel
        linker = program.interpreter
        bases = choose_bases(
            self.layout,
            program.image,
            kernel.aslr,
            interpreter=linker[0] if linker else None,
            vdso_pages=kernel.vdso.pages,
        )
        planned = plan(program.image, bases)
        space = AddressSpace(
            kernel.frames, kernel.memory.half,
            mmap_base=bases.mmap_base, start_brk=planned.brk_start, layout=self.layout,
        )  # fmt: skip
        kernel.adopt(space)
        try:
            return self._fill(space, program, planned, bases, envp, credentials)
        except BaseException:
            space.destroy()
            raise

    def _fill(
        self,
        space: AddressSpace,
        program: Program,
        planned: LoadPlan,
        bases: Bases,
        envp: Sequence[bytes],
        credentials: Credentials,
    ) -> Loaded:
        memory = UserMemory(space)
        map_image(space, memory, planned, program.file, program.image.name)
        entry = planned.entry
        if program.interpreter is not None:
            image, file = program.interpreter
            linker = plan_interpreter(image, bases)
            map_image(space, memory, linker, file, os.fsdecode(path_of(file.inode)))
            entry = linker.entry
        if bases.vdso_base is not None:
            self.kernel.vdso.map(space, bases.vdso_base)
        sp, auxv, strings = self._stack(space, memory, program, planned, bases, envp, credentials)
        registers = {regs.SP: sp, regs.IP: entry}
        if program.libraries is not None or relocates(planned.image):
            from mmuemu.kernel.linker import Linker

            registers |= Linker(self.kernel, space, memory).start(planned, program.libraries)
        return Loaded(space, memory, registers, auxv, entry, strings)

    def _stack(
        self,
        space: AddressSpace,
        memory: UserMemory,
        program: Program,
        planned: LoadPlan,
        bases: Bases,
        envp: Sequence[bytes],
        credentials: Credentials,
    ) -> tuple[int, bytes, tuple[int, int, int, int]]:
        """The initial stack: the stack pointer, the auxiliary vector, where the strings lie."""
        kernel = self.kernel
        auxv = auxiliary_vector(
            planned,
            bases.interp_bias,
            credentials=credentials,
            hwcap=kernel.cpu.model.hwcap if kernel.cpu.model is not None else 0,
            hwcap2=HWCAP2,
            sysinfo_ehdr=bases.vdso_base,
        )
        rng: Random | None = kernel.aslr
        built = build_stack(
            bases.stack_top,
            program.arguments,
            envp,
            auxv,
            kernel.random.randbytes(16),
            program.filename,
            rng=rng,
        )
        strings = bases.stack_top - (built.arg_start & ~(PAGE_SIZE - 1))
        pointers = bases.stack_top - (built.sp & ~(PAGE_SIZE - 1))
        size = max(strings + self.layout.initial_stack - PAGE_SIZE, pointers)
        prot = 7 if planned.image.executable_stack else 3
        flags = MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_STACK
        space.start_stack = built.sp
        space.mmap(bases.stack_top - size, size, prot, flags)
        memory.write(built.sp, built.data)
        return built.sp, built.auxv, (built.arg_start, built.arg_end, built.env_start, built.env_end)

    def execute(self, task: Task, program: Program, envp: Sequence[bytes]) -> None:
        """execve(2) of the running task: its other threads end, and it becomes ``program``.

        Raises SyscallError and BadImage with nothing changed.
        """
        kernel, process = self.kernel, task.process
        try:
            loaded = self.load(program, envp, Credentials(task.uid, task.uid, task.gid, task.gid))
        except OutOfFrames:
            raise SyscallError(Errno.ENOMEM) from None
        loaded.mm.huge.disabled = task.mm.huge.disabled
        for thread in list(process.threads.values()):
            if thread is not task:
                life.exit_task(thread)
        kernel.release_thread(task)
        life.release_memory(task)
        if process.vfork_waiter is not None:
            life.vfork_done(process)
        if task.files.users > 1:
            shared = task.files
            task.files = shared.clone()
            shared.release()
        task.files.close_on_exec()
        self._take_leadership(task)
        process.actions = life.ignored_only(process.actions)
        process.executed = True
        task.mm, task.memory = loaded.mm, loaded.memory
        task.alternate_stack = NO_ALTSTACK
        speculation_control.executed(task)
        forget_posix_timers(process)
        task.clear_child_tid = task.robust_list = 0
        self._become(task, program, loaded, envp)
        kernel.reload(task)

    def _take_leadership(self, task: Task) -> None:
        """The thread that executes becomes the only one, under the process's number (``de_thread``)."""
        process, kernel = task.process, self.kernel
        if task.tid != process.pid:
            kernel.tasks.pop(task.tid, None)
            process.threads.pop(task.tid, None)
            task.tid = process.pid
            kernel.tasks[task.tid] = process.threads[task.tid] = task
        process.leader = task
        process.exit_signal = Signal.SIGCHLD

    def _become(self, task: Task, program: Program, loaded: Loaded, envp: Sequence[bytes]) -> None:
        """Give the task and its process what belongs to the program, and its first user registers."""
        process = task.process
        process.exe = program.image.name
        process.run_from(program.file)
        process.arguments, process.environment = program.arguments, tuple(envp)
        process.auxv, process.entry, process.stack_arguments = loaded.auxv, loaded.entry, loaded.stack_arguments
        task.name = os.fsdecode(program.name)[:15]
        words = [0] * regs.WORDS
        for index, value in loaded.registers.items():
            words[index] = value
        words[regs.FLAGS] = words[regs.R11] = RFLAGS_FIXED | RFLAGS_IF
        words[regs.CX] = words[regs.IP]
        words[regs.CS], words[regs.SS] = USER_CS, USER_SS
        task.registers.load(words)
