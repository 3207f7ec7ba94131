"""The test kernels on QEMU: they are right about a PC, and so is what :mod:`tests.boot.expected` says of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.boot import expected
from tests.boot.build import Kernels
from tests.boot.expected import as_qemu_says, exit_code

QEMU = shutil.which("qemu-system-x86_64")
pytestmark = [pytest.mark.skipif(QEMU is None, reason="qemu-system-x86_64 is not here")]


def qemu(kernel: Path, *options: str, stdin: bytes = b"", cwd: Path | None = None) -> tuple[int, bytes]:
    """Exit status and serial output of a PC with 128 MiB."""
    devices = ("-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-display", "none", "-vga", "none", "-no-reboot")
    done = subprocess.run(
        [str(QEMU), "-m", "128", "-kernel", str(kernel), "-serial", "stdio", "-monitor", "none", *devices, *options],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        timeout=60,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("kernel", "text"),
    [
        ("long64.elf32", as_qemu_says(expected.LONG64)),
        ("timer.elf32", expected.TIMER),
        ("timer32", expected.TIMER),
        ("wild", expected.wild("0 0 0")),
    ],
)
def test_kernels_print_what_is_expected(kernels: Kernels, kernel: str, text: str) -> None:
    code, out = qemu(kernels(kernel))
    assert out.decode() == text
    assert code == exit_code(kernel.removesuffix(".elf32"))


def test_the_apic_kernel(kernels: Kernels) -> None:
    # Its clock counts instructions: a busy host would have it lose ticks.
    code, out = qemu(kernels("apic.elf32"), "-icount", "shift=4,sleep=off")
    assert out.decode() in (expected.APIC, expected.X2APIC)
    assert code == exit_code("apic")


def test_the_echo_kernel(kernels: Kernels) -> None:
    code, out = qemu(kernels("echo"), stdin=expected.ECHO_IN)
    assert out.decode() == expected.ECHO
    assert code == exit_code("echo")


def test_a_triple_fault_resets(kernels: Kernels) -> None:
    assert qemu(kernels("triple")) == (0, b"before\n")


@pytest.mark.slow
def test_the_flood_kernel(kernels: Kernels) -> None:
    assert qemu(kernels("flood")) == (exit_code("flood"), expected.flood())


@pytest.mark.parametrize("kernel", ["hello32", "flat.bin"])
def test_the_hello_kernel(kernels: Kernels, kernel: str, tmp_path: Path) -> None:
    (tmp_path / "m1").write_bytes(b"first module")
    code, out = qemu(kernels(kernel), "-append", "a=b quiet", "-initrd", "m1 one", cwd=tmp_path)
    lines = out.decode().splitlines()
    assert code == exit_code("hello32")
    assert lines[:3] == ["magic 2badb002", "flags 249", "mem_lower 639"]
    assert lines[4].endswith(" a=b quiet")
    assert lines[6:8] == ["module 0 size 12 aligned string m1 one", "content first module"]
    assert lines[8:11] == ["map 0 9fc00 type 1", "map 9fc00 a0000 type 2", "map f0000 100000 type 2"]
