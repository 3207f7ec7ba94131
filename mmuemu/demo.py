"""``mmuemu demo``: one attack shown, the list of them, or all by CPUs and mitigations."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from contextlib import ExitStack
from secrets import randbelow
from typing import IO, TYPE_CHECKING, Any, Final

from mmuemu.demonstrator import DEFAULT_BYTES, DEFAULT_TRIES, Request, demonstrate, find_attack
from mmuemu.errors import UsageError
from mmuemu.reporter import open_output
from mmuemu.tracing import machine_trace

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rich.console import Console

    from mmuemu.machine import Machine

_SEEDS: Final = 1 << 32
_ONE_ONLY: Final = ("cpu", "trace", "trace_file", "name")
_MATRIX_ONLY: Final = ("attacks", "cpus", "jobs")


def demo(options: Namespace) -> int:
    """What ``options`` (of the command line) ask; the exit code. Raises UsageError."""
    if options.matrix:
        _refuse(options, _ONE_ONLY, "--matrix shows many attacks: {} is for one (see --attacks, --cpus)")
        from mmuemu.matrix import matrix

        return matrix(options)
    _refuse(options, _MATRIX_ONLY, "{} is for --matrix")
    if options.name is None:
        return _list(options)
    return _one(options)


def _refuse(options: Namespace, names: tuple[str, ...], why: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            shown = "NAME" if name == "name" else f"--{name.replace('_', '-')}"
            raise UsageError(f"demo: {why.format(shown)}")


def seed_of(options: Namespace) -> int:
    """``--seed``, or a fresh one."""
    return randbelow(_SEEDS) if options.seed is None else options.seed


def console() -> Console:
    """Standard output."""
    from rich.console import Console

    return Console(highlight=False)


def _list(options: Namespace) -> int:
    for name in ("json", "report", "trace", "trace_file"):
        if getattr(options, name) is not None:
            raise UsageError(f"demo: --{name.replace('_', '-')} of which attack? (mmuemu demo lists them)")
    from mmuemu.view.demonstration_text import listing

    sys.stdout.write("".join(f"{line}\n" for line in listing()))
    return 0


def _request(options: Namespace) -> Request:
    find_attack(options.name)
    return Request(
        attack=options.name, cpu=options.cpu, vulnerable=options.vulnerable, not_vulnerable=options.not_vulnerable,
        mitigations=options.mitigations or "off",
        size=options.bytes or DEFAULT_BYTES, seed=seed_of(options),
        noise=options.noise, tries=options.tries or DEFAULT_TRIES, budget=options.budget,
    )  # fmt: skip


def _one(options: Namespace) -> int:
    request = _request(options)

    def trace(machine: Machine) -> AbstractContextManager[object]:
        return machine_trace(machine, options, f"/tmp/{request.attack}", [request.attack], sys.stderr.write)

    with ExitStack() as stack:
        report = None if options.report is None else stack.enter_context(open_output(options.report, "--report"))
        facts = None if options.json is None else stack.enter_context(open_output(options.json, "--json"))
        shown = demonstrate(request, trace)
        if facts is not None:
            write_json(shown.as_json(), facts)
        if report is not None:
            from mmuemu.view.demonstration_html import page

            report.write(page(shown))
    from mmuemu.view.demonstration_text import draw

    draw(shown, console())
    return shown.exit_code


def write_json(what: Any, file: IO[str]) -> None:
    """As people and programs can read it."""
    json.dump(what, file, indent=2)
    file.write("\n")
