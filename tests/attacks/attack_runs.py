"""Running one attack, and what it says: shared by the tests of this directory."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mmuemu.machine import Machine

LINES = {
    "who": r".+",
    "secret": r"(?:[0-9a-f]{2})+",
    "leaked": r"(?:[0-9a-f]{2})+",
    "sure": r"(?:0[01])+",
    "tries": r"\d+",
    "cached": r"\d+",
    "flushed": r"\d+",
    "threshold": r"\d+",
    "probes": r"\d+(?: \d+)*",
    "hist": r"\d+ \d+",
    "faults": r"\d+",
    "note": r".+",
}
"""What an attack may print: the first word of a line, and the rest of it."""
SEVERAL = {"hist", "note"}


@dataclass
class Run:
    """What a run left: exit code, the output's lines by their first words."""

    code: int | None
    told: dict[str, list[str]]


def parse(text: bytes) -> dict[str, list[str]]:
    """The lines by their first words. Fails when a line is none of :data:`LINES`."""
    found: dict[str, list[str]] = {}
    for line in text.decode("ascii").splitlines():
        word, _, rest = line.partition(" ")
        assert re.fullmatch(LINES[word], rest), line
        found.setdefault(word, []).append(rest)
    for word, values in found.items():
        assert len(values) == 1 or word in SEVERAL, word
    return found


def run(image: bytes, *arguments: str) -> Run:
    """On a CPU that does not speculate."""
    with Machine(seed=1) as machine:
        process = machine.spawn(image, ["attack", *arguments])
        process.wait(max_instructions=20_000_000)
        return Run(process.exit_code, parse(process.stdout))
