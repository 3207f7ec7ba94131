"""Runs the probe on the host's own kernel and reads what it says."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_LINE = re.compile(r"^(\w+)-(\w+) (....) (\w+) \S+ \d+\s*(.*)$")


class Line(NamedTuple):
    start: int
    end: int
    prot: int
    offset: int
    name: str


class Maps(NamedTuple):
    """A parsed /proc/self/maps and the program break, at the first instruction of a program."""

    lines: list[Line]
    brk: int

    def start_of(self, name: str) -> int:
        return min(line.start for line in self.lines if line.name.startswith(name))

    def end_of(self, name: str) -> int:
        return max(line.end for line in self.lines if line.name.startswith(name))

    def size_of(self, *names: str) -> int:
        return sum(line.end - line.start for line in self.lines if line.name.startswith(names))


def run(path: Path, prefix: Sequence[str], *arguments: str) -> bytes:
    """What the program wrote; it must succeed."""
    return subprocess.run(
        [*prefix, str(path), *arguments], stdout=subprocess.PIPE, check=True, env={}, timeout=20
    ).stdout


def run_probe(path: Path, prefix: Sequence[str]) -> Maps:
    *lines, brk = run(path, prefix).decode().splitlines()
    parsed = []
    for line in lines:
        found = _LINE.match(line)
        assert found, line
        start, end, flags, offset, name = found.groups()
        prot = sum(bit for bit, letter in ((1, "r"), (2, "w"), (4, "x")) if letter in flags)
        parsed.append(Line(int(start, 16), int(end, 16), prot, int(offset, 16), name))
    return Maps(parsed, int(brk, 16))
