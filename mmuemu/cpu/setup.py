"""An engine made ready: the CPU model with the most features, the x87 state of a reset, RAM at physical 0."""

from __future__ import annotations

from typing import Protocol

from unicorn import Uc, unicorn_const
from unicorn import x86_const as x86

from mmuemu.errors import UsageError


class Ram(Protocol):
    """Guest RAM: ``qwords[physical >> 3]``, and where the host keeps it."""

    @property
    def size(self) -> int: ...

    @property
    def address(self) -> int: ...

    @property
    def qwords(self) -> memoryview: ...


def new_uc() -> Uc:
    """A 64-bit engine of our own, which stops nowhere but where a hook stops it."""
    uc = Uc(unicorn_const.UC_ARCH_X86, unicorn_const.UC_MODE_64)
    uc.ctl_set_cpu_model(x86.UC_CPU_X86_ICELAKE_SERVER)
    uc.ctl_exits_enabled(True)
    uc.ctl_set_exits([])
    # The engine starts with an x87 control word of 0, single precision; FNINIT leaves 0x37f (SDM volume 1, 8.1.5).
    uc.reg_write(x86.UC_X86_REG_FPCW, 0x37F)
    uc.reg_write(x86.UC_X86_REG_FPTAG, 0xFFFF)
    uc.reg_write(x86.UC_X86_REG_MXCSR, 0x1F80)
    return uc


def map_ram(uc: Uc, ram: Ram) -> None:
    """Map all of ``ram`` at physical 0. Raises UsageError when something is mapped there."""
    for start, end, _ in uc.mem_regions():
        if start < ram.size:
            raise UsageError(
                f"this Uc has memory mapped at {start:#x}-{end + 1:#x}, where guest RAM (0-{ram.size:#x}) goes: "
                "attach first, or map it above"
            )
    uc.mem_map_ptr(0, ram.size, unicorn_const.UC_PROT_ALL, ram.address)
