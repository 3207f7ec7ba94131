"""Running one program twice: on the host, which is the oracle, and under ``mmuemu run``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path

import pytest

ENGINES = ("python", "native")
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC0", "COLOUR": "blue"}
"""What programs find in their environment, on either side."""
PACKAGE = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).parent / "programs"
MUSL = "/usr/lib/x86_64-linux-musl"
COMMON = ("-O1", "-w", "-fstack-protector-strong")
FLAVOURS: dict[str, tuple[str, ...]] = {
    "glibc-static": ("gcc", *COMMON, "-static", "@", "-lm"),
    "glibc-static-pie": ("gcc", *COMMON, "-static-pie", "@", "-lm"),
    "musl-static": ("musl-gcc", *COMMON, "-static", "@", "-lm"),
    # Debian's musl-gcc knows no -static-pie: this is what its specs would say.
    "musl-static-pie": (
        "gcc", *COMMON, "-static-pie", "-fPIE", "-nostdlib", "-nostdinc", "-isystem",
        "/usr/include/x86_64-linux-musl", "-isystem", "&include", f"{MUSL}/rcrt1.o", "@", f"{MUSL}/libc.a", "-lgcc",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """What a run left: exit code (128 + signal when a signal ended it), standard output, standard error."""

    code: int
    out: bytes
    err: bytes

    @property
    def ours(self) -> list[str]:
        """mmuemu's own lines on standard error."""
        return [line for line in self.err.decode(errors="replace").splitlines() if line.startswith("mmuemu: ")]

    @property
    def guest_err(self) -> bytes:
        """Standard error without mmuemu's own lines."""
        return b"".join(line for line in self.err.splitlines(True) if not line.startswith(b"mmuemu: "))


class Programs:
    """Programs of ``tests/run/programs``, compiled on first use; shared by parallel workers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, name: str, flavour: str = "glibc-static") -> Path:
        """The compiled program; skips the test when the host has no compiler for the flavour."""
        target = self.directory / f"{name}-{flavour}"
        if target.exists():
            return target
        command = list(FLAVOURS[flavour])
        if sys.platform != "linux" or shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not here")
        if "musl" in flavour and not os.path.exists(f"{MUSL}/rcrt1.o"):
            pytest.skip("musl is not here")
        scratch = self.directory / f"{name}-{flavour}.{os.getpid()}"
        if "&include" in command:
            found = subprocess.run(["gcc", "-print-file-name=include"], capture_output=True, text=True).stdout.strip()
            command[command.index("&include")] = found
        command[command.index("@")] = str(PROGRAMS / f"{name}.c")
        subprocess.run([*command, "-o", str(scratch)], check=True)
        os.replace(scratch, target)
        return target


def executable(folder: Path, name: str, text: str) -> Path:
    """A program of the host's: a script."""
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def _no_core() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def host(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    stdin: bytes = b"",
    env: Mapping[str, str] = ENVIRONMENT,
    timeout: float = 60,
) -> Result:
    """Run ``command`` on the host."""
    done = subprocess.run(
        [str(part) for part in command],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=dict(env),
        timeout=timeout,
        preexec_fn=_no_core,
    )
    code = done.returncode
    return Result(code if code >= 0 else 128 - code, done.stdout, done.stderr)


def emulator_environment() -> dict[str, str]:
    """The environment in which ``python -m mmuemu`` finds the package under test."""
    return {**os.environ, "PYTHONPATH": str(PACKAGE)}


def command_line(*arguments: str | Path) -> list[str]:
    """``mmuemu run`` with ``arguments``, as a command of the host."""
    return [sys.executable, "-m", "mmuemu", "run", *map(str, arguments)]


def mmuemu(
    *arguments: str | Path,
    cwd: Path | None = None,
    stdin: bytes = b"",
    env: Mapping[str, str] = ENVIRONMENT,
    timeout: float = 60,
) -> Result:
    """``mmuemu run`` with ``arguments``, the guest's environment being ``env``."""
    settings = [part for name, value in env.items() for part in ("--env", f"{name}={value}")]
    done = subprocess.run(
        command_line("--clear-env", *settings, *arguments),
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=emulator_environment(),
        timeout=timeout,
    )
    code = done.returncode
    return Result(code if code >= 0 else 128 - code, done.stdout, done.stderr)


def workplaces(top: Path) -> tuple[Path, Path]:
    """Two empty directories of one name, for the run on the host and for the other."""
    places = (top / "host" / "work", top / "guest" / "work")
    for place in places:
        place.mkdir(parents=True)
    return places


def measured(command: Sequence[str], file: Path) -> list[str]:
    """``command`` with its peak resident KiB and CPU seconds written to ``file`` (read it by :func:`peak_and_cpu`)."""
    return [sys.executable, "-S", "-E", str(Path(__file__).with_name("small.py")), str(file), *command]


def peak_and_cpu(file: Path) -> tuple[int, float]:
    """What a :func:`measured` command left."""
    peak, cpu = file.read_text().split()
    return int(peak), float(cpu)


def compare(
    program: Path,
    arguments: Sequence[str],
    engine: str,
    top: Path,
    *,
    options: Sequence[str] = (),
    stdin: bytes = b"",
) -> Result:
    """Run a program on both sides in fresh directories and demand equal output, errors and exit code."""
    here, there = workplaces(top)
    expected = host([program, *arguments], cwd=here, stdin=stdin)
    found = mmuemu("--mmu", engine, *options, program, *arguments, cwd=there, stdin=stdin)
    if found.out != expected.out:
        theirs, ours = (text.decode(errors="replace").splitlines() for text in (expected.out, found.out))
        pytest.fail(
            "\n".join([*unified_diff(theirs, ours, "host", "mmuemu", lineterm="", n=2), repr(found.err[-500:])])
        )
    assert found.guest_err == expected.err
    assert found.code == expected.code, found.err
    return found
