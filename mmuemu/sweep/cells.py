"""What a sweep runs: programs, the cells of the matrix, and what each cell's outcome is called in the results."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import Any, Final

from mmuemu import jsonfile
from mmuemu.errors import UsageError
from mmuemu.loader.layout_file import as_json as layout_json
from mmuemu.loader.layouts import Layout
from mmuemu.speculation.catalogue import as_json as cpu_json
from mmuemu.speculation.models import CpuSpec

PROGRAM: Final = "program"
ATTACK: Final = "attack"
LAB: Final = "lab"

DONE: Final = "done"
"""The cell ran to an end or a limit; what came of it is in its columns."""
ERROR: Final = "error"
"""It could not be built or loaded: the column ``error`` says why."""
IMPOSSIBLE: Final = "impossible"
"""There is no such machine; ``error`` says why. Nothing ran."""
LOST: Final = "lost"
"""Its worker died or hung."""
_MOST_FILE: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one cell; sizes in bytes, times in seconds. None: no limit, or the default of its kind."""

    timeout: float | None = None
    max_instructions: int | None = 100_000_000
    memory: int = 64 << 20
    output: int = 4096
    """Bytes of each output stream that the results keep."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What an outcome must be, as far as it is given."""

    exit: int | None = None
    """The shell's exit code: 128 and the signal's number after a signal."""
    stdout: str | None = None
    """SHA-256 of the whole standard output, in hexadecimal."""
    leaks: bool | None = None
    """Of an attack: whether all bytes leak, or none does."""

    @property
    def given(self) -> bool:
        """Whether anything is expected at all."""
        return self != Expected()


@dataclass(frozen=True, slots=True)
class Program:
    """One thing to run: a program with its arguments and input, an attack, or an answer to a lab."""

    kind: str
    name: str
    """The file as the matrix names it, or the attack."""
    path: str = ""
    """The file (a lab's: the directory) on the host."""
    digest: str = ""
    """SHA-256 of what is there, in hexadecimal."""
    test: str = ""
    """What this is called among several with one file."""
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    stdin: bytes = b""
    stdin_path: str = ""
    """The file it is from, as the matrix names it."""
    expected: Expected = Expected()
    points: int = 1
    lab: str = ""
    size: int = 4
    """Bytes that an attack is to leak."""
    tries: int = 3

    def facts(self) -> dict[str, Any]:
        """Everything that decides what comes of it, for JSON."""
        expected = {name: value for name in Expected.__slots__ if (value := getattr(self.expected, name)) is not None}
        found: dict[str, Any] = {"kind": self.kind, "name": self.name, "test": self.test, "points": self.points}
        if self.kind == ATTACK:
            return {**found, "bytes": self.size, "tries": self.tries, "expect": expected}
        if self.kind == LAB:
            return {**found, "lab": self.lab, "sha256": self.digest}
        return {
            **found, "sha256": self.digest, "args": list(self.arguments), "env": dict(self.environment),
            "stdin": sha256(self.stdin), "expect": expected,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cell:
    """One run. ``layout`` and ``cpu`` are descriptions, so that files they came from need not be where it runs."""

    program: Program
    limits: Limits
    seed: int | None = None
    engine: str | None = None
    layout: Layout | None = None
    cpu: CpuSpec | None = None
    mitigations: str | None = None
    aslr: bool = True
    impossible: str = ""
    """Why there is no such machine."""
    key: str = field(default="", compare=False)
    """Names it in the results: a digest of everything that decides its outcome."""

    def names(self) -> dict[str, Any]:
        """The columns that say which cell it is."""
        program = self.program
        return {
            "kind": program.kind,
            "program": program.name,
            "test": program.test,
            "arguments": json.dumps(list(program.arguments)),
            "seed": self.seed,
            "engine": self.engine,
            "layout": None if self.layout is None else self.layout.name,
            "cpu": None if self.cpu is None else self.cpu.name,
            "mitigations": self.mitigations,
            "max_points": program.points,
        }


def sha256(data: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def digest_of(facts: object) -> str:
    """A digest of what JSON can hold."""
    return sha256(json.dumps(facts, sort_keys=True).encode())


def folder_digest(files: dict[str, bytes]) -> str:
    """A digest of a folder's files."""
    return digest_of({name: sha256(content) for name, content in files.items()})


def read_bytes(path: str, label: str) -> bytes:
    """A file's content. Raises UsageError, named ``label``, also for one that is too large."""
    return jsonfile.read_bytes(path, f"{label}: {path}", _MOST_FILE, "what a sweep reads")


def read_folder(path: str) -> dict[str, bytes]:
    """The files of a lab's answer by name; directories in it are none of it. Raises UsageError."""
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    files = [name for name in names if os.path.isfile(os.path.join(path, name))]
    return {name: read_bytes(os.path.join(path, name), path) for name in files}


def layout_facts(layout: Layout) -> str:
    """What stands for a layout in a matrix."""
    return digest_of(layout_json(layout))[:16]


def cpu_facts(cpu: CpuSpec | None) -> str | None:
    """What stands for a CPU model in a matrix."""
    return None if cpu is None else digest_of(cpu_json(cpu))[:16]


__all__ = [
    "ATTACK", "DONE", "ERROR", "IMPOSSIBLE", "LAB", "LOST", "PROGRAM", "Cell", "Expected", "Limits", "Program",
    "cpu_facts", "digest_of", "folder_digest", "layout_facts", "read_bytes", "read_folder", "sha256",
]  # fmt: skip
