"""A host to break out into: what a guest is given, what lies next to it, and whether that is as it was."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mmuemu.kernel.life import FIRST_PID
from tests.hostile.trial import compiled
from tests.run.harness import command_line, emulator_environment

SECRET: Final = b"secret of the host"
_VICTIM: Final = (
    "import signal; signal.pthread_sigmask(0, signal.valid_signals()); print('here', flush=True); signal.sigwait([64])"
)
_GUESTS: Final = range(FIRST_PID, FIRST_PID + 1000)


def everything(top: Path) -> dict[str, tuple[object, ...]]:
    """Each file under ``top``: kind and rights, owner, links, times, content."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, names, files in os.walk(top):
        for name in ("", *names, *files):
            path = os.path.join(directory, name)
            st = os.lstat(path)
            content = Path(path).read_bytes() if os.path.isfile(path) and not os.path.islink(path) else b""
            found[path] = (st.st_mode, st.st_uid, st.st_gid, st.st_nlink, st.st_mtime_ns, st.st_ctime_ns, content)
    return found


@dataclass
class Host:
    """A directory ``rw`` that guests may write to, ``outside`` next to it, and a process that counts its signals."""

    top: Path
    guests: Path
    """Where programs of guest/ are compiled to."""
    victim: subprocess.Popen[str]
    before: dict[str, tuple[object, ...]] = field(default_factory=dict)

    @property
    def rw(self) -> Path:
        """What is mounted."""
        return self.top / "rw"

    @property
    def outside(self) -> Path:
        """What is not."""
        return self.top / "outside"

    def harmed(self) -> list[str]:
        """What has changed that should not have."""
        now = everything(self.outside)
        changed = [path for path in {**now, **self.before} if now.get(path) != self.before.get(path)]
        status = Path(f"/proc/{self.victim.pid}/status").read_text() if self.victim.poll() is None else ""
        if not status:
            changed.append("a process of the host has ended")
        elif any(int(bits, 16) for bits in re.findall(r"^S(?:hd|ig)Pnd:\s*(\w+)", status, re.MULTILINE)):
            changed.append("a process of the host has a signal")
        elif not re.search(r"^State:\s*S", status, re.MULTILINE):
            changed.append("a process of the host has been stopped")
        return changed

    def command(
        self,
        program: str,
        *arguments: str | Path,
        options: tuple[str, ...] = (),
        view: tuple[str, ...] = ("--isolate",),
    ) -> list[str]:
        """mmuemu with a program of guest/, which sees nothing but ``rw``, or what ``view`` says."""
        return command_line(
            *view, "--clear-env", "--seed", "1", "--timeout", "60", "--mount", f"{self.rw}:{self.rw}:rw",
            *options, compiled(program, self.guests), *arguments,
        )  # fmt: skip

    def run(
        self, program: str, *arguments: str | Path, stdin: bytes = b"", **more: tuple[str, ...]
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end; mmuemu must not fail."""
        done = subprocess.run(
            self.command(program, *arguments, **more), input=stdin, capture_output=True, cwd=self.outside,
            env=emulator_environment(), timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode != 125, done.stderr
        assert b"Traceback" not in done.stderr
        assert b"defect of mmuemu" not in done.stderr
        return done


@contextmanager
def a_host(top: Path, guests: Path) -> Iterator[Host]:
    """Make a host below ``top``; at the end it must be unharmed."""
    for name in ("rw/deep/down", "outside"):
        (top / name).mkdir(parents=True)
    (top / "outside" / "name").write_bytes(SECRET)
    (top / "rw" / "file").write_bytes(b"a file of the guest's")
    (top / "rw" / "link").symlink_to(top / "outside" / "name")
    (top / "rw" / "dangling").symlink_to(top / "outside" / "new")
    others = []
    while True:
        victim = subprocess.Popen(
            [sys.executable, "-c", _VICTIM], stdout=subprocess.PIPE, text=True, start_new_session=True
        )  # fmt: skip
        if victim.pid not in _GUESTS:
            break
        others.append(victim)
    assert victim.stdout is not None
    victim.stdout.readline()
    host = Host(top, guests, victim, everything(top / "outside"))
    try:
        yield host
        assert host.harmed() == []
    finally:
        for process in (victim, *others):
            process.send_signal(signal.SIGKILL)
            process.wait()


@contextmanager
def listening(path: str | bytes) -> Iterator[socket.socket]:
    """A socket of the host's."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        server.settimeout(0)
        yield server
