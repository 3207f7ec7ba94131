"""System calls that reach for the host, and how each is refused: the table."""

from __future__ import annotations

import struct
from typing import Final

from mmuemu.kernel.syscalls import load_all
from mmuemu.kernel.syscalls.table import TABLE
from mmuemu.view.strace.words import MISSING

HOST: Final = "HOST"
"""Stands for the number of a process of the host's that no guest process has."""
RW: Final = "RW"
"""Stands for the directory that is mounted for writing; next to it lies ``outside`` with its file ``name``."""
_NEW: Final = 0o101
_PATH: Final = 0o10000000
_FAMILIES: Final = (2, 3, 4, 5, 9, 10, 15, 16, 17, 29, 31, 36, 38, 39, 40, 44)
"""AF_INET, AX25, IPX, APPLETALK, X25, INET6, KEY, NETLINK, PACKET, CAN, BLUETOOTH, IEEE802154, ALG, NFC, VSOCK, XDP."""
_NAMESPACES: Final = (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
_DEVICES: Final = (
    "mem", "kmem", "port", "sda", "vda", "nvme0n1", "kvm", "fuse", "loop0", "hpet", "vhost-net", "input/event0",
    "console", "tty0", "ttyS0", "kmsg", "net/tun", "cpu/0/msr", "mapper/control",
)  # fmt: skip


def _how(flags: int, resolve: int) -> str:
    return "x:" + struct.pack("<QQQ", flags, 0, resolve).hex()


ATTEMPTS: Final[dict[str, dict[str, tuple[object, ...]]]] = {
    # Signals, priorities, memory and limits of a process that only the host has.
    "ESRCH": {
        "kill": ("kill", HOST, 9),
        "kill, its group": ("kill", f"-{HOST}", 9),
        "tkill": ("tkill", HOST, 9),
        "tgkill": ("tgkill", HOST, HOST, 9),
        "queue": ("rt_sigqueueinfo", HOST, 10, "x:" + struct.pack("<iii", 10, 0, -1).ljust(128, b"\0").hex()),
        "pidfd": ("pidfd_open", HOST, 0),
        "limits": ("prlimit64", HOST, 7, "@", 0),
        "affinity": ("sched_setaffinity", HOST, 8, "x:0100000000000000"),
        "policy": ("sched_setscheduler", HOST, 0, "x:00000000"),
        "priority": ("setpriority", 0, HOST, 5),
        "I/O priority": ("ioprio_set", 1, HOST, 0x4004),
        "group": ("getpgid", HOST),
        "session": ("getsid", HOST),
        "move to a group": ("setpgid", HOST, HOST),
        "robust list": ("get_robust_list", HOST, "@", "@"),
        "kcmp": ("kcmp", HOST, HOST, 0, 0, 0),
    },
    "ECHILD": {"wait": ("wait4", HOST, 0, 1, 0)},
    "EAFNOSUPPORT": {f"family {family}": ("socket", family, 3, 0) for family in _FAMILIES},
    "ENOENT": {
        **{f"/dev/{name}": ("openat", -100, f"s:/dev/{name}", 2) for name in _DEVICES},
        "outside": ("openat", -100, f"s:{RW}/../outside/name", 0),
        "outside, from a directory": ("openat", f"f:{RW}", "s:../outside/name", 0),
        "outside, from /": ("openat", "f:/", "s:../../../../outside/name", 0),
        "outside, by link": ("openat", -100, f"s:{RW}/link", 2),
        "outside, made by link": ("openat", -100, f"s:{RW}/dangling", _NEW, 0o600),
        "outside, by O_PATH": ("openat", -100, f"s:{RW}/../outside/name", _PATH),
        "in its own root": ("openat2", f"f:{RW}", "s:/../outside/name", _how(0, 0x10), 24),
        "/proc/kcore": ("openat", -100, "s:/proc/kcore", 0),
        "/proc/sysrq-trigger": ("openat", -100, "s:/proc/sysrq-trigger", 1),
        "its directory": ("openat", -100, f"s:/proc/{HOST}/root", 0),
        "its memory": ("openat", -100, f"s:/proc/{HOST}/mem", 2),
        "an inherited descriptor": ("openat", -100, "s:/proc/self/fd/77", 0),
        "an inherited descriptor in /dev": ("openat", -100, "s:/dev/fd/77", 0),
        "rename out": ("rename", f"s:{RW}/file", f"s:{RW}/../outside/file"),
        "link out": ("link", f"s:{RW}/file", f"s:{RW}/../outside/file"),
        "link in": ("link", f"s:{RW}/../outside/name", f"s:{RW}/hard"),
        "link what a link shows": ("linkat", -100, f"s:{RW}/link", -100, f"s:{RW}/hard", 0x400),
        "execute outside": ("execve", f"s:{RW}/link", 0, 0),
    },
    "EXDEV": {
        "beneath": ("openat2", f"f:{RW}", "s:../outside/name", _how(0, 8), 24),
        "beneath, absolute": ("openat2", f"f:{RW}", "s:/etc/passwd", _how(0, 8), 24),
        "no other mount": ("openat2", "f:/", "s:proc/self/exe", _how(0, 1), 24),
        "rename to another mount": ("rename", f"s:{RW}/file", "s:/tmp/file"),
        "link to another mount": ("link", f"s:{RW}/file", "s:/tmp/file"),
    },
    "ELOOP": {
        "no links": ("openat2", f"f:{RW}", "s:link", _how(0, 4), 24),
        "no magic links": ("openat2", -100, "s:/proc/self/exe", _how(0, 2), 24),
        "no following": ("openat", -100, f"s:{RW}/link", 0o400000),
    },
    "EPERM": {
        **{f"namespace {flag:#x}": ("clone", flag | 17, 0, 0, 0, 0) for flag in _NAMESPACES},
        "mount": ("mount", "s:/dev/sda1", "s:/tmp", "s:ext4", 0, 0),
        "bind": ("mount", f"s:{RW}/..", "s:/tmp", 0, 0x1000, 0),
        "umount": ("umount2", "s:/tmp", 2),
        "host name": ("sethostname", "s:broken", 6),
        "clock": ("clock_settime", 0, "x:" + bytes(16).hex()),
        "a device": ("mknodat", -100, f"s:{RW}/device", 0o020666, 0x101),
        "a disk": ("mknodat", -100, f"s:{RW}/disk", 0o060666, 0x800),
        "root": ("setuid", 0),
        "all groups": ("setgroups", 1, "x:00000000"),
        "chroot": ("chroot", "s:/tmp"),
    },
    "ENOSYS": {
        name: (name, *([1] * 6))
        for name in (
            "ptrace", "process_vm_readv", "process_vm_writev", "pivot_root", "reboot", "init_module", "finit_module",
            "delete_module", "kexec_load", "kexec_file_load", "swapon", "swapoff", "iopl", "ioperm", "acct", "quotactl",
            "bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "add_key", "keyctl", "request_key", "setns",
            "open_by_handle_at", "name_to_handle_at", "fanotify_init", "syslog", "vhangup", "modify_ldt", "move_mount",
            "open_tree", "fsopen", "unshare", "fspick", "mount_setattr", "process_madvise", "move_pages",
            "migrate_pages",
        )
    },
}  # fmt: skip
"""By how it is refused: attempt -> the call and its arguments."""


OF_ROOT: Final = ("root",)
"""What the guest's root may do: it is root of the guest alone."""


def numbers() -> dict[str, int]:
    """Linux's numbers of calls by name, those that are not here too."""
    load_all()
    return {call.name: call.number for call in TABLE.values()} | {name: number for number, name in MISSING.items()}


def lines(host: int, rw: str) -> str:
    """What guest/attempts.c reads."""
    known = numbers()
    told = []
    for attempts in ATTEMPTS.values():
        for name, (call, *arguments) in attempts.items():
            words = [str(one).replace(HOST, str(host)).replace(RW, rw) for one in arguments]
            told.append(f"{name}\t{known[str(call)]} {' '.join(words)}\n")
    return "".join(told)


def expected(uid: int) -> dict[str, str]:
    """How each attempt ends by name, for a guest that runs as ``uid``."""
    refused = {name: error for error, attempts in ATTEMPTS.items() for name in attempts}
    return refused if uid else {**refused, **dict.fromkeys(OF_ROOT, "ok")}
