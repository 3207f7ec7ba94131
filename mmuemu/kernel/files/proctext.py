"""The texts of /proc (proc(5); Linux fs/proc/{array,meminfo,stat,uptime,loadavg,version,base}.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.stat import OVERLAYFS_SUPER_MAGIC, PROC_SUPER_MAGIC, SYSFS_MAGIC, TMPFS_MAGIC, major, minor

if TYPE_CHECKING:
    from mmuemu.kernel.files.inode import FileSystem
    from mmuemu.kernel.files.namespace import MountTree
    from mmuemu.kernel.files.openfile import OpenFile
    from mmuemu.kernel.files.procsource import ProcessFacts, SystemFacts

PROCESS_CONSTANTS: Final[dict[str, bytes]] = {
    "cgroup": b"0::/\n",
    "oom_adj": b"0\n",
    "wchan": b"0",
    "personality": b"00000000\n",
    "loginuid": b"4294967295",
    "sessionid": b"4294967295",
    "timers": b"",
    "cpuset": b"/\n",
    "coredump_filter": b"00000033\n",
    "schedstat": b"0 0 0\n",
    "timerslack_ns": b"50000\n",
    "setgroups": b"allow\n",
    **dict.fromkeys(("uid_map", "gid_map", "projid_map"), b"         0          0 4294967295\n"),
}
"""Files of /proc/PID that say the same of every process."""
SYSTEM_CONSTANTS: Final[dict[str, bytes]] = {
    "filesystems": b"".join(
        b"nodev\t%b\n" % name for name in (b"sysfs", b"tmpfs", b"proc", b"devtmpfs", b"overlay", b"9p", b"mqueue")
    ),
    "cmdline": b"\n",
    "modules": b"",
    "swaps": b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
    "partitions": b"major minor  #blocks  name\n\n",
    "diskstats": b"",
    "devices": b"Character devices:\n  1 mem\n  5 /dev/tty\n\nBlock devices:\n",
}
"""Files of /proc that never change."""
_STATES: Final = {
    "R": "running",
    "S": "sleeping",
    "D": "disk sleep",
    "T": "stopped",
    "t": "tracing stop",
    "Z": "zombie",
}
_LIMITS: Final = (
    (0, "Max cpu time", "seconds"),
    (1, "Max file size", "bytes"),
    (2, "Max data size", "bytes"),
    (3, "Max stack size", "bytes"),
    (4, "Max core file size", "bytes"),
    (5, "Max resident set", "bytes"),
    (6, "Max processes", "processes"),
    (7, "Max open files", "files"),
    (8, "Max locked memory", "bytes"),
    (9, "Max address space", "bytes"),
    (10, "Max file locks", "locks"),
    (11, "Max pending signals", "signals"),
    (12, "Max msgqueue size", "bytes"),
    (13, "Max nice priority", ""),
    (14, "Max realtime priority", ""),
    (15, "Max realtime timeout", "us"),
)
_INFINITY: Final = (1 << 64) - 1
_TYPES: Final = {
    OVERLAYFS_SUPER_MAGIC: "overlay",
    PROC_SUPER_MAGIC: "proc",
    SYSFS_MAGIC: "sysfs",
    TMPFS_MAGIC: "tmpfs",
}


def fs_type(fs: FileSystem) -> str:
    """The type /proc/mounts shows; directories shared for writing are 9p."""
    return "devtmpfs" if fs.name == "devtmpfs" else _TYPES.get(fs.magic, "9p")


def status(p: ProcessFacts) -> bytes:
    """/proc/PID/status."""
    kb = {
        "VmPeak": p.peak or p.virtual,
        "VmSize": p.virtual,
        "VmLck": p.locked,
        "VmPin": 0,
        "VmHWM": max(p.highest, p.resident),
        "VmRSS": p.resident,
        "RssAnon": max(p.resident - p.shared, 0),
        "RssFile": p.shared - p.shmem,
        "RssShmem": p.shmem,
        "VmData": p.data,
        "VmStk": p.stack,
        "VmExe": p.text,
        "VmLib": p.libraries,
        "VmPTE": p.tables,
        "VmSwap": 0,
    }
    sizes = "".join(f"{name}:\t{size >> 10:8d} kB\n" for name, size in kb.items())
    uid, gid = p.uid, p.gid
    head = (
        f"Umask:\t{p.fs.umask:04o}\nState:\t{p.state} ({_STATES.get(p.state, 'running')})\nTgid:\t{p.pid}\n"
        f"Ngid:\t0\nPid:\t{p.tid or p.pid}\nPPid:\t{p.ppid}\nTracerPid:\t0\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"
        f"Gid:\t{gid}\t{gid}\t{gid}\t{gid}\nFDSize:\t{64}\nGroups:\t{gid} \n"
    )
    masks = {
        "SigPnd": p.own_pending,
        "ShdPnd": p.pending,
        "SigBlk": p.blocked,
        "SigIgn": p.ignored,
        "SigCgt": p.caught,
        "CapInh": 0,
        "CapPrm": 0,
        "CapEff": 0,
        "CapBnd": 0,
        "CapAmb": 0,
    }
    tail = "".join(f"{name}:\t{mask:016x}\n" for name, mask in masks.items())
    rest = (
        f"Threads:\t{len(p.threads) or 1}\nSigQ:\t0/4096\n{tail}NoNewPrivs:\t0\nSeccomp:\t0\n"
        f"Speculation_Store_Bypass:\t{p.store_bypass}\nSpeculationIndirectBranch:\t{p.indirect_branch}\n"
        "Cpus_allowed:\t1\nCpus_allowed_list:\t0\n"
        f"voluntary_ctxt_switches:\t{p.switches[0]}\nnonvoluntary_ctxt_switches:\t{p.switches[1]}\n"
    )
    return b"Name:\t" + _printable(p.name) + b"\n" + (head + (sizes if p.virtual else "") + rest).encode()


def _printable(name: bytes) -> bytes:
    return name[:15].replace(b"\\", b"\\\\").replace(b"\n", b"\\n")


def stat(p: ProcessFacts) -> bytes:
    """/proc/PID/stat: 52 fields on one line."""
    fields = (
        p.state, p.ppid, p.pgrp or p.pid, p.session or p.pid, 0, -1, 0x400000, p.minor_faults, 0,
        p.major_faults, 0, p.user_ticks, p.system_ticks, 0, 0, 20, 0, len(p.threads) or 1, 0, p.start_ticks,
        p.virtual, p.resident >> 12, _INFINITY, p.start_code, p.end_code, p.start_stack, 0, 0,
        (p.pending | p.own_pending) & 0x7FFF_FFFF,
        p.blocked & 0x7FFF_FFFF, p.ignored & 0x7FFF_FFFF, p.caught & 0x7FFF_FFFF,
        0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, p.start_brk, *p.argument_range, p.exit_code,
    )  # fmt: skip
    return b"%d (%b) %b\n" % (p.tid or p.pid, p.name[:15], " ".join(map(str, fields)).encode())


def statm(p: ProcessFacts) -> bytes:
    """/proc/PID/statm: sizes in pages."""
    pages = (p.virtual, p.resident, p.shared, p.text, 0, p.data + p.stack, 0)
    return (" ".join(str(size >> 12) for size in pages) + "\n").encode()


def limits(p: ProcessFacts) -> bytes:
    """/proc/PID/limits."""
    lines = [f"{'Limit':<25} {'Soft Limit':<20} {'Hard Limit':<20} {'Units':<10}\n"]
    for number, name, unit in _LIMITS:
        default = p.files.limit if number == 7 else _INFINITY
        pair = p.limits.get(number, (default, default))
        soft, hard = ("unlimited" if value >= _INFINITY else str(value) for value in pair)
        lines.append(f"{name:<25} {soft:<20} {hard:<20} {unit:<10}\n")
    return "".join(lines).encode()


def fdinfo(file: OpenFile) -> bytes:
    """/proc/PID/fdinfo/FD."""
    return f"pos:\t{file.offset}\nflags:\t0{file.flags:o}\nmnt_id:\t1\nino:\t{file.inode.ino}\n".encode()


def _escaped(path: bytes) -> str:
    for byte in b"\\ \t\n":
        path = path.replace(bytes((byte,)), b"\\%03o" % byte)
    return path.decode("utf-8", "surrogateescape")


def mounts(tree: MountTree) -> bytes:
    """/proc/mounts."""
    lines = []
    for path, fs, options in tree.mounted:
        kind = fs_type(fs)
        lines.append(f"{kind} {_escaped(path)} {kind} {options.partition(',')[0]},relatime 0 0\n")
    return "".join(lines).encode("utf-8", "surrogateescape")


def mountinfo(tree: MountTree) -> bytes:
    """/proc/PID/mountinfo."""
    lines = []
    for number, (path, fs, options) in enumerate(tree.mounted):
        kind = fs_type(fs)
        rights = options.partition(",")[0]
        device = f"{major(fs.dev)}:{minor(fs.dev)}"
        lines.append(
            f"{20 + number} {20 if number else 1} {device} / {_escaped(path)} {rights},relatime"
            f" - {kind} {kind} {rights}\n"
        )
    return "".join(lines).encode("utf-8", "surrogateescape")


def meminfo(s: SystemFacts) -> bytes:
    """/proc/meminfo."""
    used = max(s.memory_total - s.memory_free, 0)
    values = {
        "MemTotal": s.memory_total, "MemFree": s.memory_free, "MemAvailable": s.memory_free, "Buffers": 0,
        "Cached": s.shmem, "SwapCached": 0, "Active": used, "Inactive": 0, "SwapTotal": 0, "SwapFree": 0,
        "Dirty": 0, "Writeback": 0, "AnonPages": s.anonymous, "Mapped": s.mapped, "Shmem": s.shmem,
        "Slab": 0, "SReclaimable": 0,
        "SUnreclaim": 0, "KernelStack": 0, "PageTables": s.page_tables, "CommitLimit": s.memory_total // 2,
        "Committed_AS": used, "VmallocTotal": 0, "VmallocUsed": 0, "AnonHugePages": s.huge,
    }  # fmt: skip
    lines = [f"{name + ':':<16}{value >> 10:8d} kB\n" for name, value in values.items()]
    huge = "HugePages_Total:       0\nHugePages_Free:        0\nHugepagesize:       2048 kB\n"
    return ("".join(lines) + huge).encode()


def cpuinfo(s: SystemFacts) -> bytes:
    """/proc/cpuinfo: one processor."""
    values = {
        "processor": 0, "vendor_id": s.cpu_vendor, "cpu family": s.cpu_version[0],
        "model": s.cpu_version[1], "model name": s.cpu_model, "stepping": s.cpu_version[2],
        "cpu MHz": f"{s.cpu_mhz:.3f}", "cache size": f"{s.caches[-1].kib} KB", "physical id": 0,
        "siblings": 1, "core id": 0,
        "cpu cores": 1, "apicid": 0, "fpu": "yes", "fpu_exception": "yes", "cpuid level": s.cpuid_level,
        "wp": "yes", "flags": " ".join(s.cpu_flags), "bugs": " ".join(s.cpu_bugs),
        "bogomips": f"{2 * s.cpu_mhz:.2f}", "clflush size": 64,
        "cache_alignment": 64,
        "address sizes": "{} bits physical, {} bits virtual".format(*s.address_bits),
    }  # fmt: skip
    lines = [name + "\t" * (2 - len(name) // 8) + f": {value}".rstrip() + "\n" for name, value in values.items()]
    return ("".join(lines) + "\n").encode()


def loadavg(s: SystemFacts) -> bytes:
    """/proc/loadavg: no load is averaged; how many tasks can run, how many there are, the last number given."""
    return f"0.00 0.00 0.00 {s.runnable}/{s.tasks} {s.last_pid}\n".encode()


def system_stat(s: SystemFacts) -> bytes:
    """/proc/stat."""
    idle = max(int(s.uptime * 100) - s.cpu_ticks, 0)
    times = f"{s.cpu_ticks} 0 0 {idle} 0 0 0 0 0 0"
    return (
        f"cpu  {times}\ncpu0 {times}\nintr 0\nctxt {s.context_switches}\n"
        f"btime {s.boot_time}\nprocesses {s.forks}\nprocs_running {s.runnable}\nprocs_blocked 0\n"
    ).encode()


def io(p: ProcessFacts) -> bytes:
    """/proc/PID/io: nothing is counted."""
    names = ("rchar", "wchar", "syscr", "syscw", "read_bytes", "write_bytes", "cancelled_write_bytes")
    return "".join(f"{name}: 0\n" for name in names).encode()


def syscall(p: ProcessFacts) -> bytes:
    """/proc/PID/syscall: the call's number and arguments, the stack pointer and where it returns to."""
    if not p.syscall:
        return b"running\n"
    return (" ".join([str(p.syscall[0]), *(f"{value:#x}" for value in p.syscall[1:])]) + "\n").encode()


def parsed_number(data: bytes) -> int:
    """A decimal number as written to a file of /proc (kstrtoint); EINVAL for anything else."""
    try:
        return int(data.strip(b" \n\t\0").decode("ascii"))
    except ValueError:
        raise SyscallError(Errno.EINVAL) from None


def version(s: SystemFacts) -> bytes:
    """/proc/version."""
    return f"Linux version {s.release} (mmuemu@mmuemu) (gcc) {s.version}\n".encode()


def boot_id(s: SystemFacts) -> bytes:
    """/proc/sys/kernel/random/boot_id: the same for the same machine and boot time."""
    from hashlib import sha256

    return uuid(sha256(f"{s.hostname} {s.boot_time}".encode()).digest())


def uuid(data: bytes) -> bytes:
    """16 bytes as a version 4 UUID (RFC 9562) and a newline."""
    digest = data.hex()
    return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}\n".encode()
