"""Why an access was refused, in words: the rule and the entry that a person has to look at."""

from __future__ import annotations

from mmuemu.mmu.rules import level_rule, reserved_high
from mmuemu.mmu.state import PagingState, Step
from mmuemu.x86.paging import NX, RW, US, FaultBits, is_canonical, protection_key


def refusal_reason(linear: int, state: PagingState, user: bool) -> str:
    """The rule that refused an address before any walk: a canonical one is refused by LASS only."""
    if not is_canonical(linear, state.mode.linear_bits):
        return f"{linear:#x} is not canonical"
    half, who = ("upper", "user code") if user else ("lower", "the supervisor")
    return f"LASS keeps {who} out of the {half} half of the address space"


def reason(code: FaultBits, steps: tuple[Step, ...], state: PagingState, user: bool, ac: bool) -> str:
    """The rule behind a page fault with this error code, given the entries that were read."""
    last = steps[-1].level if steps else "root"
    if not code & FaultBits.P:
        return f"{last} is not present"
    if code & FaultBits.RSVD:
        return f"{last} has a reserved bit set ({_reserved_bits(steps, state)})"
    rights = [step for step, level in zip(steps, state.mode.levels, strict=False) if level.has_rights]
    user_page = all(step.entry & US for step in rights)
    if user and not user_page:
        return f"{_first_without(rights, US)} is supervisor-only (U/S = 0)"
    if not user and user_page:
        if code & FaultBits.I and state.smep:
            return "SMEP forbids the supervisor to execute a user page"
        if state.smap and not ac and not code & FaultBits.I:
            return "SMAP forbids the supervisor to access a user page while EFLAGS.AC = 0"
    if code & FaultBits.W and any(not step.entry & RW for step in rights) and (user or state.write_protect):
        return f"{_first_without(rights, RW)} is read-only (R/W = 0)"
    if code & FaultBits.PK:
        return _key_reason(protection_key(rights[-1].entry), user_page, state)
    return f"{next(step.level for step in rights if step.entry & NX)} is not executable (NX = 1)"


def _first_without(steps: list[Step], bit: int) -> str:
    return next(step.level for step in steps if not step.entry & bit)


def _key_reason(key: int, user_page: bool, state: PagingState) -> str:
    name, register = ("PKRU", state.pkru) if user_page else ("IA32_PKRS", state.pkrs)
    what = "access" if register >> 2 * key & 1 else "writes"
    return f"{name} disables {what} with protection key {key}"


def _reserved_bits(steps: tuple[Step, ...], state: PagingState) -> str:
    """The offending bits of the last entry read, as ``bit 13`` or ``bits 13, 51``."""
    mode = state.mode
    entry = steps[-1].entry
    if len(steps) == len(mode.levels):
        wrong = entry & reserved_high(mode, state)
    else:
        _, large, table_reserved, page_reserved = level_rule(mode.levels[len(steps) - 1], mode, state)
        wrong = entry & (page_reserved if entry & large else table_reserved)
    bits = [str(bit) for bit in range(64) if wrong >> bit & 1]
    return f"{'bit' if len(bits) == 1 else 'bits'} {', '.join(bits)}"
