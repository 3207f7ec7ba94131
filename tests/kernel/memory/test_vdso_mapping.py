"""The vDSO in address spaces: one set of frames for all, and nobody changes another's."""

from __future__ import annotations

import pytest

from mmuemu.guest.build import load
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.address_space import AddressSpace
from mmuemu.kernel.maps import maps_text
from mmuemu.kernel.user_memory import UserMemory
from mmuemu.kernel.vdso import Vdso
from mmuemu.x86.paging import ADDRESS_MASK

BASE = 0x7FFF_F7FC_0000


def test_all_processes_share_its_frames(world):
    vdso = Vdso()
    other = AddressSpace(world.frames, world.half)
    vdso.map(world.mm, BASE)
    vdso.map(other, BASE + 0x10000)
    assert world.memory.read(BASE, vdso.size) == load("vdso").ljust(vdso.size, b"\0")
    assert UserMemory(other).read(BASE + 0x10000, 4) == b"\x7fELF"
    theirs = other.page_table.entry_address(BASE + 0x10000)
    assert world.entry(BASE) & ADDRESS_MASK == world.frames.ram.qwords[theirs >> 3] & ADDRESS_MASK
    other.destroy()
    assert world.memory.read(BASE, 4) == b"\x7fELF"
    assert world.leaked() == 0


def test_a_breakpoint_is_seen_by_one_process_only(world):
    vdso = Vdso()
    other = AddressSpace(world.frames, world.half)
    vdso.map(world.mm, BASE)
    vdso.map(other, BASE)
    world.memory.poke(BASE + 0x170, b"\xcc")
    assert world.memory.read(BASE + 0x170, 1) == b"\xcc"
    assert UserMemory(other).read(BASE + 0x170, 1) == load("vdso")[0x170:0x171]
    with pytest.raises(SyscallError) as caught:
        world.memory.write(BASE, b"x")
    assert caught.value.errno is Errno.EFAULT


def test_maps_shows_it_as_linux_does(world):
    Vdso().map(world.mm, BASE)
    assert maps_text(world.mm) == f"{BASE:x}-{BASE + 4096:x} r-xp 00000000 00:00 0".ljust(73) + "[vdso]\n"
