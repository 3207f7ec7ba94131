"""How many places a layout may put something at: the entropy of ASLR, in bits."""

from __future__ import annotations

from math import gcd, log2

from mmuemu.loader.elf import ElfImage, ElfType
from mmuemu.loader.layouts import Layout, Place


def _places(place: Place) -> int:
    return 1 << place.bits


def _sums(left: Place, right: Place) -> int:
    """How many different sums of two random distances there may be at most."""
    span = left.span + right.span
    return min(_places(left) * _places(right), span // gcd(left.step, right.step) + 1)


def possible_bits(layout: Layout, image: ElfImage) -> dict[str, float]:
    """Bits of entropy of ``image``, ``heap``, ``stack`` (its mapping's end) and ``mmap`` for a program.

    The heap follows the program where that is not placed among the mappings, so that its address has both entropies.
    """
    fixed = image.type == ElfType.EXEC
    mapped = not fixed and image.interp is None
    heap = _places(layout.heap) if fixed or mapped else _sums(layout.image, layout.heap)
    return {
        "image": 0.0 if fixed else float((layout.mmap if mapped else layout.image).bits),
        "heap": log2(heap),
        "stack": float(layout.stack.bits),
        "mmap": float(layout.mmap.bits),
    }


__all__ = ["possible_bits"]
