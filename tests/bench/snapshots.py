"""What a snapshot and a restore of a small process cost, and how often a second a fuzzer comes by.

python -m tests.bench.snapshots [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mmuemu.machine import Machine
from tests.bench.__main__ import HERE


def microseconds(step: Callable[[], object], rounds: int) -> tuple[float, float]:
    """(least, median) time of ``step``."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        step()
        times.append((time.perf_counter() - start) * 1e6)
    return min(times), statistics.median(times)


def measure(program: str, arguments: list[str], engine: str, rounds: int) -> dict[str, tuple[float, float]]:
    """Figures by name; the machine stands 400 instructions behind the start, and runs 300 between two restores."""
    with Machine(seed=1, mmu=engine, memory="64M") as machine:
        machine.spawn(program, arguments, {})
        machine.run(max_instructions=400)
        here = machine.snapshot()

        def round_() -> None:
            machine.run(max_instructions=300)
            machine.restore(here)

        found = {"restore and run 300 instructions": microseconds(round_, rounds)}
        found["restore"] = microseconds(lambda: machine.restore(here), rounds)
        machine.run(max_instructions=300)
        found["snapshot"] = microseconds(machine.snapshot, rounds)
        return found


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.snapshots", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=500, metavar="N", help="of each (default: 500)")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args()
    if shutil.which("gcc") is None:
        raise SystemExit("gcc is needed to build the guest")
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "processes")
        source = HERE / "guests" / "processes.c"
        subprocess.run(["gcc", "-O1", "-w", "-static", "-pthread", "-o", program, str(source)], check=True)
        print(f"{'us, least and median':<40}{'python':>18}{'native':>18}")
        both = [
            measure(program, ["processes", "faults", "9"], engine, options.rounds) for engine in ("python", "native")
        ]
        for name in both[0]:
            cells = [f"{least:9.0f}{median:9.0f}" for least, median in (one[name] for one in both)]
            print(f"{name:<40}{cells[0]}{cells[1]}")
            figures[name] = {"python": both[0][name], "native": both[1][name]}
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
