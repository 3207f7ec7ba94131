"""The cases: each call with plausible arguments, and each argument in its turn replaced by hostile ones."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import mmuemu.kernel.syscalls
from mmuemu.kernel.syscalls.table import TABLE, Syscall
from tests.hostile import image as at
from tests.hostile.image import POINTERS, build

IMAGE = build()
MASK = (1 << 64) - 1
POINTER_KINDS = {"ptr", "struct", "path", "string", "in_buffer", "out_buffer", "iovec", "argv", "addr"}
INTS = {"-1": MASK, "int-min": 0x8000_0000, "int-max": 0x7FFF_FFFF, "0": 0, "4097": 4097, "high-garbage": 0xDEAD << 32}
WORDS = {
    "-1": MASK,
    "min": 1 << 63,
    "max": (1 << 63) - 1,
    "0": 0,
    "2^62": 1 << 62,
    "2^47": 1 << 47,
    "int-max": 0x7FFF_FFFF,
}
FDS = {"-1": MASK, "cwd": -100 & MASK, "999": 999, "int-min": 0x8000_0000, "int-max": 0x7FFF_FFFF, "2^32": 1 << 32,
       "path-only": at.FD_PATH, "directory": at.FD_DIRECTORY, "pipe": at.FD_PIPE, "pipe-end": at.FD_PIPE_END,
       "socket": at.FD_SOCKET, "epoll": at.FD_EPOLL, "event": at.FD_EVENT, "read-only": at.FD_READ_ONLY,
       "write-only": at.FD_WRITE_ONLY}  # fmt: skip
BITS = {"all": 0xFFFF_FFFF, "top": 0x8000_0000, "bit-16": 1 << 16, "bit-24": 1 << 24, "0": 0, "3": 3}
HOSTILE: dict[str, dict[str, int]] = {
    **dict.fromkeys(POINTER_KINDS, POINTERS),
    **dict.fromkeys(("int", "uint", "uid", "pid", "whence", "signal", "clockid", "advice", "request"), INTS),
    **dict.fromkeys(("size", "ulong", "long", "off"), WORDS),
    **dict.fromkeys(("fd", "dirfd"), FDS),
    **dict.fromkeys(("flags", "at_flags", "open_flags", "prot", "map_flags", "mode", "octal"), BITS),
}
"""Hostile values by kind of argument."""

BUFFER, SPARE = IMAGE.BUFFER, IMAGE.BUFFER + 0x1000
PLAUSIBLE: dict[str, int] = {
    "fd": at.FD_FILE, "dirfd": -100 & MASK, "pid": 0, "uid": MASK, "size": 16, "path": IMAGE.FILE, "octal": 0o600,
    "in_buffer": BUFFER, "out_buffer": BUFFER, "struct": BUFFER, "ptr": BUFFER, "string": IMAGE.WORD, "addr": SPARE,
    "iovec": IMAGE.IOV, "argv": IMAGE.ARGV, "signal": 17, "mode": 0o600,
}  # fmt: skip
"""What an argument is when nothing says otherwise; 0 for the kinds that are not here."""

_I = IMAGE
CALLS: dict[str, tuple[int, ...]] = {
    "poll": (_I.POLLFD, 1, 0), "ppoll": (_I.POLLFD, 1, _I.TIME0, _I.SET, 8), "mmap": (0, 4096, 3, 0x22, MASK, 0),
    "mprotect": (SPARE, 4096, 3), "munmap": (SPARE, 4096), "rt_sigaction": (10, _I.ACTION, BUFFER, 8),
    "rt_sigprocmask": (0, _I.SET, BUFFER, 8), "ioctl": (at.FD_SOCKET, 0x541B, BUFFER), "lseek": (at.FD_FILE, 0, 0),
    "readv": (at.FD_FILE, _I.IOV, 1), "writev": (at.FD_FILE, _I.IOV, 1), "preadv": (at.FD_FILE, _I.IOV, 1, 0, 0),
    "pwritev": (at.FD_FILE, _I.IOV, 1, 0, 0), "preadv2": (at.FD_FILE, _I.IOV, 1, 0, 0, 0),
    "pwritev2": (at.FD_FILE, _I.IOV, 1, 0, 0, 0), "select": (11, _I.FDSET, 0, 0, _I.TIME0),
    "pselect6": (11, _I.FDSET, 0, 0, _I.TIME0, _I.MASKSIZE), "mremap": (SPARE, 4096, 8192, 1, 0),
    "msync": (SPARE, 4096, 4), "mincore": (SPARE, 4096, BUFFER), "madvise": (SPARE, 4096, 0),
    "shmget": (0, 4096, 0o600), "shmat": (at.SHM, 0, 0), "shmctl": (at.SHM, 2, BUFFER), "shmdt": (SPARE,),
    "dup2": (at.FD_FILE, 40), "dup3": (at.FD_FILE, 40, 0), "nanosleep": (_I.TIME1, BUFFER),
    "setitimer": (1, _I.ITIMER, BUFFER), "getitimer": (1, BUFFER), "sendfile": (at.FD_NULL, at.FD_FILE, _I.OFF, 16),
    "socket": (1, 1, 0), "socketpair": (1, 1, 0, BUFFER), "connect": (at.FD_DATAGRAM, _I.ADDRESS, 110),
    "accept": (at.FD_LISTENING, BUFFER, _I.LENGTH), "accept4": (at.FD_LISTENING, BUFFER, _I.LENGTH, 0),
    "sendto": (at.FD_SOCKET, BUFFER, 16, 0, 0, 0), "recvfrom": (at.FD_SOCKET, BUFFER, 16, 0, BUFFER, _I.LENGTH),
    "sendmsg": (at.FD_SOCKET, _I.MESSAGE, 0), "recvmsg": (at.FD_SOCKET, _I.MESSAGE, 0),
    "sendmmsg": (at.FD_SOCKET, _I.MESSAGES, 2, 0), "recvmmsg": (at.FD_SOCKET, _I.MESSAGES, 1, 0, _I.TIME1),
    "shutdown": (at.FD_SOCKET, 0), "bind": (at.FD_DATAGRAM, _I.ADDRESS, 110), "listen": (at.FD_LISTENING, 1),
    "getsockname": (at.FD_SOCKET, BUFFER, _I.LENGTH), "getpeername": (at.FD_SOCKET, BUFFER, _I.LENGTH),
    "setsockopt": (at.FD_SOCKET, 1, 7, _I.LENGTH, 4), "getsockopt": (at.FD_SOCKET, 1, 7, BUFFER, _I.SMALL),
    "clone": (17, 0, BUFFER, BUFFER, 0), "execve": (_I.PROGRAM, _I.ARGV, _I.ENVP), "wait4": (MASK, BUFFER, 1, BUFFER),
    "execveat": (-100 & MASK, _I.PROGRAM, _I.ARGV, _I.ENVP, 0), "waitid": (0, 0, BUFFER, 5, BUFFER + 512),
    "semget": (0, 1, 0o600), "semop": (at.SEM, _I.SEMBUF, 1), "semtimedop": (at.SEM, _I.SEMBUF, 1, _I.TIME1),
    "semctl": (at.SEM, 0, 2, BUFFER), "msgget": (0, 0o600), "msgsnd": (at.MSG, _I.MSGBUF, 4, 0o4000),
    "msgrcv": (at.MSG, BUFFER, 16, 0, 0o4000), "msgctl": (at.MSG, 2, BUFFER), "fcntl": (at.FD_FILE, 3, 0),
    "flock": (at.FD_FILE, 1), "truncate": (_I.FILE, 100), "ftruncate": (at.FD_FILE, 100),
    "getdents": (at.FD_DIRECTORY, BUFFER, 512), "getdents64": (at.FD_DIRECTORY, BUFFER, 512), "getcwd": (BUFFER, 512),
    "chdir": (_I.DIR,), "fchdir": (at.FD_DIRECTORY,), "rename": (_I.FILE, _I.NEW), "mkdir": (_I.NEW, 0o700),
    "rmdir": (_I.DIR,), "link": (_I.FILE, _I.NEW), "symlink": (_I.WORD, _I.NEW), "readlink": (_I.LINK, BUFFER, 64),
    "setgroups": (0, BUFFER), "getgroups": (4, BUFFER), "rt_sigpending": (BUFFER, 8),
    "rt_sigtimedwait": (_I.SET, BUFFER, _I.TIME1, 8), "rt_sigqueueinfo": (at.SELF, 17, _I.SIGINFO),
    "rt_tgsigqueueinfo": (at.SELF, at.SELF, 17, _I.SIGINFO), "rt_sigsuspend": (_I.SET, 8),
    "sigaltstack": (_I.STACK, BUFFER), "utime": (_I.FILE, _I.UTIMBUF), "utimes": (_I.FILE, _I.TIMES),
    "mknod": (_I.NEW, 0o100600, 0), "mknodat": (-100 & MASK, _I.NEW, 0o100600, 0), "kill": (at.SELF, 17),
    "tkill": (at.SELF, 17), "tgkill": (at.SELF, at.SELF, 17), "sched_setparam": (0, _I.SCHEDPARAM),
    "sched_setscheduler": (0, 0, _I.SCHEDPARAM), "sched_setattr": (0, _I.SCHEDATTR, 0),
    "sched_getattr": (0, BUFFER, 48, 0), "mlock": (SPARE, 4096), "munlock": (SPARE, 4096), "mlock2": (SPARE, 4096, 0),
    "mlockall": (2,), "prctl": (3, 0, 0, 0, 0), "arch_prctl": (0x1003, BUFFER), "setrlimit": (7, _I.RLIMIT),
    "prlimit64": (0, 7, _I.RLIMIT, BUFFER), "getrlimit": (7, BUFFER), "chroot": (_I.DIR,),
    "mount": (_I.TMPFS, _I.DIR, _I.TMPFS, 0, 0), "umount2": (_I.DIR, 0), "sethostname": (_I.WORD, 4),
    "setxattr": (_I.FILE, _I.XATTR, BUFFER, 4, 0), "lsetxattr": (_I.FILE, _I.XATTR, BUFFER, 4, 0),
    "fsetxattr": (at.FD_FILE, _I.XATTR, BUFFER, 4, 0), "getxattr": (_I.FILE, _I.XATTR, BUFFER, 4),
    "lgetxattr": (_I.FILE, _I.XATTR, BUFFER, 4), "fgetxattr": (at.FD_FILE, _I.XATTR, BUFFER, 4),
    "removexattr": (_I.FILE, _I.XATTR), "lremovexattr": (_I.FILE, _I.XATTR), "fremovexattr": (at.FD_FILE, _I.XATTR),
    "futex": (_I.FUTEX, 0, 1, _I.TIME1, 0, 0), "sched_setaffinity": (0, 8, _I.MASK),
    "sched_getaffinity": (0, 128, BUFFER), "epoll_create": (1,), "timer_create": (1, _I.SIGEVENT, BUFFER),
    "timer_settime": (at.TIMER, 0, _I.ITIMER, BUFFER), "timer_gettime": (at.TIMER, BUFFER),
    "timer_getoverrun": (at.TIMER,), "timer_delete": (at.TIMER,), "clock_settime": (0, _I.TIME1),
    "clock_nanosleep": (1, 0, _I.TIME1, BUFFER), "epoll_wait": (at.FD_EPOLL, _I.EVENTS, 4, 0),
    "epoll_pwait": (at.FD_EPOLL, _I.EVENTS, 4, 0, _I.SET, 8), "epoll_ctl": (at.FD_EPOLL, 1, at.FD_SOCKET, _I.EVENT),
    "epoll_pwait2": (at.FD_EPOLL, _I.EVENTS, 4, _I.TIME0, _I.SET, 8), "mbind": (SPARE, 4096, 0, 0, 0, 0),
    "set_mempolicy": (0, 0, 0), "get_mempolicy": (BUFFER, 0, 0, 0, 0), "mq_open": (_I.WORD, 0o102, 0o600, 0),
    "mq_unlink": (_I.WORD,), "mq_timedsend": (at.FD_QUEUE, BUFFER, 8, 0, _I.TIME1),
    "mq_timedreceive": (at.FD_QUEUE, BUFFER, 16, BUFFER + 64, _I.TIME1), "mq_notify": (at.FD_QUEUE, _I.SIGEVENT),
    "mq_getsetattr": (at.FD_QUEUE, 0, BUFFER), "mkdirat": (-100 & MASK, _I.NEW, 0o700), "ioprio_get": (1, 0),
    "ioprio_set": (1, 0, 0x4004), "unlinkat": (-100 & MASK, _I.FILE, 0), "symlinkat": (_I.WORD, -100 & MASK, _I.NEW),
    "renameat": (-100 & MASK, _I.FILE, -100 & MASK, _I.NEW), "linkat": (-100 & MASK, _I.FILE, -100 & MASK, _I.NEW, 0),
    "renameat2": (-100 & MASK, _I.FILE, -100 & MASK, _I.NEW, 0), "readlinkat": (-100 & MASK, _I.LINK, BUFFER, 64),
    "set_robust_list": (_I.ROBUST, 24), "get_robust_list": (0, BUFFER, BUFFER + 64),
    "splice": (at.FD_FILE, _I.OFF, at.FD_PIPE_END, 0, 16, 2), "tee": (at.FD_PIPE, at.FD_PIPE_END, 16, 2),
    "vmsplice": (at.FD_PIPE_END, _I.IOV, 1, 2), "utimensat": (-100 & MASK, _I.FILE, _I.TIMES, 0),
    "futimesat": (-100 & MASK, _I.FILE, _I.TIMES), "signalfd": (MASK, _I.SET, 8), "signalfd4": (MASK, _I.SET, 8, 0),
    "timerfd_create": (1, 0), "timerfd_settime": (at.FD_TIMER, 0, _I.ITIMER, BUFFER),
    "timerfd_gettime": (at.FD_TIMER, BUFFER), "fallocate": (at.FD_FILE, 0, 0, 4096),
    "kcmp": (at.SELF, at.SELF, 1, 0, 0),
    "copy_file_range": (at.FD_READ_ONLY, _I.OFF, at.FD_WRITE_ONLY, _I.OFF2, 16, 0),
    "statx": (-100 & MASK, _I.FILE, 0, 0x7FF, BUFFER),
    "rseq": (_I.BUFFER, 32, 0, 0x53053053), "pidfd_send_signal": (at.FD_PIDFD, 17, 0, 0), "pidfd_open": (at.SELF, 0),
    "pidfd_getfd": (at.FD_PIDFD, 0, 0), "clone3": (_I.CLONE, 64), "close_range": (50, 60, 0),
    "memfd_create": (_I.WORD, 0),
    "openat2": (-100 & MASK, _I.FILE, _I.OPENHOW, 24), "futex_waitv": (_I.WAITERS, 1, 0, _I.TIME1, 1),
    "capget": (_I.CAPHEADER, _I.CAPDATA), "fadvise64": (at.FD_FILE, 0, 0, 0), "getrandom": (BUFFER, 16, 0),
    "fchmodat2": (-100 & MASK, _I.FILE, 0o600, 0), "getrusage": (0, BUFFER),
    "sched_get_priority_max": (0,), "sched_rr_get_interval": (0, BUFFER), "getpriority": (0, 0),
    "setpriority": (0, 0, 10),
    "getcpu": (BUFFER, BUFFER, 0), "alarm": (0,), "brk": (0,), "membarrier": (0, 0, 0),
    "open": (_I.FILE, 0, 0), "openat": (-100 & MASK, _I.FILE, 0, 0), "access": (_I.FILE, 4),
}  # fmt: skip
"""Plausible arguments of calls whose kinds do not say enough."""


@dataclass(frozen=True, slots=True)
class HostileCall:
    """One call to be made: which, how it is called in reports, and with what."""

    call: Syscall
    position: int
    value: str
    arguments: tuple[int, ...]

    @property
    def name(self) -> str:
        """Like ``read(out_buffer 1: null)``."""
        if self.position < 0:
            return f"{self.call.name}(plausible)"
        return f"{self.call.name}({self.call.kinds[self.position]} {self.position}: {self.value})"

    @property
    def needs(self) -> int:
        """What the program prepares: descriptors by bit, 1 for a directory with files."""
        kinds = self.call.kinds
        bits = 1 if {"path", "string", "fd", "dirfd"} & set(kinds) else 0
        for kind, value in zip(kinds, self.arguments, strict=False):
            if kind in ("fd", "dirfd") and 10 <= value < 28:
                bits |= 1 << value
        if self.call.name in ("poll", "ppoll", "select", "pselect6"):
            bits |= 1 << at.FD_FILE | 1
        return bits

    def packed(self) -> bytes:
        """As ``struct job`` of guest/calls.c."""
        return struct.pack("<II6Q", self.call.number, self.needs, *self.arguments, *[0] * (6 - len(self.arguments)))


def plausible(call: Syscall) -> tuple[int, ...]:
    """Arguments with which the call has a chance."""
    given = CALLS.get(call.name)
    return given if given is not None else tuple(PLAUSIBLE.get(kind, 0) for kind in call.kinds)


def cases() -> list[HostileCall]:
    """Every case of every call that is implemented, in the order of the calls' numbers."""
    mmuemu.kernel.syscalls.load_all()
    found = []
    for _, call in sorted(TABLE.items()):
        base = plausible(call)
        assert len(base) == len(call.kinds), call.name
        found.append(HostileCall(call, -1, "", base))
        for position, kind in enumerate(call.kinds):
            for value, bits in HOSTILE[kind].items():
                found.append(HostileCall(call, position, value, (*base[:position], bits, *base[position + 1 :])))
    return found
