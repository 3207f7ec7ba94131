"""What the results of a sweep come to: counts, failures, points, leak rates, entropy."""

from __future__ import annotations

import csv
import json
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from math import expm1, log1p
from typing import IO, Any, Final

from mmuemu.kernel.abi.signals import signal_name
from mmuemu.sweep.cells import ATTACK, DONE, ERROR, IMPOSSIBLE, LAB, LOST, PROGRAM, Cell, digest_of
from mmuemu.sweep.plan import Plan
from mmuemu.sweep.store import Store
from mmuemu.view.maps import varied_bits

JSON_VERSION: Final = 1
MOST_FAILURES: Final = 200
MOST_RESULTS: Final = 2000
_MOST_INPUT: Final = 200
_DROPPED: Final = ("stdout", "stderr")
_LIMITS: Final = {"timeout": "stopped by the time limit", "instructions": "stopped by the limit of instructions"}


@dataclass(slots=True)
class Leaks:
    """Of one attack on one CPU under one set of mitigations, over all seeds."""

    leaked: int = 0
    asked: int = 0
    per_cpu: list[float] = field(default_factory=list)
    per_virtual: list[float] = field(default_factory=list)
    causes: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """The part of the secret that leaked, 0 to 1."""
        return self.leaked / self.asked

    def add(self, other: Leaks) -> None:
        """Count what ``other`` counts, too."""
        self.leaked += other.leaked
        self.asked += other.asked
        self.per_cpu += other.per_cpu
        self.per_virtual += other.per_virtual
        self.causes += other.causes


@dataclass(slots=True)
class Places:
    """Where one region lay, over all seeds."""

    possible: float
    distances: set[int] = field(default_factory=set)
    seeds: set[int] = field(default_factory=set)

    @property
    def expected(self) -> float:
        """How many different places that many draws find on average, if all are equally likely."""
        count = 2.0**self.possible
        return count * -expm1(len(self.seeds) * log1p(-1 / count)) if count > 1 else 1.0

    @property
    def varied(self) -> int:
        """Bits that were seen to vary."""
        return varied_bits(self.distances)


@dataclass(slots=True)
class Submission:
    """The points of one program, over all its tests and cells."""

    tests: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By test: the least points of its cells, and the most there are."""
    cells: int = 0
    failed: int = 0
    why: str = ""
    """What is wrong with the first cell that failed."""

    @property
    def points(self) -> int:
        """A test counts when all its cells are as expected."""
        return sum(points for points, _ in self.tests.values())

    @property
    def max(self) -> int:
        """To be had."""
        return sum(most for _, most in self.tests.values())


@dataclass(slots=True)
class Failure:
    """Cells of one program that fail in the same way."""

    seed: int | None
    """The first cell's."""
    command: str
    """Repeats that one."""
    cells: int = 0


@dataclass(slots=True)
class Summary:
    """All of it. Keys of ``leaks`` are attack, CPU and mitigations; of ``places`` layout, region and possible bits."""

    planned: int
    states: Counter[str] = field(default_factory=Counter)
    right: int = 0
    wrong: int = 0
    failures: dict[tuple[str, str, str], Failure] = field(default_factory=dict)
    """By program, test, and what is wrong."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """The first results."""
    submissions: dict[str, Submission] = field(default_factory=dict)
    leaks: dict[tuple[str, str, str], Leaks] = field(default_factory=dict)
    places: dict[tuple[str, str, float], Places] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    impossible: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        """Cells that are lost, had an error, or are not as expected."""
        return self.wrong + self.states[LOST] + self.states[ERROR]

    @property
    def there(self) -> int:
        """Cells that have a result."""
        return sum(self.states.values())

    def facts(self) -> dict[str, Any]:
        """For JSON (docs/reference-sweep.md)."""
        return {
            "version": JSON_VERSION,
            "cells": self.planned,
            "states": {name: self.states[name] for name in (DONE, ERROR, LOST, IMPOSSIBLE)},
            "missing": self.planned - self.there,
            "as_expected": self.right,
            "not_as_expected": self.wrong,
            "cpu_seconds": round(self.cpu_seconds, 3),
            "impossible": dict(self.impossible),
            "failures": [
                {"program": program, "test": test, "why": why, "cells": each.cells, "seed": each.seed,
                 "command": each.command}
                for (program, test, why), each in islice(self.failures.items(), MOST_FAILURES)
            ],
            "submissions": [
                {"program": name, "points": each.points, "max": each.max, "cells": each.cells, "failed": each.failed}
                for name, each in self.submissions.items()
            ],
            "leaks": [
                {
                    "attack": attack, "cpu": cpu, "mitigations": mitigations, "leaked": each.leaked,
                    "asked": each.asked,
                    "rate": round(each.rate, 4), "bytes_per_cpu_second": _mean(each.per_cpu),
                    "bytes_per_virtual_second": _mean(each.per_virtual), "causes": dict(each.causes),
                }
                for (attack, cpu, mitigations), each in self.leaks.items()
            ],
            "entropy": [
                {
                    "layout": layout, "region": region, "possible_bits": possible, "varied_bits": each.varied,
                    "seeds": len(each.seeds), "different": len(each.distances),
                    "expected_different": round(each.expected, 2),
                }
                for (layout, region, possible), each in self.places.items()
            ],
        }  # fmt: skip


def _mean(values: list[float]) -> float:
    return round(sum(values) / len(values), 3) if values else 0.0


def summarize(plan: Plan, store: Store) -> Summary:
    """What the results in ``store`` of the cells of ``plan`` come to."""
    found = Summary(len(plan.cells))
    cells = {cell.key: cell for cell in plan.cells}
    for row in store.rows(cells):
        _add(found, plan, cells[row["key"]], row)
    for key, region, _, distance, possible in store.all_bases():
        cell = cells.get(key)
        if (
            cell is not None
            and distance is not None
            and cell.layout is not None
            and cell.seed is not None
            and cell.aslr
        ):
            place = found.places.setdefault((cell.layout.name, region, possible), Places(possible))
            place.distances.add(distance)
            place.seeds.add(cell.seed)
    order = list(plan.facts["layouts"])
    found.places = dict(sorted(found.places.items(), key=lambda item: (order.index(item[0][0]), *item[0][1:])))
    return found


def _add(found: Summary, plan: Plan, cell: Cell, row: dict[str, Any]) -> None:
    state, matches = row["state"], row["matches"]
    found.states[state] += 1
    found.cpu_seconds += row["cpu_seconds"] or 0.0
    if state == DONE:
        found.right += bool(matches)
        found.wrong += matches == 0
    elif state not in (ERROR, LOST):
        found.impossible[row["error"]] += 1
        return
    why = why_not(cell, row) if matches == 0 or state != DONE else ""
    short = {name: value for name, value in row.items() if name not in _DROPPED}
    if why:
        same = (row["program"], row["test"], why)
        if same not in found.failures:
            found.failures[same] = Failure(cell.seed, command(plan, cell))
        found.failures[same].cells += 1
    if len(found.rows) < MOST_RESULTS:
        found.rows.append({**short, "why": why})
    if cell.program.kind == ATTACK and state == DONE:
        _add_leak(found, row)
    if cell.program.kind == LAB or (cell.program.kind == PROGRAM and cell.program.expected.given):
        _add_points(found, cell, row, why)


def _add_leak(found: Summary, row: Mapping[str, Any]) -> None:
    one = Leaks(row["leaked"], row["asked"], [row["bytes_per_cpu_second"]], [row["bytes_per_virtual_second"]])
    one.causes.update([row["cause"]] if row["cause"] else [])
    found.leaks.setdefault((row["program"], row["cpu"], row["mitigations"]), Leaks()).add(one)


def _add_points(found: Summary, cell: Cell, row: Mapping[str, Any], why: str) -> None:
    submission = found.submissions.setdefault(row["program"], Submission())
    test = digest_of(cell.program.facts())
    least, most = submission.tests.get(test, (row["points"] or 0, row["max_points"]))
    submission.tests[test] = min(least, row["points"] or 0), max(most, row["max_points"])
    submission.cells += 1
    submission.failed += bool(why)
    submission.why = submission.why or why


# -- words -----------------------------------------------------------------------------------------------------------


def ended(row: Mapping[str, Any]) -> str:
    """How a cell ended."""
    if row["state"] != DONE:
        return str(row["error"])
    if row["limit_reached"]:
        return _LIMITS.get(row["limit_reached"], str(row["limit_reached"]))
    return f"killed by {signal_name(row['signal'])}" if row["signal"] else f"exit code {row['exit_code']}"


def why_not(cell: Cell, row: Mapping[str, Any]) -> str:
    """What is wrong with an outcome that is not the expected one."""
    expected, program = cell.program.expected, cell.program
    if row["state"] != DONE or row["limit_reached"]:
        return ended(row)
    if program.kind == LAB:
        return f"{row['points']} of {row['max_points']} points: {row['reason']}"
    if expected.leaks is not None:
        return f"{row['leaked']} of {row['asked']} bytes leaked" + (f": {row['reason']}" if row["reason"] else "")
    if expected.exit is not None and row["exit_code"] != expected.exit:
        return f"{ended(row)}, not {expected.exit}"
    text = bytes(row["stdout"] or b"")[:60].decode("utf-8", "replace")
    return f"standard output is not the expected one: {row['stdout_bytes']} bytes, {json.dumps(text)}"


def command(plan: Plan, cell: Cell) -> str:
    """The command that repeats a cell."""
    return " ".join(_COMMANDS[cell.program.kind](plan, cell))


def _run(plan: Plan, cell: Cell) -> list[str]:
    program, limits = cell.program, cell.limits
    words = ["mmuemu", "run", "--isolate", "--clear-env", f"--seed {cell.seed}", f"--memory {_size(limits.memory)}"]
    if cell.engine != "python":
        words.append(f"--mmu {cell.engine}")
    if cell.layout is not None and cell.layout.name != "linux":
        words.append(f"--layout {_file(plan, cell.layout.name)}")
    words += _speculation(plan, cell)
    if not cell.aslr:
        words.append("--no-aslr")
    if limits.timeout is not None:
        words.append(f"--timeout {limits.timeout:g}")
    if limits.max_instructions is not None:
        words.append(f"--max-instructions {limits.max_instructions}")
    words += [f"--env {shlex.quote(f'{name}={value}')}" for name, value in program.environment]
    words += [shlex.quote(program.path), *map(shlex.quote, program.arguments)]
    return _with_input(program.stdin, program.stdin_path, words)


def _size(count: int) -> str:
    return str(count) if count % (1 << 20) else f"{count >> 20}M"


def _with_input(stdin: bytes, path: str, words: list[str]) -> list[str]:
    if path:
        return [*words, f"<{shlex.quote(path)}"]
    if not stdin:
        return [*words, "</dev/null"]
    return [f"printf '{''.join(map(_octal, stdin))}'", "|", *words]


def _octal(byte: int) -> str:
    """One byte in the format of printf(1), within single quotes."""
    plain = 32 <= byte < 127 and chr(byte) not in "\\%'"
    return chr(byte) if plain else "\\n" if byte == 10 else f"\\{byte:03o}"


def _speculation(plan: Plan, cell: Cell) -> list[str]:
    if cell.cpu is None:
        return []
    words = [f"--cpu {_file(plan, cell.cpu.name)}"]
    return words if cell.mitigations == "off" else [*words, f"--mitigations {shlex.quote(cell.mitigations or '')}"]


def _file(plan: Plan, name: str) -> str:
    return shlex.quote(plan.files.get(name, name))


def _demo(plan: Plan, cell: Cell) -> list[str]:
    program = cell.program
    size = [f"--bytes {program.size}", f"--tries {program.tries}"]
    return ["mmuemu", "demo", f"--seed {cell.seed}", *_speculation(plan, cell), *size, program.name]


def _lab(_plan: Plan, cell: Cell) -> list[str]:
    return ["mmuemu", "lab", "check", f"--lab {cell.program.lab}", shlex.quote(cell.program.path)]


_COMMANDS: Final = {PROGRAM: _run, ATTACK: _demo, LAB: _lab}


def write_csv(found: Summary, file: IO[str]) -> None:
    """The points of each submission, a line each, the first being titles."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["submission", "points", "max", "cells", "failed", "why"])
    for name, submission in found.submissions.items():
        row = [name, submission.points, submission.max, submission.cells, submission.failed, submission.why]
        writer.writerow([_cell(value) for value in row])


def _cell(value: object) -> object:
    """A text that a spreadsheet takes for a formula is told to be none."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value


__all__ = ["MOST_FAILURES", "MOST_RESULTS", "Summary", "command", "ended", "summarize", "why_not", "write_csv"]
