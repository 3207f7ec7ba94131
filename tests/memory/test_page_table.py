"""Page tables against a dictionary, and what they cost."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmuemu.errors import OutOfFrames
from mmuemu.memory.frames import FrameAllocator
from mmuemu.memory.kernel_half import KernelHalf
from mmuemu.memory.page_table import PageTable
from mmuemu.memory.ram import GuestRam
from mmuemu.x86.paging import ADDRESS_MASK, NX, PAT_4K, PAT_LARGE, PS, RW, SIZE_1G, SIZE_2M, US, A, D, G, P

URW = P | RW | US


def make(frames: int = 4096) -> FrameAllocator:
    ram = GuestRam((frames + 1) << 12)
    return FrameAllocator(ram, 0x1000)


@pytest.fixture(params=[4, 5])
def table(request: pytest.FixtureRequest) -> PageTable:
    return PageTable(make(), levels=request.param)


def test_the_bytes_are_what_the_processor_walks() -> None:
    """Walk by hand, SDM volume 3, section 4.5.4: nine bits of the address a level."""
    table = PageTable(make())
    la = 0x7ABC_DEF1_2000
    table.map(la, 0x5000, URW | NX)
    at = table.root
    for shift in (39, 30, 21):
        entry = int.from_bytes(table.frames.ram.read(at + (la >> shift & 511) * 8, 8), "little")
        assert entry & 0xFFF == URW
        at = entry & ADDRESS_MASK
    assert int.from_bytes(table.frames.ram.read(at + (la >> 12 & 511) * 8, 8), "little") == 0x5000 | URW | NX
    assert table.entry_address(la) == at + (la >> 12 & 511) * 8


def test_kernel_tables_are_not_user_tables() -> None:
    table = PageTable(make())
    table.map(0xFFFF_FFFF_FFFF_F000, 0x5000, P | RW | G)
    found = table.lookup(0xFFFF_FFFF_FFFF_FABC)
    assert found is not None
    assert (found.linear, found.physical, found.flags) == (0xFFFF_FFFF_FFFF_F000, 0x5000, P | RW | G)
    assert table.frames.ram.qwords[(table.root >> 3) + 511] & US == 0


def test_flags_combine_over_the_levels(table: PageTable) -> None:
    table.map(0x40_0000, 0x5000, URW | A | D)
    q = table.frames.ram.qwords
    slot = table.root >> 3
    q[slot] = q[slot] & ~RW | NX
    found = table.lookup(0x40_0123)
    assert found is not None
    assert found.flags == P | US | NX | A | D
    q[slot] &= ~US
    found = table.lookup(0x40_0123)
    assert found is not None
    assert found.flags == P | NX | A | D


@pytest.mark.parametrize(
    ("la", "pa", "flags", "size"),
    [
        (0x1001, 0x1000, URW, 0x1000),
        (0x1000, 0x1001, URW, 0x1000),
        (0x1000, 0x1000, URW, 0x2000),
        (0x20_1000, 0, URW, SIZE_2M),
        (0x20_0000, 0x1000, URW, SIZE_2M),
        (0x20_0000, 0, URW, SIZE_1G),
        (0x1000, 1 << 52, URW, 0x1000),
        (0x1000, 0x1000, US, 0x1000),
        (0x1000, 0x1000, URW | PAT_LARGE, 0x1000),
        (0x8000_0000_0000, 0x1000, URW, 0x1000),
        (0xFFFF_7FFF_FFFF_F000, 0x1000, URW, 0x1000),
        (1 << 64, 0x1000, URW, 0x1000),
        (-0x1000, 0x1000, URW, 0x1000),
    ],
)
def test_what_cannot_be_mapped_is_refused(la: int, pa: int, flags: int, size: int) -> None:
    table = PageTable(make())
    with pytest.raises(ValueError, match=r"0x|canonical"):
        table.map(la, pa, flags, size)
    assert table.frames.used == 1


def test_conflicts_are_refused(table: PageTable) -> None:
    table.map(0x4000_0000, 0, URW, SIZE_2M)
    used = table.frames.used
    for la, size in ((0x4000_0000, SIZE_2M), (0x4000_1000, 0x1000), (0x4000_0000, SIZE_1G)):
        with pytest.raises(ValueError, match="0x4000"):
            table.map(la, 0, URW, size)
    with pytest.raises(ValueError, match="0x4000"):
        table.map_page(0x4000_1000, 0x5000 | URW)
    assert table.entry_address(0x4000_1000) == -1
    assert table.frames.used == used


def test_a_failed_map_leaves_no_tables() -> None:
    frames = make(3)
    table = PageTable(frames)
    for operation in (lambda: table.map(0x1000, 0x5000, URW), lambda: table.map_page(0x1000, 0x5000 | URW)):
        with pytest.raises(OutOfFrames):
            operation()
        assert frames.used == 1
        assert frames.ram.read(table.root, 4096) == bytes(4096)


def test_tables_are_freed_when_empty(table: PageTable) -> None:
    used = table.frames.used
    for la in (0x1000, 0x2000, 0x7FFF_FFFF_F000, 0xFFFF_8000_0000_0000 if table.levels == 4 else 1 << 50):
        table.map(la, 0x5000, URW)
    for la in (0x1000, 0x2000, 0x7FFF_FFFF_F000, 0xFFFF_8000_0000_0000 if table.levels == 4 else 1 << 50):
        assert table.unmap(la) == 0x5000 | URW
        assert table.unmap(la) == 0
    assert table.frames.used == used


def test_five_levels_reach_further() -> None:
    table = PageTable(make(), levels=5)
    for la in (0x00FF_FFFF_FFFF_F000, 0xFF00_0000_0000_0000):
        table.map_page(la, 0x7000 | URW)
        found = table.lookup(la)
        assert found is not None
        assert table.entry_address(la) == found.entry_address
    assert [la for la, _, _ in table.iterate()] == [0x00FF_FFFF_FFFF_F000, 0xFF00_0000_0000_0000]
    with pytest.raises(ValueError, match="canonical"):
        table.lookup(0x0100_0000_0000_0000)


def test_foreign_edits_are_seen(table: PageTable) -> None:
    table.map(0x1000, 0x5000, URW)
    address = table.entry_address(0x1000)
    table.frames.ram.qwords[address >> 3] |= A | D
    found = table.lookup(0x1000)
    assert found is not None
    assert found.entry == 0x5000 | URW | A | D
    assert table.protect(0x1000, P | US | NX)
    assert table.frames.ram.qwords[address >> 3] == 0x5000 | P | US | NX | A | D
    assert not table.protect(0x1000, P | US | NX)
    assert not table.protect(0x9000, URW)
    table.frames.ram.qwords[address >> 3] = 0
    assert table.lookup(0x1000) is None


@pytest.mark.parametrize(("size", "small", "attribute"), [(SIZE_2M, 0x1000, PAT_4K), (SIZE_1G, SIZE_2M, 0)])
def test_a_large_page_splits_into_the_same_mapping(size: int, small: int, attribute: int) -> None:
    table = PageTable(make())
    la = 0x8000_0000
    table.map(la, 0x4000_0000, URW | G | D | PAT_LARGE, size)
    taken: list[tuple[int, int, int]] = []
    table.unmap_range(la + small, la + 2 * small, lambda entry, at, length: taken.append((entry, at, length)))
    flags = URW | G | D | (attribute or PS | PAT_LARGE)
    assert taken == [(0x4000_0000 + small | flags, la + small, small)]
    assert len(list(table.iterate())) == 511
    for at, entry, length in table.iterate():
        assert (entry, length) == (0x4000_0000 + at - la | flags, small)


def test_partial_protection_splits_and_whole_does_not() -> None:
    table = PageTable(make())
    table.map(0, 0, URW, SIZE_2M)
    used = table.frames.used
    assert table.protect_range(0, SIZE_2M, NX, RW)
    assert not table.protect_range(0, 0x1000, NX, RW)
    assert table.frames.used == used
    assert table.protect_range(0x3000, 0x5000, RW, 0)
    assert [la for la, entry, _ in table.iterate() if entry & RW] == [0x3000, 0x4000]
    assert table.frames.used == used + 1
    table.map(SIZE_2M, 0, URW, SIZE_2M)
    with pytest.raises(ValueError, match="lose P"):
        table.protect_range(SIZE_2M, 2 * SIZE_2M, 0, P)


def test_entries_without_p_are_kept_and_taken_out() -> None:
    """PROT_NONE is an entry that lost P and kept its frame."""
    table = PageTable(make())
    used = table.frames.used
    table.map(0x1000, 0x5000, URW)
    assert table.protect_range(0, 0x2000, G, P)
    assert table.lookup(0x1000) is None
    assert list(table.iterate()) == []
    assert list(table.iterate(absent=True)) == [(0x1000, 0x5000 | RW | US | G, 0x1000)]
    assert not table.protect_range(0, 0x2000, P, G), "nothing that was present changed"
    assert table.protect_range(0, 0x2000, G, P)
    taken: list[int] = []
    table.unmap_range(0, 0x2000, lambda entry, _la, _size: taken.append(entry))
    assert taken == [0x5000 | RW | US | G]
    assert table.frames.used == used


@pytest.mark.parametrize(("start", "end"), [(1, 0x1000), (0, 0x1001), (0x2000, 0x1000), (0, (1 << 64) + 0x1000)])
def test_a_bad_range_is_refused(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="no range"):
        PageTable(make()).unmap_range(start, end)


def test_the_kernel_half_is_one() -> None:
    frames = make()
    half = KernelHalf(frames)
    half.table.map(0xFFFF_FFFF_8000_0000, 0x7000, P | RW)
    one, two = PageTable(frames, kernel=half), PageTable(frames, kernel=half)
    one.map(0xFFFF_8880_0000_0000, 0x8000, P | NX)
    one.map(0x1000, 0x9000, URW)
    late = PageTable(frames, kernel=half)
    for table in (half.table, one, two, late):
        assert [(la, entry) for la, entry, _ in table.iterate(1 << 63)] == [
            (0xFFFF_8880_0000_0000, 0x8000 | P | NX),
            (0xFFFF_FFFF_8000_0000, 0x7000 | P | RW),
        ]
        assert (table.lookup(0x1000) is not None) == (table is one)
    assert two.unmap(0xFFFF_8880_0000_0000) == 0x8000 | P | NX
    assert one.lookup(0xFFFF_8880_0000_0000) is None
    one.map(0xFFFF_8880_0000_1000, 0x8000, P)
    assert two.lookup(0xFFFF_8880_0000_1000) is not None, "the shared table stays though it was empty"
    used = frames.used
    one.free()
    assert frames.used == used - 4
    assert two.lookup(0xFFFF_FFFF_8000_0000) is not None
    with pytest.raises(ValueError, match="levels"):
        PageTable(frames, levels=5, kernel=half)


def test_free_gives_everything_back_but_a_foreign_root() -> None:
    frames = make()
    root = frames.allocate()
    table = PageTable(frames, root)
    table.map(0x1000, 0x5000, URW)
    table.map(0xFFFF_8000_0000_0000, 0x6000, P)
    taken: list[tuple[int, int]] = []
    table.free(lambda entry, la, _size: taken.append((la, entry)))
    assert taken == [(0x1000, 0x5000 | URW), (0xFFFF_8000_0000_0000, 0x6000 | P)]
    assert (frames.used, frames.refcount(root)) == (1, 1)


def test_clone_asks_about_every_leaf() -> None:
    frames = make()
    half = KernelHalf(frames)
    table = PageTable(frames, kernel=half)
    table.map(0x1000, 0x5000, URW)
    table.map(0x2000, 0x6000, URW)
    table.map(0x4000_0000, 0, URW, SIZE_1G)
    half.table.map(0xFFFF_8000_0000_0000, 0x7000, P)

    def leaf(la: int, entry: int, _size: int) -> tuple[int, int]:
        return (entry & ~RW, 0) if la == 0x2000 else (entry, entry & ~RW)

    twin = table.clone(leaf)
    assert [(la, entry) for la, entry, _ in twin.iterate()] == [
        (0x1000, 0x5000 | P | US),
        (0x4000_0000, P | US | PS),
        (0xFFFF_8000_0000_0000, 0x7000 | P),
    ]
    assert [entry & RW for _, entry, _ in table.iterate(0, 0x4000)] == [RW, 0]
    bare = table.clone(share_upper=False)
    assert bare.lookup(0xFFFF_8000_0000_0000) is None
    assert list(bare.iterate()) == list(table.iterate(0, 1 << 47))


def test_a_clone_without_room_is_undone() -> None:
    frames = make(9)
    table = PageTable(frames)
    table.map(0x1000, 0x5000, URW)
    shared: list[int] = []
    asked: list[int] = []

    def leaf(la: int, entry: int, _size: int) -> tuple[int, int]:
        shared.append(la)
        asked.append(la)
        return entry, entry

    table.map(0x20_0000, 0x5000, URW)
    with pytest.raises(OutOfFrames):
        table.clone(leaf, lambda _entry, la, _size: shared.remove(la))
    assert shared == []
    assert asked == [0x1000]
    assert frames.used == 5


def test_sparse_ranges_cost_what_is_in_them() -> None:
    table = PageTable(make())
    start = 0x1000_0000_0000
    size = 64 << 30
    began = time.process_time()
    table.unmap_range(start, start + size)
    table.protect_range(start, start + size, NX)
    assert time.process_time() - began < 0.005
    for number in range(1024):
        table.map_page(start + number * (size >> 10), 0x5000 | URW)
    taken: list[int] = []
    began = time.process_time()
    table.unmap_range(start, start + size, lambda _entry, la, _size: taken.append(la))
    assert time.process_time() - began < 0.15
    assert taken == [start + number * (size >> 10) for number in range(1024)]
    assert table.frames.used == 1


# The model: what is mapped at each address of a small, awkward set of addresses.

BASES = (0, 0x3FE0_0000, 0x7FFF_C000_0000, 0xFFFF_8000_0000_0000)
PAGES = st.builds(
    lambda base, index: base + index * 0x1000,
    st.sampled_from(BASES),
    st.sampled_from([0, 1, 2, 510, 511, 512, 513, 1023, 1024]),
)
FLAGS = st.sampled_from([URW, P | US, URW | NX, P | US | NX | G, P | RW])
STEPS = st.one_of(
    st.tuples(st.just("map"), PAGES, st.sampled_from([0x1000, 0x1000, SIZE_2M, SIZE_1G]), FLAGS),
    st.tuples(st.just("unmap"), PAGES, st.just(0), FLAGS),
    st.tuples(st.just("protect"), PAGES, st.just(0), FLAGS),
    st.tuples(st.just("unmap_range"), PAGES, st.integers(1, 1100), FLAGS),
    st.tuples(st.just("protect_range"), PAGES, st.integers(1, 1100), FLAGS),
)


class Model:
    """Pages by first address: (size, entry)."""

    def __init__(self) -> None:
        self.pages: dict[int, tuple[int, int]] = {}

    def find(self, la: int) -> int | None:
        return next((at for at, (size, _) in self.pages.items() if at <= la < at + size), None)

    def split(self, at: int) -> None:
        size, entry = self.pages.pop(at)
        small = size >> 9
        flags = entry & ~ADDRESS_MASK & ~(PS if small == 0x1000 else 0)
        for number in range(512):
            self.pages[at + number * small] = (small, (entry & ADDRESS_MASK) + number * small | flags)

    def carve(self, start: int, end: int, clear: int, set_: int) -> None:
        """Split what sticks out of the range and would change, until nothing does."""
        while True:
            for at, (size, entry) in self.pages.items():
                out = at < end and at + size > start and (at < start or at + size > end)
                if out and entry & ~clear | set_ != entry:
                    break
            else:
                return
            self.split(at)

    def inside(self, start: int, end: int) -> list[int]:
        return [at for at, (size, _) in self.pages.items() if start <= at and at + size <= end]


def step_of(table: PageTable, model: Model, step: tuple[str, int, int, int]) -> None:
    kind, la, extent, flags = step
    if kind == "map":
        la &= -extent
        pa = 0x1_0000_0000 + (la & 0xFFFF_FFFF & -extent)
        taken = any(at < la + extent and la < at + size for at, (size, _) in model.pages.items())
        if taken:
            with pytest.raises(ValueError, match=r"mapped already|lies in"):
                table.map(la, pa, flags, extent)
        else:
            table.map(la, pa, flags, extent)
            model.pages[la] = (extent, pa | flags | (PS if extent > 0x1000 else 0))
    elif kind == "unmap":
        at = model.find(la)
        assert table.unmap(la) == (0 if at is None else model.pages.pop(at)[1])
    elif kind == "protect":
        at = model.find(la)
        if at is not None:
            size, entry = model.pages[at]
            new = entry & (ADDRESS_MASK | PS) | flags
            model.pages[at] = (size, new)
            assert table.protect(la, flags) == (new != entry)
    elif kind == "unmap_range":
        end = la + extent * 0x1000
        model.carve(la, end, ~0, 0)
        gone = [(model.pages[at][1], at, model.pages[at][0]) for at in sorted(model.inside(la, end))]
        taken_out: list[tuple[int, int, int]] = []
        table.unmap_range(la, end, lambda *args: taken_out.append(args))
        assert taken_out == gone
        for _, at, _ in gone:
            del model.pages[at]
    else:
        end = la + extent * 0x1000
        model.carve(la, end, RW | NX, flags & (RW | NX))
        changed = False
        for at in model.inside(la, end):
            size, entry = model.pages[at]
            new = entry & ~(RW | NX) | (flags & (RW | NX))
            changed |= new != entry
            model.pages[at] = (size, new)
        assert table.protect_range(la, end, flags & (RW | NX), RW | NX) == changed


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, min_size=8, max_size=30))
def test_tables_follow_a_dictionary(steps: list[tuple[str, int, int, int]]) -> None:
    table = PageTable(make())
    model = Model()
    for step in steps:
        step_of(table, model, step)
    expected = [(at, entry, size) for at, (size, entry) in sorted(model.pages.items())]
    assert list(table.iterate()) == expected
    for at, entry, size in expected[:40]:
        found = table.lookup(at + size - 1)
        assert found is not None
        assert (found.linear, found.size, found.entry) == (at, size, entry)
        assert found.physical == entry & ADDRESS_MASK & -size
        assert table.frames.ram.qwords[found.entry_address >> 3] == entry
        assert table.entry_address(at) == (found.entry_address if size == 0x1000 else -1)
    table.unmap_range(0, 1 << 64)
    assert table.frames.used == 1
