"""Structures in the guest's memory as strace shows them, most of them in a table of layouts."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from mmuemu.view.strace.constants import CONSTANTS
from mmuemu.view.strace.values import (
    REMEMBERED,
    Call,
    Type,
    device_text,
    escaped,
    file_mode_text,
    flag_text,
    mode_text,
    name_text,
    open_flags_text,
    pointer,
    quoted,
    sigset_text,
    statx_mask_text,
)

Layout = tuple[struct.Struct, Callable[..., str]]
_UTIME: Final = {0x3FFF_FFFF: "UTIME_NOW", 0x3FFF_FFFE: "UTIME_OMIT"}
_INFINITY: Final = (1 << 64) - 1
_SPEEDS: Final = (0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19200, 38400)
_DAYS: Final = 253_402_300_799
"""The last second of the year 9999."""


def _layout(form: str, text: str) -> Layout:
    return struct.Struct(form), text.format


def _timespec(seconds: int, nanoseconds: int) -> str:
    return f"{{tv_sec={seconds}, tv_nsec={nanoseconds}}}"


def timeval(seconds: int, microseconds: int) -> str:
    """A ``struct timeval``."""
    return f"{{tv_sec={seconds}, tv_usec={microseconds}}}"


def moment(seconds: int, fraction: int = 0, digits: int = 9) -> str:
    """A time of day, UTC, as strace adds it to a number of seconds: `` /* 2024-01-01T00:00:00+0000 */``."""
    if not 0 < seconds <= _DAYS:
        return ""
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f" /* {text}{f'.{fraction:0{digits}d}' if fraction else ''}+0000 */"


def _stat(mode: int, rdev: int, size: int) -> str:
    kind = mode & 0o170000
    what = f"st_rdev={device_text(rdev)}" if kind in (0o020000, 0o060000) else f"st_size={size}"
    return f"{{st_mode={file_mode_text(mode)}, {what}, ...}}"


def _statfs(magic: int, bsize: int, *rest: int) -> str:
    blocks, free, available, files, ffree, one, two, length, fragment, mount = rest
    fsid = f"{{val=[{one:#x}, {two:#x}]}}".replace("0x0", "0")
    return (
        f"{{f_type={name_text(magic, 'FS_MAGIC', 'FS_MAGIC')}, f_bsize={bsize}, f_blocks={blocks}, f_bfree={free}, "
        f"f_bavail={available}, f_files={files}, f_ffree={ffree}, f_fsid={fsid}, f_namelen={length}, "
        f"f_frsize={fragment}, f_flags={flag_text(mount, 'ST_')}}}"
    )


def _limit(value: int) -> str:
    if value == _INFINITY:
        return "RLIM64_INFINITY"
    return f"{value >> 10}*1024" if value > 1024 and not value & 1023 else str(value)


def _rlimit(soft: int, hard: int) -> str:
    return f"{{rlim_cur={_limit(soft)}, rlim_max={_limit(hard)}}}"


def _rlimit_old(soft: int, hard: int) -> str:
    return _rlimit(soft, hard).replace("RLIM64_", "RLIM_")


def _rusage(seconds: int, micro: int, system: int, system_micro: int) -> str:
    return f"{{ru_utime={timeval(seconds, micro)}, ru_stime={timeval(system, system_micro)}, ...}}"


def _utsname(data: bytes) -> str:
    names = ("sysname", "nodename", "release")
    fields = [data[at * 65 : at * 65 + 65].split(b"\0")[0] for at in range(3)]
    text = ", ".join(f"{name}={escaped(field)}" for name, field in zip(names[:2], fields, strict=False))
    return f"{{{text}, ...}}"


def _sysinfo(*v: int) -> str:
    names = [
        "totalram",
        "freeram",
        "sharedram",
        "bufferram",
        "totalswap",
        "freeswap",
        "procs",
        "totalhigh",
        "freehigh",
        "mem_unit",
    ]
    rest = ", ".join(f"{name}={value}" for name, value in zip(names, v[4:], strict=True))
    return f"{{uptime={v[0]}, loads=[{v[1]}, {v[2]}, {v[3]}], {rest}}}"


def _flock(kind: int, whence: int, start: int, length: int) -> str:
    return (
        f"{{l_type={name_text(kind, 'F_LCK')}, l_whence={name_text(whence, 'SEEK_')}, l_start={start}, l_len={length}}}"
    )


def _flock_of(kind: int, whence: int, start: int, length: int, pid: int) -> str:
    return f"{_flock(kind, whence, start, length)[:-1]}, l_pid={pid}}}"


def _stack(address: int, state: int, size: int) -> str:
    return f"{{ss_sp={pointer(address)}, ss_flags={flag_text(state, 'SS_')}, ss_size={size}}}"


def _action(handler: int, modes: int, restorer: int, mask: int) -> str:
    name = {0: "SIG_DFL", 1: "SIG_IGN"}.get(handler, f"{handler:#x}")
    tail = f", sa_restorer={restorer:#x}" if modes & 0x0400_0000 else ""
    return f"{{sa_handler={name}, sa_mask={sigset_text(mask)}, sa_flags={flag_text(modes, 'SA_')}{tail}}}"


def _interval(form: Callable[[int, int], str]) -> Callable[..., str]:
    return lambda a, b, c, d: f"{{it_interval={form(a, b)}, it_value={form(c, d)}}}"


def _times(*v: int) -> str:
    return f"{{tms_utime={v[0]}, tms_stime={v[1]}, tms_cutime={v[2]}, tms_cstime={v[3]}}}"


def _sched_attr(size: int, policy: int, marks: int, nice: int, priority: int, *deadline: int) -> str:
    runtime, due, period = deadline
    return (
        f"{{size={size}, sched_policy={name_text(policy, 'SCHED_')}, sched_flags={flag_text(marks, 'SCHED_FLAG_')}, "
        f"sched_nice={nice}, sched_priority={priority}, sched_runtime={runtime}, sched_deadline={due}, "
        f"sched_period={period}}}"
    )


def _open_how(how: int, mode: int, resolve: int) -> str:
    shown = f", mode={mode_text(mode)}" if how & 0o20000100 or mode else ""
    return f"{{flags={open_flags_text(how)}{shown}, resolve={flag_text(resolve, 'RESOLVE_')}}}"


def _capabilities(bits: int) -> str:
    return "|".join(f"1<<{name}" for at, name in CONSTANTS["CAP_"] if bits >> at & 1) or "0"


def _statx(mask: int, _block: int, attributes: int, *v: int) -> str:
    mode, size = v[3], v[5]
    return (
        f"{{stx_mask={statx_mask_text(mask)}, stx_attributes={flag_text(attributes, 'STATX_ATTR_')}, "
        f"stx_mode={file_mode_text(mode)}, stx_size={size}, ...}}"
    )


def _mq_attr(mode: int, most: int, size: int, now: int) -> str:
    shown = open_flags_text(mode).removeprefix("O_RDONLY|") if mode else "0"
    return f"{{mq_flags={shown}, mq_maxmsg={most}, mq_msgsize={size}, mq_curmsgs={now}}}"


def _termios(_i: int, output: int, control: int, local: int) -> str:
    speed = control & 0o10017
    baud = f"B{_SPEEDS[speed]}" if speed < 16 else f"{speed:#x}"
    words = [
        ("" if value & bit else "-") + name
        for value, bit, name in ((output, 1, "opost"), (local, 1, "isig"), (local, 2, "icanon"), (local, 8, "echo"))
    ]
    return f"{{{baud} {' '.join(words)} ...}}"


def _epoll(events: int, data: int) -> str:
    return f"{{events={flag_text(events, 'EPOLL')}, data={{u32={data & 0xFFFF_FFFF}, u64={data}}}}}"


def _sembuf(number: int, change: int, marks: int) -> str:
    return f"{{sem_num={number}, sem_op={change}, sem_flg={flag_text(marks & 0xFFFF, 'SEM_F')}}}"


def _ipc_perm(uid: int, gid: int, cuid: int, cgid: int, mode: int) -> str:
    names = ("SHM_DEST", 0o1000), ("SHM_LOCKED", 0o2000)
    marks = [name for name, bit in names if mode & bit]
    shown = "|".join([*marks, mode_text(mode & 0o777)])
    return f"uid={uid}, gid={gid}, mode={shown}, key=%s, cuid={cuid}, cgid={cgid}"


LAYOUTS: Final[dict[str, Layout]] = {
    "timespec": (struct.Struct("<qq"), _timespec),
    "timeval": (struct.Struct("<qq"), timeval),
    "itimerval": (struct.Struct("<qqqq"), _interval(timeval)),
    "itimerspec": (struct.Struct("<qqqq"), _interval(_timespec)),
    "timezone": _layout("<ii", "{{tz_minuteswest={}, tz_dsttime={}}}"),
    "utimbuf": (struct.Struct("<qq"), lambda a, b: f"{{actime={a}{moment(a)}, modtime={b}{moment(b)}}}"),
    "stat": (struct.Struct("<I12xQq"), _stat),
    "statfs": (struct.Struct("<QqQQQQQIIqqQ"), _statfs),
    "statx": (struct.Struct("<IIQIIIH2xQQ"), _statx),
    "rlimit": (struct.Struct("<QQ"), _rlimit_old),
    "rlimit64": (struct.Struct("<QQ"), _rlimit),
    "rusage": (struct.Struct("<qqqq"), _rusage),
    "utsname": (struct.Struct("<390s"), _utsname),
    "sysinfo": (struct.Struct("<qQQQQQQQQQH6xQQI"), _sysinfo),
    "flock": (struct.Struct("<hh4xqq"), _flock),
    "flock_of": (struct.Struct("<hh4xqqi"), _flock_of),
    "stack": (struct.Struct("<Qi4xQ"), _stack),
    "action": (struct.Struct("<QQQQ"), _action),
    "tms": (struct.Struct("<qqqq"), _times),
    "sched_attr": (struct.Struct("<IIQiIQQQ"), _sched_attr),
    "open_how": (struct.Struct("<QQQ"), _open_how),
    "mq_attr": (struct.Struct("<qqqq"), _mq_attr),
    "termios": (struct.Struct("<IIII"), _termios),
    "winsize": _layout("<HHHH", "{{ws_row={}, ws_col={}, ws_xpixel={}, ws_ypixel={}}}"),
    "epoll_event": (struct.Struct("<IQ"), _epoll),
    "sembuf": (struct.Struct("<Hhh"), _sembuf),
    "int": _layout("<i", "[{}]"),
    "uint": _layout("<I", "[{}]"),
    "long": _layout("<q", "[{}]"),
    "ulong": _layout("<Q", "[{}]"),
    "hexlong": _layout("<Q", "[{:#x}]"),
    "number": (struct.Struct("<I"), str),
    "pair": _layout("<ii", "[{}, {}]"),
    "pid": _layout("<i", "[{}]"),
    "ucred": _layout("<iII", "{{pid={}, uid={}, gid={}}}"),
    "linger": _layout("<ii", "{{l_onoff={}, l_linger={}}}"),
    "cap_header": (
        struct.Struct("<Ii"),
        lambda version, pid: f"{{version={name_text(version, 'CAP_VERSION')}, pid={pid}}}",
    ),
    "cap_data": (
        struct.Struct("<IIIIII"),
        lambda a, b, c, d, e, f: (
            f"{{effective={_capabilities(a | d << 32)}, permitted={_capabilities(b | e << 32)}, "
            f"inheritable={_capabilities(c | f << 32)}}}"
        ),
    ),
}
"""Structures that their bytes alone explain: how they are laid out, how they are written."""


def show(call: Call, name: str, address: int) -> str:
    """The structure ``name`` at ``address``; the address where it cannot be read, NULL for none."""
    return _READERS[name](call, address)


def reader(name: str) -> Type:
    """A type: a pointer to the structure ``name``."""
    return _READERS[name]


def _reader(name: str) -> Callable[[Call, int], str]:
    form, text = LAYOUTS[name]
    size, start, unpack = form.size, _STARTS.get(name, 0), form.unpack
    written = lru_cache(REMEMBERED)(lambda data: text(*unpack(data)))

    def show_known(call: Call, address: int) -> str:
        if not address:
            return "NULL"
        data = call.read(address + start, size)
        return f"{address:#x}" if data is None else written(data)

    def show_new(call: Call, address: int) -> str:
        if not address:
            return "NULL"
        data = call.read(address, size)
        return f"{address:#x}" if data is None else text(*unpack(data))

    return show_new if name in _ALWAYS_NEW else show_known


_STARTS: Final = {"stat": 24}
"""What is shown begins behind the beginning."""
_ALWAYS_NEW: Final = frozenset({"timespec", "timeval"})
"""Not worth remembering."""
_READERS: Final = {name: _reader(name) for name in LAYOUTS}


def utimes(form: str) -> Type:
    """A type: a pointer to two times of a file, access and modification."""
    digits, unit = (9, "nsec") if form == "timespec" else (6, "usec")

    def one(seconds: int, fraction: int) -> str:
        if form == "timespec" and fraction in _UTIME:
            return _UTIME[fraction]
        return f"{{tv_sec={seconds}, tv_{unit}={fraction}}}{moment(seconds, fraction, digits)}"

    def show_them(call: Call, address: int) -> str:
        if not address:
            return "NULL"
        data = call.read(address, 32)
        if data is None:
            return f"{address:#x}"
        a, b, c, d = struct.unpack("<qqqq", data)
        return f"[{one(a, b)}, {one(c, d)}]"

    return show_them


def sigset(call: Call, address: int) -> str:
    """A pointer to a set of signals."""
    if not address:
        return "NULL"
    data = call.read(address, 8)
    return f"{address:#x}" if data is None else sigset_text(int.from_bytes(data, "little"))


def sigset_pair(call: Call, address: int) -> str:
    """pselect6's last argument: a set and its size, in memory."""
    data = call.read(address, 16) if address else None
    if data is None:
        return pointer(address)
    where, size = struct.unpack("<QQ", data)
    return f"{{sigmask={sigset(call, where)}, sigsetsize={size}}}"


def strings(call: Call, address: int) -> str:
    """argv: ``["ls", "-l"]``."""
    found: list[str] = []
    at = address
    while address:
        data = call.read(at, 8)
        if data is None:
            return pointer(address) if not found else f"[{', '.join(found)}, ... /* {at:#x} */]"
        where = int.from_bytes(data, "little")
        if not where:
            break
        if len(found) >= call.limit:
            return f"[{', '.join(found)}, ...]"
        text = call.string(where, call.limit + 1)
        found.append(f"{where:#x}" if text is None else quoted(text, call.limit))
        at += 8
    return f"[{', '.join(found)}]" if address else "NULL"


def variables(call: Call, address: int) -> str:
    """envp: the address and how many there are."""
    if not address:
        return "NULL"
    count, at = 0, address
    while True:
        data = call.read(at, 8)
        if data is None:
            return f"{address:#x}"
        if not any(data):
            return f"{address:#x} /* {count} var{'' if count == 1 else 's'} */"
        count += 1
        at += 8


def mq_name(call: Call, address: int) -> str:
    """A message queue's name."""
    text = call.string(address, 256)
    return f"{address:#x}" if text is None else escaped(text)
