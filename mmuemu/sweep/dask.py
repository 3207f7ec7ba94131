"""Cells on a Dask cluster that is there already: ``mmuemu sweep --dask ADDRESS``."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any, Final

from mmuemu import __version__
from mmuemu.errors import UsageError
from mmuemu.sweep.cells import Cell
from mmuemu.sweep.pool import Lost
from mmuemu.sweep.run import Material, failed, material_of, run_cell

_PATIENCE: Final = 10
"""Seconds for the scheduler to answer."""
_AHEAD: Final = 4
"""Cells that are sent for each thread of the cluster: what they run is in this process's memory until they have run."""


def version() -> str:
    """Of the package, where this runs."""
    return __version__


class Cluster:
    """The cluster whose scheduler is at ``address`` (``tcp://host:8786``); a context manager.

    Raises UsageError where Dask is not installed, no scheduler answers, there is no worker, or one cannot run cells.
    """

    def __init__(self, address: str) -> None:
        try:
            import distributed
        except ImportError:
            raise UsageError("--dask needs Dask: pip install 'mmuemu[dask]'") from None
        self._dask: Any = distributed
        # It tells of what it tries again; what comes of it is said here.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        try:
            self._client = distributed.Client(address, timeout=_PATIENCE, set_as_default=False)
        except (OSError, ValueError, TimeoutError, ImportError) as error:
            raise UsageError(f"--dask {address}: no scheduler answers there ({type(error).__name__})") from None
        try:
            self._threads = self._check(address)
        except BaseException:
            self._client.close()
            raise

    def _check(self, address: str) -> int:
        """How many threads there are; all must have this version of the package."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        if not workers:
            raise UsageError(f"--dask {address}: the cluster has no workers")
        for where, found in self._client.run(version, on_error="return").items():
            if isinstance(found, BaseException):
                raise UsageError(f"--dask {address}: worker {where} cannot import mmuemu: {_words(found)}")
            if found != __version__:
                raise UsageError(f"--dask {address}: worker {where} has mmuemu {found}, this is {__version__}")
        return sum(int(worker["nthreads"]) for worker in workers.values())

    def outcomes(self, work: Iterable[tuple[Cell, str | None]]) -> Iterator[tuple[Cell, Any]]:
        """As :class:`~mmuemu.sweep.conduct.Runner`."""
        waiting = iter(work)
        flying: dict[Any, Cell] = {}
        done = self._dask.as_completed(loop=self._client.loop)
        scattered: tuple[Material | None, Any] = (None, None)
        while True:
            while len(flying) < _AHEAD * self._threads:
                piece = next(waiting, None)
                if piece is None:
                    break
                cell, built = piece
                try:
                    material = material_of(cell.program, built)
                except UsageError as error:
                    yield cell, failed(cell, error)
                    continue
                if material is not scattered[0]:
                    # Once for all cells of a program.
                    scattered = material, self._client.scatter(material, hash=False)
                future = self._client.submit(run_cell, cell, scattered[1], key=f"mmuemu-{cell.key}", pure=False)
                flying[future] = cell
                done.add(future)
            if not flying:
                return
            future = next(done)
            yield flying.pop(future), self._result(future)

    @staticmethod
    def _result(future: Any) -> Any:
        if future.status == "finished":
            return future.result()
        error = future.exception() if future.status == "error" else None
        return Lost(f"its worker died or failed: {_words(error) if error else future.status}")

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        # Cells that wait are forgotten with the client, whose they are.
        self._client.close()


def _words(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


__all__ = ["Cluster", "version"]
