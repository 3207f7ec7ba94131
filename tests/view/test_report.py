"""``--report`` and ``--svg``: what is recorded against other accounts of the same run, bad paths, and the page."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from argparse import Namespace
from array import array
from collections import Counter
from dataclasses import fields
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mmuemu.cli import main
from mmuemu.kernel.events import Events
from mmuemu.machine import Machine, Outcome
from mmuemu.reporter import Reporter
from mmuemu.view.report.events import FAULT, FLUSH, KINDS, LIFE, LONGEST_TEXT, SIGNAL, SWITCH, SYSCALL, WINDOW, EventLog
from mmuemu.view.report.recording import Recording
from tests.view import chromium

PROGRAM = r"""
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
static char big[1 << 17];
static int value = 7;
static void handler(int number) { (void)number; }
static void *work(void *end) { char byte; return read(*(int *)end, &byte, 1) == 1 ? NULL : (void *)1; }
int main(void) {
    int ends[2];
    pthread_t thread;
    char *shared = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (pipe(ends)) return 1;
    signal(SIGUSR1, handler);
    pthread_create(&thread, NULL, work, ends);
    memset(big, 1, sizeof big / 2);
    sched_yield();
    if (write(ends[1], "x", 1) != 1) return 2;
    pthread_join(thread, NULL);
    if (!fork()) { shared[4096] = (char)value; _exit(3); }
    wait(NULL);
    raise(SIGUSR1);
    free(malloc(100000));
    mprotect(shared, 4096, PROT_NONE);
    return shared[0];
}
"""
READ = {"kind": "B", "time": "d", "span": "f", "track": "H", "text": "I"}


def data_of(page: Path) -> dict:
    """What a page shows."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def rows_of(data: dict) -> list[tuple[int, float, float, tuple[int, int], str]]:
    """(kind, time, span, (pid, tid), text) of each event."""
    events = data["events"]
    columns = [array(code, base64.b64decode(events[name])) for name, code in READ.items()]
    assert {len(column) for column in columns} == {events["count"]}
    return [
        (kind, time, span, tuple(events["tracks"][track]), events["texts"][text])
        for kind, time, span, track, text in zip(*columns, strict=True)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def run(folder):
    """A run with every account of it there is."""
    (folder / "program.c").write_text(PROGRAM)
    subprocess.run(["gcc", "-O1", "-o", folder / "program", folder / "program.c", "-lpthread"], check=True, timeout=60)
    files = {"report": "page.html", "svg": "map.svg", "json": "facts.json", "strace-file": "strace"}
    options = {name: str(folder / file) for name, file in files.items()}
    given = [text for name, path in options.items() for text in (f"--{name}", path)]
    code = main(["run", "--seed", "1", "--memory", "64M", *given, str(folder / "program")])
    assert code == 139
    return {name: Path(path) for name, path in options.items()}


@pytest.fixture(scope="module")
def data(run):
    return data_of(run["report"])


def count(data: dict, kind: int) -> int:
    return sum(row[0] == kind for row in rows_of(data))


# -- what is recorded -------------------------------------------------------------------------------------------------


def test_events_are_as_many_as_the_machine_counts(run, folder):
    with Machine(seed=1, memory="64M") as machine:
        machine.load(str(folder / "program"), ["program"], {})
        kernel, engine = machine.kernel, machine.kernel.cpu.engine
        before = kernel.page_faults, engine.flushes
        recording = Recording(kernel, None, EventLog())
        machine.run()
        recording.close()
        rows = rows_of({"events": recording.log.packed()})
        kinds = Counter(row[0] for row in rows)
        refused = sum(row[4].startswith("refused") for row in rows)
        growths = sum(row[4].startswith("growth") for row in rows)
        assert recording.log.lost == [0] * len(KINDS)
        assert kinds[SYSCALL] == kernel.statistics.syscalls > 50
        assert kinds[SWITCH] == kernel.scheduler.switches > 5
        assert kinds[FAULT] - refused == kernel.page_faults - before[0] > 100
        assert kinds[FLUSH] - growths == engine.flushes - before[1] > 5
        assert growths == engine.growths
        assert refused == 1


def test_nobody_is_on_the_cpu_while_all_sleep():
    with Machine(seed=1, memory="64M") as machine:
        machine.load("/bin/sleep", ["sleep", "2"], {})
        recording = Recording(machine.kernel, None, EventLog())
        machine.run()
        recording.close()
        packed = recording.log.packed()
    rows = rows_of({"events": packed})
    (slept,) = [row for row in rows if "nanosleep" in row[4]]
    assert slept[2] >= 2e9
    begin, end = (array("d", base64.b64decode(packed["bands"][name])) for name in ("begin", "end"))
    assert len(begin) == 2
    assert begin[0] == 0 < end[0] < begin[1] - 1.9e9 < begin[1] <= end[1]


def test_times_do_not_go_back(data):
    times = [row[1] for row in rows_of(data)]
    assert times == sorted(times)
    assert all(row[2] >= 0 for row in rows_of(data))


def test_the_page_says_where_it_ended(run, data):
    fault = json.loads(run["json"].read_text())["fault"]
    said = data["facts"]["fault"]
    assert {name: said[name] for name in ("rip", "address", "error_code", "access")} == {
        "rip": hex(fault["rip"]), "address": hex(fault["address"]), "error_code": hex(fault["error_code"]),
        "access": fault["access"],
    }  # fmt: skip


def test_calls_say_what_strace_says(run, data):
    """In each thread's own order; the words of a call that was broken off are put together."""
    written: dict[int, list[str]] = {}
    begun: dict[int, str] = {}
    for line in run["strace-file"].read_text().splitlines():
        number, text = line.split(None, 1)
        tid = int(number)
        if text.startswith(("---", "+++", "execve")):
            continue
        if text.endswith("<unfinished ...>"):
            begun[tid] = text.removesuffix(" <unfinished ...>")
            continue
        if text.startswith("<..."):
            text = begun.pop(tid) + text.partition(" resumed>")[2]
        written.setdefault(tid, []).append(re.sub(r"\) +=", ") =", text)[:LONGEST_TEXT])
    kept: dict[int, list[str]] = {}
    for kind, _, _, (_, tid), text in rows_of(data):
        if kind == SYSCALL:
            kept.setdefault(tid, []).append(text)
    assert kept == written
    assert len(kept) == 3
    assert any(text.startswith("read(3, ") and text.endswith(" = 1") for text in kept[1001])


def test_other_events(data):
    texts = {kind: [row[4] for row in rows_of(data) if row[0] == kind] for kind in (LIFE, SIGNAL, FAULT)}
    assert texts[LIFE] == ["starts thread 1001", "starts process 1002", "ends with 3", "ends by SIGSEGV"]
    assert any("SIGUSR1" in text and "runs its handler" in text for text in texts[SIGNAL])
    (refused,) = [text for text in texts[FAULT] if text.startswith("refused")]
    assert "SIGSEGV (SEGV_ACCERR)" in refused
    assert sum(text.startswith("copy-on-write") for text in texts[FAULT]) > 5


def test_the_map_covers_the_address_space_and_the_tables_map_nothing_else(data):
    assert [process["pid"] for process in data["processes"]] == [1000, 1002]
    for process in data["processes"]:
        regions = process["regions"]
        at = 0
        for region in regions:
            assert int(region["start"], 16) == at
            at = int(region["last"], 16) + 1
        assert at == 1 << 64
        assert {"text", "data", "bss", "heap", "stack", "shared", "library", "kernel"} <= {r["kind"] for r in regions}
        mapped = list(runs(process["tables"])) + list(runs(data["kernel"]))
        assert mapped
        used = [r for r in regions if r["kind"] != "gap"]
        for run in mapped:
            inside = [r for r in used if r["start"] <= run["last"] and run["start"] <= r["last"]]
            assert inside, run
            assert {r["kind"] == "kernel" for r in inside} == {"kernel" in run["rights"]}


def runs(table: dict):
    for part in table["parts"]:
        if "parts" in part:
            yield from runs(part)
        else:
            yield part


def test_transient_windows_and_hidden_state(folder, run):
    page = folder / "spec.html"
    given = ["--cpu", "skylake", "--seed", "1", "--memory", "64M", "--trace-file", str(folder / "trace")]
    assert main(["run", *given, "--report", str(page), "/bin/true"]) == 0
    data = data_of(page)
    shown = data["speculation"]
    traced = [json.loads(line) for line in (folder / "trace").read_text().splitlines()]
    windows = [line for line in traced if line.get("type") == "window"]
    assert sum(number for _, _, number in shown["windows"]) == count(data, WINDOW) == len(windows) > 5
    first = shown["caches"][0]
    assert first["lines"] == sum(map(len, first["members"])) <= first["sets"] * first["ways"] == 512
    for number, members in enumerate(first["members"]):
        assert all(int(address, 16) >> 6 & first["sets"] - 1 == number for address in members)
    assert len(shown["rsb"]["entries"]) == shown["rsb"]["size"] == 16
    assert len(shown["btb"]["entries"]) == shown["btb"]["used"] > 0
    assert sum(shown["pht"]) & sum(shown["pht"]) - 1 == 0


def test_a_trace_is_told_as_without_a_report(folder, run):
    traces = []
    for more in ([], ["--report", str(folder / "traced.html")]):
        path = folder / f"trace{len(more)}"
        given = ["--seed", "1", "--memory", "64M", "--trace", "faults,tlb,sched,signals", "--trace-file", str(path)]
        assert main(["run", *given, *more, str(folder / "program")]) == 139
        traces.append([json.loads(line) for line in path.read_text().splitlines()])
    assert [line for line in traces[0] if line.get("type") != "end"] == [
        line for line in traces[1] if line.get("type") != "end"
    ]
    flushes = [line["cause"] for line in traces[1] if line.get("what") == "flush"]
    rows = rows_of(data_of(folder / "traced.html"))
    assert [row[4] for row in rows if row[0] == FLUSH and not row[4].startswith("growth")] == flushes


def test_a_full_log_counts():
    log = EventLog(most=3, most_text=12)
    rows = [log.add(FAULT, at, 1, 1, text) for at, text in enumerate(["abc", "x" * 300, "abc", "defg", "h"])]
    assert rows == [0, 1, 2, -1, -1]
    assert log.full
    assert log.lost[FAULT] == 2
    packed = log.packed()
    assert packed["texts"] == ["", "abc"]
    assert array("I", base64.b64decode(packed["text"])).tolist() == [1, 0, 1]


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--report", "--svg"])
def test_a_path_that_cannot_be_written_is_refused_before_the_run(option, tmp_path, capfd):
    assert main(["run", option, str(tmp_path / "none" / "x"), "/bin/echo", "ran"]) == 125
    out, err = capfd.readouterr()
    assert out == ""
    assert err == f"mmuemu: {option} {tmp_path}/none/x: No such file or directory\n"


@pytest.mark.parametrize("option", ["--report", "--svg"])
def test_a_disk_that_takes_no_more_is_told(option, capfd):
    assert main(["run", option, "/dev/full", "/bin/true"]) == 125
    assert capfd.readouterr().err == f"mmuemu: {option} /dev/full: No space left on device\n"


def test_nothing_is_imported_without_the_options():
    code = (
        "import sys; from mmuemu.cli import main; main(['run', '/bin/true']); "
        "sys.exit(any(name.startswith('mmuemu.view.report') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def listeners(machine: Machine) -> dict[str, object]:
    """Who is told of what while a machine runs."""
    kernel, engine = machine.kernel, machine.kernel.cpu.engine
    found = {field.name: len(getattr(kernel.events, field.name)) for field in fields(kernel.events)}
    core = machine.speculation
    told = [engine._serving] if engine.name == "python" else []
    told += [task.mm.fault for task in kernel.tasks.values()]
    return {
        **found, "tracer": kernel.tracer, "watcher": engine.watcher, "snapshots": machine.snapshots,
        "window": core and core.on_window, "watched": sum(".watch." in call.__qualname__ for call in told),
        "hooks": len(kernel.cpu.hooks._kept),
    }  # fmt: skip


OPTIONS_OF = {
    "--report": "page.html", "--svg": "map.svg", "--strace": None, "--trace": "faults,tlb,sched,signals",
}  # fmt: skip


@pytest.mark.parametrize("more", [[], ["--mmu", "native"], ["--cpu", "skylake"]], ids=["python", "native", "cpu"])
def test_without_the_options_nobody_listens(more, tmp_path, monkeypatch, capfd):
    """While a program runs, that is: no test of time would tell, so the lists are looked at."""
    seen = []

    def run(machine: Machine, **_limits: object) -> Outcome:
        seen.append(listeners(machine))
        return Outcome(0)

    monkeypatch.setattr(Machine, "run", run)
    assert main(["run", "--seed", "1", "--memory", "64M", *more, "/bin/true"]) == 0
    (off,) = seen
    assert not any(off[field.name] for field in fields(Events))
    assert not any(off[name] for name in ("tracer", "watcher", "snapshots", "window", "watched"))
    for option, value in OPTIONS_OF.items():
        given = [option] if value is None else [option, str(tmp_path / value) if "." in value else value]
        assert main(["run", "--seed", "1", "--memory", "64M", *more, *given, "/bin/true"]) == 0
        assert {**seen[-1], "hooks": 0} != {**off, "hooks": 0}, option
        assert seen[-1]["hooks"] == off["hooks"], "nothing of these needs a hook of the engine's own"


def test_names_that_a_guest_chose_stay_data(tmp_path):
    name = "<img src=x onerror=alert(1)>&\x1b[31m\udcff"
    page, svg = tmp_path / "page.html", tmp_path / "map.svg"
    with Machine(seed=1, memory="64M") as machine:
        report = Reporter(Namespace(report=str(page), svg=str(svg)))
        machine.load(Path("/bin/true").read_bytes(), [name], {})
        report.begin(machine)
        machine.run()
        report.write(
            machine, Outcome(0), ["</script><script>"], lambda: {"program": name, "seed": 1, "layout": "linux"}
        )
        report.close()
    text = page.read_text()
    assert "<img" not in text
    assert text.count("<script") == 2
    assert data_of(page)["facts"]["arguments"] == ["</script><script>"]
    assert "<img" in "".join(ElementTree.parse(svg).getroot().itertext())


def test_the_figure_has_a_box_for_each_region(run, data):
    root = ElementTree.parse(run["svg"]).getroot()
    space = "{http://www.w3.org/2000/svg}"
    boxes = [box.get("class") for box in root.iter(f"{space}rect")][1:]
    expected = []
    for region in reversed(data["processes"][0]["regions"]):
        if region["kind"] != "gap" and not (
            region["kind"] in ("library", "linker") and expected[-1:] == [region["kind"]]
        ):
            expected.append(region["kind"])
    assert boxes == expected
    labels = [text.text for text in root.iter(f"{space}text") if text.get("class") == "label"]
    assert {"heap ↑", "stack ↓", "program text", "program BSS", "libc.so.6"} <= set(labels)


# -- the page in a browser --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(folder):
    if chromium.PROGRAM is None:
        pytest.skip("there is no Chromium")
    browser = chromium.Browser(folder / "profile")
    yield browser
    browser.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (390, False)])
def test_the_page_draws_itself(browser, run, width, dark):
    browser.requests.clear()
    browser.size(width, 844, dark=dark)
    browser.open(run["report"])
    assert browser.errors == []
    assert browser.requests == [run["report"].as_uri()]
    assert browser.ask("document.documentElement.scrollWidth") == width
    assert browser.ask("document.querySelectorAll('#regions .region').length") > 30
    painted = "new Set(document.getElementById('canvas').getContext('2d').getImageData(0, 0, 390, 200).data).size > 20"
    for _ in range(20):
        browser.ask("new Promise(requestAnimationFrame)")
        if browser.ask(painted):
            break
    else:
        pytest.fail("not painted in 20 frames")
    ground = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 23, 28)" if dark else "rgb(255, 255, 255)")


@pytest.mark.timeout(180)
def test_the_keyboard_moves(browser, run, data):
    browser.size(1200, 844)
    browser.open(run["report"])
    reached = []
    for _ in range(30):
        browser.press("Tab")
        reached.append(browser.ask("document.activeElement.id"))
    wanted = ["process", "order", "regions", "whole", "kernel", "axis", "query", "lanes", "list"]
    assert [name for name in dict.fromkeys(reached) if name in wanted] == wanted
    chosen = "document.querySelector('#regions [aria-selected=true]').id"
    regions = data["processes"][0]["regions"]
    browser.ask("document.getElementById('regions').focus()")
    browser.press("End")
    assert browser.ask(chosen) == "region-0"
    browser.press("ArrowUp", 3)
    assert browser.ask(chosen) == "region-3"
    assert regions[3]["start"] in browser.ask("document.getElementById('region').textContent")
    browser.press("Enter")
    assert browser.ask("document.activeElement.tagName") == "SUMMARY"
    said = "document.getElementById('event').textContent"
    browser.ask("document.getElementById('lanes').focus()")
    browser.press("ArrowRight", 3)
    assert browser.ask(said).startswith("Event 3 ")
    browser.ask("document.getElementById('list').focus()")
    browser.press("End")
    assert browser.ask(said).startswith(f"Event {data['events']['count']:,} ")
    browser.press("PageUp")
    assert 'aria-selected="true"' in browser.ask("document.getElementById('rows').innerHTML")
    browser.ask("const q = document.getElementById('query'); q.value = 'refused'; q.dispatchEvent(new Event('input'))")
    browser.press("Home")
    assert "SEGV_ACCERR" in browser.ask(said)
    browser.press("Enter")
    assert "shared" in browser.ask("document.getElementById('region').textContent")
    assert browser.errors == []


@pytest.mark.timeout(180)
def test_a_hundred_thousand_events(browser, folder):
    page = folder / "many.html"
    with Machine(seed=1, memory="64M") as machine:
        report = Reporter(Namespace(report=str(page), svg=None))
        machine.load("/bin/true", ["true"], {})
        report.begin(machine)
        machine.run()
        report.end()
        log = report._recording.log
        at = 0
        while not log.full:
            at += 1
            path = f"/usr/lib/x86_64-linux-gnu/file{at}"
            if at % 3:
                address = hex(0x7FED_0000_0000 + at * 4096)
                log.add(
                    FAULT, 10**6 + at * 900, 1000, 1000 + at % 4, f"file read {address} ({path} rw-p) error code 0x4"
                )
            else:
                row = log.add(SYSCALL, 10**6 + at * 900, 1000, 1000 + at % 4, "")
                log.finish(row, 10**6 + at * 901, f'openat(AT_FDCWD, "{path}", O_RDONLY|O_CLOEXEC) = 3')
        report.write(machine, Outcome(0), ["true"], lambda: {"program": "true", "seed": 1, "layout": "linux"})
        report.close()
    assert len(log) == 100_000
    assert page.stat().st_size < 15 << 20
    browser.size(1200, 844)
    # The second time: the first one is the browser's own start. The limit is that of a busy machine.
    browser.open(page)
    assert browser.open(page) < 4
    assert browser.ask("document.querySelectorAll('#rows .row').length") < 60
    browser.ask("document.getElementById('list').focus()")
    browser.press("End")
    assert browser.ask("document.getElementById('event').textContent").startswith("Event 100,000 ")
    assert browser.errors == []
