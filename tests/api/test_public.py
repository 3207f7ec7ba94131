"""The public API is what is recorded: a change of it is meant, and told in the changelog."""

from __future__ import annotations

import re
from difflib import unified_diff
from pathlib import Path

import mmuemu
from tests.api.record import RECORD, STABLE, public

DOCS = Path(__file__).parents[2] / "docs"


def test_the_public_api_is_the_recorded_one():
    recorded, found = RECORD.read_text().splitlines(), public().splitlines()
    change = "\n".join(unified_diff(recorded, found, "recorded", "now", lineterm="", n=0))
    assert change == "", f"meant? then tell it in CHANGELOG.md and: python -m tests.api.record\n{change}"


def test_every_name_offered_is_there_and_recorded():
    stable = {name for names in STABLE.values() for name in names}
    for name in mmuemu.__all__:
        assert getattr(mmuemu, name) is not None
        assert name in stable
        assert name in dir(mmuemu)


def test_the_reference_names_all_of_it():
    page = (DOCS / "reference-api.md").read_text()
    names = {name for names in STABLE.values() for name in names}
    assert [name for name in sorted(names) if not re.search(rf"`[^`]*\b{name}\b", page)] == []


def test_the_page_on_stability_names_what_is_recorded():
    page = (DOCS / "reference-stability.md").read_text()
    told = set(re.findall(r"`(mmuemu(?:\.\w+)*)`", page))
    assert set(STABLE) - told == set()
