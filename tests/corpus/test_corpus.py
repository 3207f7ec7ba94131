"""Ordinary programs do under mmuemu what they do on the host: output, errors, exit code and files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.corpus.case import Case
from tests.corpus.cases import CASES
from tests.corpus.trial import ENGINES, attempt, missing

TABLE = Path(__file__).parents[2] / "docs" / "compat.md"


def _plan() -> list[object]:
    """Each case with one engine, in turns; ``python -m tests.corpus`` tries all with both."""
    plan: list[object] = []
    for index, case in enumerate(case for case in CASES if not case.slow):
        marks = [pytest.mark.xfail(reason=case.fails, strict=True)] if case.fails else []
        engine = ENGINES[index % len(ENGINES)]
        plan.append(pytest.param(case, engine, id=f"{case.name}-{engine}", marks=marks))
    return plan


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("case", "engine"), _plan())
def test_it_does_what_it_does_on_the_host(case: Case, engine: str, tmp_path: Path) -> None:
    reason = missing(case)
    if reason:
        pytest.skip(reason)
    trial = attempt(case, tmp_path / "trial", engine, seed=1)
    assert not trial.wrong, "\n".join(trial.wrong)


def test_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert sorted(names) == sorted(set(names))


def test_the_table_tells_of_the_cases_there_are() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (.*?) \|", TABLE.read_text(), re.MULTILINE)
    assert rows
    known = {(case.program, case.tried.replace("|", "\\|")) for case in CASES}
    assert set(rows) == known
