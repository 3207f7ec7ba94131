"""``--strace`` against the host's strace on the same program; the tables against the host's headers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mmuemu.cli import main
from mmuemu.kernel.abi.errno import Errno
from mmuemu.kernel.syscalls import load_all
from mmuemu.kernel.syscalls.table import TABLE
from mmuemu.view.strace.calls import SPECS
from mmuemu.view.strace.constants import CONSTANTS
from mmuemu.view.strace.filters import CLASSES
from mmuemu.view.strace.values import escaped, sigset_text
from mmuemu.view.strace.words import MESSAGES, MISSING
from tests.run.harness import command_line

load_all()
PROGRAM = Path(__file__).parent / "programs" / "calls.c"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    out = tmp_path_factory.mktemp("calls") / "calls"
    subprocess.run(["gcc", "-O1", "-w", "-static", "-o", out, PROGRAM], check=True, timeout=60)
    return out


@pytest.fixture(scope="module")
def strace(tmp_path_factory):
    """The host's strace, if it is of the version whose spelling this is, and may trace."""
    if shutil.which("strace") is None:
        pytest.skip("no strace on this host")
    version = subprocess.run(["strace", "-V"], capture_output=True, text=True).stdout
    if not version.startswith("strace -- version 6.1\n"):
        pytest.skip("another version of strace")
    if subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True).returncode:
        pytest.skip("strace may not trace here")
    return "strace"


def by_process(path: Path) -> list[list[str]]:
    """The lines of each process since ``/begin``, made whole where they were broken off, free of what differs."""
    lines: dict[str, list[str]] = {}
    begun: dict[str, str] = {}
    started = False
    for line in path.read_text(errors="replace").splitlines():
        pid, text = line.split(None, 1)
        started = started or '"/begin"' in text
        if not started:
            continue
        if text.endswith(" <unfinished ...>"):
            begun[pid] = text.removesuffix(" <unfinished ...>")
            lines.setdefault(pid, [])
            continue
        resumed = re.match(r"<\.\.\. (\w+) resumed>(.*)", text)
        if resumed:
            assert begun[pid].startswith(resumed[1] + "(")
            text = begun.pop(pid) + resumed[2]
        lines.setdefault(pid, []).append(text)
    numbers = {pid: f"PID{index}" for index, pid in enumerate(sorted(lines, key=int))}

    def same(text: str) -> str:
        text = re.sub(r"0x[0-9a-f]{6,16}", "ADDRESS", text)
        text = re.sub(r"\) += ", ") = ", text)
        # The host's program is as nice as the tests.
        text = re.sub(rf"^(getpriority\(.*\)) = {20 - os.nice(0)}$", r"\1 = 20", text)
        text = re.sub(r"si_([us])time=\d+", r"si_\1time=T", text)
        return re.sub(r"\b\d+\b", lambda found: numbers.get(found[0], found[0]), text)

    # A child may end before or after its parent asks: SIGCHLD has no fixed place.
    return [sorted(map(same, lines[pid]), key=lambda text: "--- SIGCHLD" in text) for pid in sorted(lines, key=int)]


KNOWN = {
    # The guest's files have no extended attributes; nobody but the host's root makes devices.
    "files": [("getxattr", "getxattr"), ("mknodat", "mknodat"), ("statx", "statx")],
    # Numbers of System V objects begin elsewhere.
    "ipc": [],
}


@pytest.mark.parametrize("part", ["files", "memory", "signals", "processes", "descriptors", "ipc", "constants"])
def test_lines_are_those_of_the_hosts_strace(part, program, strace, tmp_path):
    for side in ("host", "ours"):
        (tmp_path / side).mkdir()
    run = {"timeout": 50, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    command = [strace, "-f", "-o", "../host.txt", program, part[0]]
    assert subprocess.run(command, cwd=tmp_path / "host", **run).returncode == 7
    command = command_line(
        "--user",
        "0",
        "--seed",
        "1",
        "--schedule",
        "coop",
        "--strace-file",
        "../ours.txt",
        "--mount",
        f"{tmp_path}:{tmp_path}:rw",
    )
    assert subprocess.run([*command, program, part[0]], cwd=tmp_path / "ours", **run).returncode == 7
    theirs, ours = by_process(tmp_path / "host.txt"), by_process(tmp_path / "ours.txt")
    assert len(theirs) == len(ours)
    names = {one for pair in KNOWN.get(part, []) for one in pair}
    for their, our in zip(theirs, ours, strict=True):
        if part == "ipc":
            their, our = ([re.sub(r"(?<=get\().*|\d+", "N", line) for line in lines] for lines in (their, our))
        if part == "constants":
            their, our = ([re.sub(r"\) = .*", ")", line) for line in lines] for lines in (their, our))
        pairs = [(one, other) for one, other in zip(their, our, strict=True) if one.split("(")[0] not in names]
        assert [other for _, other in pairs] == [one for one, _ in pairs]
    assert sum(map(len, ours)) > 10


def test_every_call_has_an_entry_with_as_many_arguments_as_it_takes():
    assert {call.name for call in TABLE.values()} == set(SPECS)
    fewer = {"clone": 1}  # all in one
    for number, call in sorted(TABLE.items()):
        spec = SPECS[call.name]
        registers = {one[0] for one in (*spec.before, *spec.after)}
        assert registers == set(range(fewer.get(call.name, len(call.kinds)))), (number, call.name)
    assert not {call.name for call in TABLE.values()} & set(MISSING.values())
    assert not set(TABLE) & set(MISSING)


def test_classes_name_calls():
    for name, calls in CLASSES.items():
        assert calls <= set(SPECS), (name, calls - set(SPECS))


def test_every_error_has_its_message():
    for error in Errno:
        assert MESSAGES[error.name] == os.strerror(error), error


HEADERS = [
    "sys/mman.h", "fcntl.h", "unistd.h", "time.h", "signal.h", "sys/socket.h", "netinet/in.h", "sys/file.h",
    "poll.h", "sys/epoll.h", "sched.h", "sys/wait.h", "sys/resource.h", "sys/prctl.h", "asm/prctl.h",
    "linux/futex.h", "sys/time.h", "sys/eventfd.h", "sys/signalfd.h", "sys/timerfd.h", "sys/inotify.h",
    "linux/sched.h", "sys/stat.h", "linux/stat.h", "sys/random.h", "sys/xattr.h", "sys/ipc.h", "sys/shm.h",
    "sys/msg.h", "sys/sem.h", "sys/mount.h", "linux/membarrier.h", "linux/kcmp.h", "linux/mempolicy.h",
    "linux/ioprio.h", "sys/uio.h", "linux/openat2.h", "dirent.h", "sys/ioctl.h", "linux/fs.h", "linux/magic.h",
    "sys/personality.h", "sys/statvfs.h", "linux/capability.h", "linux/rseq.h"
]  # fmt: skip


def test_constants_have_the_values_of_the_headers(tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    values = {name: value for pairs in CONSTANTS.values() for value, name in pairs}
    lines = [
        "#define _GNU_SOURCE",
        *(f"#include <{header}>" for header in HEADERS),
        "#include <stdio.h>",
        "int main(void) {",
    ]
    for name in values:
        lines += [f"#ifdef {name}", f'printf("{name} %llu\\n", (unsigned long long)(unsigned)({name}));', "#endif"]
    (tmp_path / "c.c").write_text("\n".join([*lines, "}"]))
    subprocess.run(["gcc", "-w", "-o", tmp_path / "c", tmp_path / "c.c"], check=True, timeout=60)
    out = subprocess.run([tmp_path / "c"], capture_output=True, text=True, check=True).stdout
    found = {name: int(value) for name, value in (line.split() for line in out.splitlines())}
    found.pop("O_LARGEFILE", None)  # 0 in the C library's headers on a 64-bit machine
    assert len(found) > 350
    assert {name: values[name] for name in found} == found


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"a\tb\0", r'"a\tb\0"'), (b"\x012\x018\xff7", r'"\0012\18\3777"'), (b'"\\', r'"\"\\"'), (b"", '""')],
)
def test_strings_are_quoted_as_in_c(data, text):
    assert escaped(data) == text


def test_sets_of_signals():
    assert sigset_text(0) == "[]"
    assert sigset_text(1 << 1 | 1 << 14) == "[INT TERM]"
    assert sigset_text((1 << 64) - 1) == "~[]"
    assert sigset_text((1 << 64) - 1 & ~(1 << 8)) == "~[KILL]"


def traced(*options: str) -> list[str]:
    command = command_line("--seed", "1", *options)
    return subprocess.run(command, capture_output=True, text=True, timeout=50).stderr.splitlines()


def test_a_filter_leaves_the_rest_out():
    lines = traced("--strace-filter", "%file,exit_group", "busybox", "true")
    names = {re.match(r"\w+", line)[0] for line in lines if not line.startswith("+++")}
    assert "execve" in names
    assert "exit_group" in names
    assert names <= CLASSES["%file"] | {"exit_group"}
    others = traced("--strace-filter", "!%file", "busybox", "true")
    assert others
    assert not [line for line in others if line.split("(")[0] in CLASSES["%file"]]
    assert lines[-1] == others[-1] == "+++ exited with 0 +++"


def test_strings_are_cut_where_asked():
    (line,) = traced("--strace-filter", "write", "--strace-limit", "3", "busybox", "echo", "abcdef")[:1]
    assert line == 'write(1, "abc"..., 7)                   = 7'


def test_a_limit_leaves_the_call_unfinished():
    lines = traced(
        "--strace-filter", "nanosleep,clock_nanosleep", "--timeout", "0.3", "--clock", "host", "busybox", "sleep", "9"
    )
    assert re.match(r"(clock_)?nanosleep\(.*\{tv_sec=9, tv_nsec=0\}.* <unfinished \.\.\.>$", lines[0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--strace-filter", "raed"], "--strace-filter raed: no system call raed and no class"),
        (["--strace-file", "/nowhere/x"], "--strace-file /nowhere/x: No such file or directory"),
        (["--strace-limit", "0"], "--strace-limit"),
    ],
)
def test_wrong_options_are_one_line(options, said, capfd):
    try:
        code = main(["run", *options, "/bin/true"])
    except SystemExit as exit:
        code = exit.code
    assert code == 125
    error = capfd.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_full_disk_ends_the_trace_and_not_the_run():
    done = subprocess.run(
        command_line("--strace-file", "/dev/full", "busybox", "ls", "/usr"), capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0
    assert "bin" in done.stdout
    assert done.stderr.count("No space left on device") <= 1
    assert "Traceback" not in done.stderr
