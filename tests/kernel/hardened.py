"""Machines with mitigations in force, and a hidden state that writes down what the kernel tells it."""

from __future__ import annotations

from collections.abc import Iterable
from unittest import mock

from mmuemu.kernel.options import Options
from mmuemu.machine import Machine


def hardened(names: Iterable[str] | None, **options: object) -> Machine:
    """A machine whose kernel has these mitigations, without the model of a CPU."""
    names = None if names is None else frozenset(names)
    with mock.patch("mmuemu.machine.Options", lambda **given: Options(**{**given, "mitigations": names})):
        return Machine(aslr=False, seed=1, memory=64 << 20, **options)


class Recorder:
    """A hidden state that only remembers."""

    def __init__(self) -> None:
        self.touched: list[tuple[int, int, bool]] = []
        self.calls: list[tuple[object, ...]] = []

    def touch(self, physical: int, size: int, write: bool) -> None:
        self.touched.append((physical, size, write))

    def switch(self, context: int) -> None:
        self.calls.append(("switch", context))

    def ibpb(self) -> None:
        self.calls.append(("ibpb",))

    def flush_l1d(self) -> None:
        self.calls.append(("flush_l1d",))

    def set_ssbd(self, on: bool) -> None:
        self.calls.append(("ssbd", on))
