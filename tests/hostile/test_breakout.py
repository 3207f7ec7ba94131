"""Ways out to the host: each is refused, and what lies outside is as it was, byte for byte."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import subprocess
import termios
import threading
from pathlib import Path

import pytest

from mmuemu.kernel.half import HYPERCALL_PORT
from tests.hostile.attempts import expected, lines
from tests.hostile.host import SECRET, a_host, listening
from tests.hostile.oracle import CALLS, touched
from tests.hostile.trial import compiled
from tests.run.harness import ENGINES, command_line, emulator_environment


@pytest.fixture
def host(tmp_path, compiled_guests):
    with a_host(tmp_path, compiled_guests) as made:
        yield made


@pytest.mark.parametrize(("uid", "engine"), [(1000, "python"), (0, "native")])
def test_every_attempt_is_refused(host, uid, engine):
    done = host.run(
        "attempts", options=("--user", str(uid), "--mmu", engine), stdin=lines(host.victim.pid, str(host.rw)).encode()
    )
    assert dict(line.split("\t") for line in done.stdout.decode().splitlines()) == expected(uid)
    assert sorted(os.listdir(host.rw)) == ["dangling", "deep", "file", "link"]


def test_every_attempt_is_refused_below_another_root(host):
    shutil.copy(compiled("attempts", host.guests), host.rw)
    done = subprocess.run(
        command_line("--root", host.rw, "--seed", "1", "--timeout", "60", "/attempts"), cwd=host.outside,
        input=lines(host.victim.pid, "/.").encode(), capture_output=True, env=emulator_environment(), check=False,
    )  # fmt: skip
    assert dict(line.split("\t") for line in done.stdout.decode().splitlines()) == expected(1000)
    assert sorted(os.listdir(host.rw)) == ["attempts", "dangling", "deep", "file", "link"]


@pytest.mark.parametrize("engine", ENGINES)
def test_instructions_that_ring_3_may_not_execute(host, engine):
    done = host.run("breakout", "instructions", str(HYPERCALL_PORT), options=("--mmu", engine))
    found = dict(line.split(": ") for line in done.stdout.decode().splitlines())
    assert len(found) == 40
    assert {name: end for name, end in found.items() if end not in ("SEGV", "ILL")} == {}


def test_a_directory_and_a_link_in_turn(host):
    """Somebody outside swaps them while the guest opens: no moment is between the look and the use."""
    (host.rw / "real").mkdir()
    (host.rw / "real" / "name").write_bytes(b"public")
    (host.rw / "way").symlink_to(host.outside)
    stop = threading.Event()

    def swap() -> None:
        kept = [host.rw / "real", host.rw / "way"]
        while not stop.is_set():
            for one in kept:
                os.rename(one, host.rw / "flip")
                os.rename(host.rw / "flip", one)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        done = host.run("breakout", "race", str(host.rw), "400")
    finally:
        stop.set()
        swapper.join()
    assert done.stdout == b"secret: 0\nopened: some\n"


def test_a_directory_that_is_moved_away(host):
    """It is open, and moved out by somebody outside: its parent is still the one inside."""
    process = subprocess.Popen(
        host.command("breakout", "moved", str(host.rw)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=emulator_environment(), text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    elsewhere = host.top / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "name").write_bytes(SECRET)
    (host.rw / "deep" / "down" / "link").symlink_to(elsewhere / "name")
    os.rename(host.rw / "deep" / "down", elsewhere / "down")
    (host.rw / "go").touch()
    out, err = process.communicate(timeout=60)
    assert out == "secret: 0\n"
    assert "Traceback" not in err
    assert (elsewhere / "name").read_bytes() == SECRET
    assert sorted(os.listdir(elsewhere)) == ["down", "name"]


def test_what_the_host_listens_at(host):
    """Pipes, sockets and devices of the host in a directory that is shown are names; nobody is behind them."""
    os.mkfifo(host.rw / "pipe")
    reader = os.open(host.rw / "pipe", os.O_RDWR | os.O_NONBLOCK)
    os.write(reader, SECRET)
    with listening(str(host.rw / "socket")) as server, listening(b"\0mmuemu-hostile") as nameless:
        done = host.run("breakout", "meet", str(host.rw), options=("--mount", "/dev:/hostdev"))
        for one in (server, nameless):
            with pytest.raises(BlockingIOError):
                one.accept()
    assert done.stdout.decode().splitlines() == [
        "read: ok", "empty: 0", "write: ok", "connect: ECONNREFUSED", "connect by name: ECONNREFUSED", "device: EACCES",
        "terminal: EACCES",
    ]  # fmt: skip
    assert os.read(reader, 100) == SECRET
    os.close(reader)


def test_a_signal_for_everybody(host):
    done = host.run("breakout", "everybody")
    assert done.returncode == 137
    assert done.stdout == b"parent: 1\n"


def test_requests_to_the_hosts_terminal(host):
    """No request changes it, nothing is typed into it, and modes that were set are gone at the end."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    size = fcntl.ioctl(slave, termios.TIOCGWINSZ, bytes(8))
    done = subprocess.run(
        host.command("breakout", "ioctls", "0x5400", "0x5480", str(host.rw / "file")), stdin=slave, stdout=slave,
        stderr=subprocess.PIPE, env=emulator_environment(), timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert termios.tcgetattr(slave) == before
    assert fcntl.ioctl(slave, termios.TIOCGWINSZ, bytes(8)) == size
    assert fcntl.ioctl(slave, termios.FIONREAD, bytes(4)) == bytes(4)
    os.set_blocking(master, False)
    assert re.fullmatch(rb"taken: \d+\r\n", os.read(master, 1000))
    os.close(master)
    os.close(slave)


def test_standard_streams_stay_the_hosts(host):
    """Flags, rights, times and locks of the files behind them are not the guest's to change."""
    given, taken = host.top / "given", host.top / "taken"
    given.write_bytes(SECRET)
    taken.write_bytes(SECRET)
    before = [(os.stat(one).st_mode, os.stat(one).st_mtime_ns) for one in (given, taken)]
    with given.open("rb") as stdin, taken.open("ab") as stdout:
        flags = [fcntl.fcntl(one, fcntl.F_GETFL) for one in (stdin, stdout)]
        done = subprocess.run(
            host.command("breakout", "streams"), stdin=stdin, stdout=stdout, stderr=subprocess.PIPE,
            env=emulator_environment(), timeout=60, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert [fcntl.fcntl(one, fcntl.F_GETFL) for one in (stdin, stdout)] == flags
        with given.open("rb") as again:
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert done.stderr.splitlines() == [
        "cut it by opening: EINVAL", "write to standard input: EBADF", "cut standard input: EINVAL",
        "cut it by name: EINVAL", "map it: EACCES", "read standard output: EBADF",
    ]  # fmt: skip
    assert given.read_bytes() == taken.read_bytes() == SECRET
    assert [(os.stat(one).st_mode, os.stat(one).st_mtime_ns) for one in (given, taken)] == before


SHOWN = (
    "/proc/cpuinfo", "/proc/version", "/proc/mounts", "/proc/self/mountinfo", "/proc/self/status", "/proc/self/cgroup",
    "/proc/cmdline", "/proc/uptime", "/proc/stat", "/proc/meminfo", "/proc/loadavg", "/proc/filesystems",
    "/proc/self/environ", "/proc/self/maps", "/proc/sys/kernel/hostname", "/proc/sys/kernel/osrelease",
    "/proc/sys/kernel/random/boot_id", "/proc/self/net/dev", "/proc/net/tcp", "/proc/partitions", "/proc/interrupts",
    "/etc/passwd", "/etc/group", "/etc/shadow", "/etc/hosts", "/etc/hostname", "/etc/machine-id", "/etc/resolv.conf",
    "/sys/class/dmi/id/product_name", "/sys/devices/system/cpu/online",
)  # fmt: skip


@pytest.mark.parametrize("view", [("--isolate",), ()])
def test_nothing_of_the_host_is_told(host, view, monkeypatch):
    monkeypatch.setenv("MMUEMU_SECRET", SECRET.decode())
    text = host.run("breakout", "look", *SHOWN, view=view).stdout.decode()
    assert text.count("== ") == len(SHOWN)
    uname = os.uname()
    telling = {uname.nodename, uname.release, uname.version, SECRET.decode()}
    if view:
        telling.add("outside")
    machine_id = Path("/etc/machine-id")
    if machine_id.exists():
        telling.add(machine_id.read_text().strip())
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "microcode"):
            telling.add(value.strip())
    telling -= {"", "localhost", "mmuemu"}
    assert [word for word in telling if word in text] == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not here")
def test_the_hosts_kernel_is_asked_for_nothing_more(host):
    """What the emulator's own process asked of the host's kernel while a guest tried everything, as strace saw it."""
    log = host.top / "log"
    command = ["strace", "-f", "-y", "-qq", "-e", f"trace={CALLS}", "-e", "signal=none", "-o", str(log)]
    done = subprocess.run(
        [*command, *host.command("attempts")], input=lines(host.victim.pid, str(host.rw)).encode(),
        capture_output=True, cwd=host.outside, env={**emulator_environment(), "PYTHONDONTWRITEBYTECODE": "1"},
        timeout=120, check=False,
    )  # fmt: skip
    if b"ptrace" in done.stderr and not done.stdout:
        pytest.skip("strace may not trace here")
    assert dict(line.split("\t") for line in done.stdout.decode().splitlines()) == expected(1000)
    seen = touched(log.read_text(errors="replace"), [str(host.rw)])
    assert seen.looked_at > 100
    assert seen.wrong == []


def test_the_oracle_sees_what_is_wrong(tmp_path):
    told = """7 openat(AT_FDCWD</tmp>, "/etc/passwd", O_RDONLY) = 3</etc/passwd>
7 openat(AT_FDCWD</tmp>, "made", O_WRONLY|O_CREAT, 0666) = 3</tmp/made>
7 openat(5</in>, "made", O_WRONLY|O_CREAT, 0666) = 3</in/made>
7 openat(5</in>, "made", O_RDWR) = -1 ENOENT (No such file or directory)
7 unlinkat(5</in/deep>, "made", 0) = 0
7 unlink("/tmp/made") = 0
7 renameat2(5</in>, "a", 6</out>, "b", 0) = 0
7 kill(1234, SIGKILL) = 0
7 socket(AF_INET, SOCK_STREAM, 0) = 3
"""
    assert [line.split("(")[0].split()[1] for line in touched(told, ["/in"]).wrong] == [
        "openat", "unlink", "renameat2", "kill", "socket",
    ]  # fmt: skip
