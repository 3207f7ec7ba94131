"""Arguments whose meaning another argument decides (fcntl, ioctl, futex, prctl...), results that say more, siginfo."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from mmuemu.kernel.abi.signals import CODE_NAMES, Signal
from mmuemu.kernel.registers import SP
from mmuemu.kernel.syscalls.table import signed32
from mmuemu.view.strace.buffers import string
from mmuemu.view.strace.constants import CONSTANTS
from mmuemu.view.strace.structs import moment, show, sigset
from mmuemu.view.strace.values import (
    PURE,
    Call,
    device_text,
    flag_text,
    mode_text,
    name_text,
    open_flags_text,
    pointer,
    signal_text,
)

FAULTS: Final = frozenset({Signal.SIGSEGV, Signal.SIGBUS, Signal.SIGILL, Signal.SIGFPE, Signal.SIGTRAP})
_SENDERS: Final = {0: "SI_USER", -1: "SI_QUEUE", -2: "SI_TIMER", -3: "SI_MESGQ", -6: "SI_TKILL", 0x80: "SI_KERNEL"}
_CHILD: Final = {
    1: "CLD_EXITED",
    2: "CLD_KILLED",
    3: "CLD_DUMPED",
    4: "CLD_TRAPPED",
    5: "CLD_STOPPED",
    6: "CLD_CONTINUED",
}
_MORE_CODES: Final = {(4, 1): "ILL_ILLOPC", (4, 2): "ILL_ILLOPN", (8, 2): "FPE_INTOVF", (7, 3): "BUS_OBJERR"}
_UCONTEXT_MASK: Final = 296
"""Where the mask lies behind the stack pointer in a signal frame (arch/x86/include/uapi/asm/ucontext.h)."""


def siginfo_text(data: bytes) -> str:
    """The ``siginfo_t`` in ``data``."""
    number, errno, code = struct.unpack_from("<iii", data)
    body = data[16:].ljust(40, b"\0")
    name = CODE_NAMES.get((number, code)) or _MORE_CODES.get((number, code)) or _SENDERS.get(code)
    if number == Signal.SIGCHLD and code > 0:
        name = _CHILD.get(code, name)
    parts = [f"si_signo={signal_text(number)}", f"si_code={name or f'{code:#x}'}"]
    if errno:
        parts.append(f"si_errno={errno}")
    pid, uid, status = struct.unpack_from("<iIi", body)
    if number == Signal.SIGCHLD and code > 0 and code != 0x80:
        utime, stime = struct.unpack_from("<qq", body, 16)
        shown = str(status) if code == 1 else signal_text(status)
        parts += [f"si_pid={pid}", f"si_uid={uid}", f"si_status={shown}", f"si_utime={utime}", f"si_stime={stime}"]
    elif number in FAULTS and code > 0:
        parts.append(f"si_addr={pointer(int.from_bytes(body[:8], 'little'))}")
    elif code == -2:
        parts += [f"si_timerid={pid:#x}" if pid else "si_timerid=0", f"si_overrun={signed32(uid)}", *_value(body)]
    elif code <= 0:
        parts += [f"si_pid={pid}", f"si_uid={uid}"]
        if code != 0 and code != -6:
            parts += _value(body)
    return f"{{{', '.join(parts)}}}"


def _value(body: bytes) -> list[str]:
    value = int.from_bytes(body[8:16], "little")
    return [f"si_int={signed32(value)}", f"si_ptr={pointer(value)}"]


def siginfo(call: Call, address: int) -> str:
    """A pointer to a ``siginfo_t``."""
    data = call.read(address, 128) if address else None
    if data is None:
        return pointer(address)
    return siginfo_text(data) if any(data[:4]) else "{}"


def wait_status_text(status: int) -> str:
    """``[{WIFEXITED(s) && WEXITSTATUS(s) == 3}]``."""
    if status == 0xFFFF:
        text = "WIFCONTINUED(s)"
    elif status & 0xFF == 0x7F:
        text = f"WIFSTOPPED(s) && WSTOPSIG(s) == {signal_text(status >> 8 & 0xFF)}"
    elif status & 0x7F:
        core = " && WCOREDUMP(s)" if status & 0x80 else ""
        text = f"WIFSIGNALED(s) && WTERMSIG(s) == {signal_text(status & 0x7F)}{core}"
    else:
        text = f"WIFEXITED(s) && WEXITSTATUS(s) == {status >> 8 & 0xFF}"
    return f"[{{{text}}}]"


def wait_status(call: Call, address: int) -> str:
    """wait4's status."""
    data = call.read(address, 4) if address and call.result > 0 else None
    return pointer(address) if data is None else wait_status_text(int.from_bytes(data, "little"))


def wait_usage(call: Call, address: int) -> str:
    """wait4's rusage, which a call that found nobody leaves alone."""
    found = call.result > 0 or (call.number == 247 and not call.failed)
    return show(call, "rusage", address) if found else pointer(address)


def waitid_id(call: Call, value: int) -> str:
    """waitid's second argument."""
    return str(signed32(value))


def device_if_any(call: Call, value: int) -> str | None:
    """mknod's device, of device files only."""
    mode = call.args[1 if call.number == 133 else 2] & 0o170000
    return device_text(value) if mode in (0o020000, 0o060000) else None


def open_mode(call: Call, value: int) -> str | None:
    """open's mode, only when it may create."""
    flags = call.args[1 if call.number == 2 else 2]
    return mode_text(value & 0xFFFF) if flags & 0o100 or flags & 0o20000000 else None


def mq_mode(call: Call, value: int) -> str | None:
    """mq_open's mode, only when it may create."""
    return mode_text(value & 0xFFFF) if call.args[1] & 0o100 else None


def mq_attr(call: Call, value: int) -> str | None:
    """mq_open's attributes, only when it may create."""
    return show(call, "mq_attr", value) if call.args[1] & 0o100 else None


# -- fcntl and ioctl ---------------------------------------------------------------------------------------------------

_NO_ARGUMENT: Final = frozenset({1, 3, 9, 11, 1025, 1032, 1034})
_LOCKS: Final = frozenset({5, 6, 7, 36, 37, 38})
_GET_LOCKS: Final = frozenset({5, 36})
_DUPLICATES: Final = frozenset({0, 1030})


def fcntl_given(call: Call, value: int) -> str | None:
    """What fcntl is given."""
    command = call.args[1] & 0xFFFF_FFFF
    if command in _NO_ARGUMENT or command in _GET_LOCKS or command == 16:
        return None
    if command in _LOCKS:
        return show(call, "flock", value)
    if command == 2:
        return flag_text(value, "FD_")
    if command == 4:
        return open_flags_text(value & 0xFFFF_FFFF)
    if command == 10:
        return signal_text(signed32(value))
    if command == 1024:
        return name_text(value & 0xFFFF_FFFF, "F_LCK")
    if command == 1033:
        return flag_text(value & 0xFFFF_FFFF, "F_SEAL_")
    return str(signed32(value)) if command in _DUPLICATES or command in (8, 1031) else f"{value:#x}"


def fcntl_taken(call: Call, value: int) -> str | None:
    """What fcntl leaves."""
    return show(call, "flock_of", value) if call.args[1] & 0xFFFF_FFFF in _GET_LOCKS else None


def fcntl_result(call: Call) -> str | None:
    """fcntl's result in words."""
    command, result = call.args[1] & 0xFFFF_FFFF, call.result
    if call.failed:
        return None
    if command == 1:
        return f"{result:#x} (flags {flag_text(result, 'FD_')})" if result else "0"
    if command == 3:
        return f"{result:#x} (flags {open_flags_text(result)})" if result else "0 (flags O_RDONLY)"
    if command == 1025:
        return f"{result:#x} ({name_text(result, 'F_LCK')})" if result else "0 (F_RDLCK)"
    if command == 1034:
        return f"{result:#x} (seals {flag_text(result, 'F_SEAL_')})" if result else "0"
    if command == 11:
        return f"{result} ({signal_text(result)})" if result else "0"
    return None


_IOCTLS: Final[dict[int, tuple[str, str]]] = {
    0x5401: ("", "termios"), 0x5402: ("termios", ""), 0x5403: ("termios", ""), 0x5404: ("termios", ""),
    0x540F: ("", "pid"), 0x5410: ("pid", ""), 0x5411: ("", "int"), 0x5413: ("", "winsize"), 0x5414: ("winsize", ""),
    0x541B: ("", "int"), 0x5421: ("int", ""), 0x5452: ("int", ""), 0x5429: ("", "pid"),
    0x8004_5430: ("", "uint"), 0x4004_5431: ("int", ""), 0x5460: ("", "long"),
}  # fmt: skip
"""Request -> the structure that is given, and the one that is taken; others show the bare value."""
_BARE: Final = frozenset({0x540C, 0x540E, 0x5422, 0x5450, 0x5451})
"""Requests without an argument that counts."""


def ioctl_request(_call: Call, value: int) -> str:
    """TCGETS and its like; of others their parts (``_IOC``)."""
    value &= 0xFFFF_FFFF
    text = name_text(value, "IOCTL")
    if "???" not in text:
        return text
    ways = {0: "_IOC_NONE", 1: "_IOC_WRITE", 2: "_IOC_READ", 3: "_IOC_READ|_IOC_WRITE"}
    return f"_IOC({ways[value >> 30]}, {value >> 8 & 0xFF:#x}, {value & 0xFF:#x}, {value >> 16 & 0x3FFF:#x})"


def ioctl_given(call: Call, value: int) -> str | None:
    """What ioctl is given."""
    request = call.args[1] & 0xFFFF_FFFF
    given, taken = _IOCTLS.get(request, ("", ""))
    if given:
        return show(call, given, value)
    return None if taken or request in _BARE else f"{value:#x}" if value else "0"


def ioctl_taken(call: Call, value: int) -> str | None:
    """What ioctl leaves."""
    taken = _IOCTLS.get(call.args[1] & 0xFFFF_FFFF, ("", ""))[1]
    if not taken:
        return None
    return pointer(value) if call.failed else show(call, taken, value)


# -- futex, prctl, clone -----------------------------------------------------------------------------------------------

_FUTEX_OPERATIONS: Final = 14
_FUTEX_FD: Final = 2
_FUTEX_WAITS: Final = frozenset({0, 6, 9, 11, 13})
_FUTEX_TWO: Final = frozenset({3, 4, 5, 12})
_FUTEX_BITS: Final = frozenset({9, 10})
_FUTEX_VALUELESS: Final = frozenset({6, 7, 8, 13})


def futex_value(call: Call, value: int) -> str | None:
    """The third argument."""
    return None if _futex_operation(call) in _FUTEX_VALUELESS else str(value & 0xFFFF_FFFF)


def _futex_operation(call: Call) -> int:
    """The operation, -1 for one that nobody knows."""
    operation = call.args[1] & 0xFFFF_FFFF
    known = not operation & ~0x1FF and operation & 0x7F < _FUTEX_OPERATIONS and operation & 0x7F != _FUTEX_FD
    return operation & 0x7F if known else -1


def futex_time(call: Call, value: int) -> str | None:
    """The fourth: a time limit, or how many more are concerned."""
    operation = _futex_operation(call)
    if operation in _FUTEX_WAITS:
        return show(call, "timespec", value)
    if operation < 0:
        return pointer(value)
    return str(value & 0xFFFF_FFFF) if operation in _FUTEX_TWO else None


def futex_second(call: Call, value: int) -> str | None:
    """The fifth: another futex."""
    return pointer(value) if _futex_operation(call) in _FUTEX_TWO | {-1, 11} else None


def futex_third(call: Call, value: int) -> str | None:
    """The sixth: what is compared, or a mask."""
    operation, value = _futex_operation(call), value & 0xFFFF_FFFF
    if operation in _FUTEX_BITS:
        return "FUTEX_BITSET_MATCH_ANY" if value == 0xFFFF_FFFF else f"{value:#x}"
    if operation == 5:
        return _wake_operation(value)
    return str(value) if operation in (-1, 4, 12) else None


def _wake_operation(value: int) -> str:
    operations = ("SET", "ADD", "OR", "ANDN", "XOR")
    comparisons = ("EQ", "NE", "LT", "LE", "GT", "GE")
    operation, compare = value >> 28 & 7, value >> 24 & 15
    first, second = value >> 12 & 0xFFF, value & 0xFFF
    shift = "FUTEX_OP_OPARG_SHIFT<<28|" if value >> 31 else ""
    name = operations[operation] if operation < len(operations) else f"{operation:#x}"
    relation = comparisons[compare] if compare < len(comparisons) else f"{compare:#x}"
    return f"{shift}FUTEX_OP_{name}<<28|{first:#x}<<12|FUTEX_OP_CMP_{relation}<<24|{second:#x}"


_DUMPABLE: Final = ("SUID_DUMP_DISABLE", "SUID_DUMP_USER", "SUID_DUMP_ROOT")
_PRCTL_ARGUMENTS: Final[dict[int, str]] = {
    1: "sig", 2: "<sig", 3: "", 4: "dump", 7: "", 8: "u", 15: "str", 16: "<str", 21: "", 22: "x", 23: "cap", 24: "cap",
    29: "u", 30: "", 36: "u", 37: "<int", 38: "u 0", 39: "0", 40: "<ptr", 41: "u 0", 42: "0",
}  # fmt: skip
"""Option -> what its arguments are; ``0``: the rest is zeros that are shown."""


def capability(value: int) -> str:
    """A capability by number."""
    names = CONSTANTS["CAP_"]
    return names[value][1] if value < len(names) else f"{value:#x} /* CAP_??? */"


def prctl_given(call: Call, value: int) -> str | None:
    """prctl's second argument where it is given."""
    option = call.args[0] & 0xFFFF_FFFF
    kind = _PRCTL_ARGUMENTS.get(option)
    if kind is None:
        return f"{value:#x}" if value else "0"
    kind = kind.partition(" ")[0]
    if kind == "str":
        return string(call, value)
    if kind == "cap":
        return capability(value)
    if kind == "dump":
        return _DUMPABLE[value] if value < len(_DUMPABLE) else f"{value:#x} /* SUID_DUMP_??? */"
    if kind in ("sig", "u", "x"):
        return PURE["lu" if kind == "u" else kind](call, value)
    return "0" if kind == "0" else None


def prctl_taken(call: Call, value: int) -> str | None:
    """prctl's second argument where it is a place for the answer."""
    kind = _PRCTL_ARGUMENTS.get(call.args[0] & 0xFFFF_FFFF, "")
    if not kind.startswith("<"):
        return None
    if call.failed:
        return pointer(value)
    if kind == "<sig":
        data = call.read(value, 4) if value else None
        return pointer(value) if data is None else f"[{signal_text(int.from_bytes(data, 'little'))}]"
    return string(call, value) if kind == "<str" else show(call, "hexlong" if kind == "<ptr" else "int", value)


def prctl_rest(call: Call, value: int) -> str | None:
    """The arguments behind it: those of options that say nothing of them, and zeros that must be given."""
    kind = _PRCTL_ARGUMENTS.get(call.args[0] & 0xFFFF_FFFF)
    if kind is None or kind.endswith("0"):
        return f"{value:#x}" if value else "0"
    return None


def arch_given(call: Call, value: int) -> str | None:
    """arch_prctl's address where it is given."""
    return None if call.args[0] & 0xFFFF_FFFF in (0x1003, 0x1004) else pointer(value)


def arch_taken(call: Call, value: int) -> str | None:
    """arch_prctl's address where the answer goes."""
    if call.args[0] & 0xFFFF_FFFF not in (0x1003, 0x1004):
        return None
    return pointer(value) if call.failed else show(call, "hexlong", value)


def clone_given(call: Call, marks: int) -> str:
    """clone's stack and flags, by name."""
    number = marks & 0xFF
    shown = flag_text(marks & ~0xFF & 0xFFFF_FFFF, "CLONE_", zero="")
    words = [shown] if shown else []
    if number:
        words.append(signal_text(number))
    return f"child_stack={pointer(call.args[1])}, flags={'|'.join(words) or '0'}"


def clone_taken(call: Call, marks: int) -> str:
    """The rest of clone's arguments, as its flags ask for them."""
    _, _, parent, child, tls = call.args[:5]
    parts = []
    if marks & 0x0010_1000:
        parts.append(f", parent_tid={pointer(parent) if call.failed else show(call, 'int', parent)}")
    if marks & 0x0008_0000:
        parts.append(f", tls={pointer(tls)}")
    if marks & 0x0120_0000:
        parts.append(f", child_tidptr={pointer(child)}")
    return "".join(parts)


def kcmp_resource(call: Call, value: int) -> str | None:
    """kcmp's descriptors, of a comparison of two files; epoll's are an address."""
    kind = call.args[2] & 0xFFFF_FFFF
    if kind == 7:
        return pointer(value) if value == call.args[4] else str(value & 0xFFFF_FFFF)
    return None if 0 < kind < 7 else str(value & 0xFFFF_FFFF)


# -- System V IPC ------------------------------------------------------------------------------------------------------


def semctl_argument(_call: Call, value: int) -> str | None:
    """semctl's last argument."""
    return pointer(value)


def frame_mask(call: Call) -> str:
    """What rt_sigreturn puts back: the mask in the frame on the stack of its task."""
    address = call.task.registers[SP] + _UCONTEXT_MASK
    return f"{{mask={sigset(call, address & (1 << 64) - 1)}}}"


# -- results -----------------------------------------------------------------------------------------------------------


def membarrier_processor(call: Call, value: int) -> str | None:
    """membarrier's third argument, which a flag asks for."""
    return str(signed32(value)) if call.args[1] & 1 else None


def membarrier_commands(call: Call) -> str | None:
    """The commands that a query gives."""
    if call.failed or call.args[0] & 0xFFFF_FFFF or not call.result:
        return None
    return f"{call.result:#x} ({flag_text(call.result, 'MEMBARRIER_CMD_')})"


def prctl_result(call: Call) -> str | None:
    """prctl's result, by name where it has one."""
    if call.args[0] & 0xFFFF_FFFF == 3 and 0 <= call.result < len(_DUMPABLE):
        return f"{call.result} ({_DUMPABLE[call.result]})"
    return None


def hexadecimal(call: Call) -> str | None:
    """An address or flags."""
    if call.failed:
        return None
    return f"{call.result & (1 << 64) - 1:#x}" if call.result else "0"


def octal(call: Call) -> str | None:
    """umask's."""
    return f"0{call.result:o}" if call.result else "000"


def time_of_day(call: Call) -> str | None:
    """time's, with the time of day."""
    return None if call.failed else f"{call.result} ({moment(call.result)[4:-3]})"


def scheduler(call: Call) -> str | None:
    """sched_getscheduler's policy."""
    return None if call.failed else f"{call.result} ({PURE['sched'](call, call.result)})"


def signal_number(call: Call) -> str | None:
    """A signal that was waited for."""
    return None if call.failed else f"{call.result} ({signal_text(call.result)})"


def personality(call: Call) -> str | None:
    """personality's, by name."""
    return None if call.failed else f"{call.result:#x} ({PURE['personality'](call, call.result)})".replace("0x0 ", "0 ")


Result = Callable[[Call], "str | None"]
