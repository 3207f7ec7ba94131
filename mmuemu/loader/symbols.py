"""Symbols of an image, read by pyelftools (imported on first use: it costs 23 ms of CPU)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Final

from mmuemu.errors import BadImage
from mmuemu.loader.tables import STB_LOCAL, SYMBOL_SIZE, Symbol, symbol_table, unpack_symbol

if TYPE_CHECKING:
    from mmuemu.loader.elf import ElfImage

_SECTION_FIELDS: Final = {40: 8, 58: 6}
"""File offset and size of e_shoff and of e_shentsize, e_shnum, e_shstrndx in the ELF header."""


def _dynamic_symbol_count(image: ElfImage) -> int:
    """How many entries the dynamic symbol table has: only its hash table tells."""
    from elftools.elf.dynamic import DynamicSegment
    from elftools.elf.elffile import ELFFile

    content = bytearray(image.data)
    for offset, size in _SECTION_FIELDS.items():
        content[offset : offset + size] = bytes(size)
    try:
        segment = next(iter(ELFFile(io.BytesIO(content)).iter_segments("PT_DYNAMIC")))
        return segment.num_symbols() if isinstance(segment, DynamicSegment) else 0
    except Exception as error:  # pyelftools has no one error for malformed input
        raise BadImage(image.name, f"has a broken symbol hash table ({type(error).__name__})") from None


def dynamic_symbols(image: ElfImage) -> dict[str, Symbol]:
    """The symbols an image offers to others: defined, not local, by name.

    Raises :class:`BadImage` when the tables cannot be read.
    """
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
        names = section.stringtable
        strings = bytes(image.data[names["sh_offset"] : names["sh_offset"] + names["sh_size"]])
        return _named(image.data, section["sh_offset"], section["sh_size"], strings)
    except Exception as error:  # pyelftools has no one error for malformed input
        raise BadImage(image.name, f"has a broken symbol table ({type(error).__name__})") from None


def _named(data: memoryview, offset: int, size: int, strings: bytes) -> list[Symbol]:
    room = min(size, len(data) - offset)
    offsets = range(offset, offset + room - SYMBOL_SIZE + 1, SYMBOL_SIZE)
    symbols = (unpack_symbol(data, at, strings) for at in offsets)
    return [symbol for symbol in symbols if symbol.name and symbol.defined]
