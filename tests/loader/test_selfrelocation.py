"""Who relocates: real start-up code is recognized with and without symbols, freestanding programs are not."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from elf_forge import Forge

from mmuemu.loader.elf import ElfImage, read_image
from mmuemu.loader.relocate import relocate
from mmuemu.loader.selfrelocation import needs_relocation

Build = Callable[[str], Path]

VERDICTS = {
    "glibc-dynamic": (False, "its interpreter does ('/lib64/ld-linux-x86-64.so.2')"),
    "musl-dynamic": (False, "its interpreter does ('/lib/ld-musl-x86_64.so.1')"),
    "glibc-static": (False, "its start-up code does (__rela_iplt_start)"),
    "glibc-static-stripped": (False, "its code refers to its relocation table"),
    "glibc-static-pie": (False, "its start-up code does (_dl_relocate_static_pie)"),
    "glibc-static-pie-stripped": (False, "its code refers to _DYNAMIC"),
    "musl-static": (False, "it has no relocations"),
    "musl-static-pie": (False, "its code refers to _DYNAMIC"),
    "musl-static-pie-stripped": (False, "its code refers to _DYNAMIC"),
    "probe-static": (False, "it has no relocations"),
    "probe-pie": (False, "it has no relocations"),
    "free-pie": (True, "it has relocations and no start-up code that applies them"),
    "free-relr": (True, "it has relocations and no start-up code that applies them"),
    "free-ifunc": (True, "it has relocations and no start-up code that applies them"),
}


def image_of(path: Path) -> ElfImage:
    return read_image(path.read_bytes(), path.name)


@pytest.mark.parametrize("name", VERDICTS)
def test_verdicts(build: Build, name: str) -> None:
    verdict = needs_relocation(image_of(build(name)))
    assert tuple(verdict) == VERDICTS[name]
    assert bool(verdict) == VERDICTS[name][0]


SYSTEM = [
    "/bin/busybox",
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "/usr/lib/x86_64-linux-musl/libc.so",
]


@pytest.mark.parametrize("path", SYSTEM)
def test_programs_of_the_system_relocate_themselves(path: str) -> None:
    if not Path(path).exists():
        pytest.skip(f"{path} is not here")
    image = image_of(Path(path))
    if image.interp is not None:
        pytest.skip(f"{path} is dynamic here")
    started = time.process_time()
    verdict = needs_relocation(image)
    assert time.process_time() - started < 0.05
    assert not verdict
    assert verdict.reason.startswith(("its code refers to", "its start-up code does"))


def test_busybox_would_be_changed_if_it_were_relocated() -> None:
    path = Path("/bin/busybox")
    if not path.exists() or image_of(path).interp is not None:
        pytest.skip("no static busybox")
    assert relocate(image_of(path), 0).resolvers


LEA = {"rax": b"\x48\x8d\x05", "r9": b"\x4c\x8d\x0d", "rdi": b"\x48\x8d\x3d"}


def with_code(code: bytes, at: int = 0x200, *, flags: int = 5, dynamic: bool = True) -> ElfImage:
    """One RELATIVE relocation; code at 0x1000 + at; _DYNAMIC at 0x2800."""
    rela = struct.pack("<QQq", 0x1800, 8, 0)
    forge = Forge(kind=3, entry=0x1000, size=0x12000).load(0x1000, 0x1000, 0x1000, flags=flags)
    forge.put(0x1000 + at, code).put(0x1900, rela)
    assert dynamic
    return forge.dynamic([(7, 0x1900), (8, 24)], vaddr=0x2800).image()


@pytest.mark.parametrize("register", LEA)
def test_a_lea_of_dynamic_is_found_in_any_register(register: str) -> None:
    displacement = 0x2800 - (0x1200 + 7)
    assert not needs_relocation(with_code(LEA[register] + struct.pack("<i", displacement)))


def test_what_only_looks_like_it_is_not_taken() -> None:
    displacement = 0x2800 - (0x1200 + 7)
    near = LEA["rax"] + struct.pack("<i", displacement + 1)
    assert needs_relocation(with_code(near))
    assert needs_relocation(with_code(LEA["rax"] + struct.pack("<i", displacement), flags=6))
    assert needs_relocation(with_code(b"\x48\x8d\x45" + struct.pack("<i", displacement)))
    assert needs_relocation(with_code(LEA["rax"] + b"\0\0", at=0xFFB))


@pytest.mark.parametrize(
    ("opcode", "found"),
    [(b"\xbb", True), (b"\x48\xc7\xc3", True), (b"\x90", False), (b"\x48\x81\xc3", False)],
)
def test_a_mov_of_the_tables_address_is_found(opcode: bytes, found: bool) -> None:
    image = with_code(opcode + struct.pack("<I", 0x1900))
    assert bool(needs_relocation(image)) == (not found)
