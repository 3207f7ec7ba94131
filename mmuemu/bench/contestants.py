"""Who runs the workloads: the engines of mmuemu, and the other emulators that are found on this machine."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import mmuemu
from mmuemu.bench.workloads import ENGINES, Workload
from mmuemu.errors import UsageError

PEERS: Final = {
    "bare": "a Python that has unicorn",
    "qemu": "qemu-x86_64 (or qemu-x86_64-static) on PATH",
    "qiling": "a Python that has qiling",
    "blink": "blink on PATH",
}
"""The emulators that are looked for, and what each is found by."""
_ON_PATH: Final = {"qemu": ("qemu-x86_64", "qemu-x86_64-static"), "blink": ("blink",)}
_VERSION: Final = {"qemu": "--version", "blink": "-v"}
_HERE: Final = Path(__file__).parent
_PATIENCE: Final = 60
"""Seconds that an emulator gets to tell its version."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """An engine or a peer."""

    name: str
    command: tuple[str, ...]
    """How it is started; of ``bare`` and ``qiling`` the Python."""
    version: str

    def run(self, workload: Workload, count: int, folder: Path, plain: bool = False) -> list[str] | None:
        """The command that runs ``workload`` with ``count``; None when this one cannot.

        ``folder`` has the programs; ``plain``: without the options that are measured.
        """
        program = str(folder / workload.source)
        if self.name in ENGINES:
            return self._own(workload, count, program, plain) if self.name in workload.engines else None
        if self.name == "bare":
            return self._bare(workload, count, program)
        if not workload.others or workload.probe:
            return None
        if self.name == "qiling":
            kind = "threads" if workload.threads else "process"
            words = _arguments(workload, count, f"/{workload.source}")
            return [*self.command, str(_HERE / "qiling_run.py"), kind, str(folder), program, *words]
        return [*self.command, program, *_arguments(workload, count, program)]

    def _own(self, workload: Workload, count: int, program: str, plain: bool) -> list[str]:
        probes = [*self.command, "-m", "mmuemu.bench.probes"]
        if workload.probe:
            return [*probes, workload.probe, self.name, str(count), *([program] if workload.source else [])]
        scratch = os.path.dirname(program)
        start = [*probes, "everything"] if workload.loaded and not plain else [*self.command, "-m", "mmuemu"]
        options = [] if plain else [word.format(scratch=scratch) for word in workload.options]
        view = ["--mount", f"{scratch}:{scratch}"]
        return [*start, "run", "--mmu", self.name, *view, *options, program, *_arguments(workload, count, program)]

    def _bare(self, workload: Workload, count: int, program: str) -> list[str] | None:
        if workload.bare == "program":
            return [*self.command, str(_HERE / "bare_unicorn.py"), program, *_arguments(workload, count, program)]
        if workload.bare == "exceptions":
            return [*self.command, str(_HERE / "bare_exceptions.py"), workload.probe, str(count)]
        return None

    def environment(self) -> dict[str, str]:
        """Of its processes. What Python compiles is kept, as an installed package keeps it."""
        found = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        if self.name in ENGINES:
            here = str(_HERE.parent.parent)
            found["PYTHONPATH"] = os.pathsep.join(filter(None, (here, found.get("PYTHONPATH", ""))))
        return found


def _arguments(workload: Workload, count: int, program: str) -> list[str]:
    return [word.format(count=count, self=program) for word in workload.arguments]


def engines(names: Iterable[str]) -> list[Contestant]:
    """Those of mmuemu called ``names``. Raises UsageError."""
    for name in names:
        if name not in ENGINES:
            raise UsageError(f"--engines: unknown engine {name!r}: choose from {', '.join(ENGINES)}")
    return [Contestant(name, (sys.executable,), f"mmuemu {mmuemu.__version__}") for name in ENGINES if name in names]


def given(options: Iterable[str]) -> dict[str, list[str]]:
    """What ``--peer NAME=COMMAND`` said, by name. Raises UsageError."""
    found = {}
    for option in options:
        name, _, command = option.partition("=")
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise UsageError(f"--peer {option}: {error}") from None
        if not name.isidentifier() or name in ENGINES or not words:
            raise UsageError(f"--peer {option}: write NAME=PATH, with a name that is no engine's")
        if shutil.which(words[0]) is None:
            raise UsageError(f"--peer {option}: {words[0]} is no program that can be run")
        found[name] = words
    return found


def peers(told: Mapping[str, list[str]], wanted: list[str] | None) -> tuple[list[Contestant], dict[str, str]]:
    """(those that are there, what the others are found by); ``told`` by :func:`given`, ``wanted`` None: all.

    Raises UsageError for a name in ``wanted`` that is neither known nor told, and for a told one that does not start.
    """
    names = [*PEERS, *(name for name in told if name not in PEERS)]
    for name in wanted or ():
        if name not in names:
            raise UsageError(f"--peers: unknown peer {name!r}: choose from {', '.join(names)}, or name one by --peer")
    found, absent = [], {}
    for name in names if wanted is None else wanted:
        command = told.get(name) or _look_for(name)
        version = None if command is None else _version(name, command)
        if command is not None and version is not None:
            found.append(Contestant(name, tuple(command), version))
        elif name in told:
            raise UsageError(f"--peer {name}={shlex.join(told[name])}: not {PEERS[name]}")
        else:
            absent[name] = PEERS[name]
    return found, absent


def _look_for(name: str) -> list[str] | None:
    if name not in _ON_PATH:
        return [sys.executable]
    return next(([path] for path in map(shutil.which, _ON_PATH[name]) if path), None)


def _version(name: str, command: list[str]) -> str | None:
    """What an emulator says of its version; None when it is not there. Own peers (of --peer) are not asked."""
    module = {"bare": "unicorn", "qiling": "qiling"}.get(name)
    if module is not None:
        code = f"import {module}, importlib.metadata as m; print('{module}', m.version('{module}'))"
        words = [*command, "-c", code]
    elif name in _VERSION:
        words = [*command, _VERSION[name]]
    else:
        return shlex.join(command)
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_PATIENCE,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0] if done.returncode == 0 and lines else None
