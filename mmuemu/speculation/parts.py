"""The parts of one core, and what the kernel may do to them (``kernel.hardening.HiddenState``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.cpu.engines import PythonEngine
from mmuemu.cpu.window import D_HFLAGS, FS, GS, Q_CR4
from mmuemu.errors import UsageError
from mmuemu.speculation.blocks import BlockCache
from mmuemu.speculation.buffers import LeakyBuffers
from mmuemu.speculation.caches import LINE_SHIFT, Hierarchy
from mmuemu.speculation.models import CpuSpec
from mmuemu.speculation.noise import Noise
from mmuemu.speculation.operands import Memory
from mmuemu.speculation.predictors import BranchTargets, PatternHistory, ReturnStack
from mmuemu.speculation.scoreboard import Scoreboard
from mmuemu.speculation.translations import Translations, TranslationTimes

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu

_CR4_LA57: Final = 1 << 12
_MASK: Final = (1 << 64) - 1


class Parts:
    """Caches, predictors, buffers and the clock of one CPU. ``flaws`` are those in force."""

    def __init__(
        self, cpu: Cpu, spec: CpuSpec, flaws: frozenset[str], mitigations: frozenset[str], noise: int | None
    ) -> None:
        engine = cpu.engine
        if not isinstance(engine, PythonEngine):
            raise UsageError("speculation follows every translation in Python: use the python engine (--mmu python)")
        self.cpu = cpu
        self.engine = engine
        self.spec = spec
        self.flaws = flaws if spec.speculates else frozenset()
        self.mitigations = mitigations
        self.width = spec.issue_width
        self.noise = None if noise is None else Noise(noise)
        self.caches = Hierarchy(spec)
        self.times = TranslationTimes(spec, self.caches)
        self.translations = Translations(cpu, engine)
        self.buffers = LeakyBuffers(spec, cpu.ram_bytes)
        self.board = Scoreboard(spec, self.caches, self.buffers, self.noise)
        self.pattern = PatternHistory(spec)
        self.targets = BranchTargets(spec)
        self.rsb = ReturnStack(spec)
        self.code = BlockCache(cpu, self.translations, self.pattern.mask)
        self.ssbd = "ssbd" in mitigations
        """Speculative store bypass is disabled."""
        self.context = 0
        """The process that runs."""
        self.leaky = bool(self.flaws & {"msbds", "mlpds"})
        self._by_ring = bool(mitigations & {"ibrs", "eibrs"})
        self._by_process = "stibp" in mitigations
        self._live_q, self._live_d = cpu.window.live_q, cpu.window.live_d

    @property
    def cycles(self) -> int:
        """Cycles since the start."""
        return self.board.cycles

    @property
    def ring(self) -> int:
        """The current privilege level."""
        return self._live_d[D_HFLAGS] & 3

    @property
    def five_levels(self) -> bool:
        """Whether page tables have five levels."""
        return bool(self._live_q[Q_CR4] & _CR4_LA57)

    def linear(self, memory: Memory) -> int:
        """The linear address of a memory operand, by the registers as they are."""
        q = self._live_q
        address = memory.displacement
        if memory.base >= 0:
            address += q[memory.base]
        if memory.index >= 0:
            address += q[memory.index] * memory.scale
        address &= memory.mask
        if memory.segment:
            address += q[(FS if memory.segment == "fs" else GS).base]
        return address & _MASK

    def branch_target(self, address: int) -> int | None:
        """What the BTB says of the branch at ``address``; IBRS tells rings apart, STIBP processes."""
        if self._by_ring or self._by_process:
            ring = 1 if self._by_ring and self.ring == 3 else 0
            self.targets.tag = ring | (self.context << 1 if self._by_process else 0)
        return self.targets.predict(address)

    def return_target(self, address: int) -> tuple[int | None, str]:
        """Where the return at ``address`` is predicted to go, and the flaw of going there."""
        target = self.rsb.pop()
        if target == 0:
            return self.branch_target(address), "v2"
        return target, "rsb"

    # -- what the kernel does to hidden state --------------------------------------------------------------------

    def touch(self, physical: int, size: int, write: bool) -> None:
        """The kernel, which is Python, read or wrote guest RAM."""
        now = self.board.now
        for line in range(physical >> LINE_SHIFT, (physical + max(size, 1) - 1 >> LINE_SHIFT) + 1):
            _, level = self.caches.access(line, now)
            self.caches.arrivals.pop(line, None)
            if level > 1:
                self.buffers.filled(line)
            if write and self.leaky:
                self.buffers.stores.append(line << LINE_SHIFT)

    def switch(self, context: int) -> None:
        """The process with number ``context`` runs from now on."""
        if context != self.context:
            self.context = context
            self.code.enter(context)
            self.times.flush()

    def ibpb(self) -> None:
        """IA32_PRED_CMD.IBPB: older branches do not steer younger indirect ones."""
        self.targets.clear()

    def verw(self) -> None:
        """VERW: with the microcode for it, stale bytes are overwritten."""
        if "md_clear" in self.spec.microcode:
            self.buffers.clear()

    def flush_l1d(self) -> None:
        """IA32_FLUSH_CMD.L1D_FLUSH: the first-level data cache is emptied, and the leaky buffers are as by VERW.

        Linux counts on that (arch/x86/kvm/vmx/vmx.c: "L1D Flush includes CPU buffer clear to mitigate MDS").
        """
        self.caches.flush_l1d()
        self.verw()

    def set_ssbd(self, on: bool) -> None:
        """IA32_SPEC_CTRL.SSBD: whether loads wait for the addresses of all older stores."""
        self.ssbd = on
