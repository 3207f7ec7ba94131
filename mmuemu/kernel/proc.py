"""The kernel's side of /proc: facts about its tasks and itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.signals import SIG_IGN
from mmuemu.kernel.accounting import process_cpu_time
from mmuemu.kernel.clock import NANOSECONDS
from mmuemu.kernel.files.fdtable import FdTable
from mmuemu.kernel.files.procsource import ProcessFacts, SystemFacts
from mmuemu.kernel.maps import maps_text
from mmuemu.kernel.syscalls.system import DEFAULT_LIMITS, RELEASE, RLIM_INFINITY, RLIMIT_COUNT, VERSION
from mmuemu.kernel.task import State
from mmuemu.kernel.vma import VM_EXEC, VM_SHARED, VM_WRITE, Vma
from mmuemu.x86.paging import PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.task import Task

TICK: Final = NANOSECONDS // 100
"""Nanoseconds in a tick of /proc's times."""


class TaskFacts(ProcessFacts):
    """The facts of one task, worked out when they are read: most files under /proc need few of them."""

    def __init__(self, task: Task) -> None:
        super().__init__(task.pid, os.fsencode(task.name), task.files, task.fs)
        self.task = task
        self.ppid = task.ppid
        self.exe = None if task.exe_file is None else task.exe_file.inode
        self.arguments = task.arguments
        self.environment = task.environment
        self.auxv = task.auxv
        self.uid = task.uid
        self.gid = task.gid
        self.pgrp = task.pgid
        self.session = task.sid
        self.state = task.state.value
        self.threads = tuple(task.process.threads)
        self.user_ticks = process_cpu_time(task.process) // TICK
        self.pending = task.pending_signals
        self.blocked = task.signal_mask
        self.virtual = self.peak = task.mm.total_vm
        self.resident = task.mm.resident * PAGE_SIZE
        self.shared = task.mm.file_pages * PAGE_SIZE
        self.minor_faults = task.mm.minor_faults
        self.major_faults = task.mm.major_faults
        self.start_stack = task.mm.start_stack
        self.start_brk = task.mm.start_brk
        self.limits = {
            number: task.limits.get(number) or DEFAULT_LIMITS.get(number, (RLIM_INFINITY, RLIM_INFINITY))
            for number in range(RLIMIT_COUNT)
        }

    def _dispositions(self, wanted: Callable[[int], bool]) -> int:
        return sum(
            1 << (number - 1)
            for number, action in self.task.signal_actions.items()
            if wanted(int.from_bytes(action[:8], "little"))
        )

    def _areas(self, wanted: Callable[[int], bool]) -> list[Vma]:
        return [vma for vma in self.task.mm.vmas if wanted(vma.flags)]

    @property
    def ignored(self) -> int:  # type: ignore[override]
        """Signals that are ignored."""
        return self._dispositions(lambda handler: handler == SIG_IGN)

    @property
    def caught(self) -> int:  # type: ignore[override]
        """Signals with a handler."""
        return self._dispositions(lambda handler: handler > SIG_IGN)

    @property
    def data(self) -> int:  # type: ignore[override]
        """Bytes of private writable areas."""
        return sum(vma.end - vma.start for vma in self._areas(lambda flags: flags & (VM_WRITE | VM_SHARED) == VM_WRITE))

    @property
    def text(self) -> int:  # type: ignore[override]
        """Bytes of executable areas."""
        return sum(vma.end - vma.start for vma in self._areas(lambda flags: bool(flags & VM_EXEC)))

    @property
    def stack(self) -> int:  # type: ignore[override]
        """Bytes of the stack's area."""
        vma = self.task.mm.vmas.find(self.start_stack)
        return 0 if vma is None else vma.end - vma.start

    @property
    def start_code(self) -> int:  # type: ignore[override]
        """Where the program's code begins."""
        return next((vma.start for vma in self._areas(lambda flags: bool(flags & VM_EXEC))), 0)

    @property
    def end_code(self) -> int:  # type: ignore[override]
        """Where the program's code ends."""
        return next((vma.end for vma in self._areas(lambda flags: bool(flags & VM_EXEC))), 0)


def zombie_facts(process: Process) -> ProcessFacts:
    """What is left of a process that has ended: no memory, no files, no arguments."""
    leader = process.leader
    assert leader is not None
    facts = ProcessFacts(process.pid, os.fsencode(leader.name), FdTable(), leader.fs)
    facts.ppid, facts.state = process.ppid, State.DEAD.value
    facts.uid, facts.gid, facts.pgrp, facts.session = leader.uid, leader.gid, process.pgid, process.sid
    facts.minor_faults, facts.major_faults = process.used.minor_faults, process.used.major_faults
    facts.user_ticks = process.used.cpu // TICK
    return facts


class KernelProc:
    """What /proc reads."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def pids(self) -> Sequence[int]:
        """Every process, by number."""
        return sorted(self.kernel.processes)

    def maps(self, pid: int) -> bytes:
        """The text of /proc/PID/maps."""
        process = self.kernel.processes.get(pid)
        if process is None or not process.threads:
            return b""
        return os.fsencode(maps_text(next(iter(process.threads.values())).mm))

    def system(self) -> SystemFacts:
        """The machine."""
        kernel = self.kernel
        uptime = kernel.clock.monotonic() / NANOSECONDS
        facts = SystemFacts()
        facts.memory_total = kernel.frames.limit * PAGE_SIZE
        facts.memory_free = kernel.frames.free * PAGE_SIZE
        facts.uptime = uptime
        facts.boot_time = int(kernel.clock.realtime() / NANOSECONDS - uptime)
        facts.release = RELEASE
        facts.version = VERSION
        facts.hostname = kernel.hostname
        model = kernel.cpu.model
        if model is not None:
            facts.cpu_vendor, facts.cpu_model, facts.cpu_flags = model.vendor, model.brand, model.flags
            facts.cpu_version = (model.family, model.model, model.stepping)
            facts.address_bits = (model.maxphyaddr, 48)
            facts.cpuid_level = model.last_leaf
        facts.randomize_va_space = 2 if kernel.aslr is not None else 0
        facts.last_pid = kernel.last_pid
        return facts

    def process(self, pid: int) -> ProcessFacts | None:
        """One process, or None when there is none of that number."""
        process = self.kernel.processes.get(pid)
        if process is None or process.leader is None:
            return None
        if not process.threads:
            return zombie_facts(process)
        return TaskFacts(process.leader if not process.leader.ended else next(iter(process.threads.values())))
