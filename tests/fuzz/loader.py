"""ELF files: whatever the bytes, an image is planned, relocated, loaded and run a little, or refused in one line."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Final

from mmuemu.errors import BadImage, MmuemuError
from mmuemu.loader.elf import read_image
from mmuemu.loader.layout import choose_bases
from mmuemu.loader.layouts import Layout
from mmuemu.loader.plan import plan
from mmuemu.loader.relocate import relocate
from mmuemu.loader.selfrelocation import needs_relocation
from mmuemu.loader.symbols import all_symbols, dynamic_symbols
from mmuemu.machine import Files, Machine
from mmuemu.x86.paging import USER_TOP
from tests.fuzz.machines import Kept
from tests.fuzz.targets import check_refusal
from tests.kernel import isolation
from tests.loader.elf_forge import Forge

LONGEST: Final = 1 << 16
INSTRUCTIONS: Final = 2_000


def check(data: bytes) -> None:
    """Everything the loader does with one file; raises BadImage or nothing."""
    image = read_image(data, "hostile")
    for rng in (None, Random(1)):
        loaded = plan(image, choose_bases(Layout(), image, rng, vdso_pages=4))
        end = 0
        for region in loaded.regions:
            assert end <= region.start < region.end <= USER_TOP
            assert region.start % 4096 == region.end % 4096 == 0
            assert region.file_offset is None or region.file_offset % 4096 == 0
            assert region.zero_from is None or region.end - 4096 < region.zero_from < region.end
            end = region.end
    needs_relocation(image)
    result = relocate(image, loaded.load_bias)
    assert len(result.writes) <= len(data) // 8
    for write in result.writes:
        assert image.segment_of(write.address - loaded.load_bias, 8)
        assert 0 <= write.value < 1 << 64


def attempt(data: bytes, action: Callable[[bytes], object] = check) -> str | None:
    """The reason when refused; the message must be one printable line of sensible length."""
    try:
        action(data)
    except BadImage as error:
        refused = error
    else:
        return None
    check_refusal(refused, "hostile: ", 5000)
    return refused.why


@cache
def _kept() -> Kept:
    machine = Machine(memory="64M", seed=1, files=Files(isolate=True, cwd="/"))
    machine.open_files(None)
    return Kept(machine)


def forget() -> None:
    """Make another machine the next time."""
    if _kept.cache_info().currsize:
        _kept().machine.close()
        _kept.cache_clear()


def one(data: bytes) -> None:
    """Plan it; name its symbols; what can be loaded is loaded and run."""
    refused = attempt(data)
    for names in (dynamic_symbols, all_symbols):
        attempt(data, lambda raw, names=names: names(read_image(raw, "hostile")))  # type: ignore[misc]
    if refused is not None and not refused.startswith("needs the symbol"):
        return
    with _kept() as machine:
        try:
            machine.spawn(data, ["program"], {})
        except MmuemuError as error:
            check_refusal(error, "", 5000)
            return
        machine.run(max_instructions=INSTRUCTIONS, timeout=2)
        isolation.check(machine.kernel)


_CODE: Final = bytes.fromhex("b82700000089c30f05b8e7000000bf070000000f05")
"""getpid(); exit_group(7)."""


def seeds() -> list[bytes]:
    """Programs of each kind, forged: fixed, position-independent, relocated, with an interpreter."""
    fixed = Forge(size=0x3000, entry=0x200000).load(0x1000, 0x200000, 0x100, 0x2000, flags=7).put(0x1000, _CODE)
    fixed.free = 0x2000
    moved = Forge(kind=3, size=0x4000, entry=0x1000).load(0, 0, 0x2000, flags=5).load(0x2000, 0x2000, 0x1000, flags=6)
    relocation = struct.pack("<QQq", 0x2100, 8, 0x1000) + struct.pack("<QQq", 0x2108, 37, 0x1000)
    moved.put(0x1000, _CODE).put(0x2200, relocation).put(0x2300, struct.pack("<3Q", 0x2110, 7, 0x2120))
    moved.put(0x2400, b"\0name\0other\0").put(0x2500, bytes(24) + struct.pack("<IBBHQQ", 1, 18, 0, 6, 0x1000, 8))
    moved.put(0x2600, struct.pack("<4I", 1, 2, 1, 0) + bytes(8))
    moved.free = 0x2800 - 0x1800
    tags = [(7, 0x2200), (8, 48), (9, 24), (36, 0x2300), (35, 24), (37, 8), (5, 0x2400), (10, 12), (6, 0x2500)]
    moved.dynamic([*tags, (11, 24), (4, 0x2600)], vaddr=0x2800)
    interpreted = Forge(size=0x3000, entry=0x200000).load(0x1000, 0x200000, 0x1000, flags=5).put(0x1000, _CODE)
    interpreted.free = 0x2800
    interpreted.interp(b"/tmp/program\0")
    return [fixed.bytes(), moved.bytes(), interpreted.bytes(), b"\x7fELF\x02\x01\x01", b"#!/tmp/program -x\n", b""]
