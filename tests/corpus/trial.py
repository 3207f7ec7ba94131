"""Trying a case: the host first, then mmuemu in a directory of the same name, then the comparison."""

from __future__ import annotations

import fnmatch
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.corpus.case import Case
from tests.corpus.inputs import place
from tests.corpus.packages import unpacked

PACKAGE = Path(__file__).resolve().parents[2]
ENGINES = ("python", "native")
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/nonexistent",
    "LC_ALL": "C",
    "TZ": "UTC0",
    "GIT_CONFIG_NOSYSTEM": "1",
    "SOURCE_DATE_EPOCH": "1700000000",
}
PATIENCE = 120
"""Seconds that one run gets."""

Tree = dict[str, tuple[str, int, bytes]]
"""By name: kind, permission bits, contents or where a symbolic link leads."""


@dataclass(frozen=True)
class Run:
    """What one run left, and the CPU seconds that it took."""

    code: int
    out: bytes
    err: bytes
    tree: Tree
    seconds: float

    @property
    def ours(self) -> list[str]:
        """mmuemu's own lines on standard error."""
        return [line for line in self.err.decode(errors="replace").splitlines() if line.startswith("mmuemu: ")]

    @property
    def errors(self) -> bytes:
        """Standard error without mmuemu's own lines."""
        return b"".join(line for line in self.err.splitlines(True) if not line.startswith(b"mmuemu: "))


def missing(case: Case) -> str:
    """Why the case cannot be tried on this host; empty when it can."""
    if sys.platform != "linux":
        return "the host is not Linux"
    for program in (case.program, *case.needs):
        if shutil.which(program, path=ENVIRONMENT["PATH"]) is None:
            return f"{program} is not here"
    for package, member in case.packages.items():
        if unpacked(package, member) is None:
            return f"the package {package} cannot be fetched"
    for path in case.modules:
        if not os.path.exists(path):
            return f"{path} is not here"
    return ""


def on_host(case: Case, directory: Path) -> Run:
    """Run the case on the host, in ``directory``, which is made for it."""
    return _run(case, directory, directory, [_found(case.command[0]), *case.command[1:]], ENVIRONMENT)


def emulated(case: Case, directory: Path, host: Path, engine: str, seed: int) -> Run:
    """Run the case under mmuemu: ``directory``, which is made for it, is shown to the guest as ``host``."""
    settings = [part for name, value in ENVIRONMENT.items() for part in ("--env", f"{name}={value}")]
    line = [
        sys.executable,
        "-m",
        "mmuemu",
        "run",
        "--mmu",
        engine,
        "--seed",
        str(seed),
        "--clear-env",
        *settings,
        *case.options,
    ]
    line += ["--mount", f"{directory}:{host}:rw", _found(case.command[0]), *case.command[1:]]
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(PACKAGE), "HOME": os.environ.get("HOME", "/")}
    return _run(case, directory, host, line, environment)


def _found(program: str) -> str:
    return shutil.which(program, path=ENVIRONMENT["PATH"]) or program


def _limits() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o022)


def _run(case: Case, directory: Path, work: Path, line: Sequence[str], environment: dict[str, str]) -> Run:
    directory.mkdir(parents=True)
    place(directory, dict(case.files))
    for package, member in case.packages.items():
        source = unpacked(package, member)
        assert source is not None
        shutil.copy(source, directory / source.name)
    before = _used()
    with subprocess.Popen(
        line,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=work,
        env=environment,
        preexec_fn=_limits,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(case.stdin, PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            err += b"mmuemu: no end after %d s\n" % PATIENCE
    code = process.returncode
    return Run(code if code >= 0 else 128 - code, out, err, snapshot(directory, case.volatile), _used() - before)


def _used() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def snapshot(directory: Path, volatile: Sequence[str] = ()) -> Tree:
    """The names, modes and contents under ``directory``; contents of ``volatile`` files count as empty."""
    tree: Tree = {}
    for top, directories, files in os.walk(directory):
        for name in (*directories, *files):
            path = Path(top, name)
            short = str(path.relative_to(directory))
            status = path.lstat()
            content = b""
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(os.fsencode(path))
            elif stat.S_ISREG(status.st_mode) and not any(fnmatch.fnmatch(short, pattern) for pattern in volatile):
                content = path.read_bytes()
            tree[short] = (stat.filemode(status.st_mode)[0], stat.S_IMODE(status.st_mode), content)
    return tree


def differences(case: Case, expected: Run, found: Run) -> list[str]:
    """What of ``found`` is not as on the host, a line each; empty when all is the same."""
    lines = []
    if found.code != expected.code:
        lines.append(f"exit code: {found.code}, not {expected.code}")
    if found.out != expected.out:
        lines.append(f"output: {_first_difference(expected.out, found.out)}")
    if case.errors and found.errors != expected.errors:
        lines.append(f"errors: {_first_difference(expected.errors, found.errors)}")
    for name in sorted(expected.tree.keys() | found.tree.keys()):
        here, there = expected.tree.get(name), found.tree.get(name)
        if here != there:
            lines.append(f"file {name}: {_entry(there)}, not {_entry(here)}")
    died = expected.code > 128
    return lines + [f"said: {line}" for line in found.ours if not (died and ": killed by SIG" in line)]


def _entry(entry: tuple[str, int, bytes] | None) -> str:
    if entry is None:
        return "absent"
    kind, mode, content = entry
    return f"{kind} {mode:04o} {len(content)} bytes {content[:40]!r}"


def _first_difference(expected: bytes, found: bytes) -> str:
    here, there = expected.splitlines(), found.splitlines()
    for number, (left, right) in enumerate(zip(here, there, strict=False), 1):
        if left != right:
            return f"line {number} is {right[:160]!r}, not {left[:160]!r}"
    if len(here) == len(there):
        return f"ends with {found[-20:]!r}, not {expected[-20:]!r}"
    number = min(len(here), len(there))
    more, text = ("missing", here[number]) if len(here) > len(there) else ("too many", there[number])
    return f"line {number + 1} is {more}: {text[:160]!r}"


@dataclass(frozen=True)
class Trial:
    """A case, tried with one engine and one seed."""

    case: Case
    engine: str
    seed: int
    wrong: list[str]
    seconds: float
    wall: float


def attempt(case: Case, top: Path, engine: str, seed: int) -> Trial:
    """Try ``case`` below ``top``, which must not exist yet."""
    host = top / "work"
    expected = on_host(case, host)
    started = time.monotonic()
    found = emulated(case, top / "guest", host, engine, seed)
    return Trial(case, engine, seed, differences(case, expected, found), found.seconds, time.monotonic() - started)
