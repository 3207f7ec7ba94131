"""rt_sigreturn: a signal frame back into registers, believing nothing in it (arch/x86/kernel/signal_64.c)."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from mmuemu.cpu.fpstate import FXSAVE_BYTES, LEGACY_AREA, PKRU, PKRU_OFFSET, X87, FpState
from mmuemu.kernel import registers as pt
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.signals import (
    MINSIGSTKSZ,
    SI_KERNEL,
    SS_AUTODISARM,
    SS_DISABLE,
    SS_ONSTACK,
    Signal,
)
from mmuemu.kernel.keys import INITIAL_PKRU, set_pkru
from mmuemu.kernel.signals.frame import (
    CONTEXT_BYTES,
    FP_XSTATE_MAGIC2,
    AltStack,
    BadFpState,
    end_mark_place,
    load_fp,
    on_altstack,
    promised_features,
    read_context,
    restored_registers,
)
from mmuemu.kernel.signals.pending import SigInfo
from mmuemu.kernel.signals.send import force_info, set_mask
from mmuemu.kernel.switching import claim_floats
from mmuemu.kernel.traps import Death

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

_MASK: Final = (1 << 64) - 1
_END_MARK: Final = FP_XSTATE_MAGIC2.to_bytes(4, "little")


def set_altstack(task: Task, wanted: AltStack, sp: int) -> None:
    """sigaltstack(2) with the user's stack pointer ``sp``: EPERM on that stack, EINVAL, ENOMEM when it is small."""
    address, flags, size = wanted
    if on_altstack(sp, task.alternate_stack):
        raise SyscallError(Errno.EPERM)
    mode = flags & ~SS_AUTODISARM
    if mode not in (0, SS_ONSTACK, SS_DISABLE):
        raise SyscallError(Errno.EINVAL)
    if mode == SS_DISABLE:
        address = size = 0
    elif size < MINSIGSTKSZ:
        raise SyscallError(Errno.ENOMEM)
    task.alternate_stack = (address, flags, size)


def sigreturn(task: Task) -> int:
    """Restore what the frame at RSP - 8 says; the value is RAX. A bad frame is SIGSEGV."""
    registers = task.registers
    sp = registers[pt.SP]
    try:
        context = read_context(task.memory.read(sp, CONTEXT_BYTES))
    except SyscallError:
        return _bad_frame(task)
    set_mask(task, context.mask)
    with suppress(SyscallError):  # an alternate stack that cannot be set is let pass, as by Linux
        set_altstack(task, context.altstack, sp)
    words = restored_registers(registers.words(), context)
    registers.load(words)
    try:
        _restore_floats(task, context.fpstate)
    except (BadFpState, SyscallError):
        return _bad_frame(task)
    return words[pt.AX]


def _bad_frame(task: Task) -> int:
    death = Death(Signal.SIGSEGV, SI_KERNEL, reason="rt_sigreturn found a bad frame")
    force_info(task, SigInfo(Signal.SIGSEGV, SI_KERNEL, cause=death))
    return 0


def _restore_floats(task: Task, address: int) -> None:
    """Load the floating-point area at ``address`` (0: the initial state). Raises BadFpState or EFAULT."""
    cpu = task.kernel.cpu
    claim_floats(task.kernel, task)
    fp = cpu.fp
    pkru: int | None = INITIAL_PKRU
    if not address:
        fp.reset()
    else:
        pkru = _load_area(task, fp, address)
    if pkru is not None:
        set_pkru(cpu, pkru)
    cpu.window.restore()


def _load_area(task: Task, fp: FpState, address: int) -> int | None:
    """Load the area at ``address`` into the saved window; the PKRU it has, if that is to be loaded."""
    xcr0, memory = fp.xcr0, task.memory
    if not xcr0 & ~X87:
        return load_fp(fp, memory.read(address, FXSAVE_BYTES), None, b"", 0)
    image = memory.read(address, LEGACY_AREA)
    if image == fp.last_area[0] and not address & 63 and memory.read(address + PKRU_OFFSET, 12) == fp.last_area[1]:
        fp.fxrstor(image[:FXSAVE_BYTES])  # untouched, and nothing is in it that could be wrong
        return int.from_bytes(fp.last_area[1][:4], "little")
    mark = end_mark_place(image, xcr0)
    features, stored = None, 0
    if mark is not None:
        # PKRU and the end mark lie side by side in the area that the kernel made.
        tail = memory.read(address + mark - 8 & _MASK, 12)
        if tail[8:] == _END_MARK:
            features = promised_features(image) & xcr0
            if features & PKRU:
                stored = int.from_bytes(tail[:4], "little")
                if mark != PKRU_OFFSET + 8:
                    stored = memory.read_u32(address + PKRU_OFFSET)
    if address & (15 if features is None else 63):
        raise BadFpState
    return load_fp(fp, image[:FXSAVE_BYTES], features, image[FXSAVE_BYTES:], stored)
