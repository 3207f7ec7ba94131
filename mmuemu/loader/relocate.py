"""Relocation for programs that bring no dynamic linker: what to write where.

Types and formulas: System V psABI for x86-64, table 4.9 and section 3.4.6 (TLS); the RELR encoding: gABI,
"Relative Relocation Table"; TLSDESC: "RFC: TLS Descriptors for x86". Nothing is written here: the result is a list
of writes for whoever owns memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from mmuemu.errors import BadImage
from mmuemu.loader.lookup import Exports, Wanted
from mmuemu.loader.tables import (
    SHN_ABS,
    STB_LOCAL,
    STB_WEAK,
    STT_GNU_IFUNC,
    STT_TLS,
    Symbol,
    SymbolTable,
    Table,
    relocation_tables,
)

if TYPE_CHECKING:
    from mmuemu.loader.elf import ElfImage, Segment, Tls

R_NONE: Final = 0
R_64: Final = 1
R_COPY: Final = 5
R_GLOB_DAT: Final = 6
R_JUMP_SLOT: Final = 7
R_RELATIVE: Final = 8
R_DTPMOD64: Final = 16
R_DTPOFF64: Final = 17
R_TPOFF64: Final = 18
R_TLSDESC: Final = 36
R_IRELATIVE: Final = 37

TYPE_NAMES: Final = dict(
    enumerate(
        (  # noqa: SIM905 - a list of forty strings reads worse
            "NONE 64 PC32 GOT32 PLT32 COPY GLOB_DAT JUMP_SLOT RELATIVE GOTPCREL 32 32S 16 PC16 8 PC8 DTPMOD64"
            " DTPOFF64 TPOFF64 TLSGD TLSLD DTPOFF32 GOTTPOFF TPOFF32 PC64 GOTOFF64 GOTPC32 GOT64 GOTPCREL64"
            " GOTPC64 GOTPLT64 PLTOFF64 SIZE32 SIZE64 GOTPC32_TLSDESC TLSDESC_CALL TLSDESC IRELATIVE"
            " RELATIVE64"
        ).split()
    )
)

_RELA: Final = struct.Struct("<QQq")
_WORD: Final = struct.Struct("<Q")
_RELR_BITS: Final = 63
_MASK: Final = (1 << 64) - 1

_TLS_TYPES: Final = (R_DTPMOD64, R_DTPOFF64, R_TPOFF64)
_ADDRESS_TYPES: Final = (R_64, R_GLOB_DAT, R_JUMP_SLOT)
_CALLING_TYPES: Final = (R_JUMP_SLOT, *_TLS_TYPES, R_TLSDESC)
DT_SYMBOLIC: Final = 16
DT_FLAGS: Final = 30
DF_SYMBOLIC: Final = 2

Loaded = tuple["ElfImage", int]
"""An image and its load bias."""

TLS_GET_ADDR: Final = "__tls_get_addr"
TLSDESC_STATIC: Final = "tlsdesc"
TLSDESC_UNDEFINED: Final = "tlsdesc_undefined"
"""Names of the run-time functions that relocations refer to (guest/link_*.s)."""


class Write(NamedTuple):
    """Put the 64-bit ``value`` at ``address``."""

    address: int
    value: int


class Copy(NamedTuple):
    """Copy ``size`` bytes from ``source`` to ``destination``, after the writes."""

    destination: int
    source: int
    size: int


class Resolver(NamedTuple):
    """Call the guest function ``function``, add ``addend`` and put the result at ``address``, last of all."""

    address: int
    function: int
    addend: int = 0


@dataclass(slots=True)
class Relocations:
    """What relocating one image comes to, in the order to apply it: writes, copies, resolvers."""

    writes: list[Write] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
    resolvers: list[Resolver] = field(default_factory=list)


def type_name(kind: int) -> str:
    """``"R_X86_64_COPY"`` for 5; unknown numbers keep their number."""
    return f"R_X86_64_{TYPE_NAMES.get(kind, kind)}"


def static_tls_offsets(modules: Sequence[Tls | None]) -> list[int]:
    """How far below the thread pointer each module's TLS block begins (psABI variant II); 0 without TLS.

    The first module is the program, whose offset the link editor assumed.
    """
    offsets = []
    below = 0
    for tls in modules:
        if tls is not None:
            below = (below + tls.memsz + tls.align - 1) & ~(tls.align - 1)
        offsets.append(below if tls is not None else 0)
    return offsets


class _Found(NamedTuple):
    """A symbol's definition: which module, and what it says there. ``module`` -1: of no module."""

    module: int
    symbol: Symbol
    address: int


class Scope:
    """The modules in which symbols are looked up, in order, and the functions a loader adds to them.

    ``runtime`` gives the addresses of functions by name; a name there answers when no module does.
    """

    def __init__(self, modules: Sequence[Loaded], runtime: Mapping[str, int] | None = None) -> None:
        self.modules = modules
        self.runtime = runtime or {}
        self.exports: dict[int, Exports] = {}
        self.found: dict[tuple[Wanted, int], tuple[int, Symbol] | None] = {}
        self.tls_offsets = static_tls_offsets([image.tls for image, _ in modules])

    def exports_of(self, module: int) -> Exports:
        """The symbols of one module."""
        if module not in self.exports:
            self.exports[module] = Exports(self.modules[module][0])
        return self.exports[module]

    def find(self, wanted: Wanted, first: int = 0) -> tuple[int, Symbol] | None:
        """The first module from number ``first`` on that answers, and its definition."""
        key = (wanted, first)
        if key not in self.found:
            self.found[key] = None
            for module in range(first, len(self.modules)):
                symbol = self.exports_of(module).find(wanted)
                if symbol is not None:
                    self.found[key] = (module, symbol)
                    break
        return self.found[key]


class _Relocator:
    """Relocates module ``number`` of a scope."""

    def __init__(self, scope: Scope, number: int = 0) -> None:
        self.scope = scope
        self.number = number
        self.image, self.bias = scope.modules[number]
        self.out = Relocations()
        self.table: SymbolTable | None = scope.exports_of(number).table
        self.found: dict[tuple[int, bool], _Found] = {}
        tags = self.image.dynamic or {}
        self.symbolic = len(scope.modules) == 1 or DT_SYMBOLIC in tags or bool(tags.get(DT_FLAGS, 0) & DF_SYMBOLIC)
        self.last: Segment = self.image.segments[0]

    def bad(self, why: str) -> NoReturn:
        raise BadImage(self.image.name, why)

    def target(self, vaddr: int, what: str, size: int = 8) -> int:
        """The biased address of ``size`` bytes at ``vaddr``, which must lie in one segment."""
        if not (self.last.vaddr <= vaddr and vaddr + size <= self.last.end):
            segment = self.image.segment_of(vaddr, size)
            if segment is None:
                self.bad(f"{what} refers to {vaddr:#x}, outside every segment")
            self.last = segment
        return vaddr + self.bias

    def relr(self, table: Table) -> None:
        for vaddr in self.relr_addresses(table):
            offset = self.image.file_offset(vaddr, 8)
            if offset is None:
                self.bad(f"RELR relocates {vaddr:#x}, outside every segment's file part")
            value = _WORD.unpack_from(self.image.data, offset)[0]
            self.out.writes.append(Write(vaddr + self.bias, (value + self.bias) & _MASK))

    def relr_addresses(self, table: Table) -> Iterator[int]:
        """The addresses a RELR table stands for; they must ascend, which bounds them by the file's size."""
        where = None
        for (word,) in _WORD.iter_unpack(self.image.data[table.offset : table.offset + table.size]):
            if not word & 1:
                if where is not None and word < where:
                    self.bad(f"has a RELR table that goes back, to {word:#x}")
                yield word
                where = word + 8
            elif where is None:
                self.bad("has a RELR table that begins with a bitmap")
            else:
                for bit in range(_RELR_BITS):
                    if word >> (bit + 1) & 1:
                        yield where + bit * 8
                where += _RELR_BITS * 8

    def rela(self, table: Table) -> None:
        for offset, info, addend in _RELA.iter_unpack(self.image.data[table.offset : table.offset + table.size]):
            kind, index = info & 0xFFFF_FFFF, info >> 32
            if kind == R_RELATIVE:
                where = self.target(offset, "R_X86_64_RELATIVE")
                self.out.writes.append(Write(where, (self.bias + addend) & _MASK))
            elif kind != R_NONE:
                self.one(kind, offset, index, addend)

    def one(self, kind: int, offset: int, index: int, addend: int) -> None:
        """Any relocation but RELATIVE and NONE."""
        name = type_name(kind)
        if kind == R_COPY:
            self.copy(offset, index)
            return
        if kind == R_IRELATIVE:
            function = self.target(addend, f"the resolver of {name}", 1)
            self.out.resolvers.append(Resolver(self.target(offset, name), function))
            return
        if kind == R_TLSDESC:
            self.descriptor(offset, index, addend)
            return
        if kind not in _ADDRESS_TYPES and kind not in _TLS_TYPES:
            self.bad(f"has a relocation of type {name} at {offset:#x}, which no loader applies")
        where = self.target(offset, name)
        if kind in _ADDRESS_TYPES:
            definition = self.definition(index, kind in _CALLING_TYPES)
            extra = addend if kind == R_64 else 0
            if definition.symbol.kind == STT_GNU_IFUNC and definition.module >= 0 and definition.symbol.defined:
                self.out.resolvers.append(Resolver(where, definition.address, extra))
                return
            self.out.writes.append(Write(where, (definition.address + extra) & _MASK))
        else:
            self.out.writes.append(Write(where, self.tls_value(kind, name, index, addend) & _MASK))

    def tls_symbol(self, name: str, index: int) -> tuple[int, int]:
        """Module and offset in its block that a TLS relocation refers to; module -1: weak and undefined."""
        module, value = self.number, 0
        if index:
            definition = self.definition(index, True)
            if definition.module < 0:
                return -1, 0
            if definition.symbol.kind != STT_TLS:
                self.bad(f"{name} refers to {definition.symbol.name!r}, which is not thread-local")
            module, value = definition.module, definition.symbol.value
        if self.scope.modules[module][0].tls is None:
            self.bad(f"{name} refers to thread-local storage, and there is no TLS segment")
        return module, value

    def tls_value(self, kind: int, name: str, index: int, addend: int) -> int:
        """The module id, offset in the module's block, or offset from the thread pointer."""
        module, value = self.tls_symbol(name, index)
        if module < 0:
            return 0
        if kind == R_DTPMOD64:
            return sum(1 for image, _ in self.scope.modules[: module + 1] if image.tls is not None)
        if kind == R_DTPOFF64:
            return value + addend
        return value + addend - self.scope.tls_offsets[module]

    def descriptor(self, offset: int, index: int, addend: int) -> None:
        """A TLS descriptor: a function that gives an offset from the thread pointer, and its argument."""
        name = type_name(R_TLSDESC)
        module, value = self.tls_symbol(name, index)
        function = TLSDESC_UNDEFINED if module < 0 else TLSDESC_STATIC
        if function not in self.scope.runtime:
            self.bad(f"has a relocation of type {name} at {offset:#x}, and no library to link with")
        argument = value + addend - (self.scope.tls_offsets[module] if module >= 0 else 0)
        where = self.target(offset, name, 16)
        self.out.writes.append(Write(where, self.scope.runtime[function]))
        self.out.writes.append(Write(where + 8, argument & _MASK))

    def copy(self, offset: int, index: int) -> None:
        wanted = self.own_symbol(index)
        found = self.scope.find(self.wanted(index, wanted, True), 1)
        if found is None:
            self.bad(f"R_X86_64_COPY of {wanted.name!r}: no library defines it")
        module, symbol = found
        image, bias = self.scope.modules[module]
        size = min(symbol.size, wanted.size)
        if image.segment_of(symbol.value, size) is None:
            raise BadImage(image.name, f"defines {wanted.name!r} outside its segments")
        where = self.target(offset, f"R_X86_64_COPY of {wanted.name!r}", size)
        self.out.copies.append(Copy(where, symbol.value + bias, size))

    def own_symbol(self, index: int) -> Symbol:
        if self.table is None or index >= self.table.room:
            self.bad(f"a relocation refers to symbol {index}, which does not exist")
        return self.table.symbol(index)

    def wanted(self, index: int, symbol: Symbol, called: bool) -> Wanted:
        version = self.scope.exports_of(self.number).version_of(index)
        return Wanted(symbol.name, version, called)

    def definition(self, index: int, called: bool) -> _Found:
        """Who defines symbol ``index`` of the image for this kind of reference."""
        key = (index, called)
        if key not in self.found:
            self.found[key] = self.find(index, called)
        return self.found[key]

    def find(self, index: int, called: bool) -> _Found:
        if not index:
            return _Found(self.number, Symbol("", 0, 0, 0, 0, SHN_ABS), 0)
        symbol = self.own_symbol(index)
        if symbol.defined and (symbol.binding == STB_LOCAL or symbol.visibility or self.symbolic):
            return self.at(self.number, symbol)
        wanted = self.wanted(index, symbol, called)
        found = self.scope.find(wanted)
        if found is not None:
            return self.at(*found)
        if symbol.defined:
            return self.at(self.number, symbol)
        if symbol.name in self.scope.runtime:
            return _Found(-1, symbol, self.scope.runtime[symbol.name])
        if symbol.binding != STB_WEAK:
            version = f" of version {wanted.version!r}" if wanted.version is not None else ""
            self.bad(f"needs the symbol {symbol.name!r}{version}, which nothing defines")
        return _Found(-1, symbol, 0)

    def at(self, module: int, symbol: Symbol) -> _Found:
        bias = 0 if symbol.section == SHN_ABS else self.scope.modules[module][1]
        return _Found(module, symbol, (symbol.value + bias) & _MASK)


def relocate_in(scope: Scope, number: int) -> Relocations:
    """Every change that relocating module ``number`` of ``scope`` makes; symbols are looked up in all of it.

    Time and memory are bounded by the size of the files. Raises :class:`BadImage` for an undefined symbol that is
    not weak, a target outside every segment, a type no loader applies, a broken table.
    """
    relocator = _Relocator(scope, number)
    tables = relocation_tables(relocator.image)
    if tables.relr:
        relocator.relr(tables.relr)
    for table in tables.rela:
        relocator.rela(table)
    return relocator.out


def relocate(image: ElfImage, bias: int, others: Sequence[Loaded] = ()) -> Relocations:
    """Every change that relocating ``image``, loaded at ``bias``, makes.

    Symbols are looked up in the image itself, then in ``others``, pairs of image and bias. Ask
    :func:`~mmuemu.loader.selfrelocation.needs_relocation` first. Raises like :func:`relocate_in`.
    """
    return relocate_in(Scope([(image, bias), *others]), 0)
