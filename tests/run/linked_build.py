"""Freestanding programs with libraries: built once to run here without an interpreter, once with the host's ld.so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.run.harness import ENVIRONMENT, PROGRAMS, Result, host, mmuemu

SOURCES = PROGRAMS / "linked"
LD_SO = "/lib64/ld-linux-x86-64.so.2"
FREE = ["-O1", "-w", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"]
PIE = ["-fPIE", "-pie"]
NO_PIE = ["-fno-pie", "-no-pie"]


def run_compiler(*arguments: str | Path) -> None:
    """gcc; skips the test where there is none, or none that can."""
    if sys.platform != "linux" or shutil.which("gcc") is None or not os.path.exists(LD_SO):
        pytest.skip("gcc and glibc are not here")
    done = subprocess.run(["gcc", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode and ("unrecognized" in done.stderr or "unknown" in done.stderr or "ignored" in done.stderr):
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr


@dataclass
class Bench:
    """One directory of libraries with the program that needs them."""

    directory: Path
    source: str
    libraries: list[Path] = field(default_factory=list)

    def library(self, name: str, *options: str | Path, soname: str | None = None, at: str | None = None) -> Path:
        """Build ``lib{name}.so`` out of the part LIB_{NAME} of the source, and have the program need it."""
        path = self.directory / (at or f"lib{name}.so")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = f"-DLIB_{name.upper()}"
        naming = [f"-Wl,-soname,{soname or f'lib{name}.so'}"]
        run_compiler(*FREE, "-fPIC", "-shared", part, SOURCES / f"{self.source}.c", *naming, *options, "-o", path)
        self.libraries.append(path)
        return path

    def program(
        self, *options: str | Path, kind: Sequence[str] = PIE, find: Sequence[str] = ("-Wl,-rpath,$ORIGIN",)
    ) -> tuple[Path, Path]:
        """The program without an interpreter, and the same for the host's ld.so."""
        ours, theirs = self.directory / "program", self.directory / "program.host"
        common = [*FREE, *kind, "-DPROGRAM", SOURCES / f"{self.source}.c", "-Wl,--no-as-needed", *self.libraries,
                  "-Wl,--allow-shlib-undefined", *find, *options]  # fmt: skip
        run_compiler(*common, "-Wl,--no-dynamic-linker", "-o", ours)
        # ld.so gives __tls_get_addr only to who names it, and then wants the C library's malloc.
        run_compiler(*common, f"-Wl,--dynamic-linker={LD_SO}", "-lc", LD_SO, "-o", theirs)
        return ours, theirs

    def compare(self, *options: str | Path, kind: Sequence[str] = PIE, engine: str = "python",
                arguments: Sequence[str] = (), find: Sequence[str] = ("-Wl,-rpath,$ORIGIN",)) -> Result:  # fmt: skip
        """Build both, run both, demand equal output and exit code; what ours left."""
        ours, theirs = self.program(*options, kind=kind, find=find)
        expected = host([theirs, *arguments], env={**ENVIRONMENT, "LD_BIND_NOW": "1"}, cwd=self.directory)
        found = mmuemu("--mmu", engine, ours, *arguments, cwd=self.directory)
        assert expected.err == b""
        assert found.out.decode().splitlines() == expected.out.decode().splitlines(), found.err
        assert found.code == expected.code, found.err
        return found
