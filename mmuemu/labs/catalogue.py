"""Which labs there are, and where a person works on one."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mmuemu.errors import UsageError

EXERCISES: Final = Path(__file__).parent / "exercises"
MARK: Final = ".mmuemu-lab"
"""The file in a person's directory that holds the lab's name."""
ORDER: Final = (
    "page-walk", "read-only", "fault", "demand-paging", "cow", "aslr-leak", "nx", "smep-smap", "kernel-boundary",
    "flush-reload", "meltdown", "spectre-v1", "mitigations",
)  # fmt: skip
"""From the easy to the hard."""


@dataclass(frozen=True, slots=True)
class Lab:
    """One exercise: README.md (the question), starter/, solution/, grader.py."""

    name: str

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return EXERCISES / self.name

    @property
    def title(self) -> str:
        """The heading of its README."""
        with open(self.folder / "README.md", encoding="utf-8") as file:
            return file.readline().lstrip("# ").rstrip()


def labs() -> list[Lab]:
    """All of them, in the order they build on each other."""
    return [Lab(name) for name in ORDER]


def find(name: str) -> Lab:
    """The lab of that name. Raises UsageError with the names there are."""
    if name not in ORDER:
        raise UsageError(f"lab: no lab {name!r}: choose from {', '.join(ORDER)}")
    return Lab(name)


def start(lab: Lab, folder: Path, *, solution: bool = False) -> list[str]:
    """Put the question and the starter (or the solution) into ``folder``, which is made; the names of the files.

    Raises UsageError when there is anything in it already, or when it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if next(folder.iterdir(), None) is not None:
            raise UsageError(f"lab start: {folder} is not empty: name another directory")
        shutil.copy(lab.folder / "README.md", folder)
        for path in sorted((lab.folder / ("solution" if solution else "starter")).iterdir()):
            shutil.copy(path, folder)
        (folder / MARK).write_text(f"{lab.name}\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"lab start: {folder}: {error.strerror}") from None
    return sorted(path.name for path in folder.iterdir() if path.name != MARK)


def started(folder: Path) -> Lab:
    """The lab that ``folder`` was made for. Raises UsageError."""
    try:
        with open(folder / MARK, encoding="utf-8") as file:
            name = file.readline(100).strip()
    except FileNotFoundError:
        raise UsageError(f"lab check: {folder} is no lab: make one with mmuemu lab start NAME DIR") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"lab check: {folder / MARK}: {getattr(error, 'strerror', 'is no text file')}") from None
    if name not in ORDER:
        raise UsageError(f"lab check: {os.fspath(folder / MARK)} names no lab: {name!r}")
    return Lab(name)


__all__ = ["EXERCISES", "MARK", "ORDER", "Lab", "find", "labs", "start", "started"]
