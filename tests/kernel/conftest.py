"""Small assembly programs on a whole machine."""

from __future__ import annotations

import pytest

from mmuemu.machine import Machine, Outcome
from mmuemu.sources import assemble


@pytest.fixture(params=["python", "native"])
def asm_program(request):
    """Run an assembly source without ASLR; the machine (still open) and how it ended. ``{text}`` is kernel text."""

    def run(source: str, **options: object) -> tuple[Machine, Outcome]:
        machine = Machine(mmu=request.param, aslr=False, seed=1, memory=64 << 20, **options)
        machine.load(assemble(source.replace("{text}", hex(machine.kernel.layout.text.base)), "test.s"), ["test"], {})
        return machine, machine.run(timeout=20)

    return run
