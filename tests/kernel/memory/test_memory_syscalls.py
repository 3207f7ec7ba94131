"""The memory calls as the dispatcher makes them: raw 64-bit arguments, descriptors of real files."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mmuemu.kernel.abi import mman
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import O_RDONLY, O_RDWR
from mmuemu.kernel.files.devices import CharDevice
from mmuemu.kernel.files.fdtable import FdTable
from mmuemu.kernel.files.inode import FileSystem, Quota
from mmuemu.kernel.files.memfs import MemoryDirectory, MemoryFile
from mmuemu.kernel.files.openfile import OpenFile, OpenRegular
from mmuemu.kernel.syscalls import memory as _registered  # noqa: F401
from mmuemu.kernel.syscalls.table import TABLE

NUMBERS = {
    9: "mmap", 10: "mprotect", 11: "munmap", 12: "brk", 25: "mremap", 26: "msync", 27: "mincore", 28: "madvise",
    149: "mlock", 150: "munlock", 151: "mlockall", 152: "munlockall", 325: "mlock2",
}  # fmt: skip
ANON = mman.MAP_PRIVATE | mman.MAP_ANONYMOUS
PAGE = 4096
MINUS_ONE = (1 << 64) - 1


class Caller:
    """A task with one tmpfs file at descriptors 0 (read-write) and 1 (read-only), and other things after."""

    def __init__(self, world: Any) -> None:
        fs = FileSystem("tmpfs", 0x0102_1994, 0x18, lambda: 0, Quota(1 << 20))
        self.file = MemoryFile(fs, 0o644, data=b"0123456789" * 1000)
        files = FdTable()
        files.install(OpenRegular(self.file, O_RDWR))
        files.install(OpenRegular(self.file, O_RDONLY))
        files.install(OpenFile(MemoryDirectory(fs, 0o755), O_RDONLY))
        files.install(OpenFile(CharDevice(fs, 1, 5, lambda count: bytes(count), True), O_RDWR))
        files.install(OpenFile(CharDevice(fs, 1, 3, lambda count: b"", True), O_RDWR))
        self.task = SimpleNamespace(mm=world.mm, memory=world.memory, files=files)

    def call(self, number: int, *arguments: int) -> int:
        raw = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
        entry = TABLE[number]
        return entry.call(self.task, dict(zip((form[0] for form in entry.forms), raw, strict=False)), 0)

    def fails(self, errno: Errno, number: int, *arguments: int) -> None:
        with pytest.raises(SyscallError) as caught:
            self.call(number, *arguments)
        assert caught.value.errno is errno


@pytest.fixture
def caller(world: Any) -> Caller:
    return Caller(world)


def test_numbers_and_names() -> None:
    assert {number: TABLE[number].name for number in NUMBERS} == NUMBERS


def test_anonymous_memory_ignores_the_descriptor(world: Any, caller: Caller) -> None:
    at = caller.call(9, 0, 100, 3 | 1 << 40, ANON | 1 << 40, MINUS_ONE, PAGE)
    world.memory.write(at, b"x")
    assert caller.call(10, at, 1, 1) == 0
    assert caller.call(11, at, 1) == 0
    assert world.leaked() == 0


def test_file_memory(world: Any, caller: Caller) -> None:
    at = caller.call(9, 0, 2 * PAGE, 3, mman.MAP_SHARED, 0, PAGE)
    assert world.memory.read(at, 4) == b"6789"
    world.memory.write(at, b"abcd")
    assert caller.file.read_at(PAGE - 1, 6) == b"5abcd0"
    assert caller.file.write_at(PAGE + 1, b"Z") == 1
    assert world.memory.read(at, 4) == b"aZcd"
    assert caller.call(26, at, 2 * PAGE, mman.MS_SYNC) == 0
    assert caller.file.read_raw(PAGE, 4) == b"aZcd"
    caller.file.truncate(PAGE + 2)
    assert world.memory.read(at, 4) == b"aZ\0\0"
    with pytest.raises(SyscallError):
        world.memory.read(at + PAGE, 1)
    area = world.mm.vmas.find(at)
    assert area.file.inode is caller.file
    world.memory.write(at, b"w")
    assert world.leaked() == 0
    assert caller.file.read_at(PAGE, 9) == b"wZ"
    assert caller.file.mapping is None


def test_what_a_descriptor_allows(caller: Caller) -> None:
    caller.fails(Errno.EBADF, 9, 0, PAGE, 1, mman.MAP_PRIVATE, 77, 0)
    caller.fails(Errno.EBADF, 9, 0, PAGE, 1, mman.MAP_PRIVATE, MINUS_ONE, 0)
    caller.fails(Errno.EACCES, 9, 0, PAGE, 3, mman.MAP_SHARED, 1, 0)
    caller.fails(Errno.ENODEV, 9, 0, PAGE, 1, mman.MAP_PRIVATE, 2, 0)
    caller.fails(Errno.ENODEV, 9, 0, PAGE, 1, mman.MAP_PRIVATE, 4, 0)
    caller.fails(Errno.EINVAL, 9, 0, PAGE, 1, mman.MAP_PRIVATE, 0, 5)
    caller.fails(Errno.EOVERFLOW, 9, 0, PAGE, 1, mman.MAP_PRIVATE, 0, (1 << 64) - PAGE)
    caller.fails(Errno.ENOMEM, 9, 0, 1 << 21, 3, ANON | mman.MAP_HUGETLB, MINUS_ONE, 0)


def test_dev_zero_is_anonymous_memory(world: Any, caller: Caller) -> None:
    at = caller.call(9, 0, PAGE, 3, mman.MAP_PRIVATE, 3, 0)
    world.memory.write(at, b"x")
    assert world.memory.read(at, 2) == b"x\0"


def test_brk_and_mremap(world: Any, caller: Caller) -> None:
    start = caller.call(12, 0)
    assert caller.call(12, start + 100) == start + 100
    at = caller.call(9, 0, PAGE, 3, ANON, MINUS_ONE, 0)
    world.memory.write(at, b"moved")
    to = caller.call(25, at, PAGE, 5 * PAGE, mman.MREMAP_MAYMOVE)
    assert world.memory.read(to, 5) == b"moved"
    caller.fails(Errno.EFAULT, 25, 0x1_0000, PAGE, 2 * PAGE, mman.MREMAP_MAYMOVE)


def test_mincore(world: Any, caller: Caller) -> None:
    at = caller.call(9, 0, 4 * PAGE, 3, ANON, MINUS_ONE, 0)
    vector = caller.call(9, 0, PAGE, 3, ANON, MINUS_ONE, 0)
    world.memory.write(at + 2 * PAGE, b"x")
    assert caller.call(27, at, 3 * PAGE + 1, vector) == 0
    assert world.memory.read(vector, 5) == b"\0\0\1\0\0"
    caller.fails(Errno.EINVAL, 27, at + 1, PAGE, vector)
    caller.fails(Errno.ENOMEM, 27, 0x1_0000, PAGE, vector)
    caller.fails(Errno.ENOMEM, 27, at, MINUS_ONE, vector)
    caller.fails(Errno.EFAULT, 27, at, PAGE, 0)
    caller.fails(Errno.EFAULT, 27, at, PAGE, MINUS_ONE)


def test_advice_and_locks(world: Any, caller: Caller) -> None:
    at = caller.call(9, 0, 4 * PAGE, 3, ANON, MINUS_ONE, 0)
    world.memory.write(at, b"x")
    assert caller.call(28, at, PAGE, mman.MADV_DONTNEED) == 0
    assert world.memory.read(at, 1) == b"\0"
    assert caller.call(149, at, PAGE) == caller.call(150, at, PAGE) == 0
    resident = world.mm.resident
    assert caller.call(325, at + 2 * PAGE, PAGE, mman.MLOCK_ONFAULT) == 0
    assert world.mm.resident == resident
    caller.fails(Errno.EINVAL, 325, at, PAGE, 2)
    for flags in (0, mman.MCL_ONFAULT, 8 | mman.MCL_CURRENT):
        caller.fails(Errno.EINVAL, 151, flags)
    assert caller.call(151, mman.MCL_CURRENT | mman.MCL_FUTURE) == 0
    assert world.mm.locked_vm == world.mm.total_vm
    assert caller.call(152) == 0
    assert world.mm.locked_vm == world.mm.def_flags == 0
