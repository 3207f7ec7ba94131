"""The results of many runs as one page: tables, some of them coloured by their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

from mmuemu.errors import printable
from mmuemu.view.plain_page import page

_STYLE: Final = """\
body{max-width:78rem}td.heat{background:rgba(var(--heat),var(--part));padding-left:.6rem}td.n,th.n{text-align:right}
.summary{display:flex;flex-wrap:wrap;gap:.4rem 2rem;padding:0;list-style:none}.summary b{font-size:1.3rem}
td code{font-size:.8rem}.wide td.long{white-space:normal;min-width:20rem}
"""


@dataclass(slots=True)
class Cell:
    """One cell of a table: a text, and how it is shown. ``heat``, 0 to 1, is how strong its colour is."""

    text: str
    kind: str = ""
    """``yes``, ``no``, ``n`` (a number, aligned to the right), ``long``; several with spaces. Nothing with heat."""
    heat: float | None = None
    code: bool = False

    def html(self) -> str:
        """The cell."""
        shown = escape(printable(self.text))
        if self.code:
            shown = f"<code>{shown}</code>"
        if self.heat is None:
            return f'<td class="{self.kind}">{shown}</td>' if self.kind else f"<td>{shown}</td>"
        # Not the full colour: the text is read through it.
        return f'<td class="heat" style="--part:{self.heat * 0.6:.2f}">{shown}</td>'


@dataclass(slots=True)
class Table:
    """A heading, titles, rows; ``note`` stands below."""

    title: str
    head: Sequence[str]
    rows: list[Sequence[Cell]] = field(default_factory=list)
    note: str = ""

    def html(self) -> str:
        """The table, nothing when it has no rows."""
        if not self.rows:
            return ""
        head = "".join(f"<th>{escape(title)}</th>" for title in self.head)
        body = "".join(f"<tr>{''.join(cell.html() for cell in row)}</tr>\n" for row in self.rows)
        note = f"<p class=dim>{escape(self.note)}</p>\n" if self.note else ""
        return f"<h2>{escape(self.title)}</h2>\n<div class=wide><table>\n<tr>{head}</tr>\n{body}</table></div>\n{note}"


def sweep_page(title: str, counts: Sequence[tuple[str, str]], tables: Sequence[Table]) -> str:
    """The page: ``counts`` are numbers and what they count."""
    listed = "".join(f"<li><b>{escape(number)}</b> {escape(what)}</li>\n" for number, what in counts)
    body = "".join(table.html() for table in tables)
    return page(title, f"<h1>{escape(printable(title))}</h1>\n<ul class=summary>\n{listed}</ul>\n{body}", _STYLE)


__all__ = ["Cell", "Table", "sweep_page"]
