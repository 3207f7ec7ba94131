"""copy_from_user and copy_to_user: rights, faults, A and D bits, partial copies, code hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmuemu.kernel.abi import mman
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.x86.paging import ADDRESS_MASK, RW, SIZE_2M, US, A, D, P

ANON = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS
PAGE = 4096


def efault(call: Callable[..., Any], *args: Any) -> None:
    with pytest.raises(SyscallError) as caught:
        call(*args)
    assert caught.value.errno is Errno.EFAULT


def test_numbers_and_strings_across_pages(world: Any) -> None:
    memory = world.memory
    at = world.mm.mmap(0, 3 * PAGE, 3, ANON)
    memory.write_u64(at + PAGE - 3, 0x1122_3344_5566_7788)
    assert memory.read_u64(at + PAGE - 3) == 0x1122_3344_5566_7788
    assert memory.read_u32(at + PAGE - 1) == 0x3344_5566
    assert memory.read_u16(at + PAGE - 1) == 0x5566
    assert memory.read_u8(at + PAGE + 4) == 0x11
    memory.write_u32(at, -1)
    assert memory.read(at, 5) == b"\xff\xff\xff\xff\0"
    memory.write(at + PAGE - 2, b"path\0more")
    assert memory.read_cstring(at + PAGE - 2, 4096) == b"path"
    assert memory.read_cstring(at + PAGE - 2, 5) == b"path"
    with pytest.raises(SyscallError) as caught:
        memory.read_cstring(at + PAGE - 2, 4)
    assert caught.value.errno is Errno.ENAMETOOLONG
    assert memory.read(at, 0) == b""
    memory.write(0, b"")


@pytest.mark.parametrize("address", [0, 1 << 47, (1 << 47) - 8, 0xFFFF_8000_0000_0000, (1 << 64) - 1, -1, 1 << 64])
def test_no_address_of_the_task(world: Any, address: int) -> None:
    world.half.table.map(0xFFFF_8000_0000_0000, 0, P | RW)
    for call, args in (
        (world.memory.read, (address, 1)),
        (world.memory.read, (address, 3 * PAGE)),
        (world.memory.write, (address, b"x")),
        (world.memory.read_cstring, (address, 10)),
        (world.memory.read_u64, (address,)),
        (world.memory.peek, (address, 1)),
        (world.memory.poke, (address, b"x")),
    ):
        efault(call, *args)


def test_rights_are_the_tasks(world: Any) -> None:
    memory = world.memory
    nothing = world.mm.mmap(0, PAGE, 0, ANON)
    read = world.mm.mmap(0, PAGE, 1, ANON)
    efault(memory.read, nothing, 1)
    efault(memory.write, nothing, b"x")
    assert memory.read(read, 3) == bytes(3)
    efault(memory.write, read, b"x")
    world.mm.mprotect(nothing, PAGE, 3)
    memory.write(nothing, b"x")
    world.mm.mprotect(nothing, PAGE, 0)
    efault(memory.read, nothing, 1)


def test_what_fits_is_copied_before_the_fault(world: Any) -> None:
    at = world.mm.mmap(0, 2 * PAGE, 3, ANON)
    efault(world.memory.write, at + PAGE, b"y" * (PAGE + 1))
    assert world.memory.read(at + PAGE, PAGE) == b"y" * PAGE
    pieces: list[bytes] = []

    def collect() -> None:
        for piece in world.memory.chunks(at, 3 * PAGE, False):
            pieces.append(bytes(piece))

    efault(collect)
    assert b"".join(pieces) == bytes(PAGE) + b"y" * PAGE


def test_a_and_d_are_set_as_by_the_processor(world: Any) -> None:
    at = world.mm.mmap(0, PAGE, 3, ANON)
    world.memory.write(at, b"x")
    q = world.frames.ram.qwords
    slot = world.mm.page_table.entry_address(at) >> 3
    q[slot] &= ~(A | D)
    world.memory.read(at, 1)
    assert q[slot] & (A | D) == A
    q[slot] &= ~(A | D)
    world.memory.write(at, b"x")
    assert q[slot] & (A | D) == A | D
    q[slot] &= ~(A | D)
    list(world.memory.chunks(at, 10, False))
    assert q[slot] & (A | D) == A
    list(world.memory.chunks(at, 10, True))
    assert q[slot] & (A | D) == A | D


def test_neighbouring_frames_come_as_one_piece(world: Any) -> None:
    at = world.mm.mmap(0, 8 * PAGE, 3, ANON)
    world.memory.write(at, bytes(range(256)) * 128)
    pieces = list(world.memory.chunks(at + 10, 6 * PAGE, False))
    assert sum(map(len, pieces)) == 6 * PAGE
    assert len(pieces) <= 3
    for piece in world.memory.chunks(at, 8 * PAGE, True):
        piece[:] = b"z" * len(piece)
    assert world.memory.read(at, 8 * PAGE) == b"z" * 8 * PAGE


def test_stores_into_code_are_told(world: Any, make_file: Any) -> None:
    at = world.mm.mmap(0, 2 * PAGE, 3, ANON)
    world.memory.write(at, b"\xc3" * 2 * PAGE)
    frame = world.entry(at) & ADDRESS_MASK
    told: list[int] = []
    world.frames.on_free.append(told.append)
    for store in (
        lambda: world.memory.write(at, b"\x90"),
        lambda: world.memory.write(at, b"\x90" * 2 * PAGE),
        lambda: list(world.memory.chunks(at, 1, True)),
        lambda: world.memory.poke(at, b"\x90"),
    ):
        world.frames.mark_executed(frame)
        store()
        assert frame in told
        told.clear()
    world.frames.mark_executed(frame)
    hooked: list[int] = []
    world.memory.on_code_write = hooked.append
    world.memory.write(at + 5, b"\x90")
    assert (hooked, told) == ([frame], [])
    world.mm.munmap(at, PAGE)
    assert told == [frame]
    file = make_file(bytes(PAGE))
    code = world.mm.mmap(0, PAGE, 5, mman.MAP_PRIVATE, file)
    world.memory.read(code, 1)
    world.frames.mark_executed(world.entry(code) & ADDRESS_MASK)
    file.inode.write_at(0, b"\x90")
    assert told[1:] == [world.entry(code) & ADDRESS_MASK]


def test_poke_and_peek_pass_protection(world: Any, make_file: Any) -> None:
    file = make_file(b"file" + bytes(PAGE))
    code = world.mm.mmap(0, PAGE, 5, mman.MAP_PRIVATE, file)
    world.memory.poke(code + 1, b"OK")
    assert world.memory.read(code, 4) == b"fOKe"
    assert bytes(file.inode.data[:4]) == b"file"
    assert not world.entry(code) & RW
    efault(world.memory.write, code, b"x")
    hidden = world.mm.mmap(0, PAGE, 0, ANON)
    world.memory.poke(hidden, b"secret")
    assert world.memory.peek(hidden, 6) == b"secret"
    efault(world.memory.read, hidden, 1)
    assert not world.entry(hidden) & P
    shared = world.mm.mmap(0, PAGE, 1, mman.MAP_SHARED, file)
    efault(world.memory.poke, shared, b"x")
    assert world.memory.peek(shared, 4) == b"file"
    assert world.leaked() == 0


def test_large_pages_made_by_hand(world: Any) -> None:
    run = world.frames.allocate_run(512, SIZE_2M)
    world.mm.page_table.map(0x7000_0000_0000, run, P | RW | US, SIZE_2M)
    world.memory.write(0x7000_0000_0FFE, b"large")
    assert world.frames.ram.read(run + 0xFFE, 5) == b"large"
    assert world.memory.read(0x7000_0000_0FFE, 5) == b"large"
    world.mm.page_table.protect(0x7000_0000_0000, P | US)
    efault(world.memory.write, 0x7000_0000_0000, b"x")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5 * PAGE), st.integers(0, 3 * PAGE)), max_size=20))
def test_copies_follow_a_bytearray(make_world: Callable[..., Any], steps: list[tuple[bool, int, int]]) -> None:
    world = make_world()
    at = world.mm.mmap(0, 8 * PAGE, 3, ANON)
    model = bytearray(8 * PAGE)
    for number, (store, offset, size) in enumerate(steps):
        if store:
            data = bytes([number + 1]) * size
            world.memory.write(at + offset, data)
            model[offset : offset + size] = data
        else:
            assert world.memory.read(at + offset, size) == model[offset : offset + size]
    assert world.memory.read(at, 8 * PAGE) == model
