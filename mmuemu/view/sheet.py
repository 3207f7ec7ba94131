"""Tables of text: aligned columns for pipes and files, colours besides on a terminal."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import IO, Final

_UNITS: Final = ("K", "M", "G", "T", "P", "E")


def human(count: int) -> str:
    """Bytes as ``4K``, ``1.5M``, ``2G``: units of 1,024, one digit behind the point where it is not zero."""
    if count < 1024:
        return str(count)
    value, unit = count / 1024, 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    text = f"{int(value * 10) / 10:.1f}"
    return f"{text.removesuffix('.0')}{_UNITS[unit]}"


@dataclass(slots=True)
class Sheet:
    """A table: ``columns`` are titles, with ``>`` before those that are aligned to the right."""

    columns: Sequence[str]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)
    """A row's style in rich's words; empty for none."""

    def add(self, *cells: str, style: str = "") -> None:
        """One more row."""
        self.rows.append(cells)
        self.styles.append(style)

    def _lines(self) -> Iterable[tuple[str, str]]:
        """(text, style) of each line; the first is the titles."""
        titles = tuple(title.removeprefix(">") for title in self.columns)
        widths = [max(map(len, cells)) for cells in zip(titles, *self.rows, strict=True)]
        for row, style in zip([titles, *self.rows], ["bold", *self.styles], strict=True):
            cells = [
                cell.rjust(width) if title.startswith(">") else cell.ljust(width)
                for title, cell, width in zip(self.columns, row, widths, strict=True)
            ]
            yield "  ".join(cells).rstrip(), style

    def text(self) -> str:
        """The table, a line each."""
        return "".join(f"{line}\n" for line, _ in self._lines())


def show(parts: Iterable[str | Sheet], file: IO[str] | None = None) -> None:
    """Print texts and tables; in colour, by rich, where ``file`` (standard output) is a terminal."""
    file = sys.stdout if file is None else file
    if isinstance(file, io.TextIOWrapper):
        file.reconfigure(errors="backslashreplace")
    if not file.isatty():
        file.write("".join(part if isinstance(part, str) else part.text() for part in parts))
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=file, highlight=False)
    for part in parts:
        lines = [(line, "") for line in part.splitlines()] if isinstance(part, str) else part._lines()
        for line, style in lines:
            console.print(Text(line, style=style), soft_wrap=True)


__all__ = ["Sheet", "human", "show"]
