"""Bytes as decisions: what a target reads its input with when the input is no file of its own."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """Takes numbers off the front of ``data``; zeros when there is no more."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes that nobody has taken."""
        return max(len(self._data) - self._at, 0)

    def number(self, size: int) -> int:
        """A little-endian number of ``size`` bytes."""
        return int.from_bytes(self.bytes(size), "little")

    def bytes(self, count: int) -> bytes:
        """At most ``count`` bytes."""
        self._at += count
        return self._data[self._at - count : self._at]

    def pick(self, choices: Sequence[T]) -> T:
        """One of ``choices``, by one byte, or two when one cannot tell them all."""
        return choices[self.number(1 if len(choices) <= 256 else 2) % len(choices)]


class DrawnRandom(Random):
    """A generator whose every bit comes from ``data``, then zeros."""

    def __init__(self, data: bytes) -> None:
        self.draw = Draw(data)
        super().__init__(0)

    def getrandbits(self, k: int) -> int:
        return self.draw.number((k + 7) // 8) & (1 << k) - 1

    def random(self) -> float:
        return self.getrandbits(32) / (1 << 32)
