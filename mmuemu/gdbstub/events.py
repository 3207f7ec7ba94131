"""What a debugged machine tells, what it is asked to do, and what any of them can do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mmuemu.gdbstub.description import Layout
from mmuemu.gdbstub.packets import ALL, ANY
from mmuemu.gdbstub.signals import TRAP

ThreadId = tuple[int, int]
"""Process and thread number."""


class Failed(Exception):
    """A request that cannot be met, with its error number for gdb (errno's)."""

    def __init__(self, errno: int) -> None:
        super().__init__(errno)
        self.errno = errno


@dataclass(slots=True)
class StopEvent:
    """Why the machine stopped.

    ``kind`` is ``signal``, a stop reason of gdb's (``swbreak``, ``hwbreak``, ``watch``, ``rwatch``, ``awatch``,
    ``fork``, ``vfork``, ``vforkdone``, ``exec``, ``syscall_entry``, ``syscall_return``), ``exited``, ``killed``,
    or ``none``: no thread that was resumed is left.
    """

    kind: str
    thread: ThreadId
    signal: int = TRAP
    """gdb's number; of ``exited`` the exit status."""
    detail: bytes = b""
    """What follows the reason's name in the packet."""


@dataclass(frozen=True, slots=True)
class Action:
    """One action of ``vCont``: for which threads, with which of gdb's signals, and how far."""

    thread: ThreadId
    signal: int = 0
    step: bool = False
    range: tuple[int, int] = (0, 0)
    """Step while RIP is in ``[start, end)``."""

    def covers(self, thread: ThreadId) -> bool:
        """Whether it is for that thread."""
        pid, tid = self.thread
        return pid in (ALL, ANY, thread[0]) and tid in (ALL, ANY, thread[1])


@dataclass(slots=True)
class Wishes:
    """What the client can take and wants to be told of."""

    multiprocess: bool = False
    swbreak: bool = False
    hwbreak: bool = False
    fork: bool = False
    vfork: bool = False
    exec: bool = False
    no_resumed: bool = False
    passed: set[int] = field(default_factory=set)
    """gdb's numbers of the signals that go to the program without a stop."""
    catching: bool = False
    caught: set[int] = field(default_factory=set)
    """With ``catching``: the system calls to stop at; empty means all."""


class Target(Protocol):
    """A machine that can be debugged. Whatever takes a thread raises Failed when there is no such thread."""

    layout: Layout
    wishes: Wishes
    features: tuple[str, ...]
    """What it adds to the answer to ``qSupported``."""

    @property
    def alive(self) -> bool:
        """Whether there is anything left to debug."""

    def threads(self) -> list[ThreadId]:
        """All threads, in a fixed order."""

    def thread_name(self, thread: ThreadId) -> str:
        """What a thread is called and does."""

    def read_registers(self, thread: ThreadId) -> bytes:
        """The bytes of the ``g`` packet."""

    def write_registers(self, thread: ThreadId, data: bytes) -> None:
        """The same, to be set. Raises Failed where that cannot be."""

    def read_memory(self, thread: ThreadId, address: int, count: int) -> bytes:
        """Memory by supervisor rights, up to the first byte that is not there; Failed when that is the first."""

    def write_memory(self, thread: ThreadId, address: int, data: bytes) -> None:
        """Store by supervisor rights. Raises Failed."""

    def set_point(self, thread: ThreadId, kind: int, address: int, length: int) -> bool:
        """Insert breakpoint or watchpoint of ``kind`` (of the ``Z`` packets); False: that kind does not exist here."""

    def remove_point(self, thread: ThreadId, kind: int, address: int, length: int) -> bool:
        """Remove one."""

    def resume(self, actions: Sequence[Action], interrupted: Callable[[], bool]) -> StopEvent:
        """Run until something happens; ``interrupted`` says whether an interruption was the client's."""

    def transfer(self, thread: ThreadId, what: str, annex: str) -> bytes:
        """An object of ``qXfer``. Raises Failed, or KeyError for one that does not exist here."""

    def open_file(self, path: bytes) -> tuple[Callable[[int, int], bytes], bytes]:
        """A file as the guest sees it: a function from offset and count to bytes, and ``struct stat``. Failed."""

    def read_link(self, path: bytes) -> bytes:
        """Where a symbolic link of the guest's leads. Raises Failed."""

    def monitor(self, thread: ThreadId, command: list[str]) -> str:
        """The text that a ``monitor`` command prints."""

    def detach(self, pid: int) -> None:
        """Let one process (or all, with ALL) go on without us."""

    def kill(self, pid: int) -> None:
        """End one process (or all)."""

    def finish(self) -> None:
        """Be debugged no more, whatever is left."""
