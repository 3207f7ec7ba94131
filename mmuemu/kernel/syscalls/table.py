"""The system-call table: number -> function, argument kinds and name.

A call is one function that takes the calling task and its arguments and returns a non-negative result,
or raises :class:`~mmuemu.kernel.abi.errno.SyscallError`. It registers itself::

    @syscall(0, "read", "fd", "out_buffer", "size")
    def sys_read(task: Task, fd: int, buffer: int, count: int) -> int: ...

Argument kinds convert (the ABI passes 64 raw bits) and tell a tracer how to print. Numbers: Linux
arch/x86/entry/syscalls/syscall_64.tbl.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from mmuemu.kernel.registers import DI, DX, R8, R9, R10, SI

SIGNED_32: Final = frozenset({"int", "fd", "dirfd", "pid", "whence", "signal", "clockid"})
"""Kinds that are C ``int``: the low 32 bits, sign-extended."""
UNSIGNED_32: Final = frozenset(
    {"uint", "mode", "open_flags", "at_flags", "prot", "map_flags", "uid", "octal", "flags", "request", "advice"}
)
"""Kinds that are C ``unsigned int``: the low 32 bits."""
SIGNED_64: Final = frozenset({"long", "off"})
"""Kinds that are C ``long``: all 64 bits, signed."""
UNSIGNED_64: Final = frozenset(
    {"ptr", "size", "ulong", "path", "string", "in_buffer", "out_buffer", "struct", "iovec", "argv", "addr"}
)
"""Kinds that are pointers, ``size_t`` or ``unsigned long``: all 64 bits."""


_PLACES: Final = (DI, SI, DX, R10, R8, R9)
_LOW: Final = (1 << 32) - 1
_ALL: Final = (1 << 64) - 1
_KINDS: Final = (
    (SIGNED_32, _LOW, 1 << 31),
    (UNSIGNED_32, _LOW, 0),
    (SIGNED_64, _ALL, 1 << 63),
    (UNSIGNED_64, _ALL, 0),
)
Form = tuple[int, int, int]
"""Which of the pt_regs holds an argument, the bits of it that count, and its sign bit (0: it has none)."""


def signed32(value: int) -> int:
    """The low 32 bits of ``value`` as a C ``int``."""
    value &= 0xFFFF_FFFF
    return value - 0x1_0000_0000 if value & 0x8000_0000 else value


def signed64(value: int) -> int:
    """A raw 64-bit register as a C ``long``."""
    return value - (1 << 64) if value >> 63 else value


class Syscall(NamedTuple):
    """One system call: its number, name, argument kinds and the function that serves it."""

    number: int
    name: str
    kinds: tuple[str, ...]
    function: Callable[..., int]
    forms: tuple[Form, ...]

    def call(self, task: Any, words: Any, base: int) -> int:
        """Run the function with the arguments of the pt_regs that begin at ``words[base]``."""
        return self.function(task, *[(words[base + at] & bits ^ sign) - sign for at, bits, sign in self.forms])


TABLE: Final[dict[int, Syscall]] = {}
"""The calls by number; filled by importing the modules of this package, all are in it after ``load_all``."""


def _bits(kind: str) -> tuple[int, int]:
    """The bits that count of an argument, and its sign bit."""
    for kinds, bits, sign in _KINDS:
        if kind in kinds:
            return bits, sign
    raise ValueError(f"unknown argument kind {kind!r}")


def forms(*kinds: str) -> tuple[Form, ...]:
    """The forms of a call's arguments, from the first on (System V ABI, A.2.1)."""
    return tuple((at, *_bits(kind)) for at, kind in zip(_PLACES, kinds, strict=False))


def syscall(number: int, name: str, *kinds: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Register the decorated function as system call ``number``; one kind per argument after the task."""

    def register(function: Callable[..., int]) -> Callable[..., int]:
        if number in TABLE:
            raise ValueError(f"system call {number} is registered twice ({TABLE[number].name}, {name})")
        TABLE[number] = Syscall(number, name, kinds, function, forms(*kinds))
        return function

    return register
