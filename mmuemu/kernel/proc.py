"""The kernel's side of /proc: facts about its tasks and itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.clock import NANOSECONDS
from mmuemu.kernel.files.procsource import ProcessFacts, SystemFacts
from mmuemu.kernel.maps import maps_text
from mmuemu.kernel.syscalls.system import DEFAULT_LIMITS, RELEASE, RLIM_INFINITY, VERSION
from mmuemu.x86.paging import PAGE_SIZE

if TYPE_CHECKING:
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.task import Task

_LIMIT_NAMES: Final = (
    "Max cpu time", "Max file size", "Max data size", "Max stack size", "Max core file size", "Max resident set",
    "Max processes", "Max open files", "Max locked memory", "Max address space", "Max file locks",
    "Max pending signals", "Max msgqueue size", "Max nice priority", "Max realtime priority", "Max realtime timeout",
)  # fmt: skip
"""By RLIMIT_ number (fs/proc/base.c)."""


def _bounded(value: int) -> int | None:
    return None if value == RLIM_INFINITY else value


class KernelProc:
    """What /proc reads."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def pids(self) -> Sequence[int]:
        """Every process, by number."""
        return sorted(self.kernel.tasks)

    def maps(self, pid: int) -> bytes:
        """The text of /proc/PID/maps."""
        return os.fsencode(maps_text(self.kernel.tasks[pid].mm))

    def system(self) -> SystemFacts:
        """The machine."""
        kernel = self.kernel
        uptime = kernel.clock.monotonic() / NANOSECONDS
        return SystemFacts(
            memory_total=kernel.frames.limit * PAGE_SIZE,
            memory_free=kernel.frames.free * PAGE_SIZE,
            uptime=uptime,
            boot_time=int(kernel.clock.realtime() / NANOSECONDS - uptime),
            release=RELEASE,
            version=VERSION,
            hostname=kernel.hostname,
            randomize_va_space=2 if kernel.aslr is not None else 0,
            last_pid=max(kernel.tasks, default=1),
        )

    def process(self, pid: int) -> ProcessFacts | None:
        """One process, or None when there is none of that number."""
        task = self.kernel.tasks.get(pid)
        return None if task is None else self._facts(task)

    def _facts(self, task: Task) -> ProcessFacts:
        mm = task.mm
        dispositions = {number: int.from_bytes(action[:8], "little") for number, action in task.signal_actions.items()}
        limits = {}
        for number, name in enumerate(_LIMIT_NAMES):
            soft, hard = task.limits.get(number) or DEFAULT_LIMITS.get(number, (RLIM_INFINITY, RLIM_INFINITY))
            limits[name] = (_bounded(soft), _bounded(hard))
        executable = [vma for vma in mm.vmas if vma.flags & 4]
        stack = mm.vmas.find(mm.start_stack)
        return ProcessFacts(
            pid=task.pid,
            ppid=task.ppid,
            name=os.fsencode(task.name),
            files=task.files,
            fs=task.fs,
            exe=None if task.exe_file is None else task.exe_file.inode,
            arguments=task.arguments,
            environment=task.environment,
            auxv=task.auxv,
            uid=task.uid,
            gid=task.gid,
            pgrp=task.pgid,
            session=task.sid,
            threads=(task.tid,),
            virtual=mm.total_vm,
            peak=mm.total_vm,
            resident=mm.resident * PAGE_SIZE,
            shared=mm.file_pages * PAGE_SIZE,
            data=sum(vma.end - vma.start for vma in mm.vmas if vma.flags & 10 == 2),
            stack=0 if stack is None else stack.end - stack.start,
            text=sum(vma.end - vma.start for vma in executable),
            minor_faults=mm.minor_faults,
            major_faults=mm.major_faults,
            user_ticks=self.kernel.clock.cpu() // (NANOSECONDS // 100),
            pending=task.pending_signals,
            blocked=task.signal_mask,
            ignored=sum(1 << (number - 1) for number, action in dispositions.items() if action == 1),
            caught=sum(1 << (number - 1) for number, action in dispositions.items() if action > 1),
            start_code=executable[0].start if executable else 0,
            end_code=executable[0].end if executable else 0,
            start_stack=mm.start_stack,
            limits=limits,
        )
