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


def signed32(value: int) -> int:
    """The low 32 bits of ``value`` as a C ``int``."""
    value &= 0xFFFF_FFFF
    return value - 0x1_0000_0000 if value & 0x8000_0000 else value


def unsigned32(value: int) -> int:
    """The low 32 bits of ``value``."""
    return value & 0xFFFF_FFFF


def signed64(value: int) -> int:
    """A raw 64-bit register as a C ``long``."""
    return value - (1 << 64) if value >> 63 else value


class Syscall(NamedTuple):
    """One system call: its number, name, argument kinds and the function that serves it."""

    number: int
    name: str
    kinds: tuple[str, ...]
    function: Callable[..., int]
    converters: tuple[Callable[[int], int] | None, ...]

    def call(self, task: Any, raw: tuple[int, ...]) -> int:
        """Convert the raw 64-bit arguments and run the function."""
        return self.function(task, *[c(v) if c else v for c, v in zip(self.converters, raw, strict=False)])


TABLE: Final[dict[int, Syscall]] = {}
"""Every implemented call by number; filled by importing the modules of this package."""


def _converter(kind: str) -> Callable[[int], int] | None:
    if kind in SIGNED_32:
        return signed32
    if kind in UNSIGNED_32:
        return unsigned32
    if kind in SIGNED_64:
        return signed64
    if kind in UNSIGNED_64:
        return None
    raise ValueError(f"unknown argument kind {kind!r}")


def syscall(number: int, name: str, *kinds: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Register the decorated function as system call ``number``; one kind per argument after the task."""

    def register(function: Callable[..., int]) -> Callable[..., int]:
        if number in TABLE:
            raise ValueError(f"system call {number} is registered twice ({TABLE[number].name}, {name})")
        TABLE[number] = Syscall(number, name, kinds, function, tuple(_converter(k) for k in kinds))
        return function

    return register
