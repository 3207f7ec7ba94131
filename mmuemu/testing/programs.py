"""Programs for tests: assembly, C, files."""

from __future__ import annotations

import os
import tempfile
import textwrap
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from mmuemu import sources
from mmuemu.errors import UsageError
from mmuemu.loader.elf import read_image
from mmuemu.loader.symbols import all_symbols
from mmuemu.sourcefile import is_source

_KEPT: Final = 64


class NoCompiler(Exception):
    """There is none that makes x86-64 Linux programs."""


@dataclass(frozen=True, slots=True)
class Program:
    """Something to run: the bytes of an ELF file, or a host path in the guest's view; ``source`` if it is assembly."""

    name: str
    image: bytes | str
    source: str = ""

    @property
    def symbols(self) -> dict[str, int]:
        """Name -> address, of a program that is not moved when it is loaded (a static one). Raises BadImage."""
        if self.source:
            return sources.labels(self.source, self.name)
        image = self.image if isinstance(self.image, bytes) else Path(self.image).read_bytes()
        return {symbol.name: symbol.value for symbol in all_symbols(read_image(image, self.name))}

    def address(self, name: str) -> int:
        """Where a symbol or label is. Raises UsageError when there is none of the name."""
        found = self.symbols
        if name not in found:
            raise UsageError(f"{self.name} has no symbol {name!r} (it has {', '.join(sorted(found)[:20]) or 'none'})")
        return found[name]


@lru_cache(_KEPT)
def from_assembly(source: str, name: str) -> Program:
    """A static program of assembly text (:func:`mmuemu.sources.assemble`). Raises BadImage."""
    text = textwrap.dedent(source)
    return Program(name, sources.assemble(text, name), text)


@lru_cache(_KEPT)
def from_c(source: str, name: str) -> Program:
    """A static program of C text; the same text is compiled once. Raises NoCompiler and BadImage."""
    if sources.compiler() is None:
        raise NoCompiler
    with tempfile.TemporaryDirectory(prefix="mmuemu-") as folder:
        path = os.path.join(folder, f"{name}.c")
        Path(path).write_text(textwrap.dedent(source))
        return Program(name, sources.build(path))


def from_file(path: str | os.PathLike[str]) -> Program:
    """A program of the host, or a source file to be built. Raises NoCompiler, BadImage, and UsageError for no file."""
    text = os.fspath(path)
    if not os.path.isfile(text):
        raise UsageError(f"{text}: no such file")
    name = os.path.splitext(os.path.basename(text))[0]
    if not is_source(text):
        return Program(name, os.path.abspath(text))
    if text.endswith(".c"):
        return from_c(Path(text).read_text(), name)
    return from_assembly(Path(text).read_text(), name)


__all__ = ["NoCompiler", "Program", "from_assembly", "from_c", "from_file"]
