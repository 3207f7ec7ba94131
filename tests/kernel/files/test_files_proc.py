"""/proc: the texts programs parse, with the host's own /proc as the measure of their shape."""

from __future__ import annotations

import os
import re

import pytest

from mmuemu.kernel.abi.errno import Errno
from mmuemu.kernel.files.procsource import ProcessFacts, SystemFacts

needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="the oracle is the host's /proc")


class Source:
    """Two processes: the guest's own (42) and another (7)."""

    def __init__(self, guest) -> None:
        task = guest.task
        self.facts = {}
        for pid, name in ((42, b"guest program"), (7, b"other")):
            facts = ProcessFacts(pid, name, task.files, task.fs)
            facts.arguments = (b"guest", b"-x", b"a b")
            facts.environment = (b"A=1", b"B=\xff")
            facts.auxv = bytes(range(32))
            facts.virtual, facts.resident, facts.data, facts.stack = 10 << 20, 3 << 20, 1 << 20, 132 << 10
            facts.blocked = 1 << 1
            facts.limits = {3: (8 << 20, (1 << 64) - 1), 7: (1024, 4096)}
            facts.exe = guest.tree.lookup("/etc/passwd")
            self.facts[pid] = facts
        self.machine = SystemFacts()
        self.machine.hostname = "box"
        self.machine.uptime = 12.345

    def pids(self):
        return sorted(self.facts)

    def process(self, pid):
        return self.facts.get(pid)

    def maps(self, pid):
        return b"00400000-00401000 r-xp 00000000 00:00 0 [code of %d]\n" % pid

    def thread(self, pid, tid):
        return self.process(tid)

    def memory(self, pid):
        return None

    def symbols(self):
        return [(0xFFFFFFFF81000000, "T", "_text")]

    def banner_read(self):
        return None

    def sysvipc(self, kind):
        return kind.encode()

    def uuid(self):
        return bytes(range(16))

    def system(self):
        return self.machine


@pytest.fixture
def proc(guest):
    guest.tree.proc = Source(guest)
    return guest


def host_text(path: str) -> str:
    with open(path) as file:
        return file.read()


def shape(text: str) -> str:
    """The text with every number made N and runs of blanks made one."""
    return re.sub(r"[ \t]+", " ", re.sub(r"\d+", "N", text))


@needs_proc
def test_stat_has_the_hosts_fields(proc):
    theirs = host_text("/proc/self/stat").encode()
    ours = proc.slurp("/proc/self/stat")
    assert ours.startswith(b"42 (guest program) R 1 ")
    assert len(ours.rpartition(b")")[2].split()) == len(theirs.rpartition(b")")[2].split())
    assert ours.split()[23:25] == [str(10 << 20).encode(), str(3 << 8).encode()]


@needs_proc
def test_status_lines_are_a_subset_of_the_hosts_in_order(proc):
    theirs = [line.split(":")[0] for line in host_text("/proc/self/status").splitlines()]
    ours = [line.split(":")[0] for line in proc.slurp("/proc/self/status").decode().splitlines()]
    known = [name for name in theirs if name in ours]
    assert [name for name in ours if name in theirs] == known
    assert set(ours) <= set(theirs) | {"Umask", "NoNewPrivs"}
    text = proc.slurp("/proc/self/status").decode()
    assert re.search(r"^VmRSS:\s+3072 kB$", text, re.M)
    assert re.search(r"^SigBlk:\s0000000000000002$", text, re.M)
    assert re.search(r"^Uid:\t1000\t1000\t1000\t1000$", text, re.M)


@needs_proc
@pytest.mark.parametrize("name", ["limits", "statm", "mounts", "mountinfo"])
def test_process_files_have_the_hosts_shape(proc, name):
    theirs = shape(host_text(f"/proc/self/{name}")).splitlines()
    ours = shape(proc.slurp(f"/proc/self/{name}").decode()).splitlines()
    if name == "limits":
        assert [line.split(" N")[0].split(" unl")[0] for line in ours] == [
            line.split(" N")[0].split(" unl")[0] for line in theirs
        ]
        text = proc.slurp("/proc/self/limits").decode()
        assert re.search(
            r"^Max stack size            8388608              unlimited            bytes     $", text, re.M
        )
        assert re.search(
            r"^Max open files            1024                 4096                 files     $", text, re.M
        )
    elif name == "statm":
        assert ours == theirs
    else:
        fields = {"mounts": {6}, "mountinfo": {10, 11}}[name]
        assert {len(line.split()) for line in ours} <= fields
        assert {len(line.split()) for line in theirs} & fields


@needs_proc
@pytest.mark.parametrize("name", ["meminfo", "cpuinfo", "stat", "uptime", "loadavg", "version", "filesystems"])
def test_machine_files_parse_as_the_hosts_do(proc, name):
    theirs, ours = host_text(f"/proc/{name}"), proc.slurp(f"/proc/{name}").decode()
    if name in ("meminfo", "cpuinfo"):
        pattern = r"^(\w[\w ()]*?)\s*:( .*|)$"
        keys = [re.match(pattern, line)[1] for line in ours.splitlines() if line]
        host_keys = {m[1] for line in theirs.splitlines() if (m := re.match(pattern, line))}
        assert {"MemTotal", "processor"} & set(keys)
        assert set(keys) <= host_keys | {"cpu MHz", "cache size"}
    elif name == "stat":
        assert ours.split()[0] == theirs.split()[0] == "cpu"
        assert {line.split()[0] for line in ours.splitlines()} <= {line.split()[0] for line in theirs.splitlines()}
    else:
        assert len(ours.splitlines()[0].split()) >= 2
        if name in ("uptime", "loadavg"):
            assert shape(ours) == shape(theirs)


def test_links(proc):
    assert proc.readlink("/proc/self") == b"42"
    assert proc.readlink("/proc/thread-self") == b"42/task/42"
    assert proc.readlink("/proc/self/exe") == b"/etc/passwd"
    assert proc.slurp("/proc/self/exe") == proc.slurp("/etc/passwd")
    assert proc.readlink("/proc/self/cwd") == b"/tmp"
    assert proc.readlink("/proc/self/root") == b"/"
    assert proc.stat("/proc/7/root/").ino == proc.stat("/").ino
    assert proc.slurp("/proc/thread-self/comm") == b"guest program\n"


def test_texts(proc):
    assert proc.slurp("/proc/self/cmdline") == b"guest\0-x\0a b\0"
    assert proc.slurp("/proc/self/environ") == b"A=1\0B=\xff\0"
    assert proc.slurp("/proc/42/auxv") == bytes(range(32))
    assert proc.slurp("/proc/self/maps").endswith(b"[code of 42]\n")
    assert proc.slurp("/proc/7/maps").endswith(b"[code of 7]\n")
    assert proc.slurp("/proc/sys/kernel/hostname") == b"box\n"
    assert proc.slurp("/proc/sys/kernel/randomize_va_space") == b"2\n"
    assert proc.slurp("/proc/uptime") == b"12.35 0.00\n" or proc.slurp("/proc/uptime") == b"12.34 0.00\n"
    boot = proc.slurp("/proc/sys/kernel/random/boot_id")
    assert re.fullmatch(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}\n", boot)
    assert proc.slurp("/proc/sys/kernel/random/boot_id") == boot


def test_processes_come_and_go(proc):
    assert {b"7", b"42"} <= set(proc.listdir("/proc"))
    fd = proc.open("/proc/7/status")
    del proc.tree.proc.facts[7]
    assert proc.stat("/proc/7") == -Errno.ENOENT
    assert b"7" not in proc.listdir("/proc")
    assert proc.read(fd) == -Errno.ESRCH
    assert proc.stat("/proc/042") == -Errno.ENOENT
    assert proc.stat("/proc/43") == -Errno.ENOENT


def test_descriptors_are_listed_as_they_are(proc):
    proc.spit("f", b"0123456789")
    fd = proc.open("f", os.O_RDWR)
    assert set(proc.listdir("/proc/self/fd")) == {b".", b"..", b"0", b"1", b"2", b"3", b"4"}
    assert proc.readlink(f"/proc/self/fd/{fd}") == b"/tmp/f"
    assert proc.stat(f"/proc/self/fd/{fd}", follow=False).mode == 0o120700
    assert proc.stat(f"/proc/self/fd/{fd}").size == 10
    proc.read(fd, 4)
    assert proc.slurp(f"/proc/self/fdinfo/{fd}").startswith(b"pos:\t4\nflags:\t0100002\n")
    again = proc.open(f"/dev/fd/{fd}")
    assert proc.read(again, 2) == b"01", "a new description with its own offset"
    proc.raw("close", fd)
    assert proc.readlink(f"/proc/self/fd/{fd}") == -Errno.ENOENT
    for name in ("x", "-1", "00", "99"):
        assert proc.stat(f"/proc/self/fd/{name}") == -Errno.ENOENT


def test_nothing_can_be_changed(proc):
    assert proc.open("/proc/sys/kernel/hostname", os.O_WRONLY) == -Errno.EACCES
    assert proc.spit("/proc/new", b"") == -Errno.EACCES
    assert proc.call("mkdir", "/proc/42/d", 0o755) == -Errno.EACCES
    assert proc.call("unlink", "/proc/version") == -Errno.EACCES
    proc.task.uid = 0
    assert proc.spit("/proc/new", b"") == -Errno.ENOENT


def test_reading_in_pieces_gives_one_text(proc):
    fd = proc.open("/proc/uptime")
    first = proc.read(fd, 3)
    proc.tree.proc.machine.uptime = 99999.0
    assert first + proc.read(fd) in (b"12.35 0.00\n", b"12.34 0.00\n")
    assert proc.raw("lseek", fd, 0, 0) == 0
    assert proc.read(fd) == b"99999.00 0.00\n"
    assert proc.raw("lseek", fd, 0, 2) == -Errno.EINVAL
    assert proc.stat("/proc/uptime").size == 0


def test_before_a_kernel_is_there_the_caller_sees_itself(guest):
    assert guest.readlink("/proc/self") == b"42"
    assert guest.readlink("/proc/self/fd/0") == b"/dev/null"
    assert guest.slurp("/proc/meminfo").startswith(b"MemTotal:")


def test_settings_are_a_tree(proc):
    assert {b"kernel", b"vm", b"fs"} <= set(proc.listdir("/proc/sys"))
    assert proc.slurp("/proc/sys/kernel/random/uuid") == b"00010203-0405-4607-8809-0a0b0c0d0e0f\n"
    assert proc.slurp("/proc/sys/fs/mqueue/msg_max") == b"10\n"
    assert proc.stat("/proc/sys/kernel/nothing") == -Errno.ENOENT
    assert proc.slurp("/proc/sysvipc/sem") == b"sem"


@needs_proc
@pytest.mark.parametrize(
    "name", ["kernel/ostype", "kernel/msgmax", "kernel/msgmnb", "kernel/msgmni", "kernel/sem", "kernel/shmmax",
             "kernel/shmmni", "kernel/cap_last_cap", "vm/mmap_min_addr", "fs/pipe-max-size", "fs/mqueue/msg_max"],
)  # fmt: skip
def test_settings_are_linux_defaults(proc, name):
    path = f"/proc/sys/{name}"
    if not os.path.exists(path):
        pytest.skip("the host has none")
    assert len(proc.slurp(path).split()) == len(host_text(path).split())
    assert proc.slurp(path).endswith(b"\n")


def test_only_the_process_itself_renames_itself(proc):
    fd = proc.open("/proc/42/comm", os.O_WRONLY)
    assert proc.write(fd, b"quite a long name\n") == 18
    assert proc.slurp("/proc/self/comm") == b"quite a long na\n"
    assert proc.write(proc.open("/proc/7/comm", os.O_WRONLY), b"x") == -Errno.EINVAL
    fd = proc.open("/proc/self/oom_score_adj", os.O_WRONLY)
    for data, result in ((b"1001", -Errno.EINVAL), (b"x", -Errno.EINVAL), (b"7", 1), (b"6", -Errno.EACCES)):
        assert proc.write(fd, data) == result
    assert proc.slurp("/proc/self/oom_score_adj") == b"7\n"


def test_symbols_have_addresses_for_root(proc):
    assert proc.slurp("/proc/kallsyms") == b"0000000000000000 T _text\n"
    proc.task.uid = 0
    assert proc.slurp("/proc/kallsyms") == b"ffffffff81000000 T _text\n"


def test_a_process_without_memory_has_no_mem(proc):
    assert proc.open("/proc/self/mem") == -Errno.ESRCH
    assert proc.open("/proc/self/pagemap") == -Errno.ESRCH
    assert proc.slurp("/proc/self/smaps") == b""
