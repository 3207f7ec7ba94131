"""Finding a symbol by name and version in an image's dynamic symbol table, through its hash table.

Hash tables: gABI chapter 5, "Hash Table" (DT_HASH), and the GNU hash section as binutils writes it (DT_GNU_HASH).
Versions: LSB Core, "Symbol Versioning". Which definition a reference takes is glibc's elf/dl-lookup.c
(``check_match``, ``do_lookup_x``). Everything is read from the file's bytes, within the file's bounds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from mmuemu.errors import BadImage
from mmuemu.loader.tables import SHN_ABS, STB_LOCAL, STT_TLS, Symbol, SymbolTable, symbol_table

if TYPE_CHECKING:
    from mmuemu.loader.elf import ElfImage

DT_HASH: Final = 4
DT_GNU_HASH: Final = 0x6FFF_FEF5
DT_VERSYM: Final = 0x6FFF_FFF0
DT_VERDEF: Final = 0x6FFF_FFFC
DT_VERDEFNUM: Final = 0x6FFF_FFFD
DT_VERNEED: Final = 0x6FFF_FFFE
DT_VERNEEDNUM: Final = 0x6FFF_FFFF

_VER_FLG_BASE: Final = 1
_HIDDEN: Final = 0x8000
_INDEX: Final = 0x7FFF
_FIRST_VERSION: Final = 2
"""Index of the first version a library defines after its base; unversioned references may bind to it."""
_OFFERED_KINDS: Final = frozenset({0, 1, 2, 5, 6, 10})
"""STT_NOTYPE, OBJECT, FUNC, COMMON, TLS, GNU_IFUNC."""
_U32: Final = struct.Struct("<I")
_U16: Final = struct.Struct("<H")
_VERDEF: Final = struct.Struct("<HHHHIII")
_VERNEED: Final = struct.Struct("<HHIII")
_VERNAUX: Final = struct.Struct("<IHHII")
_MOST_VERSIONS: Final = 1 << 15
_LONGEST_CHAIN: Final = 4096
"""Link editors make chains of a few symbols; a file may not have every lookup read all of it."""


def gnu_hash(name: bytes) -> int:
    """The hash of DT_GNU_HASH (Bernstein's, 32 bits)."""
    value = 5381
    for byte in name:
        value = value * 33 + byte & 0xFFFF_FFFF
    return value


def sysv_hash(name: bytes) -> int:
    """The hash of DT_HASH (gABI, figure 5-13)."""
    value = 0
    for byte in name:
        value = (value << 4) + byte
        value = (value ^ (value & 0xF000_0000) >> 24) & 0x0FFF_FFFF
    return value


class Wanted(NamedTuple):
    """A reference: ``version`` None takes the base or default definition.

    ``called``: the address of an undefined function's PLT entry in the program is no answer (a JUMP_SLOT or TLS
    reference); other references take it, so that a function has one address.
    """

    name: str
    version: str | None = None
    called: bool = False


class Exports:
    """What one image offers to others; raises :class:`BadImage` when its tables leave its file."""

    def __init__(self, image: ElfImage) -> None:
        self.image = image
        self.tags = image.dynamic or {}
        self.table: SymbolTable | None = symbol_table(image)
        self.versym = self._place(DT_VERSYM) if DT_VERSYM in self.tags else None
        self._defined: dict[int, str] | None = None
        self._needed: dict[int, str] | None = None

    def find(self, wanted: Wanted) -> Symbol | None:
        """The definition that answers ``wanted``, or None."""
        try:
            return self._find(wanted)
        except (struct.error, IndexError, OverflowError):
            raise BadImage(self.image.name, "has a symbol hash or version table that leaves its file") from None

    def version_of(self, index: int) -> str | None:
        """The version that the reference at ``index`` of the symbol table asks for."""
        if self.versym is None:
            return None
        try:
            number = self._version_index(index) & _INDEX
            return self._needed_versions().get(number) or self._defined_versions().get(number)
        except (struct.error, IndexError, OverflowError):
            raise BadImage(self.image.name, "has a symbol version table that leaves its file") from None

    def _find(self, wanted: Wanted) -> Symbol | None:
        table = self.table
        if table is None:
            return None
        only: list[Symbol] = []
        for index in self._candidates(wanted.name.encode("utf-8", "surrogateescape")):
            if not 0 < index < table.room:
                continue
            symbol = table.symbol(index)
            if symbol.name != wanted.name or not _offered(symbol, wanted.called):
                continue
            if self.versym is None:
                return symbol
            number = self._version_index(index)
            version = self._defined_versions().get(number & _INDEX)
            if wanted.version is not None:
                if version == wanted.version or (version is None and not number & _HIDDEN):
                    return symbol
            elif number & _INDEX <= _FIRST_VERSION:
                return symbol
            elif not number & _HIDDEN:
                only.append(symbol)
        return only[0] if len(only) == 1 else None

    # -- hash tables ---------------------------------------------------------------------------------------------

    def _candidates(self, name: bytes) -> Iterator[int]:
        """Indices of the symbols that may be called ``name``."""
        if DT_GNU_HASH in self.tags:
            return self._gnu(gnu_hash(name))
        return self._sysv(sysv_hash(name)) if DT_HASH in self.tags else iter(())

    def _gnu(self, value: int) -> Iterator[int]:
        data, at = self.image.data, self._place(DT_GNU_HASH)
        buckets, first, words, shift = struct.unpack_from("<4I", data, at)
        if not buckets or not words:
            return
        word = struct.unpack_from("<Q", data, at + 16 + value // 64 % words * 8)[0]
        if not word >> (value & 63) & word >> ((value >> (shift & 31)) & 63) & 1:
            return
        table = at + 16 + words * 8
        start = _U32.unpack_from(data, table + value % buckets * 4)[0]
        chain = table + buckets * 4
        if start < first:
            return
        for index in range(start, start + _LONGEST_CHAIN):
            link = _U32.unpack_from(data, chain + (index - first) * 4)[0]
            if link | 1 == value | 1:
                yield index
            if link & 1:
                return
        self._endless()

    def _sysv(self, value: int) -> Iterator[int]:
        data, at = self.image.data, self._place(DT_HASH)
        buckets, chains = struct.unpack_from("<2I", data, at)
        if not buckets:
            return
        index = _U32.unpack_from(data, at + 8 + value % buckets * 4)[0]
        for _ in range(_LONGEST_CHAIN):
            if not index or index >= chains:
                return
            yield index
            index = _U32.unpack_from(data, at + 8 + (buckets + index) * 4)[0]
        self._endless()

    def _endless(self) -> NoReturn:
        raise BadImage(self.image.name, f"has a symbol hash chain of more than {_LONGEST_CHAIN} symbols")

    # -- versions ------------------------------------------------------------------------------------------------

    def _version_index(self, index: int) -> int:
        assert self.versym is not None
        number: int = _U16.unpack_from(self.image.data, self.versym + index * 2)[0]
        return number

    def _defined_versions(self) -> dict[int, str]:
        """Name by index of the versions this image defines, without its base."""
        if self._defined is None:
            self._defined = {}
            at = self._place(DT_VERDEF) if DT_VERDEF in self.tags else 0
            for _ in range(min(self.tags.get(DT_VERDEFNUM, 0), _MOST_VERSIONS) if at else 0):
                _, flags, number, _, _, aux, following = _VERDEF.unpack_from(self.image.data, at)
                if not flags & _VER_FLG_BASE:
                    self._defined[number & _INDEX] = self._string(_U32.unpack_from(self.image.data, at + aux)[0])
                if not following:
                    break
                at += following
        return self._defined

    def _needed_versions(self) -> dict[int, str]:
        """Name by index of the versions this image asks of others."""
        if self._needed is None:
            self._needed = {}
            at = self._place(DT_VERNEED) if DT_VERNEED in self.tags else 0
            for _ in range(min(self.tags.get(DT_VERNEEDNUM, 0), _MOST_VERSIONS) if at else 0):
                _, count, _, aux, following = _VERNEED.unpack_from(self.image.data, at)
                entry = at + aux
                for _ in range(count):
                    _, _, number, name, beyond = _VERNAUX.unpack_from(self.image.data, entry)
                    self._needed[number & _INDEX] = self._string(name)
                    if not beyond:
                        break
                    entry += beyond
                if not following or len(self._needed) >= _MOST_VERSIONS:
                    break
                at += following
        return self._needed

    def _string(self, offset: int) -> str:
        return self.table.string(offset) if self.table is not None else ""

    def _place(self, tag: int) -> int:
        offset = self.image.file_offset(self.tags[tag], 2)
        if offset is None:
            raise BadImage(
                self.image.name, f"has a symbol table (tag {tag:#x}) at {self.tags[tag]:#x}, outside its file"
            )
        return offset


def _offered(symbol: Symbol, called: bool) -> bool:
    """Whether ``check_match`` takes ``symbol`` at all."""
    if symbol.binding == STB_LOCAL or symbol.kind not in _OFFERED_KINDS:
        return False
    if not symbol.value and symbol.section != SHN_ABS and symbol.kind != STT_TLS:
        return False
    return symbol.defined or not called
