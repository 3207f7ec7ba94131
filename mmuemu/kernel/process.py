"""A process (Linux's thread group, ``signal_struct``): what its threads share besides memory and files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.accounting import Usage
from mmuemu.kernel.signals.pending import Pending
from mmuemu.kernel.wait import WaitQueue

if TYPE_CHECKING:
    from mmuemu.kernel.files.openfile import OpenFile
    from mmuemu.kernel.itimers import IntervalTimer, PosixTimer
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.task import Task
    from mmuemu.kernel.traps import Death

RLIMIT_CORE: Final = 4
INIT: int = 1
"""The process that orphans belong to; it exists in name only and reaps at once."""


@dataclass(slots=True, eq=False, repr=False)
class Process:
    """One process. It lives until its parent has waited for it; its ``threads`` end before that."""

    kernel: Kernel
    pid: int
    parent: Process | None = None
    """None for a child of init."""
    pgid: int = 0
    sid: int = 0
    exe: str = ""
    exe_file: OpenFile | None = None
    arguments: tuple[bytes, ...] = ()
    environment: tuple[bytes, ...] = ()
    auxv: bytes = b""
    entry: int = 0
    stack_arguments: tuple[int, int, int, int] = (0, 0, 0, 0)
    limits: dict[int, tuple[int, int]] = field(default_factory=dict)
    """RLIMIT_* that were set: (soft, hard)."""
    threads: dict[int, Task] = field(default_factory=dict)
    """Live threads by tid, oldest first."""
    leader: Task | None = None
    """The thread whose tid is the pid; it stays when its thread has ended."""
    children: dict[int, Process] = field(default_factory=dict)
    """Live children and zombies by pid, oldest first."""
    child_events: WaitQueue = field(default_factory=WaitQueue)
    """Woken when a child ends, stops or continues."""
    end_events: WaitQueue = field(default_factory=WaitQueue)
    """Woken when this process has ended: who polls a descriptor for it waits here."""
    actions: dict[int, bytes] = field(default_factory=dict)
    """Signal dispositions: ``struct sigaction`` (handler, flags, restorer, mask) by signal; absent is SIG_DFL."""
    signals: Pending = field(default_factory=Pending)
    """Signals sent to the whole process: any thread that does not block them takes them."""
    itimers: dict[int, IntervalTimer] = field(default_factory=dict)
    """setitimer's timers by ITIMER_*."""
    posix_timers: dict[int, PosixTimer] = field(default_factory=dict)
    """timer_create's timers by number."""
    next_timer: int = 0
    stop_signal: int = 0
    """The signal that stopped it; 0 while it runs."""
    stop_reported: bool = True
    """Whether the parent has been told (wait with WUNTRACED, WCONTINUED) of the last stop or continuation."""
    continued: bool = False
    exit_signal: int = 17
    """What the parent gets when this ends (SIGCHLD for fork)."""
    exit_status: int | None = None
    """0 to 255 once it has ended by itself."""
    death: Death | None = None
    """Why a signal killed it."""
    group_exit: bool = False
    """exit_group or a fatal signal: every thread ends at its next return to user mode."""
    zombie: bool = False
    watched: bool = False
    """Somebody outside looks at it: its memory stays after its end."""
    executed: bool = False
    """Whether execve has run since fork: setpgid(2) refuses then."""
    dumpable: int = 1
    personality: int = 0
    """PER_LINUX, and flags that change nothing."""
    start_time: int = 0
    """When it began, in nanoseconds of the monotonic clock."""
    vfork_waiter: Task | None = None
    used: Usage = field(default_factory=Usage)
    """What its threads that have ended used, and the memory it had before an execve."""
    children_used: Usage = field(default_factory=Usage)
    """What children that were waited for used."""
    oom_reason: str = ""
    """Why it was chosen to die when memory ran out."""
    oom_score_adj: int = 0
    nice: int = 0
    """setpriority(2): -20 to 19."""
    """-1000 to 1000: how much rather (or not at all, with -1000) it is killed when memory runs out (proc(5))."""

    @property
    def cpu_time(self) -> int:
        """Nanoseconds of CPU of its threads that have ended."""
        return self.used.cpu

    def run_from(self, file: OpenFile | None) -> None:
        """``file`` is the program from now on, None: no more. It cannot be written to meanwhile; ETXTBSY if it is."""
        if file is not None:
            file.inode.deny_write_access()
        if self.exe_file is not None:
            self.exe_file.inode.allow_write_access()
        self.exe_file = file

    @property
    def ppid(self) -> int:
        """The parent's pid; init's for an orphan."""
        return INIT if self.parent is None else self.parent.pid

    @property
    def dumped_core(self) -> bool:
        """Whether the signal that killed it dumps core and RLIMIT_CORE allows one (no file is written)."""
        return self.death is not None and self.death.core and self.limits.get(RLIMIT_CORE, (0, 0))[0] > 0

    @property
    def wait_status(self) -> int:
        """What wait(2) reports: the exit status in bits 8 to 15, or the signal and 0x80 for a core dump."""
        if self.death is not None:
            return self.death.signal | (0x80 if self.dumped_core else 0)
        return (self.exit_status or 0) << 8
