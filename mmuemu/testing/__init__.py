"""What tests of guests are written with: assertions whose messages show the walk; the fixtures are the plugin's."""

from __future__ import annotations

from mmuemu.testing.checks import (
    assert_executable,
    assert_faults,
    assert_isolated,
    assert_maps,
    assert_no_leak,
    assert_readable,
    assert_unexecutable,
    assert_unmapped,
    assert_unreadable,
    assert_unwritable,
    assert_writable,
)

__all__ = [
    "assert_executable",
    "assert_faults",
    "assert_isolated",
    "assert_maps",
    "assert_no_leak",
    "assert_readable",
    "assert_unexecutable",
    "assert_unmapped",
    "assert_unreadable",
    "assert_unwritable",
    "assert_writable",
]
