"""Small kernel images made field by field, right and wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence

MIB = 1 << 20
TEXT = bytes(range(256)) * 8

Load = tuple[int, int, int, int, int]
"""Offset, vaddr, paddr, filesz, memsz."""


def header(flags: int = 3, *addresses: int, checksum: int | None = None) -> bytes:
    checksum = -(0x1BADB002 + flags) & 0xFFFF_FFFF if checksum is None else checksum
    return struct.pack(f"<{3 + len(addresses)}I", 0x1BADB002, flags, checksum, *addresses)


def elf(
    loads: Sequence[Load] = ((0x1000, MIB, MIB, 0x800, 0x3000),),
    *,
    bits: int = 32,
    entry: int = MIB + 0x10,
    machine: int | None = None,
    kind: int = 2,
    head: bytes | None = None,
    at: int = 0x1000,
    interpreter: bool = False,
    size: int = 0x3000,
    sections: Sequence[tuple[int, int, int, int, int]] = (),
) -> bytes:
    """A kernel file; ``sections`` are (type, flags, address, offset, size) behind the null section."""
    wide = bits == 64
    records = [(1, *load) for load in loads] + ([(3, 0, 0, 0, 0, 0)] if interpreter else [])
    layout = "<IIQQQQQQ" if wide else "<IIIIIIII"
    out = bytearray(size)
    for number, (type_, offset, vaddr, paddr, filesz, memsz) in enumerate(records):
        fields = (type_, 7, offset, vaddr, paddr, filesz, memsz, 4096)
        fields = fields if wide else (type_, offset, vaddr, paddr, filesz, memsz, 7, 4096)
        struct.pack_into(layout, out, 64 + number * struct.calcsize(layout), *fields)
    entry_size = 64 if wide else 40
    table = b"".join(
        struct.pack("<IIQQQQIIQQ" if wide else "<10I", 0, *section, 0, 0, 1, 0) for section in [(0,) * 5, *sections]
    )
    shoff = len(out) if sections else 0
    struct.pack_into(
        "<16sHHIQQQIHHHHHH" if wide else "<16sHHIIIIIHHHHHH", out, 0,
        b"\x7fELF" + bytes([2 if wide else 1, 1, 1]), kind, machine or (62 if wide else 3), 1, entry, 64, shoff, 0,
        64 if wide else 52, struct.calcsize(layout), len(records), entry_size, len(sections) and len(sections) + 1, 1,
    )  # fmt: skip
    for offset, _, _, filesz, _ in loads:
        out[offset : offset + filesz] = (TEXT * (filesz // len(TEXT) + 1))[: max(min(filesz, len(out) - offset), 0)]
    head = header() if head is None else head
    out[at : at + len(head)] = head
    return bytes(out) + (table if sections else b"")


def flat(header_addr=MIB + 8, load=MIB, load_end=0, bss_end=0, entry=MIB + 0x40, size=0x400) -> bytes:
    return bytes(8) + header(1 << 16, header_addr, load, load_end, bss_end, entry) + TEXT[: size - 40]


SEEDS = [
    elf(sections=[(3, 0, 0, 0x2000, 0x40), (2, 0, 0, 0x2100, 0x123)]),
    elf(bits=64, loads=[(0x1000, MIB, MIB, 0x800, 0x900), (0x2000, 0, 0x8000, 0x100, 0x100)]),
    elf(bits=64, head=b"", sections=[(3, 0, 0, 0x2000, 0x40)]),
    flat(load_end=MIB + 0x200, bss_end=MIB + 0x5000),
]
