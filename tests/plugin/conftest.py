"""The fixtures' own work without pytest around it."""

from __future__ import annotations

import pytest

from mmuemu.testing.bare import Bare
from mmuemu.testing.session import Guest, Session


@pytest.fixture
def session():
    made = Session({"seed": 1, "memory": "64M"})
    yield made
    made.close()


@pytest.fixture
def guest(session):
    return Guest(session)


@pytest.fixture
def bare(session):
    return Bare(session)
