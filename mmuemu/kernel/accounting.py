"""Who used how much: CPU time, page faults, memory (getrusage(2), wait4(2), times(2), clock_gettime(2)).

CPU time is how long a task had the CPU by the monotonic clock (the host's own CPU clock costs as much to ask as a
whole system call). User and system time are not told apart: all of it is user time.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mmuemu.x86.paging import PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.kernel.address_space import AddressSpace
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.task import Task

NANOSECONDS: Final = 1_000_000_000
_RUSAGE: Final = struct.Struct("<18q")


@dataclass(slots=True)
class Usage:
    """What has been used: nanoseconds of CPU, page faults, the most pages that were mapped at once."""

    cpu: int = 0
    minor_faults: int = 0
    major_faults: int = 0
    peak: int = 0

    def add(self, other: Usage) -> None:
        """Count ``other`` in; of the peaks the higher one stays."""
        self.cpu += other.cpu
        self.minor_faults += other.minor_faults
        self.major_faults += other.major_faults
        self.peak = max(self.peak, other.peak)

    def pack(self) -> bytes:
        """The 144 bytes of a ``struct rusage`` (include/uapi/linux/resource.h), sizes in KiB."""
        seconds, nanoseconds = divmod(self.cpu, NANOSECONDS)
        values = [0] * 18
        values[0], values[1] = seconds, nanoseconds // 1000
        values[4] = self.peak * PAGE_SIZE >> 10
        values[8], values[9] = self.minor_faults, self.major_faults
        return _RUSAGE.pack(*values)


def charge(kernel: Kernel) -> None:
    """Give the CPU time since the last charge to the task on the CPU; call it at every switch."""
    now = kernel.clock.used()
    task = kernel.current
    if task is not None:
        task.cpu_time += now - kernel.charged_at
    kernel.charged_at = now


def thread_cpu_time(task: Task) -> int:
    """Nanoseconds of CPU that one thread has used; a virtual clock ticks by the look."""
    if task.kernel.clock.virtual:
        task.kernel.clock.cpu()
    charge(task.kernel)
    return task.cpu_time


def process_cpu_time(process: Process) -> int:
    """Nanoseconds of CPU that a process has used, with its threads that have ended."""
    if process.kernel.clock.virtual:
        process.kernel.clock.cpu()
    charge(process.kernel)
    return process.used.cpu + sum(thread.cpu_time for thread in process.threads.values())


def process_usage(process: Process) -> Usage:
    """What a process has used so far (RUSAGE_SELF)."""
    found = Usage(process_cpu_time(process), process.used.minor_faults, process.used.major_faults, process.used.peak)
    for task in list(process.threads.values())[:1]:
        _count_memory(found, task.mm)
    return found


def thread_usage(task: Task) -> Usage:
    """What a thread has used (RUSAGE_THREAD): its CPU time, and its process's memory."""
    found = process_usage(task.process)
    found.cpu = task.cpu_time
    return found


def _count_memory(usage: Usage, mm: AddressSpace) -> None:
    usage.minor_faults += mm.minor_faults
    usage.major_faults += mm.major_faults
    usage.peak = max(usage.peak, mm.peak)


def memory_left(process: Process, mm: AddressSpace) -> None:
    """``process`` lives in ``mm`` no longer, nor does anybody: its faults are the process's past."""
    _count_memory(process.used, mm)


def thread_left(task: Task) -> None:
    """``task`` ends: its CPU time is its process's past."""
    charge(task.kernel)
    task.process.used.cpu += task.cpu_time
    task.cpu_time = 0


def reaped(parent: Process, child: Process) -> None:
    """``parent`` has waited for ``child``: what it and its own children used counts (RUSAGE_CHILDREN)."""
    parent.children_used.add(child.used)
    parent.children_used.add(child.children_used)
