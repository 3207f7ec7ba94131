"""Making a list of cases on the host and in mmuemu, and saying where they differ."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.cases import IMAGE, HostileCall
from tests.run.harness import ENVIRONMENT, command_line, emulator_environment, measured, peak_and_cpu

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
    command = command_line("--clear-env", "--env", "PATH=/usr/bin:/bin", "--timeout", str(timeout), *arguments)
    if descriptors:
        command = ["prlimit", f"--nofile={descriptors}:{descriptors}", *command]
    descriptor, cost = tempfile.mkstemp(prefix="mmuemu-cost-")
    os.close(descriptor)
    process = subprocess.Popen(
        measured(command, Path(cost)), cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=emulator_environment(),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    # Pipes: what mmuemu says must not lie in a file that the guest could cut.
    with ThreadPoolExecutor(2) as pool:
        texts = [pool.submit(stream.read) for stream in (process.stdout, process.stderr)]
        out, err = (text.result().decode(errors="replace") for text in texts)
    process.wait()
    peak, _ = peak_and_cpu(Path(cost))
    os.unlink(cost)
    return Ending(process.returncode, out, err, peak >> 10)


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


@dataclass(frozen=True)
class Difference:
    """A case that ended otherwise than on the host."""

    case: HostileCall
    host: str
    guest: str

    def __str__(self) -> str:
        return f"{self.case.name}: {self.host} on the host, {self.guest} here"


def compare(calls: Sequence[HostileCall], top: Path, *options: str) -> tuple[list[Difference], Ending]:
    """Make ``calls`` on both sides at once; every difference, those with a reason too, and the run's end."""
    program = compiled("calls", top)
    here, there = prepare(calls, top, "host"), prepare(calls, top, "guest")
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(on_host, program, "image", "jobs", cwd=here)
        ending = emulate("--seed", "1", *options, program, "image", "jobs", cwd=there, timeout=600)
        expected, found = outcomes(pending.result()), outcomes(ending.out)
    different = [
        Difference(case, expected.get(index, "nothing"), found.get(index, "nothing"))
        for index, case in enumerate(calls)
        if expected.get(index) != found.get(index)
    ]
    return different, ending


def fuzz(seed: int, calls: int, top: Path, *options: str) -> Ending:
    """Make ``calls`` random calls from ``seed``; the guest can write to TOP/fuzzSEED/work and to nothing else."""
    place = top / f"fuzz{seed}" / "work"
    place.mkdir(parents=True)
    return emulate(
        "--seed", str(seed), "--max-processes", "200", "--memory", "256M", "--mount", f"{place}:{place}:rw", *options,
        compiled("fuzz", top), str(seed), str(calls), cwd=place, timeout=300,
    )  # fmt: skip
