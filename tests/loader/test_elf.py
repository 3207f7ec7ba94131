"""Reading images: against readelf, and one refusal per way to be broken."""

from __future__ import annotations

import mmap
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from elf_forge import EM, PH, Forge

from mmuemu.errors import BadImage, Exit
from mmuemu.loader.elf import PROT_EXEC, PROT_READ, ElfImage, ElfType, read_image

Build = Callable[[str], Path]


def readelf(path: Path, *options: str) -> str:
    if shutil.which("readelf") is None:
        pytest.skip("no readelf")
    return subprocess.run(["readelf", "-W", *options, str(path)], capture_output=True, text=True, check=True).stdout


def image_of(path: Path) -> ElfImage:
    return read_image(path.read_bytes(), path.name)


@pytest.mark.parametrize(
    "name", ["glibc-dynamic", "glibc-static", "glibc-static-pie", "musl-static", "free-pie", "library"]
)
def test_program_headers_are_what_readelf_says(build: Build, name: str) -> None:
    path = build(name)
    image = image_of(path)
    text = readelf(path, "-l")
    rows = re.findall(r"^  (\S+)\s+0x(\w+) 0x(\w+) 0x\w+ 0x(\w+) 0x(\w+) (...) 0x(\w+)$", text, flags=re.MULTILINE)
    loads = [
        (*(int(number, 16) for number in (vaddr, memsz, offset, filesz, align)), flags)
        for kind, offset, vaddr, filesz, memsz, flags, align in rows
        if kind == "LOAD"
    ]
    letters = [
        "".join(letter if s.prot & bit else " " for letter, bit in (("R", 1), ("W", 2), ("E", 4)))
        for s in image.segments
    ]
    assert [
        (s.vaddr, s.memsz, s.offset, s.filesz, s.align, flags) for s, flags in zip(image.segments, letters, strict=True)
    ] == loads
    assert len(rows) == image.phnum
    assert f"Entry point {image.entry:#x}" in text
    assert image.type == (ElfType.EXEC if "type is EXEC" in text else ElfType.DYN)
    found = re.search(r"program interpreter: (.*)\]", text)
    assert image.interp == (found[1] if found else None)
    by_kind = {row[0]: [int(x, 16) for x in (row[2], row[3], row[4], row[6])] for row in rows}
    assert ([*image.tls] if image.tls else None) == by_kind.get("TLS")
    relro = by_kind.get("GNU_RELRO")
    assert image.relro == ((relro[0], relro[2]) if relro else None)
    if "PHDR" in by_kind:
        assert image.phdr_vaddr == by_kind["PHDR"][0]


def test_dynamic_table_is_what_readelf_says(build: Build) -> None:
    image = image_of(build("library"))
    rows = re.findall(r"^ 0x(\w+) \(\w+\)\s+(\S+)", readelf(build("library"), "-d"), flags=re.MULTILINE)
    assert image.dynamic is not None
    assert list(dict.fromkeys(int(tag, 16) for tag, _ in rows if int(tag, 16))) == list(image.dynamic)
    addresses = {int(tag, 16): int(value, 16) for tag, value in rows if value.startswith("0x") and int(tag, 16)}
    assert addresses
    assert {tag: image.dynamic[tag] for tag in addresses} == addresses


def test_any_buffer_will_do(build: Build) -> None:
    path = build("free-pie")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        image = read_image(mapped, "mapped")
        assert image.segments == image_of(path).segments
        image.data.release()  # or the file could not be unmapped


def test_file_offset_knows_only_file_bytes() -> None:
    image = Forge().load(0x1000, 0x10000, 0x80, 0x200, flags=6).image()
    assert image.file_offset(0x10000, 0x80) == 0x1000
    assert image.file_offset(0x10010, 0x70) == 0x1010
    assert image.file_offset(0x10010, 0x71) is None
    assert image.file_offset(0xFFFF, 1) is None
    assert image.segment_of(0x101FF, 1) is not None
    assert image.segment_of(0x101FF, 2) is None


def test_alignment_ignores_what_is_no_power_of_two() -> None:
    forge = Forge().load(0x1000, 0x200000, 0x80, align=0x200000).load(0x2000, 0x402000, 0x80, align=0x300000)
    assert forge.image().alignment == 0x200000
    assert Forge().load(0x1000, 0x200000, 0x80, align=0).image().alignment == 4096


def test_a_segment_without_file_bytes_may_lie_anywhere_in_its_page() -> None:
    assert Forge().load(0x1000, 0x200010, 0, 0x20).image().segments[0].vaddr == 0x200010


def test_executable_stack_is_the_last_gnu_stack() -> None:
    assert not Forge().load(0x1000, 0x200000, 0x80).image().executable_stack
    assert Forge().load(0x1000, 0x200000, 0x80).header(PH["GNU_STACK"], flags=7).image().executable_stack
    both = Forge().load(0x1000, 0x200000, 0x80).header(PH["GNU_STACK"], flags=7).header(PH["GNU_STACK"], flags=6)
    assert not both.image().executable_stack


def test_program_headers_outside_every_segment() -> None:
    assert Forge().load(0x1000, 0x200000, 0x80).image().phdr_vaddr is None
    assert Forge().load(0, 0x200000, 0x80).image().phdr_vaddr == 0x200040


def test_interpreter_ends_at_its_first_nul() -> None:
    forge = Forge().load(0x1000, 0x200000, 0x80)
    assert forge.interp(b"/lib/ld\0rest\0").image().interp == "/lib/ld"


OK = (0x1000, 0x200000, 0x80)

NOT_ELF = {
    b"": "is empty",
    b"\x7f": "is cut off: 1 bytes, and an ELF header takes 64",
    b"\x7fELF": "is cut off: 4 bytes, and an ELF header takes 64",
    b"#!/bin/sh -e\necho\n": "is a script for '/bin/sh -e', not an ELF file: run its interpreter",
    b"hello world": "is not an ELF file; it begins with b'hello wo'",
    b"MZ\x90\0": "is a Windows or DOS executable (PE), not an ELF file",
    b"\xcf\xfa\xed\xfe\0\0": "is a Mach-O executable, not an ELF file",
    b"\xca\xfe\xba\xbe": "is a universal Mach-O executable or a Java class, not an ELF file",
    b"!<arch>\nfoo": "is an archive of objects (.a): link it first",
}

BROKEN: dict[str, tuple[Callable[[], Forge], str]] = {
    "big endian": (lambda: Forge(data=2).load(*OK), "is a big-endian ELF file"),
    "machine": (lambda: Forge(machine=EM["AARCH64"]).load(*OK), "is for AArch64, not x86-64"),
    "i386": (lambda: Forge(machine=3, elf_class=1).load(*OK), "is for 32-bit x86, not x86-64"),
    "unknown machine": (lambda: Forge(machine=999).load(*OK), "is for machine 999, not x86-64"),
    "x32": (lambda: Forge(elf_class=1).load(*OK), "is a 32-bit (x32) ELF file"),
    "class": (lambda: Forge(elf_class=9).load(*OK), "has ELF class 9, not 64-bit"),
    "encoding": (lambda: Forge(data=7).load(*OK), "has ELF data encoding 7, not little-endian"),
    "object": (lambda: Forge(kind=1).load(*OK), "is a relocatable object (.o): link it first"),
    "core": (lambda: Forge(kind=4).load(*OK), "is a core dump, not a program"),
    "none": (lambda: Forge(kind=0).load(*OK), "has no file type (ET_NONE)"),
    "odd type": (lambda: Forge(kind=0xFE00).load(*OK), "has ELF type 0xfe00, neither EXEC nor DYN"),
    "no headers": (lambda: Forge(), "has no program headers"),
    "phentsize": (lambda: Forge(phentsize=32).load(*OK), "has program headers of 32 bytes, not 56"),
    "phnum": (lambda: Forge(phnum=0xFFFF).load(*OK), "has 65535 program headers; at most 1170 can be loaded"),
    "phoff": (lambda: Forge(phoff=1 << 60).load(*OK), "its program headers end at 0x1000000000000038"),
    "no load": (lambda: Forge().header(PH["NOTE"]), "has nothing to load"),
    "empty load": (lambda: Forge().load(0x1000, 0x200000, 0, 0), "has nothing to load"),
    "entry": (lambda: Forge(entry=1 << 63).load(*OK), "has its entry point at 0x8000000000000000"),
    "cut segment": (
        lambda: Forge(size=0x1800).load(0x1000, 0x200000, 0x900),
        "is cut off: segment 0 (PT_LOAD) needs file bytes up to 0x1900, the file ends at 0x1800",
    ),
    "filesz": (lambda: Forge().load(0x1000, 0x200000, 0x80, 0x7F), "more bytes in the file (0x80) than in"),
    "memsz": (lambda: Forge().load(0x1000, 0x200000, 0x80, 1 << 62), "beyond user space (0x7ffffffff000)"),
    "wrap": (lambda: Forge().load(0x1000, (1 << 64) - 4096, 0x80, 0x2000), "beyond user space"),
    "misaligned": (lambda: Forge().load(0x1010, 0x200000, 0x80), "lie differently in their pages"),
    "overlap": (
        lambda: Forge().load(*OK, 0x3000).load(0x2000, 0x202000, 0x80),
        "segment 1 (PT_LOAD) at 0x202000 overlaps the one before it",
    ),
    "order": (
        lambda: Forge().load(*OK).load(0x2000, 0x100000, 0x80),
        "segment 1 (PT_LOAD) at 0x100000 is out of order",
    ),
    "interp short": (lambda: Forge().load(*OK).interp(b"\0"), "of 1 bytes; 2 to 4096 are possible"),
    "interp long": (lambda: Forge().load(*OK).interp(b"x" * 4096 + b"\0"), "of 4097 bytes; 2 to 4096"),
    "interp open": (lambda: Forge().load(*OK).interp(b"/lib/ld"), "that is not NUL-terminated"),
    "interp empty": (lambda: Forge().load(*OK).interp(b"\0\0"), "has an empty interpreter path"),
    "interp cut": (
        lambda: Forge().load(*OK).header(PH["INTERP"], offset=1 << 40, filesz=9),
        "is cut off: PT_INTERP needs",
    ),
    "tls filesz": (
        lambda: Forge().load(*OK).header(PH["TLS"], offset=0x1000, filesz=9, memsz=8),
        "the TLS segment has more bytes in the file",
    ),
    "tls align": (
        lambda: Forge().load(*OK).header(PH["TLS"], memsz=8, align=24),
        "the TLS segment is aligned to 0x18, not a power of two",
    ),
    "tls huge": (lambda: Forge().load(*OK).header(PH["TLS"], memsz=1 << 60), "the TLS segment ends at"),
    "dynamic open": (
        lambda: Forge().load(*OK).dynamic([(5, 1), (5, 1)], end=False),
        "has a dynamic table without an end (no DT_NULL)",
    ),
    "dynamic cut": (
        lambda: Forge().load(*OK).header(PH["DYNAMIC"], offset=1 << 50, filesz=32),
        "is cut off: the dynamic table needs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("data", NOT_ELF, ids=lambda data: repr(data[:8]))
def test_what_is_no_elf_file(data: bytes) -> None:
    with pytest.raises(BadImage) as caught:
        read_image(data, "thing")
    assert str(caught.value) == f"thing: {NOT_ELF[data]}"
    assert caught.value.exit_code == Exit.CANNOT_LOAD


@pytest.mark.parametrize("case", BROKEN)
def test_each_way_to_be_broken_has_its_reason(case: str) -> None:
    make, reason = BROKEN[case]
    with pytest.raises(BadImage) as caught:
        make().image()
    assert reason in caught.value.why
    assert "\n" not in str(caught.value)


def test_the_forge_makes_loadable_files() -> None:
    image = Forge().load(0x1000, 0x200000, 0x80, flags=5).image()
    assert image.segments[0].prot == PROT_READ | PROT_EXEC
    assert struct.calcsize("<IIQQQQQQ") == image.phentsize
