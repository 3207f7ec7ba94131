"""The tracer: lines like ``strace -f`` writes, one a call, with calls broken off where another task comes between."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno
from mmuemu.kernel.abi.signals import Signal
from mmuemu.kernel.syscalls.table import TABLE
from mmuemu.view.strace.calls import SPECS, Spec
from mmuemu.view.strace.special import frame_mask, siginfo_text
from mmuemu.view.strace.values import RESTARTED, STRING_LIMIT, Call, escaped, pointer, quoted, result_text, signal_text
from mmuemu.view.strace.words import MISSING

if TYPE_CHECKING:
    from mmuemu.kernel.signals.pending import SigInfo
    from mmuemu.kernel.syscalls.table import Syscall
    from mmuemu.kernel.task import Task

COLUMN: Final = 40
"""Where results stand (strace's -a default)."""
_HELD: Final = 64
"""Lines that are kept back at most."""
_MOST_KNOWN: Final = 4096
"""Lines of calls without memory that are remembered."""
_SIGRETURN: Final = 15
_EXECVE: Final = 59
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
        self._specs = {
            number: SPECS[call.name] for number, call in TABLE.items() if names is None or call.name in names
        }
        self._calls: dict[int, Call] = {}
        """By thread: the call it is in."""
        self._open: Call | None = None
        """The last one that was called, if nothing has been written since."""
        self._late: dict[int, list[str]] = {}
        """By thread: signals that came, and were ignored, in the middle of its call."""
        self._known: dict[tuple[int, tuple[int, ...], int, int], str] = {}

    # -- what the kernel tells ----------------------------------------------------------------------------------------

    def started(self, task: Task) -> None:
        """The first program: the line of the execve that a real strace would have made."""
        if self._names is None or "execve" in self._names:
            arguments = [quoted(text, self._limit) for text in task.arguments[: self._limit]]
            more = ", ..." if len(task.arguments) > self._limit else ""
            count = len(task.environment)
            place = pointer(task.mm.start_stack + 8 * (len(task.arguments) + 2))
            text = f"execve({escaped(task.exe.encode())}, [{', '.join(arguments)}{more}], {place} /* {count} vars */) "
            self._line(task, f"{text:<{COLUMN}}= 0")

    def enter(self, task: Task, call: Syscall | None, number: int, arguments: tuple[int, ...]) -> None:
        """Note what the call is given, before it changes anything."""
        if self._open is not None and self._open.task is not task:
            self._break_off(self._open)
        if self._late:
            self._tell_late(task)
        if number in _WRITES:
            self.flush()
        spec = self._specs.get(number)
        if spec is None:
            spec = self._unknown(number) if call is None or call.number not in TABLE else None
            if spec is None:
                return
        found = Call(task, number, arguments, self._limit)
        found.spec = spec
        if not spec.pure:
            found.entered = self._entered(found, spec)
        self._calls[task.tid] = self._open = found

    def leave(self, task: Task, call: Syscall | None, number: int, arguments: tuple[int, ...], result: int) -> None:
        """Write the line with its result."""
        found = self._calls.pop(task.tid, None)
        if found is None or task.ended:
            if found is not None:
                self._calls[task.tid] = found
            return
        if self._open is not found:
            if self._open is not None:
                self._break_off(self._open)
        else:
            self._open = None
        spec = found.spec
        assert isinstance(spec, Spec)
        found.result = result
        if spec.pure and not found.split:
            key = (number, arguments, result, self._width(task))
            line = self._known.get(key)
            if line is None:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                line = self._known[key] = self._whole(found, spec)
        else:
            line = self._whole(found, spec)
        self._line(task, line)
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
        found = self._calls.pop(task.tid, None)
        process = task.process
        if found is not None:
            spec = found.spec
            assert isinstance(spec, Spec)
            if self._open is found:
                self._open = None
            elif self._open is not None:
                self._break_off(self._open)
            if not found.split and spec.pure:
                found.entered = self._entered(found, spec)
            text = f"<... {spec.name} resumed>) " if found.split else f"{found.entered.rstrip(', ')}) "
            self._line(task, f"{text:<{COLUMN - self._width(task)}}= ?")
        if self._late:
            self._tell_late(task)
        if process.death is not None and process.group_exit:
            core = " (core dumped)" if process.dumped_core else ""
            text = f"killed by {signal_text(int(process.death.signal))}{core}"
        else:
            own = found is not None and found.number in _EXITS and not process.group_exit
            status = found.args[0] if own and found is not None else process.exit_status or 0
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

    def _entered(self, call: Call, spec: Spec) -> str:
        """The part of the line that is known at the call."""
        if call.number == _SIGRETURN:
            return f"{spec.name}({frame_mask(call)}"
        if spec.keep is not None:
            spec.keep(call)
        args = call.args
        shown = [text for at, show in spec.before if (text := show(call, args[at])) is not None]
        tail = ", " if spec.comma and shown else ""
        return f"{spec.name}({', '.join(shown)}{tail}"

    def _whole(self, call: Call, spec: Spec) -> str:
        """The whole line, or what is left of it after it was broken off; without the task's number."""
        if call.split:
            parts = [f"<... {spec.name} resumed>"]
        elif spec.pure:
            parts = [self._entered(call, spec)]
        else:
            parts = [call.entered]
        failed, first = call.failed, spec.comma
        bare = not spec.before
        for at, show, out, separator in spec.after:
            value = call.args[at]
            text = pointer(value) if out and failed else show(call, value)
            if text is not None:
                if not first and not bare:
                    parts.append(separator)
                parts.append(text)
                first = bare = False
        result = self._result(call, spec)
        text = f"{''.join(parts)}) "
        return f"{text:<{COLUMN - self._width(call.task)}}= {result}"

    def _result(self, call: Call, spec: Spec) -> str:
        result = call.result
        if -4096 < result < 0:
            if result == RESTARTED or result == -Errno.EINTR:
                return _INTERRUPTED.get(spec.name) or str(result_text(RESTARTED))
            return str(result_text(result))
        text = None if spec.result is None else spec.result(call)
        if text is None:
            text = str(result)
        return text if spec.suffix is None else text + spec.suffix(call)

    def _width(self, task: Task) -> int:
        """How wide the task's number stands before the line."""
        if self._numbered:
            return 6
        return 12 if len(task.kernel.tasks) > 1 else 0

    def _line(self, task: Task, text: str) -> None:
        if self._numbered:
            text = f"{task.tid:<5} {text}"
        elif len(task.kernel.tasks) > 1:
            text = f"[pid {task.tid:5}] {text}"
        self._held.append(text + "\n")
        if len(self._held) >= self._most:
            self.flush()

    def _alone(self, task: Task, text: str) -> None:
        """A line that is no call's."""
        if self._open is not None:
            self._break_off(self._open)
        self._line(task, text)

    def _break_off(self, call: Call) -> None:
        """Something else is to be written while this call has not returned."""
        self._open = None
        call.split = True
        spec = call.spec
        assert isinstance(spec, Spec)
        if spec.pure:
            call.entered = self._entered(call, spec)
        self._line(call.task, f"{call.entered} <unfinished ...>")

    @staticmethod
    def _signal_line(info: SigInfo) -> str:
        return f"--- {signal_text(info.signal)} {siginfo_text(info.pack())} ---"

    def _tell_late(self, task: Task) -> None:
        for text in self._late.pop(task.tid, ()):
            self._alone(task, text)


def _plain(name: str) -> Spec:
    """A call that is known by name, if at all: its registers."""
    return Spec(
        name, tuple((at, lambda _call, value: f"{value:#x}") for at in range(6)), (), None, None, True, None, False
    )
