"""``--trace faults,tlb,sched,signals``: against the machine's own counters, the guest's own knowledge, and itself."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter

import pytest

from mmuemu.cli import main
from mmuemu.machine import Machine
from mmuemu.view.machine_trace import KINDS, MachineTracer, text_of
from mmuemu.view.transient_file import EVENT_TYPES, BadTrace, TraceReader
from tests.run.harness import command_line

SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
static char stay[3 << 20];
static volatile int caught;
static void on_usr(int n) { caught++; }
static void on_segv(int n, siginfo_t *i, void *c) {
    mprotect((void *)((unsigned long)i->si_addr & ~4095UL), 4096, PROT_READ | PROT_WRITE);
}
__attribute__((noinline)) static void deep(int n) { volatile char a[4096]; a[0] = n; if (n) deep(n - 1); a[1] = a[0]; }
int main(int argc, char **argv) {
    volatile char *p = mmap(0, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    volatile char *s = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int fd = open(argv[0], O_RDONLY);
    volatile char *f = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    struct sigaction a = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &a, 0);
    signal(SIGUSR1, on_usr);
    printf("%p %p %p\n", (void *)p, (void *)s, (void *)f);
    fflush(stdout);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    volatile char *h = mmap((void *)0x7e0000000000, 4 << 20, PROT_READ | PROT_WRITE, flags, -1, 0);
    (void)h[0];        // huge-zero-page
    h[4096] = 1;       // huge-copy-on-write
    h[8192] = 1;
    h[2 << 20] = 1;    // huge-demand-zero
    p[0] = 1;          // demand-zero
    (void)p[4096];     // zero-page
    p[4096] = 1;       // copy-on-write of the zero page
    s[0] = 1;          // file (of shared memory)
    (void)f[0];        // file
    f[4096] = 1;       // file-copy
    deep(100);         // stack-growth
    mprotect((void *)p, 4096, PROT_READ);
    p[5] = 2;          // refused, repaired by the handler
    if (!fork()) { p[0] = 3; _exit(9); }   // copy-on-write
    wait(0);
    kill(getpid(), SIGUSR1);
    kill(getpid(), SIGWINCH);
    return caught;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    folder = tmp_path_factory.mktemp("faults")
    (folder / "faults.c").write_text(SOURCE)
    subprocess.run(
        ["gcc", "-O0", "-w", "-static", "-o", folder / "faults", folder / "faults.c"], check=True, timeout=60
    )
    return str(folder / "faults")


def traced(program, kinds=KINDS, **options):
    """The records of a run, the machine's counts of what they tell of, and what the program wrote."""
    records = []
    with Machine(seed=options.pop("seed", 5), memory="64M", **options) as machine:
        process = machine.spawn(program, [program])
        kernel = machine.kernel
        engine = kernel.cpu.engine

        def counts():
            return Counter(
                faults=kernel.page_faults,
                fills=engine.fills,
                flushes=engine.flushes,
                switches=kernel.scheduler.switches,
            )

        before = counts()
        MachineTracer(kernel, kinds, records.append)
        assert machine.run(timeout=50).exit_code == 1
        return records, counts() - before, process.stdout.decode()


@pytest.mark.parametrize("mmu", ["python", "native"])
def test_there_is_a_record_of_everything_that_is_counted(program, mmu):
    records, counts, _ = traced(program, mmu=mmu)
    found = Counter((one["type"], one.get("what")) for one in records)
    resolved = [one for one in records if one["type"] == "fault" and one["kind"] not in ("refused", "stale")]
    assert len(resolved) == counts["faults"]
    assert found["tlb", "flush"] == counts["flushes"]
    assert found["sched", "switch"] == counts["switches"]
    if mmu == "python":
        assert found["tlb", "fill"] == counts["fills"]
    assert {one["type"] for one in records} == set(EVENT_TYPES)
    json.dumps(records)


@pytest.mark.parametrize("mmu", ["python", "native"])
def test_faults_say_what_the_kernel_did(program, mmu):
    records, _, out = traced(program, ["faults"], mmu=mmu)
    p, s, f = (int(word, 16) for word in out.split())
    parent = records[0]["pid"]
    seen: dict[int, list[tuple[str, str]]] = {}
    for one in records:
        page = int(one["address"], 16) & ~0xFFF
        if one["pid"] == parent:
            seen.setdefault(page, []).append((one["kind"], one["access"]))
        area = one["area"]
        assert area is None or int(area["start"], 16) <= int(one["address"], 16) < int(area["end"], 16)
    assert seen[p][:2] == [("demand-zero", "write"), ("refused", "write")]
    assert seen[p + 4096] == [("zero-page", "read"), ("copy-on-write", "write")]
    huge = {page - 0x7E00_0000_0000: found for page, found in seen.items() if 0 <= page - 0x7E00_0000_0000 < 4 << 20}
    assert huge == {
        0: [("huge-zero-page", "read")],
        0x1000: [("huge-copy-on-write", "write")],
        2 << 20: [("huge-demand-zero", "write")],
    }
    assert seen[s] == [("file", "write")]
    assert seen[f] == [("file", "read")]
    assert seen[f + 4096] == [("file-copy", "write")]
    child = [one for one in records if one["pid"] != parent and int(one["address"], 16) & ~0xFFF == p]
    assert [(one["kind"], one["access"], one["by"]) for one in child] == [("copy-on-write", "write", "user")]
    grown = [one for one in records if one["kind"] == "stack-growth"]
    assert len(grown) > 50
    assert all(one["area"]["name"] == "[stack]" for one in grown)
    (refused,) = (one for one in records if one["kind"] == "refused")
    assert (int(refused["address"], 16), refused["signal"], refused["si_code"]) == (p + 5, "SIGSEGV", "SEGV_ACCERR")
    assert refused["code"] == 7
    assert refused["area"]["permissions"] == "r--p"


def test_signals_go_their_way(program):
    records, _, _ = traced(program, ["signals"])
    steps = [(one["what"], one.get("signal")) for one in records]
    usr = [(what, signal) for what, signal in steps if signal in ("SIGUSR1", None)]
    assert usr[-4:] == [("sent", "SIGUSR1"), ("delivered", "SIGUSR1"), ("handler", "SIGUSR1"), ("return", None)]
    assert steps[:4] == [("sent", "SIGSEGV"), ("delivered", "SIGSEGV"), ("handler", "SIGSEGV"), ("return", None)]
    assert ("ignored", "SIGCHLD") in steps
    assert steps[-1] == ("ignored", "SIGWINCH")
    handlers = {one["handler"] for one in records if one["what"] == "handler"}
    assert len(handlers) == 2


def test_switches_follow_one_another(program):
    records, _, _ = traced(program, ["sched"])
    running = 0
    for one in records:
        if one["what"] == "switch":
            assert one["from"] in (0, running)
            running = one["tid"]
        else:
            assert one["tid"] == running
    (fork,) = (one for one in records if one["what"] == "fork")
    ends = [(one["pid"], one["status"]) for one in records if one["what"] == "exit"]
    assert ends == [(fork["child"], 9), (fork["pid"], 1)]
    assert [one["call"] for one in records if one.get("why") == "sleep"] in (["wait4"], [])


def test_a_trace_changes_nothing_and_repeats(program, tmp_path):
    def run(name, *options):
        command = command_line("--seed", "4", "--strace-file", str(tmp_path / name), *options, program)
        return subprocess.run(command, capture_output=True, text=True, timeout=50)

    plain, shown = run("plain"), run("shown", "--trace", "faults,tlb,sched,signals")
    written = run("written", "--trace", "faults,tlb,sched,signals", "--trace-file", str(tmp_path / "t.jsonl"))
    assert (plain.stdout, plain.returncode) == (shown.stdout, shown.returncode) == (written.stdout, written.returncode)
    calls = (tmp_path / "plain").read_text()
    assert calls == (tmp_path / "shown").read_text() == (tmp_path / "written").read_text()
    with TraceReader(str(tmp_path / "t.jsonl")) as reader:
        assert (reader.header.seed, reader.header.program) == (4, program)
        records = list(reader.records())
    assert [text_of(one) for one in records] == shown.stderr.splitlines()
    assert written.stderr == plain.stderr == ""


def test_windows_and_events_in_one_file(tmp_path, capsys):
    from tests.view.test_trace_option import attack

    alone, mixed = tmp_path / "alone", tmp_path / "mixed"
    attack("v1", "--trace-file", alone)
    attack("v1", "--trace", "spec,faults", "--trace-file", mixed)
    with TraceReader(str(alone)) as one, TraceReader(str(mixed)) as other:
        wanted = list(one)
        assert [traced.window for traced in other] == [traced.window for traced in wanted]
    with TraceReader(str(mixed)) as other:
        assert {record["type"] for record in other.records()} == {"fault", "window"}
    assert main(["explain", "--list", str(mixed)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(wanted) + 1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda lines: lines[:-1], "is cut off after 0 windows: the end line is missing"),
        (lambda lines: lines[:1] + lines[2:], "the end line speaks of "),
        (lambda lines: [*lines[:2], '{"type":"walk"}', *lines[2:]], 'expected a line of "type"'),
        (lambda lines: [lines[0].replace('"version":1', '"version":2'), *lines[1:]], "is a trace of version 2"),
    ],
)
def test_a_damaged_file_is_refused(program, tmp_path, spoil, said):
    path = tmp_path / "t.jsonl"
    command = command_line("--seed", "4", "--trace", "signals", "--trace-file", str(path), program)
    subprocess.run(command, capture_output=True, timeout=50)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(spoil(lines)) + "\n")
    with pytest.raises(BadTrace, match=said), TraceReader(str(path)) as reader:
        list(reader.records())


def test_a_full_disk_ends_the_trace_and_not_the_run():
    command = command_line("--trace", "faults,tlb", "--trace-file", "/dev/full", "busybox", "echo", "on")
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (0, "on\n")
    assert done.stderr == "mmuemu: --trace-file: No space left on device; the trace ends here, the program goes on\n"


def test_a_file_of_events_has_no_windows_to_explain(program, tmp_path, capsys):
    path = tmp_path / "t.jsonl"
    command = command_line("--trace", "signals", "--trace-file", str(path), program)
    subprocess.run(command, capture_output=True, timeout=50)
    assert main(["explain", str(path)]) == 125
    assert capsys.readouterr().err == "mmuemu: the trace holds no window: nothing ran transiently\n"
