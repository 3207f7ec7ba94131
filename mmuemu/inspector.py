"""``mmuemu maps``, ``translate`` and ``pagetable``: a program is started, stopped, and looked at."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, Final

from mmuemu.errors import UsageError
from mmuemu.kernel.maps import maps_text
from mmuemu.runner import environment_of, find_program, machine_of
from mmuemu.stopping import run_to
from mmuemu.view import maps, walks
from mmuemu.view.mappers import mapper_facts, mapper_parts, who_maps
from mmuemu.view.places import find_address, find_range
from mmuemu.view.regions import living, memory_map
from mmuemu.view.sheet import Sheet, show
from mmuemu.view.tables import read_tables, summary, tree_facts, tree_sheet

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task
    from mmuemu.machine import Machine

JSON_VERSION: Final = 1
MOST_RUNS: Final = 1024
REFUSED: Final = 1
"""Exit code of ``mmuemu translate`` for an access that the MMU refuses."""


@contextmanager
def _stopped(options: Namespace, seed: int | None = None) -> Iterator[tuple[Machine, Task]]:
    """A machine at the event that ``options`` ask for, and the task that is looked at; closed at the end."""
    program, arguments = find_program([options.program, *options.arguments], options)
    machine = machine_of(options, seed)
    try:
        machine.load(program, arguments, environment_of(options), stdout=2)
        reached = run_to(machine, options.at, timeout=options.timeout, max_instructions=options.max_instructions)
        yield machine, _chosen(machine, reached, options.pid)
    finally:
        machine.close()


def _chosen(machine: Machine, reached: Task, pid: int | None) -> Task:
    """The task of process ``pid``, or the one that came to the event."""
    if pid is None:
        return reached
    live = living(machine.kernel)
    for process, task in live.items():
        if process.pid == pid:
            return task
    known = ", ".join(str(process.pid) for process in live)
    raise UsageError(f"--pid {pid}: there is no such process at this event (there are {known})")


def _facts(machine: Machine, options: Namespace, **more: Any) -> dict[str, Any]:
    """What every JSON output begins with."""
    kernel = machine.kernel
    return {
        "version": JSON_VERSION,
        "program": options.program,
        "at": options.at,
        "seed": machine.seed,
        "layout": kernel.layout.name,
        "aslr": kernel.aslr is not None,
        "kpti": kernel.options.kpti,
        **more,
    }


def _print(as_json: bool, facts: Callable[[], dict[str, Any]], parts: Callable[[], Sequence[str | Sheet]]) -> None:
    if as_json:
        json.dump(facts(), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        show(parts())
    sys.stdout.flush()


def show_maps(options: Namespace) -> int:
    """``mmuemu maps``; the exit code."""
    if options.json and options.format == "linux":
        raise UsageError("--json is a format of its own: leave out --format linux")
    if options.runs is not None:
        return _show_runs(options)
    with _stopped(options) as (machine, task):
        kernel = machine.kernel
        tasks = [task]
        if options.all:
            tasks = list(living(kernel).values())
        if options.format == "linux" and not options.json:
            several = len(tasks) > 1
            heads = [f"==> /proc/{one.pid}/maps <==\n" if several else "" for one in tasks]
            text = "".join(head + maps_text(one.mm) for head, one in zip(heads, tasks, strict=True))
            sys.stdout.buffer.write(os.fsencode(text))
            sys.stdout.flush()
            return 0
        found = [(one, memory_map(kernel, one.process, one.mm)) for one in tasks]
        _print(
            options.json,
            lambda: _facts(
                machine,
                options,
                processes=[maps.map_facts(kernel, one.process, one.mm, regions) for one, regions in found],
            ),
            lambda: [
                part
                for one, regions in found
                for part in (maps.heading(kernel, one.process), maps.map_sheet(kernel, regions))
            ],
        )
    return 0


def _show_runs(options: Namespace) -> int:
    """The same program under one seed after another."""
    if options.all or options.format == "linux":
        raise UsageError("--runs compares addresses: leave out --all and --format")
    if options.runs > MOST_RUNS:
        raise UsageError(f"--runs {options.runs}: at most {MOST_RUNS}")
    runs: list[maps.Run] = []
    facts: dict[str, Any] = {}
    seed = options.seed
    for _ in range(options.runs):
        with _stopped(options, seed) as (machine, task):
            runs.append(maps.one_run(machine.kernel, task.process, task.mm))
            seed = machine.seed + 1
            if not facts:
                facts = _facts(machine, options)
    del facts["seed"]
    _print(options.json, lambda: facts | maps.spread_facts(runs), lambda: _apart(maps.spread_sheets(runs, _width())))
    return 0


def _width() -> int | None:
    """Columns of the terminal; None for a pipe or a file."""
    return get_terminal_size().columns if sys.stdout.isatty() else None


def _apart(sheets: Sequence[Sheet]) -> list[str | Sheet]:
    """The tables with a blank line between two."""
    parts: list[str | Sheet] = []
    for sheet in sheets:
        parts += ["\n", sheet] if parts else [sheet]
    return parts


def show_translation(options: Namespace) -> int:
    """``mmuemu translate``; the exit code."""
    user = options.ring == "user"
    if options.ac and user:
        raise UsageError("--ac is for --as kernel: EFLAGS.AC matters to the supervisor only (SMAP)")
    with _stopped(options) as (machine, task):
        kernel = machine.kernel
        address = find_address(kernel, task.mm, options.place)
        walked = walks.walk_of(kernel, task, address, walks.ACCESSES[options.access], user=user, ac=options.ac)
        second = walks.other_root(kernel, task, walked)

        def facts() -> dict[str, Any]:
            other = None if second is None else walks.walk_facts(second)
            after = walks.aftermath(task, walked) or None
            return _facts(
                machine, options, pid=task.pid, place=options.place, walk=walks.walk_facts(walked), other_root=other,
                kernel_would=after,
            )  # fmt: skip

        _print(options.json, facts, lambda: walks.walk_parts(kernel, task, walked, second=second))
        return 0 if walked.allowed else REFUSED


def show_tables(options: Namespace) -> int:
    """``mmuemu pagetable``; the exit code."""
    asked = [text for text in (options.range, options.frame, options.frame_of) if text is not None]
    if len(asked) > 1:
        raise UsageError("pagetable: give one of RANGE, --frame and --frame-of")
    with _stopped(options) as (machine, task):
        if options.frame is not None:
            return _show_frame(machine, options, _frame(options.frame))
        if options.frame_of is not None:
            return _show_frame(machine, options, _frame_of(machine, task, options.frame_of))
        kernel = machine.kernel
        table = task.mm.page_table
        if options.user_root and table.user_root == table.root:
            raise UsageError("--user-root: without --kpti there is one root")
        start, end = find_range(kernel, task.mm, options.range or "user")
        root = table.user_root if options.user_root else table.root
        tree = read_tables(table, start, end, root=root)
        head = f"{maps.heading(kernel, task.process)}CR3 {root:#x}: {table.levels} levels, {summary(tree)}"
        _print(
            options.json,
            lambda: _facts(machine, options, pid=task.pid, cr3=f"{root:#x}", tree=tree_facts(tree)),
            lambda: [head, tree_sheet(tree, maps.DIGITS)],
        )
    return 0


def _show_frame(machine: Machine, options: Namespace, physical: int) -> int:
    facts = who_maps(machine.kernel, physical)
    _print(
        options.json,
        lambda: _facts(machine, options, **mapper_facts(facts)),
        lambda: mapper_parts(facts, maps.DIGITS),
    )
    return 0


def _frame(text: str) -> int:
    """The physical address that ``--frame`` means."""
    try:
        return int(text, 16) if text[:2] in ("0x", "0X") else int(text, 10) << 12
    except ValueError:
        raise UsageError(f"--frame {text}: give a frame's number, or a physical address as 0x1234000") from None


def _frame_of(machine: Machine, task: Task, place: str) -> int:
    """The physical address that a process's ``place`` is mapped to."""
    address = find_address(machine.kernel, task.mm, place)
    try:
        found = task.mm.page_table.lookup(address)
    except ValueError:
        found = None
    if found is None:
        raise UsageError(f"--frame-of {place}: process {task.pid} has nothing mapped at {address:#x} now (see --at)")
    return found.physical + (address & found.size - 1)
