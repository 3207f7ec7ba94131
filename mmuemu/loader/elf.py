"""ELF-64 x86-64 images read as a loader sees them: program headers, interpreter, TLS, dynamic table.

The file header, the program headers and the dynamic table are fixed-size records and are read here with
``struct``: importing pyelftools alone costs 23 ms of CPU at best, more than all of this room, and hostile input
must be stopped before any library sees it. Symbols are left to pyelftools (``symbols.py``).

Layouts: System V gABI chapters 4 and 5, elf(5). What is refused follows Linux's fs/binfmt_elf.c
(``load_elf_phdrs``, ``load_elf_binary``); files that Linux would map and then kill by SIGBUS, or hand to a
dynamic linker that crashes, are refused here with a reason.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from mmuemu.errors import BadImage
from mmuemu.x86.paging import PAGE_MASK, USER_TOP

if TYPE_CHECKING:
    from mmap import mmap

PROT_READ: Final = 1
PROT_WRITE: Final = 2
PROT_EXEC: Final = 4

PT_LOAD: Final = 1
PT_DYNAMIC: Final = 2
PT_INTERP: Final = 3
PT_TLS: Final = 7
PT_GNU_STACK: Final = 0x6474E551
PT_GNU_RELRO: Final = 0x6474E552

DT_NULL: Final = 0
DT_NEEDED: Final = 1

_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")
_DYNAMIC_ENTRY: Final = struct.Struct("<QQ")

EHDR_SIZE: Final = _HEADER.size
PHDR_SIZE: Final = _PROGRAM_HEADER.size
_MAX_PHDR_BYTES: Final = 65536
"""``load_elf_phdrs`` refuses a larger program header table."""
_PATH_MAX: Final = 4096

_EM_X86_64: Final = 62
_MACHINES: Final = {
    2: "SPARC",
    3: "32-bit x86",
    8: "MIPS",
    20: "PowerPC",
    21: "64-bit PowerPC",
    22: "S/390",
    40: "32-bit Arm",
    43: "64-bit SPARC",
    183: "AArch64",
    243: "RISC-V",
    247: "BPF",
    258: "LoongArch",
}
_OTHER_TYPES: Final = {
    0: "has no file type (ET_NONE)",
    1: "is a relocatable object (.o): link it first",
    4: "is a core dump, not a program",
}
_FOREIGN: Final = {
    b"MZ": "is a Windows or DOS executable (PE), not an ELF file",
    b"\xcf\xfa\xed\xfe": "is a Mach-O executable, not an ELF file",
    b"\xce\xfa\xed\xfe": "is a 32-bit Mach-O executable, not an ELF file",
    b"\xfe\xed\xfa\xcf": "is a big-endian Mach-O executable, not an ELF file",
    b"\xfe\xed\xfa\xce": "is a big-endian Mach-O executable, not an ELF file",
    b"\xca\xfe\xba\xbe": "is a universal Mach-O executable or a Java class, not an ELF file",
    b"!<arch>\n": "is an archive of objects (.a): link it first",
    b"\x7fELF": "",
}


class ElfType(IntEnum):
    """``e_type`` of the two kinds that can be run."""

    EXEC = 2
    DYN = 3


class Segment(NamedTuple):
    """One PT_LOAD: ``memsz`` bytes at ``vaddr``, the first ``filesz`` of them from the file at ``offset``.

    ``prot`` is an OR of PROT_READ, PROT_WRITE, PROT_EXEC; ``align`` is p_align as it stands in the file.
    """

    vaddr: int
    memsz: int
    offset: int
    filesz: int
    prot: int
    align: int

    @property
    def end(self) -> int:
        """The address after the last byte in memory, unbiased."""
        return self.vaddr + self.memsz


class Tls(NamedTuple):
    """PT_TLS: the thread-local template, ``filesz`` bytes at ``vaddr``, zero-extended to ``memsz``."""

    vaddr: int
    filesz: int
    memsz: int
    align: int


@dataclass(frozen=True, slots=True, eq=False)
class ElfImage:
    """A program, interpreter or library as data; addresses are the file's own, before any load bias."""

    name: str
    type: ElfType
    entry: int
    segments: tuple[Segment, ...]
    phdr_vaddr: int | None
    """Where the program headers lie in memory, or None when no segment holds them."""
    phentsize: int
    phnum: int
    interp: str | None
    tls: Tls | None
    executable_stack: bool
    """PT_GNU_STACK has PF_X. Without PT_GNU_STACK an x86-64 stack is not executable (arch/x86 asm/elf.h)."""
    relro: tuple[int, int] | None
    """First address and size of PT_GNU_RELRO."""
    dynamic: Mapping[int, int] | None
    """Tag -> value of the dynamic table; of a repeated tag the last one, as ld.so has it."""
    dynamic_vaddr: int | None
    alignment: int
    """The largest power-of-two p_align of a PT_LOAD, at least a page (binfmt_elf.c ``maximum_alignment``)."""
    sections: tuple[int, int]
    """File offset and number of the section headers that lie wholly inside the file, or (0, 0)."""
    data: memoryview = field(repr=False, compare=False)

    @property
    def start(self) -> int:
        """The first address of the first segment, rounded down to its page."""
        return self.segments[0].vaddr & ~PAGE_MASK

    @property
    def end(self) -> int:
        """The address after the last byte of the last segment (``total_mapping_size`` counts up to here)."""
        return max(segment.end for segment in self.segments)

    def segment_of(self, vaddr: int, size: int) -> Segment | None:
        """The segment whose memory covers all ``size`` bytes at ``vaddr``, or None."""
        index = bisect_right(self.segments, vaddr, key=attrgetter("vaddr"))
        if not index or vaddr + size > self.segments[index - 1].end:
            return None
        return self.segments[index - 1]

    def file_offset(self, vaddr: int, size: int) -> int | None:
        """Where ``size`` bytes at ``vaddr`` lie in the file, or None when no segment's file part has them."""
        segment = self.segment_of(vaddr, size)
        if segment is None or vaddr + size > segment.vaddr + segment.filesz:
            return None
        return segment.offset + vaddr - segment.vaddr


class _Header(NamedTuple):
    type: ElfType
    entry: int
    phoff: int
    phnum: int
    sections: tuple[int, int]


class _ProgramHeader(NamedTuple):
    number: int
    type: int
    flags: int
    offset: int
    vaddr: int
    filesz: int
    memsz: int
    align: int


class _Reader:
    """Reads one file; every complaint leaves through :meth:`bad`."""

    def __init__(self, data: memoryview, name: str, user_top: int) -> None:
        self.data = data
        self.name = name
        self.user_top = user_top

    def bad(self, why: str) -> NoReturn:
        raise BadImage(self.name, why)

    def header(self) -> _Header:
        data = self.data
        if not len(data):
            self.bad("is empty")
        self._magic(bytes(data[:64]))
        if len(data) < EHDR_SIZE:
            self.bad(f"is cut off: {len(data)} bytes, and an ELF header takes {EHDR_SIZE}")
        ident, kind, machine, _, entry, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, _ = _HEADER.unpack_from(
            data
        )
        if ident[5] == 2:
            self.bad("is a big-endian ELF file, not a little-endian x86-64 one")
        if machine != _EM_X86_64:
            self.bad(f"is for {_MACHINES.get(machine, f'machine {machine}')}, not x86-64")
        if ident[4] != 2:
            self.bad("is a 32-bit (x32) ELF file" if ident[4] == 1 else f"has ELF class {ident[4]}, not 64-bit")
        if ident[5] != 1:
            self.bad(f"has ELF data encoding {ident[5]}, not little-endian")
        if kind not in (ElfType.EXEC, ElfType.DYN):
            self.bad(_OTHER_TYPES.get(kind, f"has ELF type {kind:#x}, neither EXEC nor DYN"))
        if not phnum:
            self.bad("has no program headers")
        if phentsize != PHDR_SIZE:
            self.bad(f"has program headers of {phentsize} bytes, not {PHDR_SIZE}")
        if phnum * PHDR_SIZE > _MAX_PHDR_BYTES:
            self.bad(f"has {phnum} program headers; at most {_MAX_PHDR_BYTES // PHDR_SIZE} can be loaded")
        end = phoff + phnum * PHDR_SIZE
        if end > len(data):
            self.bad(f"is cut off: its program headers end at {end:#x}, the file at {len(data):#x}")
        sections = (shoff, shnum) if shoff and shentsize == 64 and shoff + shnum * 64 <= len(data) else (0, 0)
        return _Header(ElfType(kind), entry, phoff, phnum, sections)

    def _magic(self, head: bytes) -> None:
        for magic, what in _FOREIGN.items():
            if head.startswith(magic):
                if what:
                    self.bad(what)
                return
        if head.startswith(b"#!"):
            line = head[2:].split(b"\n", 1)[0].strip().decode("latin-1")
            self.bad(f"is a script for {line!r}, not an ELF file: run its interpreter")
        if head[:4] == b"\x7fELF"[: len(head)]:
            self.bad(f"is cut off: {len(head)} bytes, and an ELF header takes {EHDR_SIZE}")
        self.bad(f"is not an ELF file; it begins with {head[:8]!r}")

    def program_headers(self, header: _Header) -> list[_ProgramHeader]:
        table = self.data[header.phoff : header.phoff + header.phnum * PHDR_SIZE]
        return [
            _ProgramHeader(number, kind, flags, offset, vaddr, filesz, memsz, align)
            for number, (kind, flags, offset, vaddr, _, filesz, memsz, align) in enumerate(
                _PROGRAM_HEADER.iter_unpack(table)
            )
        ]

    def in_file(self, what: str, ph: _ProgramHeader) -> None:
        if ph.offset + ph.filesz > len(self.data):
            self.bad(
                f"is cut off: {what} needs file bytes up to {ph.offset + ph.filesz:#x}, "
                f"the file ends at {len(self.data):#x}"
            )

    def in_user_space(self, what: str, ph: _ProgramHeader) -> None:
        if ph.filesz > ph.memsz:
            self.bad(f"{what} has more bytes in the file ({ph.filesz:#x}) than in memory ({ph.memsz:#x})")
        if ph.vaddr + ph.memsz > self.user_top:
            self.bad(f"{what} ends at {ph.vaddr + ph.memsz:#x}, beyond user space ({self.user_top:#x})")

    def segments(self, headers: list[_ProgramHeader]) -> tuple[Segment, ...]:
        segments: list[Segment] = []
        for ph in headers:
            if ph.type != PT_LOAD:
                continue
            what = f"segment {ph.number} (PT_LOAD)"
            self.in_user_space(what, ph)
            self.in_file(what, ph)
            if ph.filesz and (ph.vaddr - ph.offset) & PAGE_MASK:
                self.bad(
                    f"{what} cannot be mapped: address {ph.vaddr:#x} and file offset {ph.offset:#x} "
                    "lie differently in their pages"
                )
            if segments and ph.vaddr < segments[-1].end:
                later = "overlaps the one before it" if ph.vaddr >= segments[-1].vaddr else "is out of order"
                self.bad(f"{what} at {ph.vaddr:#x} {later}")
            prot = (ph.flags >> 2 & 1) | (ph.flags & 2) | (ph.flags & 1) << 2
            segments.append(Segment(ph.vaddr, ph.memsz, ph.offset, ph.filesz, prot, ph.align))
        if not any(segment.memsz for segment in segments):
            self.bad("has nothing to load (no PT_LOAD segment with memory)")
        return tuple(segments)

    def interpreter(self, headers: list[_ProgramHeader]) -> str | None:
        ph = next((ph for ph in headers if ph.type == PT_INTERP), None)
        if ph is None:
            return None
        if not 2 <= ph.filesz <= _PATH_MAX:
            self.bad(f"has an interpreter path (PT_INTERP) of {ph.filesz} bytes; 2 to {_PATH_MAX} are possible")
        self.in_file("PT_INTERP", ph)
        path = bytes(self.data[ph.offset : ph.offset + ph.filesz])
        if path[-1]:
            self.bad("has an interpreter path (PT_INTERP) that is not NUL-terminated")
        path = path[: path.index(0)]
        if not path:
            self.bad("has an empty interpreter path (PT_INTERP)")
        return path.decode("utf-8", "surrogateescape")

    def tls(self, headers: list[_ProgramHeader]) -> Tls | None:
        ph = next((ph for ph in headers if ph.type == PT_TLS), None)
        if ph is None:
            return None
        self.in_user_space("the TLS segment", ph)
        self.in_file("the TLS segment", ph)
        align = ph.align or 1
        if align & (align - 1):
            self.bad(f"the TLS segment is aligned to {align:#x}, not a power of two")
        return Tls(ph.vaddr, ph.filesz, ph.memsz, align)

    def dynamic(self, headers: list[_ProgramHeader]) -> tuple[dict[int, int] | None, int | None]:
        ph = next((ph for ph in headers if ph.type == PT_DYNAMIC), None)
        if ph is None:
            return None, None
        self.in_file("the dynamic table", ph)
        size = ph.filesz - ph.filesz % _DYNAMIC_ENTRY.size
        table: dict[int, int] = {}
        for tag, value in _DYNAMIC_ENTRY.iter_unpack(self.data[ph.offset : ph.offset + size]):
            if tag == DT_NULL:
                break
            table[tag] = value
        else:
            self.bad("has a dynamic table without an end (no DT_NULL)")
        return table, ph.vaddr


def _phdr_vaddr(header: _Header, segments: tuple[Segment, ...]) -> int | None:
    found = None
    for segment in segments:
        if segment.offset <= header.phoff < segment.offset + segment.filesz:
            found = header.phoff - segment.offset + segment.vaddr
    return found


def _alignment(segments: tuple[Segment, ...]) -> int:
    powers = [s.align for s in segments if s.align and not s.align & (s.align - 1)]
    return max([PAGE_MASK + 1, *powers])


def read_image(data: bytes | bytearray | memoryview | mmap, name: str, user_top: int = USER_TOP) -> ElfImage:
    """Read an ELF-64 x86-64 program from the whole file's bytes (an ``mmap`` of it does too).

    ``name`` is what errors and region names call the file; nothing in it may reach beyond ``user_top``. Costs
    time in the size of the headers, not of the file, and keeps ``data`` referenced. Raises :class:`BadImage`
    with one reason for anything that cannot be loaded.
    """
    reader = _Reader(memoryview(data).cast("B"), name, user_top)
    header = reader.header()
    headers = reader.program_headers(header)
    segments = reader.segments(headers)
    if header.entry >= user_top:
        reader.bad(f"has its entry point at {header.entry:#x}, beyond user space")
    interp = reader.interpreter(headers)
    dynamic, dynamic_vaddr = reader.dynamic(headers)
    stack_flags = [ph.flags for ph in headers if ph.type == PT_GNU_STACK]
    relro = [(ph.vaddr, ph.memsz) for ph in headers if ph.type == PT_GNU_RELRO]
    return ElfImage(
        name=name,
        type=header.type,
        entry=header.entry,
        segments=segments,
        phdr_vaddr=_phdr_vaddr(header, segments),
        phentsize=PHDR_SIZE,
        phnum=header.phnum,
        interp=interp,
        tls=reader.tls(headers),
        executable_stack=bool(stack_flags and stack_flags[-1] & 1),
        relro=relro[0] if relro else None,
        dynamic=dynamic,
        dynamic_vaddr=dynamic_vaddr,
        alignment=_alignment(segments),
        sections=header.sections,
        data=reader.data,
    )
