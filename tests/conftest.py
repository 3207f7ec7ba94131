"""Settings for every test: a property test never fails because the machine is slow."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("mmuemu", deadline=None)
settings.load_profile("mmuemu")
