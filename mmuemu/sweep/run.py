"""One cell of a sweep, run to its end: everything the results say of it.

:func:`run_cell` is for any host, what it runs comes along as bytes; :func:`run_here` for the one with the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mmuemu.errors import BadImage, Exit, MmuemuError, UsageError
from mmuemu.sweep.cells import (
    ATTACK,
    DONE,
    ERROR,
    IMPOSSIBLE,
    LAB,
    PROGRAM,
    Cell,
    Program,
    folder_digest,
    read_bytes,
    read_folder,
    sha256,
)

if TYPE_CHECKING:
    from mmuemu.guestprocess import GuestProcess
    from mmuemu.machine import Machine, Outcome

PATIENCE: Final = 10.0
"""Seconds that a program gets unless the matrix says otherwise."""
LAB_PATIENCE: Final = 120.0
_MOST_TEXT: Final = 2000


@dataclass(frozen=True, slots=True)
class Material:
    """What a cell runs: files of the guest by their paths, the program and what it links to, or of a lab's answer."""

    path: str = ""
    """The program's."""
    name: str = ""
    """Its first argument."""
    files: Mapping[str, bytes] = field(default_factory=dict)


class _Sink(io.RawIOBase):
    """An output stream of which a digest, a count and the first bytes are kept, however much is written."""

    def __init__(self, most: int) -> None:
        self.digest = hashlib.sha256()
        self.count = 0
        self.kept = b""
        self._most = most

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.count += len(data)
        if len(self.kept) < self._most:
            self.kept += bytes(data[: self._most - len(self.kept)])
        return len(data)


def run_cell(cell: Cell, material: Material) -> dict[str, Any]:
    """What came of ``cell``: columns of the results by name, and ``bases``, a row for each region.

    Never raises for anything that the cell's program does.
    """
    return _timed(cell, lambda: _KINDS[cell.program.kind](cell, material))


def run_here(cell: Cell, built: str | None) -> dict[str, Any]:
    """The same on the host that has the files; ``built`` is what was made of a source."""
    return _timed(cell, lambda: _KINDS[cell.program.kind](cell, material_of(cell.program, built)))


def failed(cell: Cell, error: MmuemuError) -> dict[str, Any]:
    """What the results say of a cell of which there is nothing to run."""

    def fail() -> dict[str, Any]:
        raise error

    return _timed(cell, fail)


def _timed(cell: Cell, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), time.thread_time()
    try:
        found = run()
    except BadImage as error:
        found = {"state": ERROR, "exit_code": int(error.exit_code), "error": _line(error.why)}
    except MmuemuError as error:
        found = {"state": ERROR, "exit_code": int(error.exit_code), "error": _line(str(error))}
    except MemoryError:
        found = {"state": ERROR, "exit_code": int(Exit.OURS), "error": "the host gives no more memory"}
    except Exception as error:
        if os.environ.get("MMUEMU_DEBUG"):
            raise
        why = f"this is a defect of mmuemu: {type(error).__name__}: {error}"
        found = {"state": ERROR, "exit_code": int(Exit.OURS), "error": _line(why)}
    found.setdefault("cpu_seconds", round(time.thread_time() - cpu, 6))
    found["wall_seconds"] = round(time.perf_counter() - wall, 6)
    return {**found, **judge(cell, found)}


def impossible(cell: Cell) -> dict[str, Any]:
    """What the results say of a cell for which there is no machine."""
    return {"state": IMPOSSIBLE, "error": cell.impossible, "matches": None, "points": None}


def judge(cell: Cell, found: Mapping[str, Any]) -> dict[str, Any]:
    """Whether an outcome is what the matrix expects, and the points for that."""
    expected, program = cell.program.expected, cell.program
    if program.kind == LAB:
        return {
            "matches": found["state"] == DONE and found["points"] == found["max_points"],
            "points": found.get("points", 0),
        }
    if found["state"] == DONE and not expected.given:
        return {"matches": None, "points": None}
    wanted = {"exit_code": expected.exit, "stdout_sha256": expected.stdout}
    right = all(value is None or found.get(name) == value for name, value in wanted.items())
    if expected.leaks is not None:
        right = right and found.get("leaked") == (program.size if expected.leaks else 0)
    right = right and found["state"] == DONE and not found.get("limit")
    return {"matches": right, "points": program.points if right else 0}


def _line(text: str) -> str:
    return " ".join(text.split())[:_MOST_TEXT]


# -- programs --------------------------------------------------------------------------------------------------------


def _program(cell: Cell, material: Material) -> dict[str, Any]:
    from mmuemu.machine import Files, Machine

    limits = cell.limits
    assert cell.layout is not None
    assert cell.engine is not None
    machine = Machine(
        memory=limits.memory, mmu=cell.engine, seed=cell.seed, aslr=cell.aslr, layout=cell.layout, cpu=cell.cpu,
        mitigations=cell.mitigations or "off", files=Files(isolate=True, cwd="/"),
    )  # fmt: skip
    try:
        out, err = _Sink(limits.output), _Sink(limits.output)
        process = _spawn(machine, cell, material, out, err)
        bases = _bases(machine, process)
        cpu = time.thread_time()
        outcome = machine.run(
            timeout=PATIENCE if limits.timeout is None else limits.timeout, max_instructions=limits.max_instructions
        )
        return {
            **_ended(outcome), **_streams(out, err), **_counts(machine), "bases": bases,
            "cpu_seconds": round(time.thread_time() - cpu, 6),
        }  # fmt: skip
    finally:
        machine.close()


def _spawn(machine: Machine, cell: Cell, material: Material, out: Any, err: Any) -> GuestProcess:
    from mmuemu.standard import put_program

    tree = machine.open_files(None)
    for path, content in material.files.items():
        put_program(tree, os.fsencode(path), content)
    arguments = [material.name, *cell.program.arguments]
    return machine.spawn(
        material.path, arguments, dict(cell.program.environment), stdin=cell.program.stdin, stdout=out, stderr=err
    )


def _ended(outcome: Outcome) -> dict[str, Any]:
    signal = None if outcome.signal is None else int(outcome.signal)
    return {"state": DONE, "exit_code": int(outcome.exit_code), "signal": signal, "limit": outcome.limit}


def _streams(out: _Sink, err: _Sink) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, sink in (("stdout", out), ("stderr", err)):
        found[f"{name}_sha256"] = sink.digest.hexdigest()
        found[f"{name}_bytes"] = sink.count
        found[name] = sink.kept
    return found


def _counts(machine: Machine) -> dict[str, Any]:
    kernel = machine.kernel
    return {
        "instructions": machine.instructions,
        "peak_frames": kernel.frames.peak,
        "faults": kernel.page_faults,
        "syscalls": kernel.statistics.syscalls,
    }


def _bases(machine: Machine, process: GuestProcess) -> list[tuple[str, int, int | None, float]]:
    """Where each thing lies that a layout places: region, address, distance from where it would be without ASLR,
    bits of entropy that the layout gives it."""
    from mmuemu.view.maps import one_run, place_of

    run = one_run(machine.kernel, process.process, process.process.leader.mm)  # type: ignore[union-attr]
    return [
        (what, place_of(what, region), region.offset, round(run.bits.get(region.mover, 0.0), 3))
        for what, region in run.regions.items()
        if region.mover
    ]


# -- attacks and labs ------------------------------------------------------------------------------------------------


def _attack(cell: Cell, _material: Material) -> dict[str, Any]:
    from mmuemu.demonstrator import Request, demonstrate

    program = cell.program
    assert cell.cpu is not None
    assert cell.seed is not None
    shown = demonstrate(
        Request(
            program.name, cell.cpu, cell.mitigations or "off", size=program.size, seed=cell.seed, tries=program.tries
        )
    )
    right = sum(shown.right)
    virtual = shown.cycles / cell.cpu.tsc_hz
    return {
        "state": DONE, "exit_code": shown.exit_code, "instructions": shown.instructions,
        "cpu_seconds": round(shown.seconds, 6), "leaked": right, "asked": shown.size,
        "bytes_per_cpu_second": round(shown.bytes_per_second, 3),
        "bytes_per_virtual_second": round(right / virtual, 3) if virtual else 0.0,
        "cause": shown.cause, "reason": shown.reason or None,
    }  # fmt: skip


def _lab(cell: Cell, material: Material) -> dict[str, Any]:
    from mmuemu.labs.catalogue import find
    from mmuemu.labs.checking import check

    with tempfile.TemporaryDirectory(prefix="mmuemu-sweep-") as folder:
        for name, content in material.files.items():
            Path(folder, name).write_bytes(content)
        timeout = LAB_PATIENCE if cell.limits.timeout is None else cell.limits.timeout
        grade = check(find(cell.program.lab), Path(folder), timeout)
    failed = [test for test in grade.tests if test.outcome != "passed"]
    said = "; ".join(f"{test.title}: {test.message}" for test in failed)
    return {
        "state": DONE, "exit_code": 0 if grade.passed else 1, "limit": grade.limit, "points": grade.points,
        "max_points": grade.max, "reason": _line(said) or None,
    }  # fmt: skip


_KINDS: Final = {PROGRAM: _program, ATTACK: _attack, LAB: _lab}


# -- what cells are made of ------------------------------------------------------------------------------------------


def build_source(path: str, out: str) -> str:
    """Make the program of the source at ``path`` in the file ``out``; what is wrong with it, or the empty text."""
    from mmuemu.sources import build

    # A compiler's complaints are many lines, and of many sources at once.
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            image = build(path)
        Path(out).write_bytes(image)
    except BadImage as error:
        first = next((line for line in said.getvalue().splitlines() if "error" in line), "")
        return f"{error.why}: {first}" if first else error.why
    except OSError as error:
        return str(error.strerror)
    return ""


@lru_cache(maxsize=4)
def material_of(program: Program, built: str | None) -> Material:
    """What the cells of ``program`` run, read from this host's files. Raises UsageError, also when they have changed
    since the matrix was read.
    """
    if program.kind == ATTACK:
        return Material()
    if program.kind == LAB:
        files = read_folder(program.path)
        _check(program, folder_digest(files))
        return Material(files=files)
    image = read_bytes(built or program.path, program.name)
    if built is not None:
        stem = os.path.splitext(os.path.basename(program.path))[0]
        return Material(f"/tmp/{stem}", stem, {f"/tmp/{stem}": image})
    _check(program, sha256(image))
    from mmuemu.linked import linked_files

    path = program.path
    return Material(path, path, {name: read_bytes(name, name) for name in linked_files(path)} | {path: image})


def _check(program: Program, digest: str) -> None:
    if digest != program.digest:
        raise UsageError(f"{program.name} has changed since the sweep began")


__all__ = [
    "LAB_PATIENCE", "PATIENCE", "Material", "build_source", "failed", "impossible", "judge", "material_of", "run_cell",
    "run_here",
]  # fmt: skip
