"""Every system call with every hostile argument ends as on the host's kernel: a share of the cases, each engine's own.

``python -m tests.hostile calls`` makes all of them.
"""

from __future__ import annotations

import pytest

from mmuemu.kernel.syscalls.table import TABLE
from tests.hostile.cases import CALLS, HOSTILE, cases
from tests.hostile.differences import DIFFERENCES, reason
from tests.hostile.trial import compare
from tests.run.harness import ENGINES

SHARE = 24


def test_every_kind_of_argument_has_hostile_values():
    every = cases()
    kinds = {kind for call in TABLE.values() for kind in call.kinds}
    assert kinds <= set(HOSTILE)
    assert {case.call.name for case in every} == {call.name for call in TABLE.values()}
    assert set(CALLS) <= {call.name for call in TABLE.values()}


def test_every_reason_is_of_some_case():
    import re

    names = [case.name for case in cases()]
    assert not [pattern for pattern, _ in DIFFERENCES if not any(re.fullmatch(pattern, name) for name in names)]


@pytest.mark.parametrize("engine", ENGINES)
def test_hostile_arguments_end_as_on_the_host(engine, tmp_path):
    first = 7 if engine == "python" else 19
    different, ending = compare(cases()[first::SHARE], tmp_path, "--mmu", engine)
    assert not ending.broke, ending.err
    assert ending.code == 0, ending.err
    assert [str(found) for found in different if reason(found.case) is None] == []
    assert ending.peak < 300
