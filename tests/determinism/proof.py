"""Starting runs in surroundings that must not matter, and comparing what they hash to."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, Final

from tests.determinism.programs import PROGRAMS, ROOT

RECORD: Final = Path(__file__).with_name("recorded.json")
_LOCALES: Final = ("C", "C.UTF-8", "POSIX", "de_DE.UTF-8")
_CLOCKS: Final = ("0", "1000", "1")
"""How fast the host's time goes by for the engine, in one run after the other."""
_GARBAGE: Final = ("0", "30", "700", "20000")
"""Objects after which Python collects garbage."""
_ZONES: Final = ("UTC0", "Asia/Tokyo", "America/New_York", "XYZ+11:30")


@dataclass(frozen=True)
class Hashed:
    """A run that a worker made."""

    name: str
    engine: str
    image: str
    trace: str
    exit: int


def host_clock(directory: Path) -> Path | None:
    """A library that makes the host's time of day another, compiled into ``directory``; None: there is no compiler."""
    if shutil.which("gcc") is None or sys.platform != "linux":
        return None
    library = directory / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library


def surroundings(chance: random.Random) -> dict[str, str]:
    """An environment like any other: hash seed, locale, time zone, and variables that mean nothing."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": str(ROOT),
        "PYTHONHASHSEED": str(chance.randrange(1, 1 << 32)),
        "LC_ALL": chance.choice(_LOCALES),
        "TZ": chance.choice(_ZONES),
        "GARBAGE": chance.choice(_GARBAGE),
        "HOME": chance.choice(("/", "/nonexistent", "/tmp")),
        f"VARIABLE{chance.randrange(1000)}": "x" * chance.randrange(5000),
    }


def run_all(
    python: str, names: Sequence[str], engines: Sequence[str], directory: Path, chance: random.Random,
    clock: dict[str, str] | None = None,
) -> list[Hashed]:  # fmt: skip
    """Run the programs under ``python``, in an order, a working directory and an umask of this time's own, with
    ``clock`` in the environment.

    Raises CalledProcessError when it cannot.
    """
    order = chance.sample(list(names), len(names))
    place = directory / f"place{chance.randrange(1 << 40)}"
    place.mkdir()
    mask = chance.choice((0, 0o22, 0o77))
    done = subprocess.run(
        [python, "-m", "tests.determinism.worker", str(directory), ",".join(engines), *order],
        env=surroundings(chance) | (clock or {}), cwd=place, umask=mask,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, text=True,
    )  # fmt: skip
    return [Hashed(**json.loads(line)) for line in done.stdout.splitlines()]


@dataclass
class Verdict:
    """All runs of one program."""

    name: str
    runs: list[tuple[str, Hashed]] = field(default_factory=list)
    """With where each was made."""
    recorded: dict[str, str] | None = None

    @property
    def complaint(self) -> str:
        """What differs; empty: nothing."""
        if not self.runs:
            return "never ran"
        first_place, first = self.runs[0]
        for place, run in self.runs[1:]:
            if run.image != first.image:
                return f"another ELF file in {place}"
            if run.trace != first.trace:
                return f"{first.engine} in {first_place} and {run.engine} in {place} differ"
        if self.recorded is None:
            return ""
        if self.recorded["image"] != first.image:
            return "another ELF file than the recorded one"
        return "" if self.recorded["trace"] == first.trace else "another hash than the recorded one"


def unicorn_version() -> str:
    """The engine's version, which a record is for."""
    from importlib.metadata import version

    return version("unicorn")


def read_record() -> dict[str, dict[str, str]]:
    """Program -> its hashes as recorded; empty when the record is for another version of Unicorn."""
    record: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    if record.get("unicorn") != unicorn_version():
        return {}
    programs: dict[str, dict[str, str]] = record["programs"]
    return programs


def write_record(verdicts: Sequence[Verdict]) -> None:
    """Record what the programs whose bytes are in the repository came to."""
    programs = {**read_record()}
    for verdict in verdicts:
        if not PROGRAMS[verdict.name].compiled:
            _, run = verdict.runs[0]
            programs[verdict.name] = {"image": run.image, "trace": run.trace}
    kept = {name: programs[name] for name in PROGRAMS if name in programs}
    RECORD.write_text(json.dumps({"unicorn": unicorn_version(), "programs": kept}, indent=1) + "\n")


def prove(
    names: Sequence[str], pythons: Sequence[str], engines: Sequence[str], directory: Path, chance: random.Random,
    *, compare: bool = True, jobs: int = 1, say: Callable[[str], object] = lambda text: None,
) -> list[Verdict]:  # fmt: skip
    """Run the programs twice under this Python and once under each of ``pythons``, ``jobs`` of them at once, and judge;
    with ``compare`` against the record, too. Raises CalledProcessError when a Python cannot run them."""
    record = read_record() if compare else {}
    verdicts = {name: Verdict(name, recorded=record.get(name)) for name in names}
    clock = host_clock(directory)

    def go(python: str, seed: int, speed: str) -> list[Hashed]:
        shim = {} if clock is None else {"LD_PRELOAD": str(clock), "HOST_CLOCK": speed}
        runs = run_all(python, names, engines, directory, random.Random(seed), shim)
        say(f"{python}: {len(runs)} runs\n")
        return runs

    everywhere = [sys.executable, sys.executable, *pythons]
    seeds = [chance.randrange(1 << 40) for _ in everywhere]
    with ThreadPoolExecutor(jobs) as pool:
        for number, runs in enumerate(pool.map(go, everywhere, seeds, cycle(_CLOCKS))):
            place = f"run {number + 1}" if number < 2 else everywhere[number]
            for run in runs:
                verdicts[run.name].runs.append((place, run))
    return list(verdicts.values())
