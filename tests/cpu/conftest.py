"""A bare CPU with page tables, on both engines."""

from __future__ import annotations

import pytest
from unicorn import UC_ARCH_X86, UC_MODE_64, Uc

from mmuemu.cpu.attach import attach

ENGINES = ("python", "native")


@pytest.fixture(params=ENGINES)
def mmu(request):
    attachment = attach(Uc(UC_ARCH_X86, UC_MODE_64), memory="32M", mmu=request.param)
    yield attachment
    attachment.detach()


@pytest.fixture(scope="session")
def asm():
    import keystone

    engine = keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)

    def assemble(source: str, address: int = 0x40_0000) -> bytes:
        return bytes(engine.asm(source, address)[0])

    return assemble
