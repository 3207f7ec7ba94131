"""Machines to talk to."""

from __future__ import annotations

import pytest
from pc_board import Machine


@pytest.fixture
def pc():
    return Machine()


@pytest.fixture
def quiet():
    """A machine as at power-up: nothing runs, no interrupt is let in."""
    return Machine(firmware=False)
