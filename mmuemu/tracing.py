"""``--trace``: what is printed while a machine runs."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, TYPE_CHECKING, Final

from mmuemu.errors import UsageError

if TYPE_CHECKING:
    from mmuemu.machine import Machine

RUN_KINDS: Final = ("spec",)
"""What ``mmuemu run --trace`` knows."""


def parse_kinds(text: str | None, known: Collection[str]) -> set[str]:
    """The names in a comma-separated list. Raises UsageError, listing the ``known`` ones, for any other."""
    kinds = set(filter(None, (text or "").split(",")))
    unknown = kinds - set(known)
    if unknown:
        raise UsageError(f"--trace {text}: {', '.join(sorted(unknown))}? choose from {', '.join(known)}")
    return kinds


def _open(path: str) -> IO[str]:
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--trace-file {path}: {error.strerror}") from None


@contextmanager
def transient_trace(
    machine: Machine, options: Namespace, program: str, arguments: Sequence[str], say: Callable[[str], object]
) -> Iterator[None]:
    """Trace the machine's transient windows as ``options`` ask, to the end of the block.

    Raises UsageError for other kinds of trace, a CPU that does not speculate, a file that cannot be written.
    """
    if not parse_kinds(options.trace, RUN_KINDS) and options.trace_file is None:
        yield
        return
    core = machine.speculation
    if core is None:
        raise UsageError("--trace spec: nothing runs transiently without a CPU model that speculates: give --cpu")
    with ExitStack() as stack:
        file = None if options.trace_file is None else _open(options.trace_file)
        if file is not None:
            stack.callback(_close, file)
        from mmuemu.view.symbols import Names
        from mmuemu.view.transient import TransientTracer, header_of

        header = header_of(core, machine.seed, program, arguments)
        stack.callback(TransientTracer(core, Names(machine.kernel), header, say, file).close)
        yield


def _close(file: IO[str]) -> None:
    """Close, whatever the disk says: the tracer has said it already."""
    with suppress(OSError):
        file.close()
