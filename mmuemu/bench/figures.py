"""What was measured: figures by workload and contestant, as JSON and back."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from mmuemu.bench.running import Run
from mmuemu.bench.workloads import ENGINES
from mmuemu.errors import UsageError

VERSION: Final = 1
_MOST: Final = 1e9
"""Seconds; no measurement took as long."""


@dataclass(slots=True)
class Result:
    """What one contestant came to with one workload."""

    status: str = "ok"
    """``ok``, ``wrong`` or ``timeout``."""
    why: str = ""
    cpu: float | None = None
    """Seconds of the whole process, the median."""
    peak: int = 0
    """KiB of resident memory at most."""
    unit: float | None = None
    """Seconds for one unit; None where the difference was lost in noise, too."""
    plain: float | None = None
    """The same without what is measured."""
    units: int = 0
    """What lies between the two counts; 0: the run is looked at as a whole."""
    runs: dict[str, list[float]] = field(default_factory=dict)
    """Seconds of each counted run, by its part: ``full``, ``base``, and ``plain`` and ``plain base``."""

    @property
    def ratio(self) -> float | None:
        """To the plain run."""
        if self.unit is None or self.plain is None:
            return None
        return _ratio(self.rounds(), self.rounds("plain"))

    def rounds(self, part: str = "full") -> list[float]:
        """Seconds of each round, for one unit where units are counted; the start-up is the median of all rounds'."""
        full = self.runs.get(part, [])
        if not self.units:
            return full
        base = self.runs.get("base" if part == "full" else f"{part} base")
        if not base:
            return []
        start = statistics.median(base)
        return [(spent - start) / self.units for spent in full]


def _ratio(one: list[float], other: list[float]) -> float | None:
    """The median of the rounds' ratios: what slows the machine for a while slows both. None: lost in noise."""
    found = [mine / yours for mine, yours in zip(one, other, strict=False) if mine > 0 and yours > 0]
    return statistics.median(found) if len(found) * 2 > len(one) else None


def result(runs: dict[str, list[Run]], units: int | None) -> Result:
    """The figures of ``runs`` (by part), with ``units`` between the two counts; None: as a probe counted them."""
    found = Result(runs={part: [run.cpu for run in group] for part, group in runs.items()})
    full = runs["full"]
    if not full:
        return found
    found.cpu = statistics.median(run.cpu for run in full)
    found.peak = max(run.peak for run in full)
    if "base" in runs:
        found.units = units or full[0].units - runs["base"][0].units
        found.unit = _between(found.runs["full"], found.runs["base"], found.units)
    if "plain" in runs:
        found.plain = _between(found.runs["plain"], found.runs["plain base"], units or 0)
    return found


def _between(full: list[float], base: list[float], units: int) -> float | None:
    spent = statistics.median(full) - statistics.median(base)
    return spent / units if spent > 0 and units > 0 else None


@dataclass(slots=True)
class Row:
    """A workload's results by contestant."""

    name: str
    title: str
    counted: bool
    """Whether it is about a unit, not about the run as a whole."""
    results: dict[str, Result] = field(default_factory=dict)

    def figure(self, name: str) -> float | None:
        """Seconds that a contestant is judged by; None where there are none."""
        found = self.results.get(name)
        if found is None or found.status != "ok":
            return None
        return found.unit if self.counted else found.cpu

    def ratio(self, name: str, other: str) -> float | None:
        """What one takes by what another takes in the same round, the median; None where one of them has no figure."""
        if not self.figure(name) or not self.figure(other):
            return None
        return _ratio(self.results[name].rounds(), self.results[other].rounds())

    def run_ratio(self, name: str, other: str) -> float | None:
        """The same of whole runs, start-up included."""
        runs = [self.results[who].runs.get("full", []) if self.figure(who) else [] for who in (name, other)]
        return _ratio(*runs)

    def fastest(self) -> str | None:
        """The fastest peer."""
        peers = {name: figure for name in self.results if name not in ENGINES and (figure := self.figure(name))}
        return min(peers, key=peers.__getitem__, default=None)


@dataclass(slots=True)
class Measurement:
    """All of one ``mmuemu bench``."""

    machine: dict[str, Any]
    contestants: dict[str, str]
    """Name -> version."""
    absent: dict[str, str]
    """Peers that are not there -> what they are found by."""
    rounds: int
    quick: bool
    rows: list[Row] = field(default_factory=list)
    interrupted: bool = False
    left_out: dict[str, str] = field(default_factory=dict)
    """Workloads whose programs cannot be built here -> the compiler's complaint."""

    def row(self, name: str) -> Row | None:
        """The row of a workload, if it was measured."""
        return next((row for row in self.rows if row.name == name), None)

    def failed(self) -> bool:
        """Whether an engine of mmuemu did something wrong."""
        return any(row.results[name].status != "ok" for row in self.rows for name in ENGINES if name in row.results)

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            "version": VERSION, "machine": self.machine, "contestants": self.contestants, "absent": self.absent,
            "rounds": self.rounds, "quick": self.quick, "interrupted": self.interrupted,
            "left_out": self.left_out,
            "workloads": [
                {
                    "name": row.name, "title": row.title, "counted": row.counted,
                    "results": {name: asdict(found) for name, found in row.results.items()},
                }
                for row in self.rows
            ],
        }  # fmt: skip


def read(path: str) -> Measurement:
    """What ``--json`` wrote. Raises UsageError for a file that is none."""
    try:
        facts = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--from {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"--from {path}: no JSON") from None
    if not isinstance(facts, dict) or facts.get("version") != VERSION:
        raise UsageError(f"--from {path}: no measurement of mmuemu bench, version {VERSION}")
    try:
        rows = [_row(each) for each in _typed(facts["workloads"], list)]
        return Measurement(
            machine=_typed(facts["machine"], dict), contestants=_texts(facts["contestants"]),
            absent=_texts(facts["absent"]), rounds=_typed(facts["rounds"], int), quick=_typed(facts["quick"], bool),
            rows=rows, interrupted=_typed(facts["interrupted"], bool), left_out=_texts(facts["left_out"]),
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise UsageError(f"--from {path}: damaged ({type(error).__name__}: {error})") from None


def _typed(value: Any, *kinds: type) -> Any:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise TypeError(f"{str(value)[:40]!r} is no {kinds[0].__name__}")
    return value


def _texts(value: Any) -> dict[str, str]:
    return {_typed(key, str): _typed(text, str) for key, text in _typed(value, dict).items()}


def _seconds(value: Any) -> float:
    if not 0 <= _typed(value, float, int) < _MOST:
        raise TypeError(f"{str(value)[:40]} is no time")
    return float(value)


def _number(value: Any) -> int:
    if not abs(_typed(value, int)) < _MOST:
        raise TypeError(f"{str(value)[:40]} is no number of units")
    return int(value)


def _some_seconds(value: Any) -> float | None:
    return None if value is None else _seconds(value)


def _row(facts: Any) -> Row:
    results = {}
    for name, found in _typed(facts["results"], dict).items():
        runs = {_typed(part, str): _all_seconds(group) for part, group in _typed(found["runs"], dict).items()}
        results[name] = Result(
            _typed(found["status"], str), _typed(found["why"], str), _some_seconds(found["cpu"]),
            _typed(found["peak"], int), _some_seconds(found["unit"]), _some_seconds(found["plain"]),
            _number(found["units"]), runs,
        )  # fmt: skip
    return Row(_typed(facts["name"], str), _typed(facts["title"], str), _typed(facts["counted"], bool), results)


def _all_seconds(group: Iterable[Any]) -> list[float]:
    return [_seconds(value) for value in _typed(group, list)]
