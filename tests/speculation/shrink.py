"""Making a difference small: fewer programs before it, fewer blocks, fewer genes; and writing it down."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.speculation import places
from tests.speculation.programs import Program, generate
from tests.speculation.squash import Difference, compare, image

Options = dict[str, Any]


def _without(items: Sequence[Any], fails: Callable[[list[Any]], bool]) -> list[Any]:
    """``items`` without as many as ``fails`` allows: halves first, then ever smaller pieces."""
    kept = list(items)
    size = max(len(kept) // 2, 1)
    while size and kept:
        at = 0
        while at < len(kept):
            fewer = kept[:at] + kept[at + size :]
            if fails(fewer):
                kept = fewer
            else:
                at += size
        size //= 2
    return kept


def shrink(programs: Sequence[Program], left: Options, right: Options, seconds: float = 60.0) -> list[Program]:
    """The fewest and smallest programs found that still differ, the last of them."""
    deadline = time.monotonic() + seconds

    def fails(candidate: Sequence[Program]) -> bool:
        if time.monotonic() > deadline or not candidate:
            return False
        found = compare(candidate, left, right)
        return found is not None and found.number in (-1, len(candidate) - 1)

    *before, last = programs
    before = [] if fails([last]) else _without(before, lambda some: fails([*some, last]))
    blocks = _without(last.blocks, lambda some: bool(some) and fails([*before, Program(last.seed, tuple(some))]))
    genes = [(number, gene) for number, block in enumerate(blocks) for gene in block]

    def put(some: Sequence[tuple[int, int]]) -> Program:
        return Program(last.seed, tuple(tuple(g for n, g in some if n == number) for number in range(len(blocks))))

    kept = _without(genes, lambda some: fails([*before, put(some)]))
    return [*before, put(kept)]


def listing(program: Program) -> list[str]:
    """The program's instructions, as Capstone reads them."""
    import capstone

    code = generate(program, image()[1]).code
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.skipdata = True
    return [f"{at:#x}: {name} {operands}".rstrip() for at, _, name, operands in engine.disasm_lite(code, places.CODE)]


def write(path: Path, programs: Sequence[Program], left: Options, right: Options, found: Difference) -> None:
    """A file that :func:`read` reads, and a person."""
    content = {
        "left": left,
        "right": right,
        "difference": found.words,
        "listing": listing(programs[-1]),
        "programs": [{"seed": program.seed, "blocks": program.blocks} for program in programs],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


def read(path: Path) -> tuple[list[Program], Options, Options]:
    """The programs of such a file, and the options of both machines."""
    content = json.loads(path.read_text())
    programs = [Program(one["seed"], tuple(map(tuple, one["blocks"]))) for one in content["programs"]]
    return programs, content["left"], content["right"]
