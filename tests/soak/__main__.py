"""Random programs, stopped and looked at, until the time is up: ``python -m tests.soak --minutes 60``.

Every run is drawn from its number: ``--run NUMBER`` repeats one. Exit code 0: everything held; 1: something did not
(kept with the command that repeats it); 130: interrupted.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.soak.checks import resident
from tests.soak.runs import Workshop

LONGEST: Final = 600
"""Seconds after which a run has hung in Python itself: the process says where, and ends."""
_WARM, _TELLING = 300, 1000
"""Runs before memory is measured first; from then on every so many."""
MOST_GROWTH: Final = 30
"""KiB of resident memory a run that the process may keep, on average of a thousand runs."""
_APART: Final = 1_000_000
"""Between the numbers of two jobs."""


class Soak:
    """Runs one after the other, in this process."""

    def __init__(self, top: Path, keep: Path, first: int) -> None:
        self.workshop = Workshop(top)
        self.keep = keep
        self.number = self.first = first
        self.findings = 0
        self.counts: Counter[str] = Counter()
        self._memory = 0
        self._measured = 0

    def one(self) -> None:
        """The next run."""
        number, self.number = self.number, self.number + 1
        plan = self.workshop.plan(number)
        faulthandler.dump_traceback_later(LONGEST, exit=True, file=sys.__stderr__)
        try:
            ending = self.workshop.run(plan)
        except Exception:
            self.report(number, f"{plan}\n\n{traceback.format_exc()}")
        else:
            self.counts[plan.name] += 1
            self.counts["(instructions)"] += ending.instructions
            self.counts["(checks)"] += ending.checks
            self.counts["(translations)"] += ending.translations
            self.counts["(cut off)"] += ending.cut
        faulthandler.cancel_dump_traceback_later()
        done = self.number - self.first
        if done == _WARM or done % _TELLING == 0:
            self._weigh(done)

    def _weigh(self, done: int) -> None:
        """Tell how much memory this process has, and whether it grows."""
        gc.collect()
        now = resident()
        if self._measured:
            grown = (now - self._memory) / (done - self._measured)
            print(f"{done:,} runs: {now >> 10} MiB resident, {grown:+.1f} KiB a run", flush=True)
            if grown > MOST_GROWTH and done - self._measured >= _TELLING // 2:
                self.report(self.number - 1, f"this process grows by {grown:.1f} KiB a run")
        else:
            print(f"{done:,} runs: {now >> 10} MiB resident", flush=True)
        self._memory, self._measured = now, done

    def report(self, number: int, text: str) -> None:
        """Keep a finding."""
        self.findings += 1
        self.keep.mkdir(parents=True, exist_ok=True)
        command = f"python -m tests.soak --run {number}"
        (self.keep / f"{number}.txt").write_text(f"{command}\n\n{text}\n")
        print(f"FOUND in run {number}: {text.rstrip().splitlines()[-1]}\n  {command}", flush=True)

    def __str__(self) -> str:
        programs = {name: count for name, count in self.counts.items() if not name.startswith("(")}
        return (
            f"{self.number - self.first:,} runs ({', '.join(f'{c:,} {n}' for n, c in sorted(programs.items()))}), "
            f"{self.counts['(instructions)']:,} instructions, {self.counts['(checks)']:,} stops looked at, "
            f"{self.counts['(translations)']:,} cached translations, {self.counts['(cut off)']} cut off, "
            f"{resident() >> 10} MiB resident, findings {self.findings}"
        )


def _several(arguments: Sequence[str], jobs: int, first: int) -> int:
    """The same in ``jobs`` processes, each with numbers of its own."""
    command = [sys.executable, "-m", "tests.soak", *arguments, "--jobs", "1"]
    workers = [subprocess.Popen([*command, "--seed", str(first + job * _APART)]) for job in range(jobs)]
    try:
        return max(worker.wait() for worker in workers)
    except KeyboardInterrupt:
        return max(worker.wait() for worker in workers)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="number of the first run (default: 1)")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once (default: 1)")
    parser.add_argument("--keep", type=Path, default=Path("soak"), metavar="DIR", help="where findings go")
    parser.add_argument("--run", type=int, metavar="NUMBER", help="this run only")
    options = parser.parse_args(given)
    if options.jobs > 1 and options.run is None:
        return _several(given, options.jobs, options.seed)
    until = time.monotonic() + options.minutes * 60
    with tempfile.TemporaryDirectory(prefix="mmuemu-soak-") as top:
        soak = Soak(Path(top), options.keep, options.seed if options.run is None else options.run)
        told = time.monotonic()
        try:
            if options.run is not None:
                print(soak.workshop.plan(options.run))
                soak.one()
            while options.run is None and time.monotonic() < until:
                soak.one()
                if time.monotonic() - told > 60:
                    told = time.monotonic()
                    print(soak, flush=True)
        except KeyboardInterrupt:
            print(f"{soak}\ninterrupted")
            return 130
    print(soak)
    return 1 if soak.findings else 0


if __name__ == "__main__":
    sys.exit(main())
