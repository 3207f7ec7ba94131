"""Measure mmuemu against a bare Unicorn script, both engines, whole-process CPU seconds, interleaved runs.

python -m tests.bench [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
GUESTS = ("hello", "sha256", "syscalls", "touch", "retouch")
PAGES = 16384
SYSCALLS = 200_000


def build(folder: str) -> dict[str, str]:
    """The guests, by the compiler that mmuemu itself would use."""
    from mmuemu.sources import compiler

    command = compiler()
    if command is None:
        raise SystemExit("no C compiler for x86-64 Linux: install gcc, or pip install 'mmuemu[cc]'")
    flags = ["-O2", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-builtin"]
    out = {}
    for name in GUESTS:
        out[name] = os.path.join(folder, name)
        subprocess.run([*command, *flags, "-o", out[name], str(HERE / "guests" / f"{name}.c")], check=True)
    return out


def commands(path: str) -> dict[str, list[str]]:
    """What is measured for one guest, by name."""
    return {
        "bare": [sys.executable, str(HERE / "bare_unicorn.py"), path],
        "python": [sys.executable, "-m", "mmuemu", "run", "--mmu", "python", path],
        "native": [sys.executable, "-m", "mmuemu", "run", "--mmu", "native", path],
    }


def measure(command: list[str], expected: bytes) -> tuple[float, int]:
    """(CPU seconds, peak KiB) of one run, whose output must be the host's."""
    # Compiled modules must be kept, as an installed package keeps them, or every run compiles all sources again.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, env=environment) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if output != expected or process.returncode:
        raise SystemExit(f"{' '.join(command)}: wrong output or exit code {process.returncode}: {output[:80]!r}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def row(name: str, cpu: dict[str, float], base: dict[str, float]) -> str:
    """A line of the table, with the figure that the workload is about."""
    ratios = f"{cpu['python'] / cpu['bare']:8.3f}{cpu['native'] / cpu['bare']:8.3f}"
    divisor = {"touch": PAGES, "retouch": PAGES, "syscalls": SYSCALLS}.get(name)
    unit = ""
    if divisor:
        each = {who: (cpu[who] - base[who]) / divisor * 1e6 for who in cpu}
        unit = "".join(f"  {who} {value:.2f}" for who, value in each.items())
        unit = f"us each, start-up subtracted:{unit}"
    return f"{name:<10}{cpu['bare']:8.3f}{cpu['python']:8.3f}{cpu['native']:8.3f}{ratios}   {unit}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="runs of each command (default: 5)")
    parser.add_argument("--json", metavar="FILE", help="write every figure to FILE")
    options = parser.parse_args()
    figures: dict[str, dict[str, list[tuple[float, int]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, path in build(folder).items():
            expected = subprocess.run([path], capture_output=True, check=True).stdout
            runs = figures[name] = {who: [] for who in commands(path)}
            for number in range(options.rounds + 1):
                for who, command in commands(path).items():
                    result = measure(command, expected)
                    if number:
                        runs[who].append(result)
    median = {
        name: {who: statistics.median(cpu for cpu, _ in runs) for who, runs in group.items()}
        for name, group in figures.items()
    }
    print(f"{'workload':<10}{'bare':>8}{'python':>8}{'native':>8}{'py/bare':>8}{'nat/bare':>8}   (CPU seconds, median)")
    for name, cpu in median.items():
        print(row(name, cpu, median["hello"]))
    for who in ("python", "native"):
        print(f"peak resident memory of hello, {who}: {max(size for _, size in figures['hello'][who])} KiB")
    from tests.bench.exceptions import lines

    print("\n".join(lines(options.rounds)))
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
