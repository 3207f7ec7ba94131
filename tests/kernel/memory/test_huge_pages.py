"""Transparent huge pages: what one fault maps, what is left of a block, and that nobody can tell by the content."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmuemu.kernel.abi import mman
from mmuemu.kernel.abi.errno import SyscallError
from mmuemu.kernel.faults import FaultResult
from mmuemu.kernel.huge import ALWAYS, MADVISE, NEVER
from mmuemu.kernel.smaps import rollup_text, smaps_text
from mmuemu.x86.paging import ADDRESS_MASK, NX, PAGE_SIZE, RW, SIZE_2M, US, A, D, P

ANON = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS
FIXED = ANON | mman.MAP_FIXED
BASE = 0x7F00_0000_0000
READ, WRITE = 4, 6
PAGES = 512


@pytest.fixture
def huge(make_world: Callable[..., Any]) -> Any:
    return _world(make_world)


def _world(make_world: Callable[..., Any], policy: str = ALWAYS, frames: int = 16384) -> Any:
    world = make_world(frames)
    world.mm.huge.policy = policy
    return world


def _map(world: Any, blocks: int = 2, prot: int = 3) -> int:
    """Blocks, with a page more on either side."""
    world.mm.mmap(BASE - PAGE_SIZE, blocks * SIZE_2M + 2 * PAGE_SIZE, prot, FIXED)
    return BASE


def _frames(world: Any, base: int) -> list[int]:
    return [world.entry(base + page * PAGE_SIZE) & ADDRESS_MASK for page in range(PAGES)]


def test_one_store_maps_neighbouring_frames(huge: Any) -> None:
    at = _map(huge)
    assert huge.mm.fault(at + 5 * PAGE_SIZE + 7, WRITE) is FaultResult.RESOLVED
    first = huge.entry(at) & ADDRESS_MASK
    assert first % SIZE_2M == 0
    assert _frames(huge, at) == [first + page * PAGE_SIZE for page in range(PAGES)]
    rights = {huge.entry(at + page * PAGE_SIZE) & ~ADDRESS_MASK for page in range(PAGES)}
    assert rights == {P | RW | US | A | D | NX}, "one entry for all would have one A and one D"
    assert huge.mm.installed == huge.entry(at + 5 * PAGE_SIZE)
    assert (huge.mm.resident, huge.mm.minor_faults, huge.flushes) == (PAGES, 1, [])
    assert huge.entry(at + SIZE_2M) == 0 == huge.entry(at - PAGE_SIZE)
    assert huge.leaked() == 0


def test_a_read_shares_the_zero_frame_and_the_store_after_it_gets_all(huge: Any) -> None:
    at = _map(huge)
    zero = huge.frames.zero_frame
    assert huge.mm.fault(at + PAGE_SIZE, READ) is FaultResult.RESOLVED
    assert {huge.entry(at + page * PAGE_SIZE) for page in range(PAGES) if page != 1} == {zero | P | US | NX}
    assert huge.entry(at + PAGE_SIZE) == huge.mm.installed == zero | P | US | NX | A
    assert (huge.mm.resident, huge.frames.refcount(zero)) == (0, 1 + PAGES)
    assert huge.mm.mincore(at, at + SIZE_2M) == b"\1" * PAGES
    assert huge.mm.fault(at + 2 * PAGE_SIZE, WRITE | 1) is FaultResult.RESOLVED
    assert huge.flushes == [(at, at + SIZE_2M)], "others of its pages may have been cached"
    assert (huge.mm.resident, huge.frames.refcount(zero), huge.mm.minor_faults) == (PAGES, 1, 2)
    assert len(set(_frames(huge, at))) == PAGES
    assert huge.leaked() == 0


@pytest.mark.parametrize(("read", "flushes"), [([], 0), ([3], 0), ([3, 4], 1), ([4], 1)])
def test_a_store_flushes_if_another_page_may_be_cached(read: list[int], flushes: int, huge: Any) -> None:
    at = _map(huge)
    for page in read:
        assert huge.memory.read(at + page * PAGE_SIZE, 1) == b"\0"
    huge.mm.serving = at + 3 * PAGE_SIZE
    assert huge.mm.fault(huge.mm.serving, WRITE | bool(read)) is FaultResult.RESOLVED
    assert huge.mm.resident == PAGES
    assert len(huge.flushes) == flushes


def test_the_cpu_is_told_how_many_pages_a_store_maps(huge: Any) -> None:
    told: list[int] = []
    huge.mm.on_pages = told.append
    at = _map(huge)
    huge.mm.fault(at, READ)
    huge.mm.fault(at, WRITE | 1)
    huge.mm.fault(at + SIZE_2M, WRITE)
    assert told == [PAGES, PAGES]


def test_memory_that_is_no_whole_block_is_mapped_page_by_page(huge: Any) -> None:
    at = _map(huge)
    for la in (at - PAGE_SIZE, at + 2 * SIZE_2M):
        assert huge.mm.fault(la, WRITE) is FaultResult.RESOLVED
    assert huge.mm.resident == 2
    huge.mm.mprotect(at, PAGE_SIZE, 1)
    assert huge.mm.fault(at + PAGE_SIZE, WRITE) is FaultResult.RESOLVED
    assert huge.mm.resident == 3, "two areas share the first 2 MiB"
    assert huge.leaked() == 0


def test_a_part_that_was_touched_before_keeps_its_pages(huge: Any) -> None:
    at = _map(huge)
    huge.mm.huge.policy = NEVER
    huge.mm.fault(at + PAGE_SIZE, WRITE)
    huge.mm.huge.policy = ALWAYS
    frame = huge.entry(at + PAGE_SIZE)
    huge.mm.fault(at, WRITE)
    assert (huge.mm.resident, huge.entry(at + PAGE_SIZE)) == (2, frame)
    assert huge.leaked() == 0


def test_rights_of_a_part_that_changed_before_the_store_hold(huge: Any) -> None:
    """The zero frame's entries look the same where an area may be written and where it may not."""
    at = _map(huge)
    huge.mm.fault(at, READ)
    huge.mm.mprotect(at + SIZE_2M // 2, SIZE_2M // 2, 1)
    assert huge.mm.fault(at, WRITE | 1) is FaultResult.RESOLVED
    assert huge.mm.resident == 1
    assert not huge.entry(at + SIZE_2M - PAGE_SIZE) & RW
    assert huge.mm.fault(at + SIZE_2M - PAGE_SIZE, WRITE | 1) is FaultResult.SEGV_ACCERR
    assert huge.leaked() == 0


@pytest.mark.parametrize(
    ("policy", "advice", "blocks"),
    [
        (ALWAYS, None, True),
        (ALWAYS, mman.MADV_NOHUGEPAGE, False),
        (MADVISE, None, False),
        (MADVISE, mman.MADV_HUGEPAGE, True),
        (NEVER, mman.MADV_HUGEPAGE, False),
    ],
)
def test_policy_and_advice_decide(
    policy: str, advice: int | None, blocks: bool, make_world: Callable[..., Any]
) -> None:
    world = _world(make_world, policy)
    at = _map(world)
    if advice is not None:
        world.mm.madvise(at - PAGE_SIZE, 2 * SIZE_2M + 2 * PAGE_SIZE, advice)
    assert f"THPeligible:           {blocks:d}" in smaps_text(world.mm)
    world.mm.fault(at, WRITE)
    assert world.mm.resident == (PAGES if blocks else 1)
    assert f"AnonHugePages:      {2048 * blocks:4d} kB" in rollup_text(world.mm)
    assert world.leaked() == 0


def test_code_and_a_process_that_wants_none_get_none(huge: Any) -> None:
    at = _map(huge, prot=7)
    huge.mm.fault(at, WRITE)
    assert huge.mm.resident == 1
    huge.mm.mprotect(at, SIZE_2M, 3)
    huge.mm.huge.disabled = True
    huge.mm.mmap(at, 4 * SIZE_2M, 3, FIXED)
    huge.mm.fault(at, READ)
    huge.mm.fault(at + SIZE_2M, WRITE)
    assert huge.mm.resident == 1
    assert huge.leaked() == 0


def test_a_debugger_does_not_lend_its_rights_to_a_block(huge: Any) -> None:
    at = _map(huge, prot=0)
    assert huge.mm.force(at, False) == huge.frames.zero_frame
    assert huge.mm.fault(at + PAGE_SIZE, READ) is FaultResult.SEGV_ACCERR
    assert [page for page in range(PAGES) if huge.entry(at + page * PAGE_SIZE)] == [0]
    assert huge.leaked() == 0


def test_a_part_that_goes_leaves_the_rest(huge: Any) -> None:
    at = _map(huge)
    huge.memory.write(at, b"begin")
    huge.memory.write(at + SIZE_2M - 8, b"the end")
    assert "AnonHugePages:      2048 kB" in rollup_text(huge.mm)
    huge.mm.munmap(at + 3 * PAGE_SIZE, PAGE_SIZE)
    assert huge.mm.resident == PAGES - 1
    assert "AnonHugePages:         0 kB" in rollup_text(huge.mm)
    assert (huge.memory.read(at, 5), huge.memory.read(at + SIZE_2M - 8, 7)) == (b"begin", b"the end")
    huge.mm.madvise(at + 4 * PAGE_SIZE, SIZE_2M, mman.MADV_DONTNEED)
    assert huge.mm.resident == 3
    assert huge.leaked() == 0


def test_a_block_that_was_dropped_comes_back_as_zeros(huge: Any) -> None:
    at = _map(huge)
    for _ in range(3):
        huge.memory.write(at + 100, b"x" * 9000)
        assert huge.mm.resident == PAGES
        huge.mm.madvise(at, SIZE_2M, mman.MADV_DONTNEED)
        assert huge.mm.resident == 0
        assert huge.memory.read(at + 100, 9000) == bytes(9000)
    assert huge.leaked() == 0


def test_fork_shares_a_block_and_copies_page_by_page(huge: Any) -> None:
    at = _map(huge)
    huge.memory.write(at, b"parent")
    child = huge.mm.fork()
    used = huge.frames.used
    assert child.huge.blocks == huge.mm.huge.blocks
    assert child.fault(at, WRITE | 1) is FaultResult.RESOLVED
    assert huge.frames.used == used + 1
    assert huge.memory.read(at, 6) == b"parent"
    child.destroy()
    assert huge.mm.resident == PAGES
    assert huge.leaked() == 0


def test_blocks_leave_half_of_memory(make_world: Callable[..., Any]) -> None:
    world = _world(make_world, frames=6 * PAGES)
    at = _map(world, 4)
    for block in range(4):
        assert world.mm.fault(at + block * SIZE_2M, READ) is FaultResult.RESOLVED
        assert world.mm.fault(at + block * SIZE_2M, WRITE | 1) is FaultResult.RESOLVED
    assert world.mm.resident == 2 * PAGES + 2
    assert world.leaked() == 0


def test_what_was_not_accessed_is_given_back_when_memory_is_short(make_world: Callable[..., Any]) -> None:
    world = _world(make_world, frames=8 * PAGES)
    at = _map(world, 3)
    for block in range(3):
        world.memory.write(at + block * SIZE_2M + 9 * PAGE_SIZE, b"used")
    world.frames.ram.write(world.entry(at + 8 * PAGE_SIZE) & ADDRESS_MASK, b"by nobody's leave")
    taken = [world.frames.allocate() for _ in range(world.frames.free - 10)]
    world.mm.huge.relieve()
    assert world.mm.resident == 4
    assert world.frames.free == 10 + 3 * PAGES - 4
    assert all(world.memory.read(at + block * SIZE_2M, PAGE_SIZE) == bytes(PAGE_SIZE) for block in range(3))
    assert all(world.memory.read(at + block * SIZE_2M + 9 * PAGE_SIZE, 4) == b"used" for block in range(3))
    assert world.memory.read(at + 8 * PAGE_SIZE, 17) == b"by nobody's leave"
    assert world.mm.fault(at, WRITE | 1) is FaultResult.RESOLVED
    world.frames.release_all(taken)
    assert world.leaked() == 0


def test_zeros_are_given_back_accessed_or_not_unless_they_are_locked(make_world: Callable[..., Any]) -> None:
    world = _world(make_world, frames=8 * PAGES)
    at = _map(world, 2)
    for block in range(2):
        world.mm.fault(at + block * SIZE_2M, WRITE)
        world.memory.write(at + block * SIZE_2M + PAGE_SIZE, bytes(9))
    world.mm.mlock(at + 7 * PAGE_SIZE, PAGE_SIZE)
    taken = [world.frames.allocate() for _ in range(world.frames.free - 10)]
    world.mm.huge.relieve()
    assert world.mm.resident == PAGES
    assert world.mm.huge.whole() == [at]
    world.frames.release_all(taken)
    assert world.leaked() == 0


def test_without_need_nothing_is_given_back(huge: Any) -> None:
    at = _map(huge)
    huge.memory.write(at, b"used")
    huge.mm.huge.relieve()
    assert huge.mm.resident == PAGES


def test_memory_is_committed_ahead_where_blocks_are_used(huge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    committed: list[tuple[int, int]] = []
    monkeypatch.setattr(type(huge.frames.ram), "populate", lambda _ram, at, size: committed.append((at, size)))
    at = _map(huge, 6)
    for block, used in enumerate(([0], [*range(511)], [127, 256, 383, 511], [128, 256, 384, 511], [])):
        huge.mm.fault(at + block * SIZE_2M, WRITE)
        for page in used:
            huge.memory.write(at + block * SIZE_2M + page * PAGE_SIZE, b"x")
    blocks = [pair for pair in committed if pair[1] == SIZE_2M]
    assert blocks == [(huge.entry(at + 4 * SIZE_2M) & ADDRESS_MASK, SIZE_2M)]


_PLACE = st.integers(0, 3 * PAGES - 1)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), _PLACE, st.integers(1, 255)),
        st.tuples(st.just("read"), _PLACE, st.just(0)),
        st.tuples(
            st.sampled_from(["unmap", "map", "protect", "allow", "drop", "move", "advise"]), _PLACE, st.integers(1, 700)
        ),
        st.tuples(st.sampled_from(["fork", "end", "relieve"]), st.just(0), st.just(0)),
    ),
    max_size=24,
)


class _Player:
    """One world that does what it is told; a child is dropped or becomes the one that goes on."""

    def __init__(self, world: Any) -> None:
        self.world, self.mm = world, world.mm
        self.others: list[Any] = []
        _map(world, 3)

    def access(self, la: int, value: int) -> tuple[str, int]:
        """What a load (value 0) or store by the program comes to: the fault's result, the byte then."""
        error = WRITE if value else READ
        for _ in range(4):
            address = self.mm.page_table.entry_address(la)
            entry = self.world.frames.ram.qwords[address >> 3] if address >= 0 else 0
            if entry & P and (not value or entry & RW):
                self.world.frames.ram.qwords[address >> 3] |= A | (D if value else 0)
                at = entry & ADDRESS_MASK
                if value:
                    self.world.frames.ram.bytes[at] = value
                return "", self.world.frames.ram.bytes[at]
            result = self.mm.fault(la, error | (entry & P))
            if result:
                return result.name, -1
        raise AssertionError(f"{la:#x} faults for ever")

    def step(self, what: str, page: int, value: int) -> object:
        la, size = BASE + page * PAGE_SIZE, value * PAGE_SIZE
        if what in ("write", "read"):
            return self.access(la, value)
        if what == "unmap":
            return self.mm.munmap(la, size)
        if what == "map":
            return self.mm.mmap(la, size, 3, FIXED)
        if what == "fork":
            self.others.append(self.mm)
            self.mm = self.mm.fork()
        if what == "end" and self.others:
            self.mm.destroy()
            self.mm = self.others.pop()
        if what == "relieve":
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("mmuemu.kernel.huge._FEW", 1)
                self.mm.huge.relieve()
        try:
            if what in ("protect", "allow"):
                self.mm.mprotect(la, size, 1 if what == "protect" else 3)
            if what == "drop":
                self.mm.madvise(la, size, mman.MADV_DONTNEED)
            if what == "advise":
                self.mm.madvise(la, size, mman.MADV_HUGEPAGE if page & 1 else mman.MADV_NOHUGEPAGE)
            if what == "move":
                to = BASE + (page + PAGES) * PAGE_SIZE
                return self.mm.mremap(la, PAGE_SIZE, PAGE_SIZE, 3, to)
        except SyscallError as error:
            return error.errno
        return None

    def end(self) -> int:
        for other in self.others:
            other.destroy()
        self.others.clear()
        self.mm.destroy()
        return int(self.world.frames.used - self.world.before - 1)


@settings(max_examples=60, deadline=None)
@given(steps=_STEPS)
def test_a_program_cannot_tell_by_what_it_reads(
    steps: list[tuple[str, int, int]], make_world: Callable[..., Any]
) -> None:
    players = [_Player(_world(make_world, policy)) for policy in (NEVER, MADVISE, ALWAYS)]
    for step in steps:
        results = [player.step(*step) for player in players]
        assert results[0] == results[1] == results[2], step
    for page in range(0, 4 * PAGES, 37):
        found = [player.access(BASE + page * PAGE_SIZE, 0) for player in players]
        assert found[0] == found[1] == found[2], page
    assert [player.mm.anon_pages for player in players] == [
        sum(
            (entry & ADDRESS_MASK) != player.world.frames.zero_frame
            for _, entry, _ in player.mm.page_table.iterate(0, player.mm.task_size, absent=True)
        )
        for player in players
    ]
    assert [player.end() for player in players] == [0, 0, 0]
