"""The targets by name: each is a module of this package."""

from __future__ import annotations

import hashlib
import importlib
import sysconfig
import traceback
from pathlib import Path
from typing import Any, Final, Protocol

TARGETS: Final = {
    "loader": "ELF files: planned, relocated, loaded into a machine and run a little",
    "kernels": "kernel images of mmuemu boot: placed in memory and run a little",
    "calls": "sequences of system calls, and the state of the kernel after them",
    "gdb": "conversations with the gdb stub",
    "saved": "snapshot files with a right checksum and wrong contents",
    "tables": "page-table entries and accesses, by our walk and by the engine's",
    "texts": "layout and CPU files, trace files, sizes, mounts, and other words of the command line",
}
_ELSEWHERE: Final = tuple({sysconfig.get_path(name) for name in ("stdlib", "platlib", "purelib")} | {"<"})
"""Where code lies that is not at fault."""


class Target(Protocol):
    """What a target's module has."""

    LONGEST: int
    """Bytes of an input."""

    def one(self, data: bytes) -> None:
        """Try one input; raises on a defect, and on nothing else."""

    def seeds(self) -> list[bytes]:
        """Inputs to begin with."""

    def forget(self) -> None:
        """Start anew: what is kept between inputs may be broken."""


def find(name: str) -> Target:
    """The target called ``name``."""
    found: Any = importlib.import_module(f"tests.fuzz.{name}")
    return found


class Slow(BaseException):
    """An input took too long."""


class Greedy(Exception):
    """An input took too much memory."""


def signature(error: BaseException) -> str:
    """What two inputs have in common that show the same defect: the error's kind, and where it was raised."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_ELSEWHERE)]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames and not isinstance(error, Slow) else "?"
    return f"{type(error).__name__} in {where}"


def check_refusal(refused: BaseException, start: str, longest: int, *, printable: bool = True) -> None:
    """A refusal is one line for people."""
    text = str(refused)
    assert text.startswith(start), text
    assert 0 < len(text) < longest, text
    assert text.isprintable() or not printable, text


def digest(data: bytes) -> str:
    """The file name of an input in a corpus, as libFuzzer makes it."""
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
