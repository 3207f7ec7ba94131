"""Standard streams over host descriptors and over Python objects."""

from __future__ import annotations

import io
import os
import struct

import pytest
from files_guest import BASE

from mmuemu.kernel.abi import fcntl as c
from mmuemu.kernel.abi.errno import Errno


def use(guest, stdin=None, stdout=None):
    """Give the guest these streams; None keeps the null device."""
    null = guest._devnull
    guest.task.files = guest.tree.standard_streams(
        null if stdin is None else stdin, null if stdout is None else stdout, null
    )


def test_bytes_go_through_unchanged(guest):
    reader, writer = os.pipe()
    use(guest, reader, writer)
    data = bytes(range(256)) + b"\r\n\x1a\x00"
    assert guest.write(1, data) == len(data)
    assert guest.read(0, 1000) == data
    os.close(writer)
    os.close(reader)


def test_end_of_input_and_broken_pipe(guest):
    reader, writer = os.pipe()
    use(guest, reader)
    os.close(writer)
    assert guest.read(0) == b""
    os.close(reader)
    reader, writer = os.pipe()
    use(guest, stdout=writer)
    os.close(reader)
    assert guest.write(1, b"x") == -Errno.EPIPE
    os.close(writer)


def test_partial_writes_are_reported(guest):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    use(guest, stdout=writer)
    guest.memory.write(BASE, b"x" * 100_000)
    sleeping = guest.sleeps("write", 1, BASE, 100_000)
    assert sleeping.blocked.host == {writer: c.POLLOUT}
    assert 0 < sleeping.blocked.progress < 100_000
    assert len(os.read(reader, 1 << 17)) == sleeping.blocked.progress
    assert sleeping.again() == 100_000
    guest.raw("fcntl", 1, c.F_SETFL, os.O_NONBLOCK)
    assert 0 < guest.raw("write", 1, BASE, 100_000) < 100_000
    assert guest.write(1, b"x") == -Errno.EAGAIN
    os.close(writer)
    os.close(reader)


def test_bad_buffer_loses_no_input(guest):
    reader, writer = os.pipe()
    os.write(writer, b"kept")
    use(guest, reader)
    assert guest.raw("read", 0, 0x10, 100) == -Errno.EFAULT
    assert guest.read(0, 2) == b"ke"
    assert guest.read(0, 2) == b"pt"
    os.close(writer)
    os.close(reader)


def test_python_objects_capture(guest):
    out = io.BytesIO()
    use(guest, io.BytesIO(b"line 1\nline 2\n"), out)
    assert guest.read(0, 6) == b"line 1"
    assert guest.read(0) == b"\nline 2\n"
    assert guest.read(0) == b""
    guest.write(1, b"captured\0")
    assert out.getvalue() == b"captured\0"
    guest.raw("fstat", 1, BASE)
    assert guest.unpack_stat().mode & 0o170000 == 0o010000
    assert guest.raw("ioctl", 1, c.TCGETS, BASE) == -Errno.ENOTTY
    assert guest.raw("lseek", 1, 0, 1) == -Errno.ESPIPE


def test_redirected_file_seeks_and_shows_its_type(guest, tmp_path):
    path = tmp_path / "out"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    use(guest, fd, fd)
    assert guest.write(1, b"0123456789") == 10
    assert guest.raw("lseek", 1, 2, 0) == 2
    assert guest.read(0, 3) == b"234", "both descriptors share the host's offset"
    assert guest.pread(1, 2, 8) == b"89"
    assert guest.raw("ftruncate", 1, 4) == 0
    assert guest.raw("fstat", 1, BASE) == 0
    found = guest.unpack_stat()
    assert (found.mode & 0o170000, found.size) == (0o100000, 4)
    assert guest.spit("/dev/stdout", b"new") == 3, "opening it again truncates the file, as on Linux"
    os.close(fd)
    assert path.read_bytes()[:3] != b"012"


def test_append_mode_of_the_host_is_kept(guest, tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"old ")
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    use(guest, stdout=fd)
    guest.write(1, b"new")
    assert guest.raw("fcntl", 1, c.F_GETFL, 0) & 0o2003 == os.O_WRONLY | os.O_APPEND
    assert guest.read(1) == -Errno.EBADF
    os.close(fd)
    assert path.read_bytes() == b"old new"


def test_terminal_answers_truly(guest):
    pty = pytest.importorskip("pty")
    import fcntl
    import termios

    controller, terminal = pty.openpty()
    fcntl.ioctl(controller, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    use(guest, terminal, terminal)
    assert guest.raw("ioctl", 1, c.TCGETS, BASE) == 0
    assert guest.memory.read(BASE, 36) == fcntl.ioctl(terminal, c.TCGETS, bytes(36))
    assert guest.raw("ioctl", 1, c.TIOCGWINSZ, BASE) == 0
    assert struct.unpack("HHHH", guest.memory.read(BASE, 8))[:2] == (33, 101)
    assert guest.raw("ioctl", 2, c.TCGETS, BASE) == -Errno.ENOTTY
    tty = guest.open("/dev/tty", os.O_RDWR)
    assert guest.write(tty, b"hello\n") == 6
    assert os.read(controller, 100) == b"hello\r\n"
    assert guest.raw("fstat", 0, BASE) == 0
    found = guest.unpack_stat()
    name = guest.stat(guest.readlink("/proc/self/fd/0"))
    assert (found.mode & 0o170000, found.ino, found.rdev) == (0o020000, name.ino, name.rdev), "as ttyname(3) compares"
    assert guest.raw("ioctl", 0, c.TIOCGPGRP, BASE) == 0
    assert guest.memory.read_u32(BASE) == guest.task.process.pgid
    before = termios.tcgetattr(terminal)
    guest.memory.write(BASE, bytes(36))
    assert guest.raw("ioctl", 0, c.TCSETS, BASE) == 0
    assert termios.tcgetattr(terminal)[3] == 0, "modes are the host's"
    guest.tree.close()
    assert termios.tcgetattr(terminal) == before, "and given back"
    os.close(controller)
    os.close(terminal)


def test_no_terminal_no_dev_tty(guest):
    assert guest.open("/dev/tty", os.O_RDWR) == -Errno.ENXIO


def test_dev_stdin_and_stdout_are_the_streams(guest):
    reader, writer = os.pipe()
    use(guest, reader, writer)
    out = guest.open("/dev/stdout", os.O_WRONLY)
    assert guest.write(out, b"via dev") == 7
    assert guest.read(guest.open("/dev/stdin")) == b"via dev"
    os.close(reader)
    os.close(writer)


def test_poll_waits_for_the_host(guest):
    reader, writer = os.pipe()
    use(guest, reader)
    guest.memory.write(BASE, struct.pack("<iHH", 0, c.POLLIN, 0))
    assert guest.raw("poll", BASE, 1, 10) == 0
    os.write(writer, b"x")
    assert guest.raw("poll", BASE, 1, -1) == 1
    assert struct.unpack("<H", guest.memory.read(BASE + 6, 2))[0] == c.POLLIN
    assert guest.raw("ioctl", 0, c.FIONREAD, BASE) == 0
    assert guest.memory.read_u32(BASE) == 1
    os.close(reader)
    os.close(writer)


def test_devices(make_guest):
    guest = make_guest("/", isolate=True, random=lambda count: b"r" * count)
    assert guest.slurp("/dev/null") == b""
    assert guest.read(guest.open("/dev/urandom"), 5) == b"rrrrr"
    full = guest.open("/dev/full", os.O_RDWR)
    assert guest.write(full, b"x") == -Errno.ENOSPC
    assert guest.read(full, 3) == bytes(3)
    null = guest.open("/dev/null", os.O_WRONLY | os.O_TRUNC)
    assert guest.write(null, b"gone") == 4
    assert guest.raw("lseek", null, 100, 0) == 0
    assert guest.stat("/dev/null").rdev == 0x103
    assert guest.readlink("/dev/fd") == b"/proc/self/fd"
    assert guest.open("/dev/new", os.O_CREAT | os.O_WRONLY) == -Errno.EACCES


def test_waits_for_the_host_are_the_kernels(guest):
    reader, writer = os.pipe()
    use(guest, reader)
    assert guest.sleeps("read", 0, BASE, 1).blocked.host == {reader: c.POLLIN}
    guest.memory.write(BASE, struct.pack("<iHH", 0, c.POLLIN, 0))
    assert guest.sleeps("poll", BASE, 1, -1).blocked.host == {reader: c.POLLIN}
    guest.raw("fcntl", 0, c.F_SETFL, os.O_NONBLOCK)
    assert guest.read(0) == -Errno.EAGAIN
    os.write(writer, b"x")
    assert guest.read(0) == b"x"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(
    ("length", "packet", "stream"),
    [
        (0, 768, None), (1, 768, 768), (192, 768, 768), (193, 1280, 1280), (704, 1280, 1280), (1000, 2304, 2304),
        (3776, 4352, 4352), (3777, 8448, 4864), (8000, 16640, 8960), (16000, 16640, 16640), (32000, 33024, 33024),
        (36000, 37120, 37120), (36544, 37120, 37120), (60000, 61696, None), (200000, 200960, None),
    ],
)  # fmt: skip
def test_a_message_costs_its_sender_what_it_costs_on_linux(length, packet, stream):
    """Measured by SIOCOUTQ on Linux 6.18."""
    from mmuemu.kernel.files.sockets.message import packet_size, stream_size

    assert packet_size(length) == packet
    assert stream is None or stream_size(length) == stream


def test_a_socket_says_what_it_took_before_memory_was_used_up(guest):
    assert guest.raw("socketpair", 1, 1 | os.O_NONBLOCK, 0, BASE) == 0
    (fd,) = struct.unpack("<i", guest.memory.read(BASE, 4))
    guest.memory.write(BASE, b"x" * 100_000)
    guest.tree.quota.limit = guest.tree.quota.used + 40_000
    assert guest.raw("write", fd, BASE, 100_000) == 36_544
    assert guest.raw("write", fd, BASE, 100_000) == -Errno.ENOBUFS
