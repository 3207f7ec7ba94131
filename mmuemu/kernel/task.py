"""A task: one thread of one process, as Linux's ``task_struct`` sees it (memory, files, file-system context)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from mmuemu.kernel.signals.frame import NO_ALTSTACK, NO_TRAP, AltStack, TrapState
from mmuemu.kernel.signals.pending import Pending

if TYPE_CHECKING:
    from mmuemu.kernel.address_space import AddressSpace
    from mmuemu.kernel.files.context import FsContext
    from mmuemu.kernel.files.fdtable import FdTable
    from mmuemu.kernel.files.openfile import OpenFile
    from mmuemu.kernel.half import KernelStack
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.registers import UserRegisters
    from mmuemu.kernel.timers import Timer
    from mmuemu.kernel.traps import Death
    from mmuemu.kernel.user_memory import UserMemory
    from mmuemu.kernel.wait import Blocked


class State(Enum):
    """What a task does, with the letter /proc shows."""

    RUNNABLE = "R"
    SLEEPING = "S"
    STOPPED = "T"
    DEAD = "Z"


@dataclass(slots=True, eq=False, repr=False)
class Task:
    """What a system call may use; ``memory`` is ``copy_from_user`` and ``copy_to_user``."""

    kernel: Kernel
    process: Process
    tid: int
    mm: AddressSpace
    memory: UserMemory
    files: FdTable
    fs: FsContext
    stack: KernelStack
    registers: UserRegisters
    """The user registers, valid while the task is in the kernel."""
    name: str = ""
    uid: int = 1000
    gid: int = 1000
    clear_child_tid: int = 0
    robust_list: int = 0
    signal_mask: int = 0
    saved_mask: int | None = None
    """The mask to put back after the handler that ends sigsuspend, ppoll or pselect (TIF_RESTORE_SIGMASK)."""
    signals: Pending = field(default_factory=Pending)
    """Signals sent to this thread alone."""
    signal_wait: int = 0
    """Bits of the signals that it waits for in sigtimedwait, blocked or not."""
    trap_state: TrapState = NO_TRAP
    """Its last exception, which the frames of all later signals show."""
    parent_death_signal: int = 0
    """PR_SET_PDEATHSIG."""
    ssbd: bool = False
    """Speculative store bypass is disabled while it runs (TIF_SSBD)."""
    ibpb: bool = False
    """Indirect branch speculation is disabled: predictions are forgotten when it comes and goes (TIF_SPEC_IB)."""
    l1d_flush: bool = False
    """The L1 data cache is emptied when it leaves the CPU (TIF_SPEC_L1D_FLUSH)."""
    speculation_flags: int = 0
    """SSB_FORCE, IB_FORCE, SSB_NOEXEC of :mod:`mmuemu.kernel.speculation_control`."""
    alternate_stack: AltStack = NO_ALTSTACK
    """sigaltstack: address, SS_* flags, size."""
    state: State = State.RUNNABLE
    snapshot: bytes = b""
    """The CPU's state when it last left it, inside the kernel."""
    floats: bytes | None = None
    """Its floating-point registers while :attr:`snapshot` or the CPU has those of another task (lazy FPU)."""
    cpu_time: int = 0
    """Nanoseconds of CPU it has used, up to when it last left the CPU."""
    call_state: object = None
    """What a system call that sleeps must remember; None when it is made for the first time."""
    blocked: Blocked | None = None
    """Why it sleeps."""
    in_call: bool = False
    """Whether a system call is to be made (again) before it returns to user mode."""
    sleep_timer: Timer | None = None
    ended: bool = False
    scheduling: tuple[int, int] = (0, 0)
    """SCHED_* policy and real-time priority."""
    interrupted: bool = False
    """A signal is to be delivered before the call it sleeps in goes on."""
    on_interrupt: Callable[[], None] | None = None
    """What that call does before it fails with EINTR."""
    progress: int | None = None
    """What that call has done already: it returns this and is not made again."""
    restart: int = True
    """Whether that call may be made again after a handler with SA_RESTART."""

    @property
    def pid(self) -> int:
        """The process's number (Linux's tgid)."""
        return self.process.pid

    @property
    def ppid(self) -> int:
        """The parent process's number."""
        return self.process.ppid

    @property
    def pgid(self) -> int:
        """The process group."""
        return self.process.pgid

    @property
    def sid(self) -> int:
        """The session."""
        return self.process.sid

    @property
    def exe(self) -> str:
        """The program's path in the guest's view."""
        return self.process.exe

    @property
    def exe_file(self) -> OpenFile | None:
        """The program file."""
        return self.process.exe_file

    @property
    def arguments(self) -> tuple[bytes, ...]:
        """argv."""
        return self.process.arguments

    @property
    def environment(self) -> tuple[bytes, ...]:
        """envp."""
        return self.process.environment

    @property
    def auxv(self) -> bytes:
        """The auxiliary vector's bytes."""
        return self.process.auxv

    @property
    def entry(self) -> int:
        """Where the program's first instruction in ring 3 lies."""
        return self.process.entry

    @property
    def stack_arguments(self) -> tuple[int, int, int, int]:
        """Start and end of the argument and environment strings."""
        return self.process.stack_arguments

    @property
    def limits(self) -> dict[int, tuple[int, int]]:
        """RLIMIT_* that were set."""
        return self.process.limits

    @property
    def signal_actions(self) -> dict[int, bytes]:
        """Signal dispositions."""
        return self.process.actions

    @property
    def exit_status(self) -> int | None:
        """The process's exit status."""
        return self.process.exit_status

    @property
    def death(self) -> Death | None:
        """Why a signal killed the process."""
        return self.process.death

    def wake(self) -> None:
        """Something it waits for may be ready."""
        self.kernel.scheduler.wake(self)
