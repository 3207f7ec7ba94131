"""``mmuemu sweep``: its options, and from them to results and what they come to."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, Any, Final

from mmuemu.errors import MmuemuError, UsageError
from mmuemu.options import count

if TYPE_CHECKING:
    from mmuemu.sweep.conduct import Progress
    from mmuemu.sweep.plan import Plan
    from mmuemu.sweep.store import Store
    from mmuemu.sweep.summary import Summary

_EPILOG: Final = """\
exit codes of `mmuemu sweep`:
  0            all cells have a result, and it is the expected one where there is one
  1            some are lost, had an error, or are not as expected
  125          mmuemu failed, or its options or FILE are wrong
  130          Ctrl-C: what is done is kept
"""


def sweep_options(commands: Any) -> None:
    """The parser of ``sweep`` among ``commands``."""
    sweep = commands.add_parser(
        "sweep",
        help="run a matrix of programs, seeds, layouts, CPUs and mitigations on all cores",
        usage="mmuemu sweep [options] FILE",
        description="Run the matrix that FILE (JSON) describes on all cores, and keep what comes of each cell in one "
        "SQLite file. Run again it does only what is missing.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sweep.add_argument("--out", metavar="FILE.sqlite", help="the results (default: FILE's name with .sqlite, here)")
    sweep.add_argument("--extend", action="store_true", help="add to the results of another matrix")
    sweep.add_argument(
        "--retry-failed", action="store_true", help="run again what was lost, had an error or ran out of time"
    )
    sweep.add_argument(
        "--jobs", type=count, metavar="N", help="processes at once (default: FILE's, or as many as cores)"
    )
    sweep.add_argument("--dask", metavar="ADDRESS", help="run the cells on the Dask cluster of this scheduler")
    sweep.add_argument("--json", action="store_true", help="print what came of it as JSON")
    sweep.add_argument("--csv", metavar="FILE", help="write the points of each submission to FILE")
    sweep.add_argument("--report", metavar="FILE.html", help="write a page to FILE")
    sweep.add_argument("file", metavar="FILE")


class _Interrupted(MmuemuError):
    """Ctrl-C."""

    exit_code = 130


def sweep(options: argparse.Namespace) -> int:
    """What ``options`` (of the command line) ask; the exit code. Raises UsageError."""
    import sqlite3

    from mmuemu.reporter import open_output
    from mmuemu.sweep.plan import read_plan
    from mmuemu.sweep.store import Store
    from mmuemu.sweep.summary import summarize, write_csv

    plan = read_plan(options.file)
    out = options.out or f"{os.path.splitext(os.path.basename(options.file))[0]}.sqlite"
    with ExitStack() as stack:
        try:
            store = stack.enter_context(Store(out))
            store.begin(plan.facts, extend=options.extend)
            points = None if options.csv is None else stack.enter_context(open_output(options.csv, "--csv"))
            page = None if options.report is None else stack.enter_context(open_output(options.report, "--report"))
            _run(plan, store, options, out)
            found = summarize(plan, store)
        except sqlite3.Error as error:
            raise UsageError(f"--out {out}: {error}") from None
        if points is not None:
            write_csv(found, points)
        if page is not None:
            from mmuemu.sweep.report import report

            page.write(report(f"Sweep {os.path.basename(options.file)}", found))
    _tell(found, options.json, out)
    return 1 if found.failed or found.there < found.planned else 0


def _run(plan: Plan, store: Store, options: argparse.Namespace, out: str) -> None:
    from mmuemu.sweep.conduct import conduct, missing

    jobs = options.jobs or plan.jobs or len(os.sched_getaffinity(0))
    cells = missing(plan, store, retry=options.retry_failed)
    try:
        with _progress() as progress:
            conduct(plan, store, cells, jobs=jobs, dask=options.dask, progress=progress)
    except KeyboardInterrupt:
        left = len(missing(plan, store))
        raise _Interrupted(
            f"stopped: {len(plan.cells) - left:,} of {len(plan.cells):,} cells are in {out}; the same command goes on"
        ) from None


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on standard error where that is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield lambda what, count: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Pieces each second."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.1f}/s" if task.speed else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:

        def progress(what: str, count: int) -> None:
            if what:
                for task in bar.task_ids:
                    bar.remove_task(task)
                bar.add_task(what, total=count)
            else:
                bar.advance(bar.task_ids[-1], count)

        yield progress


def _tell(found: Summary, as_json: bool, out: str, file: IO[str] | None = None) -> None:
    file = sys.stdout if file is None else file
    if as_json:
        file.write(json.dumps({**found.facts(), "results": out}, indent=2) + "\n")
        return
    from mmuemu.errors import printable
    from mmuemu.sweep.cells import DONE, IMPOSSIBLE, LOST

    states = found.states
    file.write(
        f"{found.there:,} of {found.planned:,} cells in {printable(out)}: {states[DONE]:,} ran, "
        f"{found.right:,} as expected, {found.failed:,} failed ({states[LOST]:,} lost), "
        f"{states[IMPOSSIBLE]:,} impossible\n"
    )
    told = list(found.failures.items())[:_MOST_TOLD]
    for key, each in told:
        name, test, why = map(printable, key)
        cells = f" ({each.cells} cells)" if each.cells > 1 else ""
        file.write(f"{name}{test and f' {test}'}: {why}{cells}\n    {printable(each.command)}\n")
    left = found.failed - sum(each.cells for _, each in told)
    if left:
        file.write(f"... and {left:,} more cells (--json, --report)\n")


_MOST_TOLD: Final = 10

__all__ = ["sweep", "sweep_options"]
