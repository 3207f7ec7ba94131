"""Run random programs with transient execution on and off, and compare all they leave.

python -m tests.speculation N [SEED] [--cpu NAME] [--jobs J] [--keep DIRECTORY]
python -m tests.speculation --replay FILE
"""

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.speculation import shrink
from tests.speculation.search import keep, work
from tests.speculation.settings import BATCH
from tests.speculation.squash import compare


def replay(path: Path) -> int:
    """Run what :func:`keep` wrote; 1 when it still differs."""
    programs, left, right = shrink.read(path)
    found = compare(programs, left, right)
    print("\n".join(shrink.listing(programs[-1])))
    print("\n".join(found.words) if found else "no difference")
    return int(found is not None)


def search(options: argparse.Namespace) -> int:
    """Run all batches; how many of them differ."""
    first = options.seed // BATCH
    tasks = [(first + n, options.cpu) for n in range(-(-options.count // BATCH))]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    different = 0
    pool = concurrent.futures.ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn"))
    with (
        Progress(*columns, console=Console(stderr=True)) as progress,
        pool,
    ):
        bar = progress.add_task("programs", total=len(tasks) * BATCH)
        for found in pool.map(work, tasks):
            progress.update(bar, advance=BATCH)
            if isinstance(found, int):
                continue
            different += 1
            progress.console.print(f"batch {found[0]}, program {found[4].number}: {found[4].words[0]}", highlight=False)
            if different <= options.most:
                path = keep(found, options.keep, options.shrink)
                progress.console.print(f"  again: python -m tests.speculation --replay {path}", highlight=False)
    print(f"{len(tasks) * BATCH:,} programs, {different} of {len(tasks)} batches differ")
    return int(different > 0)


def main() -> int:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(prog="python -m tests.speculation", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "count", type=int, nargs="?", default=2000, metavar="N", help="how many programs (default: 2000)"
    )
    parser.add_argument("seed", type=int, nargs="?", default=0, metavar="SEED", help="the first (default: 0)")
    parser.add_argument("--cpu", default="", help="this CPU, all flaws (default: all sorts; off, native: none)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="machines at once (default: one a core)")
    parser.add_argument("--keep", type=Path, help="where differences are written (default: a new directory)")
    parser.add_argument("--most", type=int, default=5, help="differences that are made small (default: 5)")
    parser.add_argument("--shrink", type=float, default=60.0, help="seconds for each (default: 60)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run what such a file says")
    options = parser.parse_args()
    if options.replay:
        return replay(options.replay)
    if options.keep is None:
        options.keep = Path(tempfile.mkdtemp(prefix="mmuemu-squash-"))
    options.keep.mkdir(parents=True, exist_ok=True)
    return search(options)


if __name__ == "__main__":
    sys.exit(main())
