"""``--strace`` and ``--trace``: what is told while a machine runs, and where to."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, TYPE_CHECKING, Final, NamedTuple, cast

from mmuemu import __version__
from mmuemu.errors import UsageError

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task
    from mmuemu.machine import Machine
    from mmuemu.view.transient_file import Header

Say = Callable[[str], object]

RUN_KINDS: Final = ("faults", "tlb", "sched", "signals", "spec")
"""What ``mmuemu run --trace`` knows."""


def parse_kinds(text: str | None, known: Collection[str]) -> set[str]:
    """The names in a comma-separated list. Raises UsageError, listing the ``known`` ones, for any other."""
    kinds = set(filter(None, (text or "").split(",")))
    unknown = kinds - set(known)
    if unknown:
        raise UsageError(f"--trace {text}: {', '.join(sorted(unknown))}? choose from {', '.join(known)}")
    return kinds


def _open(path: str, option: str = "--trace-file") -> IO[str]:
    try:
        return open(path, "w", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror}") from None


class _GuardedFile:
    """A file that never fails: when the disk takes no more, that is said once, and the run goes on."""

    def __init__(self, file: IO[str], say: Say, option: str = "--trace-file") -> None:
        self._file: IO[str] | None = file
        self._say = say
        self._option = option

    def write(self, text: str) -> None:
        """Write, if that still works."""
        self._try(lambda file: file.write(text))

    def flush(self) -> None:
        """Give what is held back to the disk."""
        self._try(lambda file: file.flush())

    def _try(self, action: Callable[[IO[str]], object]) -> None:
        if self._file is not None:
            try:
                action(self._file)
            except OSError as error:
                self._file = None
                self._say(f"mmuemu: {self._option}: {error.strerror}; the trace ends here, the program goes on\n")


class CallTrace(NamedTuple):
    """What the block of :func:`call_trace` needs."""

    say: Say
    """Says other things, in their place between the lines of calls."""
    started: Callable[[Task], object]
    """To be told of the first program before it runs."""


@contextmanager
def call_trace(machine: Machine, options: Namespace, say: Say) -> Iterator[CallTrace]:
    """Trace system calls as ``options`` ask, to the end of the block.

    Raises UsageError for a filter that names no call and for a file that cannot be written.
    """
    if not (options.strace or options.strace_filter is not None or options.strace_file is not None):
        yield CallTrace(say, lambda _task: None)
        return
    from mmuemu.view.strace import Strace, selected

    names = selected(options.strace_filter or "")
    with ExitStack() as stack:
        write, numbered = say, options.strace_file is not None
        if numbered:
            file = _open(options.strace_file, "--strace-file")
            stack.callback(_close, file)
            guarded = _GuardedFile(file, say, "--strace-file")
            write = guarded.write
            stack.callback(guarded.flush)
        direct = not numbered and sys.stderr.isatty()
        strace = Strace(write, names=names, limit=options.strace_limit, numbered=numbered, direct=direct)
        machine.kernel.tracer = strace
        stack.callback(strace.close)

        def after_lines(text: str) -> None:
            strace.flush()
            say(text)

        yield CallTrace(say if numbered else after_lines, strace.started)


@contextmanager
def machine_trace(
    machine: Machine, options: Namespace, program: str, arguments: Sequence[str], say: Say
) -> Iterator[None]:
    """Trace what the machine does as ``options`` ask, to the end of the block.

    Raises UsageError for other kinds of trace, windows of a CPU that does not speculate, a file that cannot be written.
    """
    kinds = parse_kinds(options.trace, RUN_KINDS) or ({"spec"} if options.trace_file is not None else set())
    if not kinds:
        yield
        return
    core = machine.speculation
    if core is None and "spec" in kinds:
        raise UsageError("--trace spec: nothing runs transiently without a CPU model that speculates: give --cpu")
    with ExitStack() as stack:
        file = None if options.trace_file is None else _open(options.trace_file)
        if file is not None:
            stack.callback(_close, file)
        header = _header(machine, program, arguments)
        if file is None or kinds == {"spec"}:
            if core is not None and "spec" in kinds:
                from mmuemu.view.symbols import Names
                from mmuemu.view.transient import TransientTracer

                stack.callback(TransientTracer(core, Names(machine.kernel), header, say, file).close)
            if kinds != {"spec"}:
                from mmuemu.view.machine_trace import MachineTracer, text_of

                tracer = MachineTracer(machine.kernel, kinds, lambda record: say(f"{text_of(record)}\n"))
                stack.callback(tracer.close)
        else:
            stack.callback(_to_file(machine, kinds, header, _GuardedFile(file, say)))
        yield


def _header(machine: Machine, program: str, arguments: Sequence[str]) -> Header:
    """What a trace says first."""
    from mmuemu.view.transient import header_of
    from mmuemu.view.transient_file import Header

    if machine.speculation is not None:
        return header_of(machine.speculation, machine.seed, program, arguments)
    return Header(seed=machine.seed, program=program, arguments=tuple(arguments), mmuemu=__version__)


def _to_file(machine: Machine, kinds: set[str], header: Header, file: _GuardedFile) -> Callable[[], None]:
    """Write events, and windows if they are wanted, to ``file``; what ends the trace."""
    from mmuemu.view.machine_trace import MachineTracer
    from mmuemu.view.transient_file import TraceWriter

    kernel, core = machine.kernel, machine.speculation
    more = {
        "mmu": kernel.cpu.engine.name,
        "layout": kernel.layout.name,
        "clock": "virtual" if kernel.clock.virtual else "host",
    }
    writer = TraceWriter(cast("IO[str]", file), header, [kind for kind in RUN_KINDS if kind in kinds], more)
    tracer = MachineTracer(kernel, kinds, writer.event)
    if core is not None and "spec" in kinds:
        from mmuemu.view.symbols import Names
        from mmuemu.view.transient import annotate

        names = Names(kernel)
        core.on_window = lambda window: writer.window(annotate(window, names))

    def end() -> None:
        tracer.close()
        if core is not None:
            core.on_window = None
        writer.end(0 if core is None else core.cycles, 0 if core is None else core.instructions)

    return end


def _close(file: IO[str]) -> None:
    """Close, whatever the disk says: the tracer has said it already."""
    with suppress(OSError):
        file.close()
