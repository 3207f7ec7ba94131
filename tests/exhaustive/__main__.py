"""Try every access right of 4-level paging: a guest computes what the manual says and compares.

python -m tests.exhaustive [--mmu python|native] [--fraction N/M] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from tests.exhaustive.machine import Report, run


def fraction(text: str) -> tuple[int, int]:
    """``"3/100"`` as (3, 100): the checks whose number leaves 3 when divided by 100."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise argparse.ArgumentTypeError(f"not N/M with N less than M: {text!r}")
    return int(part), int(parts)


def _teller(progress: Progress, engine: str) -> Callable[[int, int, int], None]:
    task = progress.add_task(engine, total=None, rate="")
    began = time.perf_counter()

    def tell(position: int, total: int, checks: int) -> None:
        rate = checks / (time.perf_counter() - began)
        progress.update(task, completed=position, total=total, rate=f"{rate:,.0f} checks/s")

    return tell


def summary(report: Report) -> str:
    """One report in words, a line a fact."""
    lines = [
        f"{report.engine}: {report.checks:,} of {report.total:,} combinations, {report.faults:,} page faults, "
        f"{report.mismatches:,} mismatches, {report.rate:,.0f} checks/s"
    ]
    if report.deviations:
        lines.append(f"  {report.deviations:,} times the engine set the accessed bit of a refused 1 GiB entry")
    if not report.finished:
        lines.append(f"  the guest did not finish: {report.fatal or 'it halted'}")
    lines += [f"  {json.dumps(mismatch)}" for mismatch in report.list]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.exhaustive", description=__doc__.splitlines()[0])
    parser.add_argument("--mmu", choices=("python", "native"), help="the engine (default: one after the other)")
    parser.add_argument(
        "--fraction", type=fraction, default=(0, 1), metavar="N/M", help="only every M-th check, from the N-th on"
    )
    parser.add_argument("--json", action="store_true", help="print the reports as JSON")
    options = parser.parse_args()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    reports = []
    try:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            for engine in (options.mmu,) if options.mmu else ("python", "native"):
                reports.append(run(engine, *options.fraction, _teller(progress, engine)))
    except FileNotFoundError as error:
        sys.exit(f"{parser.prog}: {error}")
    if options.json:
        print(json.dumps([report.json() for report in reports], indent=2))
    else:
        print("\n".join(map(summary, reports)))
    return 0 if all(report.finished and not report.mismatches for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
