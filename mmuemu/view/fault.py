"""Why a guest died, in one readable line: the access, the ring, the rule, the region, the instruction."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from mmuemu.cpu.decode import disassemble
from mmuemu.kernel.abi.errno import SyscallError
from mmuemu.kernel.abi.signals import CODE_NAMES, Signal, signal_name
from mmuemu.kernel.maps import area_name
from mmuemu.kernel.vma import VM_GROWSDOWN
from mmuemu.mmu.state import Access, PageFault
from mmuemu.mmu.walk import walk
from mmuemu.x86.exceptions import TITLES, Vector, vector_name
from mmuemu.x86.paging import PAGE_SIZE, FaultBits, is_canonical

if TYPE_CHECKING:
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.task import Task
    from mmuemu.kernel.vma import Vma

LONGEST_INSTRUCTION: Final = 15
_DOING = {Access.READ: "read", Access.WRITE: "write", Access.FETCH: "execute"}


def access_of(error_code: int) -> Access:
    """The kind of access a page-fault error code tells."""
    if error_code & FaultBits.I:
        return Access.FETCH
    return Access.WRITE if error_code & FaultBits.W else Access.READ


def _permissions(vma: Vma) -> str:
    return "".join(letter if vma.flags & bit else "-" for bit, letter in ((1, "r"), (2, "w"), (4, "x")))


def _named(task: Task, vma: Vma) -> str:
    name = area_name(task.mm, vma) or "anonymous memory"
    return f"{name} ({vma.start:#x}-{vma.end:#x} {_permissions(vma)})"


def region_of(task: Task, address: int) -> str:
    """The region that ``address`` is in, or the nearest one and how far away it is."""
    layout = task.mm.layout
    if address >= layout.user_top:
        if not is_canonical(address, layout.linear_bits):
            return "at no canonical address"
        return "in the kernel half" if address >= layout.kernel_start else "above the top of user space"
    below = above = None
    for vma in task.mm.vmas:
        if vma.start <= address < vma.end:
            return f"in {_named(task, vma)}"
        if vma.end <= address:
            below = vma
        elif above is None:
            above = vma
    if address < 0x1000:
        return "in the null page"
    near = []
    if below is not None:
        near.append((address - below.end, f"{address - below.end:#x} bytes past the end of {_named(task, below)}"))
    if above is not None:
        near.append((above.start - address, f"{above.start - address:#x} bytes below {_named(task, above)}"))
    return f"in no region, {min(near)[1]}" if near else "in no region"


def _rule(kernel: Kernel, task: Task, address: int, access: Access) -> str:
    """Which rule refused the access: the entry of the walk, or the region's own permissions."""
    ring_3 = replace(kernel.cpu.paging, cr3=task.mm.page_table.user_root)
    found = walk(kernel.ram, ring_3, address, access, user=True)
    if not isinstance(found, PageFault):
        return "the entry was stale"
    if found.error_code & FaultBits.P or address >= task.mm.task_size:
        return found.reason
    vma = task.mm.vmas.find(address)
    if vma is None:
        above = task.mm.vmas.at_or_above(address)
        if above is not None and above.flags & VM_GROWSDOWN and above.end - address > task.mm.stack_limit:
            return f"the stack may not grow beyond its limit of {task.mm.stack_limit >> 10} KiB"
        return f"nothing is mapped there: {found.reason}"
    if task.death is not None and task.death.signal == Signal.SIGBUS:
        return "the page lies beyond the end of the mapped file"
    needed = {Access.READ: 1, Access.WRITE: 2, Access.FETCH: 4}[access]
    if vma.flags & 7 == 0:
        return "the region is PROT_NONE"
    if not vma.flags & needed:
        return f"the region is {_permissions(vma)}"
    return found.reason


def _code(task: Task, address: int) -> bytes:
    """The bytes of an instruction, fewer where the page behind it is not there."""
    size = min(LONGEST_INSTRUCTION, PAGE_SIZE - (address & PAGE_SIZE - 1))
    code = b""
    try:
        code = task.memory.peek(address, size)
        if size < LONGEST_INSTRUCTION:
            code += task.memory.peek(address + size, LONGEST_INSTRUCTION - size)
    except SyscallError:
        pass
    return code


def describe(kernel: Kernel, task: Task) -> dict[str, Any]:
    """The facts of a death, for people and for scripts (JSON)."""
    death = task.death
    assert death is not None
    facts: dict[str, Any] = {"signal": signal_name(death.signal), "number": int(death.signal)}
    if death.reason:
        facts["reason"] = death.reason
    trap = death.trap
    if trap is None:
        return facts
    code = _code(task, trap.rip)
    facts |= {
        "code": CODE_NAMES.get((death.signal, death.code), "SI_KERNEL" if death.code == 0x80 else str(death.code)),
        "exception": vector_name(trap.vector),
        "error_code": trap.error_code,
        "rip": trap.rip,
        "ring": trap.cpl,
        "instruction": (disassemble(code, trap.rip) or f"{code[:8].hex(' ')} (no instruction)") if code else None,
        "rip_region": region_of(task, trap.rip),
    }
    if trap.vector == Vector.PF:
        access = access_of(trap.error_code)
        facts |= {
            "address": trap.address,
            "access": _DOING[access],
            "rule": death.reason or _rule(kernel, task, trap.address, access),
            "region": region_of(task, trap.address),
        }
    return facts


def explain(kernel: Kernel, task: Task) -> str:
    """One line for people."""
    facts = describe(kernel, task)
    name = facts["signal"]
    if "exception" not in facts:
        return f"killed by {name}" + (f": {facts['reason']}" if "reason" in facts else "")
    instruction = facts["instruction"] or "no instruction there"
    where = f"at {facts['rip']:#x}: {instruction}"
    if "address" not in facts:
        title = TITLES.get(task.death.trap.vector, "software interrupt") if task.death and task.death.trap else ""
        return (
            f"{name} ({facts['code']}): {facts['exception']} {title}, error code {facts['error_code']:#x}, "
            f"in ring {facts['ring']}, {facts['rip_region']}, {where}"
        )
    return (
        f"{name} ({facts['code']}): ring {facts['ring']} tried to {facts['access']} {facts['address']:#x}, "
        f"{facts['region']}: {facts['rule']} (#PF error code {facts['error_code']:#x}), {where}"
    )
