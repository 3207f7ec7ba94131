"""``mmuemu run --trace spec`` and ``mmuemu explain``: names from real programs, files, wrong options."""

from __future__ import annotations

import errno
import io
import subprocess
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest

import mmuemu
from mmuemu.cli import main
from mmuemu.cpu.decode import accesses
from mmuemu.machine import Machine
from mmuemu.speculation.trace import Fill, Step, Window
from mmuemu.tracing import machine_trace
from mmuemu.view.symbols import Names
from mmuemu.view.transient import with_waits
from mmuemu.view.transient_file import TraceReader, TraceWriter
from mmuemu.view.transient_rows import path_of, rows_of
from tests.run.harness import command_line
from tests.view import windows

VICTIM = """
#include <unistd.h>
unsigned long array1_size = 16;
unsigned char array1[160] = {1, 2, 3};
unsigned char array2[256 * 512];
static const char secret[] = "The quick brown fox";
const char *where = secret;
volatile unsigned char temp;
__attribute__((noinline)) void victim(unsigned long x) {
    if (x < array1_size) temp &= array2[array1[x] * 512];
}
int main(void) { victim(2); write(1, "x", 1); return 0; }
"""


@pytest.fixture(scope="module", params=["-static", "-static-pie", "-pie"])
def program(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("victim")
    (folder / "victim.c").write_text(VICTIM)
    out = folder / "victim"
    options = ["-O1", "-fcf-protection=none", *(["-no-pie"] if request.param == "-static" else ["-fPIE"])]
    subprocess.run(["gcc", *options, request.param, "-o", out, folder / "victim.c"], check=True, timeout=60)
    return out


def symbols_of(program: Path) -> dict[str, tuple[int, int]]:
    """Address and size by name, as nm(1) tells."""
    out = subprocess.run(["nm", "-S", program], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in out.splitlines()]
    return {row[3]: (int(row[0], 16), int(row[1], 16)) for row in rows if len(row) == 4}


def bias_of(machine: Machine, program: Path) -> int:
    """Where the program lies, less where it was linked for: by its first line of maps and readelf(1)."""
    first = next(line for line in machine.maps().splitlines() if line.endswith("/victim"))
    out = subprocess.run(["readelf", "-lW", program], capture_output=True, text=True, check=True).stdout
    load = next(line.split() for line in out.splitlines() if line.split()[:1] == ["LOAD"])
    return int(first.split("-")[0], 16) - (int(load[2], 16) & ~0xFFF)


@pytest.fixture
def started(program):
    """A machine that stands in ``main``'s write, and the addresses of the program's symbols."""
    with Machine(seed=3, memory="64M") as machine:
        seen = {}

        @machine.on_syscall("write")
        def stand(event):
            found = symbols_of(program)
            bias = bias_of(machine, program)
            seen.update({name: (address + bias, size) for name, (address, size) in found.items()})
            machine.check(seen)

        machine.load(str(program), ["victim"], {}, stdout=io.BytesIO())
        yield machine, seen


def when_started(started, check):
    machine, _ = started
    done = []
    machine.check = lambda symbols: done.append(check(machine, symbols))
    assert machine.run(timeout=30).exit_code == 0
    assert len(done) == 1
    return done[0]


def test_names_are_those_of_nm(started):
    def check(machine, symbols):
        names = Names(machine.kernel)
        context = machine.task.process.pid
        for name in ("victim", "main", "array1", "array2", "array1_size", "secret", "temp"):
            start, size = symbols[name]
            assert names.symbol(context, start) == name
            if size > 1:
                assert names.symbol(context, start + size - 1) == f"{name}+{size - 1:#x}"
        stack = machine.task.mm.start_stack
        assert names.symbol(context, stack) == ""
        assert names.place(context, stack).startswith("[stack]+0x")
        assert names.place(context, 0x10) == ""
        assert names.symbol(99, symbols["main"][0]) == ""
        assert names.symbol(context, machine.kernel.memory.entry) == "entry_SYSCALL_64"
        assert names.symbol(context, 0x8000_0000_0000_0000) == ""

    when_started(started, check)


def test_code_is_the_bytes_that_objdump_shows(started, program):
    def check(machine, symbols):
        return Names(machine.kernel).code(machine.task.process.pid, *symbols["victim"])

    code = when_started(started, check)
    listing = ["objdump", "-dw", "--disassemble=victim", program]
    out = subprocess.run(listing, capture_output=True, text=True, check=True).stdout
    shown = [line.split("\t")[1] for line in out.splitlines() if line.count("\t") == 2]
    assert len(code) > 20
    assert code == bytes.fromhex(" ".join(shown))[: len(code)]


def test_looking_brings_no_page_in(started):
    def check(machine, symbols):
        names, kernel = Names(machine.kernel), machine.kernel
        before = kernel.frames.used, kernel.page_faults
        far = symbols["array2"][0] + 0x10000
        assert names.code(machine.task.process.pid, far) == b""
        assert names.symbol(machine.task.process.pid, far) == "array2+0x10000"
        assert (kernel.frames.used, kernel.page_faults) == before

    when_started(started, check)


class Core(SimpleNamespace):
    """A core that speculates when the test says so."""

    def __init__(self):
        super().__init__(
            spec=SimpleNamespace(name="skylake"), flaws=frozenset({"v1"}), mitigations=frozenset(), cycles=777,
            instructions=333, on_window=None,
        )  # fmt: skip


def windows_of(symbols, machine) -> Window:
    """The window of ``victim``, at the addresses it really has, as the core records it."""
    start = symbols["victim"][0]
    code = Names(machine.kernel).code(machine.task.process.pid, start, 64)
    from capstone import CS_ARCH_X86, CS_MODE_64, Cs

    listed = list(Cs(CS_ARCH_X86, CS_MODE_64).disasm(code, start))
    branch = next(index for index, one in enumerate(listed) if one.mnemonic.startswith("j"))
    after = listed[branch + 1 : branch + 9]
    window = Window(
        1, "v1", listed[branch].address, after[0].address, int(listed[branch].op_str, 16), machine.task.process.pid, 3,
        100, 320, "resolved", waited_for=(0, listed[branch - 1].address),
    )  # fmt: skip
    window.steps = [Step(one.address, bytes(one.bytes), 101 + 5 * at, 105 + 5 * at) for at, one in enumerate(after)]
    last = [one for one in after if accesses(bytes(one.bytes)).loads][-1]
    window.fills = [Fill(0x8000, symbols["array2"][0] + 512, last.address, 4, 120, 330, ("v1",))]
    return window


def traced_run(started, **options):
    machine, _ = started
    machine.speculation = core = Core()
    said = []
    settings = Namespace(**{"trace": None, "trace_file": None, **options})

    def check(machine, symbols):
        window = windows_of(symbols, machine)
        core.on_window(window)
        return window

    with machine_trace(machine, settings, "/victim", ["victim"], said.append):
        window = when_started(started, check)
        assert core.on_window is not None
    assert core.on_window is None
    return window, "".join(said)


def test_lines_go_to_standard_error(started):
    _, said = traced_run(started, trace="spec")
    assert all(line.startswith("spec: ") for line in said.splitlines())
    assert "spec: window 1: v1 at victim+0x" in said
    assert "cycle 100 for 220, ring 3" in said
    assert "spec:   waited for victim" in said
    assert "array1_size]" in said
    assert "fill array2+0x200 (line 0x8000) from memory at +20 by victim+0x" in said


def test_a_file_takes_the_place_of_the_lines_and_explain_reads_it(started, tmp_path, capsys):
    path = tmp_path / "t.jsonl"
    window, said = traced_run(started, trace_file=str(path))
    assert said == ""
    with TraceReader(str(path)) as reader:
        header, (traced,) = reader.header, list(reader)
    assert (header.cpu, header.seed, header.program, header.flaws) == ("skylake", 3, "/victim", ("v1",))
    assert traced.window.fills == window.fills
    assert traced.window == with_waits(window)
    assert traced.window.steps[-1].waits_for
    assert main(["explain", str(path), "--width", "120"]) == 0
    out = capsys.readouterr().out
    assert "waited 220 cycles for `cmp " in out
    assert "[array1_size]" in out
    words = " ".join(out.split())
    assert (
        "fetched the line of array2+0x200 from memory; which line that is depends on what `movzx eax, byte [rax"
        in words
    )


def test_a_full_disk_ends_the_trace_and_not_the_run(started, monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mmuemu.tracing._open", lambda path: Full())
    machine, _ = started
    machine.speculation = core = Core()
    said = []
    with machine_trace(machine, Namespace(trace=None, trace_file="x"), "p", [], said.append):
        assert core.on_window is None
        assert machine.kernel is not None
    assert said == ["mmuemu: --trace-file: No space left on device; the trace ends here, the program goes on\n"]


@pytest.mark.parametrize(
    ("code", "reads", "writes", "loads"),
    [
        ("4801d8", {"rax", "rbx"}, {"rax", "rflags"}, False),  # add rax, rbx
        ("0fb60439", {"rcx", "rdi"}, {"rax"}, True),  # movzx eax, byte [rcx+rdi]
        ("8d0439", {"rcx", "rdi"}, {"rax"}, False),  # lea eax, [rcx+rdi]
        ("31c0", set(), {"rax", "rflags"}, False),  # xor eax, eax
        ("31d8", {"rax", "rbx"}, {"rax", "rflags"}, False),  # xor eax, ebx
        ("880f", {"rcx", "rdi"}, set(), False),  # mov [rdi], cl
        ("7310", {"rflags"}, set(), False),  # jae
        ("44886c2401", {"r13", "rsp"}, set(), False),  # mov [rsp+1], r13b
        ("06", set(), set(), False),  # nothing in 64-bit mode
    ],
)
def test_what_an_instruction_reads_and_writes(code, reads, writes, loads):
    found = accesses(bytes.fromhex(code))
    assert found.reads - {"rip"} == reads
    assert found.writes - {"rip"} == writes
    assert found.loads is loads


def test_an_address_is_made_of_other_registers_than_the_data():
    assert accesses(bytes.fromhex("221401")).address == {"rcx", "rax"}  # and dl, [rcx+rax]


def test_waits_are_worked_out_where_the_record_has_none():
    traced = windows.spectre_v1()
    said = [step.waits_for for step in traced.window.steps]
    for step in traced.window.steps:
        step.waits_for = ()
    assert [step.waits_for for step in with_waits(traced.window).steps] == said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--trace", "walks", "/bin/true"], "--trace walks: walks? choose from faults, tlb, sched, signals, spec"),
        (["--trace", "spec", "/bin/true"], "give --cpu"),
        (["--trace-file", "/nowhere/t", "/bin/true"], "--trace"),
    ],
)
def test_wrong_options_are_one_line(options, said, capfd):
    assert main(["run", *options]) == 125
    error = capfd.readouterr().err
    assert error.startswith("mmuemu: --trace")
    assert said in error
    assert error.count("\n") == 1


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "t.jsonl"
    with open(path, "w") as file:
        writer = TraceWriter(file, windows.HEADER)
        for make in (windows.empty, windows.spectre_v1, windows.meltdown):
            writer.window(make())
        writer.end(9000, 1234)
    return str(path)


def test_explain_chooses_lists_and_draws(saved, tmp_path, capsys):
    assert main(["explain", saved]) == 0
    out = capsys.readouterr().out
    assert out.startswith("/tmp/spectre: cpu skylake, mitigations lfence, seed 7\nWindow 12: v1")
    assert main(["explain", "--window", "3", "--svg", str(tmp_path / "o.svg"), saved]) == 0
    assert "Window 3: meltdown" in capsys.readouterr().out
    assert (tmp_path / "o.svg").read_text().startswith("<svg")
    assert main(["explain", "--list", saved]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["/tmp/spectre", "window 1", "window 12", "window 3"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--window", "77"], "--window 77: the trace has 3 windows and none with that number (see --list)"),
        (["--svg", "/nowhere/x.svg"], "--svg /nowhere/x.svg: No such file or directory"),
    ],
)
def test_explain_says_what_is_wrong_in_one_line(options, said, saved, capsys):
    assert main(["explain", *options, saved]) == 125
    assert capsys.readouterr().err == f"mmuemu: {said}\n"


def test_a_trace_without_windows_says_so(tmp_path, capsys):
    path = tmp_path / "t"
    with open(path, "w") as file:
        TraceWriter(file, windows.HEADER).end(0, 0)
    assert main(["explain", str(path)]) == 125
    assert capsys.readouterr().err == "mmuemu: the trace holds no window: nothing ran transiently\n"


ATTACKS = Path(mmuemu.__file__).parent / "guest" / "attacks"


def attack(name, *options):
    """Run an attack on two bytes; what it says of itself, by the first word of each line."""
    command = command_line("--cpu", "skylake", "--mitigations", "off", "--seed", "7", *options)
    done = subprocess.run(
        [*command, ATTACKS / f"{name}.elf", "2"], capture_output=True, text=True, timeout=50, check=True
    )
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line), done


@pytest.mark.parametrize(("name", "flaw"), [("v1", "v1"), ("v4", "v4"), ("l1tf", "l1tf")])
def test_the_lines_of_real_windows_tell_the_secret(name, flaw, tmp_path):
    path = tmp_path / "t.jsonl"
    said, traced = attack(name, "--trace-file", path)
    assert traced.stdout == attack(name)[1].stdout, "tracing changed the run"
    with TraceReader(str(path)) as reader:
        assert reader.header.cpu == "skylake"
        found = [one for one in reader if one.window.flaw == flaw]
    told = set()
    for one in found:
        rows = rows_of(one)
        for index, row in enumerate(rows):
            if row.fills and path_of(rows, index):
                told |= {mark.label for mark in row.fills if mark.label.startswith("probe")}
                assert all(mark.causes.split(" > ")[0] == flaw for mark in row.fills)
    page = 4096
    lines = {int(label.partition("+")[2] or "0", 16) // page for label in told}
    assert set(bytes.fromhex(said["secret"])) <= lines
