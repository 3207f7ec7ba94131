"""Layouts as data: every start stays in its layout, moves by as many bits as the data says, and files are checked."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from elf_forge import Forge
from hypothesis import given, settings
from hypothesis import strategies as st

from mmuemu.errors import BadImage, UsageError
from mmuemu.kernel.half import KernelLayout
from mmuemu.loader.elf import ElfImage
from mmuemu.loader.layout import Bases, choose_bases, page_up
from mmuemu.loader.layout_file import as_json, check, find_layout, parse, table
from mmuemu.loader.layouts import LAYOUTS, LINUX, SPLIT_2G, WINDOWS, KernelArea, Layout, Place
from mmuemu.x86.paging import is_canonical

ALL = list(LAYOUTS.values())
MIB = 1 << 20
named = pytest.mark.parametrize("layout", ALL, ids=list(LAYOUTS))


def pie() -> ElfImage:
    return Forge(kind=3, entry=0).load(0, 0, 0x1000, 0x5000).interp(b"/lib/ld\0").image()


def linker() -> ElfImage:
    return Forge(kind=3, entry=0).load(0, 0, 0x1000, 0x30000).image()


def fixed() -> ElfImage:
    return Forge(entry=0x400000).load(0, 0x400000, 0x1000, 0x9000).image()


def start(layout: Layout, image: ElfImage, rng: Random | None) -> Bases:
    return choose_bases(layout, image, rng, interpreter=linker() if image.interp else None, vdso_pages=4)


def ranges(image: ElfImage, bases: Bases) -> list[tuple[int, int]]:
    """What a start takes at once, in address order."""
    taken = [(bases.load_bias + image.start, bases.load_bias + page_up(image.end))]
    assert bases.vdso_base is not None
    taken.append((bases.vdso_base, bases.vdso_base + 0x4000))
    if bases.interp_bias is not None:
        taken.append((bases.interp_bias, bases.interp_bias + 0x30000))
    taken.append((bases.stack_top - 8 * MIB, bases.stack_top))
    return sorted(taken)


class Constant(Random):
    """Dice that show their lowest face, or their highest."""

    def __init__(self, highest: bool) -> None:
        super().__init__(0)
        self.highest = highest

    def getrandbits(self, k: int, /) -> int:
        return (1 << k) - 1 if self.highest else 0

    def random(self) -> float:
        return 1 - 2**-53 if self.highest else 0.0

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return start - 1 if self.highest else 0


@named
def test_the_data_is_sound(layout: Layout) -> None:
    check(layout)


@named
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 64), kind=st.sampled_from(["pie", "fixed", "static pie"]))
def test_any_start_keeps_to_its_layout(layout: Layout, seed: int, kind: str) -> None:
    image = {"pie": pie, "fixed": fixed, "static pie": linker}[kind]()
    for rng in (Random(seed), None, Constant(False), Constant(True)):
        bases = start(layout, image, rng)
        taken = ranges(image, bases)
        assert layout.user_start <= taken[0][0]
        assert taken[-1][1] <= layout.map_window
        assert all(before[1] <= after[0] for before, after in pairwise(taken))
        assert layout.user_start <= bases.brk_start < layout.map_window
        assert bases.user_top == layout.user_top


@named
def test_each_thing_moves_by_the_bits_the_data_says(layout: Layout) -> None:
    """Over many seeds each bit of each distance is seen as 0 and as 1, and no bit beyond."""
    image = pie()
    lowest = start(layout, image, Constant(False))
    sign = -1 if layout.mmap_top_down else 1
    moved = {"image": 0, "mmap": 0, "stack": 0, "heap": 0}
    kept = dict.fromkeys(moved, -1)
    for seed in range(200):
        bases = start(layout, image, Random(seed))
        shuffled = lowest.stack_top - bases.stack_top
        distances = {
            "image": (bases.load_bias - lowest.load_bias, layout.image),
            "mmap": (sign * (bases.mmap_base - lowest.mmap_base), layout.mmap),
            "stack": (shuffled, layout.stack),
            "heap": (bases.brk_start - bases.load_bias - (lowest.brk_start - lowest.load_bias), layout.heap),
        }
        for name, (distance, place) in distances.items():
            # The stack is also shuffled by less than 8 KiB: up to two pages more, in either unit.
            slack = layout.stack_shuffle if name == "stack" else 0
            assert -slack <= distance <= place.span + slack, name
            if name != "stack":
                assert distance % place.step == 0, name
            moved[name] |= max(distance, 0) // place.step
            kept[name] &= max(distance, 0) // place.step
    for name, place in (("image", layout.image), ("mmap", layout.mmap), ("heap", layout.heap), ("stack", layout.stack)):
        assert moved[name] & (1 << place.bits) - 1 == (1 << place.bits) - 1, name
        assert kept[name] == 0, name


@named
def test_the_extremes_are_the_datas(layout: Layout) -> None:
    image = pie()
    low, high = (start(layout, image, Constant(highest)) for highest in (False, True))
    assert high.load_bias - low.load_bias == layout.image.span
    assert abs(high.mmap_base - low.mmap_base) == layout.mmap.span
    assert low.stack_top - high.stack_top == layout.stack.span + layout.stack_shuffle
    assert low.stack_top == layout.stack.base


@named
def test_the_kernel_slides_within_its_areas(layout: Layout) -> None:
    memory = 256 * MIB
    fixed_places = KernelLayout.placed(layout, memory)
    assert fixed_places == KernelLayout(layout.direct_map.base, layout.vmalloc.base, layout.text.base)
    seen: dict[str, set[int]] = {"direct_map": set(), "vmalloc": set(), "text": set()}
    extremes = [KernelLayout.placed(layout, memory, Constant(highest)) for highest in (False, True)]
    for placed in [*(KernelLayout.placed(layout, memory, Random(seed)) for seed in range(60)), *extremes]:
        for name, places in seen.items():
            area: KernelArea = getattr(layout, name)
            at = getattr(placed, name)
            assert area.base <= at < area.end
            assert (at - area.base) % area.step == 0
            assert is_canonical(at, layout.linear_bits)
            places.add(at)
        assert placed.direct_map + memory <= layout.direct_map.end
    assert all(len(places) > 20 for places in seen.values())
    for name in seen:
        area = getattr(layout, name)
        assert getattr(extremes[1], name) == area.base + (area.slides - 1) * area.step


def test_a_direct_map_without_room_to_slide_does_not() -> None:
    size = SPLIT_2G.direct_map.size
    assert {KernelLayout.placed(SPLIT_2G, size, Random(seed)).direct_map for seed in range(9)} == {
        SPLIT_2G.direct_map.base
    }
    with pytest.raises(UsageError, match=r"--memory 1281M: the direct map of layout split-2g holds 1280M"):
        KernelLayout.placed(SPLIT_2G, size + MIB)


def test_a_program_that_does_not_fit_is_told_the_layout() -> None:
    image = Forge(entry=0x9000_0000).load(0, 0x9000_0000, 0x1000).image()
    assert choose_bases(LINUX, image, None).load_bias == 0
    with pytest.raises(BadImage, match=r"would end at 0x90001000, beyond the user's part of layout split-2g"):
        choose_bases(SPLIT_2G, image, None)
    low = Forge(entry=0x8000).load(0, 0x8000, 0x1000).image()
    with pytest.raises(BadImage, match="below the lowest mappable address 0x10000 of layout windows-x64"):
        choose_bases(WINDOWS, low, None)
    large = Forge(kind=3, entry=0).load(0, 0, 0x1000, 0x9000_0000).image()
    with pytest.raises(BadImage, match="no room for it is left in layout split-2g"):
        choose_bases(SPLIT_2G, large, None)


def test_bottom_up_passes_over_the_program() -> None:
    image = Forge(entry=WINDOWS.mmap.base).load(0, WINDOWS.mmap.base, 0x1000).interp(b"/lib/ld\0").image()
    bases = start(WINDOWS, image, None)
    assert bases.interp_bias == WINDOWS.mmap.base + 0x1000
    assert bases.vdso_base == bases.interp_bias + 0x30000


# Files


@named
def test_a_description_reads_as_it_was_written(layout: Layout) -> None:
    assert parse(json.dumps(as_json(layout)), "again") == layout


def test_a_file_says_only_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"like": "windows-x64", "image": {"bits": 3}, "about": "less of it"}')
    found = find_layout(str(path))
    assert found == WINDOWS._replace(
        name="mine", about="less of it", image=Place(WINDOWS.image.base, 3, WINDOWS.image.step)
    )
    assert "mine: less of it" in table([found])
    path.write_text("{}")
    assert find_layout(str(path)) == LINUX._replace(name="mine")


BAD = {
    "[]": 'the file is "list": write an object',
    "{": "no JSON",
    '{"levels": 3}': "levels is 3: page tables have 4 or 5 levels",
    '{"levels": true}': "levels is true: write a number",
    '{"user_top": "lots"}': 'user_top is "lots": write a number',
    '{"user_top": -4096}': "user_top is -0x1000: write a number from 0",
    '{"user_top": "0x800000000000", "map_window": "0x900000000000"}': "map_window is 0x9.*: it lies at or below",
    '{"user_top": "0x7ffffffff001"}': "user_top is 0x7ffffffff001: make it a multiple of 0x1000",
    '{"user_top": "0x1000000000000"}': "4-level paging gives the user up to 0x800000000000",
    '{"user_start": "0x800000"}': "user_start is 0x800000: 0x1000 to 0x400000",
    '{"usertop": 1}': "usertop: no such key; did you mean user_top",
    '{"image": 5}': "image is 0x5: write an object: base, bits, step",
    '{"image": {"bit": 5}}': "image.bit: no such key; did you mean bits",
    '{"image": {"bits": 40}}': "image.bits is 40: moved by up to .* it has no room left",
    '{"image": {"step": 5000}}': "image.step is 0x1388: a power of two from 0x1000 on",
    '{"image": {"base": "0xffff800000000000"}}': "image.base is 0xffff800000000000: it lies from user_start",
    '{"stack": {"bits": 40}}': "stack.bits is 40",
    '{"mmap": {"bits": 36}}': "mmap.bits is 36",
    '{"like": "windows-x64", "mmap": {"bits": 30}}': "mmap.bits is 30",
    '{"mmap_top_down": 1}': "mmap_top_down is 0x1: write true or false",
    '{"kernel_start": 0}': "kernel_start is 0x0: the kernel lies in the upper half",
    '{"text": {"base": "0xffff7fffffffe000"}}': "text.base is 0xffff7fffffffe000: it lies below kernel_start",
    '{"like": "windows-x64", "text": {"base": "0xffff100000000000"}}': "not canonical with 4 levels",
    '{"text": {"slides": 512}}': "text.size is 0x40000000: too small for 512 slides",
    '{"vmalloc": {"base": "0xffff888100000000"}}': "vmalloc.base is .*: it lies in direct_map, which ends at",
    '{"like": "solaris"}': 'like is "solaris": name one of linux, linux-5level',
    '{"name": ""}': 'name is "": write a line of text',
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_a_bad_file_is_refused_with_the_key_and_the_way_out(text: str) -> None:
    with pytest.raises(UsageError, match=BAD[text]) as error:
        parse(text, "mine")
    assert str(error.value).startswith("layout mine: ")


KEYS = st.sampled_from(list(as_json(LINUX)))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 65), 1 << 65) | st.text(max_size=5) | st.floats(),
    lambda inner: st.dictionaries(st.sampled_from(["base", "bits", "step", "size", "slides"]), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(changes=st.dictionaries(KEYS, VALUES, max_size=3), like=st.sampled_from(list(LAYOUTS)))
def test_whatever_a_file_says_it_is_refused_or_works(changes: dict[str, object], like: str) -> None:
    try:
        layout = parse(json.dumps({"like": like, **changes}), "any")
    except UsageError:
        return
    for rng in (None, Constant(False), Constant(True)):
        taken = ranges(fixed(), start(layout, fixed(), rng))
        assert all(before[1] <= after[0] for before, after in pairwise(taken))
        KernelLayout.placed(layout, 1 << 20, rng)


def test_a_name_that_is_none_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--layout linus: no such layout: choose linux, linux-5level"):
        find_layout("linus")
    with pytest.raises(UsageError, match="No such file"):
        find_layout(str(tmp_path / "none.json"))
    (tmp_path / "bytes.json").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        find_layout(str(tmp_path / "bytes.json"))
