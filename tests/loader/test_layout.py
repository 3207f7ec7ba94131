"""Bases: fixed ones equal the host kernel's, random ones stay in its ranges and follow their seed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from elf_forge import PH, Forge
from host import run_probe
from hypothesis import given, settings
from hypothesis import strategies as st

from mmuemu.errors import BadImage
from mmuemu.loader.elf import PROT_EXEC, ElfImage, read_image
from mmuemu.loader.layout import choose_bases, page_down, page_up
from mmuemu.loader.layouts import Layout

Build = Callable[[str], Path]
MIB = 1 << 20
LAYOUT = Layout()


def image_of(path: Path) -> ElfImage:
    return read_image(path.read_bytes(), path.name)


def interpreted(build: Build, directory: Path, kind: int, **load: int) -> Path:
    """A program whose interpreter is the probe: what runs first is what looks at the address space."""
    probe = str(build("probe-pie")).encode() + b"\0"
    vaddr = 0x200000 if kind == 2 else 0
    path = directory / f"interpreted-{kind}-{'-'.join(map(str, load.values()))}"
    path.write_bytes(
        Forge(kind=kind, entry=vaddr).load(0, vaddr, 0x9000, 0xA100, flags=7, **load).interp(probe).bytes()
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("name", ["probe-static", "probe-pie", "free-pie", 2, 3])
def test_fixed_bases_are_the_hosts(build: Build, fixed: list[str], tmp_path: Path, name: str | int) -> None:
    path = build(name) if isinstance(name, str) else interpreted(build, tmp_path, name)
    image = image_of(path)
    maps = run_probe(path, fixed)
    interpreter = image_of(build("probe-pie")) if image.interp else None
    vdso_pages = maps.size_of("[vvar", "[vdso]") // 4096
    bases = choose_bases(LAYOUT, image, None, interpreter=interpreter, vdso_pages=vdso_pages)
    assert bases.load_bias + image.start == maps.start_of(str(path))
    assert bases.stack_top == maps.end_of("[stack]")
    assert bases.brk_start == maps.brk
    assert not bases.randomized
    if interpreter is not None:
        assert bases.interp_bias is not None
        assert bases.interp_bias + interpreter.start == maps.start_of(image.interp or "")
    if maps.start_of("[vvar]") < maps.start_of("[stack]"):
        assert bases.vdso_base == maps.start_of("[vvar")


def test_fixed_bases_in_numbers() -> None:
    pie = Forge(kind=3, entry=0).load(0, 0, 0x1000).interp(b"/lib/ld\0").image()
    bases = choose_bases(LAYOUT, pie, None)
    assert (bases.load_bias, bases.stack_top, bases.mmap_base) == (
        0x555555554000,
        0x7FFFFFFFF000,
        0x7FFFF7FFF000,
    )


@pytest.mark.parametrize("align", [0x1000, 0x10000, 0x200000])
def test_alignment_is_kept_as_the_host_keeps_it(build: Build, fixed: list[str], tmp_path: Path, align: int) -> None:
    path = interpreted(build, tmp_path, 3, align=align)
    image = image_of(path)
    bases = choose_bases(LAYOUT, image, None)
    assert bases.load_bias == run_probe(path, fixed).start_of(str(path))
    for seed in range(5):
        assert choose_bases(LAYOUT, image, Random(seed)).load_bias % align == 0
        static = Forge(kind=3, entry=0).load(0, 0, 0x9000, align=align).image()
        assert choose_bases(LAYOUT, static, Random(seed)).load_bias % align == 0


@pytest.mark.parametrize("flags", [None, 6, 7])
def test_the_stack_is_executable_when_the_hosts_is(
    build: Build, fixed: list[str], tmp_path: Path, flags: int | None
) -> None:
    forge = Forge().load(0, 0x200000, 0x9000, flags=7).interp(str(build("probe-pie")).encode() + b"\0")
    if flags is not None:
        forge.header(PH["GNU_STACK"], flags=flags)
    path = tmp_path / "stack"
    path.write_bytes(forge.bytes())
    path.chmod(0o755)
    prot = next(line.prot for line in run_probe(path, fixed).lines if line.name == "[stack]")
    assert image_of(path).executable_stack == bool(prot & PROT_EXEC)


@pytest.mark.parametrize("kind", [2, 3])
def test_random_bases_of_the_host_lie_in_our_ranges(build: Build, tmp_path: Path, kind: int) -> None:
    if Path("/proc/sys/kernel/randomize_va_space").read_text().strip() != "2":
        pytest.skip("the host does not randomize")
    path = interpreted(build, tmp_path, kind)
    image = image_of(path)
    lowest, highest = extremes(image)
    for _ in range(12):
        maps = run_probe(path, [])
        start = maps.start_of(str(path))
        assert lowest[0] <= start - image.start <= highest[0]
        assert lowest[1] <= maps.end_of("[stack]") <= highest[1]
        assert lowest[2] <= maps.end_of(str(build("probe-pie"))) <= highest[2]
        assert lowest[3] <= maps.brk - start <= highest[3]
        assert maps.brk - start > page_up(image.end) - image.start


class Loaded(Random):
    """Dice that always show their lowest or their highest face."""

    def __init__(self, highest: bool) -> None:
        super().__init__(0)
        self.highest = highest

    def getrandbits(self, k: int, /) -> int:
        return (1 << k) - 1 if self.highest else 0

    def random(self) -> float:
        return 1 - 2**-53 if self.highest else 0.0

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return start - 1 if self.highest else 0


def extremes(image: ElfImage) -> tuple[list[int], list[int]]:
    rows = []
    for highest in (False, True):
        b = choose_bases(LAYOUT, image, Loaded(highest))
        rows.append((b.load_bias, b.stack_top, b.mmap_base, b.brk_start - b.load_bias - image.start))
    columns = list(zip(*rows, strict=True))
    return [min(column) for column in columns], [max(column) for column in columns]


def test_ranges_are_linuxs() -> None:
    pie = Forge(kind=3, entry=0).load(0, 0, 0x1000).interp(b"/lib/ld\0").image()
    low, high = extremes(pie)
    assert (low[0], high[0]) == (0x555555554000, 0x555555554000 + ((1 << 28) - 1 << 12))
    assert (low[1], high[1]) == (0x7FFFFFFFF000 - 0x3FFFFF000 - 0x2000, 0x7FFFFFFFF000)
    pad = 8 * MIB + MIB + 0x3FFFFF000
    assert high[2] == page_up(0x7FFFFFFFF000 - pad)
    assert low[2] == page_up(0x7FFFFFFFF000 - pad - ((1 << 28) - 1 << 12))
    assert (low[3], high[3]) == (0x2000, 0x2000 + (1 << 30) - 0x1000)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 64), st.sampled_from([2, 3]), st.booleans(), st.integers(0, 1 << 64))
def test_any_seed_gives_room_and_the_same_again(seed: int, kind: int, dynamic: bool, stack_limit: int) -> None:
    forge = Forge(kind=kind, entry=0x200000).load(0, 0x200000, 0x1000, 0x100000)
    image = (forge.interp(b"/lib/ld\0") if dynamic else forge).image()
    loader = Forge(kind=3, entry=0).load(0, 0, 0x1000, 0x30000).image()

    def choose() -> object:
        return choose_bases(
            LAYOUT, image, Random(seed), stack_limit, interpreter=loader if dynamic else None, vdso_pages=4
        )

    bases = choose_bases(
        LAYOUT, image, Random(seed), stack_limit, interpreter=loader if dynamic else None, vdso_pages=4
    )
    assert bases == choose()
    assert bases.vdso_base is not None
    taken = [(bases.load_bias + image.start, bases.load_bias + page_up(image.end))]
    taken.append((bases.vdso_base, bases.vdso_base + 4 * 4096))
    if bases.interp_bias is not None:
        taken.append((bases.interp_bias, bases.interp_bias + page_up(loader.end)))
    taken.append((bases.stack_top - 8 * MIB // 64, bases.stack_top))
    taken.sort()
    assert all(before[1] <= after[0] for before, after in pairwise(taken))
    assert all(address % 4096 == 0 for pair in taken for address in pair)
    assert taken[-1][1] <= 0x7FFFFFFFF000
    assert page_down(bases.brk_start) == bases.brk_start


def test_what_does_not_fit_is_refused() -> None:
    low = Forge(entry=0).load(0, 0, 0x1000).image()
    with pytest.raises(BadImage, match="would start at 0x0, below the lowest mappable address 0x10000"):
        choose_bases(LAYOUT, low, None)
    high = Forge().load(0, 0x7FFFFFFF0000, 0x1000).image()
    with pytest.raises(BadImage, match="would end at 0x7fffffff1000, inside the stack"):
        choose_bases(LAYOUT, high, None)
    huge = Forge(kind=3, entry=0).load(0, 0, 0x1000, 0x7FFFF7FF0000).image()
    with pytest.raises(BadImage, match="no room for it is left"):
        choose_bases(LAYOUT, huge, None)
    aligned = Forge(kind=3, entry=0).load(0, 0, 0x1000, align=1 << 63).interp(b"/lib/ld\0").image()
    with pytest.raises(BadImage, match="below the lowest mappable address"):
        choose_bases(LAYOUT, aligned, None)


def test_nothing_is_placed_on_a_program_linked_into_the_mapping_area() -> None:
    image = Forge().load(0, 0x7FFFF7FF0000, 0x1000).interp(b"/lib/ld\0").image()
    loader = Forge(kind=3, entry=0).load(0, 0, 0x1000, 0x30000).image()
    bases = choose_bases(LAYOUT, image, None, interpreter=loader, vdso_pages=2)
    assert bases.interp_bias == 0x7FFFF7FF0000 - 0x30000
    assert bases.vdso_base == bases.interp_bias - 0x2000


def test_the_host_also_refuses_a_program_at_zero(build: Build, fixed: list[str], tmp_path: Path) -> None:
    path = tmp_path / "too-high"
    path.write_bytes(Forge().load(0, 0x7FFFFFFF0000, 0x1000, flags=7).bytes())
    path.chmod(0o755)
    assert subprocess.run([*fixed, str(path)], capture_output=True, check=False).returncode != 0
