"""Signals: the same programs on the host's kernel and under mmuemu, on both engines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.run.harness import ENGINES, Programs, compare, mmuemu

PROGRAMS = ("sigfaults", "sigframes", "sighostile", "sigcalls", "sigjobs")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_as_on_the_host(name: str, engine: str, programs: Programs, tmp_path: Path) -> None:
    found = compare(programs(name), [], engine, tmp_path)
    assert len(found.out.splitlines()) > 30
    assert found.code == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_who_waits_in_vfork(engine: str, programs: Programs, tmp_path: Path) -> None:
    compare(programs("vforksig"), [], engine, tmp_path)


@pytest.mark.parametrize("engine", ENGINES)
def test_poll_and_its_kin_are_interrupted_and_never_made_again(engine: str, programs: Programs, tmp_path: Path) -> None:
    assert compare(programs("sigcalls"), ["poll"], engine, tmp_path).out.count(b"Interrupted") == 6


@pytest.mark.parametrize("name", ["sigframes", "sigcalls", "sigjobs"])
def test_as_on_the_host_in_virtual_time(name: str, programs: Programs, tmp_path: Path) -> None:
    """With a seed, time and scheduling are the machine's own, and what programs see of signals is the same."""
    compare(programs(name, "glibc-static-pie"), [], "python", tmp_path, options=["--seed", "7"])


def test_a_seeded_run_with_timers_is_repeated_to_the_byte(programs: Programs, tmp_path: Path) -> None:
    command = ["--seed", "3", "--strace", programs("sigcalls")]
    first, second = (mmuemu(*command, cwd=tmp_path) for _ in range(2))
    assert first.code == 0
    assert first.out == second.out
    assert first.err == second.err


@pytest.mark.parametrize("engine", ENGINES)
def test_strace_shows_signals_and_interrupted_calls(engine: str, programs: Programs, tmp_path: Path) -> None:
    found = mmuemu("--mmu", engine, "--strace", programs("sigcalls"), cwd=tmp_path)
    text = found.err.decode()
    assert "--- SIGALRM {si_signo=SIGALRM, si_code=SI_KERNEL} ---" in text
    assert re.search(r"read\(\d+, .*\) += \? ERESTARTSYS \(To be restarted if SA_RESTART is set\)", text)
    assert re.search(r"nanosleep\(.*\) += \? ERESTART_RESTARTBLOCK \(Interrupted by signal\)", text)
    assert re.search(r"rt_sigreturn\(\{mask=\[.*\]\}\) += -1 EINTR", text)
    found = mmuemu("--mmu", engine, "--strace", programs("sigfaults"), cwd=tmp_path)
    assert "--- SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=0x30000000} ---" in found.err.decode()
