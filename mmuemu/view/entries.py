"""The bits of a page-table entry by name (SDM volume 3, tables 4-15 to 4-20)."""

from __future__ import annotations

from typing import Final

from mmuemu.x86.paging import (
    AVL9,
    AVL10,
    AVL11,
    KEY_MASK,
    NX,
    PAT_4K,
    PAT_LARGE,
    PCD,
    PS,
    PWT,
    RW,
    US,
    A,
    D,
    G,
    P,
    protection_key,
)

_COMMON: Final = ((P, "P"), (RW, "RW"), (US, "US"), (PWT, "PWT"), (PCD, "PCD"), (A, "A"))
_IGNORED: Final = ((AVL9, "AVL9"), (AVL10, "AVL10"), (AVL11, "AVL11"))
_TABLE: Final = (*_COMMON, *_IGNORED, (NX, "NX"))
_PAGE: Final = (*_COMMON, (D, "D"), (PAT_4K, "PAT"), (G, "G"), *_IGNORED, (NX, "NX"))
_LARGE: Final = (*_COMMON, (D, "D"), (PS, "PS"), (G, "G"), *_IGNORED, (PAT_LARGE, "PAT"), (NX, "NX"))


def bit_names(entry: int, *, page: bool, large: bool = False) -> tuple[str, ...]:
    """The names of the bits that are set, from the lowest: of an entry that maps a ``page`` (a ``large`` one), or that
    refers to a table. A protection key other than 0 is ``PK=3``.
    """
    table = _LARGE if large else _PAGE if page else _TABLE
    names = [name for bit, name in table if entry & bit]
    if page and entry & KEY_MASK:
        names.append(f"PK={protection_key(entry)}")
    return tuple(names)


def rights(*, readable: bool, writable: bool, executable: bool) -> str:
    """``rwx`` with dashes."""
    return ("r" if readable else "-") + ("w" if writable else "-") + ("x" if executable else "-")


__all__ = ["bit_names", "rights"]
