"""What mmuemu wants to be measured by, and whether it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from mmuemu.bench.figures import Measurement, Row
from mmuemu.bench.workloads import ENGINES

_AHEAD: Final = {"start-up": 1.5, "syscalls": 5.0, "fork": 4.0, "execve": 2.0}
"""How many times faster than Qiling each is to be."""
_COMPUTATION: Final = ("sha256", "mandelbrot")
_NEAR: Final = 1.05
"""How many times bare Unicorn's a computation may take."""
_PEER: Final = "qiling"


class Goal(NamedTuple):
    """One goal."""

    text: str
    met: bool | None
    """None: there are no figures for it."""
    figures: str
    """What was measured, or why nothing was."""


def goals(found: Measurement) -> list[Goal]:
    """All of them. Every engine that was measured has to meet a goal."""
    return [*_ahead(found), _everywhere(found), _correct(found), *_computation(found)]


def _engines(row: Row) -> list[str]:
    return [name for name in ENGINES if name in row.results]


def _judged(text: str, ratios: dict[str, float | None], met: bool, missing: str) -> Goal:
    """A goal by its engines' ratios."""
    if not ratios or None in ratios.values():
        return Goal(text, None, missing)
    return Goal(text, met, ", ".join(f"{name} {ratio:.2f}x" for name, ratio in ratios.items()))


def _ahead(found: Measurement) -> Iterator[Goal]:
    for name, least in _AHEAD.items():
        row = found.row(name)
        ratios = {} if row is None else {engine: row.ratio(_PEER, engine) for engine in _engines(row)}
        met = all((ratio or 0) >= least for ratio in ratios.values())
        yield _judged(f"{name}: {least:g} times as fast as Qiling", ratios, met, _missing(row, _PEER))


def _computation(found: Measurement) -> Iterator[Goal]:
    for name in _COMPUTATION:
        row = found.row(name)
        ratios = {} if row is None else {engine: row.ratio(engine, "bare") for engine in _engines(row)}
        met = all((ratio or _NEAR + 1) <= _NEAR for ratio in ratios.values())
        yield _judged(f"{name}: within 5 % of bare Unicorn", ratios, met, _missing(row, "bare"))


def _missing(row: Row | None, peer: str) -> str:
    if row is None or peer not in row.results:
        return "not measured"
    wrong = [f"{name}: {result.status}" for name, result in row.results.items() if result.status != "ok"]
    return ", ".join(wrong) or "lost in noise"


def _everywhere(found: Measurement) -> Goal:
    """Ahead wherever Qiling comes to an end, as whole runs go; what they do after their start-up is told, too."""
    text = "ahead of Qiling wherever it completes, as runs"
    ratios = [
        (ratio, row, engine)
        for row in found.rows
        for engine in _engines(row)
        if (ratio := row.run_ratio(_PEER, engine)) is not None
    ]
    if not ratios:
        return Goal(text, None, "not measured")
    least, row, engine = min(ratios, key=lambda each: each[0])
    unit = row.ratio(_PEER, engine)
    told = f" ({unit:.2f}x a unit)" if unit is not None and row.counted else ""
    count = len({row.name for _, row, _ in ratios})
    return Goal(text, least > 1, f"least on {row.name}, {engine}: {least:.2f}x{told}, of {count} workloads")


def _correct(found: Measurement) -> Goal:
    """Right wherever Qiling is wrong or does not end."""
    text = "correct where Qiling is wrong or does not finish"
    rows = [row for row in found.rows if _PEER in row.results]
    if not rows:
        return Goal(text, None, "not measured")
    wrong = [row for row in rows if row.results[_PEER].status != "ok"]
    if not wrong:
        return Goal(text, None, "it was never wrong")
    ours = [row.name for row in wrong if any(row.results[engine].status != "ok" for engine in _engines(row))]
    named = ", ".join(f"{row.name} ({row.results[_PEER].status})" for row in wrong)
    return Goal(text, not ours, f"nor is mmuemu right: {', '.join(ours)}" if ours else f"Qiling: {named}")
