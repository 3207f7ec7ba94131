"""The files of ``--trace-file``: what is written is read back, and nothing else is."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmuemu.view.transient_file import FORMAT, VERSION, BadTrace, TraceReader, TraceWriter
from tests.view import strategies, windows

RELAXED = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


def write(path, header=windows.HEADER, traced=(), end=True):
    with open(path, "w", encoding="utf-8") as file:
        writer = TraceWriter(file, header)
        for one in traced:
            writer.window(one)
        if end:
            writer.end(1000, 400)
    return str(path)


def read(path):
    with TraceReader(str(path)) as reader:
        return reader.header, list(reader)


@RELAXED
@given(header=strategies.HEADERS, traced=st.lists(strategies.TRACED, max_size=3))
def test_what_is_written_is_read_back(tmp_path, header, traced):
    assert read(write(tmp_path / "t", header, traced)) == (header, traced)


def test_a_line_is_what_the_reference_says(tmp_path):
    path = tmp_path / "t"
    write(path, traced=[windows.spectre_v1()])
    head, window, end = [json.loads(line) for line in path.read_text().splitlines()]
    assert head["type"] == "header"
    assert (head["format"], head["version"], head["cpu"], head["seed"]) == (FORMAT, VERSION, "skylake", 7)
    assert (window["type"], window["flaw"], window["opener"]) == ("window", "v1", "0x401147")
    assert window["steps"][3] == {
        "address": "0x401155", "code": "8a8080514000", "start": 5216, "done": None, "waits_for": ["0x401153"],
        "note": "load memory", "linear": "0x458180", "level": 4, "instruction": "mov al, byte ptr [rax + 0x405180]",
    }  # fmt: skip
    assert window["fills"][0]["causes"] == ["v1"]
    assert window["symbols"]["0x404040"] == "array1_size"
    assert end == {"type": "end", "windows": 1, "cycles": 1000, "instructions": 400}


def test_fields_of_a_later_writer_are_passed_over(tmp_path):
    path = tmp_path / "t"
    write(path, traced=[windows.meltdown()])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["colour"] = "green"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert read(path)[1] == [windows.meltdown()]


HEAD = {
    "type": "header", "format": FORMAT, "version": VERSION, "mmuemu": "0", "cpu": "x", "mitigations": [], "flaws": [],
    "seed": None, "program": "p", "arguments": [],
}  # fmt: skip
END = {"type": "end", "windows": 0, "cycles": 0, "instructions": 0}


def text(*values):
    return "".join(json.dumps(value) + "\n" for value in values)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is not a trace"),
        ("\x7fELF\n", "is not a trace"),
        ("[" * 100_000, "is not a trace"),
        (text({"type": "header"}), "is not a trace"),
        (text([1]), "is not a trace"),
        (text(HEAD | {"version": 2}, END), "version 2; this mmuemu reads version 1"),
        (text(HEAD | {"version": "1" * 99}, END), "this mmuemu reads version 1"),
        (text(HEAD | {"seed": 1.5}, END), "line 1: seed: expected a whole number"),
        (text({name: value for name, value in HEAD.items() if name != "cpu"}, END), "line 1: expected a field 'cpu'"),
        (text(HEAD), "is cut off after 0 windows"),
        (text(HEAD) + '{"type":"win', "is cut off in line 2"),
        (text(HEAD) + "nonsense\n", "line 2: not a JSON object"),
        (text(HEAD, 5, END), "line 2: not a JSON object"),
        (text(HEAD, {"type": "what"}), 'line 2: expected a line of "type"'),
        (text(HEAD, END | {"windows": 4}), "line 2: the end line speaks of 4 windows, there are 0"),
        (text(HEAD, END, END), "line 3: something follows the end line"),
        (text(HEAD, {"type": "window"}, END), "line 2: not a window: expected a field 'number'"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, said):
    path = tmp_path / "t"
    path.write_text(content)
    with pytest.raises(BadTrace) as refused:
        read(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert said in message
    assert "\n" not in message
    assert len(message) < 200 + len(str(path))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "t"
    path.write_bytes(b"\xff\xfe\x00" * 100)
    with pytest.raises(BadTrace, match="is not a trace"):
        read(path)
    path.write_bytes(text(HEAD).encode() + b"\xff\xfe\n")
    with pytest.raises(BadTrace, match="line 2: not a JSON object"):
        read(path)


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("opener",), 5, "opener: expected an address"),
        (("opener",), "0x1_0", "opener: expected an address"),
        (("opener",), "0x" + "f" * 17, "opener: expected an address"),
        (("closes",), 1 << 60, "closes: expected a cycle"),
        (("closes",), True, "closes: expected a cycle"),
        (("closes",), -1, "closes: expected a cycle"),
        (("steps",), {}, "steps: expected a list"),
        (("steps", 0), [], "steps: expected an object"),
        (("steps", 0, "code"), "0g", "steps.code: expected bytes in hexadecimal"),
        (("fills", 0, "causes"), [1], "fills.causes: expected a string"),
        (("nested",), [["0x1"]], "nested: expected a list of two"),
        (("symbols",), {"x": "y"}, "symbols: expected an address"),
    ],
)
def test_a_damaged_window_is_refused(tmp_path, where, value, said):
    path = tmp_path / "t"
    write(path, traced=[windows.spectre_v1()])
    head, window, end = [json.loads(line) for line in path.read_text().splitlines()]
    target = window
    for key in where[:-1]:
        target = target[key]
    target[where[-1]] = value
    path.write_text(text(head, window, end))
    with pytest.raises(BadTrace, match="line 2: not a window: ") as refused:
        read(path)
    assert said in str(refused.value)


@RELAXED
@given(data=st.data())
def test_a_trace_cut_anywhere_is_refused(tmp_path, data):
    path = tmp_path / "t"
    write(path, traced=[windows.spectre_v1(), windows.meltdown()])
    whole = path.read_text()
    path.write_text(whole[: data.draw(st.integers(0, len(whole) - 2))])
    with pytest.raises(BadTrace):
        read(path)
