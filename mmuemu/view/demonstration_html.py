"""A demonstrated attack, or a table of many, as one page that needs nothing else."""

from __future__ import annotations

from html import escape
from typing import Final

from mmuemu.guest.attacks import ATTACKS
from mmuemu.view.demonstration import Demonstration
from mmuemu.view.demonstration_text import buckets, facts, verdict
from mmuemu.view.plain_page import page as plain_page

_WIDTH: Final = 800
_HEIGHT: Final = 200
_LEFT: Final = 36


def page(shown: Demonstration) -> str:
    """The page of one attack."""
    title = f"{shown.attack} on {shown.cpu}, mitigations {shown.mitigations}"
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>\n" for name, text in facts(shown))
    kind = "no" if shown.exit_code else "yes"
    body = (
        f"<h1>{escape(ATTACKS[shown.attack].title)}</h1>\n"
        f'<p class="{kind}">{escape(verdict(shown))}</p>\n<table>\n{rows}</table>\n'
        f"{_probes(shown)}{_histogram(shown)}"
    )
    return plain_page(title, body)


def _probes(shown: Demonstration) -> str:
    probes, threshold = shown.told.probes, shown.told.threshold
    if not probes:
        return ""
    note = f"A bar is the time of one reload, in cycles. Bars below the line ({threshold}) were in the cache."
    return f"<h2>The last reloads for the first byte</h2>\n{_bars(probes, threshold)}<p class=dim>{note}</p>\n"


def _histogram(shown: Demonstration) -> str:
    found, threshold = shown.told.histogram, shown.told.threshold
    if not found:
        return ""
    rows = "".join(
        f'<tr><td>{least} to {greatest}</td><td class="{"yes" if least < threshold else ""}">{count}</td>'
        f"<td>{'hit' if least < threshold else ''}</td></tr>\n"
        for least, greatest, count in buckets(shown, 40)
    )
    return f"<h2>All reloads</h2>\n<table><tr><th>cycles</th><th>how many</th><th></th></tr>\n{rows}</table>\n"


def _bars(values: list[int], threshold: int) -> str:
    """Bars side by side; the line is at ``threshold``."""
    most = max(*values, threshold, 1)
    step = (_WIDTH - _LEFT) / len(values)
    scale = _HEIGHT / most
    bars = []
    for at, value in enumerate(values):
        height = max(1.0, value * scale)
        kind = "hit" if value < threshold else "miss"
        bars.append(
            f'<rect class="{kind}" x="{_LEFT + at * step:.1f}" y="{_HEIGHT - height:.1f}" '
            f'width="{max(step - 0.6, 0.6):.1f}" height="{height:.1f}"><title>{at:#04x}: {value} cycles</title></rect>'
        )
    line = _HEIGHT - threshold * scale
    marks = "".join(
        f'<text x="{_LEFT + at * step:.1f}" y="{_HEIGHT + 14}">{at:#04x}</text>' for at in range(0, len(values), 32)
    )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 20}" role="img" aria-label="cycles of each reload">{"".join(bars)}'
        f'<line class="line" x1="{_LEFT}" x2="{_WIDTH}" y1="{line:.1f}" y2="{line:.1f}"/>'
        f'<text x="0" y="10">{most}</text><text x="0" y="{line + 4:.1f}">{threshold}</text>{marks}</svg>\n'
    )


def table_page(title: str, tables: list[tuple[str, list[list[str]]]]) -> str:
    """The page of a matrix: (heading, rows of cells, the first row and column being titles) of each table."""
    parts = [f"<h1>{escape(title)}</h1>\n"]
    for heading, (head, *rows) in tables:
        parts.append(f"<h2>{escape(heading)}</h2>\n<div class=wide><table>\n<tr>")
        parts += [f"<th>{escape(cell)}</th>" for cell in head]
        parts.append("</tr>\n")
        for name, *cells in rows:
            parts.append(f"<tr><th>{escape(name)}</th>")
            parts += [
                f'<td class="{"yes" if cell[:1].isdigit() and cell[:2] != "0%" else ""}">{escape(cell)}</td>'
                for cell in cells
            ]
            parts.append("</tr>\n")
        parts.append("</table></div>\n")
    return plain_page(title, "".join(parts))
