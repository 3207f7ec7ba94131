"""A mutator for where there is no libFuzzer: the changes that find most, drawn from a seeded generator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

_NUMBERS: Final = tuple(
    sorted({(value + off) & (1 << 64) - 1 for bit in (0, 7, 8, 12, 15, 16, 31, 32, 47, 62, 63) for value in (1 << bit,)
            for off in (-1, 0, 1)} | {(1 << 64) - 1, (1 << 64) - 4096, 0xFFFF_8000_0000_0000})
)  # fmt: skip


def _place(random: Random, data: bytearray, size: int = 1) -> int:
    return random.randrange(max(len(data) - size + 1, 1))


def _flip(random: Random, data: bytearray) -> None:
    if data:
        data[_place(random, data)] ^= 1 << random.randrange(8)


def _byte(random: Random, data: bytearray) -> None:
    if data:
        data[_place(random, data)] = random.randrange(256)


def _number(random: Random, data: bytearray) -> None:
    size = random.choice((1, 2, 4, 8))
    at = _place(random, data, size)
    data[at : at + size] = (random.choice(_NUMBERS) & (1 << 8 * size) - 1).to_bytes(size, "little")


def _add(random: Random, data: bytearray) -> None:
    size = random.choice((1, 2, 4, 8))
    at = _place(random, data, size)
    value = int.from_bytes(data[at : at + size], "little") + random.randrange(-35, 36)
    data[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")


def _cut(random: Random, data: bytearray) -> None:
    at = _place(random, data)
    del data[at : at + 1 + random.randrange(1 << random.randrange(9))]


def _repeat(random: Random, data: bytearray) -> None:
    at = _place(random, data)
    piece = data[at : at + 1 + random.randrange(1 << random.randrange(8))]
    to = _place(random, data)
    data[to : to + random.choice((0, len(piece)))] = piece


def _insert(random: Random, data: bytearray) -> None:
    at = _place(random, data)
    data[at:at] = random.randbytes(1 + random.randrange(8))


_CHANGES: Final[tuple[Callable[[Random, bytearray], None], ...]] = (
    _flip, _byte, _number, _number, _add, _cut, _repeat, _insert,
)  # fmt: skip


def mutate(random: Random, pool: Sequence[bytes], longest: int) -> bytes:
    """Something like an element of ``pool``, of at most ``longest`` bytes."""
    data = bytearray(random.choice(pool))
    if random.randrange(8) == 0:
        other = random.choice(pool)
        data[_place(random, data) :] = other[random.randrange(len(other) + 1) :]
    for _ in range(1 << random.randrange(5)):
        random.choice(_CHANGES)(random, data)
    return bytes(data[:longest])
