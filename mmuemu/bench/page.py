"""The measurement as a page of the documentation: Markdown, with its figure beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from mmuemu.bench.figures import Measurement
from mmuemu.bench.goals import goals
from mmuemu.bench.table import WORDS, cells, failures, names, rates
from mmuemu.bench.workloads import ENGINES, WORKLOADS
from mmuemu.errors import printable

_HEAD: Final = """\
# Benchmarks

Measured by `mmuemu bench`, on one machine at one time. [Measure it](howto-bench.md) tells how to read the figures, and

```sh
mmuemu bench --json benchmarks.json --page docs/benchmarks.md
```

writes this page and its figure again, with what is measured on your machine and the emulators that are found there.
"""


def page(found: Measurement, figure: str) -> str:
    """The page; ``figure`` is the name of the SVG file beside it."""
    titles, rows = cells(found)
    shown = names(found)
    sections = [
        _HEAD,
        "## Machine\n\n" + _table(("what", "which"), _facts(found, shown)),
        f"## Figures\n\nCPU time of one unit, start-up subtracted; medians of interleaved rounds ({found.rounds}). "
        "The last columns are ratios, the median of the rounds', to bare Unicorn and to the fastest peer: below 1 is "
        "faster.\n\n"
        f"![CPU time by workload and emulator]({figure})\n\n" + _table(titles, rows),
        "## Units\n\n" + _table(("workload", "one unit is"), [(row.name, row.title) for row in found.rows]),
        _list("## Costs and rates", rates(found)),
        _list("## Who was wrong, or late", failures(found)),
        "## Goals\n\n"
        + _table(("goal", "", "measured"), [(goal.text, WORDS[goal.met], goal.figures) for goal in goals(found)]),
    ]
    return "\n".join(section for section in sections if section)


def _facts(found: Measurement, shown: list[str]) -> list[tuple[str, str]]:
    facts = [(name, str(value)) for name, value in found.machine.items()]
    facts += [(f"engine {name}" if name in ENGINES else name, found.contestants[name]) for name in shown]
    facts += [(name, f"not here (it would be found as {by})") for name, by in found.absent.items()]
    left_out = [workload.name for workload in WORKLOADS if found.row(workload.name) is None]
    return facts + ([("not measured", ", ".join(left_out))] if left_out else [])


def _cell(text: str) -> str:
    return printable(text).replace("|", "\\|").replace("<", "&lt;")


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    aligned = ["---" if number == 0 or len(titles) < 4 else "---:" for number, _ in enumerate(titles)]
    lines = [titles, aligned, *([_cell(cell) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _list(title: str, lines: list[str]) -> str:
    return f"{title}\n\n" + "".join(f"- {_cell(line)}\n" for line in lines) if lines else ""
