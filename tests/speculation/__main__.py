"""Run random programs with transient execution on and off, and compare all they leave.

python -m tests.speculation N [SEED] [--cpu NAME] [--jobs J] [--keep DIRECTORY]
python -m tests.speculation --replay FILE
"""

from __future__ import annotations

import argparse
import concurrent.futures
import concurrent.futures.process
import functools
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.speculation import shrink
from tests.speculation.search import Found, keep, work
from tests.speculation.settings import BATCH, sides
from tests.speculation.squash import Difference, compare


def replay(path: Path) -> int:
    """Run what :func:`keep` wrote; 1 when it still differs."""
    programs, left, right = shrink.read(path)
    found = compare(programs, left, right)
    print("\n".join(shrink.listing(programs[-1])))
    print("\n".join(found.words) if found else "no difference")
    return int(found is not None)


def results(tasks: list[tuple[int, str]], jobs: int) -> Iterator[Found | int]:
    """What every batch comes to, in processes of their own: one that dies is a difference, too."""
    left = dict(tasks)
    while left:
        pool = concurrent.futures.ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"))
        with pool:
            running = {pool.submit(work, task): task[0] for task in left.items()}
            started: list[int] = []
            for future in concurrent.futures.as_completed(running):
                try:
                    found = future.result()
                except concurrent.futures.process.BrokenProcessPool:
                    started.append(running[future])
                    continue
                del left[running[future]]
                yield found
        if started:
            # One of the first that have no result killed it; alone, it is the one.
            suspect = min(started)
            kind = left.pop(suspect)
            line = [
                sys.executable,
                "-m",
                "tests.speculation",
                str(BATCH),
                str(suspect * BATCH),
                "--cpu",
                kind,
                "--alone",
            ]
            done = subprocess.run([*line, "--cpu", kind], capture_output=True, text=True)
            if done.returncode < 0:
                yield suspect, [], *sides(suspect, kind), Difference(0, (f"dies by signal {-done.returncode}",))
            elif done.returncode:
                yield suspect, [], *sides(suspect, kind), Difference(0, (done.stdout.strip() or "differs",))
            else:
                yield suspect


def search(options: argparse.Namespace) -> int:
    """Run all batches; 1 when any of them differs."""
    first = options.seed // BATCH
    tasks = [(first + n, options.cpu) for n in range(-(-options.count // BATCH))]
    if options.alone:
        found = [work(task) for task in tasks]
        print("\n".join(one[4].words[0] for one in found if not isinstance(one, int)))
        return int(not all(isinstance(one, int) for one in found))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    different = 0
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("programs", total=len(tasks) * BATCH)
        for found in results(tasks, options.jobs):
            progress.update(bar, advance=BATCH)
            if isinstance(found, int):
                continue
            different += 1
            tell = functools.partial(progress.console.print, highlight=False, soft_wrap=True)
            tell(f"batch {found[0]}, program {found[4].number}: {found[4].words[0]}")
            if found[1] and different <= options.most:
                tell(f"  again: python -m tests.speculation --replay {keep(found, options.keep, options.shrink)}")
            else:
                tell(f"  again: python -m tests.speculation {BATCH} {found[0] * BATCH} --jobs 1 --cpu '{options.cpu}'")
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
    parser.add_argument("--alone", action="store_true", help="in this process, without a picture of progress")
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
