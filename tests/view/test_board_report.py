"""``boot --report`` and ``--svg``: what is recorded against the trace and the walk, and that nothing changes by it."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import pytest

from mmuemu.board import Board, BoardOptions
from mmuemu.cli import main
from mmuemu.memory.ram import GuestRam
from mmuemu.mmu.state import Access, PagingState, Translation
from mmuemu.mmu.walk import walk
from mmuemu.view.report.board_maps import Ground, Place, physical_regions, space_regions
from mmuemu.view.report.board_recording import BoardRecording
from mmuemu.view.report.events import CONTROL, DEVICE, EXCEPTION, FAULT, INTERRUPT, SWITCH, EventLog
from mmuemu.view.tables import read_paging
from mmuemu.x86.paging import PS, RW, US, P
from mmuemu.x86.registers import CR0_PE, CR0_PG, CR4_PAE, CR4_PSE
from tests.boot.build import Kernels
from tests.boot.conftest import kernels  # noqa: F401
from tests.boot.test_boot import boot
from tests.view import chromium
from tests.view.test_report import data_of, rows_of

MAP = re.compile(r"(0x[0-9a-f]+)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("board")


@pytest.fixture(scope="module")
def booted(kernels: Kernels, folder: Path) -> dict:  # noqa: F811
    """The page's data of a kernel with page faults, exceptions and rings; the trace of the same run."""
    files = ["--report", folder / "page.html", "--svg", folder / "map.svg"]
    found = boot(kernels("long64"), "--memory", "16M", "--trace", "exceptions,cr,tlb", *files)
    assert found.code == 135
    return {**data_of(folder / "page.html"), "trace": found.err.decode().splitlines()}


def test_events_are_those_of_the_trace(booted: dict) -> None:
    rows = rows_of(booted)
    kinds = [row[0] for row in rows]
    exceptions = [line.removeprefix("exceptions: ") for line in booted["trace"] if line.startswith("exceptions: ")]
    told = [row[4] for row in rows if row[0] in (EXCEPTION, FAULT)]
    assert len(told) == len(exceptions) > 5
    for text, line in zip(told, exceptions, strict=True):
        assert text.endswith(line[line.index(" from ") :])
        if line.startswith("#PF"):
            assert MAP.search(text)[1] == re.search(r" at (0x[0-9a-f]+)", line)[1]
    controls = [line for line in booted["trace"] if line.startswith("cr: ")]
    # The trace counts loads of CR3 among what concerns the TLB.
    assert sum(row[0] == CONTROL and not row[4].startswith("cr3") for row in rows) == len(controls) >= 3
    assert kinds.count(SWITCH) == 2
    assert kinds.count(DEVICE) > 5
    assert booted["programs"] == {"1": "paging off", "2": "CR3 0x103000"}
    assert [row[1] for row in rows] == sorted(row[1] for row in rows)
    assert any("vector " in row[4] for row in rows if row[0] == EXCEPTION) or INTERRUPT not in kinds


def test_what_the_serial_line_says_is_in_the_events(booted: dict) -> None:
    said = "".join(
        part[1] for row in rows_of(booted) if row[0] == DEVICE and (part := re.match(r"com1: '(.*?)\\n'", row[4]))
    )
    assert "long mode" in said


def test_the_map_is_what_the_tables_map(booted: dict) -> None:
    space, physical = booted["processes"]
    assert [level[0] for level in space["levels"]] == ["PML4E", "PDPTE", "PDE", "PTE"]
    assert {"tables", "image", "device", "memory"} <= {region["kind"] for region in physical["regions"]}
    for regions, end in ((space["regions"], 1 << 64), (physical["regions"], 1 << 40)):
        at = 0
        for region in regions:
            assert int(region["start"], 16) == at
            at = int(region["last"], 16) + 1
        assert at == end
    assert physical["tables"] is None
    assert "com1 0x3f8-0x3ff" in booted["facts"]["I/O ports"]


def test_nothing_is_bound_without_and_nothing_stays_bound_after() -> None:
    board = Board(BoardOptions(1 << 20))
    assert board.cpu.privileged is not None

    def bound() -> list[object]:
        return [
            board.bare.on_event, board.pc.ports.trace, board.pc.mmio.trace, board.cpu.engine.watcher,
            list(board.cpu.privileged.observers),
        ]  # fmt: skip

    before = bound()
    assert before == [board._on_event, None, None, None, [board._observe]]
    recording = BoardRecording(board.bare, board.pc, lambda: board.now, [], EventLog())
    assert bound() != before
    recording.close()
    assert bound() == before
    board.close()


def test_recording_changes_nothing(kernels: Kernels, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    facts = []
    for more in ([], ["--report", str(folder / "same.html")]):
        path = folder / "facts.json"
        assert main(["boot", "--memory", "16M", "--json", str(path), *more, str(kernels("timer"))]) == 21
        facts.append((path.read_text(), capfd.readouterr().out))
    assert facts[0] == facts[1]
    rows = rows_of(data_of(folder / "same.html"))
    assert sum(row[0] == INTERRUPT for row in rows) >= 10


@pytest.mark.parametrize("bits", [32, 64])
def test_trees_of_random_tables_translate_as_the_walk_does(bits: int) -> None:
    """Each page of each run is where the walk finds it; entries lead anywhere, into tables above them, too."""
    source = Random(bits)
    for _ in range(6):
        ram = GuestRam(1 << 20)
        words = ram.bytes.cast("I") if bits == 32 else ram.qwords
        for table in range(8):
            for _ in range(6):
                target = source.choice([table, source.randrange(8), source.randrange(256)]) << 12
                flags = source.choice([P, P | RW, P | RW | US, P | US, P | RW | PS, 0])
                if target or flags:
                    words[(table << 12) // (bits // 8) + source.randrange(512)] = target | flags
        del words
        on = CR0_PE | CR0_PG
        state = PagingState(0, on, CR4_PSE, 0) if bits == 32 else PagingState(0, on, CR4_PAE, 0x500)
        tree = read_paging(ram.qwords, state, 300)
        for run in list(tree.runs())[:200]:
            for number in {0, run.count - 1}:
                linear = run.start + number * run.page_size
                found = walk(ram, state, linear, Access.READ, user=False)
                if not isinstance(found, Translation):
                    assert run.page_size > 4096  # a large page whose address has reserved bits
                    continue
                assert found.physical == run.frames[number]
                user = walk(ram, state, linear, Access.READ, user=True)
                assert isinstance(user, Translation) == run.user
        regions = space_regions(tree, state.mode, Ground(ram.size, ()))
        assert sum(region.size for region in regions) == (1 << 32 if bits == 32 else 1 << 64)
        ram.close()


def test_a_table_in_itself_ends() -> None:
    ram = GuestRam(1 << 20)
    for entry in range(512):
        ram.qwords[entry] = P | RW
    tree = read_paging(ram.qwords, PagingState(0), 600)
    assert {table.note for table in tree.tables()} == {"", "the table itself"}
    assert len(list(tree.tables())) == 513
    for table in (0x1000, 0x2000, 0x3000):
        for entry in range(512):
            ram.qwords[(table >> 3) + entry] = table + 0x1000 | P | RW
    ram.qwords[0] = 0x1000 | P | RW
    tree = read_paging(ram.qwords, PagingState(0), 100)
    assert sum(not table.note for table in tree.tables()) == 100
    assert len(list(tree.tables())) < 110
    ram.close()


def test_page_tables_lie_in_what_was_loaded() -> None:
    loaded = [Place(0x1000, 0x5000, "image", "file"), Place(0x6000, 0x6800, "module", "module")]
    found = physical_regions(Ground(0x8000, [Place(0x10000, 0x11000, "device", "lapic")]), loaded, {0x2000: 0x2000})
    assert [(region.start, region.what) for region in found] == [
        (0, "memory"), (0x1000, "file"), (0x2000, "page tables"), (0x4000, "file"), (0x5000, "memory"),
        (0x6000, "module"), (0x6800, "memory"), (0x8000, "nothing answers"), (0x10000, "lapic"),
        (0x11000, "nothing answers"),
    ]  # fmt: skip


def test_the_figure(booted: dict, folder: Path) -> None:
    root = ElementTree.parse(folder / "map.svg").getroot()
    labels = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text") if text.get("class") == "label"]
    assert any("user code" in label for label in labels)


@pytest.mark.parametrize("option", ["--report", "--svg"])
def test_a_path_that_cannot_be_written(option: str, kernels: Kernels, capfd: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    assert main(["boot", option, "/nowhere/x", str(kernels("spin"))]) == 125
    assert capfd.readouterr().err == f"mmuemu: {option} /nowhere/x: No such file or directory\n"


@pytest.mark.timeout(180)
@pytest.mark.skipif(chromium.PROGRAM is None, reason="there is no Chromium")
def test_the_page_draws_itself(booted: dict, folder: Path) -> None:
    browser = chromium.Browser(folder / "profile")
    try:
        browser.size(390, 844)
        browser.open(folder / "page.html")
        assert browser.ask("document.documentElement.scrollWidth") == 390
        assert browser.ask("document.getElementById('whole').textContent") == "All of this address space"
        assert browser.ask("document.getElementById('kernel').hidden")
        browser.ask("document.getElementById('regions').focus()")
        browser.press("End")
        assert "PML4E 0, PDPTE 0" in browser.ask("document.getElementById('region').textContent")
        assert "CR3" in browser.ask("document.getElementById('tables').textContent")
        browser.ask("const p = document.getElementById('process'); p.value = 1; p.dispatchEvent(new Event('change'))")
        assert "Physical addresses" in browser.ask("document.getElementById('tables').textContent")
        browser.ask("document.getElementById('regions').focus()")
        browser.press("ArrowDown")
        assert browser.errors == []
    finally:
        browser.close()
