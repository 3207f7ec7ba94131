"""What one case of the corpus is, and the words in which the case tables are written."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SHELL = "/bin/sh"


@dataclass(frozen=True)
class Case:
    """One thing tried with one program: the same command, run on the host and under mmuemu in equal directories."""

    program: str
    """Whom the row of docs/compat.md is about; it must be on the host's PATH."""
    tried: str
    """What the command does, in a few words; with the program's name it names the case."""
    command: Sequence[str]
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    """Files of the working directory, beside those that every case has (``inputs.py``)."""
    needs: Sequence[str] = ()
    """Further programs that the host must have."""
    modules: Sequence[str] = ()
    """Files the host must have, by absolute path."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Debian packages to fetch and, of each, the file that is put into the working directory under its own name."""
    stdin: bytes = b""
    errors: bool = True
    """Whether standard error must be equal too."""
    volatile: Sequence[str] = ()
    """Patterns of files that two runs on one host already leave with other contents."""
    options: Sequence[str] = ()
    """Options of ``mmuemu run``."""
    slow: bool = False
    """Tried by ``python -m tests.corpus``, not by every run of the tests."""
    fails: str = ""
    """Why it does not run the same yet; empty when it does."""

    @property
    def name(self) -> str:
        """A name for pytest: ``gawk-associative-arrays``."""
        return f"{self.program}-{re.sub(r'[^a-z0-9]+', '-', self.tried.lower()).strip('-')}"


def one(line: str, tried: str = "", **more: object) -> Case:
    """A case that is one command without a shell; ``tried`` defaults to the arguments."""
    words = shlex.split(line)
    return Case(words[0], tried or line.partition(" ")[2] or "no arguments", words, **more)  # type: ignore[arg-type]


def shell(program: str, tried: str, line: str, **more: object) -> Case:
    """A case that is a command line of ``/bin/sh -e``."""
    return Case(program, tried, (SHELL, "-ec", line), **more)  # type: ignore[arg-type]


def script(program: str, tried: str, text: str, options: Sequence[str] = (), **more: object) -> Case:
    """A case that gives ``program`` the script ``text``, as a file of the working directory."""
    files = {"script": text.lstrip("\n"), **more.pop("files", {})}  # type: ignore[dict-item]
    return Case(program, tried, (program, *options, "script"), files, **more)  # type: ignore[arg-type]
