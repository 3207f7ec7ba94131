"""A walk as text, level by level: what failure messages show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from mmuemu.mmu.modes import PagingMode
from mmuemu.mmu.state import Access, PageFault, PagingState, Step, Translation
from mmuemu.mmu.walk import PhysicalMemory, walk
from mmuemu.x86.exceptions import Vector, vector_name
from mmuemu.x86.paging import ADDRESS_MASK, KEY_MASK, EntryBits, FaultBits, P, protection_key

ACCESSES: Final = {"read": Access.READ, "write": Access.WRITE, "execute": Access.FETCH}
DOING: Final = {access: name for name, access in ACCESSES.items()}


@dataclass(frozen=True, slots=True)
class Walk:
    """One access as the MMU sees it: ``state`` decides, ``result`` is what comes of it."""

    state: PagingState
    access: Access
    user: bool
    result: Translation | PageFault

    @property
    def allowed(self) -> bool:
        """Whether the access goes through."""
        return isinstance(self.result, Translation)

    def __str__(self) -> str:
        return walk_text(self)


def walk_of(memory: PhysicalMemory, state: PagingState, address: int, access: Access, *, user: bool) -> Walk:
    """The walk for one access, changing nothing."""
    return Walk(state, access, user, walk(memory, state, address, access, user=user))


def error_names(code: int) -> str:
    """``"P|W|U"`` of a page-fault error code; ``"0"`` when no bit is set."""
    return "|".join(bit.name or "" for bit in FaultBits if code & bit) or "0"


def error_bits(text: str | int) -> int:
    """The error code that ``"P|W|U"`` (or a number) means. Raises ValueError for a name that is no bit of it."""
    if isinstance(text, int):
        return text
    code = 0
    for name in (part.strip() for part in text.split("|")):
        if name in ("", "0"):
            continue
        if name not in FaultBits.__members__:
            raise ValueError(f"{name!r} is no bit of a page-fault error code: use {'|'.join(FaultBits.__members__)}")
        code |= FaultBits[name]
    return code


def bit_names(entry: int) -> list[str]:
    """The names of an entry's bits, from the lowest; a protection key other than 0 is ``PK=3``."""
    names = [bit.name or "" for bit in EntryBits if entry & bit]
    return [*names, f"PK={protection_key(entry)}"] if entry & KEY_MASK else names


def _refers(mode: PagingMode, depth: int, step: Step) -> str:
    if not step.entry & P:
        return "not present"
    page = mode.maps_page(depth, step.entry)
    return f"{'page' if page else 'table'} {step.entry & ADDRESS_MASK & (-step.size if page else -1):#x}"


def _refusing(result: Translation | PageFault) -> str:
    """The level whose entry refuses; empty where no single entry does (SMEP, SMAP, keys)."""
    first = "" if isinstance(result, Translation) else result.reason.partition(" ")[0]
    return first if any(step.level == first for step in result.steps) else ""


def verdict(result: Translation | PageFault) -> str:
    """What comes of an access, in a line."""
    if isinstance(result, Translation):
        rights = zip("rwx", (result.readable, result.writable, result.executable), strict=True)
        return f"allowed: physical {result.physical:#x}, {''.join(r if has else '-' for r, has in rights)}"
    if result.vector == Vector.PF:
        return f"#PF, error code {result.error_code:#x} ({error_names(result.error_code)}): {result.reason}"
    return f"{vector_name(result.vector)}(0): {result.reason}"


def walk_text(walked: Walk) -> str:
    """The entries that were read, a line each, the one that refuses marked, and the verdict."""
    result, mode = walked.result, walked.state.mode
    who = "user code (ring 3)" if walked.user else "the kernel (ring 0)"
    lines = [f"{DOING[walked.access]} of {result.linear:#x} by {who}, CR3 {walked.state.root:#x}:"]
    refusing = _refusing(result)
    for depth, step in enumerate(result.steps):
        lines.append(
            f"  {step.level:<6} [{mode.levels[depth].index(result.linear):>3}] {step.entry:0{2 * mode.entry_bytes}x}"
            f"  {_refers(mode, depth, step):<20} {' '.join(bit_names(step.entry)) or '-'}"
            f"{'   <- refuses' if step.level == refusing else ''}"
        )
    return "\n".join([*lines, f"  {verdict(result)}"])


def walk_facts(walked: Walk) -> dict[str, Any]:
    """The same for JSON; addresses and entries are text in hexadecimal."""
    result, mode = walked.result, walked.state.mode
    refusing = _refusing(result)
    return {
        "address": f"{result.linear:#x}",
        "access": DOING[walked.access],
        "as": "user" if walked.user else "kernel",
        "cr3": f"{walked.state.root:#x}",
        "allowed": walked.allowed,
        "verdict": verdict(result),
        "steps": [
            {
                "level": step.level,
                "index": mode.levels[depth].index(result.linear),
                "entry_at": f"{step.entry_address:#x}",
                "entry": f"{step.entry:#x}",
                "bits": bit_names(step.entry),
                "refuses": step.level == refusing,
            }
            for depth, step in enumerate(result.steps)
        ],
    }
