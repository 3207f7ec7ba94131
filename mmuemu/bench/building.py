"""Builds the guests, by the compiler that mmuemu itself would use."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final, NamedTuple

from mmuemu.bench.workloads import Workload
from mmuemu.errors import MmuemuError, UsageError
from mmuemu.sources import compiler

_FREESTANDING: Final = ("-O2", "-w", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-builtin")
_THREADS: Final = ("-O1", "-w", "-static", "-pthread")


class Built(NamedTuple):
    """What became of the sources."""

    compiler: str
    """Its version."""
    refused: dict[str, str]
    """Source -> complaint, of those that need a C library to link to and find none."""


def build(workloads: Iterable[Workload], folder: Path) -> Built:
    """Put the programs of ``workloads`` into ``folder``, each called as its source.

    Raises UsageError where there is no compiler, MmuemuError when it does not even build what needs no library.
    """
    command = compiler()
    if command is None:
        raise UsageError("bench: no C compiler for x86-64 Linux: install gcc, or pip install 'mmuemu[cc]'")
    wanted = {workload.source: workload.threads for workload in workloads if workload.source}
    refused = {}
    with as_file(files("mmuemu.bench") / "guests") as sources:
        for name, threads in wanted.items():
            # A host may have no static libc of its own, and musl's.
            commands = [command, ["musl-gcc"]] if threads and shutil.which("musl-gcc") else [command]
            flags = _THREADS if threads else _FREESTANDING
            complaint = _first_that_builds(commands, sources / f"{name}.c", folder / name, flags)
            if complaint and not threads:
                raise MmuemuError(f"bench: {name}.c does not compile: {complaint}")
            if complaint:
                refused[name] = complaint
    said = subprocess.run([*command, "--version"], capture_output=True, text=True, errors="replace", check=False)
    return Built((said.stdout.splitlines() or [" ".join(command)])[0], refused)


def _first_that_builds(commands: list[list[str]], source: Path, out: Path, flags: tuple[str, ...]) -> str:
    """The first one's complaint when none does."""
    complaints = []
    for command in commands:
        words = [*command, *flags, "-o", str(out), str(source)]
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode == 0:
            return ""
        complaints.append((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return complaints[0]
