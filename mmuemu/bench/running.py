"""One run of one command: its CPU time as a whole, its memory, and whether its output is the right one."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Final, NamedTuple

_MOST: Final = 1 << 16
"""Bytes of output that are looked at; no workload says more."""
_LONGEST: Final = 0.03
"""Seconds between two looks at whether a run is over."""
_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Run(NamedTuple):
    """What one run came to."""

    cpu: float = 0.0
    """Seconds in user and kernel mode, of all its processes that were waited for."""
    peak: int = 0
    """Resident memory at most, in KiB."""
    units: int = 0
    """What a probe counted."""
    status: str = "ok"
    """``ok``, ``wrong`` or ``timeout``."""
    why: str = ""


class Ended(NamedTuple):
    """How a process ended."""

    late: bool
    code: int
    cpu: float
    peak: int
    output: bytes
    errors: bytes


def run(command: Sequence[str], environment: Mapping[str, str], expected: bytes | None, limit: float) -> Run:
    """Run ``command`` as :func:`collect` does and judge it.

    ``expected`` is its standard output (None: ``ok N``, as probes say it), the exit code is 0, and it takes ``limit``
    seconds at most; a run that is otherwise says so.
    """
    try:
        ended = collect(command, environment, limit)
    except OSError as error:
        return Run(status="wrong", why=f"does not start: {error.strerror}")
    spent = Run(ended.cpu, ended.peak)
    if ended.late:
        return spent._replace(status="timeout", why=f"not done within {limit:g} s")
    return _judged(spent, ended, expected)


def collect(command: Sequence[str], environment: Mapping[str, str], limit: float) -> Ended:
    """Run ``command`` with nothing on standard input for ``limit`` seconds at most; its processes are gone afterwards.

    So they are after the KeyboardInterrupt that it raises when the measurement is to stop (:func:`stoppable`). Raises
    OSError when it does not start.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, env=environment, start_new_session=True
        )
        late = False
        try:
            late = not _over(process.pid, time.monotonic() + limit)
        finally:
            _kill(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        spent = usage.ru_utime + usage.ru_stime
        return Ended(late, process.returncode, spent, usage.ru_maxrss, _beginning(out), _beginning(errors))


def _over(pid: int, deadline: float) -> bool:
    """Whether a process ends before ``deadline``. It is not waited for: its number stays that of its group."""
    delay = 0.001
    # By looking again and again: a signal that comes just before a call that waits would not end the call.
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if _asked.is_set():
            raise KeyboardInterrupt
        if time.monotonic() > deadline:
            return False
        time.sleep(delay)
        delay = min(2 * delay, _LONGEST)
    return True


_asked = threading.Event()
"""Set when the measurement is to stop."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Signals do not interrupt what happens inside; they end the run that is under way, or else the next."""
    _asked.clear()
    before = {number: signal.signal(number, lambda *_: _asked.set()) for number in _STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _kill(group: int) -> None:
    """End all processes of a session that :func:`run` began, its first one not yet waited for."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _beginning(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(_MOST)


def _judged(spent: Run, ended: Ended, expected: bytes | None) -> Run:
    """``spent`` with what output and exit code say."""
    said = [line for line in ended.errors.decode(errors="replace").splitlines() if line[:1].isalpha()]
    last = f": {said[-1][:120]}" if said else ""
    if ended.code:
        how = f"exit code {ended.code}" if ended.code > 0 else signal.Signals(-ended.code).name
        return spent._replace(status="wrong", why=f"{how}{last}")
    if expected is not None:
        if ended.output == expected:
            return spent
    elif ended.output.startswith(b"ok ") and ended.output[3:].strip().isdigit():
        return spent._replace(units=int(ended.output[3:]))
    shown = ended.output[:60].decode(errors="replace")
    return spent._replace(status="wrong", why=f"says {shown!r}{last}" if shown else f"says nothing{last}")
