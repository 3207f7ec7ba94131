"""Small ELF files made field by field, right and wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from mmuemu.loader.elf import ElfImage, read_image

PH = {"LOAD": 1, "DYNAMIC": 2, "INTERP": 3, "NOTE": 4, "TLS": 7, "GNU_STACK": 0x6474E551}
EM = {"X86_64": 62, "AARCH64": 183}
TABLE_ROOM = 0x1000
"""Program headers lie in the first page; the content of the file follows."""


class Forge:
    """Builds one file: a header with any field overridden, program headers as added, content as placed."""

    def __init__(self, *, size: int = 0x10000, elf_class: int = 2, data: int = 1, kind: int = 2,
                 machine: int = EM["X86_64"], entry: int = 0x200000, phoff: int = 64, phentsize: int = 56,
                 phnum: int | None = None) -> None:  # fmt: skip
        self.size = size
        self.ident = b"\x7fELF" + bytes([elf_class, data, 1]) + bytes(9)
        self.kind, self.machine, self.entry = kind, machine, entry
        self.phoff, self.phentsize, self.phnum = phoff, phentsize, phnum
        self.headers: list[bytes] = []
        self.content: list[tuple[int, bytes]] = []
        self.free = 0x8000

    def header(self, kind: int, *, offset: int = 0, vaddr: int = 0, filesz: int = 0, memsz: int = 0,
               flags: int = 4, align: int = 0) -> Forge:  # fmt: skip
        fields = (kind, flags, offset, vaddr, vaddr, filesz, memsz, align)
        self.headers.append(struct.pack("<IIQQQQQQ", *fields))
        return self

    def load(self, offset: int, vaddr: int, filesz: int, memsz: int | None = None, flags: int = 4,
             align: int = 4096) -> Forge:  # fmt: skip
        memsz = filesz if memsz is None else memsz
        return self.header(PH["LOAD"], offset=offset, vaddr=vaddr, filesz=filesz, memsz=memsz, flags=flags, align=align)

    def put(self, offset: int, content: bytes) -> Forge:
        self.content.append((offset, content))
        return self

    def interp(self, path: bytes) -> Forge:
        self.put(self.free, path)
        return self.header(PH["INTERP"], offset=self.free, filesz=len(path), memsz=len(path))

    def dynamic(self, entries: Sequence[tuple[int, int]], *, end: bool = True, vaddr: int = 0) -> Forge:
        table = b"".join(struct.pack("<QQ", *entry) for entry in entries) + bytes(16 if end else 0)
        self.put(self.free + 0x1800, table)
        return self.header(PH["DYNAMIC"], offset=self.free + 0x1800, vaddr=vaddr, filesz=len(table), memsz=len(table))

    def bytes(self) -> bytes:
        out = bytearray(self.size)
        phnum = len(self.headers) if self.phnum is None else self.phnum
        out[:64] = struct.pack(
            "<16sHHIQQQIHHHHHH", self.ident, self.kind, self.machine, 1, self.entry, self.phoff, 0, 0, 64,
            self.phentsize, phnum, 0, 0, 0,
        )  # fmt: skip
        table = b"".join(self.headers)
        out[64 : 64 + len(table)] = table
        for offset, content in self.content:
            out[offset : offset + len(content)] = content
        return bytes(out[: self.size])

    def image(self, name: str = "forged") -> ElfImage:
        return read_image(self.bytes(), name)
