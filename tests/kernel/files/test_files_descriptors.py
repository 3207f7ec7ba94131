"""Descriptors: numbering, duplicates, flags, pipes, locks, copying, vectors, poll and select."""

from __future__ import annotations

import fcntl
import os
import struct

import pytest
from files_guest import BASE

from mmuemu.kernel.abi import fcntl as c
from mmuemu.kernel.abi.errno import Errno


def test_lowest_free_descriptor_is_given(guest):
    fds = [guest.open("/etc/passwd") for _ in range(4)]
    assert fds == [3, 4, 5, 6]
    guest.raw("close", 4)
    guest.raw("close", 3)
    assert guest.raw("dup", 5) == 3
    assert guest.raw("dup", 5) == 4
    assert guest.raw("dup", 5) == 7
    assert guest.raw("close", 99) == -Errno.EBADF
    assert guest.raw("close", -1) == -Errno.EBADF


def test_table_is_limited(guest):
    guest.task.files.limit = 8
    assert [guest.open("/etc/passwd") for _ in range(6)] == [3, 4, 5, 6, 7, -Errno.EMFILE]
    assert guest.raw("dup", 3) == -Errno.EMFILE
    assert guest.raw("dup2", 3, 8) == -Errno.EBADF
    assert guest.raw("fcntl", 3, c.F_DUPFD, 8) == -Errno.EINVAL
    guest.raw("close", 7)
    assert guest.raw("pipe", BASE) == -Errno.EMFILE
    assert guest.open("/etc/passwd") == 7


def test_duplicates_share_the_offset_and_separate_opens_do_not(guest):
    guest.spit("f", b"abcdef")
    fd = guest.open("f")
    twin = guest.raw("dup", fd)
    other = guest.open("f")
    assert guest.read(fd, 2) == b"ab"
    assert guest.read(twin, 2) == b"cd"
    assert guest.read(other, 2) == b"ab"
    guest.raw("close", fd)
    assert guest.read(twin, 9) == b"ef"


def test_clone_shares_descriptions_but_not_numbers(guest):
    guest.spit("f", b"abcdef")
    fd = guest.open("f", os.O_CLOEXEC)
    copy = guest.task.files.clone()
    assert guest.read(fd, 2) == b"ab"
    assert copy.get(fd).read(2) == b"cd"
    copy.close_on_exec()
    assert fd not in copy
    assert guest.read(fd, 2) == b"ef"


def test_dup2_and_dup3(guest):
    fd = guest.open("/etc/passwd")
    assert guest.raw("dup2", fd, fd) == fd
    assert guest.raw("dup3", fd, fd, 0) == -Errno.EINVAL
    assert guest.raw("dup2", fd, 77) == 77
    assert guest.raw("dup3", fd, 78, os.O_CLOEXEC) == 78
    assert guest.raw("fcntl", 77, c.F_GETFD, 0) == 0
    assert guest.raw("fcntl", 78, c.F_GETFD, 0) == 1
    assert guest.raw("dup2", 99, 5) == -Errno.EBADF
    assert guest.raw("close_range", 70, 2**32 - 1, 0) == 0
    assert guest.raw("fcntl", 77, c.F_GETFD, 0) == -Errno.EBADF


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_NONBLOCK | os.O_CREAT])
def test_status_flags_are_the_hosts(guest, tmp_path, flags):
    (tmp_path / "f").write_bytes(b"")
    theirs = os.open(tmp_path / "f", flags)
    guest.spit("f", b"")
    ours = guest.open("f", flags)
    for wanted in (None, 0, os.O_APPEND | os.O_WRONLY, os.O_NONBLOCK):
        if wanted is not None:
            fcntl.fcntl(theirs, fcntl.F_SETFL, wanted)
            assert guest.raw("fcntl", ours, c.F_SETFL, wanted) == 0
        assert guest.raw("fcntl", ours, c.F_GETFL, 0) == fcntl.fcntl(theirs, fcntl.F_GETFL)
    os.close(theirs)


def test_path_descriptors_give_no_access(guest):
    guest.spit("f", b"x")
    fd = guest.open("f", c.O_PATH)
    assert guest.read(fd) == -Errno.EBADF
    assert guest.write(fd, b"x") == -Errno.EBADF
    for name in ("lseek", "ftruncate", "fsync", "fchmod", "ioctl"):
        assert guest.raw(name, fd, 0, 0) == -Errno.EBADF, name
    assert guest.raw("fstat", fd, BASE) == 0
    assert guest.slurp(f"/proc/self/fd/{fd}") == b"x"
    guest.call("symlink", "f", "link")
    link = guest.open("link", c.O_PATH | c.O_NOFOLLOW)
    assert guest.call("readlinkat", link, b"", BASE, 10) == 1


def make_pipe(guest, flags=0):
    assert guest.raw("pipe2", BASE, flags) == 0
    return struct.unpack("<ii", guest.memory.read(BASE, 8))


def test_pipe_carries_bytes_and_ends(guest):
    reader, writer = make_pipe(guest)
    assert guest.write(writer, b"one two") == 7
    assert guest.read(reader, 3) == b"one"
    assert guest.read(reader) == b" two"
    guest.write(writer, b"last")
    guest.raw("close", writer)
    assert guest.read(reader) == b"last"
    assert guest.read(reader) == b""
    assert guest.raw("lseek", reader, 0, 1) == -Errno.ESPIPE
    assert guest.pread(reader, 1, 0) == -Errno.ESPIPE
    assert guest.raw("fstat", reader, BASE) == 0
    assert guest.unpack_stat().mode == 0o010600
    assert guest.readlink(f"/proc/self/fd/{reader}").startswith(b"pipe:[")


def test_pipe_limits_match_the_hosts(guest):
    """Fill and drain by whole pages (Linux counts pages where we count bytes), both without blocking."""
    theirs = os.pipe2(os.O_NONBLOCK)
    ours = make_pipe(guest, os.O_NONBLOCK)

    def host(function, *args):
        try:
            return function(*args)
        except OSError as error:
            return -error.errno

    steps = [("r", 10), ("w", 65536), ("w", 1), ("w", 9000), ("r", 4096), ("w", 4097), ("w", 4096), ("r", 8192)]
    steps += [("w", 100_000), ("w", 1), ("r", 70_000), ("r", 1), ("w", 0), ("w", 3), ("r", 0), ("r", 9)]
    for kind, count in steps:
        if kind == "w":
            assert guest.write(ours[1], b"x" * count) == host(os.write, theirs[1], b"x" * count), (kind, count)
        else:
            assert guest.read(ours[0], count) == host(os.read, theirs[0], count), (kind, count)
    os.close(theirs[0])
    guest.raw("close", ours[0])
    assert guest.write(ours[1], b"x") == -Errno.EPIPE
    os.close(theirs[1])


def test_a_pipe_end_survives_while_a_duplicate_is_open(guest):
    reader, writer = make_pipe(guest)
    twin = guest.raw("dup", writer)
    guest.raw("close", writer)
    assert guest.read(reader) == -Errno.EAGAIN, "a writer is left, so this would block"
    guest.raw("close", twin)
    assert guest.read(reader) == b""


def test_bad_buffer_loses_no_pipe_bytes(guest):
    reader, writer = make_pipe(guest)
    guest.write(writer, b"kept")
    assert guest.raw("read", reader, 0x10, 4) == -Errno.EFAULT
    assert guest.read(reader) == b"kept"


def test_named_pipe(guest):
    assert guest.call("mknod", "fifo", 0o10644, 0) == 0
    assert guest.open("fifo", os.O_WRONLY | os.O_NONBLOCK) == -Errno.ENXIO
    reader = guest.open("fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = guest.open("fifo", os.O_WRONLY)
    guest.write(writer, b"through")
    assert guest.read(reader) == b"through"
    assert guest.stat("fifo").mode == 0o010644
    assert guest.readlink(f"/proc/self/fd/{reader}") == b"/tmp/fifo"


def test_poll_and_select_see_pipes(guest):
    reader, writer = make_pipe(guest)

    def poll(*pairs):
        data = b"".join(struct.pack("<iHH", fd, events, 0xFFFF) for fd, events in pairs)
        guest.memory.write(BASE, data)
        count = guest.raw("poll", BASE, len(pairs), 0)
        return count, [struct.unpack_from("<H", guest.memory.read(BASE + 8 * i + 6, 2))[0] for i in range(len(pairs))]

    assert poll((reader, c.POLLIN), (writer, c.POLLOUT), (-1, 1), (99, 1)) == (2, [0, c.POLLOUT, 0, c.POLLNVAL])
    guest.write(writer, b"x")
    assert poll((reader, c.POLLIN), (writer, c.POLLIN)) == (1, [c.POLLIN, 0])
    guest.memory.write(BASE, (1 << reader | 1 << writer).to_bytes(8, "little") * 2 + bytes(16))
    assert guest.raw("select", writer + 1, BASE, BASE + 8, 0, BASE + 16) == 2
    assert guest.memory.read_u64(BASE) == 1 << reader
    assert guest.memory.read_u64(BASE + 8) == 1 << writer
    guest.raw("close", writer)
    assert poll((reader, c.POLLIN)) == (1, [c.POLLIN | c.POLLHUP])
    guest.memory.write(BASE, (1 << 50).to_bytes(8, "little"))
    assert guest.raw("select", 51, BASE, 0, 0, 0) == -Errno.EBADF


def test_timeouts_pass_by_the_tasks_clock(guest):
    start = guest.kernel.clock.now()
    reader, _ = make_pipe(guest)
    guest.memory.write(BASE, struct.pack("<iHH", reader, c.POLLIN, 0))
    assert guest.raw("poll", BASE, 1, 250) == 0
    guest.memory.write_u64(BASE + 32, 1)
    guest.memory.write_u64(BASE + 40, 5)
    assert guest.raw("pselect6", 0, 0, 0, 0, BASE + 32, 0) == 0
    assert guest.kernel.clock.now() - start == 1_250_000_005
    assert guest.memory.read(BASE + 32, 16) == bytes(16), "nothing is left of the timeout"
    assert guest.raw("poll", BASE, 1, -1) == -Errno.EAGAIN, "nobody is left to write"


def test_vectors(guest):
    fd = guest.open("f", os.O_CREAT | os.O_RDWR)
    guest.memory.write(BASE, b"abcdef")
    vector = BASE + 64

    def iovec(*pairs):
        guest.memory.write(vector, b"".join(struct.pack("<QQ", base, length) for base, length in pairs))
        return len(pairs)

    assert guest.raw("writev", fd, vector, iovec((BASE + 3, 3), (0, 0), (BASE, 2))) == 5
    assert guest.slurp("f") == b"defab"
    guest.raw("lseek", fd, 0, 0)
    assert guest.raw("readv", fd, vector, iovec((BASE + 200, 2), (BASE + 300, 100))) == 5
    assert guest.memory.read(BASE + 200, 2) + guest.memory.read(BASE + 300, 3) == b"defab"
    assert guest.raw("pwritev", fd, vector, iovec((BASE + 300, 3)), 1, 0) == 3
    assert guest.raw("preadv2", fd, vector, iovec((BASE + 400, 9)), 1, 0, 0) == 4
    assert guest.slurp("f") == b"dfabb"
    assert guest.raw("writev", fd, vector, iovec((BASE, 1 << 63))) == -Errno.EINVAL
    assert guest.raw("writev", fd, vector, 1025) == -Errno.EINVAL
    assert guest.raw("writev", fd, vector, -1) == -Errno.EINVAL
    assert guest.raw("readv", fd, vector, iovec((0x10, 5), (0x10, 5))) == 0, "the file is at its end"
    guest.raw("lseek", fd, 0, 0)
    assert guest.raw("readv", fd, vector, iovec((BASE, 2), (0x10, 3))) == 2, "the good part counts"
    guest.memory.write(BASE + 3, b"d")
    assert guest.raw("pwritev2", fd, vector, iovec((BASE + 3, 1)), 0, 0, 16) == 1
    assert guest.slurp("f") == b"dfabbd"


def test_huge_counts_cost_only_what_is_there(guest):
    guest.spit("f", b"small")
    fd = guest.open("f")
    assert guest.raw("read", fd, BASE, 1 << 40) == 5
    assert guest.raw("pread64", fd, BASE, 1 << 46, 2) == 3
    assert guest.raw("pread64", fd, BASE, (1 << 63) - 1, 2) == -Errno.EFAULT, "it would end beyond user space"
    zero = guest.open("/dev/zero")
    guest.memory.write(BASE, b"\xff" * 100)
    assert guest.raw("read", zero, BASE, 1 << 31) == 1 << 21, "as much as there is memory for"
    assert guest.memory.read(BASE, 100) == bytes(100)


def test_long_writes_cross_chunks(guest):
    size = (1 << 20) + 12345
    pattern = bytes(range(251)) * (size // 251 + 1)
    guest.memory.write(BASE, pattern[:size])
    fd = guest.open("f", os.O_CREAT | os.O_RDWR)
    assert guest.raw("write", fd, BASE, size) == size
    guest.memory.write(BASE, bytes(size))
    assert guest.raw("pread64", fd, BASE, 1 << 21, 0) == size
    assert guest.memory.read(BASE, size) == pattern[:size]
    assert guest.raw("write", fd, BASE + (1 << 21) - (3 << 19), 2 << 20) == 3 << 19, "up to the bad page"


def test_sendfile_and_copy_file_range(guest):
    guest.spit("from", b"0123456789")
    source, target = guest.open("from"), guest.open("to", os.O_CREAT | os.O_RDWR)
    assert guest.raw("sendfile", target, source, 0, 4) == 4
    guest.memory.write_u64(BASE, 6)
    assert guest.raw("sendfile", target, source, BASE, 100) == 4
    assert guest.memory.read_u64(BASE) == 10
    assert guest.slurp("to") == b"01236789"
    assert guest.read(source, 1) == b"4"
    guest.memory.write_u64(BASE, 1)
    guest.memory.write_u64(BASE + 8, 20)
    assert guest.raw("copy_file_range", source, BASE, target, BASE + 8, 3, 0) == 3
    assert (guest.memory.read_u64(BASE), guest.memory.read_u64(BASE + 8)) == (4, 23)
    assert guest.slurp("to") == b"01236789" + bytes(12) + b"123"
    assert guest.raw("copy_file_range", target, 0, target, 0, 3, 0) == -Errno.EINVAL
    reader, writer = make_pipe(guest)
    assert guest.raw("sendfile", target, reader, 0, 1) == -Errno.EINVAL
    assert guest.raw("sendfile", writer, source, 0, 3) == 3
    assert guest.read(reader) == b"567"


def test_memfd_and_seals(guest):
    fd = guest.call("memfd_create", "name", c.MFD_ALLOW_SEALING)
    assert guest.write(fd, b"data") == 4
    assert guest.readlink(f"/proc/self/fd/{fd}") == b"/memfd:name (deleted)"
    assert guest.raw("fcntl", fd, c.F_ADD_SEALS, c.F_SEAL_GROW | c.F_SEAL_SHRINK) == 0
    assert guest.write(fd, b"x") == -Errno.EPERM
    assert guest.raw("ftruncate", fd, 1) == -Errno.EPERM
    assert guest.raw("lseek", fd, 0, 0) == 0
    assert guest.write(fd, b"DATA") == 4
    guest.raw("fcntl", fd, c.F_ADD_SEALS, c.F_SEAL_WRITE | c.F_SEAL_SEAL)
    guest.raw("lseek", fd, 0, 0)
    assert guest.write(fd, b"x") == -Errno.EPERM
    assert guest.raw("fcntl", fd, c.F_GET_SEALS, 0) == 15
    assert guest.raw("fcntl", fd, c.F_ADD_SEALS, 0) == -Errno.EPERM
    plain = guest.open("f", os.O_CREAT | os.O_RDWR)
    assert guest.raw("fcntl", plain, c.F_GET_SEALS, 0) == -Errno.EINVAL


def test_flock_is_by_description(guest):
    guest.spit("f", b"")
    one, two = guest.open("f"), guest.open("f")
    assert guest.raw("flock", one, c.LOCK_EX) == 0
    assert guest.raw("flock", two, c.LOCK_SH | c.LOCK_NB) == -Errno.EAGAIN
    assert guest.raw("flock", one, c.LOCK_SH) == 0
    assert guest.raw("flock", two, c.LOCK_SH | c.LOCK_NB) == 0
    assert guest.raw("flock", two, c.LOCK_EX | c.LOCK_NB) == -Errno.EAGAIN
    guest.raw("close", one)
    assert guest.raw("flock", two, c.LOCK_EX | c.LOCK_NB) == 0
    assert guest.raw("flock", two, 3) == -Errno.EINVAL


def test_unnamed_temporary_file_can_get_a_name(guest):
    fd = guest.open("/tmp", c.O_TMPFILE | os.O_RDWR, 0o600)
    assert guest.write(fd, b"unnamed") == 7
    assert guest.listdir("/tmp") == [b".", b".."]
    assert guest.call("linkat", -100, f"/proc/self/fd/{fd}", -100, "/tmp/named", c.AT_SYMLINK_FOLLOW) == 0
    assert guest.slurp("/tmp/named") == b"unnamed"
    assert guest.open("/tmp", c.O_TMPFILE | os.O_RDONLY) == -Errno.EINVAL


def test_renameat2_flags(guest):
    guest.spit("a", b"A")
    guest.spit("b", b"B")
    assert guest.call("renameat2", -100, "a", -100, "b", c.RENAME_NOREPLACE) == -Errno.EEXIST
    assert guest.call("renameat2", -100, "a", -100, "b", c.RENAME_EXCHANGE) == 0
    assert (guest.slurp("a"), guest.slurp("b")) == (b"B", b"A")
    assert guest.call("renameat2", -100, "a", -100, "none", c.RENAME_EXCHANGE) == -Errno.ENOENT
    assert guest.call("renameat2", -100, "a", -100, "c", c.RENAME_NOREPLACE) == 0
    guest.call("mkdir", "d", 0o755)
    guest.call("mkdir", "d/e", 0o755)
    assert guest.call("renameat2", -100, "d/e", -100, "c", c.RENAME_EXCHANGE) == 0
    assert guest.slurp("d/e") == b"B"
    assert guest.stat("d").nlink == 2
    assert guest.call("rename", "/tmp/c", "/dev/shm/c") == -Errno.EXDEV


def test_utimensat(guest):
    guest.spit("f", b"")
    guest.memory.write(BASE, struct.pack("<qqqq", 100, 5, -3, 999_999_999))
    assert guest.call("utimensat", -100, "f", BASE, 0) == 0
    found = guest.stat("f")
    assert (found.atime, found.atime_ns, found.mtime, found.mtime_ns) == (100, 5, -3, 999_999_999)
    guest.memory.write(BASE, struct.pack("<qqqq", 7, 7, 0, c.UTIME_OMIT))
    assert guest.call("utimensat", -100, "f", BASE, 0) == 0
    assert (guest.stat("f").atime, guest.stat("f").mtime) == (7, -3)
    guest.memory.write(BASE, struct.pack("<qqqq", 7, 1_000_000_000, 0, 0))
    assert guest.call("utimensat", -100, "f", BASE, 0) == -Errno.EINVAL


def test_rewinding_a_directory_and_removing_while_listing(guest):
    for i in range(300):
        guest.spit(f"file{i:04}", b"")
    fd = guest.open(".", os.O_RDONLY | os.O_DIRECTORY)
    seen = 0
    while (got := guest.raw("getdents64", fd, BASE, 1000)) > 0:
        data = guest.memory.read(BASE, got)
        while data:
            length = int.from_bytes(data[16:18], "little")
            name = data[19 : data.index(b"\0", 19)]
            if name not in (b".", b".."):
                assert guest.call("unlink", name) == 0
                seen += 1
            data = data[length:]
    assert got == 0
    assert seen == 300
    guest.raw("lseek", fd, 0, 0)
    assert guest.raw("getdents64", fd, BASE, 1000) == 48, "only the dots are left"
    assert guest.raw("getdents64", fd, BASE, 1000) == 0
    guest.raw("lseek", fd, 0, 0)
    assert guest.raw("getdents64", fd, BASE, 20) == -Errno.EINVAL
