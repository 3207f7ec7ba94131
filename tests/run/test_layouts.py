"""Programs under every layout, and under page-table isolation: as on the host; and what lies at a layout's edges."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmuemu.loader.layouts import LAYOUTS
from mmuemu.machine import Machine
from mmuemu.view.fault import describe, explain
from tests.run.harness import (
    ENGINES,
    ENVIRONMENT,
    PACKAGE,
    Programs,
    compare,
    emulator_environment,
    host,
    mmuemu,
    workplaces,
)

FLAVOURS = ("glibc-static", "musl-static-pie", "glibc-static-pie")
OTHERS = [name for name in LAYOUTS if name != "linux"]
engines = pytest.mark.parametrize("engine", ENGINES)


@engines
@pytest.mark.parametrize("layout", OTHERS)
@pytest.mark.parametrize("name", ["mappings", "heap", "algorithms"])
def test_a_static_program(name: str, layout: str, engine: str, programs: Programs, tmp_path: Path) -> None:
    program = programs(name, FLAVOURS[(OTHERS.index(layout) + len(name)) % 3])
    if LAYOUTS[layout].mmap_top_down or name != "mappings":
        compare(program, [], engine, tmp_path, options=["--layout", layout])
        return
    # Neighbours merge into one area, so the direction shows: setarch -L has the host place bottom-up too.
    here, there = workplaces(tmp_path)
    expected = host(["setarch", "x86_64", "-L", program], cwd=here)
    assert mmuemu("--mmu", engine, "--layout", layout, program, cwd=there).out == expected.out


@engines
@pytest.mark.parametrize("layout", OTHERS)
def test_a_dynamic_program(layout: str, engine: str, tmp_path: Path) -> None:
    program = shutil.which("sed")
    assert program is not None
    found = compare(
        Path(program), ["-n", "2p"], engine, tmp_path, options=["--layout", layout], stdin=b"one\ntwo\nthree\n"
    )
    assert found.out == b"two\n"


@engines
@pytest.mark.parametrize("name", ["recursion", "mappings", "files", "selfmodify", "sigframes", "sigfaults"])
def test_a_program_under_isolation(name: str, engine: str, programs: Programs, tmp_path: Path) -> None:
    flavour = FLAVOURS[len(name) % 3]
    compare(programs(name, flavour), [], engine, tmp_path, options=["--kpti", "--seed", "1"])


@engines
@pytest.mark.parametrize("layout", OTHERS)
def test_isolation_goes_with_every_layout(layout: str, engine: str, tmp_path: Path) -> None:
    program = shutil.which("sha256sum")
    assert program is not None
    compare(Path(program), [], engine, tmp_path, options=["--kpti", "--layout", layout], stdin=b"some bytes\n")


@engines
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", [[], ["--kpti"], ["--kpti", "--seed", "3"]], ids=["plain", "kpti", "kpti-seed"])
def test_tasks_that_take_turns(
    options: list[str], layout: str, engine: str, programs: Programs, tmp_path: Path
) -> None:
    compare(programs("family"), [], engine, tmp_path, options=[*options, "--layout", layout])


USER, GAP, KERNEL, NOWHERE = "in no region", "above the top of user space", "in the kernel half", None
EDGES = {
    "linux": [
        (0x7FFF_FFFF_F000, 4, GAP),
        (0x8000_0000_0000, 0, NOWHERE),
        (0xFFFF_7FFF_FFFF_FFFF, 0, NOWHERE),
        (0xFFFF_8000_0000_0000, 4, KERNEL),
        (0xFFFF_8880_0000_0000, 5, KERNEL),
    ],
    "linux-5level": [
        (0x8000_0000_0000, 4, USER),
        (0x00FF_FFFF_FFFF_E000, 4, USER),
        (0x00FF_FFFF_FFFF_F000, 4, GAP),
        (0x0100_0000_0000_0000, 0, NOWHERE),
        (0xFEFF_FFFF_FFFF_FFFF, 0, NOWHERE),
        (0xFF00_0000_0000_0000, 4, KERNEL),
        (0xFF11_0000_0000_0000, 5, KERNEL),
        (0xFFFF_FFFF_8000_0000, 5, KERNEL),
    ],
    "windows-x64": [
        (0x07FF_FFFF_F000, 4, USER),
        (0x0800_0000_0000, 4, GAP),
        (0x8000_0000_0000, 0, NOWHERE),
        (0xFFFF_0800_0000_0000, 0, NOWHERE),
        (0xFFFF_7FFF_FFFF_FFFF, 0, NOWHERE),
        (0xFFFF_8000_0000_0000, 5, KERNEL),
        (0xFFFF_F800_0000_0000, 5, KERNEL),
    ],
    "windows-x64-5level": [
        (0x0800_0000_0000, 4, GAP),
        (0x8000_0000_0000, 4, GAP),
        (0xFFFF_0800_0000_0000, 5, KERNEL),
        (0xFFFF_7FFF_FFFF_FFFF, 4, KERNEL),
        (0xFFFF_F800_0000_0000, 5, KERNEL),
    ],
    "split-2g": [
        (0x8000_0000, 4, GAP),
        (0x7FFF_FFFF_E000, 4, GAP),
        (0x8000_0000_0000, 0, NOWHERE),
        (0xFFFF_8880_0000_0000, 4, GAP),
        (0xFFFF_FFFF_8000_0000, 5, KERNEL),
        (0xFFFF_FFFF_E000_0000, 5, KERNEL),
    ],
}
"""Layout -> (address, error code of the #PF that reading it raises (0: #GP instead), where the explanation says it is),
without randomization and with 64 MiB of memory."""


@engines
@pytest.mark.parametrize(("layout", "edge"), [(name, edge) for name, edges in EDGES.items() for edge in edges])
def test_what_lies_at_the_edges(
    layout: str, edge: tuple[int, int, str | None], engine: str, programs: Programs
) -> None:
    address, code, place = edge
    program = str(programs("layout"))
    with Machine(mmu=engine, seed=1, aslr=False, memory=64 << 20, layout=layout) as machine:
        machine.load(program, [program, "touch", hex(address), "r"], ENVIRONMENT, stdout=io.BytesIO())
        assert machine.run(timeout=30).exit_code == 128 + 11
        found = describe(machine.kernel, machine.task)
        if code:
            assert (found["exception"], found["address"], found["error_code"]) == ("#PF", address, code)
            assert found["region"].startswith(str(place)), found["region"]
            assert str(place) in explain(machine.kernel, machine.task)
        else:
            assert (found["exception"], found["error_code"]) == ("#GP", 0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_system_calls_take_no_address_beyond_the_user(layout: str, programs: Programs, tmp_path: Path) -> None:
    """EFAULT, EPERM, EINVAL, ENOMEM at TASK_SIZE, in any layout as the host says at its own."""
    program = programs("layout")
    top = LAYOUTS[layout].user_top
    found = mmuemu("--layout", layout, program, "calls", hex(top), cwd=tmp_path)
    assert found.out.split() == b"write 14 uname 14 gs 1 munmap 22 fixed 12 done".split()
    if layout == "linux" and sys.platform == "linux":
        compare(program, ["calls", hex(top)], "python", tmp_path)
    below = mmuemu("--layout", layout, "--no-aslr", program, "calls", hex(top - 0x1000), cwd=tmp_path)
    assert b"gs 0" in below.out or below.code == 139
    if layout == "linux-5level":
        assert below.out.split() == b"write 14 uname 14 gs 0 munmap 0 fixed 0 done".split()


HINTS = """\
none: below
low: there
high: there
high, taken: above
first second
across: below
fixed: there
highest: there
too high: no
moved: below, first
unmapped: 0
none again: below
done
"""


@engines
def test_five_levels_give_what_lies_above_47_bits_to_who_asks(engine: str, programs: Programs, tmp_path: Path) -> None:
    """Documentation/arch/x86/x86_64/5level-paging.rst, "User-space and large virtual address space"."""
    found = mmuemu("--mmu", engine, "--layout", "linux-5level", programs("layout"), "hints", cwd=tmp_path)
    assert found.out.decode() == HINTS, found.err


def test_four_levels_answer_high_hints_as_the_host_does(programs: Programs, tmp_path: Path) -> None:
    if "la57" in Path("/proc/cpuinfo").read_text():
        pytest.skip("the host may have 5 levels")
    compare(programs("layout"), ["hints"], "python", tmp_path)


def test_two_gigabytes_fill_up_from_the_top_and_then_below_the_program(programs: Programs, tmp_path: Path) -> None:
    found = mmuemu("--layout", "split-2g", "--no-aslr", programs("layout", "glibc-static"), "full", cwd=tmp_path)
    count, low, high = (found.out.split()[index] for index in (0, 3, 5))
    assert int(count) == 7
    assert int(low, 16) >= 0x10000
    assert int(high, 16) <= 0x8000_0000


def test_a_layout_of_ones_own(programs: Programs, tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_text(json.dumps({"like": "split-2g", "image": {"base": "0x20000000", "bits": 0}}))
    report = tmp_path / "end.json"
    program = programs("selfmaps", "glibc-static")
    found = mmuemu("--layout", path, "--json", report, program, cwd=tmp_path)
    assert found.code == 0, found.err
    assert json.loads(report.read_text())["layout"] == "small"
    path.write_text(json.dumps({"levels": 6}))
    found = mmuemu("--layout", path, program, cwd=tmp_path)
    assert found.code == 125
    assert found.ours == ["mmuemu: layout small: levels is 6: page tables have 4 or 5 levels"]


def test_what_does_not_fit_is_refused_by_name(programs: Programs, tmp_path: Path) -> None:
    program = programs("start")
    found = mmuemu("--layout", "split-2g", "--memory", "2G", program, cwd=tmp_path)
    assert found.code == 125
    assert found.ours == [
        "mmuemu: --memory 2048M: the direct map of layout split-2g holds 1280M; "
        "give less memory or choose another --layout"
    ]
    found = mmuemu("--layout", "linus", program, cwd=tmp_path)
    assert found.code == 125
    assert "no such layout: choose linux, " in found.ours[0]


def test_the_command_shows_layouts_and_reads_what_it_shows(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "mmuemu", "layouts", *arguments],
            capture_output=True, text=True, check=True, cwd=PACKAGE, env=emulator_environment(),
        )  # fmt: skip
        return done.stdout

    assert [line for line in run().splitlines() if not line.startswith(" ")] == [
        f"{layout.name}: {layout.about}" for layout in LAYOUTS.values()
    ]
    (tmp_path / "again.json").write_text(run("windows-x64", "--json"))
    assert run(str(tmp_path / "again.json")) == run("windows-x64")
    assert [layout["name"] for layout in json.loads(run("--json"))] == list(LAYOUTS)


HELLO = """
    .globl _start
    _start: mov $1, %eax; mov $1, %edi; lea text(%rip), %rsi; mov $3, %edx; syscall
            lea 8(%rsp), %rax; mov $60, %eax; xor %edi, %edi; syscall
    text:   .ascii "hi\\n"
"""


@pytest.mark.parametrize(
    ("address", "layout", "code"),
    [
        (0x9000_0000, "linux", 0),
        (0x9000_0000, "split-2g", 126),
        (0x7000_0000, "split-2g", 0),
        (0x0700_0000_0000, "windows-x64", 0),
        (0x0900_0000_0000, "windows-x64", 126),
        (0x0004_0000_0000_0000, "linux", 126),
        (0x0004_0000_0000_0000, "linux-5level", 0),
    ],
)
def test_a_program_linked_high_runs_where_the_layout_has_user_memory(
    address: int, layout: str, code: int, tmp_path: Path
) -> None:
    if shutil.which("ld") is None or shutil.which("as") is None:
        pytest.skip("no binutils")
    subprocess.run(["as", "-o", tmp_path / "high.o", "-"], input=HELLO.encode(), check=True)
    link = ["ld", f"-Ttext={address:#x}", f"-Ttext-segment={address:#x}", "-o"]
    subprocess.run([*link, tmp_path / "high", tmp_path / "high.o"], check=True)
    for engine in ENGINES:
        found = mmuemu("--mmu", engine, "--layout", layout, tmp_path / "high", cwd=tmp_path)
        assert (found.code, found.out) == (code, b"" if code else b"hi\n"), found.err
        if code:
            assert f"layout {layout}" in found.ours[0]
