"""Results and errnos of one long script of raw system calls: the host's kernel and ours must agree on each."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import struct
import tempfile

import pytest
from files_guest import BASE, NUMBERS

from mmuemu.kernel.abi import fcntl as c

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64", reason="the oracle is an x86-64 Linux kernel"
)

AT = c.AT_FDCWD
OUT = object()
"""A pointer to room for a result."""
USER, GROUP = object(), object()
"""The running user, whom the guest knows as 1000."""
BAD = 0x10
"""A pointer to nothing."""
RW = c.O_RDWR


def spec(*pairs: tuple[int, int]) -> bytes:
    return b"".join(struct.pack("<qq", *pair) for pair in pairs)


def lock(kind: int, whence: int = 0) -> bytes:
    return struct.pack("<hhxxxxqqixxxx", kind, whence, 0, 0, 0)


SCRIPT = [
    # files: f (3, read-write), d (directory, 4), link -> f, pipe (5, 6), 7 read-only f, 8 write-only f
    ("mkdir", "d", 0o755),
    ("openat", AT, "f", RW | c.O_CREAT, 0o644),
    ("openat", AT, "d", c.O_RDONLY | c.O_DIRECTORY, 0),
    ("pipe2", OUT, 0),
    ("openat", AT, "f", c.O_RDONLY, 0),
    ("openat", AT, "f", c.O_WRONLY, 0),
    ("symlink", "f", "link"),
    ("write", 3, b"0123456789", 10),
    # opening
    ("openat", AT, "f", c.O_CREAT | c.O_EXCL, 0o644),
    ("openat", AT, "f", c.O_DIRECTORY, 0),
    ("openat", AT, "d", c.O_WRONLY, 0),
    ("openat", AT, "d", c.O_CREAT, 0o644),
    ("openat", AT, "d/", c.O_CREAT, 0o644),
    ("openat", AT, "new/", c.O_CREAT, 0o644),
    ("openat", AT, "f/", 0, 0),
    ("openat", AT, "link/", 0, 0),
    ("openat", AT, "f/x", 0, 0),
    ("openat", AT, ".", c.O_CREAT, 0o644),
    ("openat", AT, "..", c.O_RDWR, 0),
    ("openat", AT, "", 0, 0),
    ("openat", AT, "none", 0, 0),
    ("openat", AT, "none/none", c.O_CREAT, 0o644),
    ("openat", AT, "link", c.O_NOFOLLOW, 0),
    ("openat", AT, "link", c.O_NOFOLLOW | c.O_DIRECTORY, 0),
    ("openat", 3, "x", 0, 0),
    ("openat", 99, "x", 0, 0),
    ("openat", AT, BAD, 0, 0),
    ("openat", AT, "x" * 256, 0, 0),
    ("openat", AT, "x" * 4096, 0, 0),
    ("openat", AT, ".", c.O_TMPFILE, 0o600),
    ("openat", AT, "f", c.O_TMPFILE | RW, 0o600),
    ("creat", "f/x", 0o644),
    ("open", "none", 0, 0),
    # reading and writing
    ("read", 99, OUT, 1), ("read", -1, OUT, 1), ("read", 4, OUT, 1), ("read", 8, OUT, 1), ("read", 6, OUT, 1),
    ("read", 7, BAD, 1), ("read", 7, BAD, 0), ("read", 7, OUT, 100), ("read", 7, BAD, 100),
    ("write", 7, b"x", 1), ("write", 4, b"x", 1), ("write", 5, b"x", 1), ("write", 3, BAD, 1), ("write", 3, BAD, 0),
    ("pread64", 7, OUT, 5, 8), ("pread64", 7, OUT, 5, -1), ("pread64", 5, OUT, 5, 0), ("pread64", 4, OUT, 5, 0),
    ("pread64", 8, OUT, 5, 0), ("pread64", 99, OUT, 5, -1), ("pread64", 7, OUT, 5, 1 << 62),
    ("pwrite64", 3, b"x", 1, -1), ("pwrite64", 6, b"x", 1, 0), ("pwrite64", 7, b"x", 1, 0),
    ("readv", 7, spec((0, 0)), 1), ("readv", 7, OUT, 0), ("readv", 7, OUT, -1), ("readv", 7, OUT, 1025),
    ("readv", 8, OUT, 1), ("readv", 7, BAD, 1), ("writev", 3, OUT, 1), ("writev", 3, BAD, 1), ("writev", 7, OUT, 1),
    ("writev", 3, struct.pack("<QQ", 0x10, 1 << 63), 1), ("writev", 3, struct.pack("<QQ", 0x10, 4), 1),
    ("preadv", 7, OUT, 1, -1, 0), ("preadv", 5, OUT, 1, 0, 0), ("preadv", 8, OUT, 1, 0, 0),
    ("pwritev", 3, OUT, 1, -1, 0), ("pwritev", 7, OUT, 1, 0, 0),
    ("preadv2", 7, spec((0x10, 4)), 1, 0, 0, 0x8000), ("preadv2", 7, OUT, 1, -1, 0, 0),
    ("preadv2", 7, OUT, 1, -2, 0, 0),
    # seeking
    ("lseek", 3, -1, 0), ("lseek", 3, -100, 1), ("lseek", 3, -5, 2), ("lseek", 3, 0, 1), ("lseek", 3, 5, 9),
    ("lseek", 3, 1 << 60, 0), ("lseek", 5, 0, 0), ("lseek", 99, 0, 0), ("lseek", 3, 0, 3), ("lseek", 3, 0, 4),
    ("lseek", 3, 10, 3), ("lseek", 3, 100, 4), ("lseek", 3, -1, 3), ("lseek", 3, 0, 0), ("lseek", 4, 0, 0),
    # sizes
    ("ftruncate", 3, -1), ("ftruncate", 7, 5), ("ftruncate", 4, 5), ("ftruncate", 6, 5), ("ftruncate", 99, 5),
    ("truncate", "f", -1), ("truncate", "d", 5), ("truncate", "none", 5), ("truncate", "f/x", 5),
    ("truncate", "link", 12), ("truncate", BAD, 5),
    ("fallocate", 3, 0, 0, 20), ("fallocate", 3, 0, -1, 20), ("fallocate", 3, 0, 0, 0), ("fallocate", 7, 0, 0, 20),
    ("fallocate", 3, c.FALLOC_FL_PUNCH_HOLE, 0, 5), ("fallocate", 3, 3, 0, 5), ("fallocate", 3, 1, 0, 100),
    ("fallocate", 6, 0, 0, 5), ("fallocate", 4, 0, 0, 5), ("fallocate", 99, 0, 0, 5), ("fallocate", 3, 1 << 20, 0, 5),
    ("fadvise64", 3, 0, 0, 0), ("fadvise64", 3, 0, 0, 9), ("fadvise64", 5, 0, 0, 0), ("fadvise64", 3, 0, -1, 0),
    ("readahead", 7, 0, 10), ("readahead", 8, 0, 10), ("readahead", 5, 0, 10), ("readahead", 4, 0, 10),
    ("sync_file_range", 3, 0, 0, 0), ("sync_file_range", 3, -1, 0, 0), ("sync_file_range", 3, 0, 0, 99),
    ("sync_file_range", 5, 0, 0, 0),
    ("fsync", 3), ("fsync", 4), ("fsync", 5), ("fsync", 99), ("fdatasync", 3), ("syncfs", 3), ("syncfs", 99),
    ("sync",),
    # descriptors
    ("dup", 99), ("dup2", 3, -1), ("dup2", 3, 99999), ("dup3", 3, 3, 0), ("dup3", 3, 20, 1), ("dup2", 99, 99),
    ("dup3", 99, 20, 0), ("fcntl", 3, c.F_DUPFD, -1), ("fcntl", 3, c.F_DUPFD, 99999), ("fcntl", 3, c.F_DUPFD, 30),
    ("close", 30), ("close", 30), ("fcntl", 3, c.F_DUPFD_CLOEXEC, 40), ("fcntl", 40, c.F_GETFD, 0),
    ("fcntl", 40, c.F_SETFD, 0), ("fcntl", 40, c.F_GETFD, 0), ("close_range", 40, 50, 0), ("close_range", 50, 40, 0),
    ("close_range", 40, 50, 99), ("fcntl", 99, c.F_GETFL, 0), ("fcntl", 3, 9999, 0),
    ("fcntl", 3, c.F_GETFL, 0), ("fcntl", 4, c.F_GETFL, 0), ("fcntl", 5, c.F_GETFL, 0), ("fcntl", 6, c.F_GETFL, 0),
    ("fcntl", 3, c.F_SETFL, c.O_APPEND), ("fcntl", 3, c.F_GETFL, 0), ("fcntl", 3, c.F_SETFL, 0),
    ("fcntl", 3, c.F_SETLK, lock(1)), ("fcntl", 7, c.F_SETLK, lock(1)), ("fcntl", 8, c.F_SETLK, lock(0)),
    ("fcntl", 3, c.F_SETLK, lock(9)), ("fcntl", 3, c.F_SETLK, lock(1, 7)), ("fcntl", 3, c.F_GETLK, lock(1)),
    ("fcntl", 3, c.F_SETLK, BAD), ("fcntl", 3, c.F_SETLK, lock(2)),
    ("fcntl", 5, c.F_GETPIPE_SZ, 0), ("fcntl", 3, c.F_GETPIPE_SZ, 0), ("fcntl", 5, c.F_SETPIPE_SZ, 5000),
    ("fcntl", 6, c.F_GETPIPE_SZ, 0), ("fcntl", 5, c.F_SETPIPE_SZ, 65536), ("fcntl", 3, c.F_GETOWN, 0),
    ("flock", 3, 2), ("flock", 3, 8), ("flock", 3, 3), ("flock", 99, 2), ("flock", 5, 2),
    ("ioctl", 3, c.TCGETS, OUT), ("ioctl", 5, c.TCGETS, OUT), ("ioctl", 99, c.TCGETS, OUT), ("ioctl", 3, 0x1234, OUT),
    ("ioctl", 3, c.FIOCLEX, 0), ("fcntl", 3, c.F_GETFD, 0), ("ioctl", 3, c.FIONCLEX, 0), ("fcntl", 3, c.F_GETFD, 0),
    ("ioctl", 5, c.FIONBIO, b"\x01\0\0\0"), ("fcntl", 5, c.F_GETFL, 0), ("read", 5, OUT, 1),
    ("ioctl", 5, c.FIONREAD, OUT), ("ioctl", 3, c.FIONREAD, OUT),
    ("pipe2", OUT, 0x1234), ("pipe2", BAD, 0), ("pipe", BAD),
    ("memfd_create", BAD, 0), ("memfd_create", "x", 0x8000), ("memfd_create", "x" * 300, 0),
    ("memfd_create", "x", 0), ("fcntl", 9, c.F_GET_SEALS, 0), ("fcntl", 9, c.F_ADD_SEALS, 2), ("close", 9),
    ("memfd_create", "x", 2), ("fcntl", 9, c.F_GET_SEALS, 0), ("fcntl", 9, c.F_ADD_SEALS, 0x8000),
    ("fcntl", 9, c.F_ADD_SEALS, 8), ("fcntl", 9, c.F_GET_SEALS, 0), ("write", 9, b"x", 1), ("close", 9),
    ("sendfile", 6, 8, 0, 5), ("sendfile", 7, 7, 0, 5), ("sendfile", 6, 5, 0, 5), ("sendfile", 99, 7, 0, 5),
    ("sendfile", 6, 7, struct.pack("<q", -1), 5), ("sendfile", 6, 7, BAD, 5), ("sendfile", 6, 4, 0, 5),
    ("copy_file_range", 7, 0, 8, 0, 5, 1), ("copy_file_range", 8, 0, 3, 0, 5, 0),
    ("copy_file_range", 7, 0, 7, 0, 5, 0),
    ("copy_file_range", 4, 0, 3, 0, 5, 0), ("copy_file_range", 5, 0, 3, 0, 5, 0),
    ("copy_file_range", 99, 0, 3, 0, 5, 0),
    ("copy_file_range", 7, spec((-1, 0)), 8, 0, 5, 0),
    # stat and friends
    ("stat", "none", OUT), ("stat", "f/x", OUT), ("stat", "f", BAD), ("stat", BAD, OUT), ("lstat", "link/", OUT),
    ("fstat", 99, OUT), ("fstat", 3, BAD), ("newfstatat", AT, "", OUT, 0), ("newfstatat", 3, "", OUT, 0x1000),
    ("newfstatat", 99, "", OUT, 0x1000), ("newfstatat", AT, "f", OUT, 0x8_0000), ("newfstatat", 3, "x", OUT, 0),
    ("newfstatat", AT, "", OUT, 0x1000), ("statx", AT, "f", 0, 0x7FF, OUT), ("statx", AT, "f", 0x6000, 0x7FF, OUT),
    ("statx", AT, "f", 0, 0x8000_0000, OUT), ("statx", AT, "none", 0, 0, OUT), ("statx", AT, "f", 0x8_0000, 0, OUT),
    ("access", "f", 0), ("access", "f", 8), ("access", "none", 0), ("access", "f", 1), ("access", "f", 6),
    ("access", "d", 7), ("faccessat", AT, "link", 4), ("faccessat", 99, "f", 4), ("faccessat2", AT, "f", 4, 0x8_0000),
    ("faccessat2", AT, "f", 2, 0x200), ("faccessat2", 3, "", 4, 0x1000), ("faccessat2", AT, "link", 0, 0x100),
    ("readlink", "link", OUT, 0), ("readlink", "link", OUT, -1), ("readlink", "link", OUT, 100),
    ("readlink", "f", OUT, 9),
    ("readlink", "none", OUT, 9), ("readlink", "link", BAD, 9), ("readlinkat", 3, "", OUT, 9),
    ("readlink", "", OUT, 9),
    ("readlinkat", 4, "x", OUT, 9), ("readlinkat", 3, "x", OUT, 9),
    ("statfs", "none", OUT), ("statfs", "f", BAD), ("statfs", "f", OUT), ("fstatfs", 99, OUT), ("fstatfs", 3, OUT),
    ("getdents64", 3, OUT, 100), ("getdents64", 4, OUT, 5), ("getdents64", 99, OUT, 100), ("getdents", 3, OUT, 100),
    # names
    ("mkdir", "d", 0o755), ("mkdir", "f", 0o755), ("mkdir", "link", 0o755), ("mkdir", "none/x", 0o755),
    ("mkdir", "f/x", 0o755), ("mkdir", ".", 0o755), ("mkdir", "..", 0o755), ("mkdir", "", 0o755),
    ("mkdir", "/", 0o755),
    ("mkdirat", 4, "sub", 0o755), ("mkdirat", 3, "sub", 0o755), ("mkdirat", 99, "sub", 0o755), ("mkdir", "t/", 0o755),
    ("rmdir", "d"), ("rmdir", "f"), ("rmdir", "link"), ("rmdir", "."), ("rmdir", "d/."), ("rmdir", "d/sub/.."),
    ("rmdir", "none"), ("rmdir", "t/"), ("rmdir", "/"), ("rmdir", "link/"), ("rmdir", "f/"),
    ("unlink", "d"), ("unlink", "."), ("unlink", ".."), ("unlink", "none"), ("unlink", "f/"), ("unlink", "d/"),
    ("unlink", "/"), ("unlink", "none/"), ("unlink", "f/x"), ("unlink", ""), ("unlinkat", AT, "f", 1),
    ("unlinkat", AT, "d", 0), ("unlinkat", AT, "f", 0x200), ("unlinkat", 4, "sub", 0x200), ("unlinkat", 99, "x", 0),
    ("symlink", "", "l"), ("symlink", "x", ""), ("symlink", "x", "link"), ("symlink", "x", "d"),
    ("symlink", "x", "l/"),
    ("symlink", "x", "none/l"), ("symlink", "x" * 4095, "long"), ("symlink", "x" * 4096, "long2"),
    ("symlink", "x", "."),
    ("symlinkat", "x", 4, "l"), ("unlinkat", 4, "l", 0), ("symlinkat", "x", 99, "l"), ("unlink", "long"),
    ("link", "d", "hd"), ("link", "none", "h"), ("link", "f", "d"), ("link", "f", "f"), ("link", "f", "none/h"),
    ("link", "f", "h/"), ("link", "f/", "h"), ("link", "link", "hl"), ("readlink", "hl", OUT, 99), ("unlink", "hl"),
    ("linkat", AT, "link", AT, "hf", 0x400), ("unlink", "hf"), ("linkat", AT, "f", AT, "h", 1), ("link", ".", "x"),
    ("rename", "none", "x"), ("rename", "f", "d"), ("rename", "d", "f"), ("rename", "d", "d/x"), ("rename", "d", "d"),
    ("rename", "f", "x/"), ("rename", "f/", "x"), ("rename", "link/", "x"), ("rename", ".", "x"),
    ("rename", "f", "."),
    ("rename", "f", ".."), ("rename", "..", "x"), ("rename", "f", ""), ("rename", "", "f"), ("rename", "f", "f/x"),
    ("rename", "/", "x"), ("rename", "f", "/"), ("rename", "d/", "e/"), ("rename", "e", "d"), ("rename", "f", "f"),
    ("renameat2", AT, "f", AT, "d", 1), ("renameat2", AT, "f", AT, "x", 2), ("renameat2", AT, "f", AT, "x", 3),
    ("renameat2", AT, "f", AT, "x", 64), ("renameat", AT, "f", 4, "f"), ("renameat", 4, "f", AT, "f"),
    ("renameat2", AT, "f", AT, "d", 2), ("renameat2", AT, "f", AT, "d", 2), ("renameat", 99, "f", AT, "x"),
    ("mknod", "n", 0o20644, 0x103), ("mknod", "n", 0o60644, 1), ("mknod", "n", 0o40755, 0),
    ("mknod", "n", 0o100644, 0),
    ("mknod", "n", 0o100644, 0), ("mknod", "p", 0o10644, 0), ("mknod", "q", 0, 0), ("mknod", "f/x", 0o100644, 0),
    ("openat", AT, "p", c.O_WRONLY | c.O_NONBLOCK, 0), ("unlink", "n"), ("unlink", "p"), ("unlink", "q"),
    # attributes
    ("chmod", "none", 0o644), ("chmod", "f", 0o7777), ("chmod", "f", 0o644), ("fchmod", 99, 0o644),
    ("fchmod", 3, 0o644),
    ("fchmodat", AT, "link", 0o600), ("fchmodat", 99, "f", 0o600), ("chmod", BAD, 0o600), ("chmod", "f/", 0o600),
    ("chown", "f", -1, -1), ("chown", "f", USER, GROUP), ("chown", "f", 0, -1), ("chown", "none", -1, -1),
    ("lchown", "link", USER, GROUP), ("fchown", 3, -1, GROUP), ("fchown", 99, -1, -1),
    ("fchownat", AT, "f", -1, -1, 1),
    ("fchownat", 3, "", USER, -1, 0x1000), ("chown", "/", USER, GROUP), ("chmod", "/", 0o777),
    ("utimensat", AT, "f", spec((5, 6), (7, 8)), 0), ("utimensat", AT, "f", spec((5, -1), (7, 8)), 0),
    ("utimensat", AT, "f", spec((5, 1 << 30), (7, 8)), 0), ("utimensat", AT, "f", 0, 0), ("utimensat", 3, 0, 0, 0),
    ("utimensat", AT, "none", 0, 0), ("utimensat", AT, "f", 0, 1), ("utimensat", 3, 0, 0, 0x100),
    ("utimensat", 99, 0, 0, 0), ("utimensat", AT, "f", BAD, 0), ("utimensat", AT, "/", 0, 0),
    ("utimensat", AT, "none", spec((0, c.UTIME_OMIT), (0, c.UTIME_OMIT)), 0), ("utimensat", AT, "link", 0, 0x100),
    ("utimensat", AT, "/", spec((5, 6), (7, 8)), 0), ("utimensat", AT, "f", spec((0, c.UTIME_OMIT), (3, 3)), 0),
    ("utimes", "f", spec((1, 2), (3, 999_999))), ("utimes", "f", spec((1, 2), (3, 1_000_000))), ("utimes", "none", 0),
    ("utimes", "f", 0), ("futimesat", 4, "x", 0), ("futimesat", AT, "f", 0), ("futimesat", 3, 0, 0),
    ("utime", "f", struct.pack("<qq", 1, 2)), ("utime", "f", 0), ("utime", "none", 0),
    # places
    ("chdir", "f"), ("chdir", "none"), ("chdir", ""), ("chdir", "link"), ("fchdir", 3), ("fchdir", 99), ("fchdir", 4),
    ("openat", AT, "../f", 0, 0), ("chdir", ".."), ("getcwd", OUT, 1), ("getcwd", BAD, 4096), ("getcwd", OUT, 0),
    ("umask", 0o7027), ("umask", 0o022), ("chroot", "."), ("chroot", "none"), ("chroot", "f"),
    # poll and select
    ("poll", struct.pack("<ihh", 7, 5, 0), 1, 0), ("poll", struct.pack("<ihh", 99, 1, 0), 1, 0), ("poll", BAD, 1, 0),
    ("poll", OUT, 99999, 0), ("poll", struct.pack("<ihh", 5, 1, 0), 1, 5), ("poll", 0, 0, 1),
    ("poll", struct.pack("<ihh", -1, 1, 0), 1, 0), ("ppoll", OUT, 0, spec((0, 1)), 0, 8),
    ("ppoll", OUT, 0, spec((0, -1)), 0, 8),
    ("select", 9, struct.pack("<Q", 1 << 7), 0, 0, spec((0, 0))), ("select", -1, 0, 0, 0, 0),
    ("select", 61, struct.pack("<Q", 1 << 60), 0, 0, spec((0, 0))), ("select", 9, BAD, 0, 0, spec((0, 0))),
    ("select", 9, struct.pack("<Q", 1 << 5), struct.pack("<Q", 1 << 6), 0, spec((0, 0))),
    ("select", 0, 0, 0, 0, spec((0, 10))), ("select", 0, 0, 0, 0, spec((0, -1))),
    ("pselect6", 0, 0, 0, 0, spec((0, 10)), 0),
]  # fmt: skip


def host_results(directory: str) -> list[int]:
    """Run the script in a child of this process, as an ordinary user, with only descriptors 0 to 2 open."""
    with tempfile.TemporaryFile() as answer:
        child = os.fork()
        if child == 0:
            try:
                os.chdir(directory)
                keep = 200
                os.dup2(answer.fileno(), keep)
                null = os.open(os.devnull, os.O_RDWR)
                for fd in (0, 1, 2):
                    os.dup2(null, fd)
                os.closerange(3, keep)
                os.closerange(keep + 1, 4096)
                if os.geteuid() == 0:
                    os.setgroups([])
                    os.setgid(1000)
                    os.setuid(1000)
                os.umask(0o022)
                libc = ctypes.CDLL(None, use_errno=True)
                libc.syscall.restype = ctypes.c_long
                results = []
                for name, *args in SCRIPT:
                    kept = [_host_argument(a) for a in args]
                    result = libc.syscall(NUMBERS[name].number, *kept)
                    results.append(result if result >= 0 else -ctypes.get_errno())
                os.write(keep, json.dumps(results).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        answer.seek(0)
        return json.loads(answer.read())


def _host_argument(argument):
    if argument is OUT:
        return ctypes.create_string_buffer(4096)
    if argument is USER or argument is GROUP:
        argument = os.getuid() if argument is USER else os.getgid()
    if isinstance(argument, str):
        return ctypes.c_char_p(argument.encode())
    if isinstance(argument, bytes):
        return ctypes.create_string_buffer(argument)
    return ctypes.c_long(argument)


def guest_results(guest) -> list[int]:
    results = []
    for name, *args in SCRIPT:
        at = BASE
        ready = []
        for argument in args:
            if argument is USER or argument is GROUP:
                ready.append(1000)
            elif argument is OUT:
                guest.memory.write(at, bytes(4096))
                ready.append(at)
                at += 4096
            elif isinstance(argument, (str, bytes)):
                data = (argument.encode() if isinstance(argument, str) else argument) + b"\0"
                guest.memory.write(at, data)
                ready.append(at)
                at += len(data) + 8 & ~7
            else:
                ready.append(argument)
        results.append(guest.raw(name, *ready))
    return results


@pytest.mark.parametrize("kind", ["memory", "overlay", "shared"])
def test_every_step_agrees(make_guest, tmp_path, kind):
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as directory:
        os.chmod(directory, 0o777)
        theirs = host_results(directory)
    options = {"memory": [], "overlay": [f"{tmp_path}:/o"], "shared": [f"{tmp_path}:/o:rw"]}[kind]
    guest = make_guest("/", isolate=True, mounts=options)
    top = "/tmp/w" if kind == "memory" else "/o/w"
    assert guest.call("mkdir", top, 0o777) == 0
    assert guest.call("chdir", top) == 0
    ours = guest_results(guest)
    wrong = [
        f"{name}{tuple('OUT' if a is OUT else a for a in args)}: host {a}, guest {b}"
        for (name, *args), a, b in zip(SCRIPT, theirs, ours, strict=True)
        if a != b
        and not (name in FREE and a >= 0 and b >= 0)
        and not (kind == "shared" and (name, *args) in NOT_SHARED)
    ]
    assert not wrong, "\n".join(wrong[:20])


FREE = {"getcwd", "readahead"}
"""Calls whose results depend on where the directory is."""
NOT_SHARED = [
    ("mknod", "p", 0o10644, 0),
    ("openat", AT, "p", c.O_WRONLY | c.O_NONBLOCK, 0),
    ("unlink", "p"),
    ("renameat2", AT, "f", AT, "d", 2),
]
"""What a directory shared with the host cannot do: named pipes, exchanging names."""
