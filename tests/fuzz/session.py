"""Fuzzing one target for a while: a worker that is watched, what it found, made small."""

from __future__ import annotations

import faulthandler
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.fuzz.targets import digest, find, signature
from tests.fuzz.worker import Desk, attempt, limited, store

STALLED: Final = 90
"""Seconds without a new input after which the worker is ended."""
_MOST_DEATHS: Final = 10
_TRIES, _SECONDS = 300, 60
"""How long an input is made smaller."""
_COVERED: Final = re.compile(r"cov: (\d+)")
_TOP: Final = Path(__file__).resolve().parents[2]


@dataclass
class Score:
    """What came of fuzzing one target."""

    name: str
    executions: int = 0
    seconds: float = 0
    covered: int = 0
    corpus: int = 0
    new: int = 0
    findings: list[Path] = field(default_factory=list)

    def __str__(self) -> str:
        rate = self.executions / self.seconds if self.seconds else 0
        covered = f"coverage {self.covered}" if self.covered else "coverage unknown"
        return (
            f"{self.name}: {self.executions:,} executions in {self.seconds:.0f} s ({rate:,.0f}/s), {covered}, "
            f"corpus {self.corpus} ({self.new} new), findings {len(self.findings)}"
        )


def has_atheris() -> bool:
    """Whether the coverage-guided engine is installed."""
    from importlib.util import find_spec

    return find_spec("atheris") is not None


class Session:
    """One target, one corpus, for some seconds."""

    def __init__(self, name: str, top: Path, engine: str, seed: int, seconds: float) -> None:
        self.name = name
        self.engine = engine
        self.seed = seed
        self.seconds = seconds
        self.corpus = top / name
        self.keep = top / "findings" / name
        self.score = Score(name)
        self._log = top / f"{name}.log"

    def run(self, say: Callable[[str], object]) -> Score:
        """Fuzz. The worker ends with this process, whatever ends it."""
        self.corpus.mkdir(parents=True, exist_ok=True)
        for data in find(self.name).seeds():
            (self.corpus / digest(data)).write_bytes(data)
        before = len(list(self.corpus.iterdir()))
        known = set(self.keep.glob("*.txt"))
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="mmuemu-fuzz-") as scratch:
            for number in range(_MOST_DEATHS):
                left = self.seconds - (time.monotonic() - begun)
                if left <= 0 or not self._work(Path(scratch), number, left, begun, say):
                    break
        self.score.seconds = time.monotonic() - begun
        self.score.corpus = len(list(self.corpus.iterdir()))
        self.score.new = self.score.corpus - before
        for path in sorted(set(self.keep.glob("*.txt")) - known):
            self.score.findings.append(self._smaller(path, say))
        return self.score

    def _work(self, scratch: Path, number: int, left: float, begun: float, say: Callable[[str], object]) -> bool:
        """Have one worker work; whether it died."""
        path = scratch / f"desk{number}"
        desk = Desk(path)
        command = [
            sys.executable, "-X", "faulthandler", "-m", "tests.fuzz", "--child", self.engine, str(self.corpus),
            str(self.keep), str(path), str(self.seed + number), str(left), self.name,
        ]  # fmt: skip
        self.keep.mkdir(parents=True, exist_ok=True)
        with open(self._log, "wb") as log:
            worker = subprocess.Popen(
                command, cwd=_TOP, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, "PYTHONPATH": str(_TOP), "TMPDIR": str(scratch)},
            )  # fmt: skip
        base = self.score.executions
        try:
            self._watch(worker, desk, base, begun, say)
        finally:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
            self._look(desk, base)
        if worker.returncode == 0:
            return False
        text = self._log.read_text(errors="replace")[-6000:]
        stopped = -worker.returncode if worker.returncode < 0 else 0
        name = f"{'hang or signal' if stopped == signal.SIGABRT else 'signal'} {stopped}" if stopped else "exit"
        store(self.keep, desk.get()[2], f"{name} {'' if stopped else worker.returncode}".strip(), text)
        return True

    def _look(self, desk: Desk, base: int) -> int:
        done, covered, _ = desk.get()
        self.score.executions = base + done
        if self.engine == "atheris":
            found = _COVERED.findall(self._log.read_text(errors="replace")[-20_000:])
            covered = int(found[-1]) if found else 0
        self.score.covered = max(self.score.covered, covered)
        return done

    def _watch(
        self, worker: subprocess.Popen[bytes], desk: Desk, base: int, begun: float, say: Callable[[str], object]
    ) -> None:
        """Until it ends; a worker that gets nowhere is aborted, which has it say where it is."""
        last, moved, told = -1, time.monotonic(), time.monotonic()
        while worker.poll() is None:
            time.sleep(0.1)
            now = time.monotonic()
            done = self._look(desk, base)
            if done != last:
                last, moved = done, now
            elif now - moved > STALLED:
                worker.send_signal(signal.SIGABRT)
                worker.wait()
            if now - told > 30:
                told = now
                self.score.seconds = now - begun
                say(str(self.score))

    def _smaller(self, text: Path, say: Callable[[str], object]) -> Path:
        path = text.with_suffix("")
        name = text.read_text().splitlines()[0]
        replay = f"python -m tests.fuzz {self.name} --replay {shlex.quote(str(path))}"
        say(f"{self.name}: FOUND {name}\n  {replay}")
        with open(text, "a") as file:
            file.write(f"\n{replay}\n")
        small = path.read_bytes()
        if outcome(self.name, small) == name:
            small = minimise(self.name, small, name)
        else:
            say("  not repeated by this input alone")
        if len(small) < path.stat().st_size:
            path.with_suffix(".small").write_bytes(small)
            say(f"  made smaller: {replay}.small")
        return path


def outcome(name: str, data: bytes) -> str:
    """The signature of what one input does, in a process of its own; empty when nothing is wrong."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            faulthandler.disable()
            signal.alarm(STALLED)
            with limited():
                found = attempt(find(name), data)
            os.write(write, b"" if found is None else signature(found).encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else said


def minimise(name: str, data: bytes, wanted: str) -> bytes:
    """A smaller input with the same outcome, as far as a minute finds one."""
    until = time.monotonic() + _SECONDS
    tries = 0
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data):
            shorter = data[:at] + data[at + size :]
            if tries >= _TRIES or time.monotonic() > until:
                return data
            tries += 1
            if outcome(name, shorter) == wanted:
                data = shorter
            else:
                at += size
        size //= 2
    return data
