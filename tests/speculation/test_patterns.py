"""Programs built as published attacks are: by the host's gcc, static, deciding by a threshold that they measure.

Each prints what it found, a question mark for a byte that it gave up. They know nothing of the emulator; what they
find is what the CPU model lets them.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from mmuemu.machine import Machine

HERE: Final = Path(__file__).parent / "patterns"
pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


class Pattern(NamedTuple):
    """``hidden`` is what it finds out (None: the kernel's secret), by ``flaw``; ``against`` are mitigations of that."""

    flaw: str
    hidden: str | None
    optimized: tuple[str, ...] = ("-O1",)
    against: tuple[str, ...] = ()


PATTERNS: Final = {
    "bounds": Pattern("v1", "v1!", ("-O0",)),
    "objects": Pattern("v2", "v2", ("-O0", "-O1")),
    "recursion": Pattern("rsb", "rsb"),
    "pointers": Pattern("v4", "v4!", against=("ssbd",)),
    "jumps": Pattern("meltdown", None, ("-O0",), against=("kpti",)),
    "flips": Pattern("l1tf", "p0!", against=("pte-inversion",)),
}
CASES: Final = [(name, level) for name, pattern in PATTERNS.items() for level in pattern.optimized]


class Built:
    """The programs, each compiled when it is first asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, name: str, level: str | None = None) -> Path:
        level = level or PATTERNS[name].optimized[-1]
        made = self.directory / (name + level)
        if not made.exists():
            flags = [level, "-static", "-w", "-fno-stack-protector"]
            subprocess.run(["gcc", *flags, str(HERE / f"{name}.c"), "-o", str(made)], check=True)
        return made


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built(tmp_path_factory.mktemp("patterns"))


def found(machine: Machine, program: Path) -> str:
    process = machine.spawn(str(program), environment={})
    process.wait(max_instructions=20_000_000)
    assert process.exit_code == 0
    return process.stdout.decode().removesuffix("\n")


def expected(name: str, machine: Machine) -> str:
    hidden = PATTERNS[name].hidden
    return machine.kernel.secret[:3].decode() if hidden is None else hidden


@pytest.mark.parametrize(("name", "level"), CASES)
def test_finds_it_on_a_cpu_with_the_flaw(name: str, level: str, built: Built) -> None:
    with Machine(seed=3, cpu="skylake", show_secret=True) as machine:
        assert found(machine, built(name, level)) == expected(name, machine)


@pytest.mark.parametrize("name", ["bounds", "recursion"])
def test_finds_it_when_that_flaw_is_the_only_one(name: str, built: Built) -> None:
    pattern = PATTERNS[name]
    with Machine(seed=4, cpu="skylake", not_vulnerable="all", vulnerable=pattern.flaw, show_secret=True) as machine:
        assert found(machine, built(name)) == expected(name, machine)


@pytest.mark.parametrize("name", ["recursion", "flips"])
def test_finds_nothing_when_only_that_flaw_is_missing(name: str, built: Built) -> None:
    pattern = PATTERNS[name]
    with Machine(seed=5, cpu="skylake", not_vulnerable=pattern.flaw, show_secret=True) as machine:
        hidden = expected(name, machine)
        assert not set(hidden) & set(found(machine, built(name)))


@pytest.mark.parametrize(
    ("name", "mitigation"), [(name, each) for name, pattern in PATTERNS.items() for each in pattern.against]
)
def test_finds_nothing_when_mitigated(name: str, mitigation: str, built: Built) -> None:
    with Machine(seed=6, cpu="skylake", mitigations=mitigation, show_secret=True) as machine:
        hidden = expected(name, machine)
        assert not set(hidden) & set(found(machine, built(name)))


@pytest.mark.parametrize("name", ["bounds", "recursion"])
def test_runs_where_nothing_speculates(name: str, built: Built) -> None:
    with Machine(seed=7, show_secret=True) as machine:
        assert found(machine, built(name)) != expected(name, machine)


def test_one_seed_one_result(built: Built) -> None:
    seen = set()
    for _ in range(2):
        with Machine(seed=8, cpu="skylake") as machine:
            core = machine.speculation
            assert core is not None
            seen.add((found(machine, built("objects")), core.cycles, core.instructions, core.windows))
    assert len(seen) == 1
