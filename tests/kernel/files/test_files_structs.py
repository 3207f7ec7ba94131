"""The structures written to the guest, byte for byte against the host kernel's on the same files."""

from __future__ import annotations

import ctypes
import os
import platform
import struct

import pytest
from files_guest import BASE, Guest

from mmuemu.kernel.abi.stat import Stat, major, makedev, minor, pack_stat, pack_statx
from mmuemu.kernel.files.namespace import ViewOptions, build_namespace

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64", reason="the oracle is an x86-64 Linux kernel"
)


def host_call(number: int, *args) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result = libc.syscall(number, *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return result if result >= 0 else -ctypes.get_errno()


@pytest.fixture
def shared(tmp_path):
    """A guest with a host directory shared for writing, whose user is shown with the host's numbers."""
    os.mkdir(tmp_path / "dir")
    (tmp_path / "file").write_bytes(b"x" * 5000)
    os.link(tmp_path / "file", tmp_path / "hard")
    os.symlink("file", tmp_path / "link")
    os.utime(tmp_path / "file", ns=(1_234_567_890_123_456_789, 987_654_321_000_000_001))
    options = ViewOptions(isolate=True, cwd="", mounts=[f"{tmp_path}:/w:rw"], uid=os.geteuid(), gid=os.getegid())
    guest = Guest(build_namespace(options), "/w", uid=os.geteuid())
    guest.host = tmp_path
    yield guest
    guest.close()


@pytest.mark.parametrize("name", ["dir", "file", "hard", "link"])
@pytest.mark.parametrize("flags", [0, 0x100])
def test_stat(shared, name, flags):
    buffer = ctypes.create_string_buffer(144)
    assert host_call(262, -100, os.fsencode(shared.host / name), buffer, flags) == 0
    theirs = struct.unpack("<QQQIIIIQqqqqqqqqqqqq", buffer.raw)
    assert shared.call("newfstatat", -100, name, BASE, flags) == 0
    ours = struct.unpack("<QQQIIIIQqqqqqqqqqqqq", shared.memory.read(BASE, 144))
    assert ours == theirs


@pytest.mark.parametrize("name", ["dir", "file", "link"])
def test_statx(shared, name):
    buffer = ctypes.create_string_buffer(256)
    if host_call(332, -100, os.fsencode(shared.host / name), 0x100, 0x7FF, buffer) < 0:
        pytest.skip("the host has no statx")
    assert shared.call("statx", -100, name, 0x100, 0x7FF, BASE) == 0
    ours = shared.memory.read(BASE, 256)
    for start, end in [(4, 8), (16, 56), (0x40, 0x4C), (0x60, 0x6C), (0x70, 0x7C), (0x80, 0x90)]:
        assert ours[start:end] == buffer.raw[start:end], hex(start)


def entries(data: bytes, old: bool) -> set[tuple[int, bytes, int]]:
    found = set()
    while data:
        ino, _, length = struct.unpack_from("<QqH", data)
        if old:
            found.add((ino, data[18 : data.index(b"\0", 18)], data[length - 1]))
        else:
            found.add((ino, data[19 : data.index(b"\0", 19)], data[18]))
        assert length % 8 == 0
        data = data[length:]
    return found


@pytest.mark.parametrize(("number", "name"), [(217, "getdents64"), (78, "getdents")])
def test_directory_entries(shared, number, name):
    buffer = ctypes.create_string_buffer(4096)
    fd = os.open(shared.host, os.O_RDONLY)
    count = host_call(number, fd, buffer, 4096)
    theirs = entries(buffer.raw[:count], number == 78)
    os.close(fd)
    ours_fd = shared.open("/w", os.O_RDONLY)
    assert shared.raw(name, ours_fd, BASE, 4096) == count
    ours = entries(shared.memory.read(BASE, count), number == 78)
    drop = {e for e in ours | theirs if e[1] == b".."}
    assert ours - drop == theirs - drop


def test_statfs_layout(shared):
    buffer = ctypes.create_string_buffer(120)
    assert host_call(137, b"/proc", buffer) == 0
    assert shared.call("statfs", "/proc", BASE) == 0
    ours = shared.memory.read(BASE, 120)
    assert ours[:8] == buffer.raw[:8], "PROC_SUPER_MAGIC"
    assert ours[64:80] == buffer.raw[64:80], "name length and fragment size"
    assert shared.call("statfs", "/tmp", BASE) == 0
    kind, _, blocks, free = struct.unpack("<4q", shared.memory.read(BASE, 32))
    assert kind == 0x01021994
    assert blocks * 4096 == ViewOptions().limit
    assert free <= blocks


def test_sizes_and_numbers():
    st = Stat(makedev(0x1234, 0x56789), -1, 0o100644, 1, 2, 3, makedev(8, 1), 5, 8, -1, 0, 1_999_999_999)
    assert len(pack_stat(st)) == 144
    assert len(pack_statx(st)) == 256
    for high, low in [(0, 0), (8, 1), (0xFFF, 0xFFFFF), (0x12345, 0x89ABCDE)]:
        assert makedev(high, low) == os.makedev(high, low)
        assert (major(makedev(high, low)), minor(makedev(high, low))) == (high, low)
    assert struct.unpack_from("<qq", pack_stat(st), 72) == (-1, 999_999_999)
