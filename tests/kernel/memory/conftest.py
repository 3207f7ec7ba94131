"""An address space with little memory, and a file for it to map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mmuemu.kernel.address_space import AddressSpace
from mmuemu.kernel.user_memory import UserMemory
from mmuemu.memory.frames import FrameAllocator
from mmuemu.memory.kernel_half import KernelHalf
from mmuemu.memory.ram import GuestRam


class FakeInode:
    """A regular file in a bytearray that keeps the page-cache protocol."""

    def __init__(self, data: bytes, dev: int = 0x803, ino: int = 77) -> None:
        self.data = bytearray(data)
        self.dev = dev
        self.ino = ino
        self.mapping: Any = None

    @property
    def size(self) -> int:
        return len(self.data)

    def read_at(self, offset: int, count: int) -> bytes:
        data = bytes(self.data[offset : offset + count])
        return self.mapping.overlay(offset, data) if self.mapping else data

    def write_at(self, offset: int, data: bytes) -> int:
        self.data[offset : offset + len(data)] = data
        if self.mapping:
            self.mapping.written(offset, bytes(data))
        return len(data)

    def truncate(self, size: int) -> None:
        self.data = self.data[:size].ljust(size, b"\0")
        if self.mapping:
            self.mapping.truncated(size)

    def punch(self, offset: int, count: int) -> None:
        self.write_at(offset, bytes(max(min(count, self.size - offset), 0)))


class FakeFile:
    """An opened file."""

    def __init__(self, inode: FakeInode, readable: bool = True, writable: bool = True) -> None:
        self.inode = inode
        self.readable = readable
        self.writable = writable


class World:
    """Guest memory with one address space, its user memory, and a log of flushes."""

    def __init__(self, frames: int = 4096) -> None:
        ram = GuestRam((frames + 1) << 12)
        self.frames = FrameAllocator(ram, 0x1000)
        self.half = KernelHalf(self.frames)
        self.before = self.frames.used
        self.mm = AddressSpace(self.frames, self.half, start_brk=0x5555_5555_9000)
        self.memory = UserMemory(self.mm)
        self.flushes: list[tuple[int, int]] = []
        self.mm.on_flush = lambda start, end: self.flushes.append((start, end))

    def areas(self) -> list[tuple[int, int, str]]:
        """(start, end, permissions) of all areas."""
        return [(vma.start, vma.end, vma.permissions) for vma in self.mm.vmas]

    def leaked(self) -> int:
        """Frames still in use after the end of the address space, but for the shared zero frame."""
        self.mm.destroy()
        return self.frames.used - self.before - 1

    def entry(self, la: int) -> int:
        """The page-table entry of ``la``."""
        address = self.mm.page_table.entry_address(la)
        return self.frames.ram.qwords[address >> 3] if address >= 0 else 0


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def make_world() -> Callable[..., World]:
    return World


@pytest.fixture(scope="session")
def make_file() -> Callable[..., FakeFile]:
    def make(data: bytes, **options: bool) -> FakeFile:
        return FakeFile(FakeInode(data), **options)

    return make
