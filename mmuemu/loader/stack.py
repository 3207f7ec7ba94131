"""The first stack of a program: strings, auxiliary vector, environment, arguments, argc.

Layout: Linux fs/exec.c (``copy_strings``: the file name on top, the environment below it, the arguments below
that) and fs/binfmt_elf.c (``create_elf_tables``); the psABI's section 3.4.1 asks for a 16-byte aligned RSP.
Limits: ``bprm_stack_limits`` and MAX_ARG_STRLEN in include/uapi/linux/binfmts.h.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from mmuemu.errors import MmuemuError, UsageError
from mmuemu.x86.paging import PAGE_SIZE

if TYPE_CHECKING:
    from random import Random

    from mmuemu.loader.plan import LoadPlan

MAX_ARG_STRLEN: Final = 32 * PAGE_SIZE
"""The longest single argument or environment string, its NUL counted."""
_ARG_MAX: Final = 131072
_STACK_LIMIT_DEFAULT: Final = 8 << 20
_MASK: Final = (1 << 64) - 1


class At(IntEnum):
    """Auxiliary vector types (include/uapi/linux/auxvec.h, arch/x86/include/uapi/asm/auxvec.h)."""

    NULL = 0
    PHDR = 3
    PHENT = 4
    PHNUM = 5
    PAGESZ = 6
    BASE = 7
    FLAGS = 8
    ENTRY = 9
    UID = 11
    EUID = 12
    GID = 13
    EGID = 14
    PLATFORM = 15
    HWCAP = 16
    CLKTCK = 17
    SECURE = 23
    RANDOM = 25
    HWCAP2 = 26
    RSEQ_FEATURE_SIZE = 27
    RSEQ_ALIGN = 28
    EXECFN = 31
    SYSINFO_EHDR = 33
    MINSIGSTKSZ = 51


class ArgumentsTooLong(MmuemuError):
    """The arguments and the environment exceed what the stack may hold (execve's E2BIG)."""


class Credentials(NamedTuple):
    """The identity the auxiliary vector tells; unless said otherwise the first ordinary user's."""

    uid: int = 1000
    euid: int = 1000
    gid: int = 1000
    egid: int = 1000


class InitialStack(NamedTuple):
    """``data`` is everything from ``sp`` to the end of the stack's mapping; the rest are addresses in it."""

    sp: int
    data: bytes
    arg_start: int
    arg_end: int
    env_start: int
    env_end: int
    execfn: int
    random: int
    auxv: bytes
    """The auxiliary vector with its AT_NULL, as /proc/self/auxv shows it."""


def auxiliary_vector(
    plan: LoadPlan,
    interpreter_bias: int | None = None,
    *,
    credentials: Credentials | None = None,
    secure: bool = False,
    hwcap: int = 0,
    hwcap2: int = 0,
    clock_ticks: int = 100,
    sysinfo_ehdr: int | None = None,
    minsigstksz: int | None = None,
) -> list[tuple[int, int]]:
    """Linux's auxiliary vector in Linux's order, for :func:`build_stack` to complete.

    ``hwcap`` is CPUID.1:EDX; ``sysinfo_ehdr`` the vDSO's address and ``minsigstksz`` the least size of a
    signal stack, each left out when None. RSEQ entries are left out: glibc then takes its built-in sizes.
    """
    who = credentials or Credentials()
    pairs: list[tuple[int, int]] = []
    if sysinfo_ehdr is not None:
        pairs.append((At.SYSINFO_EHDR, sysinfo_ehdr))
    if minsigstksz is not None:
        pairs.append((At.MINSIGSTKSZ, minsigstksz))
    return [
        *pairs,
        (At.HWCAP, hwcap),
        (At.PAGESZ, PAGE_SIZE),
        (At.CLKTCK, clock_ticks),
        (At.PHDR, plan.phdr),
        (At.PHENT, plan.image.phentsize),
        (At.PHNUM, plan.image.phnum),
        (At.BASE, interpreter_bias or 0),
        (At.FLAGS, 0),
        (At.ENTRY, plan.entry),
        (At.UID, who.uid),
        (At.EUID, who.euid),
        (At.GID, who.gid),
        (At.EGID, who.egid),
        (At.SECURE, int(secure)),
        (At.RANDOM, 0),
        (At.HWCAP2, hwcap2),
        (At.EXECFN, 0),
        (At.PLATFORM, 0),
    ]


def _check(argv: Sequence[bytes], envp: Sequence[bytes], execfn: bytes, stack_limit: int) -> None:
    total = len(execfn) + 1
    for what, strings in (("argument", argv), ("environment string", envp)):
        for index, string in enumerate(strings):
            if b"\0" in string:
                raise UsageError(f"{what} {index} holds a NUL byte")
            if len(string) >= MAX_ARG_STRLEN:
                raise ArgumentsTooLong(
                    f"{what} {index} has {len(string)} bytes; one may have at most {MAX_ARG_STRLEN - 1}"
                )
            total += len(string) + 1
    limit = max(min(_STACK_LIMIT_DEFAULT // 4 * 3, stack_limit // 4), _ARG_MAX)
    pointers = (max(len(argv), 1) + len(envp)) * 8
    if total > limit - pointers:
        raise ArgumentsTooLong(f"arguments and environment take {total + pointers} bytes; the stack allows {limit}")


class _Downward:
    """Bytes laid down from the top of the stack."""

    def __init__(self, top: int) -> None:
        self.address = top
        self.pieces: list[bytes] = []

    def push(self, piece: bytes) -> int:
        self.address -= len(piece)
        self.pieces.append(piece)
        return self.address

    def lower_to(self, address: int) -> None:
        self.push(bytes(self.address - address))

    def joined(self) -> bytes:
        return b"".join(reversed(self.pieces))


def _pointers(start: int, strings: Sequence[bytes]) -> list[int]:
    found = []
    for string in strings:
        found.append(start)
        start += len(string) + 1
    return [*found, 0]


def build_stack(
    stack_top: int,
    argv: Sequence[bytes],
    envp: Sequence[bytes],
    auxv: Sequence[tuple[int, int]],
    random_bytes: bytes,
    execfn: bytes,
    platform: bytes = b"x86_64",
    rng: Random | None = None,
    stack_limit: int = _STACK_LIMIT_DEFAULT,
) -> InitialStack:
    """Lay out the stack below ``stack_top`` (page-aligned, exclusive) as ``execve`` does.

    ``auxv`` comes without AT_NULL; AT_RANDOM, AT_EXECFN and AT_PLATFORM entries get their addresses here.
    ``random_bytes`` are the 16 bytes behind AT_RANDOM. ``rng`` shuffles the pointers by less than 8 KiB, None
    leaves them where ADDR_NO_RANDOMIZE does. An empty ``argv`` becomes one empty argument (Linux 5.18).
    Raises :class:`ArgumentsTooLong` past Linux's limits, :class:`UsageError` for a NUL inside a string.
    """
    if len(random_bytes) != 16:
        raise ValueError(f"AT_RANDOM takes 16 bytes, not {len(random_bytes)}")
    argv = argv or [b""]
    _check(argv, envp, execfn, stack_limit)
    stack = _Downward(stack_top)
    stack.push(bytes(8))
    execfn_at = stack.push(execfn + b"\0")
    env_end = stack.address
    env_start = stack.push(b"".join(string + b"\0" for string in envp))
    arg_start = stack.push(b"".join(string + b"\0" for string in argv))
    shuffle = rng.randrange(8192) if rng is not None else 0
    stack.lower_to((arg_start - shuffle) & ~15)
    platform_at = stack.push(platform + b"\0")
    random_at = stack.push(random_bytes)
    addresses = {int(At.RANDOM): random_at, int(At.EXECFN): execfn_at, int(At.PLATFORM): platform_at}
    words = [word for kind, value in auxv for word in (int(kind), addresses.get(kind, value) & _MASK)]
    vector = struct.pack(f"<{len(words) + 2}Q", *words, 0, 0)
    pointers = [len(argv), *_pointers(arg_start, argv), *_pointers(env_start, envp)]
    table = struct.pack(f"<{len(pointers)}Q", *pointers) + vector
    stack.lower_to((stack.address - len(table)) & ~15)
    data = table + stack.joined()[len(table) :]
    return InitialStack(
        sp=stack.address,
        data=data,
        arg_start=arg_start,
        arg_end=env_start,
        env_start=env_start,
        env_end=env_end,
        execfn=execfn_at,
        random=random_at,
        auxv=vector,
    )
