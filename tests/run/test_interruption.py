"""Being interrupted changes nothing: not one instruction is executed twice."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from mmuemu import Machine
from mmuemu.cpu.stop import Stop
from mmuemu.kernel.abi.signals import Signal
from mmuemu.kernel.events import FaultEvent, SyscallEvent
from mmuemu.kernel.signals.pending import SigInfo
from mmuemu.sources import assemble
from tests.run.harness import ENGINES, Programs, command_line, compare, emulator_environment, mmuemu


@pytest.mark.parametrize("engine", ENGINES)
def test_ticks_of_the_host(engine: str, programs: Programs, tmp_path: Path) -> None:
    found = mmuemu("--mmu", engine, programs("ticks", "glibc-static"), cwd=tmp_path)
    assert (found.code, found.out) == (0, b"0 0\n")


@pytest.mark.parametrize("engine", ENGINES)
def test_counted_slices(engine: str, programs: Programs, tmp_path: Path) -> None:
    found = mmuemu("--mmu", engine, "--seed", "1", programs("ticks", "glibc-static"), cwd=tmp_path)
    assert (found.code, found.out) == (0, b"0 0\n")


@pytest.mark.parametrize("engine", ENGINES)
def test_code_that_ran_alone_is_counted_from_the_first_timer_on(
    engine: str, programs: Programs, tmp_path: Path
) -> None:
    compare(programs("spins"), ["timer"], engine, tmp_path, options=["--seed", "1"])


@pytest.mark.parametrize("options", [("--mmu", "python"), ("--mmu", "native"), ("--seed", "1")])
def test_sigint_comes_between_two_instructions(options: tuple[str, ...], programs: Programs, tmp_path: Path) -> None:
    """The terminal's SIGINT finds the program in ring 3; it goes on where it was."""
    with subprocess.Popen(
        command_line(*options, programs("spins"), "signal"),
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env=emulator_environment(),
    ) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline()]
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            lines += process.communicate(timeout=30)[0].splitlines(True)
        finally:
            process.kill()
    assert lines == [b"spins\n", b"lost 0 begun 1 ended by 2\n"]
    assert process.returncode == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_ends_between_a_fault_and_its_repetition(engine: str, programs: Programs, capfd) -> None:
    """A signal then: the handler's frame lies in the page's new frame, which the CPU must not take for the old one."""
    with Machine(mmu=engine) as machine:

        def interrupt(event: FaultEvent) -> None:
            if event.address >> 12 == 0x3000F and event.error_code & 2:
                machine.kernel.send_signal(event.task, SigInfo(Signal.SIGUSR1))
                machine.kernel.cpu.kick()

        machine.on_fault(interrupt)
        machine.load(str(programs("altpage")))
        assert machine.run().exit_code == 0
    assert capfd.readouterr().out == "handled 1 sum 0\n"


def test_a_signal_whose_taker_ends(programs: Programs, capfd) -> None:
    """It comes while a thread is on its way into exit(2), so that this one would be the next to take it."""
    with Machine(seed=1) as machine:

        @machine.on_syscall("exit")
        def send(event: SyscallEvent) -> None:
            if not sent:
                sent.append(event.task.tid)
                machine.kernel.send_signal(event.task.process, SigInfo(Signal.SIGUSR1))

        sent: list[int] = []
        machine.load(str(programs("retarget")))
        assert machine.run(timeout=20).exit_code == 0
    assert capfd.readouterr().out == "handled 1\n"


@pytest.mark.parametrize("most", [None, 1 << 40])
def test_a_break_whose_reason_was_heard_before(most: int | None, programs: Programs, capfd) -> None:
    """A thread that kicks may lose the CPU between saying so and ending the run."""
    with Machine(seed=1) as machine:
        machine.load(str(programs("spins")), ["spins", "none"])
        ended = threading.Event()

        def break_alone() -> None:
            while not ended.wait(0.001):
                machine.kernel.cpu._break()

        thread = threading.Thread(target=break_alone)
        thread.start()
        try:
            outcome = machine.run(max_instructions=most, timeout=50)
        finally:
            ended.set()
            thread.join()
    assert outcome.exit_code == 0
    assert capfd.readouterr().out == "spins\nlost 0 begun 1 ended by 0\n"


@pytest.mark.parametrize("engine", ENGINES)
def test_counted_and_uncounted_runs_in_turn(engine: str, programs: Programs, capfd) -> None:
    """Each kind is ended by its own means, whichever the other thread has just seen."""
    with Machine(mmu=engine) as machine:
        machine.load(str(programs("spins")), ["spins", "none"])
        cpu = machine.kernel.cpu
        ended = threading.Event()

        def break_alone() -> None:
            while not ended.wait(0.0002):
                cpu.kick()

        thread = threading.Thread(target=break_alone)
        thread.start()
        limits = set()
        try:
            while (outcome := machine.run(timeout=0.02)).limit:
                limits.add(outcome.limit)
                if not (outcome := machine.run(max_instructions=2000)).limit:
                    break
                limits.add(outcome.limit)
        finally:
            ended.set()
            thread.join()
    assert limits == {"timeout", "instructions"}
    assert outcome.exit_code == 0
    assert capfd.readouterr().out == "spins\nlost 0 begun 1 ended by 0\n"


@pytest.mark.parametrize("engine", ENGINES)
def test_steps_between_uncounted_runs(engine: str) -> None:
    with Machine(mmu=engine) as machine:
        machine.load(assemble("again: push rax\n pop rax\n inc rax\n jmp again\n", "loop.s"), ["loop"], {})
        cpu = machine.kernel.cpu
        for _ in range(3):
            assert machine.run(timeout=0.02).limit == "timeout"
            start = cpu.rip
            for offset in (1, 2, 5, 0, 1, 2, 5, 0):
                assert machine.run(max_instructions=1).limit == "instructions"
                assert cpu.rip - start == offset


def test_a_kick_with_the_last_instruction_of_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is what ended the run."""
    with Machine(seed=1) as machine:
        machine.load(assemble("again: jmp again", "loop.s"), ["loop"], {})
        cpu = machine.kernel.cpu
        plain = cpu.run

        def kicked(**options: int | None) -> Stop:
            assert plain(**options) is Stop.LIMIT
            return Stop.KICKED

        monkeypatch.setattr(cpu, "run", kicked)
        assert machine.run(max_instructions=1000).limit == "instructions"
        assert machine.instructions == 1000
