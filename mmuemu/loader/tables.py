"""Which relocation and symbol tables an image has, and where they lie in its file.

Found by the dynamic table (gABI chapter 5), or, in a static program without one, by its section headers.
Every size is held against the file before anything is read.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from mmuemu.errors import BadImage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mmuemu.loader.elf import ElfImage

DT_PLTRELSZ: Final = 2
DT_STRTAB: Final = 5
DT_SYMTAB: Final = 6
DT_RELA: Final = 7
DT_RELASZ: Final = 8
DT_RELAENT: Final = 9
DT_STRSZ: Final = 10
DT_SYMENT: Final = 11
DT_REL: Final = 17
DT_PLTREL: Final = 20
DT_JMPREL: Final = 23
DT_RELRSZ: Final = 35
DT_RELR: Final = 36
DT_RELRENT: Final = 37

SHN_UNDEF: Final = 0
SHN_ABS: Final = 0xFFF1

STB_LOCAL: Final = 0
STB_WEAK: Final = 2
STT_TLS: Final = 6
STT_GNU_IFUNC: Final = 10

RELA_SIZE: Final = 24
RELR_SIZE: Final = 8

_SYMBOL: Final = struct.Struct("<IBBHQQ")
SYMBOL_SIZE: Final = _SYMBOL.size
_SECTION_HEADER: Final = struct.Struct("<IIQQQQIIQQ")
_SHT_RELA: Final = 4
_SHF_ALLOC: Final = 2


class Symbol(NamedTuple):
    """One symbol; ``value`` is unbiased (for STT_TLS an offset into the TLS template)."""

    name: str
    value: int
    size: int
    kind: int
    binding: int
    section: int
    visibility: int = 0
    """STV_DEFAULT, or one of STV_INTERNAL, STV_HIDDEN, STV_PROTECTED."""

    @property
    def defined(self) -> bool:
        """Whether this image defines it."""
        return self.section != SHN_UNDEF


def unpack_symbol(data: memoryview, offset: int, strings: bytes) -> Symbol:
    """The Elf64_Sym at ``offset`` of ``data``, its name from the string table ``strings``."""
    name, info, other, section, value, size = _SYMBOL.unpack_from(data, offset)
    return Symbol(string_at(strings, name), value, size, info & 15, info >> 4, section, other & 3)


def string_at(strings: bytes, offset: int) -> str:
    """The NUL-terminated string at ``offset`` of a string table; what leaves the table is empty."""
    end = strings.find(b"\0", offset)
    return strings[offset : end if end >= 0 else None].decode("utf-8", "surrogateescape")


class Table(NamedTuple):
    """One table: its unbiased address, its place in the file, its size in bytes."""

    vaddr: int
    offset: int
    size: int


class RelocationTables(NamedTuple):
    """The tables to apply, in order: RELR first, then RELA and JMPREL, as ld.so and musl do."""

    relr: Table | None
    rela: tuple[Table, ...]

    def __bool__(self) -> bool:
        return self.relr is not None or bool(self.rela)


class SymbolTable(NamedTuple):
    """The dynamic symbol table; ``room`` is how many entries could lie there, not how many do."""

    data: memoryview
    offset: int
    room: int
    strings: bytes

    def symbol(self, index: int) -> Symbol:
        """The symbol at ``index``, which must be below ``room``."""
        return unpack_symbol(self.data, self.offset + index * SYMBOL_SIZE, self.strings)

    def string(self, offset: int) -> str:
        """The name at ``offset`` of the image's string table."""
        return string_at(self.strings, offset)


def _entry_size(image: ElfImage, tags: Mapping[int, int], tag: int, name: str, expected: int) -> None:
    if tags.get(tag, expected) != expected:
        raise BadImage(image.name, f"has {name} entries of {tags[tag]} bytes, not {expected}")


def _table(image: ElfImage, name: str, vaddr: int, size: int, entry: int) -> Table | None:
    if not size:
        return None
    if size % entry:
        raise BadImage(image.name, f"has a {name} table of {size:#x} bytes, no multiple of {entry}")
    offset = image.file_offset(vaddr, size)
    if offset is None:
        raise BadImage(image.name, f"has a {name} table ({size:#x} bytes at {vaddr:#x}) outside its file")
    return Table(vaddr, offset, size)


def _dynamic_tables(image: ElfImage, tags: Mapping[int, int]) -> RelocationTables:
    if DT_REL in tags or tags.get(DT_PLTREL, DT_RELA) != DT_RELA:
        raise BadImage(image.name, "has relocations without addends (DT_REL), which x86-64 does not use")
    relr = rela = jmprel = None
    if DT_RELR in tags:
        _entry_size(image, tags, DT_RELRENT, "DT_RELR", RELR_SIZE)
        relr = _table(image, "DT_RELR", tags[DT_RELR], tags.get(DT_RELRSZ, 0), RELR_SIZE)
    if DT_RELA in tags:
        _entry_size(image, tags, DT_RELAENT, "DT_RELA", RELA_SIZE)
        rela = _table(image, "DT_RELA", tags[DT_RELA], tags.get(DT_RELASZ, 0), RELA_SIZE)
    if DT_JMPREL in tags:
        jmprel = _table(image, "DT_JMPREL", tags[DT_JMPREL], tags.get(DT_PLTRELSZ, 0), RELA_SIZE)
    if rela and jmprel and rela.vaddr <= jmprel.vaddr < rela.vaddr + rela.size:
        size = max(rela.size, jmprel.vaddr + jmprel.size - rela.vaddr)
        rela, jmprel = _table(image, "DT_RELA", rela.vaddr, size, RELA_SIZE), None
    return RelocationTables(relr, tuple(table for table in (rela, jmprel) if table))


def _section_tables(image: ElfImage) -> RelocationTables:
    offset, count = image.sections
    tables = []
    headers = image.data[offset : offset + count * _SECTION_HEADER.size]
    for _, kind, flags, vaddr, _, size, *_ in _SECTION_HEADER.iter_unpack(headers):
        if kind == _SHT_RELA and flags & _SHF_ALLOC:
            table = _table(image, "relocation", vaddr, size, RELA_SIZE)
            if table and table not in tables:
                tables.append(table)
    return RelocationTables(None, tuple(tables))


def relocation_tables(image: ElfImage) -> RelocationTables:
    """The relocation tables of an image; raises :class:`BadImage` when one lies outside its file."""
    if image.dynamic is None:
        return _section_tables(image)
    return _dynamic_tables(image, image.dynamic)


def symbol_table(image: ElfImage) -> SymbolTable | None:
    """The dynamic symbol table, or None when there is none; raises :class:`BadImage` when it is broken."""
    tags = image.dynamic or {}
    if DT_SYMTAB not in tags:
        return None
    _entry_size(image, tags, DT_SYMENT, "DT_SYMTAB", SYMBOL_SIZE)
    offset = image.file_offset(tags[DT_SYMTAB], SYMBOL_SIZE)
    if offset is None:
        raise BadImage(image.name, f"has its symbol table at {tags[DT_SYMTAB]:#x}, outside its file")
    size = tags.get(DT_STRSZ, 0)
    strings = image.file_offset(tags.get(DT_STRTAB, 0), size)
    if strings is None:
        raise BadImage(image.name, f"has its string table ({size:#x} bytes) outside its file")
    room = (len(image.data) - offset) // SYMBOL_SIZE
    return SymbolTable(image.data, offset, room, bytes(image.data[strings : strings + size]))
