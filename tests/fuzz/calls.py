"""Sequences of system calls with interesting arguments; afterwards the kernel is whole, or the input is a finding.

An input is: flags (bit 0: as root; the rest: how many words of memory are changed), those changes (a place at GOOD,
a kind of number), then calls: two bytes for the number, one that says which arguments are not the plausible ones,
and for each of these a kind of number (:func:`_value`).
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Final

from mmuemu.kernel.syscalls import load_all
from mmuemu.kernel.syscalls.table import TABLE
from tests.fuzz.draw import Draw
from tests.fuzz.machines import Kept, waiting
from tests.hostile.cases import BITS, FDS, IMAGE, INTS, WORDS, plausible
from tests.hostile.image import GOOD, MARK, POINTERS
from tests.kernel import isolation

LONGEST: Final = 512
TABLE_AT: Final = 0x3000_0000
MOST_CALLS: Final = 32
_INSTRUCTIONS: Final = 400_000
_RESULT: Final = MARK + 0x1000
_ODD: Final = sorted({*POINTERS.values(), *INTS.values(), *WORDS.values(), *FDS.values(), *BITS.values()})
load_all()
_NUMBERS: Final = sorted(TABLE)


def _value(draw: Draw) -> int:
    """A number: an odd one, a small one, a power of two, the result of an earlier call, an address, or any."""
    kind = draw.number(1)
    if kind < 96:
        return _ODD[kind % len(_ODD)]
    if kind < 128:
        return kind - 96
    if kind < 160:
        return 1 << 2 * (kind - 128) + (draw.number(1) & 1)
    if kind < 192:
        return _RESULT + kind - 160
    if kind < 216:
        return GOOD + (kind - 192) * 64
    if kind < 236:
        return GOOD + draw.number(2)
    return draw.number(2 if kind < 246 else 8)


def decode(data: bytes) -> tuple[bytes, list[tuple[int, bytes]]]:
    """The table of guest/calls.c, and what is written to other places: (address, bytes)."""
    draw = Draw(data)
    flags = draw.number(1)
    changes = []
    for _ in range(flags >> 1 & 15):
        at = GOOD + draw.number(2) % (0x10000 - 8)
        changes.append((at, _value(draw).to_bytes(8, "little")))
    calls = b""
    count = 0
    while draw.left and count < MOST_CALLS:
        count += 1
        chosen = draw.number(2)
        call = TABLE[_NUMBERS[chosen % len(_NUMBERS)]]
        odd = draw.number(1)
        arguments = [*plausible(call), 0, 0, 0, 0, 0, 0][:6]
        for position in range(6):
            if odd >> position & 1:
                arguments[position] = _value(draw)
        number = call.number | (draw.number(4) << 16 if odd == 0xFF else 0)
        calls += struct.pack("<7Q", number, *arguments)
    return struct.pack("<II", flags & 1, count) + calls, changes


@cache
def _kept() -> Kept:
    return Kept(waiting("calls", bytes(IMAGE.data), memory="64M", user=(0, 0), max_processes=40))


def forget() -> None:
    """Make another machine the next time."""
    if _kept.cache_info().currsize:
        _kept().machine.close()
        _kept.cache_clear()


def one(data: bytes) -> None:
    """Make the calls, end every process, and look at the kernel."""
    table, changes = decode(data)
    with _kept() as machine:
        kernel = machine.kernel
        child = max(kernel.tasks.values(), key=lambda task: task.pid)
        child.memory.write(TABLE_AT, table)
        for address, content in changes:
            child.memory.write(address, content)
        outcome = machine.run(max_instructions=_INSTRUCTIONS, timeout=3)
        isolation.check(kernel)
        if outcome.limit is None:
            assert not kernel.tasks, "the machine ended with tasks in it"


def encode(name: str, odd: int = 0, rest: bytes = b"") -> bytes:
    """One call for :func:`decode`."""
    number = next(number for number in _NUMBERS if TABLE[number].name == name)
    return struct.pack("<HB", _NUMBERS.index(number), odd) + rest


def seeds() -> list[bytes]:
    """Every call once, eight at a time, by nobody and by root; and some that belong together."""
    found = []
    for first in range(0, len(_NUMBERS), 8):
        names = [TABLE[number].name for number in _NUMBERS[first : first + 8]]
        body = b"".join(encode(name) for name in names if name not in ("exit", "exit_group", "pause"))
        found += [b"\0" + body, b"\1" + body]
    chains = (
        ("mmap", "mprotect", "madvise", "mremap", "munmap"), ("fork", "vfork", "wait4", "kill"),
        ("shmget", "shmat", "shmdt", "shmctl"), ("openat", "fstat", "read", "pwrite64", "close"),
        ("clone", "futex", "tgkill", "wait4"), ("epoll_ctl", "epoll_wait", "eventfd2", "close_range"),
        ("rt_sigaction", "rt_sigprocmask", "kill", "rt_sigpending", "rt_sigtimedwait"),
        ("memfd_create", "ftruncate", "mmap", "execveat"), ("timer_create", "timer_settime", "rt_sigsuspend"),
    )  # fmt: skip
    return [*found, *(b"\0" + b"".join(map(encode, chain)) for chain in chains)]
