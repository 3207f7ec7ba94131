"""Planned regions: equal to /proc/self/maps of the host for real and for generated segment shapes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from elf_forge import Forge
from host import Line, run, run_probe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmuemu.errors import BadImage
from mmuemu.loader.elf import ElfImage, read_image
from mmuemu.loader.layout import Bases, choose_bases
from mmuemu.loader.layouts import Layout
from mmuemu.loader.plan import LoadPlan, PlannedRegion, plan, plan_interpreter

Build = Callable[[str], Path]
PAGE = 4096
CONTENT = bytes(range(1, 252)) * 300
"""Never zero, and no two pages alike."""


def image_of(path: Path) -> ElfImage:
    return read_image(path.read_bytes(), str(path))


def as_lines(regions: tuple[PlannedRegion, ...]) -> list[Line]:
    """What maps would show: a region with a zeroed end and one that goes on in the file are one there."""
    lines: list[Line] = []
    for r in regions:
        line = Line(r.start, r.end, r.prot, r.file_offset or 0, r.name)
        last = lines[-1] if lines else None
        same = last and (last.end, last.prot, last.name) == (line.start, line.prot, line.name)
        if last and same and (not line.name or last.offset + last.end - last.start == line.offset):
            line = line._replace(start=last.start, offset=last.offset)
            lines.pop()
        lines.append(line)
    return lines


def host_lines(path: Path, prefix: list[str], loaded: LoadPlan) -> list[Line]:
    start, end = loaded.regions[0].start, loaded.regions[-1].end
    return [line for line in run_probe(path, prefix).lines if start <= line.start < end]


@pytest.mark.parametrize("name", ["probe-static", "probe-pie", "free-pie", "free-relr"])
def test_real_programs_map_as_on_the_host(build: Build, fixed: list[str], name: str) -> None:
    path = build(name)
    image = image_of(path)
    loaded = plan(image, choose_bases(Layout(), image, None))
    assert host_lines(path, fixed, loaded) == as_lines(loaded.regions)


def test_a_dynamic_program_and_its_interpreter_map_as_on_the_host(
    build: Build, fixed: list[str], tmp_path: Path
) -> None:
    data, old = build("glibc-dynamic").read_bytes(), image_of(build("glibc-dynamic")).interp or ""
    directory = Path(tempfile.mkdtemp(prefix="p", dir="/tmp"))
    link, path = directory / "i", tmp_path / "dynamic"
    assert len(str(link)) <= len(old)
    link.symlink_to(build("probe-pie"))
    path.write_bytes(data.replace(old.encode() + b"\0", str(link).encode().ljust(len(old) + 1, b"\0")))
    path.chmod(0o755)
    try:
        image, interpreter = image_of(path), image_of(build("probe-pie"))
        bases = choose_bases(Layout(), image, None, interpreter=interpreter)
        loaded, loader = plan(image, bases), plan_interpreter(interpreter, bases)
        assert host_lines(path, fixed, loaded) == as_lines(loaded.regions)
        assert host_lines(path, fixed, loader) == as_lines(loader.regions)
    finally:
        shutil.rmtree(directory)


@st.composite
def shapes(draw: st.DrawFn) -> Forge:
    """Ascending segments that share pages, leave gaps, have bss or nothing else, in every protection."""
    kind = draw(st.sampled_from([2, 3]))
    forge = Forge(kind=kind, size=0x14000, entry=0x400000).put(0x1000, CONTENT[:0x13000])
    address = 0x400000 if kind == 2 else draw(st.sampled_from([0, 0x3000]))
    offset = 0x1000
    for index in range(draw(st.integers(1, 5))):
        address += draw(st.sampled_from([0, 1, 0x10, 0x800, PAGE, 0x2345, 0x10000]))
        page = draw(st.sampled_from([0, PAGE, offset & ~0xFFF]))
        filesz = draw(st.sampled_from([0, 1, 0x7FF, PAGE, 0x1801, 0x3000] if index else [1, PAGE, 0x1801]))
        extra = draw(st.sampled_from([0, 0, 1, 0x7FF, PAGE, 0x2801]))
        flags = draw(st.sampled_from([4, 5, 6, 7, 6, 0, 2]))
        forge.load(page + address % PAGE, address, filesz, filesz + extra, flags=flags)
        address += filesz + extra
        offset = page + address % PAGE + filesz
    return forge


def page_of(image: ElfImage, region: PlannedRegion) -> bytes:
    """The last page of a file region, as the plan says it is."""
    assert region.file_offset is not None
    at = region.file_offset + region.end - region.start - PAGE
    page = bytes(image.data[at : at + PAGE]).ljust(PAGE, b"\0")
    if region.zero_from is None:
        return page
    return page[: region.zero_from % PAGE].ljust(PAGE, b"\0")


@settings(max_examples=70, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(forge=shapes())
def test_any_shape_maps_as_on_the_host(build: Build, fixed: list[str], tmp_path: Path, forge: Forge) -> None:
    path = tmp_path / "shape"
    path.unlink(missing_ok=True)
    path.write_bytes(forge.interp(str(build("probe-pie")).encode() + b"\0").bytes())
    path.chmod(0o755)
    image = image_of(path)
    loaded = plan(image, choose_bases(Layout(), image, None))
    assert host_lines(path, fixed, loaded) == as_lines(loaded.regions)
    for region in loaded.regions:
        if region.file_offset is not None and region.prot & 1:
            where = region.end - PAGE
            assert run(path, fixed, "p", f"{where:x}", f"{PAGE:x}") == page_of(image, region)


BASES = Bases(0x10000, None, 0, 0, 0x99000, None, False)


def test_addresses_are_biased() -> None:
    forge = Forge(kind=3, entry=0x1234).load(0, 0x1000, 0x2000).header(7, vaddr=0x1800, memsz=64, align=16)
    loaded = plan(forge.image(), BASES)
    assert loaded.entry == 0x11234
    assert loaded.phdr == 0x10000 + 0x1040
    assert loaded.brk_start == 0x99000
    assert loaded.tls is not None
    assert (loaded.tls.vaddr, loaded.tls.memsz) == (0x11800, 64)


def test_phdr_is_the_bias_when_nothing_holds_the_headers() -> None:
    assert plan(Forge(kind=3, entry=0).load(0x1000, 0x1000, 0x2000).image(), BASES).phdr == 0x10000


def test_huge_memory_costs_one_region() -> None:
    image = Forge().load(0, 0x200000, 0x1000, 0x7FF000000000, flags=6).image()
    loaded = plan(image, BASES._replace(load_bias=0))
    assert [(r.start, r.end, r.name) for r in loaded.regions] == [
        (0x200000, 0x201000, "forged"),
        (0x201000, 0x7FF000200000, ""),
    ]


def test_segments_that_continue_are_one_region() -> None:
    image = Forge().load(0, 0x200000, 0x1000).load(0x1000, 0x201000, 0x1000).load(0x3000, 0x202000, 8).image()
    loaded = plan(image, BASES._replace(load_bias=0))
    assert [(r.start, r.end, r.file_offset) for r in loaded.regions] == [
        (0x200000, 0x202000, 0),
        (0x202000, 0x203000, 0x3000),
    ]


def test_a_zeroed_end_is_kept_when_the_file_goes_on() -> None:
    image = Forge().load(0, 0x200000, 0x800, 0x900, flags=6).load(0x1000, 0x201000, 0x1000, flags=6).image()
    loaded = plan(image, BASES._replace(load_bias=0))
    assert [(r.start, r.end, r.zero_from) for r in loaded.regions] == [
        (0x200000, 0x201000, 0x200800),
        (0x201000, 0x202000, None),
    ]


def test_entry_outside_user_space_is_refused() -> None:
    image = Forge(kind=3, entry=0x7FFFFFFF0000).load(0, 0x1000, 0x2000).image()
    with pytest.raises(BadImage, match="entry point at 0x800000000000, outside user space"):
        plan(image, BASES)


def test_an_interpreter_needs_its_own_bases() -> None:
    image = Forge(kind=3, entry=0).load(0, 0, 0x2000).image()
    with pytest.raises(ValueError, match="without an interpreter"):
        plan_interpreter(image, BASES)
