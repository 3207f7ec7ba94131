"""Many demonstrated attacks as tables: attacks by CPUs, attacks by mitigations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mmuemu.view.demonstration import Demonstration

_ROWS: Final = "attack"
"""What the rows are."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run and its place; ``outcome`` is a text when it could not be (and why)."""

    table: str
    attack: str
    column: str
    outcome: Demonstration | str

    @property
    def text(self) -> str:
        """The leak rate, and the cause."""
        if isinstance(self.outcome, str):
            return "n/a"
        cause = self.outcome.cause
        return f"{self.outcome.accuracy:.0%}{f' {cause}' if cause else ''}"

    @property
    def leaks(self) -> bool:
        """Whether at least one byte leaked."""
        return not isinstance(self.outcome, str) and self.outcome.accuracy > 0

    def as_json(self) -> dict[str, Any]:
        """For ``mmuemu demo --matrix --json``; without the long lists of single latencies."""
        place = {"table": self.table, "column": self.column}
        if isinstance(self.outcome, str):
            return {**place, "attack": self.attack, "impossible": self.outcome}
        found = self.outcome.as_json()
        return {**place, **{name: value for name, value in found.items() if name not in ("probes", "histogram")}}


def grids(cells: Sequence[Cell]) -> dict[str, tuple[list[str], dict[str, dict[str, Cell]]]]:
    """By table: its columns, and its rows by attack, in the order of ``cells``."""
    found: dict[str, tuple[list[str], dict[str, dict[str, Cell]]]] = {}
    for cell in cells:
        columns, rows = found.setdefault(cell.table, ([], {}))
        if cell.column not in columns:
            columns.append(cell.column)
        rows.setdefault(cell.attack, {})[cell.column] = cell
    return found


def draw(cells: Sequence[Cell], console: Console) -> None:
    """Print the tables, in parts where the terminal is too narrow."""
    for title, (columns, rows) in grids(cells).items():
        console.print(Text(title, "bold"))
        first = max(map(len, [_ROWS, *rows]))
        while columns:
            count = _fitting(columns, rows, console.width - first - 2)
            _draw_part(first, columns[:count], rows, console)
            columns = columns[count:]
    for line in _impossible(cells):
        console.print(Text(line, "dim"), soft_wrap=True)


def _impossible(cells: Sequence[Cell]) -> list[str]:
    """What could not be, a line for each reason."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        if isinstance(cell.outcome, str) and cell.attack not in found.setdefault(cell.outcome, []):
            found[cell.outcome].append(cell.attack)
    return [f"n/a {why}: {', '.join(attacks)}" for why, attacks in found.items()]


def _width(column: str, rows: dict[str, dict[str, Cell]]) -> int:
    return max([len(column), *(len(row[column].text) for row in rows.values() if column in row)]) + 2


def _fitting(columns: list[str], rows: dict[str, dict[str, Cell]], room: int) -> int:
    """How many columns fit into ``room``, at least one."""
    count = 0
    for column in columns:
        room -= _width(column, rows)
        if room < 0:
            break
        count += 1
    return max(1, count)


def _draw_part(first: int, columns: list[str], rows: dict[str, dict[str, Cell]], console: Console) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(_ROWS, no_wrap=True, min_width=first)
    for column in columns:
        table.add_column(column, no_wrap=True, min_width=_width(column, rows) - 2)
    for name, row in rows.items():
        shown = [row.get(column) for column in columns]
        table.add_row(name, *[Text("" if cell is None else cell.text, _style(cell)) for cell in shown])
    console.print(table)
    console.print()


def _style(cell: Cell | None) -> str:
    return "yellow" if cell is not None and cell.leaks else "dim"


def as_texts(cells: Sequence[Cell]) -> list[tuple[str, list[list[str]]]]:
    """The tables as rows of texts, titles first."""
    found = []
    for title, (columns, rows) in grids(cells).items():
        body = [
            [name, *(row[column].text if column in row else "" for column in columns)] for name, row in rows.items()
        ]
        found.append((title, [[_ROWS, *columns], *body]))
    return found
