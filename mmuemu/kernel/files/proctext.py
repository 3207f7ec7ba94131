"""The texts of /proc (proc(5); Linux fs/proc/{array,meminfo,stat,uptime,loadavg,version,base}.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.stat import OVERLAYFS_SUPER_MAGIC, PROC_SUPER_MAGIC, TMPFS_MAGIC, major, minor

if TYPE_CHECKING:
    from mmuemu.kernel.files.inode import FileSystem
    from mmuemu.kernel.files.namespace import MountTree
    from mmuemu.kernel.files.openfile import OpenFile
    from mmuemu.kernel.files.procsource import ProcessFacts, SystemFacts

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
_TYPES: Final = {OVERLAYFS_SUPER_MAGIC: "overlay", PROC_SUPER_MAGIC: "proc", TMPFS_MAGIC: "tmpfs"}


def fs_type(fs: FileSystem) -> str:
    """The type /proc/mounts shows; directories shared for writing are 9p."""
    return "devtmpfs" if fs.name == "devtmpfs" else _TYPES.get(fs.magic, "9p")


def status(p: ProcessFacts) -> bytes:
    """/proc/PID/status."""
    kb = {
        "VmPeak": p.peak or p.virtual,
        "VmSize": p.virtual,
        "VmLck": 0,
        "VmPin": 0,
        "VmHWM": p.resident,
        "VmRSS": p.resident,
        "RssAnon": max(p.resident - p.shared, 0),
        "RssFile": p.shared,
        "RssShmem": 0,
        "VmData": p.data,
        "VmStk": p.stack,
        "VmExe": p.text,
        "VmLib": 0,
        "VmPTE": 0,
        "VmSwap": 0,
    }
    sizes = "".join(f"{name}:\t{size >> 10:8d} kB\n" for name, size in kb.items())
    uid, gid = p.uid, p.gid
    head = (
        f"Umask:\t{p.fs.umask:04o}\nState:\t{p.state} ({_STATES.get(p.state, 'running')})\nTgid:\t{p.pid}\n"
        f"Ngid:\t0\nPid:\t{p.pid}\nPPid:\t{p.ppid}\nTracerPid:\t0\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"
        f"Gid:\t{gid}\t{gid}\t{gid}\t{gid}\nFDSize:\t{64}\nGroups:\t{gid} \n"
    )
    masks = {
        "SigPnd": 0,
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
        "Cpus_allowed:\t1\nCpus_allowed_list:\t0\n"
        "voluntary_ctxt_switches:\t0\nnonvoluntary_ctxt_switches:\t0\n"
    )
    return b"Name:\t" + _printable(p.name) + b"\n" + (head + sizes + rest).encode()


def _printable(name: bytes) -> bytes:
    return name[:15].replace(b"\\", b"\\\\").replace(b"\n", b"\\n")


def stat(p: ProcessFacts) -> bytes:
    """/proc/PID/stat: 52 fields on one line."""
    fields = (
        p.state, p.ppid, p.pgrp or p.pid, p.session or p.pid, 0, -1, 0x400000, p.minor_faults, 0,
        p.major_faults, 0, p.user_ticks, p.system_ticks, 0, 0, 20, 0, len(p.threads) or 1, 0, p.start_ticks,
        p.virtual, p.resident >> 12, _INFINITY, p.start_code, p.end_code, p.start_stack, 0, 0,
        p.pending & 0x7FFF_FFFF, p.blocked & 0x7FFF_FFFF, p.ignored & 0x7FFF_FFFF, p.caught & 0x7FFF_FFFF,
        0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, p.start_brk, 0, 0, 0, 0, 0,
    )  # fmt: skip
    return b"%d (%b) %b\n" % (p.pid, p.name[:15], " ".join(map(str, fields)).encode())


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
        "Cached": 0, "SwapCached": 0, "Active": used, "Inactive": 0, "SwapTotal": 0, "SwapFree": 0,
        "Dirty": 0, "Writeback": 0, "AnonPages": used, "Mapped": 0, "Shmem": 0, "Slab": 0, "SReclaimable": 0,
        "SUnreclaim": 0, "KernelStack": 0, "PageTables": 0, "CommitLimit": s.memory_total // 2,
        "Committed_AS": used, "VmallocTotal": 0, "VmallocUsed": 0,
    }  # fmt: skip
    lines = [f"{name + ':':<16}{value >> 10:8d} kB\n" for name, value in values.items()]
    huge = "HugePages_Total:       0\nHugePages_Free:        0\nHugepagesize:       2048 kB\n"
    return ("".join(lines) + huge).encode()


def cpuinfo(s: SystemFacts) -> bytes:
    """/proc/cpuinfo: one processor."""
    values = {
        "processor": 0, "vendor_id": s.cpu_vendor, "cpu family": s.cpu_version[0],
        "model": s.cpu_version[1], "model name": s.cpu_model, "stepping": s.cpu_version[2],
        "cpu MHz": f"{s.cpu_mhz:.3f}", "cache size": "16384 KB", "physical id": 0,
        "siblings": 1, "core id": 0,
        "cpu cores": 1, "apicid": 0, "fpu": "yes", "fpu_exception": "yes", "cpuid level": s.cpuid_level,
        "wp": "yes", "flags": " ".join(s.cpu_flags), "bogomips": f"{2 * s.cpu_mhz:.2f}", "clflush size": 64,
        "cache_alignment": 64,
        "address sizes": "{} bits physical, {} bits virtual".format(*s.address_bits),
    }  # fmt: skip
    lines = [name + "\t" * (2 - len(name) // 8) + f": {value}\n" for name, value in values.items()]
    return ("".join(lines) + "\n").encode()


def system_stat(s: SystemFacts, running: int) -> bytes:
    """/proc/stat."""
    ticks = int(s.uptime * 100)
    return (
        f"cpu  {ticks} 0 0 0 0 0 0 0 0 0\ncpu0 {ticks} 0 0 0 0 0 0 0 0 0\nintr 0\nctxt {s.context_switches}\n"
        f"btime {s.boot_time}\nprocesses {s.last_pid}\nprocs_running {running}\nprocs_blocked 0\n"
    ).encode()


def version(s: SystemFacts) -> bytes:
    """/proc/version."""
    return f"Linux version {s.release} (mmuemu@{s.hostname}) (gcc) {s.version}\n".encode()


def boot_id(s: SystemFacts) -> bytes:
    """/proc/sys/kernel/random/boot_id: the same for the same machine and boot time."""
    from hashlib import sha256

    digest = sha256(f"{s.hostname} {s.boot_time}".encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}\n".encode()
