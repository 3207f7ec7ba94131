"""System calls as strace prints them: names, arguments by kind, results and error names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi import fcntl
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.signals import CODE_NAMES, Signal, signal_name

if TYPE_CHECKING:
    from mmuemu.kernel.signals.pending import SigInfo
    from mmuemu.kernel.syscalls.table import Syscall
    from mmuemu.kernel.task import Task

STRING_LIMIT: Final = 32
"""Bytes of a string or buffer that are shown (strace's -s default)."""

_PROT: Final = ((1, "PROT_READ"), (2, "PROT_WRITE"), (4, "PROT_EXEC"))
_MAP: Final = (
    (0x10, "MAP_FIXED"),
    (0x20, "MAP_ANONYMOUS"),
    (0x100, "MAP_GROWSDOWN"),
    (0x800, "MAP_DENYWRITE"),
    (0x2000, "MAP_LOCKED"),
    (0x4000, "MAP_NORESERVE"),
    (0x8000, "MAP_POPULATE"),
    (0x20000, "MAP_STACK"),
    (0x40000, "MAP_HUGETLB"),
    (0x100000, "MAP_FIXED_NOREPLACE"),
)
_MAP_TYPE: Final = {1: "MAP_SHARED", 2: "MAP_PRIVATE", 3: "MAP_SHARED_VALIDATE"}
_OPEN: Final = tuple(
    (getattr(fcntl, name), name)
    for name in [
        "O_CREAT",
        "O_EXCL",
        "O_NOCTTY",
        "O_TRUNC",
        "O_APPEND",
        "O_NONBLOCK",
        "O_SYNC",
        "O_DSYNC",
        "O_ASYNC",
        "O_DIRECT",
        "O_LARGEFILE",
        "O_TMPFILE",
        "O_DIRECTORY",
        "O_NOFOLLOW",
        "O_NOATIME",
        "O_CLOEXEC",
        "O_PATH",
    ]
)
_ACCESS: Final = {0: "O_RDONLY", 1: "O_WRONLY", 2: "O_RDWR"}
_AT: Final = ((0x100, "AT_SYMLINK_NOFOLLOW"), (0x400, "AT_SYMLINK_FOLLOW"), (0x1000, "AT_EMPTY_PATH"))
_WHENCE: Final = {0: "SEEK_SET", 1: "SEEK_CUR", 2: "SEEK_END", 3: "SEEK_DATA", 4: "SEEK_HOLE"}
_ADVICE: Final = {
    0: "MADV_NORMAL", 1: "MADV_RANDOM", 2: "MADV_SEQUENTIAL", 3: "MADV_WILLNEED", 4: "MADV_DONTNEED",
    8: "MADV_FREE", 14: "MADV_HUGEPAGE", 15: "MADV_NOHUGEPAGE",
}  # fmt: skip
_CLOCKS: Final = {
    0: "CLOCK_REALTIME", 1: "CLOCK_MONOTONIC", 2: "CLOCK_PROCESS_CPUTIME_ID", 3: "CLOCK_THREAD_CPUTIME_ID",
    4: "CLOCK_MONOTONIC_RAW", 5: "CLOCK_REALTIME_COARSE", 6: "CLOCK_MONOTONIC_COARSE", 7: "CLOCK_BOOTTIME",
}  # fmt: skip
FAULTS: Final = frozenset({Signal.SIGSEGV, Signal.SIGBUS, Signal.SIGILL, Signal.SIGFPE, Signal.SIGTRAP})
_SENDERS: Final = {0: "SI_USER", -1: "SI_QUEUE", -2: "SI_TIMER", -6: "SI_TKILL", 0x80: "SI_KERNEL"}
RESTARTED: Final = -512
"""-ERESTARTSYS: the call is made again after a signal handler."""
_ADDRESS_RESULTS: Final = frozenset({"mmap", "mremap", "brk"})
_ESCAPES: Final = {9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}


def quoted(data: bytes, more: bool = False) -> str:
    """Bytes in C quotes, cut at STRING_LIMIT with ``...`` behind."""
    shown = data[:STRING_LIMIT]
    text = []
    for index, byte in enumerate(shown):
        if byte in _ESCAPES:
            text.append(_ESCAPES[byte])
        elif 32 <= byte < 127:
            text.append(chr(byte))
        else:
            digit = shown[index + 1 : index + 2].isdigit()
            text.append(f"\\{byte:03o}" if digit else f"\\{byte:o}")
    return f'"{"".join(text)}"' + ("..." if more or len(data) > STRING_LIMIT else "")


def flags(value: int, names: tuple[tuple[int, str], ...], zero: str = "0") -> str:
    """``"A|B|0x40"``: known bits by name, the rest in hexadecimal."""
    parts = []
    for bit, name in names:
        if bit and value & bit == bit:
            parts.append(name)
            value &= ~bit
    if value:
        parts.append(f"{value:#x}")
    return "|".join(parts) or zero


def _open_flags(value: int) -> str:
    rest = value & ~3
    return _ACCESS.get(value & 3, "O_ACCMODE") + (f"|{flags(rest, _OPEN)}" if rest else "")


def _map_flags(value: int) -> str:
    kind = _MAP_TYPE.get(value & 3, f"{value & 3:#x}")
    rest = value & ~3
    return kind + (f"|{flags(rest, _MAP)}" if rest else "")


class Strace:
    """A tracer that writes one line a call, once it has returned, through ``write``."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._lines: dict[int, str] = {}
        """What each thread has called, until it returns."""
        self._several = False

    def write(self, task: Task, text: str) -> None:
        """One line; it begins with the thread's number once there have been several, as ``strace -f`` has it."""
        self._several = self._several or len(task.kernel.tasks) > 1
        self._write(f"[pid {task.tid:5}] {text}\n" if self._several else f"{text}\n")

    def enter(self, task: Task, call: Syscall | None, number: int, arguments: tuple[int, ...]) -> None:
        """Format what the call was given, before it changes anything."""
        if call is None:
            self._lines[task.tid] = f"syscall_{number:#x}({', '.join(f'{value:#x}' for value in arguments)})"
            return
        shown = []
        for index, kind in enumerate(call.kinds):
            value = arguments[index]
            converter = call.converters[index]
            following = arguments[index + 1] if index + 1 < len(arguments) else 0
            shown.append(self._show(task, kind, converter(value) if converter else value, following))
        line = f"{call.name}({', '.join(shown)})"
        if call.name in ("exit", "exit_group"):
            self.write(task, f"{line} = ?")
            return
        self._lines[task.tid] = line

    def leave(self, task: Task, call: Syscall | None, number: int, arguments: tuple[int, ...], result: int) -> None:
        """Write the line with its result."""
        line = self._lines.pop(task.tid, "")
        if not line:
            return
        if call is not None and "out_buffer" in call.kinds:
            line = self._filled(task, call, arguments, result)
        if result == RESTARTED:
            shown = "? ERESTARTSYS"
        elif -4096 < result < 0:
            name = Errno(-result).name if -result in Errno.__members__.values() else str(-result)
            shown = f"-1 {name}"
        elif call is not None and call.name in _ADDRESS_RESULTS:
            shown = f"{result & (1 << 64) - 1:#x}"
        else:
            shown = str(result)
        self.write(task, f"{line} = {shown}")

    def signal(self, task: Task, info: SigInfo) -> None:
        """Write a line for a signal that is delivered."""
        code = CODE_NAMES.get((info.signal, info.code)) or _SENDERS.get(info.code, str(info.code))
        parts = [f"si_signo={signal_name(info.signal)}", f"si_code={code}"]
        if info.signal in FAULTS and 0 < info.code != 0x80:
            parts.append(f"si_addr={int.from_bytes(info.payload[:8], 'little'):#x}")
        elif info.code <= 0 and info.code != -2:
            parts.append(f"si_pid={int.from_bytes(info.payload[:4], 'little')}")
        self.write(task, f"--- {signal_name(info.signal)} {{{', '.join(parts)}}} ---")

    def _filled(self, task: Task, call: Syscall, arguments: tuple[int, ...], result: int) -> str:
        """The line with what the call put into its buffer."""
        shown = []
        for index, kind in enumerate(call.kinds):
            value = arguments[index]
            converter = call.converters[index]
            if kind == "out_buffer" and result > 0 and call.name not in ("getdents", "getdents64"):
                shown.append(self._buffer(task, value, result))
            else:
                shown.append(self._show(task, kind, converter(value) if converter else value, 0))
        return f"{call.name}({', '.join(shown)})"

    @staticmethod
    def _buffer(task: Task, address: int, count: int) -> str:
        if not address:
            return "NULL"
        try:
            return quoted(task.memory.read(address, min(count, STRING_LIMIT)), count > STRING_LIMIT)
        except SyscallError:
            return f"{address:#x}"

    def _show(self, task: Task, kind: str, value: int, following: int) -> str:
        if kind in ("path", "string"):
            if not value:
                return "NULL"
            try:
                return quoted(task.memory.read_cstring(value, 4096)).replace("...", "")
            except SyscallError:
                return f"{value:#x}"
        if kind == "in_buffer":
            return self._buffer(task, value, following)
        simple = _SIMPLE.get(kind)
        return simple(value) if simple else str(value)


def _pointer(value: int) -> str:
    return f"{value:#x}" if value else "NULL"


_SIMPLE: Final[dict[str, Callable[[int], str]]] = {
    "dirfd": lambda value: "AT_FDCWD" if value == fcntl.AT_FDCWD else str(value),
    "open_flags": _open_flags,
    "at_flags": lambda value: flags(value, _AT),
    "prot": lambda value: flags(value, _PROT, "PROT_NONE"),
    "map_flags": _map_flags,
    "octal": lambda value: f"{value:#o}" if value else "0",
    "mode": lambda value: f"{value:#o}" if value else "0",
    "whence": lambda value: _WHENCE.get(value, str(value)),
    "advice": lambda value: _ADVICE.get(value, str(value)),
    "clockid": lambda value: _CLOCKS.get(value, str(value)),
    "signal": lambda value: signal_name(value) if value else "0",
    "flags": lambda value: f"{value:#x}" if value else "0",
    "request": lambda value: f"{value:#x}",
    "uid": lambda value: "-1" if value == 0xFFFF_FFFF else str(value),
    **dict.fromkeys(("ptr", "struct", "iovec", "argv", "addr", "out_buffer"), _pointer),
}
