"""Builds the guests, by the compiler that mmuemu itself would use."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from mmuemu.bench.workloads import Workload
from mmuemu.errors import MmuemuError, UsageError
from mmuemu.sources import compiler

_FREESTANDING: Final = ("-O2", "-w", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-builtin")
_THREADS: Final = ("-O1", "-w", "-static", "-pthread")


def build(workloads: Iterable[Workload], folder: Path) -> str:
    """Put the programs of ``workloads`` into ``folder``, each called as its source; the compiler's version.

    Raises UsageError where there is no compiler, MmuemuError with the compiler's complaint.
    """
    command = compiler()
    if command is None:
        raise UsageError("bench: no C compiler for x86-64 Linux: install gcc, or pip install 'mmuemu[cc]'")
    wanted = {workload.source: workload.threads for workload in workloads if workload.source}
    with as_file(files("mmuemu.bench") / "guests") as sources:
        for name, threads in wanted.items():
            # A host may have no static libc of its own, and musl's.
            commands = [command, ["musl-gcc"]] if threads and shutil.which("musl-gcc") else [command]
            _first_that_builds(commands, sources / f"{name}.c", folder / name, _THREADS if threads else _FREESTANDING)
    said = subprocess.run([*command, "--version"], capture_output=True, text=True, errors="replace", check=False)
    return (said.stdout.splitlines() or [" ".join(command)])[0]


def _first_that_builds(commands: list[list[str]], source: Path, out: Path, flags: tuple[str, ...]) -> None:
    complaint = ""
    for command in commands:
        words = [*command, *flags, "-o", str(out), str(source)]
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode == 0:
            return
        complaint = complaint or (done.stderr.strip().splitlines() or ["no complaint"])[-1]
    raise MmuemuError(f"bench: {source.name} does not compile: {complaint}")
