"""Path resolution: limits, links, dots, and the errors of path_resolution(7)."""

from __future__ import annotations

import os

import pytest

from mmuemu.kernel.abi.errno import Errno


def test_parent_of_root_is_root(guest):
    assert guest.stat("/../..//..").ino == guest.stat("/").ino
    assert guest.call("chdir", "/../../tmp/..") == 0
    assert guest.raw("getcwd", 0x10000, 100) == 2
    assert guest.memory.read(0x10000, 2) == b"/\0"


@pytest.mark.parametrize("links", [40, 41])
def test_at_most_forty_links(guest, links):
    guest.spit("end", b"x")
    guest.call("symlink", "end", "l1")
    for i in range(2, links + 1):
        guest.call("symlink", f"l{i - 1}", f"l{i}")
    assert guest.slurp(f"l{links}") == (b"x" if links == 40 else -Errno.ELOOP)


def test_a_link_to_itself_is_a_loop(guest):
    guest.call("symlink", "me", "me")
    assert guest.stat("me") == -Errno.ELOOP
    assert guest.stat("me/x") == -Errno.ELOOP
    assert guest.readlink("me") == b"me"
    assert guest.open("me", os.O_NOFOLLOW) == -Errno.ELOOP


def test_lengths(guest):
    assert guest.spit("n" * 255, b"") == 0
    assert guest.spit("n" * 256, b"") == -Errno.ENAMETOOLONG
    assert guest.stat("n" * 256 + "/x") == -Errno.ENAMETOOLONG
    path = "./" * 2043 + "n" * 9
    assert len(path) == 4095
    assert guest.stat(path) == -Errno.ENOENT
    assert guest.stat("/" + path) == -Errno.ENAMETOOLONG
    assert guest.stat("") == -Errno.ENOENT


@pytest.mark.parametrize("name", [b"new\nline", b"\xff\xfe\x80", b" ", b"\\", "\u00e4\u4e2d".encode(), b"-rf *"])
def test_any_byte_but_nul_and_slash_may_be_in_a_name(guest, name):
    assert guest.spit(name, b"data") == 4
    assert name in guest.listdir(".")
    assert guest.slurp(b"./" + name) == b"data"
    assert guest.call("unlink", name) == 0


def test_absolute_links_are_walked_in_the_guests_tree(guest):
    guest.call("symlink", "/etc/passwd", "link")
    assert guest.slurp("link").startswith(b"root:x:0:0:root:")
    assert b"user:x:1000" in guest.slurp("link")


def test_dangling_link_creates_its_target_unless_exclusive(guest):
    guest.call("symlink", "target", "link")
    assert guest.open("link", os.O_CREAT | os.O_EXCL | os.O_WRONLY) == -Errno.EEXIST
    assert guest.stat("target") == -Errno.ENOENT
    assert guest.spit("link", b"through") == 7
    assert guest.slurp("target") == b"through"


def test_at_calls_start_at_their_directory(guest):
    guest.call("mkdir", "d", 0o755)
    guest.spit("d/f", b"in d")
    directory = guest.open("d", os.O_RDONLY | os.O_DIRECTORY)
    fd = guest.call("openat", directory, "f", 0, 0)
    assert guest.read(fd) == b"in d"
    assert guest.call("openat", fd, "f", 0, 0) == -Errno.ENOTDIR
    assert guest.call("openat", 99, "f", 0, 0) == -Errno.EBADF
    assert guest.call("openat", 99, "/tmp/d/f", 0, 0) >= 0
    assert guest.call("rename", "d", "moved") == 0
    assert guest.call("unlinkat", directory, "f", 0) == 0
    assert guest.listdir("moved") == [b".", b".."]


def test_getcwd_follows_renames_and_notices_removal(guest):
    guest.call("mkdir", "a", 0o755)
    guest.call("mkdir", "a/b", 0o755)
    guest.call("chdir", "a/b")
    guest.call("rename", "/tmp/a", "/tmp/z")
    length = guest.raw("getcwd", 0x10000, 100)
    assert guest.memory.read(0x10000, length) == b"/tmp/z/b\0"
    assert guest.raw("getcwd", 0x10000, length - 1) == -Errno.ERANGE
    assert guest.call("rmdir", "/tmp/z/b") == 0
    assert guest.raw("getcwd", 0x10000, 100) == -Errno.ENOENT
    assert guest.spit("new", b"") == -Errno.ENOENT
    assert guest.stat("..").ino == guest.stat("/tmp/z").ino


def test_bad_pointers_are_efault(guest):
    assert guest.raw("openat", -100, 0, 0, 0) == -Errno.EFAULT
    fd = guest.open("/etc/passwd")
    assert guest.raw("read", fd, 0x10, 10) == -Errno.EFAULT
    assert guest.read(fd, 4) == b"root"
    assert guest.raw("fstat", fd, 0x10) == -Errno.EFAULT


PERMISSION_MODES = [0o000, 0o100, 0o200, 0o300, 0o400, 0o500, 0o600, 0o700, 0o077]


def permission_results(call_open, chmod, mkdir, spit, unlink):
    """What an ordinary user may do with a file and directory of their own, by mode."""
    results = []
    mkdir("d")
    spit("d/f")
    for mode in PERMISSION_MODES:
        chmod("d/f", mode)
        results.append([call_open("d/f", flags) for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_TRUNC)])
    chmod("d/f", 0o644)
    for mode in PERMISSION_MODES:
        chmod("d", mode)
        results.append(
            [
                call_open("d/f", os.O_RDONLY),
                call_open("d", os.O_RDONLY | os.O_DIRECTORY),
                call_open("d/none", os.O_RDONLY),
                call_open("d/new", os.O_WRONLY | os.O_CREAT),
                unlink("d/new"),
            ]
        )
    chmod("d", 0o700)
    return results


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the oracle is a Unix host")
def test_permission_bits_as_the_host_checks_them(guest, tmp_path):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.chmod(tmp_path, 0o777)
            os.chdir(tmp_path)
            if os.geteuid() == 0:
                os.setgid(1000)
                os.setuid(1000)

            def attempt(function, *args):
                try:
                    result = function(*args)
                except OSError as error:
                    return -error.errno
                if function is os.open:
                    os.close(result)
                return 0

            theirs = permission_results(
                lambda path, flags: attempt(os.open, path, flags, 0o644),
                lambda path, mode: os.chmod(path, mode),
                os.mkdir,
                lambda path: os.close(os.open(path, os.O_CREAT)),
                lambda path: attempt(os.unlink, path),
            )
            os.write(writer, repr(theirs).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        theirs = eval(pipe.read())
    os.waitpid(child, 0)

    def call_open(path, flags):
        fd = guest.open(path, flags)
        return fd if fd < 0 else guest.raw("close", fd)

    ours = permission_results(
        call_open,
        lambda path, mode: guest.call("chmod", path, mode),
        lambda path: guest.call("mkdir", path, 0o755),
        lambda path: guest.spit(path, b""),
        lambda path: guest.call("unlink", path),
    )
    assert ours == theirs


def test_ownership_rules(make_guest):
    guest = make_guest("/tmp", isolate=True)
    guest.spit("mine", b"")
    assert guest.call("chmod", "/etc/passwd", 0o777) == -Errno.EPERM
    assert guest.call("chown", "mine", 0, 0) == -Errno.EPERM
    assert guest.call("chown", "mine", -1, 1000) == 0
    assert guest.call("utimensat", -100, "/etc/passwd", 0, 0) == -Errno.EACCES
    assert guest.spit("/etc/passwd", b"") == -Errno.EACCES
    assert guest.call("access", "/etc/passwd", 4) == 0
    assert guest.call("access", "/etc/passwd", 2) == -Errno.EACCES
    root = make_guest("/tmp", isolate=True, uid=0)
    assert root.spit("/etc/passwd", b"new") == 3
    assert root.call("chown", "/etc/passwd", 5, 6) == 0
    assert (root.stat("/etc/passwd").uid, root.stat("/etc/passwd").gid) == (5, 6)


def test_sticky_directories_protect_others_files(guest):
    tmp = guest.tree.lookup("/tmp")
    other = tmp.create(b"theirs", 0o100666, 7, 7)
    assert guest.call("unlink", "/tmp/theirs") == -Errno.EPERM
    assert guest.call("rename", "/tmp/theirs", "/tmp/x") == -Errno.EPERM
    other.uid = 1000
    assert guest.call("unlink", "/tmp/theirs") == 0


def test_setuid_bits_go_when_the_file_is_written(guest):
    guest.spit("f", b"")
    guest.call("chmod", "f", 0o6755)
    assert guest.stat("f").mode & 0o7777 == 0o6755
    fd = guest.open("f", os.O_WRONLY)
    guest.write(fd, b"x")
    assert guest.stat("f").mode & 0o7777 == 0o755


def test_umask(guest):
    assert guest.raw("umask", 0o077) == 0o022
    guest.open("f", os.O_CREAT, 0o666)
    guest.call("mkdir", "d", 0o777)
    assert guest.stat("f").mode & 0o777 == 0o600
    assert guest.stat("d").mode & 0o777 == 0o700
