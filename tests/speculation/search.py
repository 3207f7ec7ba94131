"""One batch of random programs: run it, and write down where it differs. Other processes do this too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.speculation import shrink
from tests.speculation.programs import Program, random_program
from tests.speculation.settings import BATCH, sides
from tests.speculation.squash import Difference, compare

Found = tuple[int, list[Program], dict[str, Any], dict[str, Any], Difference]


def batch(number: int) -> list[Program]:
    """The programs of one machine; the seed of each is its number in all."""
    return [random_program(seed) for seed in range(number * BATCH, (number + 1) * BATCH)]


def work(task: tuple[int, str]) -> Found | int:
    """Run one batch; its number when all is alike."""
    number, kind = task
    left, right = sides(number, kind)
    programs = batch(number)
    found = compare(programs, left, right)
    if found is None:
        return number
    return number, programs[: found.number + 1 or None], left, right, found


def keep(found: Found, directory: Path, seconds: float) -> Path:
    """Make the difference small and write it down."""
    number, programs, left, right, difference = found
    small = shrink.shrink(programs, left, right, seconds)
    again = compare(small, left, right) or difference
    path = directory / f"squash-{number}.json"
    shrink.write(path, small, left, right, again)
    return path
