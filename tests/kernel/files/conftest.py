"""Guests for tests of the file room."""

from __future__ import annotations

import pytest
from files_guest import Guest

from mmuemu.kernel.files.namespace import ViewOptions, build_namespace


@pytest.fixture
def make_guest():
    """Makes guests from view options; ``start`` is where each starts in its own tree."""
    guests = []

    def make(start: str | bytes = "/", uid: int = 1000, **options) -> Guest:
        options.setdefault("cwd", "")
        guest = Guest(build_namespace(ViewOptions(**options)), start, uid=uid)
        guests.append(guest)
        return guest

    yield make
    for guest in guests:
        guest.close()


@pytest.fixture
def guest(make_guest) -> Guest:
    """A guest with nothing of the host, standing in its own /tmp."""
    return make_guest("/tmp", isolate=True)
