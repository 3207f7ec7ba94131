"""Terminals as job control sees them: the session a terminal controls and the group in its foreground.

Rules: drivers/tty/tty_jobctrl.c, credentials(7). The host's terminal, if the standard streams are one, controls the
session of the first process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.signals import SIG_IGN, Signal
from mmuemu.kernel.signals.pending import SigInfo
from mmuemu.kernel.wait import Blocked

if TYPE_CHECKING:
    from mmuemu.kernel.files.inode import Inode
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.task import Task

SI_KERNEL = 0x80


class Terminal:
    """``session`` and ``foreground`` are 0 while it controls none."""

    __slots__ = ("foreground", "kernel", "session")

    def __init__(self, kernel: Kernel | None = None) -> None:
        self.kernel = kernel
        self.session = 0
        self.foreground = 0

    def belongs_to(self, process: Process) -> bool:
        """Whether this is the controlling terminal of ``process``."""
        return self.session == process.sid != 0

    def take(self, process: Process) -> None:
        """Become the controlling terminal of a session leader."""
        self.session = process.sid
        self.foreground = process.pgid

    def signal(self, number: int) -> None:
        """Send to the group in the foreground, as the keys for it do."""
        if self.kernel is not None and self.foreground:
            send_to_group(self.kernel, self.foreground, number)

    def hang_up(self) -> None:
        """The other side is gone: SIGHUP and SIGCONT, and no session any more."""
        if self.kernel is not None and self.session:
            for number in (Signal.SIGHUP, Signal.SIGCONT):
                leader = self.kernel.processes.get(self.session)
                if leader is not None and leader.pgid != self.foreground:
                    self.kernel.send_signal(leader, SigInfo(number, SI_KERNEL))
                self.signal(number)
        self.session = self.foreground = 0

    def check_foreground(self, number: int) -> None:
        """Stop the caller's group with SIGTTIN or SIGTTOU when it is in the background; EIO where that cannot be.

        Who ignores or blocks SIGTTOU may go on.
        """
        task = self.kernel.current if self.kernel is not None else None
        if task is None or not self.belongs_to(task.process) or self.foreground in (0, task.process.pgid):
            return
        if _unmoved(task, number):
            if number == Signal.SIGTTOU:
                return
            raise SyscallError(Errno.EIO)
        from mmuemu.kernel.signals.jobs import is_orphaned

        if is_orphaned(task.kernel, task.process.pgid):
            raise SyscallError(Errno.EIO)
        send_to_group(task.kernel, task.process.pgid, number)
        raise Blocked()


class HostTerminal(Terminal):
    """The host's: it controls the session of the first process from the start. ``node`` is /dev/tty, its name."""

    __slots__ = ("node",)

    def __init__(self) -> None:
        super().__init__()
        self.node: Inode | None = None

    def settle(self) -> HostTerminal:
        """Find the first session, if that has not been done."""
        if not self.session and self.kernel is not None and self.kernel.main is not None:
            self.take(self.kernel.main)
        return self

    def check_foreground(self, number: int) -> None:
        """As every terminal, once it has its session."""
        self.settle()
        super().check_foreground(number)


def send_to_group(kernel: Kernel, pgid: int, number: int) -> None:
    """A signal of the kernel's for every process of a group."""
    for process in list(kernel.processes.values()):
        if process.pgid == pgid and not process.zombie:
            kernel.send_signal(process, SigInfo(number, SI_KERNEL))


def _unmoved(task: Task, number: int) -> bool:
    handler = int.from_bytes(task.process.actions.get(number, b"")[:8], "little")
    return handler == SIG_IGN or bool(task.signal_mask >> (number - 1) & 1)
