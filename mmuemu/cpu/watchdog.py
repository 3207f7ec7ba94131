"""Stopping a run from outside it: Ctrl-C and time limits.

While the engine runs, Python's signal handlers wait and no Python code of this thread runs; the C-level half of a
signal still writes to the wake-up descriptor. A thread waits there, and for the deadline, and stops the engine.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Collection
from types import FrameType, TracebackType
from typing import Any

from mmuemu.cpu.cpu import Cpu

_REPEAT = 0.02
_PATIENCE = 5
"""Repeats before a run past its deadline counts as blocked in a system call of the host."""


class Expired(BaseException):
    """Raised where a run past its deadline is blocked in a system call of the host."""


class Watchdog:
    """A context in which Ctrl-C, and the deadline if there is one, interrupt ``cpu``.

    ``seconds`` is the time allowed from now; afterwards :attr:`expired` is true. Signals that are not among ``ending``
    and have a handler in Python only make the run pause for it.
    """

    def __init__(self, cpu: Cpu, seconds: float | None = None, ending: Collection[int] = (int(signal.SIGINT),)) -> None:
        self.cpu = cpu
        self.seconds = seconds
        self.ending = ending
        self.expired = False
        self._old_wakeup = -1
        self._old_alarm: Any = None
        self._armed = False
        self._leaving = False
        self._repeats = 0

    def __enter__(self) -> Watchdog:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        if threading.current_thread() is threading.main_thread():
            with contextlib.suppress(ValueError):
                self._old_wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
                self._armed = True
        if self._armed and self.seconds is not None and hasattr(signal, "SIGALRM"):
            self._old_alarm = signal.signal(signal.SIGALRM, self._on_alarm)
        self._deadline = None if self.seconds is None else time.monotonic() + self.seconds
        self._thread = threading.Thread(target=self._watch, name="mmuemu watchdog", daemon=True)
        self._thread.start()
        return self

    def _on_alarm(self, _number: int, _frame: FrameType | None) -> None:
        if self.expired and not self._leaving:
            raise Expired

    def _watch(self) -> None:
        pausing = False
        while True:
            left = None if self._deadline is None else max(self._deadline - time.monotonic(), 0)
            again = pausing and (left is None or left > _REPEAT)
            ready, _, _ = select.select([self._read], [], [], _REPEAT if again else left)
            told = os.read(self._read, 64) if ready else b""
            if b"\0" in told:
                return
            # A stop between two stretches of emulation is lost, so it is repeated until the run has ended.
            if told and not self._repeats and not any(number in self.ending for number in told):
                pausing = True
                self.cpu.kick()
                continue
            if again and not ready:
                pausing = self.cpu.kicked
                if pausing:
                    self.cpu.kick()
                continue
            if not ready and not self._repeats:
                self.expired = True
            self.cpu.interrupt()
            self._repeats += 1
            if self.expired and self._old_alarm is not None and self._repeats % _PATIENCE == 0:
                ident = threading.main_thread().ident
                assert ident is not None
                signal.pthread_kill(ident, signal.SIGALRM)
            self._deadline = time.monotonic() + _REPEAT

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving = True
        if self._armed:
            signal.set_wakeup_fd(self._old_wakeup)
        while True:
            try:
                os.write(self._write, b"\0")
                self._thread.join()
                break
            except KeyboardInterrupt:
                continue
        if self._old_alarm is not None:
            signal.signal(signal.SIGALRM, self._old_alarm)
        os.close(self._read)
        os.close(self._write)


class Keyboard:
    """A context in which a terminal's signals end a run and are kept for the guest (:meth:`take`).

    The third Ctrl-C within two seconds is no longer the guest's.
    """

    SIGNALS = ("SIGINT", "SIGQUIT", "SIGTSTP", "SIGWINCH")
    MOST = 2
    SECONDS = 2.0

    def __init__(self) -> None:
        self._pressed: list[int] = []
        self._interrupts: list[float] = []
        self._old: dict[int, Any] = {}

    def __enter__(self) -> Keyboard:
        if threading.current_thread() is threading.main_thread():
            for name in self.SIGNALS:
                number = getattr(signal, name, None)
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self._old[number] = signal.signal(number, self._on_signal)
        return self

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._pressed.append(number)
        if number == signal.SIGINT:
            self._interrupts.append(time.monotonic())

    def take(self) -> list[int]:
        """The signals of the host that came since; none when the run is to end."""
        pressed, self._pressed = self._pressed, []
        recent = [at for at in self._interrupts if at > time.monotonic() - self.SECONDS]
        return [] if len(recent) > self.MOST else pressed

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)
