"""The rounds: each contestant once, in turn, so that whatever else the machine does hits them alike."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple

from mmuemu.bench.contestants import Contestant
from mmuemu.bench.figures import Result, Row, result
from mmuemu.bench.running import Run, collect, run
from mmuemu.bench.workloads import Workload
from mmuemu.errors import MmuemuError, UsageError

_X86: Final = ("x86_64", "AMD64")


class Plan(NamedTuple):
    """How it is measured."""

    folder: Path
    """Where the programs are."""
    rounds: int
    limit: float
    """Seconds for a run."""
    quick: bool


def machine(compiler: str) -> dict[str, Any]:
    """Facts of this machine."""
    return {
        "cpu": _cpu_model(), "cores": len(os.sched_getaffinity(0)), "kernel": f"Linux {platform.release()}",
        "python": platform.python_version(), "unicorn": version("unicorn"), "compiler": compiler,
    }  # fmt: skip


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def check_host() -> None:
    """UsageError where the host does not run the guests itself: nobody could say what the right output is."""
    if platform.system() != "Linux" or platform.machine() not in _X86:
        raise UsageError("bench: needs Linux on x86-64: every output is compared with the host's own")


class _Part(NamedTuple):
    """One of the runs that a contestant makes in a round."""

    many: int
    plain: bool
    expected: bytes | None


def _parts(plan: Plan, workload: Workload) -> dict[str, _Part]:
    count, base = workload.counts(plan.quick)
    asked = {"full": (count, False)}
    if workload.count:
        asked["base"] = (base, False)
    if workload.against:
        asked |= {"plain": (count, True), "plain base": (base, True)}
    said = {many: _expected(plan, workload, many) for many in {many for many, _ in asked.values()}}
    return {name: _Part(many, plain, said[many]) for name, (many, plain) in asked.items()}


def measure(
    plan: Plan, workload: Workload, contestants: Sequence[Contestant], told: Callable[[str], None] = lambda _: None
) -> Row:
    """The row of ``workload``; ``told`` hears who is run, before each run.

    Who is wrong or does not end is not run again. MmuemuError when the host does not run the guest.
    """
    parts = _parts(plan, workload)
    count, base = workload.counts(plan.quick)
    able = [each for each in contestants if each.run(workload, count, plan.folder) is not None]
    runs: dict[str, dict[str, list[Run]]] = {each.name: {part: [] for part in parts} for each in able}
    bad: dict[str, Run] = {}
    for number, who, (name, part) in product(range(plan.rounds + 1), able, parts.items()):
        if who.name in bad:
            continue
        told(who.name)
        command = who.run(workload, part.many, plan.folder, part.plain)
        assert command is not None
        done = run(command, who.environment(), part.expected, plan.limit)
        if done.status != "ok":
            bad[who.name] = done
        elif number:
            runs[who.name][name].append(done)
    units = None if workload.probe else (count - base) * workload.per
    row = Row(workload.name, workload.title, bool(workload.count))
    for who in able:
        failed = bad.get(who.name)
        row.results[who.name] = result(runs[who.name], units) if failed is None else Result(failed.status, failed.why)
    return row


def _expected(plan: Plan, workload: Workload, count: int) -> bytes | None:
    """What the host's own run says; None for a probe."""
    if workload.probe:
        return None
    program = str(plan.folder / workload.source)
    command = [program, *(word.format(count=count, self=program) for word in workload.arguments)]
    try:
        done = collect(command, os.environ, plan.limit)
    except OSError as error:
        raise MmuemuError(f"bench: {program}: {error.strerror}") from None
    if done.late or done.code:
        why = f"does not finish within {plan.limit:g} s" if done.late else f"ends with {done.code}"
        raise MmuemuError(f"bench: {workload.name}: the host's own run {why}")
    return done.output
