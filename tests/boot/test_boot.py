"""``mmuemu boot`` as a kernel sees it, and as the person who boots one does."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.boot import expected
from tests.boot.build import Kernels
from tests.boot.expected import exit_code
from tests.run.harness import ENGINES, Result, emulator_environment

TRIPLE_FAULT = 120
HALTED = 122
LIMIT = 124
CANNOT_LOAD = 126
NOT_FOUND = 127


def boot(kernel: Path | str, *options: str | Path, stdin: bytes = b"", timeout: float = 120) -> Result:
    """``mmuemu boot`` with ``options``; standard output is COM1."""
    done = subprocess.run(
        [sys.executable, "-m", "mmuemu", "boot", *map(str, options), str(kernel)],
        input=stdin,
        capture_output=True,
        env=emulator_environment(),
        timeout=timeout,
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return Result(done.returncode, done.stdout, done.stderr)


pytestmark = pytest.mark.parametrize("engine", ENGINES)


@pytest.mark.parametrize(
    ("kernel", "text"),
    [
        ("long64", expected.LONG64),
        ("long64.elf32", expected.LONG64),
        ("timer", expected.TIMER),
        ("timer32", expected.TIMER),
        ("wild", expected.wild("ffffffff ffff ff")),
    ],
)
def test_kernels_find_the_machine_they_were_written_for(kernels: Kernels, engine: str, kernel: str, text: str) -> None:
    result = boot(kernels(kernel), "--mmu", engine)
    assert result.out.decode() == text
    assert result.err == b""
    assert result.code == exit_code(kernel.removesuffix(".elf32"))


def test_a_kernel_entered_in_long_mode(kernels: Kernels, engine: str) -> None:
    result = boot(kernels("long64-direct"), "--mmu", engine, "--entry", "long")
    assert result.out.decode().splitlines()[1:] == expected.LONG64.splitlines()[1:]
    assert "long mode" in result.out.decode().splitlines()[0]
    assert result.code == exit_code("long64")


def test_the_local_apic(kernels: Kernels, engine: str) -> None:
    result = boot(kernels("apic"), "--mmu", engine)
    assert result.out.decode() in (expected.APIC, expected.X2APIC)
    assert result.code == exit_code("apic")


@pytest.mark.parametrize("kernel", ["hello32", "flat.bin"])
def test_the_multiboot_information(kernels: Kernels, engine: str, kernel: str, tmp_path: Path) -> None:
    first, second = tmp_path / "m1", tmp_path / "m2"
    first.write_bytes(b"first module")
    second.write_bytes(b"second" * 3000)
    options = ("--append", "root=/dev/x quiet", "--module", first, "--module", second, "--memory", "64M")
    result = boot(kernels(kernel), "--mmu", engine, *options)
    lines = result.out.decode().splitlines()
    assert result.code == exit_code("hello32")
    assert lines[:4] == ["magic 2badb002", "flags 249", "mem_lower 639", f"mem_upper {63 * 1024}"]
    assert lines[4].removeprefix("cmdline ").endswith("root=/dev/x quiet")
    assert lines[5] == "loader mmuemu"
    assert lines[6].startswith("module 0 size 12 aligned string ")
    assert "m1" in lines[6]
    assert lines[7] == "content first module"
    assert lines[8].startswith("module 1 size 18000 aligned string ")
    assert lines[9] == "content " + "second" * 3000
    assert lines[10:14] == [
        "map 0 9fc00 type 1",
        "map 9fc00 a0000 type 2",
        "map f0000 100000 type 2",
        "map 100000 4000000 type 1",
    ]
    names = [line for line in lines[14:] if line.startswith("section ")]
    wanted = [".text", ".rodata", ".bss", ".symtab", ".strtab", ".shstrtab"] if kernel == "hello32" else []
    assert names == [f"section {name}" for name in wanted]


def test_serial_input(kernels: Kernels, engine: str) -> None:
    result = boot(kernels("echo"), "--mmu", engine, stdin=expected.ECHO_IN)
    assert result.out.decode() == expected.ECHO
    assert result.code == exit_code("echo")


def test_input_that_ends_leaves_a_kernel_waiting(kernels: Kernels, engine: str) -> None:
    result = boot(kernels("echo"), "--mmu", engine, "--timeout", "1", stdin=b"abc")
    assert result.out == b"ready\nABC"
    assert result.code == LIMIT


def test_a_triple_fault_is_reported_with_the_state(kernels: Kernels, engine: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = boot(kernels("triple"), "--mmu", engine, "--json", report)
    assert result.out == b"before\n"
    assert result.code == TRIPLE_FAULT
    text = result.err.decode()
    assert "triple fault" in text.splitlines()[0]
    assert "#UD" in text.splitlines()[0]
    assert "rip" in text
    assert "cr3" in text
    facts = json.loads(report.read_text())
    assert facts["exit_code"] == TRIPLE_FAULT
    assert facts["end"] == "triple fault"


def test_a_loop_with_interrupts_off_ends_by_a_limit(kernels: Kernels, engine: str) -> None:
    begun = time.monotonic()
    result = boot(kernels("spin"), "--mmu", engine, "--timeout", "1")
    assert time.monotonic() - begun < 30
    assert (result.code, result.out) == (LIMIT, b"spinning\n")
    assert "jmp" in result.err.decode()
    result = boot(kernels("spin"), "--mmu", engine, "--max-instructions", "100000")
    assert (result.code, result.out) == (LIMIT, b"spinning\n")


def test_a_jump_into_nothing_is_reported(kernels: Kernels, engine: str) -> None:
    result = boot(kernels("astray"), "--mmu", engine, timeout=30)
    assert result.out == b"jumping\n"
    assert result.code == TRIPLE_FAULT
    assert "0xd0000000" in result.err.decode()


@pytest.mark.slow
def test_a_flood_of_serial_output_arrives_whole(kernels: Kernels, engine: str) -> None:
    result = boot(kernels("flood"), "--mmu", engine, timeout=240)
    assert result.out == expected.flood()
    assert result.code == exit_code("flood")


def test_interrupts_arrive_at_the_same_instructions_every_time(kernels: Kernels, engine: str, tmp_path: Path) -> None:
    facts = []
    for name in ("one", "two"):
        boot(kernels("timer"), "--mmu", engine, "--json", tmp_path / name)
        facts.append(json.loads((tmp_path / name).read_text()))
    assert facts[0]["instructions"] > 0
    assert facts[0] == facts[1]


def test_a_seed_moves_interrupts_and_repeats(kernels: Kernels, engine: str, tmp_path: Path) -> None:
    counts = []
    for seed in ("1", "2", "2"):
        boot(kernels("timer"), "--mmu", engine, "--seed", seed, "--json", tmp_path / "report")
        counts.append(json.loads((tmp_path / "report").read_text())["instructions"])
    assert counts[0] != counts[1]
    assert counts[1] == counts[2]


def test_the_tlb_model_tells_its_counts(kernels: Kernels, engine: str) -> None:
    result = boot(kernels("long64"), "--mmu", engine, "--tlb-stats", "--tlb-strict")
    text = result.err.decode()
    if engine == "native":
        assert (result.code, "needs the python MMU engine" in text) == (125, True)
        return
    assert "flush: invlpg" in text
    assert "stale" not in text


def test_exceptions_are_traced(kernels: Kernels, engine: str) -> None:
    result = boot(kernels("long64"), "--mmu", engine, "--trace", "exceptions")
    text = result.err.decode()
    assert result.out.decode() == expected.LONG64
    for name in ("#BP", "#UD", "#DE", "#PF", "#GP"):
        assert name in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"just some text\n" * 50, "has no multiboot header"),
        (b"\x7fELF" + bytes(100), "broken or cut off header"),
        (b"MZ" + bytes(0x200) + b"HdrS" + bytes(100), "bzImage"),
    ],
)
def test_what_is_no_kernel(tmp_path: Path, engine: str, content: bytes, message: str) -> None:
    path = tmp_path / "garbage"
    path.write_bytes(content)
    result = boot(path, "--mmu", engine)
    assert (result.code, result.out) == (CANNOT_LOAD, b"")
    assert len(result.err.splitlines()) == 1
    assert message in result.err.decode()


def test_a_kernel_that_is_not_there_or_does_not_fit(kernels: Kernels, engine: str, tmp_path: Path) -> None:
    assert boot(tmp_path / "nothing", "--mmu", engine).code == NOT_FOUND
    result = boot(kernels("hello32"), "--mmu", engine, "--memory", "1M")
    assert result.code == CANNOT_LOAD
    assert "is to be loaded at 0x100000-" in result.err.decode()
    assert boot(kernels("hello32"), "--mmu", engine, "--module", tmp_path / "nothing").code != 0
