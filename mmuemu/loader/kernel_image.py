"""Bare-metal kernels as a boot loader reads them: multiboot 1 images, and 64-bit ELF files entered in long mode.

Sources: Multiboot Specification 0.6.96, section 3.1 (where the header is, its flags, the address fields); System V gABI
chapters 4 and 5 (ELF, both classes). Where the specification leaves a choice, the two loaders kernels are written
for decide: GRUB's ``grub-core/loader/multiboot_elfxx.c`` and QEMU's ``hw/i386/multiboot.c`` (segments go to
``p_paddr``; an entry point inside a segment's virtual addresses moves with it; ELF64 is as good as ELF32).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal, NamedTuple, NoReturn

from mmuemu.errors import BadImage, UsageError

Entry = Literal["auto", "multiboot", "long"]

HEADER_MAGIC: Final = 0x1BADB002
HEADER_SEARCH: Final = 8192
"""A multiboot header lies wholly within so many first bytes."""
PAGE_ALIGN_MODULES: Final = 1 << 0
MEMORY_INFORMATION: Final = 1 << 1
VIDEO_MODE: Final = 1 << 2
ADDRESS_FIELDS: Final = 1 << 16
_MANDATORY: Final = 0xFFFF
_KNOWN: Final = PAGE_ALIGN_MODULES | MEMORY_INFORMATION | VIDEO_MODE

_MULTIBOOT2_MAGIC: Final = b"\xd6\x50\x52\xe8"
_MULTIBOOT2_SEARCH: Final = 32768
_HEADER: Final = struct.Struct("<III")
_ADDRESSES: Final = struct.Struct("<IIIII")

_PT_LOAD: Final = 1
_PT_INTERP: Final = 3
_EM_386: Final = 3
_EM_X86_64: Final = 62
_ELF_TYPES: Final = {0: "has no file type", 1: "is a relocatable object (.o): link it first", 4: "is a core dump"}
_4_GIB: Final = 1 << 32


class KernelSegment(NamedTuple):
    """``memory`` bytes at physical ``address``: ``data`` first, zeros after it."""

    address: int
    data: memoryview
    memory: int

    @property
    def end(self) -> int:
        """The physical address after the last byte."""
        return self.address + self.memory


class SectionTable(NamedTuple):
    """The section headers of an ELF kernel, as they stand in the file (``number`` records of ``entry_size`` bytes)."""

    headers: memoryview
    number: int
    entry_size: int
    names: int
    """Number of the section with the section names."""


@dataclass(frozen=True, slots=True, eq=False)
class KernelImage:
    """A kernel as data; nothing of it depends on the machine it will run on."""

    name: str
    kind: Literal["multiboot", "long"]
    entry: int
    """Physical address of the first instruction: 32-bit protected mode without paging, or long mode on an identity
    map."""
    segments: tuple[KernelSegment, ...]
    """In ascending order, without overlap, each with memory."""
    flags: int
    """The flags of the multiboot header; 0 for ``"long"``."""
    sections: SectionTable | None
    data: memoryview = field(repr=False)

    @property
    def bits(self) -> int:
        """What its code and symbols are for: 64 of a 64-bit ELF file, else 32."""
        return 64 if bytes(self.data[:5]) == b"\x7fELF\x02" else 32

    @property
    def start(self) -> int:
        """The lowest physical address that the kernel occupies."""
        return self.segments[0].address

    @property
    def end(self) -> int:
        """The address after the highest byte that it occupies."""
        return self.segments[-1].end


class _Format(NamedTuple):
    """What differs between the ELF classes."""

    bits: int
    header: struct.Struct
    program_header: struct.Struct
    order: tuple[int, int, int, int, int]
    """Where offset, vaddr, paddr, filesz and memsz stand in a program header."""
    section_size: int


_FORMATS: Final = {
    1: _Format(32, struct.Struct("<16sHHIIIIIHHHHHH"), struct.Struct("<IIIIIIII"), (1, 2, 3, 4, 5), 40),
    2: _Format(64, struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ"), (2, 3, 4, 5, 6), 64),
}


class _ElfHeader(NamedTuple):
    bits: int
    type: int
    machine: int
    entry: int
    loads: tuple[_Load, ...]
    interpreter: bool
    sections: SectionTable | None


class _Load(NamedTuple):
    number: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int


def find_header(data: memoryview) -> tuple[int, int] | None:
    """Offset and flags of the multiboot header (magic and checksum right), or None when there is none."""
    head = bytes(data[:HEADER_SEARCH])
    magic = HEADER_MAGIC.to_bytes(4, "little")
    at = head.find(magic)
    while at >= 0:
        if not at & 3 and at + _HEADER.size <= len(head):
            _, flags, checksum = _HEADER.unpack_from(head, at)
            if (HEADER_MAGIC + flags + checksum) & 0xFFFF_FFFF == 0:
                return at, flags
        at = head.find(magic, at + 1)
    return None


class _Reader:
    """Reads one file; every complaint leaves through :meth:`bad`."""

    def __init__(self, data: memoryview, name: str) -> None:
        self.data = data
        self.name = name

    def bad(self, why: str) -> NoReturn:
        raise BadImage(self.name, why)

    def elf(self) -> _ElfHeader:
        """The headers of an ELF file of either class."""
        data = self.data
        if bytes(data[:4]) != b"\x7fELF":
            self.bad(f"is not an ELF file; it begins with {bytes(data[:8])!r}")
        form = _FORMATS.get(data[4] if len(data) > 4 else 0)
        if form is None or len(data) < form.header.size:
            self.bad("is an ELF file with a broken or cut off header")
        ident, kind, machine, _, entry, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, shstrndx = (
            form.header.unpack_from(data)
        )
        if ident[5] != 1:
            self.bad("is not a little-endian ELF file")
        if machine not in (_EM_386, _EM_X86_64):
            self.bad(f"is an ELF file for machine {machine}, not for i386 or x86-64")
        if kind not in (2, 3):
            self.bad(_ELF_TYPES.get(kind, f"has ELF type {kind:#x}, neither EXEC nor DYN"))
        if not phnum:
            self.bad("has no program headers")
        if phentsize != form.program_header.size:
            self.bad(f"has program headers of {phentsize} bytes, not {form.program_header.size}")
        end = phoff + phnum * phentsize
        if end > len(data):
            self.bad(f"is cut off: its program headers end at {end:#x}, the file at {len(data):#x}")
        records = list(form.program_header.iter_unpack(data[phoff:end]))
        loads = tuple(
            _Load(number, *(record[index] for index in form.order))
            for number, record in enumerate(records)
            if record[0] == _PT_LOAD
        )
        sections = None
        if shoff and shnum and shentsize == form.section_size and shoff + shnum * shentsize <= len(data):
            sections = SectionTable(data[shoff : shoff + shnum * shentsize], shnum, shentsize, shstrndx)
        interpreter = any(record[0] == _PT_INTERP for record in records)
        return _ElfHeader(form.bits, kind, machine, entry, loads, interpreter, sections)

    def segments(self, elf: _ElfHeader) -> tuple[KernelSegment, ...]:
        """The PT_LOADs at their physical addresses."""
        found = []
        for load in elf.loads:
            what = f"segment {load.number}"
            if load.filesz > load.memsz:
                self.bad(f"{what} has more bytes in the file ({load.filesz:#x}) than in memory ({load.memsz:#x})")
            end = load.offset + load.filesz
            if load.filesz and end > len(self.data):
                self.bad(f"is cut off: {what} needs file bytes up to {end:#x}, the file ends at {len(self.data):#x}")
            if load.memsz:
                found.append(KernelSegment(load.paddr, self.data[load.offset : end], load.memsz))
        return self.ordered(found)

    def ordered(self, segments: Sequence[KernelSegment]) -> tuple[KernelSegment, ...]:
        if not segments:
            self.bad("has nothing to load")
        ordered = sorted(segments, key=lambda segment: segment.address)
        for one, other in pairwise(ordered):
            if one.end > other.address:
                self.bad(
                    f"has segments that overlap in physical memory: "
                    f"{one.address:#x}-{one.end:#x} and {other.address:#x}-{other.end:#x}"
                )
        return tuple(ordered)

    def entry(self, elf: _ElfHeader, segments: Sequence[KernelSegment]) -> int:
        """The physical entry point: e_entry is virtual when a segment's virtual addresses hold it."""
        for load in elf.loads:
            if load.vaddr <= elf.entry < load.vaddr + load.memsz:
                return elf.entry - load.vaddr + load.paddr
        if not any(segment.address <= elf.entry < segment.end for segment in segments):
            self.bad(f"has its entry point at {elf.entry:#x}, in none of its segments")
        return elf.entry

    def by_addresses(self, at: int) -> tuple[tuple[KernelSegment, ...], int]:
        """Segment and entry point of an image loaded by the address fields of the header at offset ``at``."""
        if at + _HEADER.size + _ADDRESSES.size > min(len(self.data), HEADER_SEARCH):
            self.bad(f"has a multiboot header at {at:#x} whose address fields are cut off")
        header, load, load_end, bss_end, entry = _ADDRESSES.unpack_from(self.data, at + _HEADER.size)
        offset = at - (header - load)
        if header < load or offset < 0:
            self.bad(
                f"has a multiboot header with header_addr {header:#x} and load_addr {load:#x}: "
                f"that puts the load address outside the file (the header is at {at:#x})"
            )
        size = load_end - load if load_end else len(self.data) - offset
        if size <= 0:
            self.bad(f"has a multiboot header with load_end_addr {load_end:#x} not above load_addr {load:#x}")
        if offset + size > len(self.data):
            self.bad(
                f"is cut off: its multiboot header wants file bytes up to {offset + size:#x}, "
                f"the file ends at {len(self.data):#x}"
            )
        if bss_end and bss_end < load + size:
            self.bad(f"has a multiboot header with bss_end_addr {bss_end:#x} below the end of data {load + size:#x}")
        memory = bss_end - load if bss_end else size
        if load + memory > _4_GIB:
            self.bad(f"ends at {load + memory:#x}, beyond 4 GiB")
        if not load <= entry < load + memory:
            self.bad(f"has its entry point at {entry:#x}, outside what is loaded ({load:#x}-{load + memory:#x})")
        return (KernelSegment(load, self.data[offset : offset + size], memory),), entry

    def multiboot(self, at: int, flags: int) -> KernelImage:
        unknown = flags & _MANDATORY & ~_KNOWN
        if unknown:
            self.bad(f"asks by multiboot header flags {unknown:#x} for what no multiboot 1 loader knows")
        sections = None
        if flags & ADDRESS_FIELDS:
            segments, entry = self.by_addresses(at)
        else:
            elf = self.elf()
            segments, sections = self.segments(elf), elf.sections
            entry = self.entry(elf, segments)
            self.not_position_independent(elf, segments)
        if entry >= _4_GIB:
            self.bad(f"has its entry point at {entry:#x}, beyond 4 GiB, where 32-bit code cannot be")
        return KernelImage(self.name, "multiboot", entry, segments, flags, sections, self.data)

    def long(self) -> KernelImage:
        elf = self.elf()
        if elf.bits != 64 or elf.machine != _EM_X86_64:
            what = "a 32-bit" if elf.bits == 32 else "an i386"
            self.bad(f"is {what} ELF file, and long mode is entered with a 64-bit x86-64 one")
        segments = self.segments(elf)
        entry = self.entry(elf, segments)
        self.not_position_independent(elf, segments)
        return KernelImage(self.name, "long", entry, segments, 0, elf.sections, self.data)

    def not_position_independent(self, elf: _ElfHeader, segments: Sequence[KernelSegment]) -> None:
        if elf.type == 3 and segments[0].address == 0:
            self.bad("is position-independent and linked at address 0: a kernel is linked where it is to lie")

    def without_header(self, more: str = "") -> NoReturn:
        """Says why no multiboot header was found, and what ``more`` there is to say about the file."""
        at = bytes(self.data[:HEADER_SEARCH]).find(HEADER_MAGIC.to_bytes(4, "little"))
        if at < 0:
            self.bad(f"has no multiboot header in its first {HEADER_SEARCH} bytes{more}")
        problem = "is not at a multiple of 4" if at & 3 else "has a wrong checksum or is cut off"
        self.bad(f"has no multiboot header (what is at {at:#x} {problem}){more}")

    def automatic(self) -> KernelImage:
        """Whatever the file is."""
        data = self.data
        if bytes(data[0x202:0x206]) == b"HdrS":
            self.bad("is a Linux bzImage, which its own boot protocol starts; a multiboot or ELF kernel is needed")
        for name in (b"MZ", b"#!"):
            if bytes(data[:2]) == name:
                self.bad(f"is no multiboot or ELF kernel; it begins with {bytes(data[:8])!r}")
        if bytes(data[:4]) != b"\x7fELF":
            self.without_header(" and is not an ELF file")
        if _MULTIBOOT2_MAGIC in bytes(data[:_MULTIBOOT2_SEARCH]):
            self.bad("has a multiboot 2 header only; multiboot 1 is what is spoken here")
        elf = self.elf()
        if elf.bits == 32:
            self.without_header(" and is a 32-bit ELF file")
        if elf.interpreter:
            self.bad("is a dynamically linked program, not a kernel (`mmuemu run` runs programs)")
        return self.long()


def read_kernel(data: bytes | bytearray | memoryview, name: str, entry: Entry = "auto") -> KernelImage:
    """Read a kernel from the whole file's bytes, which stay referenced; ``name`` is what errors call it.

    ``entry``: ``"multiboot"`` needs a multiboot 1 header, ``"long"`` a 64-bit ELF file; ``"auto"`` takes the first when
    the header is there, else the second. Costs time in the size of the headers. Raises :class:`BadImage` with one
    reason for anything else, :class:`UsageError` for another ``entry``.
    """
    reader = _Reader(memoryview(data).cast("B"), name)
    if entry not in ("auto", "multiboot", "long"):
        raise UsageError(f"entry {entry!r} is none of auto, multiboot, long")
    if not len(reader.data):
        reader.bad("is empty")
    if entry == "long":
        return reader.long()
    header = find_header(reader.data)
    if header is not None:
        return reader.multiboot(*header)
    if entry == "multiboot":
        reader.without_header()
    return reader.automatic()
