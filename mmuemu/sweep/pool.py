"""Work on all cores in processes that live long: one that dies or hangs loses the work it had in hand, nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Final, Generic, TypeVar

Key = TypeVar("Key")
_SPAWN: Final = get_context("spawn")
_READY_IN: Final = 120.0
"""Seconds that a process gets to start."""
_MOST_WORK: Final = 2000
"""Pieces of work after which a process makes room for a new one."""


@dataclass(frozen=True, slots=True)
class Lost:
    """In the place of a result: why there is none."""

    why: str


@dataclass(slots=True)
class _Worker(Generic[Key]):
    process: Any
    pipe: Connection
    key: Any = None
    busy: bool = False
    ready: bool = False
    """Whether it has started; until then the time for its work does not run."""
    patience: float = 0.0
    deadline: float = 0.0

    def wait_for(self, seconds: float) -> None:
        """It may take that long from now on."""
        self.deadline = time.monotonic() + seconds


@dataclass(frozen=True, slots=True)
class _Raised:
    error: Exception


def _serve(pipe: Connection, alive: Connection) -> None:
    """The life of a worker process."""
    threading.Thread(target=_end_with, args=(alive,), name="mmuemu pool", daemon=True).start()
    threads = threading.active_count()
    pipe.send(None)
    for left in reversed(range(_MOST_WORK)):
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            result = function(*arguments)
        except Exception as error:
            result = _Raised(error)
        # A thread that is left over would take time from all work to come.
        last = not left or threading.active_count() > threads
        pipe.send((result, last))
        if last:
            return


def _end_with(alive: Connection) -> None:
    """Nobody writes: it is readable when who has the other end is gone, however that went."""
    wait([alive])
    os._exit(1)


class Pool(Generic[Key]):
    """``jobs`` worker processes, started when they are needed. To be closed; a context manager."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._workers: list[_Worker[Key]] = []
        self._alive, self._held = _SPAWN.Pipe(duplex=False)

    def run(
        self, function: Callable[..., Any], work: Iterable[tuple[Key, tuple[Any, ...]]], patience: float | None = None
    ) -> Iterator[tuple[Key, Any]]:
        """``function`` (of a module) of each of ``work``'s arguments, by their keys, as they come.

        A :class:`Lost` stands for the result where the process died, or took longer than ``patience`` seconds.
        ``work`` is taken as it is needed.
        """
        waiting = iter(work)
        found: list[tuple[Key, Any]] = []
        while True:
            while sum(worker.busy for worker in self._workers) < self._jobs:
                piece = next(waiting, None)
                if piece is None:
                    break
                self._give(function, *piece, patience)
            # Nobody waits for what is done with these.
            yield from found
            busy = [worker for worker in self._workers if worker.busy]
            if not busy:
                return
            found = self._collect(busy)

    def _give(self, function: Callable[..., Any], key: Key, arguments: tuple[Any, ...], patience: float | None) -> None:
        worker = next((worker for worker in self._workers if not worker.busy), None) or self._start()
        worker.key, worker.busy, worker.patience = key, True, float("inf") if patience is None else patience
        worker.wait_for(worker.patience if worker.ready else _READY_IN)
        # One that has died is found so when its result is collected.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            worker.pipe.send((function, arguments))

    def _start(self) -> _Worker[Key]:
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_serve, args=(theirs, self._alive), name="mmuemu worker")
        worker: _Worker[Key] = _Worker(process, ours)
        # Ctrl-C is for who started it, who ends it then. What multiprocessing starts with the first unblocks it.
        resource_tracker.ensure_running()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self._workers.append(worker)
        return worker

    def _collect(self, busy: list[_Worker[Key]]) -> list[tuple[Key, Any]]:
        """What is there by now, waiting for the first."""
        left = min(worker.deadline for worker in busy) - time.monotonic()
        ready = wait([worker.pipe for worker in busy], None if left == float("inf") else max(left, 0))
        now = time.monotonic()
        found: list[tuple[Key, Any]] = []
        for worker in busy:
            if worker.pipe in ready and not worker.ready and self._greeted(worker):
                worker.wait_for(worker.patience)
            elif worker.pipe in ready:
                found.append((worker.key, self._take(worker)))
            elif worker.deadline <= now:
                self._end(worker)
                found.append((worker.key, Lost("its worker hung and was ended")))
        return found

    @staticmethod
    def _greeted(worker: _Worker[Key]) -> bool:
        """Whether it has started, and not died of it."""
        try:
            worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            return False
        worker.ready = True
        return True

    def _take(self, worker: _Worker[Key]) -> Any:
        try:
            result, last = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            return Lost(f"its worker died ({self._end(worker)})")
        worker.busy = False
        if last:
            self._end(worker, 5.0)
        if isinstance(result, _Raised):
            raise result.error
        return result

    def _end(self, worker: _Worker[Key], patience: float = 0.5) -> str:
        """End a process; how it ended."""
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.join(patience)
        if worker.process.exitcode is None:
            worker.process.kill()
            worker.process.join()
        code = worker.process.exitcode
        worker.process.close()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def close(self) -> None:
        """End all processes at once, whatever they do."""
        for worker in self._workers:
            worker.process.kill()
        for worker in [*self._workers]:
            self._end(worker)
        self._alive.close()
        self._held.close()

    def __enter__(self) -> Pool[Key]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


__all__ = ["Lost", "Pool"]
