"""Making a list of cases on the host and in mmuemu, and saying where they differ."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.cases import IMAGE, HostileCall
from tests.run.harness import ENVIRONMENT, command_line, emulator_environment

GUESTS = Path(__file__).parent / "guest"


@dataclass(frozen=True)
class Ending:
    """How a run of mmuemu ended: its code, its output, mmuemu's own words, its peak resident MiB."""

    code: int
    out: str
    err: str
    peak: int

    @property
    def broke(self) -> bool:
        """Whether mmuemu itself failed: its code, or a Python exception's traces."""
        return self.code == 125 or "defect of mmuemu" in self.err or "Traceback" in self.err


def compiled(name: str, directory: Path) -> Path:
    """The program of guest/NAME.c."""
    target = directory / name
    if not target.exists():
        scratch = directory / f"{name}.{os.getpid()}"
        subprocess.run(["gcc", "-O1", "-w", "-static", GUESTS / f"{name}.c", "-o", scratch], check=True)
        os.replace(scratch, target)
    return target


def emulate(*arguments: str | Path, cwd: Path, timeout: float = 120, descriptors: int = 0) -> Ending:
    """``mmuemu run`` with ``arguments``; ``descriptors``: how many the host gives it (0: as it likes)."""
    out, err = cwd.parent / f"{cwd.name}.out", cwd.parent / f"{cwd.name}.err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        command = command_line("--clear-env", "--env", "PATH=/usr/bin:/bin", "--timeout", str(timeout), *arguments)
        if descriptors:
            command = ["prlimit", f"--nofile={descriptors}:{descriptors}", *command]
        process = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=emulator_environment()
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = code = os.waitstatus_to_exitcode(status)
    return Ending(code, out.read_text(errors="replace"), err.read_text(errors="replace"), usage.ru_maxrss >> 10)


def on_host(*command: str | Path, cwd: Path, timeout: float = 300) -> str:
    """The program's output on the host."""
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=timeout, check=True,
    ).stdout  # fmt: skip


def outcomes(text: str) -> dict[int, str]:
    """The lines of guest/calls.c by number: ``ok``, the error's name or the signal's."""
    found = {}
    for line in text.splitlines():
        index, _, what = line.partition(" ")
        if what.startswith("s"):
            found[int(index)] = signal.Signals(int(what[1:])).name
        else:
            found[int(index)] = "ok" if what == "0" else errno.errorcode.get(int(what), what)
    return found


def prepare(calls: Sequence[HostileCall], top: Path, side: str) -> Path:
    """An empty directory with the files that guest/calls.c reads, which anybody may write to."""
    place = top / side / "work"
    place.mkdir(parents=True)
    place.chmod(0o777)
    (place / "image").write_bytes(IMAGE.data)
    (place / "jobs").write_bytes(b"".join(call.packed() for call in calls))
    return place
