"""What arguments are made of: numbers, flags, strings and the guest's memory, each in strace's spelling.

A *type* is a function of the call under way and the argument's raw 64 bits. It gives text, or None when the call has no
such argument (``fcntl(3, F_GETFD)``). ``PURE`` types look at nothing but their own bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from mmuemu.errors import OutOfFrames
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.signals import Signal
from mmuemu.kernel.syscalls.table import signed32
from mmuemu.view.strace.constants import CONSTANTS
from mmuemu.view.strace.words import MESSAGES
from mmuemu.x86.paging import ADDRESS_MASK, US, P

if TYPE_CHECKING:
    from mmuemu.kernel.address_space import AddressSpace
    from mmuemu.kernel.task import Task
    from mmuemu.view.strace.calls import Spec

STRING_LIMIT: Final = 32
"""Bytes of a string or buffer that are shown (strace's -s default)."""
PATH_LIMIT: Final = 4096
RESTARTED: Final = -512
"""-ERESTARTSYS: the call is made again after a signal handler."""
_ESCAPES: Final = {9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}
_QUOTED: Final = [_ESCAPES.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\{byte:o}") for byte in range(256)]
_LONG: Final = [f"\\{byte:03o}" if text[1:].isdigit() else text for byte, text in enumerate(_QUOTED)]
"""Before a digit: bytes that take all three octal digits, lest the next byte be read as one."""
_KINDS: Final = bytes(
    ord("0") if 48 <= at < 56 else ord("s" if len(_QUOTED[at]) < 4 and _QUOTED[at][1:].isdigit() else ".")
    for at in range(256)
)
"""``s`` for those whose digits are less than three, ``0`` for octal digits."""
_CLEAN: Final = bytes(byte for byte in range(32, 127) if byte not in b'"\\')
"""Bytes that stand for themselves."""
_MASK: Final = (1 << 64) - 1
_READABLE: Final = P | US
_FIRST_PIECE: Final = 64
"""Bytes of a string that are read first."""
REMEMBERED: Final = 512
"""Texts of one kind that are remembered."""


class Tables(dict[int, int]):
    """Where the last tables of an address space lie, by region of 2 MiB: the guest's memory is read with one look.

    Only tables are remembered, whose going :class:`~mmuemu.memory.page_table.PageTable` tells of; entries never.
    """

    __slots__ = ("bytes", "gone", "mm", "ram", "words")

    def __init__(self, mm: AddressSpace) -> None:
        self.turn_to(mm)

    def turn_to(self, mm: AddressSpace) -> None:
        """From now on those of ``mm``, as they are now."""
        self.clear()
        self.mm = mm
        self.ram = ram = mm.frames.ram
        self.words, self.bytes, self.gone = ram.qwords, ram.bytes, ram.tables_gone

    def __missing__(self, region: int) -> int:
        """The index of the table's first entry; negative without one."""
        slot = self.mm.page_table.entry_address(region << 21) >> 3
        if slot >= 0:
            self[region] = slot
        return slot


class Call:
    """A system call under way: who makes it, with what, and, once it has returned, its result."""

    __slots__ = ("args", "entered", "kept", "limit", "number", "result", "spec", "tables", "task")

    def __init__(self, spec: Spec, task: Task, number: int, args: tuple[int, ...], limit: int, tables: Tables) -> None:
        self.spec = spec
        self.tables = tables
        self.task = task
        self.number = number
        self.args = args
        """The six raw registers."""
        self.limit = limit
        self.result = 0
        self.kept: object = None
        """What memory held when it was called, for types that show both."""
        self.entered = ""
        """The part of its line that was known when it was called."""

    @property
    def failed(self) -> bool:
        """Whether it returned an error."""
        return -4096 < self.result < 0

    def read(self, address: int, count: int) -> bytes | None:
        """Guest memory, or None where there is none; neither the caches of a CPU model nor A bits notice.

        Pages come in as by the call itself.
        """
        mm = self.task.mm
        offset = address & 0xFFF
        if 0 < count <= 4096 - offset and address < mm.task_size:
            tables = self.tables
            if tables.mm is not mm or tables.gone != tables.ram.tables_gone:
                tables.turn_to(mm)
            table = tables[address >> 21]
            if table >= 0:
                entry = tables.words[table + (address >> 12 & 511)]
                if entry & _READABLE == _READABLE:
                    at = entry & ADDRESS_MASK | offset
                    return tables.bytes[at : at + count].tobytes()
        if count <= 0:
            return None if count else b""
        touch, mm.touch = mm.touch, None
        try:
            return self.task.memory.read(address, count)
        except (SyscallError, OutOfFrames):
            return None
        finally:
            mm.touch = touch

    def string(self, address: int, limit: int) -> bytes | None:
        """The C string at ``address``, at most ``limit`` bytes of it; None where none can be read."""
        if address & 0xFFF <= 4096 - _FIRST_PIECE and limit >= _FIRST_PIECE:
            piece = self.read(address, _FIRST_PIECE)
            if piece is None:
                return None
            end = piece.find(0)
            if end >= 0:
                return piece[:end]
        parts: list[bytes] = []
        size = _FIRST_PIECE
        while limit > 0:
            size = min(size, limit, 4096 - (address & 0xFFF))
            piece = self.read(address, size)
            if piece is None:
                return None
            end = piece.find(b"\0")
            if end >= 0:
                parts.append(piece[:end])
                break
            parts.append(piece)
            address, limit, size = address + size, limit - size, 1024
        return b"".join(parts)


Type = Callable[[Call, int], "str | None"]


class Written:
    """A type that is an expression of ``value``: lines have it in place."""

    __slots__ = ("_text", "expression")

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self._text: Callable[[int], str] = eval(f"lambda value: str({expression})")

    def __call__(self, _call: Call, value: int) -> str:
        return self._text(value)


class Known(dict[int, str]):
    """A type whose values are few: each text is made by ``text`` once, and remembered."""

    __slots__ = ("_text",)

    def __init__(self, text: Callable[[int], str]) -> None:
        self._text = text

    def __missing__(self, value: int) -> str:
        if len(self) >= REMEMBERED:
            self.clear()
        text = self[value] = self._text(value)
        return text

    def __call__(self, _call: Call, value: int) -> str:
        return self[value]


def pointer(value: int) -> str:
    """An address, ``NULL`` for 0."""
    return f"{value:#x}" if value else "NULL"


def escaped(data: bytes, hexadecimal: bool = False) -> str:
    """Bytes in C quotes."""
    if hexadecimal:
        return '"' + "".join([f"\\x{byte:02x}" for byte in data]) + '"'
    others = data.translate(None, _CLEAN)
    if not others:
        return f'"{data.decode()}"'
    if not others.strip(b"\n"):
        return '"' + data.decode().replace("\n", "\\n") + '"'
    if b"s0" not in data.translate(_KINDS):
        return f'"{"".join([_QUOTED[byte] for byte in data])}"'
    then = data[1:] + b" "
    return (
        f'"{"".join([(_LONG if 48 <= after < 56 else _QUOTED)[byte] for byte, after in zip(data, then, strict=True)])}"'
    )


def quoted(data: bytes, limit: int = STRING_LIMIT, more: bool = False) -> str:
    """Bytes in C quotes, cut at ``limit`` with ``...`` behind."""
    return escaped(data[:limit]) + ("..." if more or len(data) > limit else "")


@lru_cache(REMEMBERED)
def flag_text(value: int, group: str, unknown: str = "", zero: str = "0") -> str:
    """``"A|B|0x40"``: known bits by name, the rest in hexadecimal."""
    parts = []
    for bits, name in CONSTANTS[group]:
        if value == bits == 0:
            return name
        if bits and value & bits == bits:
            parts.append(name)
            value &= ~bits
    if not value:
        return "|".join(parts) or zero
    if not parts:
        return f"{value:#x} /* {unknown or group}??? */"
    return "|".join([*parts, f"{value:#x}"])


@lru_cache(REMEMBERED)
def name_text(value: int, group: str, unknown: str = "") -> str:
    """The constant that has this value, or the value with a comment."""
    for number, name in CONSTANTS[group]:
        if number == value:
            return name
    return f"{value:#x} /* {unknown or group}??? */"


def signal_text(number: int) -> str:
    """``SIGINT``, ``SIGRT_1``, or the number of what is no signal."""
    if 0 < number < 32:
        return Signal(number).name
    if 32 <= number <= 64:
        return f"SIGRT_{number - 32}" if number > 32 else "SIGRTMIN"
    return str(number)


@lru_cache(REMEMBERED)
def sigset_text(mask: int) -> str:
    """``[INT TERM]``, or ``~[KILL]`` for a set with most signals in it."""
    inverse = mask.bit_count() >= 64 * 2 // 3
    shown = ~mask & _MASK if inverse else mask
    names = [signal_text(bit + 1)[3:] for bit in range(64) if shown >> bit & 1]
    return f"{'~' if inverse else ''}[{' '.join(names)}]"


@lru_cache(REMEMBERED)
def open_flags_text(value: int) -> str:
    """``O_RDONLY|O_CLOEXEC``."""
    rest = value & ~3
    access = name_text(value & 3, "O_ACCMODE")
    return f"{access}|{_rest(rest, 'O_')}" if rest else access


def mode_text(value: int) -> str:
    """Permission bits: ``0644``, and ``000`` for none."""
    return f"0{value:o}" if value else "000"


@lru_cache(REMEMBERED)
def file_mode_text(value: int) -> str:
    """``S_IFREG|0644``."""
    kind = value & 0o170000
    for bits, name in CONSTANTS["S_IF"]:
        if bits == kind:
            extra = [
                word for bit, word in ((0o4000, "S_ISUID"), (0o2000, "S_ISGID"), (0o1000, "S_ISVTX")) if value & bit
            ]
            return "|".join([name, *extra, f"{value & 0o777:#05o}".replace("0o", "0", 1).zfill(4)])
    return mode_text(value)


def device_text(value: int) -> str:
    """``makedev(0x1, 0x3)``, from the number that stat(2) gives."""
    major = value >> 8 & 0xFFF | value >> 32 & ~0xFFF
    minor = value & 0xFF | value >> 12 & 0xFFFFFF00
    return f"makedev({major:#x}, {minor:#x})"


@lru_cache(REMEMBERED)
def error_text(result: int) -> str:
    """``-1 ENOENT (No such file or directory)``, for a negative result."""
    if result == RESTARTED:
        return "? ERESTARTSYS (To be restarted if SA_RESTART is set)"
    try:
        name = Errno(-result).name
    except ValueError:
        return f"-1 (errno {-result})"
    return f"-1 {name} ({MESSAGES[name]})" if name in MESSAGES else f"-1 {name}"


def flags(group: str, unknown: str = "", zero: str = "0") -> Type:
    """A type: 32 bits of flags."""
    return Known(lambda value: flag_text(value & 0xFFFF_FFFF, group, unknown, zero))


def one_of(group: str, unknown: str = "") -> Type:
    """A type: one of several constants."""
    return Known(lambda value: name_text(value & 0xFFFF_FFFF, group, unknown))


def _socket_type(value: int) -> str:
    kind = name_text(value & 0xF, "SOCK_")
    if "???" in kind:
        return flag_text(value & 0xFFFF_FFFF, "SOCK_FLAGS", "SOCK_")
    rest = value & 0xFFFF_FFF0
    return f"{kind}|{_rest(rest, 'SOCK_FLAGS')}" if rest else kind


def _map_flags(value: int) -> str:
    kind, rest = name_text(value & 0xF, "MAP_TYPE", "MAP_"), value & 0xFFFF_FFF0
    return f"{kind}|{_rest(rest, 'MAP_')}" if rest else kind


def _rest(value: int, group: str) -> str:
    """Flags behind something else: no comment on unknown ones."""
    return flag_text(value, group).partition(" /*")[0]


def _ipc_flags(group: str) -> Type:
    def show(value: int) -> str:
        rest = value & 0xFFFF_FFFF & ~0o777
        return f"{flag_text(rest, group)}|{mode_text(value & 0o777)}" if rest else mode_text(value & 0o777)

    return Known(show)


def _futex_op(value: int) -> str:
    value &= 0xFFFF_FFFF
    text = name_text(value & 0x7F, "FUTEX_")
    if "???" in text or value & ~0x1FF:
        return f"{value:#x} /* FUTEX_??? */"
    private = "_PRIVATE" if value & 0x80 else ""
    return f"{text}{private}{'|FUTEX_CLOCK_REALTIME' if value & 0x100 else ''}"


def _personality(value: int) -> str:
    value &= 0xFFFF_FFFF
    if value == 0xFFFF_FFFF:
        return "0xffffffff"
    kind = name_text(value & 0xFF, "PER_")
    return f"{kind}|{flag_text(value & ~0xFF, 'PER_F')}" if value & ~0xFF else kind


def _new_directory_flags(value: int) -> str:
    value &= 0xFFFF_FFFF
    sync = (
        "AT_STATX_SYNC_AS_STAT",
        "AT_STATX_FORCE_SYNC",
        "AT_STATX_DONT_SYNC",
        "AT_STATX_FORCE_SYNC|AT_STATX_DONT_SYNC",
    )
    rest = value & ~0x6000
    return sync[value >> 13 & 3] + (f"|{_rest(rest, 'AT_')}" if rest else "")


def _key_rights(value: int) -> str:
    return flag_text(value, "PKEY_")


def _ioprio(value: int) -> str:
    value &= 0xFFFF_FFFF
    names = ("IOPRIO_CLASS_NONE", "IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE")
    kind = value >> 13
    return f"IOPRIO_PRIO_VALUE({names[kind] if kind < 4 else hex(kind)}, {value & 0x1FFF})"


def _umount(value: int) -> str:
    return flag_text(value & 0xFFFF_FFFF, "UMOUNT_", "MNT_")


def _statx_mask(value: int) -> str:
    return statx_mask_text(value & 0xFFFF_FFFF)


def statx_mask_text(value: int) -> str:
    """``STATX_BASIC_STATS|STATX_MNT_ID``."""
    for bits, name in ((0xFFF, "STATX_ALL"), (0x7FF, "STATX_BASIC_STATS")):
        if value & bits == bits:
            rest = value & ~bits
            return name + (f"|{flag_text(rest, 'STATX_')}" if rest else "")
    return flag_text(value, "STATX_")


_SIGNED: Final = "(value & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000"
PURE: Final[dict[str, Type]] = {
    "d": Written(f"value if value < 0x8000_0000 else {_SIGNED}"),
    "u": Written("value & 0xFFFF_FFFF"),
    "ld": Written("value if value < 0x8000_0000_0000_0000 else value - 0x1_0000_0000_0000_0000"),
    "lu": Written("value"),
    "x": Written("hex(value & 0xFFFF_FFFF) if value & 0xFFFF_FFFF else 0"),
    "lx": Written("hex(value) if value else 0"),
    "p": Written("hex(value) if value else 'NULL'"),
    "dirfd": Written(f"'AT_FDCWD' if value & 0xFFFF_FFFF == 0xFFFF_FF9C else {_SIGNED}"),
    "mode": Known(lambda value: mode_text(value & 0xFFFF)),
    "filemode": Known(lambda value: file_mode_text(value & 0xFFFF_FFFF)),
    "sig": Known(lambda value: signal_text(signed32(value))),
    "uid": Written("-1 if value & 0xFFFF_FFFF == 0xFFFF_FFFF else value & 0xFFFF_FFFF"),
    "open": Known(lambda value: open_flags_text(value & 0xFFFF_FFFF)),
    "prot": flags("PROT_", zero="PROT_NONE"),
    "map": Known(_map_flags),
    "at": flags("AT_"),
    "unlinkat": flags("AT_"),
    "faccessat": flags("FACCESSAT_", "AT_"),
    "statxat": Known(_new_directory_flags),
    "access": flags("OK", "?_OK", "F_OK"),
    "socktype": Known(_socket_type),
    "shmget": _ipc_flags("SHM_GET"),
    "ipcget": _ipc_flags("IPC_"),
    "key": Written("hex(value & 0xFFFF_FFFF) if value & 0xFFFF_FFFF else 'IPC_PRIVATE'"),
    "clock": one_of("CLOCK_"),
    "futexop": Known(_futex_op),
    "sched": one_of("SCHED_"),
    "personality": Known(_personality),
    "pkeyrights": Known(_key_rights),
    "ioprio": Known(_ioprio),
    "umount": Known(_umount),
    "statxmask": Known(_statx_mask),
    "timeout": Written(_SIGNED),
    "-": lambda _call, _value: None,
}
"""Types that need nothing but their own bits, by their name in the table of calls; ``f.X`` and ``e.X`` name groups of
constants (flags, one of several).
"""
