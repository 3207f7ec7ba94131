"""Runs one attack of ``samples/speculation`` on a machine, and judges what it believes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mmuemu.errors import Exit, UsageError
from mmuemu.guest.attacks import ATTACKS, Attack, program
from mmuemu.guest.attacks.output import read_told
from mmuemu.machine import Files, Machine
from mmuemu.speculation.catalogue import NAMES, find_cpu
from mmuemu.speculation.flaws import FLAWS
from mmuemu.view.demonstration import Demonstration

if TYPE_CHECKING:
    from mmuemu.speculation.models import CpuSpec
    from mmuemu.speculation.trace import Window

DEFAULT_BYTES: Final = 4
DEFAULT_TRIES: Final = 10
_VALUES: Final = 256
_MEMORY: Final = 64 << 20
_START: Final = 2_000_000
_PER_BYTE: Final = 1_500_000
"""Instructions that are enough for each byte with all attempts, for the longest of them."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be shown. Names are those of the command line."""

    attack: str
    cpu: str | CpuSpec | None = None
    """None: the first model that has the flaws."""
    mitigations: str = "off"
    vulnerable: str = ""
    not_vulnerable: str = ""
    size: int = DEFAULT_BYTES
    seed: int = 1
    noise: int | None = None
    tries: int = DEFAULT_TRIES
    """Attempts for each byte."""
    budget: int | None = None
    """Guest instructions."""


def find_attack(name: str) -> Attack:
    """The attack called ``name``. Raises UsageError, listing the known ones."""
    if name not in ATTACKS:
        raise UsageError(f"demo: unknown attack {name!r}: choose from {', '.join(ATTACKS)}")
    return ATTACKS[name]


def default_cpu(attack: Attack) -> str:
    """The first CPU model that has what ``attack`` needs, or the first of all."""
    return next((name for name in NAMES if find_cpu(name).flaws >= set(attack.flaws)), NAMES[0])


def _most(attack: Attack, size: int) -> int:
    if not 1 <= size <= attack.most:
        raise UsageError(f"--bytes {size}: the attack can leak 1 to {attack.most}")
    return size


@dataclass(slots=True)
class _Watch:
    """Counts transient fills of the lines of the program's ``probe``."""

    first: int
    size: int
    fills: Counter[tuple[int, tuple[str, ...]]] = field(default_factory=Counter)
    """By line (its number) and chain of causes."""
    next: Callable[[Window], None] | None = None
    """Who wants the window besides."""

    def window(self, window: Window) -> None:
        """Count the fills of ``window``."""
        if self.next is not None:
            self.next(window)
        for fill in window.fills:
            at = fill.linear - self.first
            if 0 <= at < self.size:
                self.fills[at * _VALUES // self.size, fill.causes] += 1

    def of(self, values: set[int] | None) -> Counter[tuple[str, ...]]:
        """By chain, for the lines of ``values`` (None: all)."""
        found: Counter[tuple[str, ...]] = Counter()
        for (value, causes), count in self.fills.items():
            if values is None or value in values:
                found[causes] += count
        return found


def _probe(name: str) -> tuple[int, int]:
    """Address and size of the program's ``probe``."""
    from elftools.elf.elffile import ELFFile

    with program(name).open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".symtab")
        found = symbols.get_symbol_by_name("probe") if symbols is not None else None
        return (0, 0) if not found else (found[0]["st_value"], found[0]["st_size"])


def demonstrate(
    request: Request, trace: Callable[[Machine], AbstractContextManager[object]] | None = None
) -> Demonstration:
    """Run the attack that ``request`` describes to its end or budget.

    ``trace`` is entered around the run. Raises UsageError for what cannot be asked.
    """
    attack = find_attack(request.attack)
    size = _most(attack, request.size)
    budget = request.budget if request.budget is not None else _START + _PER_BYTE * size
    machine = Machine(
        memory=_MEMORY, seed=request.seed, cpu=request.cpu or default_cpu(attack), mitigations=request.mitigations,
        vulnerable=request.vulnerable, not_vulnerable=request.not_vulnerable, noise=request.noise, show_secret=True,
        files=Files(isolate=True, cwd="/"),
    )  # fmt: skip
    try:
        core, settings = machine.speculation, machine.speculation_settings
        assert core is not None
        assert settings is not None
        image = program(request.attack).read_bytes()
        process = machine.spawn(image, [request.attack, str(size), str(request.tries)], {})
        watch = _Watch(*_probe(request.attack))
        with trace(machine) if trace is not None else nullcontext():
            watch.next, core.on_window = core.on_window, watch.window
            started = time.process_time()
            outcome = machine.run(max_instructions=budget)
            seconds = time.process_time() - started
        told = read_told(process.stdout)
        result = Demonstration(
            attack=request.attack, cpu=settings.spec.name, mitigations=str(settings.mitigations),
            flaws=tuple(name for name in FLAWS if name in core.flaws), seed=machine.seed, noise=request.noise,
            size=size,
            secret=(told.secret or _secret(machine, attack, size))[:size], told=told, budget=budget,
            exhausted=outcome.limit is not None, instructions=core.instructions, windows=core.windows,
            guest_exit=0 if outcome.exit_code == Exit.LIMIT else outcome.exit_code,
            cycles=core.cycles, seconds=seconds, probe_fills=watch.of(None),
        )  # fmt: skip
        if attack.flaws:
            result.fills = watch.of({byte for byte, right in zip(result.leaked, result.right, strict=True) if right})
            believed = {byte for byte, sure in zip(told.leaked, told.sure, strict=False) if sure}
            result.misled = watch.of(believed - set(result.secret))
        return result
    finally:
        machine.close()


def _secret(machine: Machine, attack: Attack, size: int) -> bytes:
    """The secret that the program does not know itself."""
    if attack.secret == "kernel":
        return machine.kernel.secret
    if attack.secret == "text":
        return machine.kernel.memory.layout.text.to_bytes(8, "big")[-size:]
    return b""
