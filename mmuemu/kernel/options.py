"""What a machine is made of, what it counts, and who may watch its system calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from mmuemu.kernel.huge import ALWAYS
from mmuemu.kernel.speculation_control import UNAFFECTED, SpeculationControl
from mmuemu.loader.layouts import LINUX, Layout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mmuemu.cpu.cpuid import CpuModel
    from mmuemu.kernel.signals.pending import SigInfo
    from mmuemu.kernel.syscalls.table import Syscall
    from mmuemu.kernel.task import Task

DEFAULT_MEMORY: Final = 1 << 30
DEFAULT_MAX_PROCESSES: Final = 4096
DEFAULT_USER: Final = (1000, 1000)


class Tracer(Protocol):
    """Told of every system call, before and after."""

    def enter(self, task: Task, call: Syscall | None, number: int, arguments: tuple[int, ...]) -> None:
        """The call is about to be served; ``arguments`` are the six raw registers."""

    def leave(self, task: Task, call: Syscall | None, number: int, arguments: tuple[int, ...], result: int) -> None:
        """The call returns ``result`` (negative: an error number; -512 when it is made again after a handler)."""

    def signal(self, task: Task, info: SigInfo) -> None:
        """A signal is taken from the queue: it is delivered, unless it is ignored by now."""

    def ignored(self, task: Task, info: SigInfo) -> None:
        """A signal is dropped because ``task``'s process ignores it."""

    def sleeps(self, task: Task) -> None:
        """The call that ``task`` is in has to wait."""

    def ended(self, task: Task) -> None:
        """A thread ends; its memory is still there, and its process says how if that is decided."""


class Debugger(Protocol):
    """Who is asked before a signal is acted on; it has the machine stop by :meth:`Kernel.halt`."""

    def holds(self, task: Task, info: SigInfo) -> bool:
        """Whether the signal, which has been taken from the queue, is not to be acted on now: the machine halts."""


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
    schedule: str | int | None = None
    """``"coop"``: nobody is interrupted. A number: time slices of instruction counts drawn from it. None: those of
    the seed with virtual time, the host's clock otherwise."""
    layout: Layout = LINUX
    kpti: bool = False
    """Page-table isolation: ring 3 runs on tables that hold of the kernel only a trampoline."""
    cpu_model: CpuModel | None = None
    """What CPUID shows; None: the default model."""
    cpu_flags: tuple[str, ...] = ()
    """Flags of /proc/cpuinfo that no CPUID bit stands for (``pti``)."""
    bugs: tuple[str, ...] = ()
    """The ``bugs`` of /proc/cpuinfo."""
    vulnerabilities: Mapping[str, str] = field(default_factory=dict)
    """Texts of /sys/devices/system/cpu/vulnerabilities; a file that is not here says that it is not affected."""
    speculation_control: SpeculationControl = UNAFFECTED
    """What prctl(PR_SET_SPECULATION_CTRL) rules."""
    mitigations: frozenset[str] | None = None
    """Names of those in force (docs/reference-guest.md); None: the CPU does not speculate. ``kpti`` is the field."""
    lazy_fpu: bool = False
    """A switch leaves the floating-point registers to the task that used them last (Linux's eagerfpu=off)."""
    show_secret: bool = False
    """The kernel's secret may be asked for by its address, and system call 1000 attacked."""
    thp: str = ALWAYS
    """Where one fault maps 2 MiB: ``"always"``, ``"madvise"`` (areas that asked for it), ``"never"``."""
    max_processes: int = DEFAULT_MAX_PROCESSES
    """Tasks (threads of all processes) and zombies there may be; more is EAGAIN."""
    user: tuple[int, int] = DEFAULT_USER
    """User and group number of the programs that are started from outside; (0, 0) is root, in the guest only."""


@dataclass(slots=True)
class Statistics:
    """Counts of one run."""

    syscalls: int = 0
    unknown: dict[int, int] = field(default_factory=dict)
    """System calls that do not exist here, by number."""
    minor_faults: int = 0
    major_faults: int = 0
    """Page faults of address spaces that are gone."""
