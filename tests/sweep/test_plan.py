"""The file that describes a matrix: what it means, and what it may not say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmuemu.errors import UsageError
from mmuemu.sweep.plan import parse, read_plan
from mmuemu.sweep.store import Store, difference
from tests.sweep.submissions import matrix


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.s", "b.s", "sub/c.s"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("nop\n")
    (tmp_path / "input").write_bytes(b"\0\xff")
    (tmp_path / "narrow.json").write_text('{"mmap": {"bits": 3}}')
    return tmp_path


def plan(folder: Path, **given: object):
    return parse(json.dumps({"programs": [{"path": "a.s"}], **given}), "m.json", str(folder))


def test_the_cells_are_the_product_of_the_axes(folder):
    programs = [{"path": "**/*.s", "args": ["1", ""]}, {"path": "a.s", "stdin_file": "input"}]
    found = plan(
        folder, programs=programs, seeds={"first": 5, "count": 3}, layouts=["linux", "narrow.json"],
        engines=["python", "native"], cpus=["none", "skylake"], mitigations=["off", "auto"],
    )  # fmt: skip
    cells = found.cells
    assert len(cells) == 4 * 3 * 2 * 2 * 2 * 2 == len({cell.key for cell in cells})
    assert [cell.seed for cell in cells[:4]] == [5, 6, 7, 5]
    assert {cell.program.name for cell in cells} == {"a.s", "b.s", "sub/c.s"}
    assert {cell.program.stdin for cell in cells} == {b"", b"\0\xff"}
    assert {cell.layout.mmap.bits for cell in cells if cell.layout.name == "narrow"} == {3}
    assert found.files == {"narrow": str(folder / "narrow.json")}
    # A CPU model needs the python engine; without one there is nothing to mitigate.
    able = {(cell.engine, cell.cpu and cell.cpu.name, cell.mitigations) for cell in cells if not cell.impossible}
    assert able == {("python", None, "off"), ("native", None, "off"), ("python", "skylake", "off"),
                    ("python", "skylake", "auto")}  # fmt: skip
    assert {cell.impossible for cell in cells if cell.engine == "native" and cell.cpu} == {
        "--cpu needs --mmu python: speculation follows every translation, and native shows none"
    }


def test_a_key_stands_for_all_that_decides_the_outcome(folder):
    def keys(**given: object) -> set[str]:
        return {cell.key for cell in plan(folder, **given).cells}

    first = keys()
    others = [
        keys(seeds=[2]), keys(engines=["native"]), keys(layouts=["narrow.json"]), keys(cpus=["skylake"]),
        keys(limits={"memory": "32M"}), keys(aslr=False), keys(programs=[{"path": "a.s", "args": ["1"]}]),
        keys(programs=[{"path": "a.s", "stdin": "1"}]), keys(programs=[{"path": "a.s", "env": {"A": "1"}}]),
        keys(programs=[{"path": "a.s", "expect": {"exit": 1}}]),
    ]  # fmt: skip
    narrow = others[2]
    (folder / "narrow.json").write_text('{"mmap": {"bits": 4}}')
    others.append(keys(layouts=["narrow.json"]))
    assert narrow != others[-1]
    (folder / "a.s").write_text("nop\nnop\n")
    others.append(keys())
    assert len(set().union(first, *others)) == 1 + len(others)
    (folder / "a.s").write_text("nop\n")
    assert keys(jobs=3) == first


WRONG = {
    "[]": "write an object",
    "{": "no JSON",
    "{}": "programs is missing",
    '{"programs": [], "programs": []}': '"programs" is there twice',
    '{"program": []}': "did you mean programs?",
    '{"programs": []}': "name at least one",
    '{"programs": [1]}': "programs[0] is 1",
    '{"programs": [{"path": "none*.s"}]}': "no such file",
    '{"programs": [{"path": "sub"}]}': "no such file",
    '{"programs": [{"path": "a\\u0000"}]}': "line of text",
    '{"programs": [{"path": "a.s", "arg": 1}]}': "did you mean args?",
    '{"programs": [{"path": "a.s", "args": ["\\u0000"]}]}': "zero bytes",
    '{"programs": [{"path": "a.s", "args": ["\\ud800"]}]}': "surrogate",
    '{"programs": [{"path": "a.s", "env": {"A=": "1"}}]}': "no name of a variable",
    '{"programs": [{"path": "a.s", "stdin": "1", "stdin_file": "input"}]}': "not both",
    '{"programs": [{"path": "a.s", "stdin_file": "nowhere"}]}': "No such file",
    '{"programs": [{"path": "a.s", "expect": {"exit": 256}}]}': "from 0 to 255",
    '{"programs": [{"path": "a.s", "expect": {"leak": true}}]}': "no such key",
    '{"programs": [{"path": ["a.s", "*.s"]}, {"path": "a.s"}]}': "a.s is there twice",
    '{"programs": [{"attack": "meltdwn"}]}': "choose from",
    '{"programs": [{"attack": "meltdown", "bytes": 0}]}': "from 1 to",
    '{"programs": [{"lab": "nx", "path": "a.s"}]}': "no such directory",
    '{"programs": [{"path": "a.s"}], "seeds": []}': "at least one",
    '{"programs": [{"path": "a.s"}], "seeds": [1, 1]}': "there already",
    '{"programs": [{"path": "a.s"}], "seeds": [-1]}': "from 0 to",
    '{"programs": [{"path": "a.s"}], "seeds": {"count": 1000001}}': "from 1 to",
    '{"programs": [{"path": ["a.s", "b.s"]}], "seeds": {"count": 1000000}}': "at most 1,000,000",
    '{"programs": [{"path": "a.s"}], "engines": ["fast"]}': "choose from python, native",
    '{"programs": [{"path": "a.s"}], "layouts": ["lin"]}': "no such layout",
    '{"programs": [{"path": "a.s"}], "cpus": ["z80"]}': "no such CPU",
    '{"programs": [{"path": "a.s"}], "cpus": ["none", "none"]}': "there already",
    '{"programs": [{"path": "a.s"}], "mitigations": ["off", "auto,kptti"]}': "choose from off, auto, ",
    '{"programs": [{"path": "a.s"}], "mitigations": ["off", "off"]}': "there already",
    '{"programs": [{"path": "a.s"}], "limits": {"timeout": 0}}': "0.01",
    '{"programs": [{"path": "a.s"}], "limits": {"timeout": NaN}}': "0.01",
    '{"programs": [{"path": "a.s"}], "limits": {"memory": "1K"}}': "limits.memory",
    '{"programs": [{"path": "a.s"}], "limits": {"memory": "lots"}}': "not a size",
    '{"programs": [{"path": "a.s"}], "jobs": 0}': "from 1 to",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_said_in_one_line(text, folder):
    with pytest.raises(UsageError) as caught:
        parse(text, "m.json", str(folder))
    assert WRONG[text] in str(caught.value)
    assert str(caught.value).startswith("sweep m.json: ")
    assert "\n" not in str(caught.value)


def test_results_of_another_matrix_are_not_mixed(folder, tmp_path):
    first = read_plan(matrix(folder / "m.json", [{"path": "a.s"}], seeds=[1, 2]))
    other = read_plan(matrix(folder / "m.json", [{"path": "*.s"}], seeds=[1, 2, 3]))
    with Store(str(tmp_path / "r")) as store:
        store.begin(first.facts)
        store.begin(first.facts)
        with pytest.raises(UsageError, match=r"programs \(b\.s\), seeds \(there \[1, 2\], here \[1, 2, 3\]\)"):
            store.begin(other.facts)
        store.begin(other.facts, extend=True)
        store.begin(other.facts)
        with pytest.raises(UsageError, match="another sweep writes to it"):
            Store(str(tmp_path / "r"))
    assert difference(first.facts, first.facts) == ""


def test_a_file_of_something_else_is_left_alone(tmp_path):
    import sqlite3

    text, database = tmp_path / "text", tmp_path / "database"
    text.write_text("not a database, and longer than the header of one" * 10)
    made = sqlite3.connect(database)
    made.execute("CREATE TABLE mine (a)")
    made.commit()
    made.close()
    for path, why in ((text, "not a database"), (database, "none of mmuemu sweep"), (tmp_path, "directory"),
                      (tmp_path / "no" / "r", "No such file")):  # fmt: skip
        before = path.read_bytes() if path.is_file() else b""
        with pytest.raises(UsageError, match=why):
            Store(str(path))
        assert not path.is_file() or path.read_bytes() == before
