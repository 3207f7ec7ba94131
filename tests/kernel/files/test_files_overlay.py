"""What the guest writes stays in memory: copy-up, sparse files, the limit, host descriptors, coherence."""

from __future__ import annotations

import os
import struct
import subprocess

import pytest
from files_guest import BASE
from hypothesis import given, settings
from hypothesis import strategies as st

from mmuemu.kernel.abi import fcntl as c
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.files.content import CHUNK, Content
from mmuemu.kernel.files.inode import Quota
from mmuemu.kernel.files.memfs import NAME_COST


@pytest.fixture
def over(make_guest, tmp_path):
    """A guest over a host directory; ``over.host`` is that directory."""
    (tmp_path / "big").write_bytes(bytes(range(256)) * 2000)
    os.link(tmp_path / "big", tmp_path / "hard")
    guest = make_guest("/o", isolate=True, mounts=[f"{tmp_path}:/o"], limit=1 << 20)
    guest.host = tmp_path
    return guest


def test_only_written_pieces_are_copied(over):
    before = over.tree.quota.used
    fd = over.open("big", os.O_RDWR)
    over.raw("lseek", fd, 300_000, 0)
    assert over.write(fd, b"changed") == 7
    assert 0 < over.tree.quota.used - before <= CHUNK
    expected = bytearray((over.host / "big").read_bytes())
    expected[300_000:300_007] = b"changed"
    assert over.slurp("big") == expected
    assert over.slurp("hard") == expected, "the other name is the same file"
    assert (over.host / "big").read_bytes() == bytes(range(256)) * 2000
    assert over.stat("big").nlink == 2
    over.raw("ftruncate", fd, 300_003)
    over.raw("ftruncate", fd, 400_000)
    assert over.slurp("big") == expected[:300_003] + bytes(99_997)


def test_attributes_change_in_memory_only(over):
    inode, mode = over.stat("big").ino, os.stat(over.host / "big").st_mode
    assert over.call("chmod", "big", 0o600) == 0
    assert over.stat("hard").mode == 0o100600
    assert over.stat("big").ino == inode
    assert over.stat("big").mtime == int(os.stat(over.host / "big").st_mtime)
    assert os.stat(over.host / "big").st_mode == mode
    over.call("unlink", "hard")
    assert over.stat("big").nlink == 1
    assert os.stat(over.host / "big").st_nlink == 2


def test_renamed_host_files_and_directories_keep_working(over):
    (over.host / "d").mkdir()
    (over.host / "d" / "f").write_bytes(b"deep")
    fd = over.open("d/f")
    assert over.call("rename", "d", "e") == 0
    assert over.slurp("e/f") == b"deep"
    assert over.stat("d") == -Errno.ENOENT
    assert over.call("mkdir", "d", 0o755) == 0
    assert over.listdir("d") == [b".", b".."], "the new directory does not show the old one's files"
    assert over.call("rename", "e/f", "d/g") == 0
    assert over.readlink(f"/proc/self/fd/{fd}") == b"/o/d/g"
    over.tree.descriptors.close()
    assert over.read(fd) == b"deep", "opened again at its place on the host"
    assert sorted(os.listdir(over.host)) == ["big", "d", "hard"]


def test_host_changes_show_through_until_the_guest_changes_the_file(over):
    (over.host / "live").write_bytes(b"one")
    assert over.slurp("live") == b"one"
    (over.host / "live").write_bytes(b"two!")
    assert over.slurp("live") == b"two!"
    assert over.stat("live").size == 4
    (over.host / "born").write_bytes(b"")
    assert b"born" in over.listdir(".")


def test_limit_is_enospc_and_space_comes_back(over):
    before = over.tree.quota.used
    fd = over.open("/tmp/fill", os.O_CREAT | os.O_WRONLY)
    total = 0
    while (done := over.write(fd, b"x" * 50_000)) > 0:
        total += done
    assert done == -Errno.ENOSPC
    assert (1 << 20) - before - 1024 == total
    over.raw("close", fd)
    over.call("unlink", "/tmp/fill")
    assert over.tree.quota.used == before
    assert over.spit("/tmp/again", b"y" * 1000) == 1000


def test_a_terabyte_hole_costs_nothing(guest):
    fd = guest.open("sparse", os.O_CREAT | os.O_RDWR)
    before = guest.tree.quota.used
    assert guest.raw("ftruncate", fd, 1 << 40) == 0
    assert guest.raw("pwrite64", fd, BASE, 1, (1 << 40) - 1) == 1
    guest.memory.write(BASE, b"\xff" * 8)
    assert guest.pread(fd, 8, 1 << 39) == bytes(8)
    assert guest.stat("sparse").size == 1 << 40
    assert guest.stat("sparse").blocks * 512 <= CHUNK
    assert guest.tree.quota.used - before <= CHUNK
    assert guest.raw("lseek", fd, 0, c.SEEK_DATA) == (1 << 40) - CHUNK
    assert guest.raw("lseek", fd, 0, c.SEEK_HOLE) == 0
    assert guest.raw("fallocate", fd, c.FALLOC_FL_PUNCH_HOLE | c.FALLOC_FL_KEEP_SIZE, 0, 1 << 41) == 0
    assert guest.raw("lseek", fd, 0, c.SEEK_DATA) == -Errno.ENXIO
    assert guest.raw("pwrite64", fd, BASE, 8, (1 << 63) - 9) == 8
    assert guest.raw("pwrite64", fd, BASE, 8, (1 << 63) - 1) == -Errno.EINVAL


def test_few_host_descriptors_serve_many_files(make_guest, tmp_path):
    for i in range(300):
        (tmp_path / f"f{i}").write_bytes(b"%d" % i)
    guest = make_guest("/m", isolate=True, mounts=[f"{tmp_path}:/m"])
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    fds = [guest.open(f"f{i}") for i in range(300)]
    assert len(guest.tree.descriptors) <= guest.tree.descriptors.limit
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + guest.tree.descriptors.limit
    assert [guest.read(fd) for fd in fds] == [b"%d" % i for i in range(300)]
    guest.tree.close()
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before


def test_unlinked_shared_file_lives_while_open(make_guest, tmp_path):
    guest = make_guest("/w", isolate=True, mounts=[f"{tmp_path}:/w:rw"])
    fd = guest.open("f", os.O_CREAT | os.O_RDWR)
    guest.write(fd, b"still here")
    assert guest.call("unlink", "f") == 0
    assert os.listdir(tmp_path) == []
    for i in range(120):
        guest.spit(f"other{i}", b"x")
    assert guest.pread(fd, 100, 0) == b"still here"
    assert guest.write(fd, b"!") == 1


def test_attributes_of_shared_files_change_on_the_host(make_guest, tmp_path):
    guest = make_guest("/w", isolate=True, mounts=[f"{tmp_path}:/w:rw"])
    guest.spit("file", b"")
    guest.call("mkdir", "dir", 0o755)
    guest.call("symlink", "file", "link")
    guest.memory.write(BASE, struct.pack("<qqqq", 11, 1, 22, 2))
    for name in ("file", "dir", "link"):
        assert guest.call("utimensat", -100, name, BASE, c.AT_SYMLINK_NOFOLLOW) == 0
        found = os.lstat(tmp_path / name)
        assert (found.st_atime_ns, found.st_mtime_ns) == (11_000_000_001, 22_000_000_002), name
        guest.memory.write(BASE + 64, struct.pack("<qqqq", 0, c.UTIME_OMIT, 33, 3))
        assert guest.call("utimensat", -100, name, BASE + 64, c.AT_SYMLINK_NOFOLLOW) == 0
        found = os.lstat(tmp_path / name)
        assert (found.st_atime_ns, found.st_mtime_ns) == (11_000_000_001, 33_000_000_003), name
    assert guest.call("lchown", "link", -1, -1) == 0
    assert guest.stat(".").nlink == os.stat(tmp_path).st_nlink
    assert guest.call("chmod", "dir", 0o700) == 0
    assert os.stat(tmp_path / "dir").st_mode & 0o777 == 0o700
    assert guest.call("link", "link", "link2") == 0
    assert guest.call("unlink", "link") == 0
    assert guest.readlink("link2") == b"file"
    assert guest.stat("link2", follow=False).nlink == 1


def test_a_removed_file_gives_its_memory_back_at_once(over):
    before = over.tree.quota.used
    fd = over.open("big", os.O_WRONLY)
    over.write(fd, b"x" * 40_000)
    over.call("unlink", "big")
    over.call("unlink", "hard")
    assert over.tree.quota.used > before
    over.raw("close", fd)
    assert over.tree.quota.used == before + 2 * NAME_COST, "two hidden names are remembered"


@pytest.mark.parametrize("make", ["file", "directory", "link", "hard", "fifo"])
def test_names_are_bounded_too(make_guest, make):
    guest = make_guest("/tmp", isolate=True, limit=1 << 18)
    guest.spit("first", b"")
    makers = {
        "file": lambda n: guest.call("mknod", n, 0o100644, 0),
        "directory": lambda n: guest.call("mkdir", n, 0o755),
        "link": lambda n: guest.call("symlink", "t" * 4000, n),
        "hard": lambda n: guest.call("link", "first", n),
        "fifo": lambda n: guest.call("mknod", n, 0o10644, 0),
    }
    before = guest.tree.quota.used
    made = 0
    while (result := makers[make](f"n{made}")) == 0:
        made += 1
        assert made < 300
    assert result == -Errno.ENOSPC
    assert guest.call("rename", "n0", "other") in (0, -Errno.ENOSPC)
    assert guest.stat("other") != -Errno.ENOENT or guest.stat("n0", follow=False) != -Errno.ENOENT
    for name in guest.listdir("/tmp"):
        if name not in (b".", b"..", b"first"):
            assert guest.call("rmdir" if make == "directory" else "unlink", name) == 0
    assert guest.tree.quota.used == before


def test_pipes_are_bounded_too(make_guest):
    guest = make_guest("/tmp", isolate=True, limit=1 << 17)
    before = guest.tree.quota.used
    assert guest.raw("pipe2", BASE, os.O_NONBLOCK) == 0
    assert guest.raw("pipe2", BASE + 8, os.O_NONBLOCK) == 0
    _, first, reader, second = struct.unpack("<4i", guest.memory.read(BASE, 16))
    assert guest.write(first, b"x" * 65536) == 65536
    assert guest.write(second, b"x" * 65536) == -Errno.ENOMEM
    for fd in range(first - 1, second + 1):
        guest.raw("close", fd)
    assert guest.tree.quota.used == before
    assert reader == second - 1


@pytest.mark.parametrize("mode", ["", ":rw"])
def test_very_deep_directories(make_guest, tmp_path, mode):
    """Deeper than the interpreter's stack and the descriptors kept open."""
    guest = make_guest("/o", isolate=True, mounts=[f"{tmp_path}:/o{mode}"])
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    for _ in range(6):
        assert guest.call("chdir", "d/" * 200) == 0
    assert guest.spit("deep", b"bottom") == 6
    top = guest.open("/o", os.O_RDONLY | os.O_DIRECTORY)
    assert guest.call("newfstatat", top, "d/" * 150, BASE, 0) == 0
    guest.tree.descriptors.close()
    assert guest.slurp("deep") == b"bottom"
    assert guest.call("chdir", "../" * 1200) == 0
    assert guest.listdir(".") == [b".", b"..", b"d"]
    guest.tree.close()
    # pytest's own clean-up recurses too deep for this tree.
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


class Cache:
    """A mapping that has page 0 cached."""

    def __init__(self, page: bytes) -> None:
        self.page = bytearray(page)
        self.sizes = []

    def overlay(self, offset, data):
        end = min(offset + len(data), len(self.page))
        return bytes(self.page[offset:end]) + data[max(end - offset, 0) :] if offset < end else data

    def written(self, offset, data):
        for i, byte in enumerate(data):
            if offset + i < len(self.page):
                self.page[offset + i] = byte

    def truncated(self, size):
        self.sizes.append(size)


@pytest.mark.parametrize("name", ["/o/big", "/tmp/mem", "/w/rw"])
def test_mapped_pages_and_file_calls_agree(make_guest, tmp_path, name):
    (tmp_path / "o").mkdir()
    (tmp_path / "w").mkdir()
    (tmp_path / "o" / "big").write_bytes(b"a" * 10000)
    mounts = [f"{tmp_path}/o:/o", f"{tmp_path}/w:/w:rw"]
    guest = make_guest("/", isolate=True, mounts=mounts)
    guest.spit(name, b"a" * 10000)
    inode = guest.tree.lookup(name)
    cache = inode.mapping = Cache(b"b" * 4096)
    fd = guest.open(name, os.O_RDWR)
    assert guest.pread(fd, 4, 4094) == b"bbaa"
    guest.raw("lseek", fd, 10, 0)
    guest.write(fd, b"new")
    assert cache.page[9:14] == b"bnewb"
    guest.raw("ftruncate", fd, 100)
    guest.call("truncate", name, 50)
    guest.raw("close", guest.open(name, os.O_WRONLY | os.O_TRUNC))
    assert cache.sizes == [100, 50, 0]


def test_listing_is_sorted_and_shows_both_layers(over):
    over.spit("aaa", b"")
    over.spit("zzz", b"")
    over.call("unlink", "hard")
    assert over.listdir(".") == [b".", b"..", b"aaa", b"big", b"zzz"]


offsets = st.integers(0, 3 * CHUNK)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("write"), offsets, st.integers(1, 100_000)),
        st.tuples(st.just("truncate"), offsets, st.just(0)),
        st.tuples(st.just("punch"), offsets, st.integers(1, 2 * CHUNK)),
    ),
    max_size=8,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(0, 2 * CHUNK + 100), operations, st.integers(1, 250))
def test_content_is_a_byte_string(base_size, history, seed):
    base = bytes((i * seed) & 0xFF for i in range(256)) * (base_size // 256 + 1)
    quota = Quota(1 << 30)
    content = Content(quota, lambda offset, count: base[:base_size][offset : offset + count], base_size)
    model = bytearray(base[:base_size])
    for step, (kind, offset, count) in enumerate(history):
        if kind == "write":
            data = bytes([step + 1]) * count
            assert content.write(offset, data) == count
            model.extend(bytes(max(offset - len(model), 0)))
            model[offset : offset + count] = data
        elif kind == "truncate":
            content.truncate(offset)
            del model[offset:]
            model.extend(bytes(offset - len(model)))
        else:
            end = min(offset + count, len(model))
            content.punch(offset, count)
            if offset < end:
                model[offset:end] = bytes(end - offset)
        assert content.size == len(model)
        assert content.read(0, 1 << 30) == model
        hole = content.hole_from(0)
        assert hole <= content.size
        data_at = content.data_from(0)
        assert not any(model[:data_at])
    middle = base_size // 2
    assert content.read(middle, 1000) == model[middle : middle + 1000]
    assert quota.used == content.stored <= len(model) + CHUNK
    del content
    assert quota.used == 0


def test_partial_write_at_the_limit():
    quota = Quota(CHUNK + 10)
    content = Content(quota)
    assert content.write(0, bytes(CHUNK)) == CHUNK
    assert content.write(CHUNK - 5, bytes(100)) == 15
    assert content.size == CHUNK + 10
    with pytest.raises(SyscallError) as caught:
        content.write(CHUNK + 10, b"x")
    assert caught.value.errno is Errno.ENOSPC
    full = Content(quota, lambda offset, count: b"b" * count, 100)
    with pytest.raises(SyscallError):
        full.write(0, b"x")
    assert full.read(0, 2) == b"bb"
