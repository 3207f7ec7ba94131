"""From the file that describes a matrix to its cells."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from mmuemu import __version__
from mmuemu.errors import UsageError
from mmuemu.guest.attacks import ATTACKS
from mmuemu.jsonfile import Reader, read_text
from mmuemu.loader.layout_file import find_layout
from mmuemu.loader.layouts import LINUX, Layout
from mmuemu.memory.ram import parse_size
from mmuemu.speculation.catalogue import find_cpu
from mmuemu.speculation.mitigations import MITIGATIONS, WORDS
from mmuemu.speculation.models import CpuSpec
from mmuemu.speculation.settings import resolve, words
from mmuemu.sweep.cells import (
    ATTACK,
    LAB,
    PROGRAM,
    Cell,
    Expected,
    Limits,
    Program,
    cpu_facts,
    digest_of,
    folder_digest,
    layout_facts,
    read_bytes,
    read_folder,
    sha256,
)

ENGINES: Final = ("python", "native")
MOST_CELLS: Final = 1_000_000
MOST_SEED: Final = (1 << 64) - 1
_KEYS: Final = ("programs", "seeds", "layouts", "engines", "cpus", "mitigations", "aslr", "limits", "jobs")
_PROGRAM_KEYS: Final = ("path", "test", "args", "env", "stdin", "stdin_file", "expect", "points")
_ATTACK_KEYS: Final = ("attack", "bytes", "tries", "expect", "points")
_LAB_KEYS: Final = ("lab", "path")
_NO_CPU: Final = "none"


@dataclass(frozen=True, slots=True)
class Plan:
    """A matrix: ``facts`` are everything that decides its results, for JSON and for comparing."""

    cells: tuple[Cell, ...]
    facts: dict[str, Any]
    jobs: int | None = None
    files: dict[str, str] = field(default_factory=dict)
    """Layouts and CPU models that came from files: their names, and the files."""


class _Reader(Reader):
    """Reads one matrix; paths in it begin at ``folder``."""

    def __init__(self, name: str, folder: str) -> None:
        super().__init__(f"sweep {name}")
        self.folder = folder
        self.files: dict[str, str] = {}

    def texts(self, key: str, value: object, what: str) -> list[str]:
        return [self.string(f"{key}[{at}]", item) for at, item in enumerate(self.items(key, value, what))]

    def string(self, key: str, value: object) -> str:
        """Any text a program can be given."""
        if not isinstance(value, str) or "\0" in value:
            self.bad(key, value, "write text in quotes, without zero bytes")
        try:
            value.encode()
        except UnicodeEncodeError:
            self.bad(key, value, "it is no text (half of a surrogate pair)")
        return value

    def distinct(self, key: str, values: Sequence[Any]) -> None:
        for at, value in enumerate(values):
            if value in values[:at]:
                self.bad(f"{key}[{at}]", value, "it is there already")

    def path(self, value: str) -> str:
        return os.path.abspath(os.path.join(self.folder, value))

    # -- programs ----------------------------------------------------------------------------------------------------

    def programs(self, value: object) -> list[Program]:
        entries = self.items("programs", value, 'programs, like {"path": "hello.s"}')
        if not entries:
            self.bad("programs", value, "name at least one")
        found: list[Program] = []
        for at, entry in enumerate(entries):
            key = f"programs[{at}]"
            if not isinstance(entry, dict):
                self.bad(key, entry, 'write an object, like {"path": "hello.s"}')
            read = self._attack if "attack" in entry else self._lab if "lab" in entry else self._program
            found += read(key, entry)
        digests: set[str] = set()
        for program in found:
            if (digest := digest_of(program.facts())) in digests:
                raise UsageError(f"{self.what}: programs: {program.name} is there twice with the same arguments")
            digests.add(digest)
        return found

    def _attack(self, key: str, entry: dict[str, Any]) -> list[Program]:
        given = self.members(key, entry, _ATTACK_KEYS)
        name = self.text(f"{key}.attack", given["attack"])
        if name not in ATTACKS:
            self.bad(f"{key}.attack", name, "choose from " + ", ".join(ATTACKS))
        return [
            Program(
                ATTACK, name, size=self.range(f"{key}.bytes", given.get("bytes", 4), 1, ATTACKS[name].most),
                tries=self.range(f"{key}.tries", given.get("tries", 3), 1, 1000),
                expected=self._expected(f"{key}.expect", given.get("expect", {}), ("leak",)),
                points=self.range(f"{key}.points", given.get("points", 1), 0, 1_000_000),
            )
        ]  # fmt: skip

    def _lab(self, key: str, entry: dict[str, Any]) -> list[Program]:
        from mmuemu.labs.catalogue import ORDER

        given = self.members(key, entry, _LAB_KEYS)
        name = self.text(f"{key}.lab", given["lab"])
        if name not in ORDER:
            self.bad(f"{key}.lab", name, "choose from " + ", ".join(ORDER))
        folders = [path for path in self._paths(key, given) if os.path.isdir(self.path(path))]
        if not folders:
            self.bad(f"{key}.path", given.get("path"), "no such directory")
        return [
            Program(LAB, path, self.path(path), folder_digest(read_folder(self.path(path))), test=name, lab=name)
            for path in folders
        ]

    def _program(self, key: str, entry: dict[str, Any]) -> list[Program]:
        given = self.members(key, entry, _PROGRAM_KEYS)
        files = [path for path in self._paths(key, given) if os.path.isfile(self.path(path))]
        if not files:
            self.bad(f"{key}.path", given.get("path"), "no such file")
        pattern = Program(
            PROGRAM, "", test=self.string(f"{key}.test", given.get("test", "")),
            arguments=tuple(self.texts(f"{key}.args", given.get("args", []), "texts")),
            environment=self._environment(f"{key}.env", given.get("env", {})),
            stdin=self._bytes(key, "stdin", given), stdin_path=given.get("stdin_file", ""),
            expected=self._expected(f"{key}.expect", given.get("expect", {}), ("exit", "stdout", "stdout_file")),
            points=self.range(f"{key}.points", given.get("points", 1), 0, 1_000_000),
        )  # fmt: skip
        return [
            replace(pattern, name=path, path=self.path(path), digest=sha256(read_bytes(self.path(path), self.what)))
            for path in files
        ]

    def _paths(self, key: str, given: dict[str, Any]) -> list[str]:
        """The names that ``path``, a name, a pattern or a list of them, stands for."""
        value = given.get("path")
        patterns = self.texts(f"{key}.path", value, "paths") if isinstance(value, list) else [value]
        found: dict[str, None] = {}
        for pattern in patterns:
            text = self.text(f"{key}.path", pattern)
            if glob.has_magic(text) and not os.path.exists(self.path(text)):
                names = sorted(glob.glob(text, root_dir=self.folder, recursive=True))
                found |= {self.text(f"{key}.path", name): None for name in names}
            else:
                found[text] = None
        return list(found)

    def _environment(self, key: str, value: object) -> tuple[tuple[str, str], ...]:
        if not isinstance(value, dict):
            self.bad(key, value, 'write an object, like {"LANG": "C"}')
        for name in value:
            if not name or "=" in name or "\0" in name:
                self.bad(key, name, "it is no name of a variable")
        return tuple((name, self.string(f"{key}.{name}", text)) for name, text in value.items())

    def _bytes(self, key: str, name: str, given: dict[str, Any]) -> bytes:
        """A text, or the content of the file that ``NAME_file`` names."""
        text, path = given.get(name), given.get(f"{name}_file")
        if path is None:
            return b"" if text is None else self.string(f"{key}.{name}", text).encode()
        if text is not None:
            raise UsageError(f"{self.what}: {key}: give {name} or {name}_file, not both")
        return read_bytes(self.path(self.text(f"{key}.{name}_file", path)), f"{self.what}: {key}.{name}_file")

    def _expected(self, key: str, value: object, known: Sequence[str]) -> Expected:
        given = self.members(key, value, known)
        code = None if "exit" not in given else self.range(f"{key}.exit", given["exit"], 0, 255)
        leaks = None if "leak" not in given else self.flag(f"{key}.leak", given["leak"])
        output = sha256(self._bytes(key, "stdout", given)) if given.keys() & {"stdout", "stdout_file"} else None
        return Expected(code, output, leaks)

    # -- the other axes ----------------------------------------------------------------------------------------------

    def seeds(self, value: object) -> list[int]:
        if isinstance(value, dict):
            given = self.members("seeds", value, ("first", "count"))
            first = self.range("seeds.first", given.get("first", 1), 0, MOST_SEED - MOST_CELLS)
            return list(range(first, first + self.range("seeds.count", given.get("count"), 1, MOST_CELLS)))
        found = [
            self.range(f"seeds[{at}]", seed, 0, MOST_SEED)
            for at, seed in enumerate(self.items("seeds", value, 'numbers, or an object {"first": 1, "count": 8}'))
        ]
        if len(set(found)) < len(found):
            self.distinct("seeds", found)
        return found

    def named(self, key: str, value: object, find: Callable[[str], Any]) -> list[Any]:
        """What the names (or files) of one axis mean."""
        found = []
        for name in self.texts(key, value, "names"):
            path = self.path(name) if name.endswith(".json") else name
            try:
                found.append(find(path))
            except UsageError as error:
                raise UsageError(f"{self.what}: {key}: {error}") from None
            if path is not name:
                self.files[found[-1].name] = path
        self.distinct(key, [getattr(item, "name", item) for item in found])
        return found

    def mitigations(self, value: object) -> list[str]:
        texts = self.texts("mitigations", value, "texts like --mitigations takes")
        for at, text in enumerate(texts):
            for word in words(text):
                if word.partition("=")[0] not in (*WORDS, *MITIGATIONS):
                    self.bad(f"mitigations[{at}]", text, "choose from " + ", ".join([*WORDS, *MITIGATIONS]))
        self.distinct("mitigations", texts)
        return texts

    def limits(self, value: object) -> Limits:
        given = self.members("limits", value, Limits.__slots__)
        base = Limits()
        timeout = given.get("timeout", base.timeout)
        if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float))):
            self.bad("limits.timeout", timeout, "write seconds, or null for the default")
        if timeout is not None and not 0.01 <= timeout <= 1e6:
            self.bad("limits.timeout", timeout, "write seconds from 0.01 to 1000000")
        most = given.get("max_instructions", base.max_instructions)
        if most is not None:
            self.range("limits.max_instructions", most, 1, 1 << 62)
        return Limits(timeout, most, self._memory(given.get("memory", base.memory)),
                      self.range("limits.output", given.get("output", base.output), 0, 1 << 20))  # fmt: skip

    def _memory(self, value: object) -> int:
        if isinstance(value, str):
            try:
                value = parse_size(value)
            except UsageError as error:
                self.bad("limits.memory", value, str(error))
        return self.range("limits.memory", value, 1 << 20, 1 << 40)


def _engine(name: str) -> str:
    if name not in ENGINES:
        raise UsageError(f"{name}: choose from {', '.join(ENGINES)}")
    return name


def _why_impossible(program: Program, layout: Layout, engine: str, cpu: CpuSpec | None, mitigations: str) -> str:
    """Why there is no such machine; empty when there is."""
    if program.kind == ATTACK and (layout.name, engine) != (LINUX.name, ENGINES[0]):
        return f"attacks run on layout {LINUX.name} and engine {ENGINES[0]}"
    if program.kind == ATTACK and cpu is None:
        return "an attack needs a CPU model: name some in cpus"
    try:
        resolve(cpu, mitigations=mitigations, mmu=engine)
    except UsageError as error:
        return str(error)
    return ""


@dataclass(frozen=True, slots=True)
class _Axes:
    """All axes but the programs."""

    seeds: list[int]
    layouts: list[Layout]
    engines: list[str]
    cpus: list[CpuSpec | None]
    mitigations: list[str]
    aslr: bool
    limits: Limits

    def facts(self) -> dict[str, Any]:
        return {
            "seeds": self.seeds,
            "layouts": {layout.name: layout_facts(layout) for layout in self.layouts},
            "engines": self.engines,
            "cpus": {_NO_CPU if cpu is None else cpu.name: cpu_facts(cpu) for cpu in self.cpus},
            "mitigations": self.mitigations,
            "aslr": self.aslr,
            "limits": {name: getattr(self.limits, name) for name in Limits.__slots__},
        }

    def cells(self, programs: list[Program]) -> Iterator[Cell]:
        limits = digest_of([__version__, self.aslr, self.facts()["limits"]])
        layouts = {layout.name: layout_facts(layout) for layout in self.layouts}
        cpus = {cpu: cpu_facts(find) for cpu, find in ((_NO_CPU if c is None else c.name, c) for c in self.cpus)}
        for program in programs:
            mine = digest_of(program.facts())
            if program.kind == LAB:
                yield Cell(program, self.limits, key=sha256(f"{limits} {mine}".encode())[:32])
                continue
            for layout, engine, cpu, mitigations in itertools.product(
                self.layouts, self.engines, self.cpus, self.mitigations
            ):
                why = _why_impossible(program, layout, engine, cpu, mitigations)
                rest = [
                    limits,
                    mine,
                    layouts[layout.name],
                    engine,
                    cpus[_NO_CPU if cpu is None else cpu.name],
                    mitigations,
                ]
                for seed in self.seeds:
                    key = sha256(repr([*rest, seed]).encode())[:32]
                    yield Cell(program, self.limits, seed, engine, layout, cpu, mitigations, self.aslr, why, key)


def parse(text: str, name: str, folder: str) -> Plan:
    """The matrix that the JSON ``text`` describes, called ``name`` in messages; its paths begin at ``folder``.

    Raises UsageError.
    """
    reader = _Reader(name, folder)
    given = reader.members("", reader.document(text, "write an object, as docs/howto-sweep.md shows"), _KEYS)
    if "programs" not in given:
        raise UsageError(f"{reader.what}: programs is missing: write a list of what is to run")
    axes = _Axes(
        seeds=reader.seeds(given.get("seeds", [1])),
        layouts=reader.named("layouts", given.get("layouts", [LINUX.name]), find_layout),
        engines=reader.named("engines", given.get("engines", [ENGINES[0]]), _engine),
        cpus=reader.named(
            "cpus", given.get("cpus", [_NO_CPU]), lambda name: None if name == _NO_CPU else find_cpu(name)
        ),
        mitigations=reader.mitigations(given.get("mitigations", ["off"])),
        aslr=reader.flag("aslr", given.get("aslr", True)),
        limits=reader.limits(given.get("limits", {})),
    )
    for key in ("seeds", "layouts", "engines", "cpus", "mitigations"):
        if not getattr(axes, key):
            reader.bad(key, [], "name at least one")
    programs = reader.programs(given["programs"])
    several = len(axes.seeds) * len(axes.layouts) * len(axes.engines) * len(axes.cpus) * len(axes.mitigations)
    if several * len(programs) > MOST_CELLS:
        raise UsageError(f"{reader.what}: {several * len(programs):,} cells: at most {MOST_CELLS:,}")
    jobs = None if given.get("jobs") is None else reader.range("jobs", given["jobs"], 1, 1024)
    facts = {"mmuemu": __version__, "programs": [program.facts() for program in programs], **axes.facts()}
    return Plan(tuple(axes.cells(programs)), facts, jobs, reader.files)


def read_plan(path: str) -> Plan:
    """The matrix of the file ``path``. Raises UsageError."""
    text = read_text(path, "sweep", "sweep")
    return parse(text, os.path.basename(path), os.path.dirname(os.path.abspath(path)))


__all__ = ["ENGINES", "MOST_CELLS", "Plan", "parse", "read_plan"]
