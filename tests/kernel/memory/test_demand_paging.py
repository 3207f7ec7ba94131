"""What a touch of memory does: frames, rights, copies, flushes, the stack, and running out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from mmuemu.errors import OutOfFrames
from mmuemu.kernel.abi import mman
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.faults import PROTNONE, FaultResult
from mmuemu.x86.paging import ADDRESS_MASK, NX, RW, US, A, D, P

R, W, X, U = 0, 2, 16, 4
ANON = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS
STACK = ANON | mman.MAP_GROWSDOWN | mman.MAP_STACK | mman.MAP_FIXED
PAGE = 4096


def test_nothing_is_mapped_until_it_is_touched(world: Any) -> None:
    at = world.mm.mmap(0, 1 << 20, 3, ANON)
    assert (world.mm.resident, world.entry(at)) == (0, 0)
    assert world.mm.fault(at + 5, U | W) is FaultResult.RESOLVED
    assert world.entry(at) & ~ADDRESS_MASK == P | RW | US | A | D | NX
    assert (world.mm.resident, world.mm.minor_faults, world.flushes) == (1, 1, [])
    assert world.leaked() == 0


def test_reads_share_one_zero_frame_until_written(world: Any) -> None:
    at = world.mm.mmap(0, 4 * PAGE, 3, ANON)
    for page in range(3):
        assert world.mm.fault(at + page * PAGE, U | R) is FaultResult.RESOLVED
    zero = world.frames.zero_frame
    assert {world.entry(at + page * PAGE) for page in range(3)} == {zero | P | US | A | NX}
    assert world.mm.resident == 0
    used = world.frames.used
    assert world.mm.fault(at + PAGE, U | W | 1) is FaultResult.RESOLVED
    assert world.frames.used == used + 1
    assert world.entry(at + PAGE) & ADDRESS_MASK != zero
    assert world.flushes == [(at + PAGE, at + 2 * PAGE)], "another frame stands there now"
    assert world.memory.read(at + PAGE, PAGE) == bytes(PAGE)
    assert world.leaked() == 0


@pytest.mark.parametrize(
    ("prot", "error", "result"),
    [
        (0, U | R, FaultResult.SEGV_ACCERR),
        (1, U | R, FaultResult.RESOLVED),
        (1, U | W, FaultResult.SEGV_ACCERR),
        (1, U | X, FaultResult.SEGV_ACCERR),
        (2, U | R, FaultResult.RESOLVED),
        (3, U | W, FaultResult.RESOLVED),
        (4, U | R, FaultResult.RESOLVED),
        (4, U | X, FaultResult.RESOLVED),
        (4, U | W, FaultResult.SEGV_ACCERR),
        (7, U | R | 8 | 1, FaultResult.SEGV_ACCERR),
    ],
)
def test_rights(world: Any, prot: int, error: int, result: FaultResult) -> None:
    at = world.mm.mmap(0, PAGE, prot, ANON)
    assert world.mm.fault(at, error) is result
    assert world.mm.fault(at - PAGE, error) is FaultResult.SEGV_MAPERR
    assert world.mm.fault(0xFFFF_8000_0000_0000, error) is FaultResult.SEGV_MAPERR


def test_signals_of_results() -> None:
    assert [(result.signal, result.si_code) for result in FaultResult] == [
        (0, 0), (11, 1), (11, 2), (7, 2), (9, 0), (11, 4),
    ]  # fmt: skip


def test_prot_none_keeps_the_page_without_p(world: Any) -> None:
    at = world.mm.mmap(0, 2 * PAGE, 3, ANON)
    world.memory.write(at, b"kept")
    frame = world.entry(at) & ADDRESS_MASK
    world.mm.mprotect(at, PAGE, 0)
    assert world.entry(at) & (P | PROTNONE | ADDRESS_MASK) == frame | PROTNONE
    assert world.flushes == [(at, at + PAGE)]
    assert world.mm.fault(at, U | R) is FaultResult.SEGV_ACCERR
    world.mm.mprotect(at, PAGE, 1)
    assert world.entry(at) & (P | RW | PROTNONE | ADDRESS_MASK) == frame | P
    assert len(world.flushes) == 1, "what was not present needs no flush"
    assert world.memory.read(at, 4) == b"kept"
    assert world.leaked() == 0


def test_write_access_comes_back_by_a_fault_without_a_copy(world: Any) -> None:
    at = world.mm.mmap(0, PAGE, 3, ANON)
    world.memory.write(at, b"x")
    before = world.entry(at)
    world.mm.mprotect(at, PAGE, 1)
    assert not world.entry(at) & RW
    world.mm.mprotect(at, PAGE, 3)
    assert not world.entry(at) & RW
    world.flushes.clear()
    assert world.mm.fault(at, U | W | 1) is FaultResult.RESOLVED
    assert world.entry(at) == before
    assert world.flushes == []


def test_execute_rights_reach_pages_already_there(world: Any) -> None:
    at = world.mm.mmap(0, PAGE, 3, ANON)
    world.memory.write(at, b"\xc3")
    assert world.entry(at) & NX
    world.mm.mprotect(at, PAGE, 5)
    assert not world.entry(at) & NX
    world.mm.mprotect(at, PAGE, 1)
    assert world.entry(at) & NX


def test_a_spurious_fault_is_fine_and_a_hopeless_one_is_not(world: Any) -> None:
    """Someone took US from an upper entry: repeating the access would never end."""
    at = world.mm.mmap(0, PAGE, 3, ANON)
    world.memory.write(at, b"x")
    assert world.mm.fault(at, U | W | 1) is FaultResult.RESOLVED
    q = world.frames.ram.qwords
    q[(world.mm.page_table.root >> 3) + (at >> 39)] &= ~US
    assert world.mm.fault(at, U | W | 1) is FaultResult.SEGV_ACCERR


def test_private_file_pages_are_shared_until_written(world: Any, make_file: Any) -> None:
    file = make_file(b"A" * PAGE + b"B" * 100)
    one = world.mm.mmap(0, 3 * PAGE, 3, mman.MAP_PRIVATE, file)
    two = world.mm.mmap(0, 3 * PAGE, 1, mman.MAP_SHARED, file)
    assert world.memory.read(one, PAGE) == world.memory.read(two, PAGE) == b"A" * PAGE
    assert world.entry(one) & ADDRESS_MASK == world.entry(two) & ADDRESS_MASK
    assert not world.entry(one) & RW
    assert (world.mm.file_pages, world.mm.anon_pages) == (2, 0)
    assert (world.mm.major_faults, world.mm.minor_faults) == (1, 1)
    world.memory.write(one, b"mine")
    assert world.memory.read(two, 4) == b"AAAA"
    assert file.inode.read_at(0, 4) == b"AAAA"
    assert (world.mm.file_pages, world.mm.anon_pages) == (1, 1)
    assert world.memory.read(one + PAGE, PAGE) == b"B" * 100 + bytes(PAGE - 100)
    assert world.mm.fault(one + 2 * PAGE, U | R) is FaultResult.BUS_ADRERR
    assert file.inode.mapping is not None
    assert world.leaked() == 0
    assert file.inode.mapping is None
    assert bytes(file.inode.data) == b"A" * PAGE + b"B" * 100


def test_shared_file_stores_are_seen_by_reads_at_once_and_written_back(world: Any, make_file: Any) -> None:
    file = make_file(b"A" * 5000)
    at = world.mm.mmap(0, 2 * PAGE, 3, mman.MAP_SHARED, file)
    world.memory.write(at + PAGE, b"new")
    world.memory.write(at + 4999, b"Zbeyond")
    assert file.inode.read_at(PAGE, 4) == b"newA"
    assert bytes(file.inode.data) == b"A" * 5000
    world.mm.msync(at, 2 * PAGE, mman.MS_SYNC)
    assert bytes(file.inode.data) == b"A" * PAGE + b"new" + b"A" * 900 + b"Z"
    assert world.flushes, "D was cleared"
    world.memory.write(at, b"again")
    world.mm.munmap(at, 2 * PAGE)
    assert bytes(file.inode.data)[:6] == b"againA"
    assert len(file.inode.data) == 5000
    assert world.leaked() == 0


def test_writes_to_the_file_are_seen_in_mappings(world: Any, make_file: Any) -> None:
    file = make_file(b"A" * 3 * PAGE)
    shared = world.mm.mmap(0, 3 * PAGE, 1, mman.MAP_SHARED, file)
    private = world.mm.mmap(0, 3 * PAGE, 3, mman.MAP_PRIVATE, file)
    world.memory.read(shared, 1)
    world.memory.write(private, b"p")
    file.inode.write_at(0, b"B" * 2 * PAGE)
    assert world.memory.read(shared, 2 * PAGE) == b"B" * 2 * PAGE
    assert world.memory.read(private, 2) == b"pA", "its own copy is from before"
    assert world.memory.read(private + PAGE, 1) == b"B"


def test_truncation_takes_pages_away(world: Any, make_file: Any) -> None:
    file = make_file(b"A" * 3 * PAGE)
    at = world.mm.mmap(0, 3 * PAGE, 3, mman.MAP_SHARED, file)
    world.memory.read(at, 3 * PAGE)
    file.inode.truncate(PAGE + 10)
    assert world.flushes == [(at + 2 * PAGE, at + 3 * PAGE)]
    assert world.mm.fault(at + 2 * PAGE, U | R) is FaultResult.BUS_ADRERR
    assert world.memory.read(at + PAGE, 20) == b"A" * 10 + bytes(10)
    file.inode.truncate(3 * PAGE)
    assert world.memory.read(at + 2 * PAGE, 4) == bytes(4)
    assert world.leaked() == 0


def test_shared_anonymous_memory(world: Any) -> None:
    at = world.mm.mmap(0, 4 * PAGE, 3, mman.MAP_SHARED | mman.MAP_ANONYMOUS)
    world.memory.write(at + 100, b"shared")
    child = world.mm.fork()
    type(world.memory)(child).write(at + 100, b"SHARED")
    assert world.memory.read(at + 100, 7) == b"SHARED\0"
    twin = world.mm.mremap(at, 0, 4 * PAGE, mman.MREMAP_MAYMOVE)
    assert twin != at
    world.memory.write(twin + 100, b"twin")
    assert world.memory.read(at + 100, 6) == b"twinED"
    child.destroy()
    assert world.leaked() == 0


def test_what_goes_is_flushed_once(world: Any) -> None:
    mm = world.mm
    at = mm.mmap(0, 64 * PAGE, 3, ANON)
    mm.munmap(at, PAGE)
    assert world.flushes == [], "nothing was present"
    world.memory.write(at + PAGE, bytes(20 * PAGE))
    mm.mprotect(at + 5 * PAGE, PAGE, 1)
    world.flushes.clear()
    mm.munmap(at, 8 * PAGE)
    assert world.flushes == [(at, at + 8 * PAGE)]
    mm.madvise(at + 8 * PAGE, 2 * PAGE, mman.MADV_DONTNEED)
    assert world.flushes[1:] == [(at + 8 * PAGE, at + 10 * PAGE)]
    to = mm.mremap(at + 10 * PAGE, 2 * PAGE, 4 * PAGE, mman.MREMAP_MAYMOVE)
    assert world.flushes[2:] == [(at + 10 * PAGE, at + 12 * PAGE)]
    mm.mmap(at + 12 * PAGE, 2 * PAGE, 3, ANON | mman.MAP_FIXED)
    assert world.flushes[3:] == [(at + 12 * PAGE, at + 14 * PAGE)]
    assert mm.mincore(to, to + 4 * PAGE) == b"\1\1\0\0"
    assert world.leaked() == 0


# The stack


def test_the_stack_grows_to_its_limit(world: Any) -> None:
    top = 0x7FFF_FFFF_F000
    world.mm.mmap(top - 33 * PAGE, 33 * PAGE, 3, STACK)
    world.mm.stack_limit = 100 * PAGE
    assert world.mm.fault(top - 40 * PAGE, U | W) is FaultResult.RESOLVED
    assert world.areas() == [(top - 40 * PAGE, top, "rw-p")]
    assert world.mm.fault(top - 100 * PAGE, U | R) is FaultResult.RESOLVED
    assert world.mm.fault(top - 100 * PAGE - 1, U | W) is FaultResult.SEGV_MAPERR
    assert world.areas() == [(top - 100 * PAGE, top, "rw-p")]
    assert world.mm.resident == 1
    assert world.leaked() == 0


@pytest.mark.parametrize(
    ("prot", "distance", "grows"), [(3, 256, True), (3, 255, False), (0, 0, True), (1, 255, False)]
)
def test_the_guard_gap(world: Any, prot: int, distance: int, grows: bool) -> None:
    """256 pages between a stack and accessible memory below it (stack_guard_gap)."""
    top = 0x7FFF_FFFF_F000
    world.mm.mmap(top - PAGE, PAGE, 3, STACK)
    world.mm.mmap(top - 600 * PAGE, PAGE, prot, ANON | mman.MAP_FIXED)
    want = top - (599 - distance) * PAGE
    result = FaultResult.RESOLVED if grows else FaultResult.SEGV_MAPERR
    assert world.mm.fault(want, U | W) is result


def test_nothing_is_placed_in_the_guard_gap(world: Any) -> None:
    top = world.mm.mmap_base
    world.mm.mmap(top - PAGE, PAGE, 3, STACK)
    assert world.mm.mmap(0, PAGE, 3, ANON) == top - 258 * PAGE
    assert world.mm.mmap(top - 100 * PAGE, PAGE, 3, ANON) == top - 259 * PAGE


# Running out


def test_exhausted_memory_is_an_answer(make_world: Callable[..., Any]) -> None:
    world = make_world(40)
    at = world.mm.mmap(0, 40 * PAGE, 3, ANON | mman.MAP_NORESERVE)
    results = [world.mm.fault(at + page * PAGE, U | W) for page in range(40)]
    full = results.index(FaultResult.OOM)
    assert set(results[full:]) == {FaultResult.OOM}
    assert world.frames.free == 0
    assert world.mm.fault(0x1000_0000_0000, U | W) is FaultResult.SEGV_MAPERR
    world.mm.munmap(at, PAGE)
    assert world.mm.fault(at + full * PAGE, U | W) is FaultResult.RESOLVED
    with pytest.raises(SyscallError) as caught:
        world.mm.mmap(0, 30 * PAGE, 3, ANON | mman.MAP_POPULATE)
    assert caught.value.errno is Errno.ENOMEM
    assert len(world.mm.vmas) == 1
    assert world.leaked() == 0


def test_no_room_for_tables_leaves_nothing_behind(make_world: Callable[..., Any], make_file: Any) -> None:
    for kind in range(4):
        world = make_world(13)
        filler = [world.frames.allocate() for _ in range(world.frames.free - 2)]
        file = make_file(bytes(100)) if kind > 1 else None
        flags = (mman.MAP_PRIVATE if kind < 3 else mman.MAP_SHARED) | (0 if file else mman.MAP_ANONYMOUS)
        at = world.mm.mmap(0, PAGE, 3, flags, file)
        for error in (U | R, U | W) if kind else (U | W, U | R):
            assert world.mm.fault(at, error) is FaultResult.OOM
        assert world.mm.resident == 0
        for frame in filler:
            world.frames.release(frame)
        assert world.mm.fault(at, U | W) is FaultResult.RESOLVED
        assert world.leaked() == 0


def test_sparse_memory_costs_what_is_touched(world: Any) -> None:
    size = 64 << 30
    at = world.mm.mmap(0, size, 3, ANON | mman.MAP_NORESERVE)
    began = time.process_time()
    for page in range(1024):
        assert world.mm.fault(at + page * (size >> 10), U | W) is FaultResult.RESOLVED
    assert world.mm.resident == 1024
    assert world.frames.used < 2200
    world.mm.mprotect(at, size, 1)
    world.mm.madvise(at, size >> 1, mman.MADV_DONTNEED)
    assert world.mm.resident == 512
    world.mm.munmap(at, size)
    assert time.process_time() - began < 0.5
    assert world.leaked() == 0


def test_fork_copies_on_write_both_ways(world: Any, make_file: Any) -> None:
    at = world.mm.mmap(0, 4 * PAGE, 3, ANON)
    gone = world.mm.mmap(0, PAGE, 3, ANON)
    wiped = world.mm.mmap(0, PAGE, 3, ANON)
    mapped = world.mm.mmap(0, PAGE, 3, mman.MAP_PRIVATE, make_file(b"file"))
    for address in (at, at + PAGE, gone, wiped):
        world.memory.write(address, b"before")
    world.memory.write(at + 2 * PAGE, b"early")
    world.memory.read(mapped, 1)
    world.mm.mprotect(at + PAGE, PAGE, 0)
    world.mm.madvise(gone, PAGE, mman.MADV_DONTFORK)
    world.mm.madvise(wiped, PAGE, mman.MADV_WIPEONFORK)
    used = world.frames.used
    child = world.mm.fork()
    theirs = type(world.memory)(child)
    assert world.frames.used - used <= 8, "tables only"
    assert (child.anon_pages, child.file_pages) == (3, 0), "the file's page is found by a fault"
    assert world.flushes[-1] == (0, world.mm.task_size), "the parent's pages became read-only"
    world.memory.write(at + 2 * PAGE, b"later")
    world.memory.write(wiped, b"BEFORE")
    assert theirs.read(at + 2 * PAGE, 5) == b"early"
    theirs.write(at, b"child!")
    world.memory.write(at + 100, b"parent")
    assert world.memory.read(at, 6) == b"before"
    assert theirs.read(at, 6) == b"child!"
    assert theirs.read(at + 100, 6) == bytes(6)
    child.mprotect(at + PAGE, PAGE, 3)
    theirs.write(at + PAGE, b"c")
    world.mm.mprotect(at + PAGE, PAGE, 3)
    assert world.memory.read(at + PAGE, 6) == b"before"
    assert theirs.read(wiped, 6) == bytes(6)
    with pytest.raises(SyscallError):
        theirs.read(gone, 1)
    child.destroy()
    for address, data in ((at, b"before"), (wiped, b"BEFORE"), (gone, b"before")):
        assert world.memory.read(address, 6) == data
    assert world.leaked() == 0


def test_fork_without_room_changes_nothing(make_world: Callable[..., Any]) -> None:
    world = make_world(60)
    at = world.mm.mmap(0, 30 * PAGE, 3, ANON)
    world.mm.populate(at, at + 30 * PAGE)
    filler = [world.frames.allocate() for _ in range(world.frames.free - 3)]
    with pytest.raises(OutOfFrames):
        world.mm.fork()
    assert world.frames.free == 3
    world.memory.write(at, bytes(30 * PAGE))
    assert world.frames.free == 3, "nobody else has these pages"
    for frame in filler:
        world.frames.release(frame)
    assert world.leaked() == 0
