"""Whether a program must be relocated for it, or relocates itself when it starts.

Linux relocates nothing. A program with an interpreter is relocated by that; glibc's and musl's static
start-up code relocates static (PIE) programs. Doing it a second time breaks them: RELR entries add the bias
to what is there, and an IRELATIVE slot filled early calls its resolver before the C library is ready for it.
Only a freestanding program that brings neither an interpreter nor such start-up code is left to the loader.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from mmuemu.loader.elf import PROT_EXEC
from mmuemu.loader.tables import RelocationTables, relocation_tables

if TYPE_CHECKING:
    from mmuemu.loader.elf import ElfImage

_MARKERS: Final = re.compile(rb"\0(_dl_relocate_static_pie|__rela_iplt_start|apply_irel|_dlstart_c|_dl_start)(?=\0)")
"""Names in the symbol table of start-up code: glibc's csu/static-reloc.c, csu/libc-start.c and
elf/dl-reloc-static-pie.c, elf/rtld.c; musl's ldso/dlstart.c; the linker's __rela_iplt_start."""

_LEA_RIP: Final = re.compile(rb"[\x48\x4c]\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]", re.DOTALL)
"""``lea reg64, [rip+disp32]`` up to its displacement (SDM volume 2, LEA: REX.W 8D /r, mod 00 rm 101)."""
_LEA_LENGTH: Final = 7
_TAKES_IMM32: Final = re.compile(rb"(?:[\xb8-\xbf]|\xc7[\xc0-\xc7])\Z", re.DOTALL)
"""Ends of ``mov r32, imm32`` (B8+r) and ``mov r/m64, imm32`` (C7 /0 with a register)."""
_OPCODE_BYTES: Final = 2


class Verdict(NamedTuple):
    """Whether the loader must relocate an image, and the reason in a few words."""

    needed: bool
    reason: str

    def __bool__(self) -> bool:
        return self.needed


def _marker(image: ElfImage) -> str | None:
    """A start-up function named in the part of the file that is never loaded, where .strtab lies."""
    loaded = max(segment.offset + segment.filesz for segment in image.segments)
    found = _MARKERS.search(image.data, loaded)
    return found[1].decode() if found else None


def _code(image: ElfImage) -> list[tuple[int, memoryview]]:
    return [
        (segment.vaddr, image.data[segment.offset : segment.offset + segment.filesz])
        for segment in image.segments
        if segment.prot & PROT_EXEC and segment.filesz
    ]


def _takes_address(image: ElfImage, target: int) -> bool:
    """Whether some ``lea reg, [rip+disp]`` computes ``target`` (an unbiased address)."""
    displacement = struct.Struct("<i")
    for vaddr, code in _code(image):
        last = len(code) - _LEA_LENGTH
        for found in _LEA_RIP.finditer(code):
            at = found.start()
            if at > last:
                break
            if vaddr + at + _LEA_LENGTH + displacement.unpack_from(code, at + 3)[0] == target:
                return True
    return False


def _loads_constant(image: ElfImage, value: int) -> bool:
    """Whether some ``mov reg, imm32`` loads ``value``."""
    if value >> 31:
        return False
    constant = re.compile(re.escape(struct.pack("<I", value)), re.DOTALL)
    return any(
        _TAKES_IMM32.search(bytes(code[max(0, found.start() - _OPCODE_BYTES) : found.start()])) is not None
        for _, code in _code(image)
        for found in constant.finditer(code)
    )


def _own_start_up(image: ElfImage, tables: RelocationTables) -> str | None:
    marker = _marker(image)
    if marker:
        return f"its start-up code does ({marker})"
    if image.dynamic_vaddr is not None and _takes_address(image, image.dynamic_vaddr):
        return "its code refers to _DYNAMIC"
    for table in tables.rela:
        if _loads_constant(image, table.vaddr) or _takes_address(image, table.vaddr):
            return "its code refers to its relocation table"
    return None


def needs_relocation(image: ElfImage) -> Verdict:
    """Decide who relocates ``image``; raises :class:`BadImage` when its relocation tables are broken.

    Reads the executable segments of stripped programs once (a few milliseconds per megabyte).
    """
    if image.interp is not None:
        return Verdict(False, f"its interpreter does ({image.interp!r})")
    tables = relocation_tables(image)
    if not tables:
        return Verdict(False, "it has no relocations")
    own = _own_start_up(image, tables)
    if own:
        return Verdict(False, own)
    return Verdict(True, "it has relocations and no start-up code that applies them")
