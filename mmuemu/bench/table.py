"""The measurement as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mmuemu.bench.figures import Measurement, Row
from mmuemu.bench.goals import Goal, goals
from mmuemu.bench.workloads import ENGINES
from mmuemu.errors import printable
from mmuemu.view.sheet import Sheet

_SCALES: Final = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
WORDS: Final = {True: "met", False: "not met", None: "-"}
"""Of a goal."""
_STYLES: Final = {True: "green", False: "red", None: ""}


def duration(seconds: float | None) -> str:
    """Three digits and a unit; nothing was measurable: ``noise``."""
    if seconds is None:
        return "noise"
    scale, unit = next((each for each in _SCALES if seconds >= each[0]), _SCALES[-1])
    value = seconds / scale
    return f"{value:.{0 if value >= 99.5 else 1 if value >= 9.95 else 2}f} {unit}"


def cell(row: Row, name: str) -> str:
    """What a contestant came to, or how it failed; a dash when it does not take part."""
    found = row.results.get(name)
    if found is None:
        return "-"
    if found.status != "ok":
        return printable(found.status)
    return duration(found.unit if row.counted else found.cpu)


def ratio(value: float | None) -> str:
    """``x`` behind a factor."""
    return "-" if value is None else f"{value:.2f}x"


def names(found: Measurement) -> list[str]:
    """Contestants that took part in anything, engines first."""
    taking_part = {name for row in found.rows for name in row.results}
    return [name for name in found.contestants if name in taking_part]


def cells(found: Measurement) -> tuple[list[str], list[list[str]]]:
    """(titles, rows): a figure for each contestant, ratios of each engine to bare Unicorn and to the fastest peer."""
    who = names(found)
    compared = [name for name in ENGINES if name in who] if set(who) - set(ENGINES) else []
    titles = ["workload", *who, *(f"{name}/bare" for name in compared), *(f"{name}/best" for name in compared)]
    rows = []
    for row in found.rows:
        best = row.fastest()
        rows.append(
            [printable(row.name), *(cell(row, name) for name in who)]
            + [ratio(row.ratio(name, "bare")) for name in compared]
            + [ratio(row.ratio(name, best) if best else None) for name in compared]
        )
    return titles, rows


def parts(found: Measurement) -> Iterator[str | Sheet]:
    """All that is shown: whole lines, and tables."""
    titles, rows = cells(found)
    if rows:
        rounds = f"{found.rounds} round{'s' * (found.rounds != 1)}"
        yield f"CPU time of a unit (mmuemu bench --list), start-up subtracted; median of {rounds}\n"
        if len(titles) > len(names(found)) + 1:
            yield "Ratios of the same round, the median: to bare Unicorn, and to the fastest of the peers (best)\n"
        yield "\n"
        sheet = Sheet([titles[0], *(f">{title}" for title in titles[1:])])
        for cells_ in rows:
            sheet.add(*cells_)
        yield sheet
    notes = [*rates(found), *failures(found)]
    notes += [f"not here: {', '.join(f'{name} ({by})' for name, by in found.absent.items())}"] if found.absent else []
    notes += [f"left out: {name} ({printable(why)})" for name, why in found.left_out.items()]
    notes += ["stopped: what is shown was complete"] if found.interrupted else []
    if notes:
        yield "\n" + "".join(f"{line}\n" for line in notes)
    yield from _goals([goal for goal in goals(found) if goal.figures != "not measured"])


def rates(found: Measurement) -> list[str]:
    """A line for each workload that is compared with the run without, and for each that leaks."""
    lines = []
    for row in found.rows:
        shown = [f"{name} {ratio(result.ratio)}" for name, result in row.results.items() if result.ratio]
        if shown:
            lines.append(f"{row.name}: {row.title}, to getpid without: {', '.join(shown)}")
        figure = row.figure("python")
        if row.name.startswith("leak-") and figure:
            lines.append(f"{row.name}: {1 / figure:.1f} bytes in a CPU second")
    return lines


def failures(found: Measurement) -> list[str]:
    """A line for each contestant that was wrong or did not end."""
    return [
        f"{row.name}, {name}: {result.status}: {printable(result.why)}"
        for row in found.rows
        for name, result in row.results.items()
        if result.status != "ok"
    ]


def _goals(measured: list[Goal]) -> Iterator[str | Sheet]:
    if measured:
        yield "\nGoals\n"
        sheet = Sheet(["goal", "", "measured"])
        for goal in measured:
            sheet.add(goal.text, WORDS[goal.met], goal.figures, style=_STYLES[goal.met])
        yield sheet
