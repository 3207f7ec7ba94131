"""The public API as text, names and signatures: ``python -m tests.api.record`` writes public.txt anew.

What is public is said in docs/reference-stability.md.
"""

from __future__ import annotations

import argparse
import enum
import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from mmuemu import cli

RECORD = Path(__file__).parent / "public.txt"
STABLE = {
    "mmuemu": ("__version__",),
    "mmuemu.errors": ("Exit", "MmuemuError", "UsageError", "BadImage"),
    "mmuemu.kernel.exec": ("NotFound",),
    "mmuemu.machine": ("Machine", "Outcome", "Files"),
    "mmuemu.guestprocess": ("GuestProcess", "Thread", "Area"),
    "mmuemu.kernel.events": ("FaultEvent", "SyscallEvent"),
    "mmuemu.saving.snapshots": ("Snapshot",),
    "mmuemu.stopping": ("run_to",),
    "mmuemu.sources": ("assemble", "build", "labels"),
    "mmuemu.cpu.attach": ("attach", "Attachment"),
    "mmuemu.leaks": ("leaks", "LeakReport", "Subject", "Touch"),
    "mmuemu.testing": import_module("mmuemu.testing").__all__,
    "mmuemu.testing.session": ("Guest",),
    "mmuemu.testing.bare": ("Bare", "BareResult", "BootResult"),
    "mmuemu.testing.results": ("Result",),
    "mmuemu.testing.faults": ("Fault",),
    "mmuemu.testing.recorder": ("Call", "Fill"),
    "mmuemu.testing.programs": ("Program",),
    "mmuemu.testing.walks": ("Walk",),
    "mmuemu.mmu.state": ("Access", "Translation", "PageFault"),
    "mmuemu.view.regions": ("Region",),
    "mmuemu.view.tables": ("Table", "Run"),
    "mmuemu.view.mappers": ("FrameFacts", "Mapper"),
}
"""Module -> what of it the rules hold for."""
CONSTRUCTED = {"Machine", "Files", "Subject"}
"""Classes that their user makes; the others come from calls."""
FORMATS = {
    "mmuemu run --json": "mmuemu.runner.JSON_VERSION",
    "mmuemu boot --json": "mmuemu.booter.JSON_VERSION",
    "mmuemu maps, translate, pagetable --json": "mmuemu.inspector.JSON_VERSION",
    "mmuemu demo --json": "mmuemu.view.demonstration.VERSION",
    "mmuemu demo --matrix --json": "mmuemu.matrix.VERSION",
    "mmuemu lab check --json": "mmuemu.labs.checking.JSON_VERSION",
    "mmuemu doctor --json": "mmuemu.view.checkup.VERSION",
    "--mmuemu-artifacts": "mmuemu.testing.artifacts.JSON_VERSION",
    "mmuemu run --save": "mmuemu.saving.file.FORMAT",
    "--trace-file": "mmuemu.view.transient_file.VERSION",
}
"""File format -> where its version stands."""


def text(value: Any) -> str:
    """A default value, the same on every Python."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if inspect.isfunction(value) or inspect.isclass(value):
        return str(value.__name__)
    return repr(value)


def annotation(of: Any) -> str:
    of = getattr(of, "__forward_arg__", of)
    return of if isinstance(of, str) else getattr(of, "__name__", str(of))


def signature(of: Any, *, bound: bool = False) -> str:
    """(parameters) -> result; without the first parameter if ``bound``."""
    parts: list[str] = []
    found = inspect.signature(of)
    keywords = False
    for parameter in list(found.parameters.values())[bound:]:
        if parameter.kind is parameter.VAR_POSITIONAL:
            keywords = True
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords:
            keywords = True
            parts.append("*")
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        part = f"{stars}{parameter.name}"
        if parameter.annotation is not parameter.empty:
            part += f": {annotation(parameter.annotation)}"
        if parameter.default is not parameter.empty:
            part += f" = {text(parameter.default)}"
        parts.append(part)
    result = found.return_annotation
    arrow = "" if result in (found.empty, None, "None") else f" -> {annotation(result)}"
    return f"({', '.join(parts)}){arrow}"


def of_class(name: str, kind: type) -> Iterator[str]:
    """A class, then what it has itself that is public."""
    if issubclass(kind, enum.Enum):
        yield from (f"{name}.{member} = {value.value!r}" for member, value in kind.__members__.items())
        return
    base = kind.__mro__[1].__name__
    above = "" if base in ("object", "Generic") else f" is a {base}"
    yield f"{name}{signature(kind) if kind.__name__ in CONSTRUCTED else ''}{above}"
    members = {each: value for each, value in vars(kind).items() if not each.startswith("_")}
    members.update({each: None for each in getattr(kind, "__annotations__", {}) if not each.startswith("_")})
    for member, value in sorted(members.items()):
        if isinstance(value, property):
            yield f"{name}.{member}: {annotation(inspect.signature(value.fget).return_annotation)}"
        elif isinstance(value, classmethod | staticmethod):
            yield f"{name}.{member}{signature(value.__func__, bound=isinstance(value, classmethod))}"
        elif inspect.isfunction(value):
            yield f"{name}.{member}{signature(value, bound=True)}"
        elif member in getattr(kind, "__annotations__", {}):
            yield f"{name}.{member}: {annotation(kind.__annotations__[member])}"


def of_python() -> Iterator[str]:
    for module, names in STABLE.items():
        for name in names:
            found = getattr(import_module(module), name)
            where = f"{module}.{name}"
            if inspect.isclass(found):
                yield from of_class(where, found)
            elif inspect.isfunction(found):
                yield where + signature(found)
            else:
                yield where


def of_parser(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Options and words of a command and of those below it."""
    below: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            below = action.choices
        elif action.dest != "help":
            what = ", ".join(action.option_strings) or action.dest
            takes = "" if action.nargs == 0 else f" {action.metavar or '|'.join(action.choices or [action.dest])}"
            default = "" if action.default in (None, False, argparse.SUPPRESS) else f" = {action.default!r}"
            yield f"{parser.prog} {what}{takes}{default}"
    for each in below.values():
        yield from of_parser(each)


def of_formats() -> Iterator[str]:
    for name, place in FORMATS.items():
        module, _, constant = place.rpartition(".")
        yield f"{name}: version {getattr(import_module(module), constant)}"


def public() -> str:
    """All of it."""
    return "".join(f"{line}\n" for part in (of_python(), of_parser(cli.make_parser()), of_formats()) for line in part)


if __name__ == "__main__":
    RECORD.write_text(public())
