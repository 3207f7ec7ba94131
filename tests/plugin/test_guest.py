"""``guest`` and ``bare``: what a result says."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmuemu import sources
from mmuemu.errors import BadImage, UsageError
from tests.plugin.guests import EXIT, HELLO, NULL, SPIN

gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")


def test_a_result_tells_what_a_program_did(guest):
    program = guest.asm(HELLO)
    result = guest.run(program)
    assert (result.exit_code, result.signal, result.limit, result.fault) == (7, None, None, None)
    assert (result.stdout, result.stderr) == (b"hi\n", b"")
    text = program.address("text")
    assert [(call.name, call.args, call.result) for call in result.syscalls] == [
        ("write", (1, text, 3), 3),
        ("exit", (7,), 0),
    ]
    assert result.maps.startswith("00401000-00402000 r-xp")
    assert result.leaked == {}
    assert result.machine.seed == 1


def test_a_fault_is_told_by_its_names(guest):
    result = guest.run(guest.asm(NULL))
    fault = result.fault
    assert (result.exit_code, result.signal) == (139, signal.SIGSEGV)
    assert (fault.name, fault.error, fault.address, fault.access, fault.ring) == ("#PF", "W|U", 0, "write", 3)
    assert fault.rip == 0x401000
    assert "PDE is not present" in fault.rule
    assert [step.level for step in fault.walk.result.steps] == ["PML4E", "PDPTE", "PDE"]
    assert [(each.address, each.error) for each in result.faults] == [(0, "W|U")]
    assert result.faults[0].rip == 0x401000
    assert "SIGSEGV" in repr(result)


@pytest.mark.parametrize(
    ("code", "name", "number"), [("ud2", "#UD", 4), ("hlt", "#GP", 11), ("xor ecx, ecx\ndiv ecx", "#DE", 8)]
)
def test_other_exceptions_have_no_address(guest, code, name, number):
    result = guest.run(guest.asm(code))
    assert (result.fault.name, result.fault.address, result.fault.access, result.fault.walk) == (name, None, "", None)
    assert result.signal == number


def test_a_failed_call_has_the_errors_name(guest):
    result = guest.run(guest.asm("mov eax, 3\nmov edi, 99\nsyscall\nmov eax, 9999\nsyscall\n" + EXIT.format(0)))
    assert [(call.name, call.result, call.error) for call in result.syscalls[:2]] == [
        ("close", -9, "EBADF"),
        ("syscall_9999", -38, "ENOSYS"),
    ]
    assert str(result.syscalls[0]) == f"[{result.process.pid}] close(0x63) = -9 EBADF"


@pytest.mark.parametrize(
    ("limits", "limit"), [({"max_instructions": 100}, "instructions"), ({"timeout": 0.2}, "timeout")]
)
def test_a_limit_ends_a_run_that_would_not(guest, limits, limit):
    result = guest.run(guest.asm(SPIN), **limits)
    assert (result.limit, result.exit_code, result.signal) == (limit, 124, None)
    assert limit in repr(result)


@gcc
def test_c_gets_arguments_input_and_environment(guest):
    program = guest.c(
        r"""
        #include <stdio.h>
        #include <stdlib.h>
        int main(int argc, char **argv) {
            char line[80];
            printf("%s %s %s %s", argv[0], argv[1], getenv("NAME"), fgets(line, 80, stdin));
            fprintf(stderr, "%d", getenv("PATH") != 0);
            return argc;
        }
        """,
        "args",
    )
    result = guest.run(program, ["one"], stdin=b"two\n", env={"NAME": "three"})
    assert (result.exit_code, result.stdout, result.stderr) == (2, b"args one three two\n", b"0")
    assert program.address("main") > 0x400000


@gcc
def test_the_same_c_is_compiled_once(guest, monkeypatch):
    source = f"int main(void) {{ return {id(guest) % 100}; }}"
    first = guest.c(source)
    monkeypatch.setattr(sources, "build", lambda path: pytest.fail("compiled again"))
    assert guest.c(source) is first


def test_c_without_a_compiler_is_a_skip_with_the_reason(guest, monkeypatch):
    monkeypatch.setattr(sources, "compiler", lambda: None)
    with pytest.raises(pytest.skip.Exception, match="no C compiler that targets x86-64 Linux"):
        guest.c("int main(void) { return 42 - 42; }")


def test_programs_of_the_host_and_source_files_run(guest, tmp_path):
    source = tmp_path / "seven.s"
    source.write_text(EXIT.format(7))
    assert guest.run(source).exit_code == 7
    binary = tmp_path / "seven"
    binary.write_bytes(guest.program(source).image)
    binary.chmod(0o755)
    assert guest.run(guest.program(binary)).exit_code == 7
    with pytest.raises(UsageError, match="no such file"):
        guest.run(tmp_path / "nothing")


def test_bad_programs_and_options_are_refused(guest, machine_factory):
    with pytest.raises(BadImage, match="cannot be assembled"):
        guest.asm("mov rax, nonsense nonsense")
    with pytest.raises(TypeError, match="no option 'mmus'"):
        guest.run(guest.asm(NULL), mmus="native")
    with pytest.raises(UsageError, match="no symbol 'nothing'"):
        guest.asm(HELLO).address("nothing")
    with pytest.raises(TypeError, match="seed cannot be given"):
        guest.start(guest.asm(SPIN), machine=machine_factory(), seed=3)


@pytest.fixture
def machine_factory(session):
    return session.machine


def test_options_reach_the_machine(guest):
    result = guest.run(guest.asm(HELLO), mmu="native", seed=9, layout="split-2g", kpti=True)
    kernel = result.machine.kernel
    assert (kernel.cpu.engine.name, result.machine.seed, kernel.layout.name) == ("native", 9, "split-2g")
    assert kernel.options.kpti
    assert result.exit_code == 7


def test_a_handled_fault_is_among_the_refused(guest):
    handler = (
        """
        mov rax, 13
        mov edi, 11
        lea rsi, [rip + action]
        xor edx, edx
        mov r10d, 8
        syscall
        mov rax, [0x5000]
        handler:
    """
        + EXIT.format(5)
        + """
        .data
        action: .quad handler, 0x04000000, handler, 0
    """
    )
    result = guest.run(guest.asm(handler))
    assert (result.exit_code, result.fault) == (5, None)
    assert [(fault.address, fault.error) for fault in result.faults] == [(0x5000, "U")]


def test_the_plugin_is_an_entry_point_of_the_name_mmuemu():
    from tests.plugin.installed import entry_points

    assert entry_points() == {"mmuemu": "mmuemu.pytest_plugin"}


def test_importing_the_plugin_imports_nothing_else():
    code = (
        "import sys, pytest; before = set(sys.modules); import mmuemu.pytest_plugin;"
        "print(sorted(m for m in set(sys.modules) - before if m.startswith(('mmuemu', 'unicorn', 'rich', 'capstone'))))"
    )
    root = Path(__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root).stdout
    assert out.strip() == "['mmuemu', 'mmuemu.pytest_plugin']"


# -- without a kernel --------------------------------------------------------------------------------------------------


def test_bare_code_meets_the_mmu_alone(bare):
    bare.map(0x50_0000, 4096, "r--")
    result = bare.run("mov rax, 5\nmov [0x500008], rax\nend:")
    assert (result.stop, result.fault.address, result.fault.error) == ("fault", 0x50_0008, "P|W|U")
    assert result.fault.rule == "PTE is read-only (R/W = 0)"
    assert result.registers["rax"] == 5


def test_bare_code_runs_to_its_end(bare):
    result = bare.run("lea rax, [rdi + 1]\npush rax\nend:", registers={"rdi": 41})
    assert (result.fault, result.stop, result.registers["rax"]) == (None, "until", 42)
    assert bare.run("jmp start\nstart: jmp start", max_instructions=50).stop == "limit"


def test_bare_code_in_ring_0_may_halt(bare):
    assert bare.run("hlt").fault.name == "#GP"
    assert bare.run("hlt", ring=0).stop == "halted"


@gcc
def test_bare_boots_a_kernel(bare, tmp_path):
    kernel = tmp_path / "kernel"
    source = Path(__file__).parents[2] / "samples/kernel/hello.c"
    flags = [
        "-m32",
        "-O1",
        "-ffreestanding",
        "-nostdlib",
        "-fno-pic",
        "-no-pie",
        "-static",
        "-Wl,-Ttext=0x101000,--build-id=none",
    ]
    subprocess.run(["gcc", *flags, str(source), "-o", str(kernel)], check=True)
    result = bare.boot(kernel, command_line="from a test")
    assert (result.kind, result.exit_code) == ("exit", 1)
    assert result.serial == b"Hello from ring 0. My command line is: from a test\n"
    crashed = bare.boot(kernel.read_bytes(), command_line="crash")
    assert crashed.kind == "triple fault"
