"""``mmuemu explain``: a saved trace of transient windows as a list or as the picture of one."""

from __future__ import annotations

import io
import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from mmuemu.errors import UsageError, printable
from mmuemu.view.timeline import MOST_ROWS, Picture, picture
from mmuemu.view.transient import head_line
from mmuemu.view.transient_file import Header, Traced, TraceReader
from mmuemu.view.transient_rows import interest

if TYPE_CHECKING:
    from rich.console import Console


def explain(options: Namespace) -> int:
    """Show what ``options`` (of the command line) ask of a trace; the exit code. Raises BadTrace and UsageError."""
    from rich.console import Console

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    console = Console(width=options.width, highlight=False, soft_wrap=False)
    with TraceReader(options.trace) as reader:
        if options.list:
            found = [head_line(traced) for traced in reader]
            _say(console, "\n".join([_of(reader.header), *found]))
            return 0
        chosen = _choose(reader, options.window)
        header = reader.header
    shown = picture(chosen, None if options.all else MOST_ROWS)
    _say(console, _of(header))
    from mmuemu.view.timeline_text import draw

    draw(shown, console)
    if options.svg is not None:
        _save(shown, header, options.svg)
    return 0


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)


def _of(header: Header) -> str:
    """The run a trace is of, in a line."""
    mitigations = ",".join(header.mitigations) or "off"
    seed = "" if header.seed is None else f", seed {header.seed}"
    return printable(f"{header.program}: cpu {header.cpu}, mitigations {mitigations}{seed}")


def _choose(reader: TraceReader, number: int | None) -> Traced:
    """The window ``number``, or the one with the most to see; the whole file is read, so a damaged one is refused."""
    best: Traced | None = None
    most = (False, False, False, False, -1 << 60)
    count = 0
    for traced in reader:
        count += 1
        if number is not None:
            best = traced if traced.window.number == number else best
        elif (found := interest(traced)) > most:
            best, most = traced, found
    if best is None and number is not None:
        raise UsageError(f"--window {number}: the trace has {count} windows and none with that number (see --list)")
    if best is None:
        raise UsageError("the trace holds no window: nothing ran transiently")
    return best


def _save(shown: Picture, header: Header, path: str) -> None:
    from mmuemu.view.timeline_svg import svg

    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(svg(shown, _of(header)))
    except OSError as error:
        raise UsageError(f"--svg {path}: {error.strerror}") from None
