"""Runs what a results file lacks of a matrix, and puts it there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from mmuemu.errors import BadImage
from mmuemu.sourcefile import is_source
from mmuemu.sweep.cells import ERROR, LOST, PROGRAM, Cell
from mmuemu.sweep.plan import Plan
from mmuemu.sweep.pool import Lost, Pool
from mmuemu.sweep.run import LAB_PATIENCE, PATIENCE, build_source, failed, impossible, run_here
from mmuemu.sweep.store import Store

_GRACE: Final = 60.0
"""Seconds beyond a cell's time limit after which its worker counts as hung."""
_BUILD_PATIENCE: Final = 120.0
Progress = Callable[[str, int], object]
"""Told what has begun and how many pieces it has, and then, with the empty text, that one of them is done."""


class Runner(Protocol):
    """Where cells run."""

    def outcomes(self, work: Iterable[tuple[Cell, str | None]]) -> Iterator[tuple[Cell, Any]]:
        """What came of each cell, as they come: the columns of its result, or :class:`Lost`.

        With a cell comes the file that was built of its source, None where there is none.
        """


class Local:
    """Cells run in the processes of a pool."""

    def __init__(self, pool: Pool[Any], patience: float) -> None:
        self._pool = pool
        self._patience = patience

    def outcomes(self, work: Iterable[tuple[Cell, str | None]]) -> Iterator[tuple[Cell, Any]]:
        """As :class:`Runner`."""
        return self._pool.run(run_here, ((cell, (cell, built)) for cell, built in work), self._patience)


def missing(plan: Plan, store: Store, *, retry: bool = False) -> list[Cell]:
    """The cells of ``plan`` that have no result; with ``retry`` also those that were lost, had an error, or were
    stopped by the time limit.
    """
    states = store.states()

    def wanted(cell: Cell) -> bool:
        found = states.get(cell.key)
        return found is None or (retry and (found[0] in (LOST, ERROR) or found[1] == "timeout"))

    return [cell for cell in plan.cells if wanted(cell)]


def conduct(
    plan: Plan, store: Store, cells: list[Cell], *, jobs: int, dask: str | None = None, progress: Progress
) -> None:
    """Run ``cells`` of ``plan`` and store what came of each when it comes. Raises UsageError; what is stored stays."""
    able = [cell for cell in cells if not cell.impossible]
    for cell in cells:
        if cell.impossible:
            store.put(cell.key, cell.names(), impossible(cell))
    if not able:
        return
    with tempfile.TemporaryDirectory(prefix="mmuemu-sweep-") as scratch, Pool[Any](jobs) as pool:
        built = _build(pool, able, scratch, progress)
        progress("running", len(able))
        work: list[tuple[Cell, str | None]] = []
        for cell in able:
            program, why = built.get(cell.program.path, (None, ""))
            if why:
                store.put(cell.key, cell.names(), failed(cell, BadImage(cell.program.name, why)))
                progress("", 1)
            else:
                work.append((cell, program))
        with _runner(pool, able, dask) as runner:
            for cell, found in runner.outcomes(work):
                store.put(cell.key, cell.names(), _lost(found) if isinstance(found, Lost) else found)
                progress("", 1)


@contextmanager
def _runner(pool: Pool[Any], cells: list[Cell], address: str | None) -> Iterator[Runner]:
    if address is not None:
        from mmuemu.sweep.dask import Cluster

        with Cluster(address) as cluster:
            yield cluster
        return
    longest = max(_timeout(cell) for cell in cells)
    yield Local(pool, longest + _GRACE)


def _timeout(cell: Cell) -> float:
    default = PATIENCE if cell.program.kind == PROGRAM else LAB_PATIENCE
    return default if cell.limits.timeout is None else cell.limits.timeout


def _lost(found: Lost) -> dict[str, Any]:
    return {"state": LOST, "error": found.why, "matches": False, "points": 0}


def _build(pool: Pool[Any], cells: list[Cell], scratch: str, progress: Progress) -> dict[str, tuple[str | None, str]]:
    """Of each source its program, or what is wrong with it."""
    sources = dict.fromkeys(
        cell.program.path for cell in cells if cell.program.kind == PROGRAM and is_source(cell.program.path)
    )
    if not sources:
        return {}
    progress("building", len(sources))
    places = {path: os.path.join(scratch, str(at)) for at, path in enumerate(sources)}
    found: dict[str, tuple[str | None, str]] = {}
    work = ((path, (path, places[path])) for path in sources)
    for path, why in pool.run(build_source, work, _BUILD_PATIENCE):
        found[path] = (places[path], why.why if isinstance(why, Lost) else why)
        progress("", 1)
    return found


__all__ = ["Local", "Progress", "Runner", "conduct", "missing"]
