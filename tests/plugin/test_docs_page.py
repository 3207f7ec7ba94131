"""The Python of docs/howto-pytest.md, which are tests, as tests."""

from __future__ import annotations

import pytest

from mmuemu.kernel.syscalls import load_all
from tests.plugin.installed import PROJECT
from tests.test_docs import BLOCK

pytest_plugins = ["pytester"]
load_all()
PAGE = PROJECT.parent / "docs/howto-pytest.md"
BLOCKS = [found[2] for found in BLOCK.finditer(PAGE.read_text()) if found[1] == "python"]


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_tests_of_the_page_pass(number, pytester, monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    source = BLOCKS[number]
    pytester.makepyfile(test_page=source)
    result = pytester.runpytest_inprocess("-p", "mmuemu.pytest_plugin", "-p", "no:cacheprovider", "--strict-markers")
    assert result.ret == 0
    assert result.parseoutcomes()["passed"] >= source.count("\ndef test_")
