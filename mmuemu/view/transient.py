"""Transient windows as they happen: ``--trace spec``, in lines for people or as JSON lines in a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Final, Protocol

from mmuemu import __version__
from mmuemu.cpu.decode import accesses
from mmuemu.errors import printable
from mmuemu.speculation.trace import NEVER, Window
from mmuemu.view.listing import instruction_length, named, references
from mmuemu.view.transient_file import Header, Traced, TraceWriter

if TYPE_CHECKING:
    from mmuemu.speculation.models import CpuSpec
    from mmuemu.view.symbols import Names

_FREE: Final = frozenset({"rsp", "rip"})
LEVELS: Final = {1: "L1", 2: "L2", 3: "L3", 4: "memory"}


class Speculating(Protocol):
    """What is asked of the speculation core."""

    on_window: Callable[[Window], None] | None

    @property
    def spec(self) -> CpuSpec:
        """The CPU model."""

    @property
    def flaws(self) -> frozenset[str]:
        """The flaws in force."""

    @property
    def mitigations(self) -> frozenset[str]:
        """The mitigations in force."""

    @property
    def cycles(self) -> int:
        """Modelled cycles so far."""

    @property
    def instructions(self) -> int:
        """Instructions so far."""


def header_of(core: Speculating, seed: int | None, program: str, arguments: Sequence[str]) -> Header:
    """What a trace of ``core``'s run says at its beginning."""
    return Header(
        cpu=core.spec.name,
        mitigations=tuple(sorted(core.mitigations)),
        flaws=tuple(sorted(core.flaws)),
        seed=seed,
        program=program,
        arguments=tuple(arguments),
        mmuemu=__version__,
    )


def with_waits(window: Window) -> Window:
    """The window with what each instruction waited for worked out from registers, where the record does not say.

    The stack pointer is left out: push, pop, call and ret find it ready (the stack engine).
    """
    if any(step.waits_for for step in window.steps):
        return window
    writers: dict[str, int] = {}
    steps = []
    for step in window.steps:
        what = accesses(step.code)
        waits = sorted({writers[register] for register in what.reads if register in writers})
        steps.append(replace(step, waits_for=tuple(waits)))
        writers.update(dict.fromkeys(what.writes - _FREE, step.address))
    return replace(window, steps=steps, waited_for=tuple(address for address in window.waited_for if address))


def annotate(window: Window, names: Names) -> Traced:
    """The window with names and instructions for the addresses in it, as memory is now."""
    context = window.context
    window = with_waits(window)
    traced = Traced(window)
    steps = [*window.before, *window.steps]
    inside = {step.address: step.code for step in steps}
    outside = {window.opener, *window.waited_for, *(one for step in steps for one in step.waits_for)} - inside.keys()
    for address in sorted(outside):
        code = names.code(context, address)
        length = instruction_length(code, address)
        if length:
            traced.code[address] = code[:length]
    executed = inside.keys() | outside | {window.start, window.resumed, *(address for address, _ in window.nested)}
    data = {fill.linear for fill in window.fills} | {step.linear for step in steps if step.linear is not None}
    mentioned: set[int] = set()
    for codes in (inside, traced.code):
        for address, code in codes.items():
            mentioned.update(references(code, address))
    for addresses, ask in ((executed | mentioned, names.symbol), (data, names.place)):
        for address in addresses:
            name = ask(context, address)
            if name:
                traced.symbols[address] = printable(name)
    return traced


def where(traced: Traced, address: int) -> str:
    """An address by name where it has one."""
    return printable(traced.symbols.get(address, "")) or hex(address)


def instruction(traced: Traced, address: int) -> str:
    """The instruction at an address, with names; empty when the trace does not hold it."""
    code = traced.instruction(address)
    return named(code, address, traced.symbols) if code else ""


def span(cycles: int) -> str:
    """A number of cycles in words; NEVER's are not a number."""
    return "?" if cycles >= NEVER >> 1 else f"{cycles:,}"


def head_line(traced: Traced) -> str:
    """A window in one line."""
    window = traced.window
    text = instruction(traced, window.opener)
    causes = sorted({" > ".join(fill.causes) for fill in window.fills})
    return (
        f"window {window.number}: {printable(window.flaw)} at {where(traced, window.opener)}"
        f"{f' ({text})' if text else ''}, cycle {window.opened} for {span(window.closes - window.opened)}, "
        f"ring {window.ring}, pid {window.context}, {len(window.steps)} instructions, {len(window.fills)} fills"
        f"{f' ({printable(chr(44).join(causes))})' if causes else ''}, closed: {printable(window.reason)}"
    )


def lines(traced: Traced) -> Iterator[str]:
    """A window as lines of text: what opened it, what it waited for, what ran inside, what it filled."""
    window = traced.window
    yield head_line(traced)
    for address in window.waited_for:
        yield f"  waited for {where(traced, address)}: {instruction(traced, address) or '?'}"
    for step in window.steps:
        begins = f"+{step.start - window.opened}" if step.start < NEVER else "never"
        took = f"{step.done - step.start}" if step.done < NEVER else "-"
        text = named(step.code, step.address, traced.symbols)
        note = f"  [{printable(step.note)}]" if step.note else ""
        yield f"  {begins:>7} {took:>4}  {where(traced, step.address)}: {text}{note}"
    for address, flaw in window.nested:
        yield f"  nested {printable(flaw)} at {where(traced, address)}"
    for fill in window.fills:
        at = f"at +{fill.cycle - window.opened} by {where(traced, fill.address)}"
        place = f"{where(traced, fill.linear)} (line {fill.line:#x})"
        cause = printable(" > ".join(fill.causes))
        yield f"  fill {place} from {LEVELS.get(fill.level, fill.level)} {at}, cause {cause}"
    yield f"  goes on at {where(traced, window.resumed)}"


class TransientTracer:
    """Puts each window of ``core`` out when it closes; keeps none. ``say`` writes to standard error.

    With ``file`` (open for text) JSON lines go there. A file that can be written no more ends the trace, not the run.
    """

    def __init__(
        self, core: Speculating, names: Names, header: Header, say: Callable[[str], object], file: IO[str] | None = None
    ) -> None:
        self._core = core
        self._names = names
        self._say = say
        self._file = file
        self._writer: TraceWriter | None = None
        if file is not None:
            self._guard(lambda: self._begin(file, header))
        core.on_window = self._window if file is None or self._writer is not None else None

    def _begin(self, file: IO[str], header: Header) -> None:
        self._writer = TraceWriter(file, header)

    def _window(self, window: Window) -> None:
        traced = annotate(window, self._names)
        writer = self._writer
        if writer is not None:
            self._guard(lambda: writer.window(traced))
        else:
            self._say("".join(f"spec: {line}\n" for line in lines(traced)))

    def _guard(self, write: Callable[[], object]) -> None:
        try:
            write()
        except OSError as error:
            self._core.on_window = self._writer = None
            self._say(f"mmuemu: --trace-file: {error.strerror}; the trace ends here, the program goes on\n")

    def close(self) -> None:
        """Write the end of the trace and stop tracing."""
        self._core.on_window = None
        writer, core = self._writer, self._core
        if writer is not None:
            self._guard(lambda: writer.end(core.cycles, core.instructions))
        self._writer = None
