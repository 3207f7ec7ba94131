"""The vDSO as a file: an ELF shared object of one page, made of the functions of ``vdso.s``.

Its shape is that of Linux's (arch/x86/entry/vdso/vdso-layout.lds.S): soname linux-vdso.so.1, every function under its
name and under that without ``__vdso_``, weak, with version LINUX_2.6; one PT_LOAD that is read and executed,
PT_DYNAMIC, PT_NOTE with the kernel's version, PT_GNU_EH_FRAME for unwinders. Both hash tables are there, for readers
that know but one.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final

SONAME: Final = b"linux-vdso.so.1"
VERSION: Final = b"LINUX_2.6"
KERNEL_VERSION: Final = 6 << 16 | 1 << 8
"""LINUX_VERSION_CODE of what uname tells, 6.1.0."""
PREFIX: Final = "__vdso_"

_PT_LOAD, _PT_DYNAMIC, _PT_NOTE, _PT_GNU_EH_FRAME, _PT_GNU_STACK = 1, 2, 4, 0x6474E550, 0x6474E551
_PF_R, _PF_RX, _PF_RW = 4, 5, 6
_EHDR_SIZE: Final = 64
_PHDR_SIZE: Final = 56
_WEAK_FUNC: Final = 2 << 4 | 2
_GLOBAL_OBJECT: Final = 1 << 4 | 1
_SHN_ABS: Final = 0xFFF1
_TEXT_SECTION: Final = 1
"""A section number for symbols: there are no section headers, and it only must not be SHN_UNDEF."""
_DT: Final = {
    "HASH": 4, "STRTAB": 5, "SYMTAB": 6, "STRSZ": 10, "SYMENT": 11, "SONAME": 14, "GNU_HASH": 0x6FFF_FEF5,
    "VERSYM": 0x6FFF_FFF0, "VERDEF": 0x6FFF_FFFC, "VERDEFNUM": 0x6FFF_FFFD,
}  # fmt: skip


def _sysv_hash(name: bytes) -> int:
    value = 0
    for byte in name:
        value = (value << 4) + byte
        value = (value ^ (value & 0xF000_0000) >> 24) & 0x0FFF_FFFF
    return value


def _gnu_hash(name: bytes) -> int:
    value = 5381
    for byte in name:
        value = value * 33 + byte & 0xFFFF_FFFF
    return value


def _hash_table(names: Sequence[bytes]) -> bytes:
    """DT_HASH with one bucket: symbols 1, 2, ... in one chain."""
    count = len(names) + 1
    return struct.pack(f"<{3 + count}I", 1, count, 1, 0, *range(2, count), 0)


def _gnu_hash_table(names: Sequence[bytes]) -> bytes:
    """DT_GNU_HASH with one bucket and a Bloom filter of one word."""
    hashes = [_gnu_hash(name) for name in names]
    bloom = 0
    for value in hashes:
        bloom |= 1 << (value & 63) | 1 << (value >> 6 & 63)
    chain = [value & ~1 for value in hashes[:-1]] + [hashes[-1] | 1]
    return struct.pack(f"<4IQI{len(chain)}I", 1, 1, 1, 6, bloom, 1, *chain)


class _Strings:
    """A string table."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")

    def add(self, text: bytes) -> int:
        at = self.data.find(b"\0" + text + b"\0")
        if at >= 0:
            return at + 1
        self.data += text + b"\0"
        return len(self.data) - len(text) - 1


def _version_definitions(strings: _Strings) -> bytes:
    """The base (the soname) and LINUX_2.6, as DT_VERDEF has them."""
    entries = b""
    for number, (name, flags) in enumerate(((SONAME, 1), (VERSION, 0)), 1):
        following = 28 if number == 1 else 0
        entries += struct.pack("<HHHHIII", 1, flags, number, 1, _sysv_hash(name), 20, following)
        entries += struct.pack("<II", strings.add(name), 0)
    return entries


def _eh_frame(text: int, size: int, at: int) -> tuple[bytes, bytes]:
    """.eh_frame_hdr, to lie at ``at``, and the .eh_frame after it: the functions have no frame.

    DWARF 4, section 6.4.1, as the LSB's "Exception Frames" changes it: CFA = RSP + 8, return address at CFA - 8.
    """
    frame = at + 20
    rules = bytes([0x0C, 7, 8, 0x80 | 16, 1])
    cie = struct.pack("<IB", 0, 1) + b"zR\0" + bytes([1, 0x78, 16, 1, 0x1B]) + rules
    cie = cie.ljust((len(cie) + 7) // 8 * 8 - 4, b"\0")
    fde_at = frame + 4 + len(cie)
    fde = struct.pack("<IiIB", fde_at + 4 - frame, text - (fde_at + 8), size, 0)
    fde = fde.ljust((len(fde) + 7) // 8 * 8 - 4, b"\0")
    table = b"".join(struct.pack("<I", len(entry)) + entry for entry in (cie, fde)) + bytes(4)
    header = struct.pack("<4BiIii", 1, 0x1B, 0x03, 0x3B, frame - (at + 4), 1, text - at, fde_at - at)
    return header, table


class _Image:
    """Bytes laid down one after another, each piece at a remembered place."""

    def __init__(self, start: int) -> None:
        self.data = bytearray(start)

    def put(self, piece: bytes, align: int = 8) -> int:
        self.data += bytes(-len(self.data) % align)
        at = len(self.data)
        self.data += piece
        return at


def _program_header(kind: int, flags: int, at: int, size: int, align: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, flags, at, at, at, size, size, align)


def build_vdso(functions: Mapping[str, bytes]) -> bytes:
    """The shared object, out of each function's position-independent code by name (``__vdso_...``)."""
    strings, image = _Strings(), _Image(_EHDR_SIZE + 5 * _PHDR_SIZE)
    note = image.put(struct.pack("<3I8sI", 6, 4, 0, b"Linux\0", KERNEL_VERSION), 4)
    note_size = len(image.data) - note
    text = image.put(b"", 16)
    places = {name: (image.put(code, 16), len(code)) for name, code in functions.items()}
    text_size = len(image.data) - text
    names = {name.encode(): name for name in functions} | {n.removeprefix(PREFIX).encode(): n for n in functions}
    symbols = bytes(24)
    for public, name in names.items():
        value, size = places[name]
        symbols += struct.pack("<IBBHQQ", strings.add(public), _WEAK_FUNC, 0, _TEXT_SECTION, value, size)
    symbols += struct.pack("<IBBHQQ", strings.add(VERSION), _GLOBAL_OBJECT, 0, _SHN_ABS, 0, 0)
    all_names = [*names, VERSION]
    definitions = _version_definitions(strings)
    values = {
        "SONAME": strings.add(SONAME),
        "HASH": image.put(_hash_table(all_names)),
        "GNU_HASH": image.put(_gnu_hash_table(all_names)),
        "SYMTAB": image.put(symbols),
        "STRTAB": image.put(bytes(strings.data)),
        "VERSYM": image.put(struct.pack(f"<{len(all_names) + 1}H", 0, *[2] * len(all_names))),
        "VERDEF": image.put(definitions),
        "VERDEFNUM": 2,
        "STRSZ": len(strings.data),
        "SYMENT": 24,
    }
    eh_at = image.put(b"", 4)
    eh_header, eh_frame = _eh_frame(text, text_size, eh_at)
    image.put(eh_header, 4)
    image.put(eh_frame, 4)
    table = b"".join(struct.pack("<QQ", _DT[name], value) for name, value in values.items()) + bytes(16)
    dynamic = image.put(table)
    headers = (
        _program_header(_PT_LOAD, _PF_RX, 0, len(image.data), 0x1000)
        + _program_header(_PT_DYNAMIC, _PF_R, dynamic, len(table), 8)
        + _program_header(_PT_NOTE, _PF_R, note, note_size, 4)
        + _program_header(_PT_GNU_EH_FRAME, _PF_R, eh_at, len(eh_header), 4)
        + _program_header(_PT_GNU_STACK, _PF_RW, 0, 0, 16)
    )
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = struct.pack("<16sHHIQQQIHHHHHH", ident, 3, 62, 1, text, _EHDR_SIZE, 0, 0, 64, _PHDR_SIZE, 5, 0, 0, 0)
    image.data[: _EHDR_SIZE + 5 * _PHDR_SIZE] = header + headers
    return bytes(image.data)
