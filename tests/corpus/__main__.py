"""Try the corpus and tell what differs; with ``--write``, make docs/compat.md of it.

It is a command of the checkout and not of the installed package: the cases are proofs, and need Debian's programs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.corpus.case import Case
from tests.corpus.cases import CASES
from tests.corpus.table import PAGE, page
from tests.corpus.trial import ENGINES, Trial, attempt, missing

SEEDS = (1, 2, 3)
Job = tuple[Case, str, int]


def _try(job: Job) -> Trial:
    case, engine, seed = job
    with tempfile.TemporaryDirectory(prefix="mmuemu-corpus-", ignore_cleanup_errors=True) as top:
        return attempt(case, Path(top) / "trial", engine, seed)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.corpus", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="cases whose name holds one of these texts (default: all)")
    parser.add_argument("--mmu", choices=ENGINES, action="append", help="engines (default: both)")
    parser.add_argument("--seed", type=int, action="append", help="seeds (default: 1 2 3)")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1, help="trials at a time")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--write", action="store_true", help="write docs/compat.md")
    options = parser.parse_args(arguments)
    if options.write and options.names:
        parser.error("--write takes no names: the table tells of all cases")
    return options


def _report(trial: Trial) -> None:
    known = f" (known: {trial.case.fails})" if trial.wrong and trial.case.fails else ""
    verdict = "differs" + known if trial.wrong else "same"
    print(f"{verdict:<8} {trial.seconds:6.2f} s  {trial.case.name} [{trial.engine}, seed {trial.seed}]", flush=True)
    for line in trial.wrong[:6]:
        print(f"    {line}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try what the options name; 1 if a case differs that is not known to."""
    options = _options(arguments)
    chosen = [case for case in CASES if not options.names or any(name in case.name for name in options.names)]
    if options.list:
        print("\n".join(case.name for case in chosen))
        return 0
    jobs = [
        (case, engine, seed)
        for case in chosen
        if not missing(case)
        for engine in options.mmu or ENGINES
        for seed in options.seed or SEEDS
    ]
    trials: list[Trial] = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for trial in pool.map(_try, jobs):
            trials.append(trial)
            _report(trial)
    for case in chosen:
        if reason := missing(case):
            print(f"skipped           {case.name}: {reason}")
    if options.write:
        PAGE.write_text(page(CASES, trials))
    bad = {trial.case.name for trial in trials if trial.wrong}
    seconds = sum(trial.seconds for trial in trials)
    print(f"{len(chosen)} cases, {len(trials)} trials, {len(bad)} cases differ, {seconds:.0f} CPU s")
    return int(any(bool(trial.wrong) != bool(trial.case.fails) for trial in trials))


if __name__ == "__main__":
    sys.exit(main())
