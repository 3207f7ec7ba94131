"""The kernel: it owns the machine's memory and CPU, takes the traps, and serves system calls."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final, Protocol

from mmuemu.cpu.cpu import DEFAULT_CONTROLS, Cpu, Stop
from mmuemu.cpu.emulated import emulate
from mmuemu.cpu.rings import enter_kernel
from mmuemu.cpu.traps import Trap
from mmuemu.errors import MmuemuError
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.signals import (
    IGNORED_BY_DEFAULT,
    SIG_DFL,
    SIG_IGN,
    STOPS_BY_DEFAULT,
    Signal,
    signal_name,
)
from mmuemu.kernel.clock import Clock, HostClock, VirtualClock
from mmuemu.kernel.faults import FaultResult
from mmuemu.kernel.half import KernelLayout, KernelMemory, KernelStack
from mmuemu.kernel.syscalls.table import TABLE, Syscall
from mmuemu.kernel.traps import Death, as_delivered, signal_of
from mmuemu.kernel.vma import VM_EXEC
from mmuemu.loader.layouts import LINUX, Layout
from mmuemu.memory.frames import FrameAllocator
from mmuemu.memory.ram import GuestRam
from mmuemu.mmu.state import PagingState
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import PAGE_SIZE
from mmuemu.x86.registers import (
    CR4_LA57,
    CR4_SMAP,
    CR4_SMEP,
    MSR_LSTAR,
    MSR_SFMASK,
    MSR_STAR,
    RFLAGS_AC,
    RFLAGS_DF,
    RFLAGS_IF,
    RFLAGS_IOPL,
    RFLAGS_NT,
    RFLAGS_TF,
)
from mmuemu.x86.segments import STAR

if TYPE_CHECKING:
    from mmuemu.kernel.address_space import AddressSpace
    from mmuemu.kernel.files.namespace import MountTree
    from mmuemu.kernel.task import Task

HYPERCALL_PORT: Final = 0x51
SFMASK: Final = RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL | RFLAGS_NT | RFLAGS_AC
DEFAULT_MEMORY: Final = 1 << 30
_MASK: Final = (1 << 64) - 1
_RAX, _ORIG_RAX = 10, 15
_RDI, _RSI, _RDX, _R10, _R9, _R8 = 14, 13, 12, 7, 8, 9
"""Positions in struct pt_regs of what a call needs (arch/x86/include/asm/ptrace.h)."""


class Tracer(Protocol):
    """Told of every system call, before and after."""

    def enter(self, task: Task, call: Syscall | None, number: int, arguments: tuple[int, ...]) -> None:
        """The call is about to be served; ``arguments`` are the six raw registers."""

    def leave(self, task: Task, call: Syscall | None, number: int, arguments: tuple[int, ...], result: int) -> None:
        """The call returns ``result`` (negative: an error number)."""


@dataclass(slots=True)
class Options:
    """What a machine is made of; ``seed`` None draws one, which :attr:`Kernel.seed` tells."""

    memory: int = DEFAULT_MEMORY
    mmu: str = "python"
    seed: int | None = None
    aslr: bool = True
    hostname: str = "mmuemu"
    virtual_time: bool | None = None
    """None: virtual when a seed is given, so that a repeated run reads the same times."""
    layout: Layout = LINUX
    kpti: bool = False
    """Page-table isolation: ring 3 runs on tables that hold of the kernel only a trampoline."""


@dataclass(slots=True)
class Statistics:
    """Counts of one run."""

    syscalls: int = 0
    unknown: dict[int, int] = field(default_factory=dict)
    """System calls that do not exist here, by number."""


class Kernel:
    """One machine under a Linux-like kernel; it is its CPU's trap handler."""

    def __init__(self, options: Options | None = None) -> None:
        options = options or Options()
        self.options = options
        self.seed = int.from_bytes(os.urandom(4), "little") if options.seed is None else options.seed
        self.random = Random(f"{self.seed} guest")
        self.aslr = Random(f"{self.seed} layout") if options.aslr else None
        virtual = options.seed is not None if options.virtual_time is None else options.virtual_time
        self.clock: Clock = VirtualClock() if virtual else HostClock()
        self.hostname = options.hostname
        self.ram = GuestRam(options.memory)
        self.frames = FrameAllocator(self.ram)
        self.layout = options.layout
        placed = KernelLayout.placed(self.layout, options.memory, self.aslr)
        self.memory = KernelMemory(self.frames, placed, self.layout, isolated=options.kpti)
        self.cpu = Cpu(self.ram, mmu=options.mmu, handler=self)
        if virtual:
            self.cpu.tsc = self.clock.tsc
        self.frames.on_free.append(self.cpu.engine.forget_code)
        self.statistics = Statistics()
        self.tracer: Tracer | None = None
        self.on_unknown_syscall: Callable[[int], None] | None = None
        self.tasks: dict[int, Task] = {}
        self.current: Task | None = None
        self._registers = 0
        self._serving = -1
        self._mm: AddressSpace | None = None
        self._set_up_cpu()

    def _set_up_cpu(self) -> None:
        cpu = self.cpu
        controls = DEFAULT_CONTROLS
        cr4 = controls.cr4 | CR4_SMEP | CR4_SMAP | (CR4_LA57 if self.layout.levels == 5 else 0)
        cpu.set_paging(PagingState(self.memory.half.table.root, controls.cr0, cr4, controls.efer))
        cpu.uc.msr_write(MSR_STAR, STAR)
        cpu.uc.msr_write(MSR_LSTAR, self.memory.entry)
        cpu.uc.msr_write(MSR_SFMASK, SFMASK)
        cpu.set_gdt(self.memory.data, self.memory.gdt_limit)
        cpu.set_bases(kernel_gs=self.memory.per_cpu)

    # -- running -------------------------------------------------------------------------------------------------

    def switch_to(self, task: Task, stack: KernelStack) -> None:
        """Make ``task`` the running one: its page tables, its kernel stack."""
        self.current = task
        self._mm = task.mm
        self._registers = stack.registers
        self.memory.use_stack(stack)
        self.cpu.set_root(task.mm.page_table.user_root)

    def attach_files(self, tree: MountTree) -> None:
        """Show this kernel's processes in the tree's /proc."""
        from mmuemu.kernel.proc import KernelProc

        tree.proc = KernelProc(self)
        tree.interrupted = lambda: self.cpu.interrupted

    def adopt(self, space: AddressSpace) -> None:
        """Have an address space tell the CPU when its translations change."""

        def flush(start: int, end: int) -> None:
            # A miss being served replaces its own page's cached translation, but not what code was found there.
            if start == self._serving and end == start + PAGE_SIZE:
                vma = space.vmas.find(start)
                if vma is not None and not vma.flags & VM_EXEC:
                    return
            self.cpu.engine.flush()

        space.on_flush = flush

    def run(self, *, max_instructions: int | None = None) -> Stop:
        """Run the current task until it ends or a limit or an interruption stops it."""
        return self.cpu.run(max_instructions=max_instructions)

    # -- traps ---------------------------------------------------------------------------------------------------

    def page_fault(self, page: int, error_code: int) -> int:
        """Demand paging: the address space maps the page, or the access was wrong."""
        mm = self._mm
        # P without U: SMEP or SMAP refused an access by supervisor rights, which no paging can resolve.
        if mm is None or page >= mm.task_size or error_code & 5 == 1:
            return 0
        mm.installed = 0
        self._serving = page
        result = mm.fault(page, error_code)
        self._serving = -1
        return mm.installed or not result

    def trap(self, trap: Trap) -> None:
        """An exception nothing resolved: in ring 3 a signal, in ring 0 the end of everything."""
        task = self.current
        if trap.cpl != 3 or task is None:
            raise MmuemuError(f"kernel panic: {trap}")
        trap = as_delivered(trap)
        if trap.vector == Vector.UD:
            left = emulate(self.cpu, trap)
            if left is None:
                return
            trap = left
        if trap.vector != Vector.PF:
            self.die(task, signal_of(trap))
            return
        page = trap.address & ~(PAGE_SIZE - 1)
        signal, code = Signal.SIGSEGV, 1
        reason = ""
        if page < task.mm.task_size and trap.error_code & 5 != 1:
            result = task.mm.fault(page, trap.error_code)
            if result == 0:
                return
            signal, code = Signal(result.signal), result.si_code
            if result is FaultResult.OOM:
                reason = f"out of memory: all {self.ram.size >> 20} MiB of guest memory are in use (--memory)"
        self.die(task, Death(signal, code, trap.address, trap, reason))

    def syscall(self) -> None:
        """The ``syscall`` instruction: into ring 0 at LSTAR."""
        enter_kernel(self.cpu)

    def port_in(self, port: int, size: int) -> int:
        """No device answers: all ones, as on a bus nobody drives."""
        return (1 << 8 * size) - 1

    def port_out(self, port: int, size: int, value: int) -> None:
        """The hypercall: serve the system call whose registers lie on the kernel stack."""
        if port != HYPERCALL_PORT:
            return
        q = self.ram.qwords
        base = self._registers
        task = self.current
        assert task is not None
        number = q[base + _ORIG_RAX] & 0xFFFF_FFFF
        arguments = (q[base + 14], q[base + 13], q[base + 12], q[base + 7], q[base + 9], q[base + 8])
        self.statistics.syscalls += 1
        call = TABLE.get(number)
        if self.tracer is not None:
            self.tracer.enter(task, call, number, arguments)
        if call is None:
            result = self._unknown(number)
        else:
            try:
                result = call.call(task, arguments)
            except SyscallError as error:
                result = -error.errno
                if error.errno is Errno.EPIPE:
                    self.send_signal(task, Signal.SIGPIPE)
        if self.tracer is not None:
            self.tracer.leave(task, call, number, arguments, result)
        q[base + _RAX] = result & _MASK

    def _unknown(self, number: int) -> int:
        unknown = self.statistics.unknown
        unknown[number] = unknown.get(number, 0) + 1
        if unknown[number] == 1 and self.on_unknown_syscall is not None:
            self.on_unknown_syscall(number)
        return -Errno.ENOSYS

    # -- endings -------------------------------------------------------------------------------------------------

    def exit(self, task: Task, status: int) -> None:
        """The process ends by itself with ``status`` (0 to 255)."""
        task.exit_status = status
        self._finish(task)

    def die(self, task: Task, death: Death) -> None:
        """A signal kills the process."""
        if task.death is None:
            task.death = death
        self._finish(task)

    def _finish(self, task: Task) -> None:
        task.ended = True
        self.cpu.stop()

    def send_signal(self, task: Task, number: int) -> None:
        """Send a signal to ``task``: ignored, kept pending while blocked, or its default action."""
        action = int.from_bytes(task.signal_actions.get(number, b"")[:8], "little")
        if number not in (Signal.SIGKILL, Signal.SIGSTOP):
            ignored = action == SIG_DFL and number in IGNORED_BY_DEFAULT
            if action == SIG_IGN or ignored:
                return
            if task.signal_mask >> (number - 1) & 1:
                task.pending_signals |= 1 << (number - 1)
                return
            if action == SIG_DFL and number in STOPS_BY_DEFAULT:
                return
        reason = ""
        if action not in (SIG_DFL, SIG_IGN):
            reason = f"the program's handler for {signal_name(number)} cannot be called in this version"
        self.die(task, Death(number, reason=reason))

    def act_on_pending(self, task: Task) -> None:
        """Act on signals that are pending and no longer blocked, lowest number first."""
        ready = task.pending_signals & ~task.signal_mask
        while ready and not task.ended:
            number = (ready & -ready).bit_length()
            task.pending_signals &= ~(1 << (number - 1))
            ready &= ready - 1
            self.send_signal(task, number)

    def close(self) -> None:
        """Free what the machine holds of the host."""
        self.cpu.close()
        self.ram.close()
