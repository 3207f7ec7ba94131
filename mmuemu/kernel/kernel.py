"""The kernel: it owns the machine's memory and CPU, and decides what runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final

from mmuemu.cpu.cpu import DEFAULT_CONTROLS, Cpu, Stop
from mmuemu.cpu.model_rules import ModelRules
from mmuemu.cpu.window import Q_PKRU
from mmuemu.kernel import life, oom, switching
from mmuemu.kernel.abi.signals import Signal
from mmuemu.kernel.accounting import charge
from mmuemu.kernel.clock import INSTRUCTION_NS, Clock, HostClock, VirtualClock
from mmuemu.kernel.entry import Entry
from mmuemu.kernel.events import Events, SyscallEvent, tell_switch, watched
from mmuemu.kernel.futex import FutexTable, mm_release
from mmuemu.kernel.half import KernelLayout, KernelMemory
from mmuemu.kernel.hardening import Hardening, HiddenState
from mmuemu.kernel.idle_pages import IdlePages
from mmuemu.kernel.ipc.namespace import IpcNamespace
from mmuemu.kernel.itimers import forget_timers
from mmuemu.kernel.keys import INITIAL_PKRU
from mmuemu.kernel.options import Debugger, Options, Statistics, Tracer
from mmuemu.kernel.scheduler import Scheduler
from mmuemu.kernel.signals.deliver import deliver
from mmuemu.kernel.signals.pending import SigInfo
from mmuemu.kernel.signals.send import send
from mmuemu.kernel.syscalls import load_all
from mmuemu.kernel.syscalls.table import TABLE, Syscall
from mmuemu.kernel.task import State
from mmuemu.kernel.timers import Timers
from mmuemu.kernel.traps import Death
from mmuemu.kernel.vdso import Vdso
from mmuemu.kernel.vulnerable import CALL, draw_secret
from mmuemu.memory.frames import FrameAllocator
from mmuemu.memory.ram import GuestRam
from mmuemu.mmu.state import PagingState
from mmuemu.x86.registers import (
    CR4_LA57,
    CR4_OSXSAVE,
    CR4_PKE,
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
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.task import Task
    from mmuemu.kernel.vma import Vma

_UNLIMITED: Final = 1 << 60
SFMASK: Final = RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL | RFLAGS_NT | RFLAGS_AC


class Kernel:
    """One machine under a Linux-like kernel."""

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
        self.hardening = Hardening(options.mitigations)
        self.hidden: HiddenState | None = None
        """The CPU's hidden state, to be set before the first program is loaded; None: there is none."""
        self.secret = draw_secret(Random(f"{self.seed} secret"))
        """What ring 3 cannot read."""
        self.memory = KernelMemory(
            self.frames,
            placed,
            self.layout,
            isolated=options.kpti,
            mitigations=self.hardening.names,
            secret=self.secret,
            driver=options.show_secret,
        )
        self.vdso = Vdso()
        self.entry = Entry(self)
        self.cpu = Cpu(self.ram, mmu=options.mmu, handler=self.entry)
        self.cpu.make_breakable()
        if options.cpu_model is not None:
            self.cpu.set_model(options.cpu_model)
        self.protection_keys = self.cpu.model is not None and "pku" in self.cpu.model.features
        if virtual:
            self.cpu.tsc = self.clock.tsc
        self.memory.on_unmap = lambda: self.cpu.flush_tlb("kernel")
        self.frames.on_free.append(self.cpu.engine.forget_code)
        self.statistics = Statistics()
        self.tracer: Tracer | None = None
        self.debugger: Debugger | None = None
        """Who debugs the programs; all stretches of a run are counted then, so that they end at exact places."""
        self.halting = self._halted = False
        """A debugger wants the machine to stop with the current task in the kernel, and it has."""
        self.on_unknown_syscall: Callable[[int], object] | None = None
        self.events = Events()
        self.table = TABLE
        """System calls by number; a copy once one of them is watched."""
        self.tasks: dict[int, Task] = {}
        """Live threads by number."""
        if options.show_secret:
            self._put_call(CALL.number, CALL)
        self.processes: dict[int, Process] = {}
        """Processes by number, zombies included."""
        self.main: Process | None = None
        """The first process: its end is the program's."""
        self.started = 0
        """Tasks there have been."""
        self.zombies = 0
        """Processes that have ended and wait to be waited for."""
        self.on_oom_kill: Callable[[Process, int], object] | None = None
        """Called with a process that is killed for lack of memory, and its resident pages."""
        self.on_stopped: Callable[[], None] | None = None
        """Called when the first process has stopped and nobody can run."""
        self._making_room = False
        self.frames.on_exhausted = self._make_room
        self.idle_pages = IdlePages(self.frames.limit // 8)
        self.last_pid = life.FIRST_PID - 1
        self.timers = Timers()
        self.scheduler = Scheduler(self, self.seed if options.schedule is None and virtual else options.schedule)
        self.futexes = FutexTable()
        self.ipc = IpcNamespace(self)
        self.current: Task | None = None
        """The task whose state the CPU has."""
        self.attention = False
        """Something is to be done before the current task returns to ring 3."""
        self.reschedule = False
        """The current task's time is up."""
        self.running = False
        self._until: Process | None = None
        self.loaded_root = 0
        self.lazy_fpu = options.lazy_fpu
        self.fpu_owner: Task | None = None
        """Whose floating-point registers the CPU has; with lazy FPU only."""
        self.charged_at = self.clock.used()
        """Up to when CPU time has been given to the tasks that used it."""
        self.mm: AddressSpace | None = None
        """What the CPU translates by."""
        self._set_up_cpu()

    def _set_up_cpu(self) -> None:
        cpu = self.cpu
        controls = DEFAULT_CONTROLS
        cr4 = controls.cr4 | CR4_SMEP | (CR4_LA57 if self.layout.levels == 5 else 0)
        cr4 |= CR4_SMAP if self.hardening.smap else 0
        cr4 |= CR4_PKE if self.protection_keys else 0
        if cpu.model is not None:
            cr4 &= ModelRules(cpu.model).cr4
        if self.lazy_fpu:
            cr4 &= ~CR4_OSXSAVE  # XSAVE heeds no CR0.TS in this engine, and Linux is eager where there is XSAVE
        cpu.set_paging(PagingState(self.memory.half.table.root, controls.cr0, cr4, controls.efer))
        cpu.uc.msr_write(MSR_STAR, STAR)
        cpu.uc.msr_write(MSR_LSTAR, self.memory.entry)
        cpu.uc.msr_write(MSR_SFMASK, SFMASK)
        cpu.set_gdt(self.memory.data, self.memory.gdt_limit)
        cpu.window.save()
        if self.protection_keys:
            cpu.fp.pkru = INITIAL_PKRU
            cpu.window.restore()
        self.idle_state = cpu.window.snapshot()
        """The CPU's state before any program has run."""

    def attach_files(self, tree: MountTree) -> None:
        """Show this kernel's processes in the tree's /proc."""
        from mmuemu.kernel.proc import KernelProc

        tree.proc = KernelProc(self)
        if self.options.show_secret:
            from mmuemu.kernel.files.procfs import ProcRoot
            from mmuemu.kernel.procdriver import add_driver_files

            proc = tree.lookup(b"/proc")
            assert isinstance(proc, ProcRoot)
            add_driver_files(self, proc)
        tree.terminal.kernel = self

    def adopt(self, space: AddressSpace) -> None:
        """Have an address space tell the CPU when its translations change."""

        def flush(start: int, end: int) -> None:
            if space is self.mm:
                self.cpu.engine.flush("mapping")

        space.on_flush = flush
        space.on_map = self._mapped
        space.on_pages = self._count_pages
        space.pkru = self._pkru if self.protection_keys else None
        space.touch = None if self.hidden is None else self.hidden.touch
        space.idle = self.idle_pages
        space.huge.policy = self.options.thp
        for callback in self.events.space:
            callback(space)

    def _pkru(self) -> int:
        """PKRU of the task that is on the CPU."""
        return self.cpu.window.live_q[Q_PKRU] & 0xFFFF_FFFF

    def _mapped(self, vma: Vma) -> None:
        if self.events.map and self.current is not None:
            for callback in self.events.map:
                callback(self.current, vma)

    def watch_syscall(self, number: int, callback: Callable[[SyscallEvent], object]) -> None:
        """Ask ``callback`` before each system call ``number``."""
        callbacks = self.events.syscall.setdefault(number, [])
        callbacks.append(callback)
        self._put_call(number, watched(self.events, number))

    def _put_call(self, number: int, call: Syscall) -> None:
        if self.table is TABLE:
            load_all()
            self.table = dict(TABLE)
        self.table[number] = call

    def late_call(self, number: int) -> Syscall | None:
        """The call ``number``, which was not in :attr:`table` as it was."""
        load_all()
        return self.table.get(number)

    def write_back(self) -> None:
        """Pass what was stored through shared mappings of files on to the files."""
        for mm in {task.mm: None for task in self.tasks.values()}:
            mm.write_back_all(nameless=False)

    def set_address_space(self, mm: AddressSpace) -> None:
        """``mm`` is what the CPU translates by from now on."""
        self.mm = mm
        self.loaded_root = mm.page_table.root

    # -- running -------------------------------------------------------------------------------------------------

    def run(
        self, *, max_instructions: int | None = None, until: Process | None = None, address: int | None = None
    ) -> Stop:
        """Run every task until the last one (or ``until``) has ended, or a limit or an interruption stops it all.

        With ``address`` it also ends before the instruction there, whoever comes to it first (UNTIL).
        """
        cpu = self.cpu
        self._until = until
        cpu.forget_interrupt()
        cpu.engine.cache_structures(self.ram)
        left = max_instructions
        unlimited = None if self.debugger is None else _UNLIMITED
        self.running = True
        self._halted = False
        try:
            if self.current is None:
                self.work()
            elif self.attention:
                self._stopped_somewhere()
            while self.current is not None and not self._halted and not (until is not None and until.zombie):
                slice_ = self.scheduler.slice()
                limit = left if slice_ is None else slice_ if left is None else min(slice_, left)
                before = cpu.instructions
                for callback in self.events.slice:
                    callback(self.current, slice_)
                stop = cpu.run(max_instructions=unlimited if limit is None else limit, until=address)
                if limit is not None:
                    done = cpu.instructions - before
                    left = None if left is None else left - done
                    if self.clock.virtual:
                        self.clock.passed(done * INSTRUCTION_NS)
                over = left is not None and left <= 0
                if over or stop not in (Stop.LIMIT, Stop.KICKED):
                    if cpu.interrupted:
                        return Stop.INTERRUPTED
                    return Stop.LIMIT if over and stop is Stop.KICKED else stop
                self.scheduler.tick()
                if self.attention or self.reschedule:
                    self._stopped_somewhere()
            return Stop.INTERRUPTED if cpu.interrupted else Stop.REQUESTED
        finally:
            self.running = False

    def halt(self) -> None:
        """Stop the machine when the current task would return to ring 3 next; :meth:`run` goes on there.

        For a debugger, from a hook or from the kernel's own callbacks. Unset :attr:`halting` before going on.
        """
        self.halting = self.attention = True

    def _stopped_somewhere(self) -> None:
        """The run ended between two instructions, and something is to be done: now, or at the hypercall."""
        task = self.current
        assert task is not None
        if self.cpu.cpl == 3:
            switching.enter_from_user(self, task)
        elif not switching.stopped_in_kernel(self, task):
            self.attention = True
            return
        self.work()

    def work(self) -> None:
        """What is due before a task returns to ring 3: another task's turn, its call again, its signals.

        It may be called inside a hook of the engine, in the entry code. Without anybody to run, the machine stops.
        """
        while True:
            task = self.current
            if task is None or task.state is not State.RUNNABLE or self.reschedule:
                if task is not None and task.state is State.RUNNABLE and task not in self.scheduler.ready:
                    self.scheduler.ready.append(task)
                self.reschedule = False
                task = self._next()
                if task is None:
                    return
            if task.in_call and not task.interrupted:
                self.entry.call(task)
            if task.state is State.RUNNABLE and (self.signalled(task) or task.interrupted):
                deliver(task)
            if self.halting and self.current is task and task.state is State.RUNNABLE:
                self._halted = self.attention = True
                self.cpu.stop()
                return
            if self.current is task and task.state is State.RUNNABLE and not task.in_call and not self.reschedule:
                self.attention = False
                return

    def _next(self) -> Task | None:
        """Put the next task on the CPU; None when the machine stops."""
        charge(self)
        following = self.scheduler.pick()
        if following is None:
            switching.take_off(self)
            switching.park(self)
            self.attention = True
            self.cpu.stop()
            return None
        self.charged_at = self.clock.used()
        if following is not self.current:
            if self.events.switch:
                tell_switch(self.events, self.current, following)
            switching.take_off(self)
            switching.put_on(self, following)
            self.scheduler.switches += 1
        return following

    def reload(self, task: Task) -> None:
        """``task``, which is running, has a new program: fresh CPU state, the new address space."""
        task.snapshot = switching.first_state(self, task)
        task.floats = None
        switching.put_on(self, task)

    def abandoned(self) -> bool:
        """The program has ended, and what it left behind waits for something that can never come."""
        if self.timers.next is not None or self.scheduler.sleepers:
            return False
        if any(process.watched and not process.zombie for process in self.processes.values()):
            return False
        for process in list(self.processes.values()):
            life.exit_group(process, death=Death(Signal.SIGKILL))
        return True

    def _count_pages(self, pages: int) -> None:
        self.cpu.engine.count_pages(pages)

    def relieve(self) -> None:
        """When hardly a frame is free: take what was never accessed out of huge pages."""
        for mm in {task.mm: None for task in self.tasks.values()}:
            mm.huge.relieve()

    def _make_room(self) -> bool:
        """All frames are in use: kill somebody, unless the engine is in the middle of an instruction."""
        if self.entry.serving >= 0 or self._making_room:
            return False
        if self.idle_pages.give_up():
            return True
        self._making_room = True
        try:
            return oom.make_room(self)
        finally:
            self._making_room = False

    # -- signals and endings ---------------------------------------------------------------------------------------

    def signalled(self, task: Task) -> int:
        """Bits of the signals that are to be delivered to ``task`` before it returns to ring 3."""
        return (task.signals.bits | task.process.signals.bits) & ~task.signal_mask

    def send_signal(self, target: Task | Process, info: SigInfo) -> None:
        """Send a signal to a thread or to a process."""
        send(target, info)

    def release_thread(self, task: Task) -> None:
        """What a thread leaves behind in user memory (``mm_release``): its number is cleared for who joins it."""
        mm_release(task, shared=task.mm.users > 1)

    @property
    def page_faults(self) -> int:
        """Page faults of every process so far."""
        live = {task.mm: None for task in self.tasks.values()}
        gone = self.statistics.minor_faults + self.statistics.major_faults
        return gone + sum(mm.minor_faults + mm.major_faults for mm in live)

    def process_ending(self, process: Process, task: Task) -> None:
        """The last thread of ``process`` ends; its memory and files are still there."""
        forget_timers(process)
        for callback in self.events.exit:
            callback(process, task)
        self.ipc.exit(task)
        if process is self._until:
            self.cpu.stop()

    def close(self) -> None:
        """Free what the machine holds of the host."""
        self.scheduler.close()
        self.cpu.close()
        self.ram.close()
