"""One translation of a process, level by level: what each entry says, and which rule refuses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from mmuemu.cpu.window import Q_PKRU
from mmuemu.errors import printable
from mmuemu.kernel.vma import VM_EXEC, VM_READ, VM_WRITE
from mmuemu.mmu.modes import PagingMode
from mmuemu.mmu.state import Access, PageFault, PagingState, Step, Translation
from mmuemu.mmu.walk import walk
from mmuemu.view.entries import bit_names, rights
from mmuemu.view.sheet import Sheet, human
from mmuemu.view.symbols import Names
from mmuemu.x86.exceptions import Vector, vector_name
from mmuemu.x86.paging import ADDRESS_MASK, PAGE_SIZE, FaultBits, P

if TYPE_CHECKING:
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.task import Task

ACCESSES: Final = {"r": Access.READ, "w": Access.WRITE, "x": Access.FETCH}
_DOING: Final = {Access.READ: "read", Access.WRITE: "write", Access.FETCH: "execute"}
_NEEDED: Final = {Access.READ: VM_READ, Access.WRITE: VM_WRITE, Access.FETCH: VM_EXEC}


@dataclass(frozen=True, slots=True)
class Walk:
    """A walk and what it depended on."""

    state: PagingState
    access: Access
    user: bool
    ac: bool
    result: Translation | PageFault
    root: str
    """What CR3 held, in words: whose root it is."""

    @property
    def allowed(self) -> bool:
        """Whether the access goes through."""
        return isinstance(self.result, Translation)


def paging_of(kernel: Kernel, task: Task, *, user: bool) -> PagingState:
    """The paging state under which ``task`` runs in ring 3 (``user``) or in the kernel: its root, its PKRU.

    With page-table isolation each ring has its own root.
    """
    state = kernel.cpu.paging
    table = task.mm.page_table
    if kernel.protection_keys and task is not kernel.current and not task.ended:
        window = kernel.cpu.window
        window.load(task.snapshot)
        state = replace(state, pkru=window.q[Q_PKRU] & 0xFFFF_FFFF)
    return replace(state, cr3=table.user_root if user else table.root)


def walk_of(kernel: Kernel, task: Task, address: int, access: Access, *, user: bool, ac: bool = False) -> Walk:
    """What the MMU says of an access by ``task``: user code, or the kernel (``ac``: between stac and clac)."""
    state = paging_of(kernel, task, user=user)
    result = walk(kernel.ram, state, address, access, user=user, ac=ac)
    return Walk(state, access, user, ac, result, _root_name(task, user))


def other_root(kernel: Kernel, task: Task, shown: Walk) -> Walk | None:
    """The same access on the other of the two roots that page-table isolation gives; None without it."""
    table = task.mm.page_table
    if table.user_root == table.root:
        return None
    state = replace(shown.state, cr3=table.root if shown.user else table.user_root)
    result = walk(kernel.ram, state, shown.result.linear, shown.access, user=shown.user, ac=shown.ac)
    return Walk(state, shown.access, shown.user, shown.ac, result, _root_name(task, not shown.user))


def _root_name(task: Task, user: bool) -> str:
    table = task.mm.page_table
    if table.user_root == table.root:
        return f"root of process {task.pid}"
    return f"{'user' if user else 'kernel'} root of process {task.pid} (page-table isolation)"


# -- words -----------------------------------------------------------------------------------------------------------


def _maps(mode: PagingMode, index: int, step: Step) -> str:
    if not step.entry & P:
        return "nothing" if not step.entry else "not present"
    frame = step.entry & ADDRESS_MASK
    if not mode.maps_page(index, step.entry):
        return f"table {frame:#x}"
    return f"page {frame & -step.size:#x} ({human(step.size)})"


def _refuses(walked: Walk) -> str:
    """The name of the level whose entry refuses; empty where no single entry does (SMEP, SMAP, keys)."""
    result = walked.result
    if isinstance(result, Translation):
        return ""
    first = result.reason.partition(" ")[0]
    return first if any(step.level == first for step in result.steps) else ""


def _flags(state: PagingState) -> str:
    """The bits of the control registers that a walk asks."""
    names = {
        "WP": state.write_protect, "NXE": state.no_execute, "SMEP": state.smep, "SMAP": state.smap,
        "PKE": state.user_keys, "PKS": state.supervisor_keys,
    }  # fmt: skip
    on = [name for name, value in names.items() if value]
    keys = f", PKRU {state.pkru:#x}" if state.user_keys else ""
    return f"{state.mode.name} paging, {' '.join(on) or 'no protection bits'}{keys}"


def error_names(code: int) -> str:
    """``P|W|U`` of a page-fault error code."""
    return "|".join(bit.name or "" for bit in FaultBits if code & bit) or "none"


def verdict(walked: Walk) -> str:
    """What comes of the access, in a line."""
    result = walked.result
    if isinstance(result, Translation):
        what = rights(readable=result.readable, writable=result.writable, executable=result.executable)
        owed = "" if not result.updates else f", sets {_owed(walked, result)}"
        inside = result.physical & result.size - 1
        place = f"physical {result.physical:#x} ({inside:#x} into a page of {human(result.size)})"
        return f"allowed: {place}; the TLB may keep {what}{owed}"
    code = f"error code {result.error_code:#x} ({error_names(result.error_code)})"
    fault = f"#PF, {code}" if result.vector == Vector.PF else f"{vector_name(result.vector)}(0)"
    return f"refused: {result.reason} ({fault})"


def _owed(walked: Walk, result: Translation) -> str:
    levels = {step.entry_address: step.level for step in result.steps}
    named = []
    for address, bits in result.updates:
        names = "+".join(bit_names(bits, page=True))
        named.append(f"{names} in {levels.get(address, hex(address))}")
    return ", ".join(named)


def aftermath(task: Task, walked: Walk) -> str:
    """What the kernel would make of the fault; empty for an access that is allowed, or not the user's."""
    result = walked.result
    if isinstance(result, Translation) or not walked.user:
        return ""
    if result.vector != Vector.PF or result.linear >= task.mm.task_size:
        return "the kernel would send SIGSEGV"
    found = task.mm.vmas.find(result.linear)
    vma = found or task.mm.growing(result.linear)
    if vma is None:
        return "no area of the process is there: the kernel would send SIGSEGV"
    if not vma.flags & _NEEDED[walked.access] or result.error_code & FaultBits.PK:
        return f"the area is {vma.permissions}: the kernel would send SIGSEGV"
    if result.error_code & FaultBits.P:
        return f"the area is {vma.permissions}: the kernel would give the process a page of its own (copy on write)"
    what = "map the page" if found else "grow the stack above down to it"
    return f"the area is {vma.permissions}: the kernel would {what} and have the access repeated"


def _mark(walked: Walk, step: Step, level: str) -> str:
    return "<- refuses" if step.level == level else ""


def walk_sheet(walked: Walk) -> Sheet:
    """The entries that were read, a row each."""
    mode = walked.state.mode
    sheet = Sheet(("level", ">index", ">entry at", ">entry", "refers to", "bits", ""))
    refusing = _refuses(walked)
    for index, step in enumerate(walked.result.steps):
        page = mode.maps_page(index, step.entry)
        names = bit_names(step.entry, page=page, large=page and step.size > PAGE_SIZE) if step.entry & P else ()
        mark = _mark(walked, step, refusing)
        sheet.add(
            step.level,
            str(mode.levels[index].index(walked.result.linear)),
            f"{step.entry_address:#x}",
            f"{step.entry:0{2 * mode.entry_bytes}x}",
            _maps(mode, index, step),
            " ".join(names) or "-",
            mark,
            style="bold red" if mark else "",
        )
    return sheet


def walk_parts(kernel: Kernel, task: Task, walked: Walk, *, second: Walk | None = None) -> list[str | Sheet]:
    """A walk for people, then the one on the other root."""
    address = walked.result.linear
    name = Names(kernel).place(task.pid, address)
    who = "user code (ring 3)" if walked.user else "the kernel (ring 0)"
    named = f" ({printable(name)})" if name else ""
    ac = ", EFLAGS.AC = 1" if walked.ac else ""
    parts: list[str | Sheet] = [
        f"{_DOING[walked.access]} of {address:#x}{named} by {who}{ac}, process {task.pid} {printable(task.exe)}\n",
        f"{_flags(walked.state)}\n",
    ]
    for each in [walked] if second is None else [walked, second]:
        aside = ", for comparison" if each is second else ""
        parts.append(f"CR3 {each.state.root:#x}: {each.root}{aside}\n")
        if each.result.steps:
            parts.append(walk_sheet(each))
        parts.append(f"{'on that root ' if aside else ''}{verdict(each)}\n")
    after = aftermath(task, walked)
    return [*parts, f"{after}\n"] if after else parts


def walk_facts(walked: Walk) -> dict[str, Any]:
    """A walk for JSON: addresses and entries are text in hexadecimal."""
    mode, result = walked.state.mode, walked.result
    refusing = _refuses(walked)
    facts: dict[str, Any] = {
        "address": f"{result.linear:#x}",
        "access": _DOING[walked.access],
        "as": "user" if walked.user else "kernel",
        "mode": mode.name,
        "cr3": f"{walked.state.root:#x}",
        "root": walked.root,
        "allowed": walked.allowed,
        "steps": list(_steps(walked, refusing)),
    }
    if isinstance(result, Translation):
        facts |= {
            "physical": f"{result.physical:#x}",
            "page_size": result.size,
            "rights": rights(readable=result.readable, writable=result.writable, executable=result.executable),
        }
        return facts
    return facts | {
        "exception": vector_name(result.vector),
        "error_code": result.error_code,
        "error_bits": [bit.name for bit in FaultBits if result.error_code & bit],
        "reason": result.reason,
        "refused_by": refusing or None,
    }


def _steps(walked: Walk, refusing: str) -> Iterable[dict[str, Any]]:
    mode = walked.state.mode
    for index, step in enumerate(walked.result.steps):
        page = mode.maps_page(index, step.entry)
        yield {
            "level": step.level,
            "index": mode.levels[index].index(walked.result.linear),
            "entry_at": f"{step.entry_address:#x}",
            "entry": f"{step.entry:#x}",
            "bits": list(bit_names(step.entry, page=page, large=page and step.size > PAGE_SIZE)),
            "present": bool(step.entry & P),
            "page": page,
            "frame": f"{step.entry & ADDRESS_MASK & (-step.size if page else -1):#x}" if step.entry & P else None,
            "refuses": step.level == refusing,
        }


__all__ = [
    "ACCESSES", "Walk", "aftermath", "error_names", "other_root", "paging_of", "verdict", "walk_facts", "walk_of",
    "walk_parts", "walk_sheet",
]  # fmt: skip
