"""Symbols of an image, read by pyelftools (imported on first use: it costs 50 ms of CPU)."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from mmuemu.errors import BadImage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mmuemu.loader.elf import ElfImage

SHN_UNDEF: Final = 0
SHN_ABS: Final = 0xFFF1

STB_LOCAL: Final = 0
STB_WEAK: Final = 2
STT_TLS: Final = 6
STT_GNU_IFUNC: Final = 10

_ENTRY: Final = struct.Struct("<IBBHQQ")
_SECTION_FIELDS: Final = {40: 8, 58: 6}
"""File offset and size of e_shoff and of e_shentsize, e_shnum, e_shstrndx in the ELF header."""


class Symbol(NamedTuple):
    """One symbol; ``value`` is unbiased (for STT_TLS an offset into the TLS template)."""

    name: str
    value: int
    size: int
    kind: int
    binding: int
    section: int

    @property
    def defined(self) -> bool:
        """Whether this image defines it."""
        return self.section != SHN_UNDEF


def unpack_symbol(data: memoryview, offset: int, strings: bytes) -> Symbol:
    """The Elf64_Sym at ``offset`` of ``data``, its name from the string table ``strings``."""
    name, info, _, section, value, size = _ENTRY.unpack_from(data, offset)
    end = strings.find(b"\0", name)
    text = strings[name : end if end >= 0 else None].decode("utf-8", "surrogateescape")
    return Symbol(text, value, size, info & 15, info >> 4, section)


SYMBOL_SIZE: Final = _ENTRY.size


def _dynamic_symbol_count(image: ElfImage) -> int:
    """How many entries the dynamic symbol table has: only its hash table tells."""
    from elftools.elf.elffile import ELFFile

    content = bytearray(image.data)
    for offset, size in _SECTION_FIELDS.items():
        content[offset : offset + size] = bytes(size)
    try:
        segments = ELFFile(io.BytesIO(content)).iter_segments("PT_DYNAMIC")
        return int(next(iter(segments)).num_symbols())
    except Exception as error:  # pyelftools has no one error for malformed input
        raise BadImage(image.name, f"has a broken symbol hash table ({type(error).__name__})") from None


def dynamic_symbols(image: ElfImage) -> dict[str, Symbol]:
    """The symbols an image offers to others: defined, not local, by name.

    Raises :class:`BadImage` when the tables cannot be read.
    """
    from mmuemu.loader.tables import symbol_table

    table = symbol_table(image)
    if table is None:
        return {}
    count = min(_dynamic_symbol_count(image), table.room)
    found = (table.symbol(index) for index in range(1, count))
    return {symbol.name: symbol for symbol in found if symbol.defined and symbol.binding != STB_LOCAL}


def all_symbols(image: ElfImage) -> list[Symbol]:
    """Every named symbol with an address: of .symtab, or when that is stripped of .dynsym.

    For people and tracers; raises :class:`BadImage` when the section headers cannot be read.
    """
    if not image.sections[1]:
        return list(dynamic_symbols(image).values())
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    try:
        elf = ELFFile(io.BytesIO(image.data))
        section = elf.get_section_by_name(".symtab") or elf.get_section_by_name(".dynsym")
        if not isinstance(section, SymbolTableSection):
            return []
        strings = bytes(section.stringtable.data())
        return _named(image.data, section["sh_offset"], section["sh_size"], strings)
    except Exception as error:  # pyelftools has no one error for malformed input
        raise BadImage(image.name, f"has a broken symbol table ({type(error).__name__})") from None


def _named(data: memoryview, offset: int, size: int, strings: bytes) -> list[Symbol]:
    room = min(size, len(data) - offset)
    offsets: Iterable[int] = range(offset, offset + room - SYMBOL_SIZE + 1, SYMBOL_SIZE)
    symbols = (unpack_symbol(data, at, strings) for at in offsets)
    return [symbol for symbol in symbols if symbol.name and symbol.defined]
