"""Programs over and over, on both engines, under many seeds, schedules and ticks: ``python -m tests.stress``.

It looks for what happens one time in a hundred. Each run is compared with the host's; with a seed, sometimes a run is
made twice and must be the same to the byte. What goes wrong is kept in a directory: the command, which repeats it
where it has a seed, and both outputs. Load comes from the runs themselves (``--jobs``).
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.run.harness import ENGINES, ENVIRONMENT, FLAVOURS, PACKAGE, Programs, Result, host
from tests.run.test_processes import MODES

PATIENCE: Final = 30
"""Seconds that a run gets."""
TICKS: Final = (0.0002, 0.001, 0.003, 0.01)
"""Host ticks to run without a seed by, in seconds."""
PLAIN: Final = (
    "recursion", "mappings", "heap", "files", "directories", "descriptors", "selfmodify", "floats", "algorithms",
    "sigfaults", "sigframes", "sighostile", "sigcalls", "sigjobs", "threads", "sysvipc", "ipcfork", "ipcsignals",
    "scheduling", "sockets", "events", "pipes", "locks", "sharing", "ptys", "busytext", "pidfds", "ticks",
    "vforksig",
)  # fmt: skip
STATIC_ONLY: Final = frozenset({"sigfaults", "sigframes", "sighostile", "sigcalls", "sigjobs", "vforksig"})
"""Programs that are compared as built by glibc only."""
LINES: Final = (
    "head -c 100000 /dev/zero | gzip | wc -c",
    "seq 3000 | sort -rn | head -n 5 | rev | tr 0-9 a-j",
    "for i in 1 2 3 4 5 6; do (echo $i; exit $i); echo $?; done | paste -s",
    "x=$(seq 200 | while read n; do echo $((n * n)); done | tail -n 1); echo $x",
    "mkfifo f; (seq 50 > f) & wc -l < f; wait; echo $?",
    "trap 'echo got; exit 3' TERM; (sleep 0.05; kill -TERM $$) & while :; do :; done",
    "sleep 5 & kill -KILL $!; wait $! 2>/dev/null; echo $?; yes | head -n 2000 | cksum",
    "seq 2000 | xargs -n 500 echo | wc; echo a b c | tee g h > /dev/null; cat g h | md5sum",
    "timeout 0.2 sleep 9; echo $?; timeout 9 true; echo $?",
    "seq 500 | awk '{s += $1; print s | \"tail -n 1\"}'; seq 9 | sed -n '$p' | tac",
)


@dataclass(frozen=True)
class Job:
    """A command that says the same each time."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """Something that went wrong."""

    job: Job
    kind: str
    line: str


def jobs(programs: Programs) -> list[Job]:
    """Every program in every mode and build, and the shell's lines."""
    out = []
    for name in PLAIN:
        for flavour in ("glibc-static",) if name in STATIC_ONLY else tuple(FLAVOURS):
            out.append(Job(f"{name}-{flavour}", (str(programs(name, flavour)),)))
    out.append(Job("sigcalls poll", (str(programs("sigcalls")), "poll")))
    for name, modes in MODES.items():
        out += [Job(f"{name} {mode}", (str(programs(name)), mode)) for mode in modes]
    out += [Job(line, ("/bin/bash", "-c", line)) for line in LINES]
    return out


def settings(generator: random.Random) -> tuple[str, tuple[str, ...]]:
    """A tick, and options of ``mmuemu run``: an engine, a seed or a schedule, page-table isolation."""
    options = ["--mmu", generator.choice(ENGINES)]
    kind = generator.randrange(4)
    if kind == 1:
        options += ["--seed", str(generator.randrange(1 << 31))]
    elif kind == 2:
        options += ["--schedule", str(generator.randrange(1 << 31))]
    elif kind == 3:
        options += ["--seed", str(generator.randrange(1 << 31)), "--schedule", str(generator.randrange(1 << 31))]
    if generator.randrange(8) == 0:
        options.append("--kpti")
    return str(generator.choice(TICKS)), tuple(options)


def emulated(job: Job, tick: str, options: Sequence[str], directory: Path) -> tuple[Result, str]:
    """Run ``job`` in ``directory``, which is made; also the command, for a shell. A hang has code -1."""
    directory.mkdir(parents=True)
    environment = [part for name, value in ENVIRONMENT.items() for part in ("--env", f"{name}={value}")]
    line = [sys.executable, "-m", "tests.stress", "--child", tick, "run", "--clear-env", *environment, *options]
    line += job.command
    with subprocess.Popen(
        line,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=PATIENCE)
            code = process.returncode if process.returncode >= 0 else 128 - process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            code = -1
    shutil.rmtree(directory.parent, ignore_errors=True)
    return Result(code, out, err), shlex.join(line)


def child(tick: str, arguments: Sequence[str]) -> int:
    """``mmuemu`` with another tick and more to compare; where it is when it hangs comes out on standard error."""
    import faulthandler

    from mmuemu import cli
    from mmuemu import runner as door
    from mmuemu.kernel import scheduler as module

    scheduler: Any = module
    runner: Any = door
    counts = runner.statistics

    def statistics(kernel: Any) -> dict[str, int]:
        more = {"counted": kernel.cpu.instructions, "switches": kernel.scheduler.switches, "time": kernel.clock.now()}
        return {**counts(kernel), **more}

    runner.statistics = statistics
    faulthandler.dump_traceback_later(PATIENCE - 2)
    scheduler.TICK = float(tick)
    return cli.main(list(arguments))


class Stress:
    """Runs until a time, by several threads."""

    def __init__(self, chosen: Sequence[Job], keep: Path, scratch: Path, seed: int, twice: bool) -> None:
        self.chosen = chosen
        self.keep = keep
        self.scratch = scratch
        self.generator = random.Random(seed)
        self.lock = threading.Lock()
        self.expected: dict[Job, Result] = {}
        self.runs: Counter[str] = Counter()
        self.findings: list[Finding] = []
        self._number = 0
        self._left: list[Job] = []
        self._pairs = [(job, engine) for job in chosen for engine in ENGINES] if twice else None

    def _next(self) -> tuple[Job, str, tuple[str, ...], bool, int] | None:
        with self.lock:
            self._number += 1
            if self._number % 100 == 0:
                print(f"runs: {dict(self.runs)}", flush=True)
            if self._pairs is not None:
                if not self._pairs:
                    return None
                job, engine = self._pairs.pop()
                return job, "0.01", ("--mmu", engine, "--seed", str(self._number)), True, self._number
            if not self._left:
                self._left = list(self.chosen)
                self.generator.shuffle(self._left)
            tick, options = settings(self.generator)
            twice = "--seed" in options and self.generator.randrange(2) == 0
            return self._left.pop(), tick, options, twice, self._number

    def _on_host(self, job: Job, number: int) -> Result:
        if job not in self.expected:
            directory = self.scratch / f"host{number}" / "work"
            directory.mkdir(parents=True)
            self.expected[job] = host(job.command, cwd=directory)
        return self.expected[job]

    def one(self) -> bool:
        """One run, or two that must be equal; False when all have been made."""
        following = self._next()
        if following is None:
            return False
        job, tick, options, twice, number = following
        expected = self._on_host(job, number)
        if twice:
            options = (*options, "--strace", "--stats")
        place = self.scratch / str(number) / "work"
        found, line = emulated(job, tick, options, place)
        kind = wrong(expected, found, twice)
        self.runs["twice" if twice else "seeded" if "--seed" in options else "unseeded"] += 1
        if kind:
            self._report(Finding(job, kind, line), expected, found, number)
        elif twice:
            again, _ = emulated(job, tick, options, place)
            if repeatable(again) != repeatable(found):
                self._report(Finding(job, "not repeated", line), found, again, number)
        return True

    def _report(self, finding: Finding, expected: Result, found: Result, number: int) -> None:
        place = self.keep / str(number)
        place.mkdir(parents=True, exist_ok=True)
        (place / "command").write_text(finding.line + "\n")
        for name, result in (("expected", expected), ("found", found)):
            (place / f"{name}.out").write_bytes(result.out)
            (place / f"{name}.err").write_bytes(result.err)
        with self.lock:
            self.findings.append(finding)
            print(f"{number}: {finding.kind}: {finding.job.name}\n  {finding.line}", flush=True)

    def work(self, until: float) -> None:
        """One run after the other."""
        while time.monotonic() < until and self.one():
            pass


def wrong(expected: Result, found: Result, traced: bool) -> str:
    """What is not as on the host, in a word; empty when all is."""
    if found.code == -1:
        return "hang"
    if b"Traceback" in found.err:
        return "internal error"
    if found.code != expected.code:
        return f"code {found.code}, not {expected.code}"
    if found.out != expected.out:
        return "output"
    return "errors" if not traced and found.guest_err != expected.err else ""


def repeatable(result: Result) -> Result:
    """What must be the same each time; how much memory the host holds need not be."""
    err = b"".join(line for line in result.err.splitlines(True) if not line.startswith(b"resident "))
    return Result(result.code, result.out, err)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["--child"]:
        return child(arguments[1], arguments[2:])
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="how long (default: 600)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once (default: 2)")
    parser.add_argument("--keep", type=Path, default=Path("stress"), help="where findings go (default: stress)")
    parser.add_argument("--only", default="", metavar="TEXT", help="what the name of a job contains")
    parser.add_argument("--twice", action="store_true", help="every program twice with one seed, on each engine")
    parser.add_argument("--seed", type=int, default=None, help="of the choices made here")
    chosen = parser.parse_args(arguments)
    seed = random.randrange(1 << 31) if chosen.seed is None else chosen.seed
    print(f"--seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as top:
        built = Path(top) / "programs"
        built.mkdir()
        wanted = [job for job in jobs(Programs(built)) if chosen.only in job.name]
        stress = Stress(wanted, chosen.keep, Path(top), seed, chosen.twice)
        until = time.monotonic() + chosen.seconds
        with concurrent.futures.ThreadPoolExecutor(chosen.jobs) as pool:
            for done in [pool.submit(stress.work, until) for _ in range(chosen.jobs)]:
                done.result()
    print(f"runs: {dict(stress.runs)}; findings: {len(stress.findings)}")
    return 1 if stress.findings else 0


if __name__ == "__main__":
    sys.exit(main())
