"""The real gdb, with the host's kernel as the oracle: the same commands must print the same."""

from __future__ import annotations

import re

import pytest

from tests.gdb.harness import GDB, debuggee, native, plain, remote

pytestmark = pytest.mark.skipif(GDB is None, reason="gdb is not installed")

STATIC = "-static"

SESSIONS = {
    "breakpoints": (
        "break add", "continue", "backtrace", "info args", "next", "next", "print sum", "print counter", "up",
        "print total", "down", "finish", "delete", "break deep if n == 1", "continue", "backtrace", "print n",
        "print $_siginfo.si_signo", "delete", "tbreak on_usr1", "handle SIGUSR1 nostop noprint pass", "continue",
        "print signal", "bt 1", "continue",
    ),
    "stepping": (
        "break main", "continue", "next", "next", "step", "bt", "step", "step", "step", "stepi", "stepi", "nexti",
        "x/2i $pc", "until", "advance deep", "info frame level 0", "return", "next",
    ),
    "watching": (
        "break main", "continue", "watch counter", "continue", "continue", "info watchpoints", "delete",
        "handle SIGUSR1 nostop noprint pass", "watch handled", "continue", "continue", "delete", "awatch name",
        "continue", "continue", "print name", "delete", "continue",
    ),
    "values": (
        "break on_usr1", "continue", "continue", "print counter", "print name", "set var counter = 100",
        "print counter", "print $rsp == $sp", "print/x $cs", "print/x $ss", "p/x $eflags & 0x200", "print half * 3",
        "print $xmm0.v2_double", "print $st0", "print $fctrl", "print $ftag", "print $mxcsr", "set var $rax = 0x1234",
        "print/x $ax", "print/x $al", "x/s name", "find &name, +8, 'e', 'f'", "up 2", "info symbol add",
        "info line add", "delete", "continue",
    ),
    "signals": (
        "continue", "print $_siginfo.si_signo", "bt 1", "continue", "print $_siginfo.si_code", "signal 0",
    ),
    "fault": (
        "handle SIGUSR1 nostop noprint pass", "continue", "bt", "print $_siginfo.si_signo", "x/i $pc",
        "print $_siginfo._sifields._sigfault.si_addr", "print handled", "continue",
    ),
    "calls": (
        "catch syscall getpid", "handle SIGUSR1 nostop noprint pass", "continue", "print $orig_rax", "continue",
        "delete", "catch syscall write", "continue", "print $orig_rax", "print $rdi", "continue", "print $rax", "kill",
    ),
}  # fmt: skip
"""Name -> commands, from the first instruction on."""


@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_is_that_of_the_host(name, program, tmp_path):
    """Breakpoints, steps, watchpoints, calls, registers and signals are what they are under ptrace."""
    path = program("plain.c", STATIC)
    arguments = ["x"] if name == "fault" else []
    expected = native(path, SESSIONS[name], " ".join(arguments))
    with debuggee(tmp_path, [path, *arguments]) as target:
        actual = remote(path, target, SESSIONS[name])
        target.process.wait(50)
    assert plain(actual) == plain(expected)


@pytest.mark.parametrize("options", ["--mmu python", "--mmu native", "--kpti --seed 3"])
def test_every_single_step_is_that_of_the_host(options, program, tmp_path):
    """RIP, the registers and the flags after each instruction, by ``stepi`` to the end of the program."""
    path = program("steps.s", "-nostdlib", STATIC)
    show = 'printf "%lx %lx %lx %lx %lx\\n", $rip, $rcx, $rbx, $r12, $eflags & 0x8d5'
    commands = [*["stepi", show] * 85]
    expected = native(path, commands)
    with debuggee(tmp_path, [*options.split(), path]) as target:
        actual = remote(path, target, commands)
    assert "received signal SIGUSR1" in expected
    assert "handler ()" in expected
    assert "exited with code 07" in expected
    assert plain(actual, addresses=True) == plain(expected, addresses=True)


def test_functions_can_be_called_and_registers_set(program, tmp_path):
    """gdb calls a function of the program, in the midst of another, and sets registers of every kind."""
    path = program("plain.c", STATIC)
    commands = [
        "break add if b == 3", "continue", "print deep(5)", "print add(20, 22)", "print counter",
        "set var $xmm3.uint128 = 5", "print $xmm3.v4_int32", "set var $st0 = 1.5", "print $st0",
        "set var $mxcsr = 0x1f81", "print/x $mxcsr", "set var $r12 = -1", "print $r12",
        "print $fs_base = $fs_base + 0", "print $fs_base = -1", "print $cr3 = 0", "print $cs = 3",
        "set var $eflags = 0x10246", "print/x $eflags & ~0x10000", "p $orig_rax", "print sizeof(siginfo_t)", "delete",
        "set var b = 40", "handle SIGUSR1 nostop noprint pass", "continue",
    ]  # fmt: skip
    with debuggee(tmp_path, [path]) as target:
        text = remote(path, target, commands)
        code, out, _ = target.end()
    lines = [line for line in text.splitlines() if line.startswith("$")]
    assert lines[:7] == ["$1 = 8", "$2 = 42", "$3 = 49", "$4 = {5, 0, 0, 0}", "$5 = 1.5", "$6 = 0x1f81", "$7 = -1"]
    assert lines[8:10] == ["$9 = 0x246", "$10 = -1"]
    for name, errno in (("fs_base", 5), ("cr3", 1), ("cs", 1)):
        assert f"Could not write register \"{name}\"; remote failure reply 'E{errno:02x}'" in text
    assert code == 49
    assert out == b"49 95 affore\n"


def test_programs_that_others_linked(program, tmp_path):
    """A dynamic program: libraries, threads, memory map; then it is let go and runs to its end."""
    path = program("family.c", "-pthread")
    commands = [
        "break worker", "continue", "info sharedlibrary", "info threads", "bt", "info proc mappings", "print square(9)",
        "delete", "detach",
    ]  # fmt: skip
    with debuggee(tmp_path, [path]) as target:
        text = remote(path, target, commands)
        code, out, err = target.end()
    assert re.search(r"Yes .*ld-linux-x86-64.so.2", text)
    assert re.search(r"Yes .*libc.so.6", text)
    assert re.search(r"hit Breakpoint 1, worker \(argument=0x", text)
    assert re.search(r"(?m)^\* 2 +Thread .*worker", text)
    assert re.search(r"(?m)^  1 +Thread .*main|asleep", text)
    assert re.search(r"in start_thread", text)
    assert re.search(r"(?m)r-xp +/.*family", text)
    assert "[stack]" in text
    assert "$1 = 81" in text
    assert "detached]" in text
    assert (code, out) == (0, b"child 5\nprogram 36\njoined 25\n")
    assert len(err.splitlines()) == 1


def test_the_child_is_followed_through_execve(program, tmp_path):
    """fork, vfork and execve are told; a breakpoint in the child is hit by the child alone."""
    path = program("family.c", "-pthread", STATIC)
    commands = [
        "catch fork", "continue", "catch vfork", "set follow-fork-mode parent", "continue",
        "set follow-fork-mode child", "catch exec", "continue", "break square", "continue", "print x", "bt", "continue",
    ]  # fmt: skip
    with debuggee(tmp_path, [path]) as target:
        text = remote(path, target, commands)
        code, out, _ = target.end()
    assert re.search(r"Catchpoint 1 \(forked process \d+\)", text)
    assert re.search(r"Catchpoint 2 \(vforked process \d+\)", text)
    assert re.search(r"hit Catchpoint 3 \(exec'd .*family", text)
    assert "square (x=6)" in text
    assert "$1 = 6" in text
    assert "exited with code 044]" in text
    assert (code, out) == (0, b"child 5\nprogram 36\njoined 25\n")


def test_two_processes_at_once(program, tmp_path):
    """Parent and child are debugged together: each has its own memory, breakpoints and end."""
    path = program("family.c", "-pthread", STATIC)
    commands = [
        "set detach-on-fork off", "set schedule-multiple on", "break square", "continue", "print shared",
        "info inferiors", "inferior 1", "print shared", "inferior 2", "delete", "continue", "info inferiors",
        "kill inferiors 1",
    ]  # fmt: skip
    with debuggee(tmp_path, [path]) as target:
        text = remote(path, target, commands)
        code, out, _ = target.end()
    assert "square (x=2)" in text
    assert "$1 = 2" in text
    assert "$2 = 1" in text
    assert re.search(r"Inferior 2 \(process \d+\) exited with code 05", text)
    assert (code, out) == (137, b"")


def test_an_interruption_and_a_call_in_a_thread_that_sleeps(program, tmp_path):
    """Ctrl-C stops a loop; a function called in a thread that is in a system call leaves that call as it was."""
    path = program("family.c", "-pthread", STATIC)
    press = "python import threading, os, signal; threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()"
    commands = [
        press, "continue", "bt 1", "thread apply all -q bt 1", "thread 2", "print square(5)", "bt 2", "thread 1",
        "print square(6)", press, "continue", "thread 2", "bt 2", "kill",
    ]  # fmt: skip
    with debuggee(tmp_path, [path, "loop"]) as target:
        text = remote(path, target, commands)
        code, out, _ = target.end()
    assert text.count("received signal SIGINT") == 2
    assert "$1 = 25" in text
    assert "$2 = 36" in text
    assert len(re.findall(r"in pause \(\)|in sleeper ", text)) >= 2
    assert code == 137
    assert out.endswith(b"joined 25\n")
