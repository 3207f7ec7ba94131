"""The process that tries inputs, one after the other; another one watches it (``session.py``) over a :class:`Desk`."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import resource
import signal
import struct
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, Final

from tests.fuzz.mutate import mutate
from tests.fuzz.targets import Greedy, Slow, Target, digest, find, signature

SECONDS: Final = 10
"""CPU seconds that one input may take."""
MEGABYTES: Final = 400
"""How far one input may raise the most memory that the process ever had."""
_PR_SET_PDEATHSIG: Final = 1  # include/uapi/linux/prctl.h
_HEAD: Final = struct.Struct("<QQQ")
_DESK_BYTES: Final = 1 << 20


class Desk:
    """Memory that outlives its writer: how many inputs were tried, what they covered, and the one at hand."""

    def __init__(self, path: Path) -> None:
        with open(path, "a+b") as file:
            file.truncate(_DESK_BYTES)
            self._area = mmap.mmap(file.fileno(), _DESK_BYTES)

    def put(self, executions: int, covered: int, data: bytes) -> None:
        """Note what is about to be tried."""
        _HEAD.pack_into(self._area, 0, executions, covered, len(data))
        self._area[_HEAD.size : _HEAD.size + len(data)] = data

    def get(self) -> tuple[int, int, bytes]:
        """What was noted last."""
        executions, covered, length = _HEAD.unpack_from(self._area)
        return executions, covered, self._area[_HEAD.size : _HEAD.size + length]


class Coverage:
    """Lines of mmuemu that ran at least once: told by the interpreter from Python 3.12 on, unknown (0) before."""

    def __init__(self) -> None:
        self.lines = 0
        monitoring: Any = getattr(sys, "monitoring", None)
        if monitoring is None:
            return

        def line(code: Any, _line: int) -> Any:
            self.lines += "/mmuemu/" in code.co_filename
            return monitoring.DISABLE

        monitoring.use_tool_id(monitoring.COVERAGE_ID, "mmuemu fuzz")
        monitoring.register_callback(monitoring.COVERAGE_ID, monitoring.events.LINE, line)
        monitoring.set_events(monitoring.COVERAGE_ID, monitoring.events.LINE)

    def close(self) -> None:
        """Count no more."""
        monitoring: Any = getattr(sys, "monitoring", None)
        if monitoring is not None:
            monitoring.set_events(monitoring.COVERAGE_ID, 0)
            monitoring.free_tool_id(monitoring.COVERAGE_ID)


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """SIGPROF raises :class:`Slow` in here, and core files are not written."""

    def slow(_number: int, _frame: FrameType | None) -> None:
        raise Slow(f"more than {SECONDS} s of CPU time for one input")

    before = signal.signal(signal.SIGPROF, slow)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def attempt(target: Target, data: bytes) -> BaseException | None:
    """Try one input within the limits (under :func:`limited`); what went wrong."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found: BaseException | None = None
    try:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        target.one(data)
        signal.setitimer(signal.ITIMER_PROF, 0)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before >> 10
        if grown > MEGABYTES:
            raise Greedy(f"{grown} MiB for one input")
    except (Exception, Slow) as error:
        signal.setitimer(signal.ITIMER_PROF, 0)
        found = error
        target.forget()
    return found


class Trials:
    """Tries inputs of one target, and keeps those that show a defect nobody knows yet."""

    def __init__(self, target: Target, desk: Desk, keep: Path) -> None:
        self.target = target
        self.desk = desk
        self.keep = keep
        self.executions = 0
        self.coverage: Coverage | None = None
        self._known = {path.read_text().splitlines()[0] for path in keep.glob("*.txt")}

    def __call__(self, data: bytes) -> None:
        """Try one."""
        self.desk.put(self.executions, self.coverage.lines if self.coverage is not None else 0, data)
        self.executions += 1
        found = attempt(self.target, data)
        if found is not None and (name := signature(found)) not in self._known:
            self._known.add(name)
            store(self.keep, data, name, "".join(traceback.format_exception(found)))


def store(keep: Path, data: bytes, name: str, text: str) -> Path:
    """Keep an input and what it did; the input's file."""
    keep.mkdir(parents=True, exist_ok=True)
    path = keep / digest(data)[:12]
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(f"{name}\n\n{text}", errors="backslashreplace")
    return path


def plain(trials: Trials, corpus: Path, seed: int, until: float) -> None:
    """Mutate the corpus until that time of :func:`time.monotonic`; inputs that reach new lines join it."""
    pool = [path.read_bytes() for path in sorted(corpus.iterdir())]
    coverage = trials.coverage = Coverage()
    random = Random(seed)
    waiting = list(pool)
    while time.monotonic() < until:
        data = waiting.pop() if waiting else mutate(random, pool, trials.target.LONGEST)
        before = coverage.lines
        trials(data)
        if coverage.lines > before and not waiting:
            pool.append(data)
            (corpus / digest(data)).write_bytes(data)
    trials.desk.put(trials.executions, coverage.lines, b"")
    coverage.close()


def child(name: str, engine: str, corpus: Path, keep: Path, desk: Path, seed: int, seconds: float) -> int:
    """What ``python -m tests.fuzz --child`` does; it ends with whoever started it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["mmuemu"], enable_loader_override=False):
            target = find(name)
            target.forget()
    else:
        target = find(name)
    trials = Trials(target, Desk(desk), keep)
    with limited():
        if engine == "plain":
            plain(trials, corpus, seed, time.monotonic() + seconds)
            return 0
        options = [
            f"-max_total_time={max(int(seconds), 1)}", f"-seed={seed & 0x7FFF_FFFF or 1}",
            f"-max_len={target.LONGEST}", "-timeout=86400", "-rss_limit_mb=0", "-print_final_stats=0",
            f"-artifact_prefix={keep}{os.sep}", str(corpus),
        ]  # fmt: skip
        atheris.Setup(["fuzz", *options], trials)
        atheris.Fuzz()
    return 0
