"""A spread-out part of the exhaustive proof on both engines; ``python -m tests.exhaustive`` runs all of it."""

from __future__ import annotations

import shutil

import pytest

from mmuemu.mmu import walk as walk_module
from tests.exhaustive.machine import run

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="the guest is built with gcc")
PARTS = 251
"""Every 251st combination: about 14,500 of 3.6 million."""


@pytest.mark.parametrize("engine", ["python", "native"])
def test_every_rule_is_kept(engine):
    report = run(engine, 7, PARTS)
    assert report.finished, report.fatal
    assert report.list == []
    assert report.mismatches == 0
    assert report.total == 96 * 6 * (4096 + 512 + 64 + 7 * 196 + 256)
    assert report.checks == -(-(report.total - 7) // PARTS)
    assert report.faults > report.checks // 2
    assert report.checks - report.faults > report.checks // 20
    # docs/limits.md: the engine's own walker marks a refused 1 GiB entry as accessed.
    assert (report.deviations > 0) == (engine == "native")


def without_smep(rules, *args, **kwargs):
    return tuple(
        allowed | (4 if index & 4 and not index & 1 and allowed else 0)
        for index, allowed in enumerate(rules(*args, **kwargs))
    )


def blind_to_write_protect(rules, *args, **kwargs):
    return tuple(allowed | (2 if allowed & 1 else 0) for allowed in rules(*args, **kwargs))


@pytest.mark.parametrize("mutation", [without_smep, blind_to_write_protect])
def test_a_broken_rule_is_noticed(monkeypatch, mutation):
    rules = walk_module.rights_table
    monkeypatch.setattr(walk_module, "rights_table", lambda *args, **kwargs: mutation(rules, *args, **kwargs))
    report = run("python", 3, 499)
    assert report.finished
    assert report.mismatches > 0
    first = report.list[0]
    assert first["expected"]["fault"]
    assert not first["got"]["fault"]
    assert len(report.list) == min(report.mismatches, 16)
