"""``mmuemu pagetable``: the tree says what the tables say; a frame is found with everyone who has it."""

import contextlib
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmuemu.memory.frames import FrameAllocator
from mmuemu.memory.page_table import PageTable
from mmuemu.memory.ram import GuestRam
from mmuemu.stopping import run_to
from mmuemu.view.tables import Run, Table, read_tables
from mmuemu.x86.paging import ADDRESS_MASK, NX, PAGE_SIZE, RW, SIZE_1G, SIZE_2M, US, A, D, G, P
from tests.kernel import isolation
from tests.look.conftest import FORKER, SELF_MAPS, look, looked

HALF = 1 << 47
FLAGS = st.sampled_from([P | US, P | US | RW, P | US | RW | NX, P | RW | G, P | US | A, P | US | RW | A | D, P | NX])


@st.composite
def pages(draw: st.DrawFn) -> list[tuple[int, int, int, int]]:
    """(linear, physical, flags, size), some of them neighbours."""
    found = []
    for _ in range(draw(st.integers(0, 8))):
        size = draw(st.sampled_from([PAGE_SIZE, PAGE_SIZE, PAGE_SIZE, SIZE_2M, SIZE_1G]))
        linear = draw(st.sampled_from([0x400000, 0x7FFF_C000_0000, HALF - (4 << 30), (1 << 64) - HALF])) & -size
        linear += size * draw(st.integers(0, 3))
        flags, frame = draw(FLAGS), draw(st.integers(0, 5)) * size
        for index in range(draw(st.integers(1, 6))):
            found.append((linear + index * size, frame + index * size, flags, size))
    return found


def flat(tree: Table) -> list[tuple[int, int, int, Run]]:
    return [
        (run.start + index * run.page_size, frame, run.page_size, run)
        for run in tree.runs()
        for index, frame in enumerate(run.frames)
    ]


@settings(max_examples=25)
@given(pages(), st.sampled_from([4, 5]), st.booleans())
def test_the_tree_has_every_page_once_with_its_rights(wanted, levels, absent):
    ram = GuestRam(16 << 20)
    try:
        table = PageTable(FrameAllocator(ram), levels=levels)
        for linear, physical, flags, size in wanted:
            if levels == 5 and linear >= HALF:
                continue
            try:
                table.map(linear, physical, flags, size)
            except ValueError:
                continue
        if absent:
            with contextlib.suppress(ValueError):  # a large page cannot lose P
                table.protect_range(0x400000, 0x402000, clear=P, set=1 << 9)
        tree = read_tables(table)
        found = flat(tree)
        expected = [(la, entry & ADDRESS_MASK & -size, size) for la, entry, size in table.iterate(absent=True)]
        assert [each[:3] for each in found] == expected
        for linear, _, _, run in found:
            mapping = table.lookup(linear)
            if mapping is None:
                assert not run.present
                assert run.rights == "---"
                continue
            rights = "r" + ("w" if mapping.flags & RW else "-") + ("-" if mapping.flags & NX else "x")
            assert (run.rights, run.user) == (rights, bool(mapping.flags & US))
        check_runs(tree)
        check_part(table, found)
    finally:
        ram.close()


def check_runs(tree: Table) -> None:
    """Neighbours that could be one run are one, and A and D are counted."""
    for each in tree.tables():
        for left, right in zip(each.parts, each.parts[1:], strict=False):
            if isinstance(left, Run) and isinstance(right, Run):
                assert left.first + left.count <= right.first
                assert left.end != right.start or left.flags != right.flags
    for run in tree.runs():
        assert 0 <= run.accessed <= run.count
        assert 0 <= run.dirty <= run.count


def check_part(table: PageTable, found: list[tuple[int, int, int, Run]]) -> None:
    """A range shows the pages that touch it."""
    for start, end in ((0x401000, 0x403000), (0, 1 << 30), (0x7FFF_C000_1000, 1 << 64)):
        part = [each[:3] for each in flat(read_tables(table, start, end))]
        assert part == [each[:3] for each in found if each[0] < end and each[0] + each[2] > start]


@pytest.fixture
def forked(built, machine):
    """A machine with two processes after a fork, at a system call of the first."""
    one = machine(kpti=False)
    one.spawn(str(built(FORKER)))
    run_to(one, "syscall:getppid")
    return one


def test_every_frame_is_found_with_all_its_users(forked):
    """Against the walk by hand of the isolation test, and against the allocator's reference counts."""
    kernel = forked.kernel
    users = defaultdict(set)
    from collections import Counter

    for space in isolation.spaces(kernel):
        pid = next(task.pid for task in kernel.tasks.values() if task.mm is space)
        for leaf in isolation.user_half(kernel, space, Counter()):
            users[leaf.frame].add((pid, leaf.linear))
    both = [frame for frame, by in users.items() if len({pid for pid, _ in by}) == 2]
    assert len(users) > 20
    assert both
    direct = kernel.memory.layout.direct_map
    used = [frame for frame in range(0, kernel.ram.size, PAGE_SIZE) if kernel.frames.refcount(frame)]
    chosen = sorted({*used[:60:3], *both[:10], *list(users)[::7], kernel.frames.zero_frame})
    for frame in chosen:
        facts = forked.who_maps(frame + 123)
        assert facts.frame == frame
        found = {(mapper.pid, mapper.linear) for mapper in facts.mappers if mapper.kind == "process"}
        assert found == users.get(frame, set())
        in_direct_map = [m for m in facts.mappers if m.kind == "kernel" and m.linear == direct + frame]
        assert len(in_direct_map) == 1
        assert in_direct_map[0].rights == "rw-"
        assert len(facts.mappers) - 1 == facts.references == kernel.frames.refcount(frame), facts


@pytest.mark.parametrize("kpti", [False, True])
def test_every_page_table_is_told_as_one(built, machine, kpti):
    one = machine(kpti=kpti)
    process = one.spawn(str(built(SELF_MAPS)))
    run_to(one, "main")
    tables = [table.physical for table in process.page_tables(0, HALF).tables()]
    assert len(tables) > 5
    for physical in [*tables, process.page_table.user_root, process.page_tables(user_root=True).physical]:
        told = [mapper for mapper in one.who_maps(physical).mappers if mapper.kind == "table"]
        assert [mapper.pid for mapper in told] == [process.pid]
    assert (process.page_table.root != process.page_table.user_root) is kpti


def test_the_command_finds_the_frame_of_a_place(built):
    program = built(FORKER)
    arguments = ["pagetable", "--seed", 3, "--at", "syscall:getppid", program]
    found = looked(*arguments, "--frame-of", "0x20000000")
    assert {(m["pid"], m["linear"]) for m in found["mappers"] if m["kind"] == "process"} >= {(1000, "0x20000000")}
    assert any(mapper["kind"] == "cache" for mapper in found["mappers"])
    for name in (found["physical"], str(found["frame"])):
        assert looked(*arguments, "--frame", name)["mappers"] == found["mappers"]
    text = look(*arguments, "--frame-of", "both").stdout
    assert text.count("process 100") == 2, "unwritten since the fork"
    assert look(*arguments, "--frame-of", "both+4096").stdout.count("process 100") == 1, "copied on write"


def test_the_command_prints_the_tree(built):
    program = built(SELF_MAPS)
    done = look("pagetable", "--seed", 1, "--at", "syscall:write", program, "filled")
    lines = done.stdout.splitlines()
    assert lines[2].split()[0] == "entry"
    assert [line.split("[")[0] for line in lines[3:]][:3] == ["PML4E", "  PDPTE", "    PDE"]
    assert all("PTE[" in line and "rw- user" in line for line in lines[6:])
    found = looked("pagetable", "--seed", 1, "--at", "syscall:write", program, "all")
    own = look("pagetable", "--seed", 1, "--at", "syscall:write", program, "all").stdout
    assert _count(found["tree"]) == own.count("\n") - 3


def _count(tree: dict) -> int:
    """Rows below a table."""
    return sum(1 + (_count(part) if "parts" in part else 0) for part in tree["parts"])


def test_pages_without_access_are_kept(built):
    """mprotect(PROT_NONE) keeps the frame in an entry without P; with inverted entries it is still told."""
    for options in ([], ["--cpu", "skylake", "--mitigations", "pte-inversion"]):
        found = looked("pagetable", "--seed", 1, "--at", "syscall:write", *options, built(SELF_MAPS))
        kept = [run for run in _runs(found["tree"]) if not run["present"]]
        assert [(run["count"], run["rights"]) for run in kept] == [(1, "---")]
        frame = kept[0]["frames"][0][0]
        assert int(frame, 16) < 1 << 30
        who = looked("pagetable", "--seed", 1, "--at", "syscall:write", *options, built(SELF_MAPS), "--frame", frame)
        linear = {mapper["linear"] for mapper in who["mappers"] if mapper["kind"] == "process"}
        assert linear == {kept[0]["start"]}


def _runs(tree: dict) -> list[dict]:
    return [run for part in tree["parts"] for run in (_runs(part) if "parts" in part else [part])]


@pytest.mark.parametrize("engine", ["python", "native"])
def test_events_stop_where_they_say(built, machine, engine):
    program = str(built(SELF_MAPS, "dynamic"))
    for event, check in (
        ("entry", lambda one, task: task.registers[16] == task.entry),
        ("main", lambda one, task: one.kernel.cpu.cpl == 3),
        ("address:main+4", lambda one, task: one.kernel.cpu.cpl == 3),
        ("address:malloc", lambda one, task: one.kernel.cpu.cpl == 3),
        ("syscall:mprotect:3", lambda one, task: task.process.exit_status is None),
        ("exit", lambda one, task: len(task.mm.vmas) > 10),
    ):
        one = machine(mmu=engine)
        one.spawn(program)
        task = run_to(one, event, timeout=60)
        assert check(one, task), event
    one = machine(mmu=engine)
    process = one.spawn(program)
    run_to(one, "main")
    at_main = one.kernel.cpu.rip
    run_to(one, f"address:{at_main + 4:#x}")
    assert one.kernel.cpu.rip == at_main + 4
    assert process.wait(60).exit_code == 0, "after an address the run goes on"
    assert b"[heap]" in process.stdout
