"""A fault as a test looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmuemu.testing.space import Space, of_process
from mmuemu.testing.walks import DOING, Walk, error_names, walk_facts, walk_text
from mmuemu.view.fault import access_of, describe, region_of
from mmuemu.x86.exceptions import Vector, vector_name

if TYPE_CHECKING:
    from mmuemu.cpu.traps import Trap
    from mmuemu.guestprocess import GuestProcess
    from mmuemu.kernel.events import FaultEvent


@dataclass(frozen=True, slots=True)
class Fault:
    """An exception that nothing resolved; ``address``, ``access``, ``error`` and ``walk`` are those of a page fault."""

    vector: int
    error_code: int
    rip: int
    ring: int
    address: int | None = None
    rule: str = ""
    """Which rule refused the access, in words."""
    region: str = ""
    instruction: str = ""
    walk: Walk | None = None
    """The walk of the refused access, made after the fault."""

    @property
    def name(self) -> str:
        """``"#PF"``."""
        return vector_name(self.vector)

    @property
    def error(self) -> str:
        """The bits of a page fault's error code by name, ``"P|W|U"`` (``"0"``: none); else the number."""
        return error_names(self.error_code) if self.vector == Vector.PF else f"{self.error_code:#x}"

    @property
    def access(self) -> str:
        """``"read"``, ``"write"`` or ``"execute"``; empty when it is no page fault."""
        return DOING[access_of(self.error_code)] if self.vector == Vector.PF else ""

    def __str__(self) -> str:
        text = f"{self.name} error {self.error} at rip {self.rip:#x} in ring {self.ring}"
        if self.address is not None:
            text += f", {self.access} of {self.address:#x}"
        if self.region:
            text += f" {self.region}"
        if self.rule:
            text += f": {self.rule}"
        return f"{text} ({self.instruction})" if self.instruction else text

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "vector": self.name,
            "error_code": self.error_code,
            "error": self.error,
            "address": None if self.address is None else f"{self.address:#x}",
            "access": self.access or None,
            "rip": f"{self.rip:#x}",
            "ring": self.ring,
            "rule": self.rule or None,
            "region": self.region or None,
            "instruction": self.instruction or None,
            "walk": None if self.walk is None else walk_facts(self.walk),
        }

    @property
    def walk_text(self) -> str:
        """The walk, level by level; empty when there is none."""
        return "" if self.walk is None else walk_text(self.walk)


def of_trap(trap: Trap, space: Space) -> Fault:
    """The fault behind a trap that reached a machine without a kernel."""
    if trap.vector != Vector.PF:
        return Fault(trap.vector, trap.error_code, trap.rip, trap.cpl)
    walked = space.walk(trap.address, access_of(trap.error_code), user=bool(trap.error_code & 4))
    rule = "" if walked.allowed else walked.result.reason  # type: ignore[union-attr]
    return Fault(trap.vector, trap.error_code, trap.rip, trap.cpl, trap.address, rule, walk=walked)


def fatal(process: GuestProcess) -> Fault | None:
    """The exception that killed a process; None when none did."""
    task = process.process.leader
    death = process.process.death
    if task is None or death is None or death.trap is None:
        return None
    trap, facts = death.trap, describe(process.machine.kernel, task)
    walked = None
    if trap.vector == Vector.PF:
        walked = of_process(process).walk(trap.address, access_of(trap.error_code), user=True)
    return Fault(
        trap.vector,
        trap.error_code,
        trap.rip,
        trap.cpl,
        facts.get("address"),
        facts.get("rule") or death.reason,
        facts.get("region") or facts["rip_region"],
        facts["instruction"] or "",
        walked,
    )


def refused(event: FaultEvent) -> Fault:
    """A page fault that ends in a signal, whether the program handles that or not."""
    task = event.task
    space = Space("", task.kernel.ram, task, None)
    walked = space.walk(event.address, access_of(event.error_code), user=True)
    rule = "" if walked.allowed else walked.result.reason  # type: ignore[union-attr]
    return Fault(
        Vector.PF, event.error_code, task.kernel.cpu.rip, 3, event.address, rule, region_of(task, event.address),
        walk=walked,
    )  # fmt: skip


__all__ = ["Fault", "fatal", "of_trap", "refused"]
