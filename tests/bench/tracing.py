"""What a trace of system calls costs: CPU of a syscall-bound run with ``--strace-file`` against the same without.

python -m tests.bench.tracing [--rounds N]
"""

from __future__ import annotations

import argparse
import gc
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

from mmuemu.machine import Machine
from mmuemu.view.strace import Strace
from tests.bench.__main__ import HERE

KINDS = {"getppid": 60_000, "pread": 40_000, "mixture": 40_000}


def seconds(program: Path, kind: str, trace: IO[str] | None) -> float:
    """CPU of the run alone."""
    with Machine(memory="64M") as machine:
        strace = None if trace is None else Strace(trace.write, numbered=True)
        machine.kernel.tracer = strace
        machine.load(str(program), ["storm", kind, str(KINDS[kind])], {})
        gc.collect()
        gc.freeze()  # as the command does
        start = time.process_time()
        machine.run()
        if strace is not None and trace is not None:
            strace.close()
            trace.flush()
        return time.process_time() - start


def main() -> None:
    """Print a row a kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "trace"), "w") as trace:
        program = Path(folder) / "storm"
        source = Path(HERE) / "guests" / "storm.c"
        subprocess.run(["gcc", "-O1", "-w", "-static", "-o", program, source], check=True)
        for kind, many in KINDS.items():
            pairs = [(seconds(program, kind, None), seconds(program, kind, trace)) for _ in range(rounds)]
            plain = min(one for one, _ in pairs) / many * 1e6
            ratio = statistics.median(traced / one for one, traced in pairs)
            print(f"{kind:<10} {plain:6.2f} us a call, traced {100 * (ratio - 1):+.0f} %")


if __name__ == "__main__":
    main()
