"""Which mitigations are in force, and what the kernel tells the CPU's hidden state of what it does.

Caches, predictors and buffers belong to the model of a CPU, which the kernel does not know: it speaks to
:class:`HiddenState`. ``verw``, ``rsb-fill``, ``lfence``, ``nospec`` and ``retpoline`` are instructions of the kernel's
ring-0 code (:mod:`mmuemu.kernel.alternatives`), ``kpti``, ``smap`` and ``pte-inversion`` the state of page tables and
control registers: the model sees them as any processor would. Writes to model-specific registers are calls here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

    from mmuemu.kernel.task import Task


class HiddenState(Protocol):
    """What a CPU keeps that no instruction can read; all addresses are physical, sizes in bytes."""

    def touch(self, physical: int, size: int, write: bool) -> None:
        """The kernel, which is Python, read or wrote that memory: its lines are as if ring 0 code had."""

    def switch(self, context: int) -> None:
        """The process with number ``context`` runs from now on."""

    def ibpb(self) -> None:
        """IA32_PRED_CMD.IBPB: older branches do not steer younger indirect ones."""

    def flush_l1d(self) -> None:
        """IA32_FLUSH_CMD.L1D_FLUSH: the first-level data cache is written back and emptied."""

    def set_ssbd(self, on: bool) -> None:
        """IA32_SPEC_CTRL.SSBD: whether loads wait for the addresses of all older stores."""


class Hardening:
    """The mitigations of one kernel, by name, and the calls they make when a task is put on the CPU.

    Where the choice is Linux's: arch/x86/mm/tlb.c (``cond_mitigation``), arch/x86/kernel/process.c
    (``__speculation_ctrl_update``).
    """

    __slots__ = ("_barrier", "_context", "_empty", "flush_l1d", "ibpb", "names", "smap", "ssbd")

    def __init__(self, names: Collection[str] | None) -> None:
        """``names`` None: a CPU that does not speculate, on which SMAP is on as ever and the rest pointless."""
        self.names = frozenset(names or ())
        self.smap = names is None or "smap" in self.names
        self.ibpb = "ibpb" in self.names
        self.ssbd = "ssbd" in self.names
        self.flush_l1d = "l1d-flush" in self.names
        self._context = 0
        """The process that ran last."""
        self._barrier = False
        """That process asked for a barrier behind it."""
        self._empty = False
        """It asked for an empty L1 behind it."""

    def switch(self, hidden: HiddenState, task: Task) -> None:
        """``task`` is put on the CPU.

        Another process: IBPB, if ``ibpb`` is in force (as with spectre_v2_user=on) or one of the two asked for it by
        prctl, and an empty L1 with ``l1d-flush`` or if the one before asked for it. SSBD is the task's choice unless
        ``ssbd`` is in force.
        """
        if task.pid != self._context:
            self._context = task.pid
            hidden.switch(task.pid)
            if self.ibpb or task.ibpb or self._barrier:
                hidden.ibpb()
            if self.flush_l1d or self._empty:
                hidden.flush_l1d()
        self.asked(hidden, task)

    def asked(self, hidden: HiddenState, task: Task) -> None:
        """What ``task``, which runs, asked for by prctl counts from now on."""
        self._barrier, self._empty = task.ibpb, task.l1d_flush
        hidden.set_ssbd(self.ssbd or task.ssbd)
