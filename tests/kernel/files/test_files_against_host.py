"""The same operations on the guest's file systems and on a host directory: results and trees must agree."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile

import pytest
from files_guest import Guest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mmuemu.kernel.files.namespace import ViewOptions, build_namespace

HOST_TMP = "/dev/shm" if os.path.isdir("/dev/shm") and os.access("/dev/shm", os.W_OK) else None
pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the oracle is a Linux host")

AS_USER = 0 if os.geteuid() == 0 else 1000
"""Both sides must be equally privileged."""
NAMES = ["a", "b", "c"]
inside = st.builds(
    lambda parts, slash: "/".join(parts) + ("/" if slash else ""),
    st.lists(st.sampled_from([*NAMES, *NAMES, "."]), min_size=1, max_size=3),
    st.integers(0, 9).map(lambda n: n == 0),
)
targets = st.one_of(inside, st.sampled_from(["../a", "../b/c", "a/../b", "./c"]))
open_flags = st.builds(
    lambda access, more: access | sum(more),
    st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR]),
    st.sets(
        st.sampled_from([os.O_CREAT, os.O_CREAT, os.O_EXCL, os.O_TRUNC, os.O_APPEND, os.O_DIRECTORY, os.O_NOFOLLOW])
    ),
)


class Host:
    """The oracle: the host's calls below a directory, failures as negative errno."""

    def __init__(self, top: str) -> None:
        self.top = top
        self.fds: list[int] = []

    def at(self, path: str) -> str:
        return f"{self.top}/{path}"

    def do(self, function, *args, **options):
        try:
            result = function(*args, **options)
        except OSError as error:
            return -(error.errno or 0)
        return 0 if result is None else result


def tree_of_host(top: str):
    found = {}
    for directory, subdirectories, files in os.walk(top):
        for name in subdirectories + files:
            path = os.path.join(directory, name)
            info = os.lstat(path)
            kind = stat.S_IFMT(info.st_mode)
            content = None
            if kind == stat.S_IFREG:
                with open(path, "rb") as file:
                    content = file.read()
            elif kind == stat.S_IFLNK:
                content = os.readlink(path).encode()
            size = info.st_size if kind != stat.S_IFDIR else 0
            found[os.path.relpath(path, top)] = (info.st_mode, size, info.st_nlink, content)
    return found


def tree_of_guest(guest: Guest, top: str, below: str = ""):
    found = {}
    here = os.path.join(top, below)
    names = guest.listdir(here)
    assert not isinstance(names, int), errno.errorcode[-names]
    for name in (n.decode() for n in names if n not in (b".", b"..")):
        path = os.path.join(here, name)
        info = guest.stat(path, follow=False)
        kind = stat.S_IFMT(info.mode)
        content = None
        if kind == stat.S_IFREG:
            content = guest.slurp(path)
        elif kind == stat.S_IFLNK:
            content = guest.readlink(path)
        relative = os.path.join(below, name)
        size = info.size if kind != stat.S_IFDIR else 0
        found[relative] = (info.mode, size, info.nlink, content)
        if kind == stat.S_IFDIR:
            found.update(tree_of_guest(guest, top, relative))
    return found


class Agreement(RuleBasedStateMachine):
    """One random history, told to both."""

    def __init__(self) -> None:
        super().__init__()
        self.base = tempfile.mkdtemp(dir=HOST_TMP)
        self.host = Host(os.path.join(self.base, "host"))
        os.makedirs(self.host.top)
        self.guest = self.make_guest()
        self.pairs: list[tuple[int, int]] = []
        self.umask = os.umask(0o022)
        self.cwd = os.getcwd()
        self.steps = 0

    def make_guest(self) -> Guest:
        guest = Guest(build_namespace(ViewOptions(isolate=True, cwd="")), "/tmp", memory=1 << 17, uid=AS_USER)
        guest.call("mkdir", "/tmp/host", 0o755)
        guest.call("chdir", "/tmp/host")
        self.guest_top = "/tmp/host"
        return guest

    def teardown(self) -> None:
        os.umask(self.umask)
        for host_fd, _ in self.pairs:
            os.close(host_fd)
        self.guest.close()
        shutil.rmtree(self.base)

    def same(self, theirs, ours) -> None:
        assert ours == theirs, (ours, theirs)

    def both(self, name: str, function, paths: list[str], *rest, guest_rest: tuple = ()) -> None:
        theirs = self.host.do(function, *[self.host.at(p) for p in paths], *rest)
        self.same(theirs, self.guest.call(name, *[f"{self.guest_top}/{p}" for p in paths], *rest, *guest_rest))

    @rule(path=inside)
    def mkdir(self, path):
        self.both("mkdir", os.mkdir, [path], 0o755)

    @rule(path=inside)
    def rmdir(self, path):
        self.both("rmdir", os.rmdir, [path])

    @rule(path=inside)
    def unlink(self, path):
        self.both("unlink", os.unlink, [path])

    @rule(old=inside, new=inside)
    def rename(self, old, new):
        self.both("rename", os.rename, [old, new])

    @rule(old=inside, new=inside)
    def link(self, old, new):
        theirs = self.host.do(os.link, self.host.at(old), self.host.at(new), follow_symlinks=False)
        self.same(theirs, self.guest.call("link", f"{self.guest_top}/{old}", f"{self.guest_top}/{new}"))

    @rule(text=targets, path=inside)
    def symlink(self, text, path):
        theirs = self.host.do(os.symlink, text, self.host.at(path))
        self.same(theirs, self.guest.call("symlink", text, f"{self.guest_top}/{path}"))

    @rule(path=inside, follow=st.booleans())
    def stat(self, path, follow):
        theirs = self.host.do(os.stat, self.host.at(path), follow_symlinks=follow)
        ours = self.guest.stat(f"{self.guest_top}/{path}", follow)
        if isinstance(theirs, int):
            self.same(theirs, ours)
        else:
            self.same((theirs.st_mode, theirs.st_nlink), (ours.mode, ours.nlink))

    @rule(path=inside, size=st.sampled_from([0, 1, 70_000, 200_000]))
    def truncate(self, path, size):
        self.both("truncate", os.truncate, [path], size)

    @rule(path=inside, mode=st.sampled_from([0o755, 0o700, 0o777]))
    def chmod(self, path, mode):
        self.both("chmod", os.chmod, [path], mode)

    @rule(path=inside, flags=open_flags)
    def open(self, path, flags):
        theirs = self.host.do(os.open, self.host.at(path), flags, 0o644)
        ours = self.guest.open(f"{self.guest_top}/{path}", flags, 0o644)
        if theirs < 0 or ours < 0:
            if theirs >= 0:
                os.close(theirs)
            self.same(theirs, ours)
        elif len(self.pairs) < 6:
            self.pairs.append((theirs, ours))
        else:
            os.close(theirs)
            self.guest.raw("close", ours)

    def pick(self, index):
        return self.pairs[index % len(self.pairs)] if self.pairs else None

    @rule(index=st.integers(0, 5))
    def close(self, index):
        if pair := self.pick(index):
            self.pairs.remove(pair)
            os.close(pair[0])
            self.same(0, self.guest.raw("close", pair[1]))

    @rule(index=st.integers(0, 5), data=st.binary(min_size=1, max_size=40), repeat=st.sampled_from([1, 1, 2000]))
    def write(self, index, data, repeat):
        if pair := self.pick(index):
            data *= repeat
            self.same(self.host.do(os.write, pair[0], data), self.guest.write(pair[1], data))

    @rule(index=st.integers(0, 5), count=st.sampled_from([0, 3, 100_000]))
    def read(self, index, count):
        if pair := self.pick(index):
            self.same(self.host.do(os.read, pair[0], count), self.guest.read(pair[1], count))

    @rule(index=st.integers(0, 5), offset=st.integers(-2, 100_000), whence=st.integers(0, 2))
    def seek(self, index, offset, whence):
        pair = self.pick(index)
        if pair and not stat.S_ISDIR(os.fstat(pair[0]).st_mode):
            self.same(
                self.host.do(os.lseek, pair[0], offset, whence),
                self.guest.raw("lseek", pair[1], offset, whence),
            )

    @rule(index=st.integers(0, 5), size=st.sampled_from([0, 5, 65_536, 150_000]))
    def ftruncate(self, index, size):
        if pair := self.pick(index):
            self.same(self.host.do(os.ftruncate, pair[0], size), self.guest.raw("ftruncate", pair[1], size))

    @rule(index=st.integers(0, 5), data=st.binary(max_size=30), offset=st.integers(0, 140_000))
    def pwrite(self, index, data, offset):
        if pair := self.pick(index):
            theirs = self.host.do(os.pwrite, pair[0], data, offset)
            self.guest.memory.write(0x10000, data)
            self.same(theirs, self.guest.raw("pwrite64", pair[1], 0x10000, len(data), offset))

    @rule(index=st.integers(0, 5))
    def fstat(self, index):
        if pair := self.pick(index):
            theirs = os.fstat(pair[0])
            assert self.guest.raw("fstat", pair[1], 0x10000) == 0
            ours = self.guest.unpack_stat()
            size = ours.size if not stat.S_ISDIR(ours.mode) else theirs.st_size
            self.same((theirs.st_mode, theirs.st_size, theirs.st_nlink), (ours.mode, size, ours.nlink))

    @rule(path=inside)
    def chdir_and_getcwd(self, path):
        """Where a path leads, links and dots included."""
        theirs = self.host.do(os.chdir, self.host.at(path))
        ours = self.guest.call("chdir", f"{self.guest_top}/{path}")
        self.same(theirs, ours)
        if theirs == 0:
            length = self.guest.raw("getcwd", 0x10000, 4096)
            here = self.guest.memory.read(0x10000, length - 1).decode()
            self.same(
                os.path.relpath(os.getcwd(), self.base),
                os.path.relpath(here, os.path.dirname(self.guest_top)),
            )
            os.chdir(self.cwd)

    @invariant()
    def same_tree(self):
        self.steps += 1
        if self.steps % 6 == 0:
            self.compare()

    def compare(self):
        self.same(tree_of_host(self.host.top), tree_of_guest(self.guest, self.guest_top))


class OverlayAgreement(Agreement):
    """The guest's directory is an overlay over a host directory that starts with files in it."""

    mode = ""

    def make_guest(self) -> Guest:
        self.lower = os.path.join(self.base, "lower")
        for top in (self.host.top, self.lower):
            os.makedirs(f"{top}/a/b")
            os.makedirs(f"{top}/c")
            with open(f"{top}/a/a", "wb") as file:
                file.write(b"lower a" * 10_000)
            with open(f"{top}/a/b/c", "wb") as file:
                file.write(b"lower c")
            os.link(f"{top}/a/b/c", f"{top}/c/a")
            os.symlink("../a/b", f"{top}/c/b")
            os.symlink("nothing", f"{top}/b")
        self.before = tree_of_host(self.lower)
        tree = build_namespace(ViewOptions(isolate=True, cwd="", mounts=[f"{self.lower}:/host{self.mode}"]))
        self.guest_top = "/host"
        return Guest(tree, "/host", memory=1 << 17, uid=AS_USER)

    def compare(self):
        super().compare()
        assert tree_of_host(self.lower) == self.before


class WritableAgreement(OverlayAgreement):
    """The guest's directory is a host directory mounted for writing: the host sees everything."""

    mode = ":rw"

    def compare(self):
        Agreement.compare(self)
        assert tree_of_host(self.lower) == tree_of_host(self.host.top)


def _settings(examples: int) -> settings:
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    return settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=checks,
        derandomize=True,
    )


TestMemory = Agreement.TestCase
TestMemory.settings = _settings(60)
TestOverlay = OverlayAgreement.TestCase
TestOverlay.settings = _settings(60)
TestWritable = WritableAgreement.TestCase
TestWritable.settings = _settings(40)
