"""``mmuemu maps``: against what the program itself reads in /proc, and against a machine without ASLR."""

from __future__ import annotations

import re
from random import Random

import pytest

from mmuemu.errors import UsageError
from mmuemu.guestprocess import GuestProcess
from mmuemu.loader.elf import read_image
from mmuemu.loader.entropy import possible_bits
from mmuemu.loader.layout import choose_bases
from mmuemu.loader.layouts import LAYOUTS, LINUX, Place
from mmuemu.stopping import run_to
from mmuemu.view.sheet import Sheet, human
from tests.look.conftest import FLAVOURS, FORKER, SELF_MAPS, look, looked
from tests.run.harness import emulator_environment


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_linux_format_is_what_the_program_reads(built, flavour):
    program = built(SELF_MAPS, flavour)
    own = look("run", "--seed", 4, program)
    shown = look("maps", "--seed", 4, "--format", "linux", "--at", "syscall:write", program)
    assert own.returncode == shown.returncode == 0, own.stderr + shown.stderr
    assert shown.stdout == own.stdout
    assert "[heap]" in shown.stdout


def test_counts_are_those_of_smaps(built):
    program = built(SELF_MAPS)
    own = look("run", "--seed", 4, program, "/proc/self/smaps").stdout
    arguments = ["--seed", 4, "--at", "syscall:read", program, "/proc/self/smaps"]
    found = looked("maps", *arguments)["processes"][0]["regions"]
    areas = {(int(low, 16), int(high, 16)): text for low, high, text in _smaps(own)}
    regions = {
        (int(region["start"], 16), int(region["end"], 16)): region
        for region in found
        if region["kind"] not in ("gap", "kernel")
    }
    assert areas.keys() == regions.keys()
    for span, text in areas.items():
        counts = {name: int(value) << 10 for name, value in re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE)}
        region = regions[span]
        assert region["resident"] == counts["Rss"]
        assert region["dirty"] == counts["Shared_Dirty"] + counts["Private_Dirty"]
        assert region["shared"] == counts["Shared_Clean"] + counts["Shared_Dirty"]
    assert sum(region["resident"] for region in regions.values()) > 50 << 10


def _smaps(text: str) -> list[tuple[str, str, str]]:
    parts = re.split(r"^([0-9a-f]+)-([0-9a-f]+) (?=[r-][w-][x-])", text, flags=re.MULTILINE)[1:]
    return list(zip(parts[::3], parts[1::3], parts[2::3], strict=True))


def test_the_table_covers_every_address_once(built):
    regions = looked("maps", "--seed", 4, built(SELF_MAPS))["processes"][0]["regions"]
    at = 0
    for region in regions:
        assert int(region["start"], 16) == at
        at = int(region["end"], 16)
        assert at - int(region["start"], 16) == region["size"] > 0
    assert at == 1 << 64
    hole = next(region for region in regions if region["what"] == "not canonical")
    assert (hole["start"], hole["end"]) == ("0x800000000000", "0xffff800000000000")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kpti", [False, True], ids=["", "kpti"])
def test_the_gaps_of_every_layout_fit(machine, layout, kpti):
    found = machine(layout=layout, kpti=kpti).spawn("/bin/true").memory_map()
    assert [region.start for region in found] == [0, *(region.end for region in found[:-1])]
    assert found[-1].end == 1 << 64
    kernel = [region for region in found if region.kind == "kernel"]
    assert {"kernel text", "kernel data", "kernel stacks", "direct map of physical memory"} <= {r.what for r in kernel}
    assert ("entry trampoline" in {region.what for region in kernel}) is kpti


KINDS = {
    "static": {"text", "rodata", "data", "bss", "heap", "stack", "vdso", "shared", "anonymous", "guard"},
}
KINDS["dynamic"] = KINDS["static"] | {"library", "linker"}


@pytest.mark.parametrize("flavour", KINDS)
def test_kinds_of_areas(built, flavour):
    found = looked("maps", "--seed", 4, "--at", "syscall:write", built(SELF_MAPS, flavour))["processes"][0]["regions"]
    assert {region["kind"] for region in found} == KINDS[flavour] | {"gap", "kernel"}
    program = [region["kind"] for region in found if region["kind"] in ("text", "rodata", "data", "bss")]
    assert program[-2:] == ["data", "bss"]
    assert program.count("text") == 1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_offsets_lead_back_to_the_places_without_aslr(built, machine, layout, flavour):
    """A region less its offset lies where a machine without ASLR has it."""
    program = str(built(SELF_MAPS, flavour))
    shown = []
    for aslr in (True, False):
        one = machine(aslr=aslr, layout=layout)
        process = one.spawn(program)
        run_to(one, "syscall:write")
        shown.append(process.memory_map(gaps=False))
    moved, fixed = shown
    assert [region.what for region in moved] == [region.what for region in fixed]
    movers = set()
    for there, here in zip(moved, fixed, strict=True):
        assert here.offset == 0, here
        assert there.end - (there.offset or 0) == here.end, there
        movers.add(there.mover)
    image = {"dynamic": {"image"}, "static": {""}, "no-pie": {""}, "static-pie": set()}[flavour]
    assert movers == {"heap", "stack", "mmap", "direct_map", "vmalloc", "text"} | image


SMALL = LINUX._replace(
    image=Place(LINUX.image.base, 3),
    heap=Place(LINUX.heap.base, 2),
    stack=Place(LINUX.stack.base, 4),
    mmap=Place(LINUX.mmap.base, 5),
)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_possible_bits_are_the_places_that_are_taken(built, flavour):
    """In a layout with few places, every one is drawn sooner or later."""
    image = read_image(built(SELF_MAPS, flavour).read_bytes(), "x")
    bits = possible_bits(SMALL, image)
    drawn = [choose_bases(SMALL, image, Random(seed)) for seed in range(3000)]
    assert len({bases.load_bias for bases in drawn}) == round(2 ** bits["image"])
    assert len({bases.mmap_base for bases in drawn}) == round(2 ** bits["mmap"])
    assert len({bases.brk_start for bases in drawn}) == round(2 ** bits["heap"])
    # The shuffle of the stack pointer below the drawn end shows as one place more.
    assert len({bases.stack_top for bases in drawn}) == round(2 ** bits["stack"]) + 1


def test_runs_side_by_side(built):
    program = built(SELF_MAPS, "dynamic")
    found = looked("maps", "--seed", 10, "--runs", 8, "--at", "main", program)
    assert found["seeds"] == list(range(10, 18))
    rows = {row["what"]: row for row in found["regions"]}
    bits = {program.name: 28, "libc.so.6": 28, "vdso": 28, "stack": 22}
    kernel = {"kernel text": 9, "kernel stacks": 12, "direct map of physical memory": 13}
    for what, possible in (bits | kernel).items():
        row = rows.get(what) or rows["program"]
        assert row["possible_bits"] == pytest.approx(possible, abs=0.1)
        assert row["different"] == len(set(row["addresses"])) == 8
        assert possible - 4 <= row["varied_bits"] <= possible + 2
    for index, seed in enumerate(found["seeds"]):
        regions = looked("maps", "--seed", seed, "--at", "main", program)["processes"][0]["regions"]
        vdso = next(region for region in regions if region["kind"] == "vdso")
        assert rows["vdso"]["addresses"][index] == vdso["start"]
        if index:
            break
    fixed = looked("maps", "--seed", 10, "--runs", 2, "--no-aslr", program)["regions"]
    assert {(row["possible_bits"], row["varied_bits"], row["different"]) for row in fixed} == {(0, 0, 1)}


def test_all_processes_at_an_event(built):
    found = looked("maps", "--all", "--seed", 3, "--at", "syscall:getppid", built(FORKER))
    first, second = found["processes"]
    shared = [
        region["shared"]
        for process in (first, second)
        for region in process["regions"]
        if region["start"] == "0x20000000"
    ]
    assert shared == [4096, 4096]
    text = look("maps", "--all", "--format", "linux", "--seed", 3, "--at", "syscall:getppid", built(FORKER)).stdout
    assert text.count("==> /proc/") == 2


def test_a_process_that_has_ended(built, machine):
    """The memory of one that was spawned from outside stays to be looked at; a child's goes."""
    one = machine()
    process = one.spawn(str(built(SELF_MAPS)))
    run_to(one, "address:main")
    before = process.memory_map()
    assert process.wait(60).exit_code == 0
    after = process.memory_map()
    assert [(r.kind, r.offset) for r in after if r.kind in ("text", "data", "stack")] == [
        (r.kind, r.offset) for r in before if r.kind in ("text", "data", "stack")
    ]
    text = next(region for region in after if region.kind == "text")
    (frame, *_) = next(process.page_tables(text.start, text.end).runs()).frames
    assert [mapper.pid for mapper in one.who_maps(frame).mappers if mapper.kind == "process"] == [process.pid]
    shell = one.spawn("/bin/sh", ["sh", "-c", "/bin/true & wait"])
    children = []

    @one.on_fork
    def forked(_parent, child):
        children.extend(GuestProcess(one, process) for process in [child.process])

    assert shell.wait(60).exit_code == 0
    assert children
    for ask in (children[0].memory_map, children[0].page_tables):
        with pytest.raises(UsageError, match="its memory is gone"):
            ask()


def test_at_the_end_everything_is_still_there(built):
    program = built(SELF_MAPS)
    for arguments in (["--pid", 1000], ["--all"]):
        (process,) = looked("maps", "--at", "exit", *arguments, program)["processes"]
        assert {"text", "heap", "stack"} <= {region["kind"] for region in process["regions"]}


def test_sizes_never_say_too_much():
    assert [human(size) for size in (0, 512, 4096, 1536, 1 << 30, (1 << 64) - (1 << 48))] == [
        "0", "512", "4K", "1.5K", "1G", "15.9E",
    ]  # fmt: skip


def test_a_sheet_is_aligned():
    sheet = Sheet(("name", ">count"))
    sheet.add("a", "1")
    sheet.add("long", "1000", style="red")
    assert sheet.text() == "name  count\na         1\nlong   1000\n"


def test_several_seeds_on_a_narrow_terminal(built):
    """As many seeds side by side as fit; no escape sequences but colours."""
    import fcntl
    import os
    import pty
    import struct
    import subprocess
    import sys
    import termios

    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    command = [sys.executable, "-m", "mmuemu", "maps", "--seed", "1", "--runs", "3", str(built(SELF_MAPS))]
    environment = {name: value for name, value in emulator_environment().items() if name != "COLUMNS"}
    process = subprocess.Popen(command, stdout=there, stdin=subprocess.DEVNULL, env={**environment, "TERM": "xterm"})
    os.close(there)
    shown = b""
    try:
        while piece := os.read(here, 65536):
            shown += piece
    except OSError:
        pass
    os.close(here)
    assert process.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
    assert "\x1b[" in shown.decode()
    assert "\x1b" not in text
    heads = [line.split() for line in text.splitlines() if line.startswith("what")]
    assert heads[:2] == [["what", "seed", "1", "seed", "2"], ["what", "seed", "3"]]
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"^program +0\.0 +0 +1 of 3", text, re.MULTILINE)


def test_a_name_is_bytes(built, tmp_path):
    """A file name that is no text: to the byte with --format linux, harmless in the table."""
    import os
    import subprocess
    import sys

    program = os.fsencode(tmp_path) + b"/\xff\x1b[31mred"
    with open(built(SELF_MAPS), "rb") as source, open(program, "wb") as target:
        target.write(source.read())
    os.chmod(program, 0o755)

    def shown(*words: object) -> bytes:
        command = [sys.executable, "-m", "mmuemu", *map(str, words), program]
        done = subprocess.run(command, capture_output=True, env=emulator_environment(), timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert shown("maps", "--seed", 4, "--format", "linux", "--at", "syscall:write") == shown("run", "--seed", 4)
    assert b"\x1b" not in shown("maps")


def test_stacks_of_threads(built):
    source = r"""
        #include <pthread.h>
        #include <unistd.h>
        static void *wait(void *unused) { getppid(); for (;;) pause(); }
        int main(void) { pthread_t one; pthread_create(&one, 0, wait, 0); for (;;) pause(); }
    """
    (process,) = looked("maps", "--seed", 1, "--at", "syscall:getppid", "--all", built(source))["processes"]
    stacks = [region["what"] for region in process["regions"] if region["kind"] == "stack"]
    assert stacks == ["stack of thread 1001", "stack"]
