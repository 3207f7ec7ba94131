"""Settings for every test: a property test never fails because the machine is slow; what is slow comes first."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("mmuemu", deadline=None)
settings.load_profile("mmuemu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A long test that comes late is waited for by workers that have nothing left."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
