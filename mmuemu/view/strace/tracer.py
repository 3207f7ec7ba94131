"""The tracer: lines like ``strace -f`` writes, one a call, with calls broken off where another task comes between."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno
from mmuemu.kernel.abi.signals import Signal
from mmuemu.kernel.syscalls import load_all
from mmuemu.kernel.syscalls.table import TABLE
from mmuemu.view.strace.calls import SPECS, Spec
from mmuemu.view.strace.special import siginfo_text
from mmuemu.view.strace.values import (
    PURE,
    RESTARTED,
    STRING_LIMIT,
    Call,
    Known,
    Tables,
    error_text,
    escaped,
    pointer,
    quoted,
    signal_text,
)
from mmuemu.view.strace.words import MISSING

if TYPE_CHECKING:
    from mmuemu.kernel.signals.pending import SigInfo
    from mmuemu.kernel.syscalls.table import Syscall
    from mmuemu.kernel.task import Task

COLUMN: Final = 40
"""Where results stand (strace's -a default)."""
_HELD: Final = 64
"""Lines that are kept back at most."""
_HIGHEST: Final = 1 << 63
"""From here on a result is a negative number that was given back raw (rt_sigreturn)."""
_EXITS: Final = frozenset({60, 231})
_WRITES: Final = frozenset({1, 18, 20, 40, 275, 276, 278, 296, 326, 328})
"""Calls that may show something: what is held back comes before."""
_BLOCK: Final = "? ERESTART_RESTARTBLOCK (Interrupted by signal)"
_NO_HANDLER: Final = "? ERESTARTNOHAND (To be restarted if no handler)"
_EINTR: Final = "-1 EINTR (Interrupted system call)"
_INTERRUPTED: Final[dict[str, str]] = {
    **dict.fromkeys(("nanosleep", "clock_nanosleep", "poll"), _BLOCK),
    **dict.fromkeys(("pause", "rt_sigsuspend", "select", "pselect6", "ppoll", "msgsnd", "msgrcv"), _NO_HANDLER),
    **dict.fromkeys(
        (
            "epoll_wait",
            "epoll_pwait",
            "epoll_pwait2",
            "rt_sigtimedwait",
            "semop",
            "semtimedop",
            "close",
            "rt_sigreturn",
        ),
        _EINTR,
    ),
}
"""How a call ends that a signal has interrupted, as a tracer sees it; all others ``ERESTARTSYS``."""


class Strace:
    """A tracer (:class:`~mmuemu.kernel.options.Tracer`) that writes lines through ``write``, several at once.

    ``names`` are the calls to show (None: all); ``limit`` is how much of strings is shown; with ``numbered`` each line
    begins with the task's number, as ``strace -f -o`` has it, else ``[pid N]`` while there are several.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        *,
        names: frozenset[str] | None = None,
        limit: int = STRING_LIMIT,
        numbered: bool = False,
        direct: bool = False,
    ) -> None:
        """With ``direct`` every line is written at once."""
        self._write = write
        self._names = names
        self._limit = limit
        self._numbered = numbered
        self._held: list[str] = []
        self._most = 1 if direct else _HELD
        load_all()
        self._specs = {
            number: SPECS[call.name] for number, call in TABLE.items() if names is None or call.name in names
        }
        self._calls: dict[int, Call] = {}
        """By thread: the call it is in."""
        self._open: Task | None = None
        """Who made the last call, if nothing has been written since."""
        self._late: dict[int, list[str]] = {}
        """By thread: signals that came, and were ignored, in the middle of its call."""
        self._writes = frozenset() if numbered else _WRITES
        self._tables: Tables | None = None
        self._spare: Call | None = None
        """A call that has returned, for the next one."""
        self._marks = Known(lambda tid: f"{tid:<5} " if numbered else f"[pid {tid:5}] ")

    # -- what the kernel tells ----------------------------------------------------------------------------------------

    def started(self, task: Task) -> None:
        """The first program: the line of the execve that a real strace would have made."""
        if self._names is None or "execve" in self._names:
            arguments = [quoted(text, self._limit) for text in task.arguments[: self._limit]]
            more = ", ..." if len(task.arguments) > self._limit else ""
            count = len(task.environment)
            place = pointer(task.mm.start_stack + 8 * (len(task.arguments) + 2))
            text = f"execve({escaped(task.exe.encode())}, [{', '.join(arguments)}{more}], {place} /* {count} vars */) "
            self._line(task, text, "0")

    def enter(self, task: Task, call: Syscall | None, number: int, arguments: tuple[int, ...]) -> None:
        """Note what the call is given, before it changes anything."""
        if self._open is not None and self._open is not task:
            self._break_off(self._open)
        if self._late:
            self._tell_late(task)
        if number in self._writes:
            self.flush()
        spec = self._specs.get(number)
        if spec is None:
            spec = None if number in TABLE else self._unknown(number)
            if spec is None:
                return
        made = self._spare
        if made is None:
            if self._tables is None:
                self._tables = Tables(task.mm)
            made = Call(spec, task, number, arguments, self._limit, self._tables)
        else:
            self._spare = None
            made.spec, made.task, made.number, made.args, made.result = spec, task, number, arguments, 0
        if spec.keep is not None:
            spec.keep(made)
        made.entered = spec.begin(made)
        self._calls[task.tid] = made
        self._open = task

    def leave(self, task: Task, call: Syscall | None, number: int, arguments: tuple[int, ...], result: int) -> None:
        """Write the line with its result."""
        if task.ended:
            return
        made = self._calls.pop(task.tid, None)
        if made is None:
            return
        spec, rest = made.spec, made.spec.rest
        if result >= _HIGHEST:
            result -= 2 * _HIGHEST
        made.result = result
        text = ") " if rest is None else rest(made)
        if self._open is task:
            self._open = None
            text = made.entered + text
        else:
            self._begin_line(task)
            text = f"<... {spec.name} resumed>{text}"
        # As _line does, without a call for each line.
        if self._numbered or len(task.kernel.tasks) > 1:
            text = (self._marks[task.tid] + text).ljust(COLUMN)
        else:
            text = text.ljust(COLUMN)
        held = self._held
        held.append(f"{text}= {result if spec.plain and result >= 0 else self._result(made, spec)}\n")
        if len(held) >= self._most:
            self.flush()
        self._spare = made
        if self._late:
            self._tell_late(task)

    def sleeps(self, task: Task) -> None:
        """The call waits: whoever looks on sees what has happened so far."""
        self.flush()

    def signal(self, task: Task, info: SigInfo) -> None:
        """Write a line for a signal that is delivered; SIGKILL is none that a tracer sees."""
        if info.signal == Signal.SIGKILL:
            return
        if task.tid in self._calls:
            pending = self._calls[task.tid]
            self.leave(task, None, pending.number, pending.args, RESTARTED)
        self._alone(task, self._signal_line(info))

    def ignored(self, task: Task, info: SigInfo) -> None:
        """A signal that is not delivered because it is ignored: strace sees it, too."""
        if info.signal != Signal.SIGKILL:
            self._late.setdefault(task.tid, []).append(self._signal_line(info))

    def ended(self, task: Task) -> None:
        """A thread ends: its last call never returns, and a line says how it ended."""
        known = self._calls.pop(task.tid, None)
        process = task.process
        if known is not None:
            split = self._open is not task
            self._begin_line(task)
            text = f"<... {known.spec.name} resumed>) " if split else f"{known.entered.rstrip(', ')}) "
            self._line(task, text, "?")
        if self._late:
            self._tell_late(task)
        if process.death is not None and process.group_exit:
            core = " (core dumped)" if process.dumped_core else ""
            text = f"killed by {signal_text(int(process.death.signal))}{core}"
        else:
            own = known is not None and known.number in _EXITS and not process.group_exit
            status = known.args[0] if own and known is not None else process.exit_status or 0
            text = f"exited with {status & 0xFF}"
        self._alone(task, f"+++ {text} +++")

    def close(self) -> None:
        """Write what is left: calls that have not returned."""
        if self._open is not None:
            self._break_off(self._open)
        self.flush()

    def flush(self) -> None:
        """Write what was held back."""
        if self._held:
            held, self._held = "".join(self._held), []
            self._write(held)

    # -- lines --------------------------------------------------------------------------------------------------------

    def _unknown(self, number: int) -> Spec | None:
        name = MISSING.get(number, f"syscall_{number:#x}")
        if self._names is not None and name not in self._names:
            return None
        return _plain(name)

    def _result(self, call: Call, spec: Spec) -> str:
        result = call.result
        if -4096 < result < 0:
            if result == RESTARTED or result == -Errno.EINTR:
                return _INTERRUPTED.get(spec.name) or error_text(RESTARTED)
            return error_text(result)
        text = None if spec.result is None else spec.result(call)
        if text is None:
            text = str(result)
        return text if spec.suffix is None else text + spec.suffix(call)

    def _line(self, task: Task, text: str, result: str = "") -> None:
        if self._numbered or len(task.kernel.tasks) > 1:
            text = self._marks[task.tid] + text
        self._held.append(f"{text.ljust(COLUMN)}= {result}\n" if result else f"{text}\n")
        if len(self._held) >= self._most:
            self.flush()

    def _begin_line(self, task: Task) -> None:
        """A line of this task's begins, or goes on."""
        if self._open is not None and self._open is not task:
            self._break_off(self._open)
        self._open = None

    def _alone(self, task: Task, text: str) -> None:
        """A line that is no call's."""
        if self._open is not None:
            self._break_off(self._open)
        self._line(task, text)

    def _break_off(self, task: Task) -> None:
        """Something else is to be written while this task's call has not returned."""
        self._open = None
        self._line(task, f"{self._calls[task.tid].entered} <unfinished ...>")

    @staticmethod
    def _signal_line(info: SigInfo) -> str:
        return f"--- {signal_text(info.signal)} {siginfo_text(info.pack())} ---"

    def _tell_late(self, task: Task) -> None:
        for text in self._late.pop(task.tid, ()):
            self._alone(task, text)


def _plain(name: str) -> Spec:
    """A call that is known by name, if at all: its registers."""
    before = tuple((at, PURE["lx"]) for at in range(6))
    return Spec(name, before, (), None, None, None)
