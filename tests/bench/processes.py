"""What processes cost: fork, execve, switches, threads, handoffs, copy on write, a signal for a fault.

python -m tests.bench.processes [--rounds N] [KIND...]
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench.__main__ import HERE, measure

KINDS = {
    # name: (how many, what one is)
    "forks": (200, "fork, exit and wait"),
    "execs": (100, "vfork, execve of a static program, exit and wait"),
    "process-switches": (10_000, "sched_yield to another process"),
    "thread-switches": (10_000, "sched_yield to another thread"),
    "threads": (300, "pthread_create and join"),
    "handoffs": (10_000, "condition-variable handoff"),
    "copies": (8_000, "copy-on-write break, its part of a fork included"),
    "faults": (5_000, "SIGSEGV caught and returned from"),
}


def microseconds(program: Path, kind: str, engine: str, rounds: int) -> float:
    """CPU of one, start-up subtracted; the median of ``rounds``."""
    many = KINDS[kind][0]
    command = [sys.executable, "-m", "mmuemu", "run", "--mmu", engine, "--mount", f"{program.parent}:{program.parent}"]
    found = []
    for _ in range(rounds):
        empty, _ = measure([*command, str(program), kind, "0"], b"")
        full, _ = measure([*command, str(program), kind, str(many)], b"")
        found.append((full - empty) / many * 1e6)
    return statistics.median(found)


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.processes", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], metavar="KIND", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if shutil.which("gcc") is None:
        raise SystemExit("gcc is needed to build the guest")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "processes"
        source = HERE / "guests" / "processes.c"
        subprocess.run(["gcc", "-O1", "-w", "-static", "-pthread", "-o", program, source], check=True)
        print(f"{'us of CPU each':<52}{'python':>9}{'native':>9}")
        for kind in options.kinds or KINDS:
            costs = [microseconds(program, kind, engine, options.rounds) for engine in ("python", "native")]
            print(f"{KINDS[kind][1]:<52}{costs[0]:>9.1f}{costs[1]:>9.1f}", flush=True)


if __name__ == "__main__":
    main()
