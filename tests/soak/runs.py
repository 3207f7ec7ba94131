"""One run of the soak: a program, options and stops, all drawn from one number."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from mmuemu.machine import Files, Machine
from tests.kernel import isolation
from tests.run.harness import ENVIRONMENT, Programs
from tests.run.test_processes import MODES
from tests.soak.checks import TlbShadow, at_rest, handles, settled, view
from tests.stress import LINES, PLAIN

_STRETCHES: Final = {False: (5_000_000,) * 12, True: (100_000,) * 10}
"""Instructions between two looks after the drawn stops, by whether the CPU speculates; then the run is cut off."""
PATIENCE: Final = 300
"""Seconds of the host for one stretch."""
MOST_STOPS: Final = 25
_GUESTS: Final = Path(__file__).parent / "guest"
_TESTS: Final = Path(__file__).resolve().parents[1]
_LETTERS: Final = "pppsfFwwwwwwlludrRkkkbx"
_OWN: Final = frozenset({"mix", "memory_script", "fuzz", "jit"})
"""Programs whose exit code 0 says that they found what they expected."""


@dataclass(frozen=True)
class Plan:
    """What a run is to be."""

    name: str
    command: tuple[str, ...]
    options: dict[str, Any]
    stops: tuple[int, ...]
    own: bool

    def __str__(self) -> str:
        shown = " ".join(f"{key}={value}" for key, value in self.options.items() if value is not None)
        return f"{self.name} {' '.join(self.command[1:])[:80]!r} {shown}"


@dataclass
class Ending:
    """How it went."""

    instructions: int = 0
    checks: int = 0
    cut: bool = False
    translations: int = 0
    code: int = 0
    out: bytes = field(default=b"", repr=False)


class Workshop:
    """Where programs are built, and the host's directory that guests see and cannot change."""

    def __init__(self, top: Path) -> None:
        self.top = top
        (top / "programs").mkdir(exist_ok=True)
        self._programs = Programs(top / "programs")
        self.shown = top / "shown"
        if not self.shown.exists():
            self._furnish()
        self.digest = view(self.shown)

    def _furnish(self) -> None:
        """Files to read, to overwrite, to remove and to rename."""
        (self.shown / "d" / "e").mkdir(parents=True)
        for number in range(6):
            (self.shown / f"file{number}").write_bytes(bytes([number]) * 1000 * number)
            (self.shown / "d" / f"x{number}").write_bytes(b"text\n" * number)
        (self.shown / "link").symlink_to("file1")
        (self.shown / "mapped").write_bytes(b"m" * 9000)

    def _compiled(self, source: Path, *flags: str) -> str:
        target = self.top / "programs" / source.stem
        if not target.exists():
            scratch = target.with_suffix(f".{os.getpid()}")
            command = ["gcc", "-O1", "-w", "-static", *flags, str(source), "-o", str(scratch)]
            subprocess.run(command, check=True, timeout=60)
            os.replace(scratch, target)
        return str(target)

    def _mix(self, random: Random) -> tuple[str, ...]:
        program = self._compiled(_GUESTS / "mix.c", "-pthread")
        return program, str(random.randrange(1 << 31)), str(random.randrange(5, 60))

    def _script(self, random: Random) -> tuple[str, ...]:
        steps = (random.choice(_LETTERS) + random.choice("abcd") + random.choice("abcdef") for _ in range(24))
        return str(self._programs("memory_script")), "paasabfcaFda" + "".join(steps)

    def _calls(self, random: Random) -> tuple[str, ...]:
        program = self._compiled(_TESTS / "hostile" / "guest" / "fuzz.c")
        return program, str(random.randrange(1, 1 << 31)), str(random.randrange(50, 400))

    def _jit(self, random: Random) -> tuple[str, ...]:
        steps, pages = random.choice((("400", "20"), ("150", "90"), ("40", "550")))
        return str(self._programs("jit")), str(random.randrange(1, 1 << 31)), steps, pages

    def _plain(self, random: Random) -> tuple[str, ...]:
        return (str(self._programs(random.choice(PLAIN))),)

    def _modes(self, random: Random) -> tuple[str, ...]:
        name = random.choice(sorted(MODES))
        return str(self._programs(name)), random.choice(MODES[name])

    def _line(self, random: Random) -> tuple[str, ...]:
        return "/bin/bash", "-c", random.choice(LINES)

    def plan(self, number: int) -> Plan:
        """Run ``number``."""
        random = Random(f"soak {number}")
        kinds: dict[Callable[[Random], tuple[str, ...]], int] = {
            self._mix: 8, self._script: 4, self._calls: 4, self._jit: 2, self._plain: 2, self._modes: 2, self._line: 1,
        }  # fmt: skip
        (make,) = random.choices(list(kinds), list(kinds.values()))
        command = make(random)
        # Others take minutes when every instruction is modelled.
        speculating = make in (self._mix, self._script) and random.randrange(16) == 0
        options: dict[str, Any] = {
            "seed": random.randrange(1 << 31),
            "memory": random.choice(("64M", "128M", "256M", "1G")),
            "mmu": "python" if speculating else random.choice(("python", "python", "native")),
            "schedule": random.choice((None, None, random.randrange(1 << 31), "coop")),
            "layout": random.choice(("linux", "linux", "linux", "linux-5level", "split-2g", "windows-x64")),
            "kpti": random.randrange(5) == 0,
            "aslr": random.randrange(4) != 0,
            "user": random.choice(((1000, 1000), (1000, 1000), (0, 0))),
            "thp": random.choice(("always", "always", "madvise", "never")),
        }
        if speculating:
            options |= {"cpu": "skylake", "layout": "linux", "mitigations": random.choice(("off", "auto"))}
        reach = 10 ** random.uniform(2.5, 4.0 if speculating else 5.5)
        stops = tuple(int(random.expovariate(1 / reach)) + 1 for _ in range(random.randrange(MOST_STOPS)))
        name = Path(command[0]).name.partition("-")[0]
        return Plan(name, command, options, stops, name in _OWN)

    def run(self, plan: Plan) -> Ending:
        """Carry it out. Raises AssertionError for what does not hold, and whatever else goes wrong."""
        before = handles()
        ending = Ending()
        files = Files(cwd="/work", mounts=[f"{self.shown}:/work"], programs=[plan.command[0]])
        with Machine(files=files, max_processes=120, **plan.options) as machine:
            shadow = TlbShadow(machine.kernel)
            arguments = [Path(plan.command[0]).name, *plan.command[1:]]
            process = machine.spawn(plan.command[0], arguments, dict(ENVIRONMENT))
            self._through(machine, plan, shadow, ending)
            ending.code, ending.out = process.exit_code or 0, bytes(process.stderr)
        assert view(self.shown) == self.digest, "the host's files have changed"
        after = settled(before)
        assert after[0] <= before[0], f"descriptors before and after: {before[0]}, {after[0]}"
        assert after[1] <= before[1], f"threads before and after: {before[1]}, {after[1]}"
        if plan.own and not ending.cut:
            assert ending.code == 0, f"the program says {ending.out[-500:]!r} and ends with {ending.code}"
        return ending

    def _through(self, machine: Machine, plan: Plan, shadow: TlbShadow, ending: Ending) -> None:
        """Run to the end, looking at everything at each stop."""
        for most in (*plan.stops, *_STRETCHES["cpu" in plan.options]):
            outcome = machine.run(max_instructions=most, timeout=PATIENCE)
            ending.instructions += machine.instructions or 0
            isolation.check(machine.kernel)
            shadow.check()
            ending.checks += 1
            assert outcome.limit != "timeout", "it hangs"
            if outcome.limit is None:
                at_rest(machine.kernel)
                break
        else:
            ending.cut = True
        ending.translations = shadow.checked
