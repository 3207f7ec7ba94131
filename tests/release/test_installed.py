"""Every command of an installed mmuemu works without the checkout."""

from __future__ import annotations

import json

import mmuemu


def test_version_and_help(installed):
    assert installed.says("--version") == f"mmuemu {mmuemu.__version__}\n"
    assert "doctor" in installed.says("--help")


def test_doctor(installed):
    found = json.loads(installed.says("doctor", "--json"))
    assert found["ok"]
    assert found["mmuemu"] == mmuemu.__version__


def test_boot(installed):
    assert installed.says("boot", "board.elf", code=11) == "A"


def test_looking_at_memory(installed):
    assert "[stack]" in installed.says("maps", "--seed", "1", "--format", "linux", "hello.s")
    assert "PTE" in installed.says("translate", "--seed", "1", "--at", "exit", "hello.s", "0x401000")
    assert "PML4" in installed.says("pagetable", "--seed", "1", "--at", "exit", "hello.s")


def test_a_run_as_a_page_and_a_figure(installed):
    installed.says("run", "--report", "page.html", "--svg", "map.svg", "hello.s", code=7)
    page = (installed.here / "page.html").read_text()
    assert "<style>" in page
    assert "<script>" in page
    assert (installed.here / "map.svg").read_text().startswith("<svg")


def test_data_files(installed):
    assert "windows-x64" in installed.says("layouts")
    assert "skylake" in installed.says("cpus")
    assert installed.says("run", "--layout", "windows-x64", "--kpti", "hello.s", code=7) == "hi\n"


def test_demo_and_explain(installed):
    assert "meltdown" in installed.says("demo")
    installed.says("demo", "v1", "--seed", "1", "--bytes", "1", "--trace-file", "t.jsonl", "--report", "page.html")
    assert "Spectre v1" in installed.says("explain", "t.jsonl")


def test_save_and_resume(installed):
    installed.says("run", "--seed", "1", "--save", "moment", "--at", "3", "hello.s")
    assert installed.says("resume", "moment", code=7) == "hi\n"


def test_labs(installed):
    assert len(installed.says("lab", "list").splitlines()) == 13
    installed.says("lab", "start", "--solution", "read-only", "mine")
    assert "points" in installed.says("lab", "check", "mine")


def test_the_pytest_plugin(installed):
    (installed.here / "test_it.py").write_text(
        "def test_it(guest):\n    assert guest.run(guest.asm(open('hello.s').read())).exit_code == 7\n"
    )
    assert "1 passed" in installed.says("-m", "pytest", "-p", "no:cacheprovider", "test_it.py", program="python")


def test_from_python(installed):
    source = (
        "from unicorn import UC_ARCH_X86, UC_MODE_64, Uc\n"
        "from mmuemu import *\n"
        "mmu = attach(Uc(UC_ARCH_X86, UC_MODE_64))\n"
        "mmu.map(0x400000, bytes.fromhex('c604250000400001'), 'r-x')\n"
        "mmu.set_ring(3)\n"
        "mmu.cpu.set_registers(rip=0x400000)\n"
        "print(hex(mmu.run().error_code), Machine.__name__)\n"
    )
    assert installed.python(source) == "0x7 Machine\n"
