"""Nothing outside the view can be reached, by whatever path, link or race."""

from __future__ import annotations

import os

import pytest

from mmuemu.errors import UsageError
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.files.namespace import ViewOptions, build_namespace

SECRET = b"the host's secret"


@pytest.fixture(params=["", ":rw"])
def trapped(make_guest, tmp_path, request):
    """A guest that sees ``inside`` as /view, next to a secret it must not see."""
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "secret").write_bytes(SECRET)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "file").write_bytes(b"harmless")
    (inside / "sub").mkdir()
    os.symlink("../secret", inside / "relative")
    os.symlink(tmp_path / "secret", inside / "absolute")
    os.symlink("../../../../../../.." + str(tmp_path / "secret"), inside / "deep")
    os.symlink("..", inside / "up")
    os.symlink("/", inside / "root")
    os.symlink("../hidden", inside / "sub" / "dir")
    guest = make_guest("/view", isolate=True, mounts=[f"{inside}:/view{request.param}"])
    guest.inside = inside
    guest.outside = tmp_path
    return guest


def test_no_path_leads_out(trapped):
    outside = str(trapped.outside / "secret")
    attempts = [
        "../secret", "/view/../secret", "relative", "absolute", "deep", "up/secret", "up/../../secret",
        "root" + outside, outside, "sub/../../secret", "sub/dir/secret", "sub/dir/../secret",
        "/proc/self/cwd/../secret", "/proc/self/root/../secret", "/proc/self/root" + outside,
        "/proc/self/root/../.." + outside,
    ]  # fmt: skip
    for path in attempts:
        assert trapped.slurp(path) == -Errno.ENOENT, path
        assert trapped.spit(path, b"overwritten") in (-Errno.ENOENT, -Errno.EACCES, 11), path
    assert (trapped.outside / "secret").read_bytes() == SECRET
    assert (trapped.outside / "hidden" / "secret").read_bytes() == SECRET
    assert sorted(os.listdir(trapped.outside)) == ["hidden", "inside", "secret"]


def test_parent_of_a_mount_is_the_guests(trapped):
    assert trapped.stat("/view/..").ino == trapped.stat("/").ino
    directory = trapped.open("/view", os.O_RDONLY | os.O_DIRECTORY)
    names = trapped.listdir(f"/proc/self/fd/{directory}/..")
    assert b"secret" not in names
    assert b"view" in names
    assert trapped.slurp(f"/proc/self/fd/{directory}/../secret") == -Errno.ENOENT
    assert trapped.call("openat", directory, "../secret", 0, 0) == -Errno.ENOENT


def test_descriptor_links_are_not_walked_as_text(trapped):
    fd = trapped.open("file")
    assert trapped.readlink(f"/proc/self/fd/{fd}") == b"/view/file"
    assert trapped.slurp(f"/proc/self/fd/{fd}/../secret") == -Errno.ENOTDIR
    assert trapped.slurp(f"/proc/self/fd/{fd}") == b"harmless"
    assert trapped.call("unlink", "file") == 0
    assert trapped.slurp(f"/proc/self/fd/{fd}") == b"harmless"
    assert trapped.readlink(f"/proc/self/fd/{fd}") == b"/view/file (deleted)"


def test_host_links_out_are_dead_links_even_when_the_guest_makes_them(trapped):
    outside = str(trapped.outside / "secret")
    trapped.call("symlink", outside, "made")
    trapped.call("symlink", "../secret", "made2")
    assert trapped.slurp("made") == -Errno.ENOENT
    assert trapped.slurp("made2") == -Errno.ENOENT
    assert trapped.call("link", outside, "hard") == -Errno.ENOENT
    assert trapped.call("linkat", -100, "made", -100, "hard", 0x400) == -Errno.ENOENT
    assert trapped.call("rename", outside, "stolen") == -Errno.ENOENT


def test_directory_swapped_for_a_link_between_steps(trapped):
    """The walk has arrived in ``sub``; then the host replaces it by a link that leads out."""
    trapped.call("mkdir", "sub/work", 0o755) if trapped.tree.mounted[-1][2] == "rw" else None
    directory = trapped.open("sub", os.O_RDONLY | os.O_DIRECTORY)
    inode = trapped.task.files.get(directory).inode
    trapped.tree.descriptors.close()
    os.rename(trapped.inside / "sub", trapped.inside / "gone")
    os.symlink("../hidden", trapped.inside / "sub")
    with pytest.raises(SyscallError):
        inode.lookup(b"secret")
    assert trapped.call("openat", directory, "secret", 0, 0) < 0
    assert trapped.slurp("sub/secret") == -Errno.ENOENT


def test_file_swapped_for_a_link_before_the_host_opens_it(trapped):
    inode = trapped.tree.lookup("/view/file")
    os.unlink(trapped.inside / "file")
    os.symlink("../secret", trapped.inside / "file")
    with pytest.raises(SyscallError) as caught:
        inode.read_at(0, 100)
    assert caught.value.errno is Errno.ELOOP


def test_file_swapped_for_another_file_is_stale(trapped):
    inode = trapped.tree.lookup("/view/file")
    os.link(trapped.outside / "secret", trapped.inside / "other")
    os.rename(trapped.inside / "other", trapped.inside / "file")
    with pytest.raises(SyscallError) as caught:
        inode.read_at(0, 100)
    assert caught.value.errno is Errno.ESTALE


def test_special_files_of_the_host_are_not_opened(trapped):
    """Where the guest may write, a named pipe is one of its own: the host's programs are not at its other end."""
    os.mkfifo(trapped.inside / "fifo")
    assert trapped.stat("fifo").mode & 0o170000 == 0o010000
    opened = trapped.open("fifo", os.O_RDWR | os.O_NONBLOCK)
    if trapped.tree.mounted[-1][2] != "rw":
        assert opened == -Errno.EACCES
        assert trapped.open("fifo", os.O_RDONLY) == -Errno.EACCES
        return
    reader = os.open(trapped.inside / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    assert trapped.write(opened, b"for the guest") == 13
    assert os.read(reader, 99) == b""
    assert trapped.read(opened) == b"for the guest"
    os.close(reader)


def test_named_pipes_and_sockets_are_made_on_the_host(make_guest, tmp_path):
    guest = make_guest("/w", isolate=True, mounts=[f"{tmp_path}:/w:rw"])
    assert guest.call("mknod", "pipe", 0o10640, 0) == 0
    assert guest.call("mknod", "sock", 0o140600, 0) == 0
    assert guest.call("mknod", "pipe", 0o10640, 0) == -Errno.EEXIST
    assert os.stat(tmp_path / "pipe").st_mode == 0o10640
    assert os.stat(tmp_path / "sock").st_mode == 0o140600
    assert guest.call("chmod", "pipe", 0o4600) == 0
    assert os.stat(tmp_path / "pipe").st_mode == 0o10600
    assert guest.call("rename", "pipe", "other") == 0
    assert guest.call("unlink", "other") == 0
    assert guest.call("unlink", "sock") == 0
    assert os.listdir(tmp_path) == []


def test_holes_of_host_files_are_seen(make_guest, tmp_path):
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(b"data")
    guest = make_guest("/w", isolate=True, mounts=[f"{tmp_path}:/w:rw"])
    fd = guest.open("sparse")
    with open(tmp_path / "sparse", "rb") as file:
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            for offset in (0, 4096, 1 << 19, (1 << 19) + 2):
                assert guest.call("lseek", fd, offset, whence) == os.lseek(file.fileno(), offset, whence)


def test_the_file_size_limit(make_guest, tmp_path):
    guest = make_guest("/w", isolate=True, mounts=[f"{tmp_path}:/w:rw"])
    guest.task.process.limits[1] = (10, 10)
    fd = guest.open("f", os.O_CREAT | os.O_WRONLY)
    assert guest.write(fd, b"1234567") == 7
    assert guest.write(fd, b"1234567") == 3
    assert guest.write(fd, b"1") == -Errno.EFBIG
    assert (tmp_path / "f").read_bytes() == b"1234567123"


def test_one_file_mounted_shows_no_more(make_guest, tmp_path):
    (tmp_path / "one").write_bytes(b"one")
    (tmp_path / "two").write_bytes(SECRET)
    guest = make_guest("/", isolate=True, mounts=[f"{tmp_path / 'one'}:/data/file"])
    assert guest.slurp("/data/file") == b"one"
    assert guest.listdir("/data") == [b".", b"..", b"file"]
    assert guest.slurp("/data/file/../two") == -Errno.ENOTDIR
    assert guest.slurp("/data/two") == -Errno.ENOENT
    fd = guest.open("/data/file")
    assert guest.slurp(f"/proc/self/fd/{fd}/../two") == -Errno.ENOTDIR
    assert guest.call("unlink", "/data/file") == -Errno.EACCES
    guest.task.uid = 0
    assert guest.call("unlink", "/data/file") == -Errno.EBUSY


def test_isolation_shows_nothing_of_the_host(make_guest):
    guest = make_guest("/", isolate=True)
    for path in ("/bin", "/usr", "/lib", "/home", "/root", "/var", os.getcwd()):
        assert guest.stat(path) == -Errno.ENOENT, path


def test_default_view_shows_programs_and_working_directory_only(make_guest, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "file").write_bytes(b"mine")
    (tmp_path / "secret").write_bytes(SECRET)
    monkeypatch.chdir(tmp_path / "here")
    guest = make_guest("/", cwd=None)
    assert guest.slurp(str(tmp_path / "here" / "file")) == b"mine"
    assert guest.slurp(str(tmp_path / "secret")) == -Errno.ENOENT
    assert guest.stat("/usr/bin").mode & 0o170000 == 0o040000
    assert guest.slurp("/etc/shadow") == -Errno.ENOENT
    assert guest.stat("/root") == -Errno.ENOENT
    for name in ("bin", "lib"):
        if os.path.islink("/" + name):
            assert guest.readlink("/" + name).decode() == os.readlink("/" + name)


def test_root_directory_as_working_directory_is_not_shown(make_guest, monkeypatch):
    monkeypatch.chdir("/")
    guest = make_guest("/", cwd=None)
    assert guest.stat("/root") == -Errno.ENOENT
    assert guest.stat("/proc/1") == -Errno.ENOENT


def test_root_option_replaces_everything(make_guest, tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_bytes(b"theirs")
    os.symlink("/etc/shadow", tmp_path / "etc" / "link")
    guest = make_guest("/", root=str(tmp_path))
    assert guest.slurp("/etc/passwd") == b"theirs"
    assert guest.slurp("/etc/link") == -Errno.ENOENT
    assert guest.stat("/usr") == -Errno.ENOENT
    assert guest.slurp("/../../etc/passwd") == b"theirs"
    assert guest.spit("/tmp/x", b"x") == 1
    assert guest.spit("/new", b"y") == 1
    assert guest.slurp("/proc/self/root/new") == b"y"
    assert os.listdir(tmp_path) == ["etc"]


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "x",
        ":/x",
        "/tmp:",
        "/tmp:relative",
        "/tmp:/x:rx",
        "/tmp:/",
        "/does/not/exist:/x",
        "/dev/null:/x",
        "/tmp:/../..",
    ],
)
def test_bad_mounts_are_usage_errors(spec):
    with pytest.raises(UsageError, match="--mount"):
        build_namespace(ViewOptions(isolate=True, mounts=[spec]))


def test_bad_root_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="--root"):
        build_namespace(ViewOptions(root=str(tmp_path / "none")))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="--root"):
        build_namespace(ViewOptions(root=str(tmp_path / "file")))


def test_setuid_never_reaches_the_host(make_guest, tmp_path):
    guest = make_guest("/w", isolate=True, mounts=[f"{tmp_path}:/w:rw"])
    guest.open("f", os.O_CREAT | os.O_WRONLY, 0o6755)
    guest.call("chmod", "f", 0o6755)
    guest.call("mkdir", "d", 0o6755)
    assert os.stat(tmp_path / "f").st_mode & 0o7777 == 0o755
    assert os.stat(tmp_path / "d").st_mode & 0o7777 == 0o755
    assert guest.call("mknod", "node", 0o20666, 0x103) == -Errno.EPERM
    assert guest.call("mknod", "pipe", 0o16666, 0) == 0
    assert os.stat(tmp_path / "pipe").st_mode & 0o7777 == 0o644
