"""CPU models: what is said of each, where it is from, and what a wrong file gets for an answer."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmuemu.cpu.cpuid import MODELS
from mmuemu.errors import UsageError
from mmuemu.speculation.catalogue import NAMES, as_json, check, find_cpu, named, parse
from mmuemu.speculation.flaws import FLAWS, GROUPS
from mmuemu.speculation.models import CpuSpec

FIELDS = [field.name for field in fields(CpuSpec)]


@pytest.mark.parametrize("name", NAMES)
def test_every_field_of_a_model_has_a_source(name: str) -> None:
    spec = named(name)
    about = [field.strip() for key in spec.sources for field in key.split(",")]
    assert sorted(about) == sorted(set(FIELDS) - {"name", "title", "sources"})
    assert all(len(text) > 5 for text in spec.sources.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_model_written_to_a_file_is_the_same_model(name: str, tmp_path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(as_json(named(name))))
    assert find_cpu(str(file)) == named(name)


def test_who_has_which_flaw() -> None:
    found = {name: named(name).flaws for name in NAMES}
    common = {"v1", "v2", "rsb", "v4"}
    assert found["haswell"] == common | {"meltdown", "meltdown-rw", "meltdown-nm", "l1tf", *GROUPS["mds"]}
    assert found["skylake"] == found["haswell"] | {"meltdown-pk"}
    assert found["zen2"] == found["icelake"] == found["cascadelake"] == common
    assert found["in-order"] == frozenset()
    assert {"rdcl_no", "mds_no", "ibrs_all"} <= set(named("icelake").capabilities) & set(
        named("cascadelake").capabilities
    )


def test_what_is_left_out_is_taken_from_the_model_it_is_like(tmp_path) -> None:
    file = tmp_path / "small.json"
    file.write_text('{"like": "zen2", "l1d": {"size": "16K", "ways": 4}, "rsb_entries": 8}')
    spec = find_cpu(str(file))
    assert (spec.name, spec.vendor, spec.rsb_entries) == ("small", "AuthenticAMD", 8)
    assert (spec.l1d.size, spec.l1d.ways, spec.l1d.latency) == (16384, 4, named("zen2").l1d.latency)
    assert parse("{}", "plain") == replace(named("skylake"), name="plain")


WRONG = {
    "not json": "no JSON",
    "[1]": "write an object",
    '{"like": "pentium"}': 'like is "pentium": name one of skylake',
    '{"like": 3}': "like is 3",
    '{"btb_entires": 1}': "did you mean btb_entries",
    '{"zzz": 1}': "there are like, name",
    '{"rsb_entries": "many"}': 'rsb_entries is "many": write a number from 0 to 1024',
    '{"rsb_entries": -1}': "rsb_entries is -1",
    '{"rsb_entries": true}': "rsb_entries is true",
    '{"rsb_entries": 1e3}': "rsb_entries is 1000.0",
    '{"issue_width": 0}': "issue_width is 0: write a number from 1 to 16",
    '{"speculates": "no"}': "write true or false",
    '{"rsb_underflow": "empty"}': "choose from stale, btb, none",
    '{"features": "z80"}': "features is",
    '{"vendor": "Cyrix"}': "GenuineIntel, AuthenticAMD",
    '{"flaws": ["v9"]}': 'flaws is "v9": choose from v1',
    '{"flaws": "v1"}': "write a list of v1",
    '{"microcode": ["magic"]}': "choose from ibrs",
    '{"capabilities": ["yes"]}': "choose from rdcl_no",
    '{"without": ["sse2"]}': "sse2 cannot be taken away",
    '{"title": "a\\nb"}': "write a line of text",
    '{"name": "../x"}': "name is",
    '{"brand": "' + "x" * 48 + '"}': "47 bytes",
    '{"sources": []}': "write an object",
    '{"sources": {"l1d": 3}}': "sources.l1d is 3",
    '{"l1d": 32768}': "write an object: size, ways, latency",
    '{"l1d": {"size": "much"}}': "l1d.size",
    '{"l1d": {"size": 49152}}': "a power of two of sets",
    '{"l1d": {"size": 100}}': "l1d.size is 100",
    '{"l1d": {"ways": 0}}': "l1d.ways is 0",
    '{"l1d": {"colour": 1}}': "l1d.colour: no such key",
    '{"l3": {"size": "64K"}}': "at least as large",
    '{"speculates": false}': "runs nothing transiently",
    '{"btb_entries": 0}': 'flaws is "v2"',
    '{"without": ["pku"]}': "no protection keys",
    '{"like": "zen2", "capabilities": ["rdcl_no"]}': "is Intel's",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_file_says_what_is_wrong(text: str, tmp_path) -> None:
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        find_cpu(str(file))
    assert WRONG[text] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path) -> None:
    binary = tmp_path / "x.json"
    binary.write_bytes(b"\xff\xfe{}")
    large = tmp_path / "large.json"
    large.write_bytes(b" " * (1 << 20) + b"{}")
    answers = {str(binary): "UTF-8", str(large): "at most 1 MiB", str(tmp_path / "none.json"): "No such file"}
    answers |= {str(tmp_path) + "/": "directory", "a\0.json": "null", "pentium": "choose skylake, haswell"}
    for name, answer in answers.items():
        with pytest.raises(UsageError, match=answer):
            find_cpu(name)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 1 << 40) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
CACHES = st.fixed_dictionaries({}, optional={"size": ANY | st.integers(10, 25).map(lambda n: 1 << n), "ways": ANY})


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, ANY | st.sampled_from([*FLAWS, *MODELS]) | CACHES)))
def test_whatever_a_file_says_it_is_a_model_or_a_usage_error(given_: dict[str, object]) -> None:
    try:
        spec = parse(json.dumps(given_), "fuzz")
    except UsageError:
        return
    assert check(spec) == spec
    assert parse(json.dumps(as_json(spec)), "fuzz") == spec
