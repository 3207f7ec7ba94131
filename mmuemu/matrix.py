"""``mmuemu demo --matrix``: every attack on every CPU and under every mitigation, on all cores."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Final, NamedTuple

from mmuemu.demo import console, seed_of, write_json
from mmuemu.demonstrator import DEFAULT_BYTES, Request, demonstrate, find_attack
from mmuemu.errors import MmuemuError, UsageError
from mmuemu.guest.attacks import ATTACKS
from mmuemu.reporter import open_output
from mmuemu.speculation.catalogue import NAMES, find_cpu
from mmuemu.speculation.flaws import parse_flaws
from mmuemu.speculation.mitigations import MITIGATIONS, WORDS, impossible
from mmuemu.speculation.settings import words
from mmuemu.sweep.pool import Lost, Pool
from mmuemu.view.demonstration import Demonstration
from mmuemu.view.demonstration_matrix import Cell, as_texts, draw

VERSION: Final = 1
TRIES: Final = 3
"""Attempts for a byte: what leaks does so at once, and what does not need not be tried for long."""
BY_CPU: Final = "Attacks by CPU, without mitigations"
BY_MITIGATION: Final = "Attacks by mitigation, on the first CPU that has the flaw and the means"


class Planned(NamedTuple):
    """A run and its place."""

    table: str
    column: str
    request: Request


def matrix(options: Namespace) -> int:
    """Run what ``options`` (of the command line) ask and print it; the exit code. Raises UsageError."""
    plan = _plan(options)
    base = plan[0].request
    with ExitStack() as stack:
        facts = None if options.json is None else stack.enter_context(open_output(options.json, "--json"))
        report = None if options.report is None else stack.enter_context(open_output(options.report, "--report"))
        outcomes = run_all([planned.request for planned in plan], options.jobs or len(os.sched_getaffinity(0)))
        cells = [
            Cell(table, request.attack, column, outcome)
            for (table, column, request), outcome in zip(plan, outcomes, strict=True)
        ]
        if facts is not None:
            found = [cell.as_json() for cell in cells]
            write_json({"version": VERSION, "seed": base.seed, "bytes": base.size, "cells": found}, facts)
        if report is not None:
            from mmuemu.view.demonstration_html import table_page

            report.write(table_page("Attacks by CPUs and mitigations", as_texts(cells)))
    draw(cells, console())
    return 0


def _plan(options: Namespace) -> list[Planned]:
    attacks = list(ATTACKS) if options.attacks is None else words(options.attacks)
    cpus = list(NAMES) if options.cpus is None else words(options.cpus)
    mitigations = ["auto", *MITIGATIONS] if options.mitigations is None else words(options.mitigations)
    for name in attacks:
        find_attack(name)
    for name in cpus:
        find_cpu(name, "--cpus")
    for name in mitigations:
        if name not in MITIGATIONS and name not in WORDS:
            raise UsageError(
                f"--mitigations: unknown mitigation {name!r}: choose from {', '.join([*WORDS, *MITIGATIONS])}"
            )
    if not attacks or not cpus:
        raise UsageError("demo: --attacks and --cpus name at least one each")
    parse_flaws(words(options.vulnerable), "--vulnerable")
    parse_flaws(words(options.not_vulnerable), "--not-vulnerable")
    base = Request(
        attack="", seed=seed_of(options), noise=options.noise, size=options.bytes or DEFAULT_BYTES,
        tries=options.tries or TRIES, budget=options.budget, vulnerable=options.vulnerable,
        not_vulnerable=options.not_vulnerable,
    )  # fmt: skip
    return [*_by_cpu(base, attacks, cpus), *_by_mitigation(base, attacks, cpus, mitigations)]


def _by_cpu(base: Request, attacks: list[str], cpus: list[str]) -> Iterator[Planned]:
    for name in attacks:
        for cpu in cpus:
            yield Planned(BY_CPU, cpu, replace(base, attack=name, cpu=cpu))


def _by_mitigation(base: Request, attacks: list[str], cpus: list[str], mitigations: list[str]) -> Iterator[Planned]:
    for name in attacks:
        attack = ATTACKS[name]
        if not attack.leaks:
            continue
        flawed = [cpu for cpu in cpus if find_cpu(cpu).flaws >= set(attack.flaws)]
        for mitigation in mitigations if flawed else ():
            able = [cpu for cpu in flawed if not impossible(find_cpu(cpu), mitigation)]
            request = replace(base, attack=name, cpu=(able or flawed)[0], mitigations=mitigation)
            yield Planned(BY_MITIGATION, mitigation, request)


def run_one(request: Request) -> Demonstration | str:
    """What came of it, or why it cannot be."""
    try:
        return demonstrate(request)
    except UsageError as error:
        return str(error)


def run_all(requests: Sequence[Request], jobs: int) -> list[Demonstration | str]:
    """Run them all, ``jobs`` at a time, each once; outcomes in the order of ``requests``.

    With a progress bar on standard error when that is a terminal. KeyboardInterrupt ends it at once.
    """
    once = list(dict.fromkeys(requests))
    found: dict[Request, Demonstration | str] = {}
    from rich.console import Console
    from rich.progress import Progress

    screen = Console(stderr=True)
    with Progress(console=screen, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("attacks", total=len(once))
        for request, outcome in _outcomes(once, min(jobs, len(once))):
            found[request] = outcome
            progress.update(task, advance=1, description=request.attack)
    return [found[request] for request in requests]


def _outcomes(requests: list[Request], jobs: int) -> Iterator[tuple[Request, Demonstration | str]]:
    """As they come."""
    if jobs == 1:
        for request in requests:
            yield request, run_one(request)
        return
    with Pool[Request](jobs) as pool:
        for request, outcome in pool.run(run_one, ((request, (request,)) for request in requests)):
            if isinstance(outcome, Lost):
                raise MmuemuError(f"demo --matrix: {request.attack}: {outcome.why}; less --jobs need less memory")
            yield request, outcome


__all__ = ["BY_CPU", "BY_MITIGATION", "Planned", "matrix", "run_all", "run_one"]
