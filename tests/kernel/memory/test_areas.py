"""Where areas go, how many there may be, the heap, and how /proc/self/maps shows them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmuemu.kernel.abi import mman
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.maps import maps_line, maps_text
from mmuemu.kernel.vma import VM_GROWSDOWN, VM_MAYSHARE, Vma, VmaList

ANON = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS
PAGE = 4096


def fails(errno: Errno, call: Callable[..., Any], *args: Any, **options: Any) -> None:
    with pytest.raises(SyscallError) as caught:
        call(*args, **options)
    assert caught.value.errno is errno


# Placement


def test_mmap_goes_top_down_and_merges(world: Any) -> None:
    mm = world.mm
    base = mm.mmap_base
    assert mm.mmap(0, PAGE, 3, ANON) == base - PAGE
    assert mm.mmap(0, 2 * PAGE + 1, 3, ANON) == base - 4 * PAGE
    assert world.areas() == [(base - 4 * PAGE, base, "rw-p")]
    assert mm.mmap(0, PAGE, 1, ANON) == base - 5 * PAGE
    mm.munmap(base - 2 * PAGE, PAGE)
    assert mm.mmap(0, 2 * PAGE, 3, ANON) == base - 7 * PAGE
    assert mm.mmap(0, PAGE, 3, ANON) == base - 2 * PAGE, "the highest hole that fits"
    assert mm.total_vm == 7 * PAGE


def test_hints_are_taken_if_free(world: Any) -> None:
    mm = world.mm
    assert mm.mmap(0x7000_0000_0123, PAGE, 3, ANON) == 0x7000_0000_0000
    assert mm.mmap(0x7000_0000_0000, PAGE, 3, ANON) == mm.mmap_base - PAGE
    assert mm.mmap(0x1000, PAGE, 3, ANON) == 0x1_0000, "vm.mmap_min_addr"
    assert mm.mmap(1 << 63, PAGE, 3, ANON) == mm.mmap_base - 2 * PAGE
    fails(Errno.EPERM, mm.mmap, 0, PAGE, 3, ANON | mman.MAP_FIXED)
    fails(Errno.EEXIST, mm.mmap, 0x7000_0000_0000, PAGE, 3, ANON | mman.MAP_FIXED_NOREPLACE)


def test_above_the_base_only_when_below_is_full(world: Any) -> None:
    mm = world.mm
    huge = 0x7000_0000_0000
    flags = ANON | mman.MAP_NORESERVE
    first = mm.mmap(0, huge, 0, flags)
    assert first == mm.mmap_base - huge
    mm.mmap(0x1_0000, first - 0x1_0000, 0, flags | mman.MAP_FIXED)
    assert mm.mmap(0, PAGE, 3, ANON) == mm.mmap_base
    fails(Errno.ENOMEM, mm.mmap, 0, huge, 0, flags)
    assert world.leaked() == 0


def test_overcommit(world: Any, make_file: Any) -> None:
    mm = world.mm
    memory = world.frames.limit << 12
    too_much = memory + PAGE
    fails(Errno.ENOMEM, mm.mmap, 0, too_much, 3, ANON)
    fails(Errno.ENOMEM, mm.mmap, 0, too_much, 3, mman.MAP_SHARED | mman.MAP_ANONYMOUS)
    fails(Errno.ENOMEM, mm.mmap, 0, too_much, 3, mman.MAP_PRIVATE, make_file(b"x"))
    mm.mmap(0, too_much, 3, mman.MAP_SHARED, make_file(b"x"))
    mm.mmap(0, memory, 3, ANON)
    mm.mmap(0, too_much, 3, ANON | mman.MAP_NORESERVE)
    reserved = mm.mmap(0, too_much, 0, ANON)
    fails(Errno.ENOMEM, mm.mprotect, reserved, too_much, 3)
    assert mm.set_brk(mm.start_brk + too_much) == mm.start_brk
    grown = mm.mmap(0x1000_0000_0000, PAGE, 3, ANON)
    fails(Errno.ENOMEM, mm.mremap, grown, PAGE, too_much + PAGE, mman.MREMAP_MAYMOVE)
    assert world.leaked() == 0


def test_the_number_of_areas_is_limited(world: Any) -> None:
    mm = world.mm
    mm.max_map_count = 20
    at = mm.mmap(0, 100 * PAGE, 3, ANON)
    for page in range(1, 20, 2):
        if len(mm.vmas) < 19:
            mm.mprotect(at + page * PAGE, PAGE, 1)
    count = len(mm.vmas)
    assert 19 <= count <= 20
    fails(Errno.ENOMEM, mm.mprotect, at + 50 * PAGE, PAGE, 1)
    assert len(mm.vmas) == count
    mm.munmap(at, PAGE)
    mm.max_map_count = len(mm.vmas)
    fails(Errno.ENOMEM, mm.munmap, at + 50 * PAGE, PAGE)
    fails(Errno.ENOMEM, mm.mremap, at + 50 * PAGE, PAGE, 5 * PAGE, mman.MREMAP_MAYMOVE)
    mm.mmap(0, PAGE, 0, ANON)
    fails(Errno.ENOMEM, mm.mmap, 0, PAGE, 3, ANON)
    assert world.leaked() == 0


def test_different_open_files_do_not_merge(world: Any, make_file: Any) -> None:
    one = make_file(bytes(3 * PAGE))
    other = type(one)(one.inode)
    at = 0x7000_0000_0000
    for page, file in enumerate((one, one, other)):
        mm_flags = mman.MAP_PRIVATE | mman.MAP_FIXED
        world.mm.mmap(at + page * PAGE, PAGE, 1, mm_flags, file, page * PAGE, "/f")
    assert [(vma.end - vma.start, vma.offset) for vma in world.mm.vmas] == [(2 * PAGE, 0), (PAGE, 2 * PAGE)]
    world.mm.munmap(at, 2 * PAGE)
    assert one.inode.mapping is not None
    assert world.leaked() == 0
    assert one.inode.mapping is None


@pytest.mark.parametrize(
    ("readable", "writable", "prot", "flags", "errno"),
    [
        (False, True, 1, mman.MAP_PRIVATE, Errno.EACCES),
        (False, True, 2, mman.MAP_SHARED, Errno.EACCES),
        (True, False, 3, mman.MAP_SHARED, Errno.EACCES),
        (True, False, 3, mman.MAP_PRIVATE, None),
        (True, False, 1, mman.MAP_SHARED, None),
        (True, True, 3, mman.MAP_SHARED_VALIDATE, None),
        (True, True, 3, mman.MAP_SHARED_VALIDATE | 0x80_0000, Errno.EOPNOTSUPP),
        (True, True, 3, mman.MAP_SHARED | 0x80_0000, None),
        (True, True, 3, mman.MAP_PRIVATE | mman.MAP_GROWSDOWN, Errno.EINVAL),
        (True, True, 3, 0, Errno.EINVAL),
    ],
)
def test_rights_of_the_open_file(
    world: Any, make_file: Any, readable: bool, writable: bool, prot: int, flags: int, errno: Errno | None
) -> None:
    """mmap(2), ERRORS."""
    file = make_file(bytes(PAGE), readable=readable, writable=writable)
    if errno is not None:
        fails(errno, world.mm.mmap, 0, PAGE, prot, flags, file)
        return
    at = world.mm.mmap(0, PAGE, prot, flags, file)
    if flags & 1 and not writable:
        fails(Errno.EACCES, world.mm.mprotect, at, PAGE, 3)


def test_refused_arguments(world: Any, make_file: Any) -> None:
    mm = world.mm
    fails(Errno.EINVAL, mm.mmap, 0, 0, 3, ANON)
    fails(Errno.EINVAL, mm.mmap, 0, PAGE, 3, mman.MAP_PRIVATE, make_file(b"x"), 100)
    fails(Errno.EOVERFLOW, mm.mmap, 0, PAGE, 3, mman.MAP_PRIVATE, make_file(b"x"), (1 << 64) - PAGE)
    fails(Errno.ENODEV, mm.mmap, 0, PAGE, 3, mman.MAP_PRIVATE, make_file(b"x"), mappable=False)
    fails(Errno.EINVAL, mm.mprotect, 0x1_0000, PAGE, mman.PROT_GROWSDOWN | mman.PROT_GROWSUP)
    fails(Errno.EINVAL, mm.mremap, 0, 0, PAGE, mman.MREMAP_FIXED)
    assert len(mm.vmas) == 0


# The heap


@given(st.lists(st.integers(-2, 40 * PAGE), max_size=30))
@settings(max_examples=60, deadline=None)
def test_brk_follows_a_model(make_world: Callable[..., Any], targets: list[int]) -> None:
    """brk(2): below the start nothing moves; else the end is where it was put, memory whole pages, zero
    when new.
    """
    world = make_world()
    mm = world.mm
    start = mm.start_brk + 123
    mm.start_brk = mm.brk = start
    end = start
    kept = 0
    for target in targets:
        want = start + target
        result = mm.set_brk(want)
        if target >= 0:
            end = want
        assert result == mm.brk == end
        low, high = (start + 4095) & ~4095, (end + 4095) & ~4095
        assert world.areas() == ([(low, high, "rw-p")] if low < high else [])
        kept = min(kept, max(high - low, 0))
        if low < high:
            data = world.memory.read(low, high - low)
            assert data == b"\xaa" * kept + bytes(high - low - kept)
            world.memory.write(low, b"\xaa" * (high - low))
            kept = high - low
    assert world.leaked() == 0


def test_the_heap_stops_before_what_follows(world: Any) -> None:
    mm = world.mm
    start = mm.start_brk
    mm.mmap(start + 10 * PAGE, PAGE, 3, ANON | mman.MAP_FIXED)
    assert mm.set_brk(start + 10 * PAGE) == start, "one page is left free"
    assert mm.set_brk(start + 9 * PAGE) == start + 9 * PAGE
    assert mm.set_brk(1 << 47) == start + 9 * PAGE
    assert mm.set_brk(0) == start + 9 * PAGE
    mm.munmap(start, 9 * PAGE)
    assert mm.set_brk(start) == start + 9 * PAGE, "nothing there to give back"


# mincore, mlock


def test_mincore_tells_what_is_there(world: Any, make_file: Any) -> None:
    mm = world.mm
    at = mm.mmap(0, 4 * PAGE, 3, ANON)
    world.memory.write(at + PAGE, b"x")
    world.memory.read(at + 2 * PAGE, 1)
    assert mm.mincore(at, at + 4 * PAGE) == bytes([0, 1, 1, 0])
    file = make_file(bytes(3 * PAGE))
    one = mm.mmap(0, 3 * PAGE, 1, mman.MAP_SHARED, file)
    two = mm.mmap(0, 3 * PAGE, 1, mman.MAP_PRIVATE, file)
    world.memory.read(one + PAGE, 1)
    assert mm.mincore(two, two + 3 * PAGE) == bytes([0, 1, 0]), "in the page cache"
    fails(Errno.ENOMEM, mm.mincore, at + 3 * PAGE, at + 5 * PAGE)


def test_locking_touches_and_is_limited(world: Any) -> None:
    mm = world.mm
    at = mm.mmap(0, 4 * PAGE, 3, ANON)
    mm.mlock(at + 10, PAGE)
    assert (mm.resident, mm.locked_vm, len(mm.vmas)) == (2, 2 * PAGE, 2)
    fails(Errno.EINVAL, mm.madvise, at, PAGE, mman.MADV_DONTNEED)
    mm.mlock(at, 4 * PAGE, lock=False)
    assert (mm.locked_vm, len(mm.vmas)) == (0, 1)
    fails(Errno.ENOMEM, mm.mlock, at, 5 * PAGE)
    assert mm.locked_vm == 4 * PAGE, "as far as it went"
    mm.mlock(at, 4 * PAGE, lock=False)
    fails(Errno.ENOMEM, mm.mlock, at, 9 << 20)
    mm.mlock_all(current=False, future=0x2000)
    other = mm.mmap(0x7000_0000_0000, 2 * PAGE, 1, ANON)
    assert mm.mincore(other, other + 2 * PAGE) == b"\1\1"
    assert mm.locked_vm == 2 * PAGE
    fails(Errno.EAGAIN, mm.mmap, 0, 9 << 20, 3, ANON)
    heap = mm.set_brk(mm.start_brk + 10)
    assert mm.mincore(heap - 10, heap - 10 + PAGE) == b"\1"
    mm.munlock_all()
    assert mm.mmap(0, 9 << 20, 3, ANON)
    fails(Errno.ENOMEM, mm.mlock_all, current=True, future=0)
    mm.munmap(mm.mmap_base - (10 << 20), 10 << 20)
    mm.mlock_all(current=True, future=0)
    assert mm.locked_vm == mm.total_vm > 0
    mm.munlock_all()
    assert mm.locked_vm == 0


def test_madv_free_and_remove(world: Any, make_file: Any) -> None:
    mm = world.mm
    at = mm.mmap(0, 2 * PAGE, 3, ANON)
    world.memory.write(at, b"x" * 2 * PAGE)
    mm.madvise(at, PAGE, mman.MADV_FREE)
    assert world.memory.read(at, 2 * PAGE) == bytes(PAGE) + b"x" * PAGE
    file = make_file(b"y" * 2 * PAGE)
    shared = mm.mmap(0, 2 * PAGE, 3, mman.MAP_SHARED, file)
    world.memory.read(shared, 1)
    mm.madvise(shared, PAGE, mman.MADV_REMOVE)
    assert world.memory.read(shared, PAGE + 1) == bytes(PAGE) + b"y"
    assert bytes(file.inode.data) == bytes(PAGE) + b"y" * PAGE
    fails(Errno.EINVAL, mm.madvise, shared, PAGE, mman.MADV_FREE)
    fails(Errno.EINVAL, mm.madvise, at, PAGE, mman.MADV_REMOVE)
    mm.madvise(at, 2 * PAGE, mman.MADV_POPULATE_WRITE)
    fails(Errno.EFAULT, mm.madvise, mm.mmap(0, 3 * PAGE, 1, 2, file), 3 * PAGE, mman.MADV_POPULATE_READ)


# Finding room


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("take"), st.integers(1, 12)),
            st.tuples(st.just("stack"), st.integers(200, 600)),
            st.tuples(st.just("drop"), st.one_of(st.integers(880, 900), st.integers(600, 900))),
        ),
        min_size=8,
        max_size=40,
    )
)
def test_the_highest_gap_is_found(steps: list[tuple[str, int]]) -> None:
    """Against a search of every address, also after areas came and went (the search remembers where it may
    start).
    """
    vmas = VmaList()
    low, high = 100, 900

    def expected(length: int) -> int:
        for start in range(high - length, low - 1, -1):
            above = next((vma for vma in vmas if vma.end > start * PAGE), None)  # the guard is the next one's only
            if above is None or (start + length) * PAGE <= above.guarded_start:
                return start * PAGE
        return -1

    for kind, number in steps:
        if kind == "drop":
            vmas.carve(number * PAGE, (number + 3) * PAGE)
            continue
        if kind == "stack":
            start = (number + 290) * PAGE
            if not vmas.overlapping(start, start + PAGE):
                vmas.insert(Vma(start, start + PAGE, VM_GROWSDOWN))
            continue
        found = vmas.highest_gap(number * PAGE, low * PAGE, high * PAGE)
        assert found == expected(number)
        if found >= 0 and number != 7:  # some callers do not use what they found
            vmas.insert(Vma(found, found + number * PAGE, 3))


# /proc/self/maps


def test_maps_has_the_kernels_columns(world: Any, make_file: Any) -> None:
    mm = world.mm
    at = 0x5555_5555_4000
    mm.mmap(at, 2 * PAGE, 5, mman.MAP_PRIVATE | mman.MAP_FIXED, make_file(bytes(3 * PAGE)), PAGE, "/bin/a\nb")
    mm.set_brk(mm.start_brk + 0x21000)
    mm.mprotect(mm.start_brk, PAGE, 1)
    mm.mmap(0x7000_0000_0000, PAGE, 0, ANON)
    mm.mmap(0x7100_0000_0000, PAGE, 3, mman.MAP_SHARED | mman.MAP_ANONYMOUS)
    mm.mmap(0x7FFF_FFFD_E000, 33 * PAGE, 3, ANON | mman.MAP_GROWSDOWN | mman.MAP_FIXED)
    mm.start_stack = 0x7FFF_FFFF_E000
    assert maps_text(mm).splitlines() == [
        r"555555554000-555555556000 r-xp 00001000 08:03 77                         /bin/a\012b",
        "555555559000-55555555a000 r--p 00000000 00:00 0                          [heap]",
        "55555555a000-55555557a000 rw-p 00000000 00:00 0                          [heap]",
        "700000000000-700000001000 ---p 00000000 00:00 0 ",
        "710000000000-710000001000 rw-s 00000000 00:01 1                          /dev/zero (deleted)",
        "7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0                          [stack]",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="needs the host's /proc/self/maps")
def test_maps_lines_are_the_hosts() -> None:
    """Take the host's own lines apart and print them again."""
    mm: Any = SimpleNamespace(brk=0, start_brk=0, start_stack=-1)
    with open("/proc/self/maps") as file:
        lines = file.read().split("\n")[:-1]
    assert len(lines) > 20
    for line in lines:
        match = re.fullmatch(r"(\w+)-(\w+) (....) (\w+) (\w+):(\w+) (\d+) *(.*)", line)
        assert match
        start, end, offset, major, minor = (int(match[i], 16) for i in (1, 2, 4, 5, 6))
        flags = sum(bit for letter, bit in zip("rwx", (1, 2, 4), strict=True) if letter in match[3])
        inode = SimpleNamespace(dev=os.makedev(major, minor), ino=int(match[7]))
        named = SimpleNamespace(inode=inode, readable=True, writable=True) if int(match[7]) else None
        vma = Vma(start, end, flags | VM_MAYSHARE * (match[3][3] == "s"), named, offset, match[8])  # type: ignore[arg-type]
        assert maps_line(mm, vma) == line
