"""``--strace`` and ``--trace``: what is told while a machine runs, and where to."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, TYPE_CHECKING, Final

from mmuemu.errors import UsageError

if TYPE_CHECKING:
    from mmuemu.machine import Machine

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


def _guarded(file: IO[str], option: str, say: Say) -> Say:
    """``file.write``; when the disk takes no more, that is said once, and the run goes on."""
    broken: list[bool] = []

    def write(text: str) -> None:
        if broken:
            return
        try:
            file.write(text)
        except OSError as error:
            broken.append(True)
            say(f"mmuemu: {option}: {error.strerror}; the trace ends here, the program goes on\n")

    return write


@contextmanager
def call_trace(machine: Machine, options: Namespace, say: Say) -> Iterator[Say]:
    """Trace system calls as ``options`` ask, to the end of the block; what to say other things with meanwhile.

    Raises UsageError for a filter that names no call and for a file that cannot be written.
    """
    if not (options.strace or options.strace_filter is not None or options.strace_file is not None):
        yield say
        return
    from mmuemu.view.strace import Strace, selected

    names = selected(options.strace_filter or "")
    with ExitStack() as stack:
        write, numbered = say, options.strace_file is not None
        if numbered:
            file = _open(options.strace_file, "--strace-file")
            stack.callback(_close, file)
            write = _guarded(file, "--strace-file", say)
        direct = not numbered and sys.stderr.isatty()
        strace = Strace(write, names=names, limit=options.strace_limit, numbered=numbered, direct=direct)
        machine.kernel.tracer = strace
        stack.callback(strace.close)

        def after_lines(text: str) -> None:
            strace.flush()
            say(text)

        yield say if numbered else after_lines


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
        if core is not None and "spec" in kinds:
            from mmuemu.view.symbols import Names
            from mmuemu.view.transient import TransientTracer, header_of

            header = header_of(core, machine.seed, program, arguments)
            stack.callback(TransientTracer(core, Names(machine.kernel), header, say, file).close)
        yield


def _close(file: IO[str]) -> None:
    """Close, whatever the disk says: the tracer has said it already."""
    with suppress(OSError):
        file.close()
