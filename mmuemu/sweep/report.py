"""The summary of a sweep as a page (``--report``)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from mmuemu.sweep.cells import DONE, IMPOSSIBLE, LOST
from mmuemu.sweep.summary import MOST_FAILURES, MOST_RESULTS, Leaks, Summary, ended
from mmuemu.view.sweep_page import Cell, Table, sweep_page


def report(title: str, found: Summary) -> str:
    """The page: failures first, each with the command that repeats it, then points, leaks, entropy, results."""
    counts = [
        (f"{found.there:,} of {found.planned:,}", "cells have a result"),
        (f"{found.states[DONE]:,}", "ran to an end or a limit"),
        (f"{found.right:,}", "as expected"),
        (f"{found.failed:,}", "failed"),
        (f"{found.states[LOST]:,}", "lost"),
        (f"{found.states[IMPOSSIBLE]:,}", "impossible"),
        (f"{found.cpu_seconds:,.1f} s", "of CPU time"),
    ]
    tables = [_failures(found), _points(found), *_leaks(found), _entropy(found), _impossible(found), _results(found)]
    return sweep_page(title, counts, tables)


def _number(value: object, shown: str = ",") -> Cell:
    return Cell("" if value is None else format(value, shown), "n")


def _failures(found: Summary) -> Table:
    table = Table("Failures", ("program", "test", "what is wrong", "cells", "again with"))
    for (program, test, why), each in islice(found.failures.items(), MOST_FAILURES):
        row = [
            Cell(program),
            Cell(test),
            Cell(why, "no long"),
            _number(each.cells),
            Cell(each.command, "long", code=True),
        ]
        table.rows.append(row)
    table.note = "The command repeats the first of the cells."
    if len(found.failures) > MOST_FAILURES:
        table.note += f" These are the first {MOST_FAILURES:,} lines of {len(found.failures):,}."
    return table


def _points(found: Summary) -> Table:
    table = Table("Points", ("submission", "points", "of", "share", "cells failed", "first failure"))
    for name, each in found.submissions.items():
        share = each.points / each.max if each.max else 1.0
        table.rows.append(
            [
                Cell(name), _number(each.points), _number(each.max),
                Cell(f"{share:.0%}", "yes" if share == 1 else "no"),
                Cell(f"{each.failed} of {each.cells}", "n"), Cell(each.why, "long"),
            ]
        )  # fmt: skip
    table.note = "A test counts when all its cells are as expected."
    return table


def _leaks(found: Summary) -> list[Table]:
    """One table over all attacks, and one for each."""
    attacks = list(dict.fromkeys(attack for attack, _, _ in found.leaks))
    everything: dict[tuple[str, str], Leaks] = {}
    for (_, cpu, mitigations), each in found.leaks.items():
        total = everything.setdefault((cpu, mitigations), Leaks())
        total.add(each)
    tables = [_heat("Leak rate by CPU and mitigations, all attacks", everything)] if attacks[1:] else []
    for attack in attacks:
        mine = {(cpu, mitigations): each for (name, cpu, mitigations), each in found.leaks.items() if name == attack}
        tables.append(_heat(f"Leak rate of {attack}", mine))
    for table in tables[-1:]:
        table.note = (
            "The part of the secret that leaked, its causes, bytes a second of the guest's time; over all seeds."
        )
    return tables


def _heat(title: str, leaks: Mapping[tuple[str, str], Leaks]) -> Table:
    columns = list(dict.fromkeys(mitigations for _, mitigations in leaks))
    table = Table(title, ("CPU", *columns))
    for cpu in dict.fromkeys(cpu for cpu, _ in leaks):
        row = [Cell(cpu)]
        for mitigations in columns:
            each = leaks.get((cpu, mitigations))
            if each is None:
                row.append(Cell("n/a"))
                continue
            causes = ", ".join(name for name, _ in each.causes.most_common(2))
            rate = f"{each.rate:.0%}" + (f" {causes}, {_rate(each)}" if each.leaked else "")
            row.append(Cell(rate, heat=each.rate))
        table.rows.append(row)
    return table


def _rate(leaks: Leaks) -> str:
    return f"{sum(leaks.per_virtual) / len(leaks.per_virtual):,.0f} B/s"


def _entropy(found: Summary) -> Table:
    head = ("layout", "region", "bits of the layout", "bits that varied", "different places", "by chance", "seeds")
    table = Table("Entropy by region", head)
    for (layout, region, possible), each in found.places.items():
        bits = f"{possible:.1f}".removesuffix(".0")
        table.rows.append(
            [
                Cell(layout), Cell(region), Cell(bits, "n"), _number(each.varied), _number(len(each.distances)),
                _number(each.expected, ",.1f"), _number(len(each.seeds)),
            ]
        )  # fmt: skip
    table.note = (
        "By chance: how many different places so many seeds find on average when each place of the layout is equally "
        "likely. One region may have several rows: its bits depend on the kind of program."
    )
    return table


def _impossible(found: Summary) -> Table:
    table = Table("Impossible", ("cells", "why"))
    table.rows += [[_number(count), Cell(why, "long")] for why, count in found.impossible.items()]
    return table


def _results(found: Summary) -> Table:
    head = ("program", "test", "seed", "layout", "engine", "CPU", "mitigations", "outcome", "instructions", "CPU ms",
            "frames", "faults", "calls", "leaked")  # fmt: skip
    table = Table("Results", head)
    for row in found.rows:
        names = [Cell(str(row[name] if row[name] is not None else "")) for name in _NAMES]
        leaked = "" if row["asked"] is None else f"{row['leaked']} of {row['asked']}"
        kind = "no" if row["why"] else "yes" if row["matches"] else ""
        table.rows.append(
            [
                *names, Cell(ended(row) if row["state"] == DONE else row["state"], kind), _number(row["instructions"]),
                _number(1000 * (row["cpu_seconds"] or 0), ",.1f"), _number(row["peak_frames"]), _number(row["faults"]),
                _number(row["syscalls"]), Cell(leaked, "n"),
            ]
        )  # fmt: skip
    if found.there > MOST_RESULTS:
        table.note = f"The first {MOST_RESULTS:,} of {found.there:,}; all are in the results file."
    return table


_NAMES = ("program", "test", "seed", "layout", "engine", "cpu", "mitigations")

__all__ = ["report"]
