"""The same memory calls on the host's own kernel: results, areas, merging, page and file contents must
agree.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mmuemu.kernel.abi import mman
from mmuemu.kernel.abi.errno import SyscallError
from mmuemu.kernel.vma import Vma

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64", reason="the oracle is a Linux x86-64 kernel"
)

ARENA = 0x10_0000_0000
PAGES = 26
FILE_SIZE = 5 * 4096 + 100
MODERN = tuple(int(part) for part in platform.release().split(".")[:2] if part.isdigit()) >= (6, 12)
"""Older kernels merge areas by slightly other rules; there only what is mapped how is compared."""

HOST = r"""
import ctypes, json, os, sys, tempfile
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
arena, pages, size = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]

def call(*args):
    ctypes.set_errno(0)
    result = libc.syscall(*[ctypes.c_ulong(a & (1 << 64) - 1) for a in args])
    return -ctypes.get_errno() if result == -1 else result

def copy(number, address, buffer):
    mine, other = Vector(ctypes.addressof(buffer), len(buffer)), Vector(address, len(buffer))
    return call(number, os.getpid(), ctypes.addressof(mine), 1, ctypes.addressof(other), 1, 0)

def run(steps):
    fd, name = tempfile.mkstemp()
    os.unlink(name)
    os.write(fd, bytes((i * 7 + 1) & 255 for i in range(size)))
    results = []
    for number, *args in steps:
        if number == "poke":
            buffer = ctypes.create_string_buffer(bytes([args[1]]), 1)
            results.append(copy(311, args[0], buffer))
        elif number == "peek":
            results.append(copy(310, args[0], ctypes.create_string_buffer(1)))
        elif number == "truncate":
            os.ftruncate(fd, args[0])
            results.append(0)
        elif number == "pwrite":
            results.append(os.pwrite(fd, bytes([args[1]]) * 3, args[0]))
        else:
            if number == 9 and args[4] == "file":
                args[4] = fd
            results.append(call(number, *args))
    areas = []
    for line in open("/proc/self/maps"):
        fields = line.split()
        start, end = (int(part, 16) for part in fields[0].split("-"))
        if arena <= start < arena + pages * 4096:
            areas.append([start, end, fields[1], int(fields[2], 16)])
    content = []
    for page in range(pages):
        for offset in (0, 99, 100, 4095):
            buffer = ctypes.create_string_buffer(1)
            done = copy(310, arena + page * 4096 + offset, buffer)
            content.append(buffer.raw[0] if done == 1 else done)
    call(11, arena, pages * 4096)
    data = list(os.pread(fd, 1 << 20, 0))
    os.close(fd)
    return [results, areas, content, data]

for line in sys.stdin:
    print(json.dumps(run(json.loads(line))), flush=True)
"""


class Host:
    """A process of its own on the host, with an empty arena."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", HOST, str(ARENA), str(PAGES), str(FILE_SIZE)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, steps: list[Any]) -> list[Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(steps) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the host process died"
        result = json.loads(line)
        assert isinstance(result, list)
        return result

    def close(self) -> None:
        self.process.communicate()


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    process = Host()
    yield process
    process.close()


PAGE = st.integers(0, PAGES - 1)
COUNT = st.sampled_from([1, 1, 1, 2, 2, 3, 4, 5, 8])
PROT = st.sampled_from([0, 1, 3, 3, 3, 5, 7])
KIND = st.sampled_from(["private", "private", "private", "shared", "noreserve", "norepl", "file", "sfile", "sfile"])
ADVICE = st.sampled_from([0, 1, 2, 4, 4, 4, 9, 10, 11, 16, 18, 19])
POKE = st.tuples(st.just("poke"), PAGE, st.sampled_from([0, 99, 100, 4095]), st.integers(1, 255))
PEEK = st.tuples(st.just("peek"), PAGE, st.sampled_from([0, 99, 100, 4095]))
STEP = st.one_of(
    st.tuples(st.just("mmap"), PAGE, COUNT, PROT, KIND),
    st.tuples(st.just("munmap"), PAGE, COUNT),
    st.tuples(st.just("mprotect"), PAGE, COUNT, PROT),
    POKE,
    POKE,
    PEEK,
    st.tuples(st.just("mremap"), PAGE, COUNT, COUNT, st.sampled_from([0, 3, 3, 7]), PAGE),
    st.tuples(st.just("madvise"), PAGE, COUNT, ADVICE),
    st.tuples(st.just("msync"), PAGE, COUNT, st.sampled_from([1, 2, 4])),
    st.tuples(st.just("truncate"), st.sampled_from([0, 100, 4096, 3 * 4096 + 100, FILE_SIZE, FILE_SIZE])),
    st.tuples(st.just("pwrite"), st.integers(0, FILE_SIZE), st.integers(1, 255)),
)
START = [
    ("mmap", 0, 6, 3, "sfile"),
    ("mmap", 6, 5, 3, "private"),
    ("mmap", 11, 4, 3, "shared"),
    ("mmap", 16, 6, 3, "file"),
]
KINDS = {
    "private": mman.MAP_PRIVATE | mman.MAP_ANONYMOUS | mman.MAP_FIXED,
    "shared": mman.MAP_SHARED | mman.MAP_ANONYMOUS | mman.MAP_FIXED,
    "noreserve": mman.MAP_PRIVATE | mman.MAP_ANONYMOUS | mman.MAP_FIXED | mman.MAP_NORESERVE,
    "norepl": mman.MAP_PRIVATE | mman.MAP_ANONYMOUS | mman.MAP_FIXED_NOREPLACE,
    "file": mman.MAP_PRIVATE | mman.MAP_FIXED,
    "sfile": mman.MAP_SHARED | mman.MAP_FIXED,
}


class Ours:
    """The same steps on an address space of ours; ``steps`` is what the host must do."""

    def __init__(self, world: Any, file: Any) -> None:
        self.world = world
        self.mm = world.mm
        self.file = file
        self.steps: list[Any] = []
        self.results: list[int] = []

    def take(self, step: Any) -> None:
        kind, *args = step
        if kind in ("truncate", "pwrite"):
            self._note([kind, *args], lambda: self._change_file(kind, *args))
            return
        page, count = args[0], args[1]
        at = ARENA + page * 4096
        length = min(count, PAGES - page) * 4096
        if kind == "poke" and self._beyond_end(at + count):
            return
        if kind == "poke":
            if args[2] & 1:  # read first, so that the write finds a page it must copy
                self._note(["peek", at + count], lambda: len(self.world.memory.read(at + count, 1)))
            self._note(["poke", at + count, args[2]], lambda: self._poke(at + count, args[2]))
        elif kind == "peek":
            self._note(["peek", at + count], lambda: len(self.world.memory.read(at + count, 1)))
        elif kind == "mmap":
            flags = KINDS[args[3]]
            if args[3] in ("file", "sfile"):
                offset = page % 4 * 4096
                length = min(length, 7 * 4096)
                run = lambda: self.mm.mmap(at, length, args[2], flags, self.file, offset)  # noqa: E731
                self._note([9, at, length, args[2], flags, "file", offset], run)
            else:
                run = lambda: self.mm.mmap(at, length, args[2], flags)  # noqa: E731
                self._note([9, at, length, args[2], flags, -1, 0], run)
        elif kind == "munmap":
            self._note([11, at, length], lambda: self.mm.munmap(at, length))
        elif kind == "mprotect":
            self._note([10, at, length, args[2]], lambda: self.mm.mprotect(at, length, args[2]))
        elif kind == "madvise":
            if args[2] == mman.MADV_REMOVE and not MODERN:
                return  # it needed the right to write once, now the right to get it
            self._note([28, at, length, args[2]], lambda: self.mm.madvise(at, length, args[2]))
        elif kind == "msync":
            self._note([26, at, length, args[2]], lambda: self.mm.msync(at, length, args[2]))
        else:
            self._remap(at, length, args)

    def _beyond_end(self, at: int) -> bool:
        """Whether ``at`` shows a byte after the end of the file: file systems differ in what becomes of
        stores.
        """
        vma = self.mm.vmas.find(at)
        return vma is not None and vma.file is self.file and at - vma.start + vma.offset >= self.file.inode.size

    def _remap(self, at: int, length: int, args: list[int]) -> None:
        _, _, new_count, flags, target = args
        new = length if flags & mman.MREMAP_DONTUNMAP else min(new_count, PAGES - target) * 4096
        if not flags:
            new = min(new, ARENA + PAGES * 4096 - at)
        vma = self.mm.vmas.find(at)
        if vma is None or at + length > vma.end:
            return  # newer kernels move and shrink several areas at once
        to = ARENA + target * 4096
        if to + new > ARENA + PAGES * 4096:
            return
        self._note([25, at, length, new, flags, to], lambda: self.mm.mremap(at, length, new, flags, to))

    def _note(self, step: list[Any], run: Callable[[], Any]) -> None:
        self.steps.append(step)
        try:
            self.results.append(run() or 0)
        except SyscallError as error:
            self.results.append(-error.errno)

    def _poke(self, at: int, value: int) -> int:
        self.world.memory.write(at, bytes([value]))
        return 1

    def _change_file(self, kind: str, where: int, value: int = 0) -> int:
        if kind == "truncate":
            self.file.inode.truncate(where)
            return 0
        if where > self.file.inode.size:
            self.file.inode.truncate(where)
        return int(self.file.inode.write_at(where, bytes([value]) * 3))

    def areas(self) -> list[list[Any]]:
        def offset(vma: Vma) -> int:
            return vma.offset if vma.file is not None else 0

        return [[vma.start, vma.end, vma.permissions, offset(vma)] for vma in self.mm.vmas]

    def content(self) -> list[int]:
        found = []
        for page in range(PAGES):
            for offset in (0, 99, 100, 4095):
                try:
                    found.append(self.world.memory.read_u8(ARENA + page * 4096 + offset))
                except SyscallError as error:
                    found.append(-error.errno)
        return found

    def data(self) -> list[int]:
        self.mm.munmap(ARENA, PAGES * 4096)
        return list(self.file.inode.data)


def flat(areas: list[list[Any]]) -> list[tuple[int, str]]:
    """Page by page, without regard to where areas end."""
    return [(at, area[2]) for area in areas for at in range(area[0], area[1], 4096)]


def compare(host: Host, ours: Ours) -> None:
    results, areas, content, data = host.run(ours.steps)
    # What a refused range did before it was refused shows in the areas; the numbers must agree too.
    assert list(zip(ours.steps, ours.results, strict=True)) == list(zip(ours.steps, results, strict=True))
    assert flat(ours.areas()) == flat(areas)
    if MODERN:
        assert ours.areas() == areas
    assert ours.content() == content
    assert ours.data() == data
    assert ours.world.leaked() == 0
    assert ours.mm.total_vm == ours.mm.resident == 0


QUICK = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)


def pattern() -> bytes:
    return bytes((i * 7 + 1) & 255 for i in range(FILE_SIZE))


@settings(QUICK, max_examples=120)
@given(steps=st.lists(STEP, min_size=20, max_size=45))
def test_any_sequence(host: Host, make_world: Any, make_file: Any, steps: list[Any]) -> None:
    ours = Ours(make_world(), make_file(pattern()))
    for step in [*START, *steps]:
        ours.take(step)
    compare(host, ours)


DIRECTED: dict[str, list[Any]] = {
    "two owners do not merge": [
        ("mmap", 4, 4, 3, "private"),
        ("madvise", 6, 2, 1),
        ("poke", 4, 0, 1),
        ("poke", 6, 0, 1),
        ("madvise", 6, 2, 0),
    ],
    "an owner and none merge": [
        ("mmap", 4, 4, 3, "private"),
        ("madvise", 6, 2, 1),
        ("poke", 6, 0, 1),
        ("madvise", 6, 2, 0),
    ],
    "a neighbour's owner is taken over": [
        ("mmap", 4, 4, 3, "private"),
        ("mprotect", 6, 2, 7),
        ("poke", 4, 0, 1),
        ("poke", 6, 0, 1),
        ("mprotect", 6, 2, 3),
    ],
    "between two owners the lower wins": [
        ("mmap", 4, 6, 3, "private"),
        ("madvise", 8, 2, 1),
        ("poke", 4, 0, 1),
        ("poke", 8, 0, 1),
        ("mprotect", 6, 2, 1),
        ("madvise", 8, 2, 0),
        ("munmap", 6, 2),
        ("mmap", 6, 2, 3, "private"),
    ],
    "what was moved keeps its offset": [
        ("mmap", 4, 4, 3, "private"),
        ("poke", 5, 0, 1),
        ("mremap", 4, 4, 4, 3, 12),
        ("mmap", 16, 2, 3, "private"),
        ("mremap", 12, 4, 4, 3, 4),
        ("mmap", 8, 2, 3, "private"),
    ],
    "what stays behind is as new": [
        ("mmap", 4, 4, 3, "private"),
        ("poke", 5, 0, 1),
        ("mremap", 4, 4, 4, 7, 12),
        ("mmap", 8, 2, 3, "private"),
        ("poke", 4, 0, 3),
        ("mremap", 4, 4, 4, 3, 18),
    ],
    "a read file page is copied before it is written": [
        ("mmap", 4, 4, 3, "file"),
        ("mmap", 8, 4, 3, "sfile"),
        ("peek", 4, 0),
        ("poke", 4, 0, 9),
        ("peek", 9, 0),
        ("poke", 9, 0, 8),
        ("peek", 5, 0),
    ],
    "a zero page is copied before it is written": [
        ("mmap", 4, 4, 3, "private"),
        ("peek", 4, 0),
        ("peek", 5, 0),
        ("poke", 4, 0, 9),
    ],
    "growing in place joins what follows": [
        ("mmap", 4, 2, 3, "private"),
        ("mmap", 8, 2, 3, "private"),
        ("mremap", 4, 2, 4, 0, 0),
        ("mmap", 14, 2, 3, "sfile"),
        ("mremap", 14, 2, 4, 0, 0),
    ],
}


@pytest.mark.parametrize("name", DIRECTED)
def test_directed(host: Host, make_world: Any, make_file: Any, name: str) -> None:
    ours = Ours(make_world(), make_file(pattern()))
    for step in DIRECTED[name]:
        ours.take(step)
    assert all(result >= 0 for result in ours.results)
    compare(host, ours)


NEAR = st.integers(4, 15)
FEW = st.sampled_from([1, 1, 1, 2, 3])


@settings(QUICK, max_examples=120)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("poke"), NEAR, st.just(0), st.integers(1, 255)),
            st.tuples(st.just("poke"), NEAR, st.just(0), st.integers(1, 255)),
            st.tuples(st.just("mprotect"), NEAR, FEW, st.sampled_from([0, 1, 1, 3, 3])),
            st.tuples(st.just("munmap"), NEAR, FEW),
            st.tuples(st.just("mmap"), NEAR, FEW, st.sampled_from([1, 3]), st.just("private")),
            st.tuples(st.just("mremap"), NEAR, FEW, FEW, st.sampled_from([0, 3, 3, 7]), NEAR),
            st.tuples(st.just("madvise"), NEAR, FEW, st.sampled_from([0, 1, 4])),
        ),
        min_size=15,
        max_size=40,
    )
)  # fmt: skip
def test_merging(host: Host, make_world: Any, make_file: Any, steps: list[Any]) -> None:
    """Few pages, private anonymous memory only: most steps meet others, and merge or must not."""
    ours = Ours(make_world(), make_file(pattern()))
    ours.take(("mmap", 4, 11, 3, "private"))
    for step in steps:
        ours.take(step)
    compare(host, ours)


WILD = [0, 1, 100, 4095, 4096, 4097, ARENA, ARENA + 1, (1 << 47) - 4096, 1 << 47, (1 << 63), (1 << 64) - 4096]
LENGTHS = [0, 1, 4095, 4096, 1 << 40, (1 << 47) - 4096, 1 << 47, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1]


@pytest.mark.parametrize("number", [10, 11, 25, 26, 28])
def test_hostile_numbers(host: Host, world: Any, make_file: Any, number: int) -> None:
    """Zero, unaligned and overflowing addresses and lengths; nothing of the host process is there to be
    hit.
    """
    ours = Ours(world, make_file(pattern()))
    mm = world.mm
    calls: dict[int, Callable[..., Any]] = {
        10: lambda at, length: mm.mprotect(at, length, 0x10),
        11: mm.munmap,
        25: lambda at, length: mm.mremap(at, length, length, 0x8),
        26: lambda at, length: mm.msync(at, length, 5),
        28: lambda at, length: mm.madvise(at, length, 77),
    }
    extra = {10: (0x10,), 25: (0,), 26: (5,), 28: (77,)}
    for at in WILD:
        for length in LENGTHS:
            if number == 11 and at < 1 << 47 and not at & 4095 and 0 < length <= (1 << 47) - 4096 - at:
                continue  # it would unmap the host process
            args = (length, 0x8) if number == 25 else extra.get(number, ())
            ours._note([number, at, length, *args], lambda at=at, length=length: calls[number](at, length))
    compare(host, ours)


def test_hostile_mmaps(host: Host, world: Any, make_file: Any) -> None:
    ours = Ours(world, make_file(pattern()))
    fixed = mman.MAP_FIXED
    for flags in (0, 1, 2, 3, 4, 15, 1 | mman.MAP_GROWSDOWN):
        for at in (ARENA, ARENA + 1, (1 << 47) - 4096, 1 << 47, 1 << 63):
            for length in (0, 4096, 1 << 47, 1 << 63, (1 << 64) - 1):
                run = lambda at=at, length=length, flags=flags: mm_of(ours)(  # noqa: E731
                    at, length, 3, flags | fixed | mman.MAP_ANONYMOUS
                )
                ours._note([9, at, length, 3, flags | fixed | mman.MAP_ANONYMOUS, -1, 0], run)
    compare(host, ours)


def mm_of(ours: Ours) -> Callable[..., int]:
    mmap: Callable[..., int] = ours.mm.mmap
    return mmap
