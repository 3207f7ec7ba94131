"""The attacks of samples/speculation: built from their sources, described, and harmless without speculation."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest
from attack_runs import run
from elftools.elf.elffile import ELFFile

from mmuemu.guest.attacks import ATTACKS, program

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "samples" / "speculation"


@pytest.fixture(scope="module")
def builder():
    spec = importlib.util.spec_from_file_location("build_attacks", SAMPLES / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_source_is_described_and_every_description_has_a_source(builder):
    assert sorted(ATTACKS) == builder.names()


@pytest.mark.parametrize("name", ATTACKS)
def test_programs_are_up_to_date(builder, name):
    """The build id is a digest of sources and options: after a change, run samples/speculation/build.py."""
    with program(name).open("rb") as file:
        notes = ELFFile(file).get_section_by_name(".note.gnu.build-id").iter_notes()
        assert [note["n_desc"] for note in notes] == [builder.digest(name)]


@pytest.mark.parametrize("name", ATTACKS)
def test_a_page_explains_it(name):
    page = (ROOT / "docs" / "attacks" / f"{ATTACKS[name].page}.md").read_text()
    assert f"`{name}`" in page
    assert f"(attacks/{ATTACKS[name].page}.md)" in (ROOT / "docs" / "attacks.md").read_text()


@pytest.mark.parametrize("name", ATTACKS)
def test_it_ends_and_believes_nothing_without_speculation(name):
    """Its clock is the host's then, and tells nothing: a lead that no noise reaches is asked for."""
    result = run(program(name).read_bytes(), "3", "2", "1000")
    told = result.told
    assert result.code == 0
    assert told["who"][0]
    assert told["leaked"] == ["000000"]
    assert told["sure"] == ["000000"]
    if "secret" in told:
        assert len(told["secret"][0]) == 6
    assert ("secret" in told) == (ATTACKS[name].secret == "guest" and "this CPU has" not in str(told.get("note")))


@pytest.mark.parametrize("name", ATTACKS)
def test_a_new_build_behaves_like_the_one_in_the_package(builder, name, tmp_path):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not here")
    builder.build(name, tmp_path / "new")
    ours, new = (run(path.read_bytes(), "2", "1", "1000") for path in (program(name), tmp_path / "new"))
    timing = {"hist", "cached", "flushed", "threshold", "probes"}
    same = [{word: rest for word, rest in result.told.items() if word not in timing} for result in (ours, new)]
    assert ours.code == new.code == 0
    assert same[0] == same[1]


def test_numbers_are_kept_within_reason():
    image = program("plain-read").read_bytes()
    for arguments in (("0", "0", "0"), ("999999999999999999999", "x", "-1"), ("", ""), ("-5",)):
        result = run(image, *arguments)
        assert result.code == 0
        assert 2 <= len(result.told["leaked"][0]) <= 2 * ATTACKS["plain-read"].most
