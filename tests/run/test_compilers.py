"""Which C compiler builds sources: the first that runs and makes x86-64 Linux programs."""

from __future__ import annotations

import pytest

from mmuemu.sources import compiler
from tests.run.harness import executable


def test_an_empty_path_has_none_but_a_package(path):
    found = compiler()
    assert found is None or "ziglang" in found


@pytest.mark.parametrize(
    "text", ["no program at all", "#!/bin/sh\nexit 1\n", "#!/bin/sh\necho aarch64-linux-gnu\n", "#!/no/such/shell\n"]
)
def test_what_does_not_run_or_makes_other_programs_is_no_compiler(path, text):
    executable(path, "cc", text)
    good = executable(path, "clang", '#!/bin/sh\n[ "$1" = -m64 ] || echo x86_64-pc-linux-gnu\n')
    assert compiler() == [str(good)]


def test_a_compiler_may_be_given_with_options(path, monkeypatch):
    executable(path, "mine", '#!/bin/sh\n[ "$*" = "-m64 -dumpmachine" ] && echo x86_64-linux-gnu\n')
    monkeypatch.setenv("CC", "mine -m64")
    assert compiler() == [f"{path}/mine", "-m64"]
    monkeypatch.setenv("CC", "mine 'of")
    assert compiler() is None or "ziglang" in compiler()
