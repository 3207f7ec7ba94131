"""The programs whose runs are hashed, and the machines they run on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mmuemu.demonstrator import default_cpu
from mmuemu.guest.attacks import ATTACKS, program
from mmuemu.linked import linked_files
from mmuemu.machine import Files, Machine
from mmuemu.sources import build
from tests.determinism import guests
from tests.determinism.trace import Traced, digest, trace_hash

ROOT: Final = Path(__file__).parents[2]
ENGINES: Final = ("python", "native")
ENVIRONMENT: Final = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC0"}
MOST: Final = 60_000_000
"""Instructions. They are counted of all but the compiled programs, which run as people run them."""


@dataclass(frozen=True)
class Program:
    """One program on one kind of machine."""

    image: Callable[[Path], bytes]
    """Its ELF file, given the directory of the compiled ones."""
    arguments: tuple[str, ...] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)
    """What :class:`Machine` is told besides."""
    compiled: str = ""
    """The file in the directory of the compiled ones; empty: its bytes are the same everywhere."""
    dynamic: bool = False

    @property
    def engines(self) -> tuple[str, ...]:
        """Transient execution is the ``python`` engine's alone."""
        return ENGINES[:1] if "cpu" in self.machine else ENGINES


def _guest(name: str, **machine: Any) -> Program:
    return Program(lambda _: guests.image(name), machine=machine)


def _sample(name: str) -> Program:
    return Program(lambda _: build(str(ROOT / "samples" / name)))


def _attack(name: str, **machine: Any) -> Program:
    cpu = machine.pop("cpu", default_cpu(ATTACKS[name]))
    machine = {"cpu": cpu, "show_secret": True, "noise": 3, **machine}
    return Program(lambda _: program(name).read_bytes(), ("1", "2", "1"), machine)


def _compiled(words: str, flavour: str) -> Program:
    name, *arguments = words.split()
    file = f"{name}-{flavour}"
    return Program(
        lambda directory: (directory / file).read_bytes(), tuple(arguments), compiled=file,
        dynamic=flavour.endswith("-dynamic"),
    )  # fmt: skip


COMPILED: Final[dict[str, tuple[str, ...]]] = {
    "glibc-static": ("threads", "sigframes", "family", "sigcalls", "pipes", "files", "mappings", "sysvipc", "floats"),
    "musl-static": ("heap", "scheduling", "locks", "directories", "processes forks", "clocks", "ptys", "moments"),
    "glibc-static-pie": (
        "algorithms",
        "sharing",
        "layout hints",
        "selfmodify",
        "descriptors",
        "events",
        "processes groups",
    ),
    "glibc-dynamic": ("threads", "procself argument", "sockets", "processes waits", "vdso"),
}
"""C programs of ``tests/run/programs`` with their arguments, by how they are built."""

PROGRAMS: Final[dict[str, Program]] = {
    **{name: _guest(name) for name in guests.GUESTS},
    "hello": _sample("hello.s"),
    "peek-kernel": _sample("peek_kernel.s"),
    "threads, 5 levels": _guest("threads", layout="linux-5level", schedule=7),
    "cow, KPTI": _guest("cow", kpti=True),
    "chance, Windows": _guest("chance", layout="windows-x64", seed=2),
    "pages, 32M": _guest("pages", memory="32M", aslr=False),
    "forks, coop": _guest("forks", schedule="coop"),
    "pipe, zen2": _guest("pipe", cpu="zen2", mitigations="auto"),
    "jobs, root": _guest("jobs", user=(0, 0)),
    **{f"attack {name}": _attack(name) for name in ATTACKS},
    "attack meltdown, mitigated": _attack("meltdown", mitigations="auto"),
    "attack v1, in order": _attack("v1", cpu="in-order"),
    **{f"{words}, {flavour}": _compiled(words, flavour) for flavour, all in COMPILED.items() for words in all},
}  # fmt: skip
"""By name."""
RECORDED: Final = tuple(name for name, one in PROGRAMS.items() if not one.compiled)
"""Those whose bytes are the same on every machine."""


@dataclass(frozen=True)
class Finding:
    """What one run of a program came to."""

    image: str
    """A digest of its ELF file."""
    trace: str
    traced: Traced


def run(name: str, engine: str, directory: Path = Path(), log: Callable[[str], object] | None = None) -> Finding:
    """Hash a run of the program called ``name``; the compiled ones lie in ``directory``."""
    one = PROGRAMS[name]
    image = one.image(directory)
    files = Files(isolate=True, cwd="/tmp", programs=linked_files(str(directory / one.compiled)) if one.dynamic else ())
    settings = {"memory": "128M", "seed": 1, **one.machine}
    with Machine(mmu=engine, files=files, **settings) as machine:
        traced = trace_hash(
            machine,
            image,
            ["program", *one.arguments],
            ENVIRONMENT,
            max_instructions=None if one.compiled else MOST,
            log=log,
        )
    return Finding(digest(image), traced.hash, traced)
