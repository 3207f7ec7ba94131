"""One CPU: a Unicorn engine with real rings, traps that come back to us, and translation by our tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from unicorn import Uc, UcError, unicorn_const
from unicorn import x86_const as x86

from mmuemu.cpu import library, window
from mmuemu.cpu.breaker import ENDED
from mmuemu.cpu.cpuid import DEFAULT, CpuidUnit, CpuModel
from mmuemu.cpu.engines import ENGINES, Engine
from mmuemu.cpu.fastcall import FastCalls
from mmuemu.cpu.fpstate import FpState
from mmuemu.cpu.implicit import RingThree
from mmuemu.cpu.instructions import install_instructions
from mmuemu.cpu.linear import LinearMemory
from mmuemu.cpu.ports import install_ports
from mmuemu.cpu.privileged import Privileged
from mmuemu.cpu.registers import Registers
from mmuemu.cpu.rings import kernel_entry, put_flat_protected
from mmuemu.cpu.setup import Ram, map_ram, new_uc
from mmuemu.cpu.stop import Stop as Stop
from mmuemu.cpu.stop import Stoppable
from mmuemu.cpu.traps import NoHandler, Trap, TrapHandler
from mmuemu.cpu.window import StateWindow, check_layout
from mmuemu.errors import MmuemuError, UsageError
from mmuemu.mmu.state import PagingState
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.registers import MSR_EFER

if TYPE_CHECKING:
    from mmuemu.cpu.inline import Inline
    from mmuemu.cpu.modelled import ModelledTlb
    from mmuemu.cpu.transient import Transient

DEFAULT_CONTROLS: Final = PagingState(cr3=0, cr0=0x8001_0033, cr4=0x0005_06A0, efer=0xD01)
"""Paging with WP, NX and global pages on; SMEP and SMAP are added by whoever has a kernel to protect."""


class Cpu(Registers, Stoppable):
    """An x86-64 CPU over guest RAM.

    ``ram`` is mapped at physical 0. ``mmu`` chooses the translation engine (``python`` or ``native``). ``uc`` may
    be an engine of the caller's (64-bit x86, nothing mapped where RAM goes). ``handler`` takes the traps.
    """

    def __init__(
        self, ram: Ram, *, mmu: str = "python", uc: Uc | None = None, handler: TrapHandler | None = None
    ) -> None:
        if mmu not in ENGINES:
            raise UsageError(f"unknown MMU engine {mmu!r}: choose {' or '.join(ENGINES)}")
        check_layout()
        self.ram = ram
        self.handler: TrapHandler = handler or NoHandler()
        self.owns_uc = uc is None
        self.uc = uc if uc is not None else new_uc()
        Registers.__init__(self, library.handle(self.uc), StateWindow(self.uc))
        Stoppable.__init__(self, self.uc)
        self.fp = FpState(self.window)
        self.hooks = library.Hooks(self.uc)
        self.ram_bytes = ram.qwords.cast("B")
        """Guest RAM by byte."""
        self.instructions = 0
        """Instructions executed in calls of :meth:`run` that had a limit."""
        self.cpuid: CpuidUnit | None = None
        self.pkrs = 0
        """IA32_PKRS, which the engine has no room for (the ``python`` engine obeys it; flush after a change)."""
        self.tsc: Callable[[], int] | None = None
        self.privileged: Privileged | None = None
        """Set to have privileged instructions checked (a kernel of the guest's own runs in ring 0)."""
        self.inline: Inline | None = None
        """Who delivers exceptions from hooks where the guest has handlers of its own."""
        self.tlb: ModelledTlb | None = None
        """The TLB model, if there is one (:func:`mmuemu.cpu.modelled.model_tlb`)."""
        self.transient: Transient | None = None
        """Who models transient execution, if anybody does; instructions are then counted there."""
        self._error: BaseException | None = None
        self._trap: Trap | None = None
        self._trap_state: bytes | None = None
        self._repeats = False
        self._retired = self._limit = 0
        self._until: int | None = None
        map_ram(self.uc, ram)
        self.engine: Engine = ENGINES[mmu](self)
        self.engine.install()
        self.fast_calls, self.ring_three = FastCalls(self), RingThree(self)
        self.enter_kernel = kernel_entry(self)
        """What ``syscall`` does; for the handler, from :meth:`TrapHandler.syscall`."""
        self.peek = LinearMemory(self, peek=True)
        """Linear memory by the saved window and supervisor rights, for looking only."""
        self._install_hooks()
        if self.owns_uc:
            self.set_model(DEFAULT)

    # -- traps ---------------------------------------------------------------------------------------------------

    def _install_hooks(self) -> None:
        hooks = self.hooks
        hooks.add(unicorn_const.UC_HOOK_INTR, library.INTR, self._on_interrupt)
        hooks.add(unicorn_const.UC_HOOK_INSN_INVALID, library.BOOL, self._on_invalid)
        hooks.add(unicorn_const.UC_HOOK_INSN, library.VOID, self._on_syscall, x86.UC_X86_INS_SYSCALL)
        install_instructions(self)
        install_ports(self)

    def _on_interrupt(self, _uc: int, vector: int) -> None:
        try:
            if self.transient is not None and self.transient.abort():
                return
            if self.inline is not None and self.inline.interrupt(vector):
                return
            state = self.window
            state.save()
            d = state.d
            page_fault = vector == Vector.PF
            address = state.q[window.Q_CR2] if page_fault else 0
            error_code = d[window.D_ERROR_CODE]
            cpl = d[window.D_HFLAGS] & 3
            software = d[window.D_IS_INT] != 0
            rip = state.q[window.Q_RIP]
            if page_fault and not software:
                self.engine.count_fault()
                resolved = self.handler.page_fault(address & ~0xFFF, error_code)
            else:
                resolved = False
            d[window.D_OLD_EXCEPTION] = window.NO_EXCEPTION
            state.restore()
            if vector not in _HAS_ERROR_CODE or software:
                error_code = 0
            trap = Trap(vector, error_code, rip, address, cpl, software)
            if not resolved:
                self.raise_trap(trap)
                return
            self._repeats = True
            if not trap.is_fetch:
                self.internals.uncount()
        except BaseException as error:
            self.fail(error)

    def _on_invalid(self) -> bool:
        try:
            if self.transient is not None and self.transient.abort():
                return True
            if self.inline is not None and self.inline.invalid():
                return True
            state = self.window
            self.raise_trap(Trap(Vector.UD, 0, state.live_q[window.Q_RIP], 0, state.live_d[window.D_HFLAGS] & 3))
        except BaseException as error:
            self.fail(error)
        return False

    def goes_on_at(self, rip: int) -> bool:
        """From a hook: whether nothing wants the counted run that is on to end before it is at ``rip``, or there."""
        return (
            self._counting
            and rip != self._until
            and self._trap is None
            and self._stop is None
            and self._error is None
            and not (self._again or self._interrupted or self._kicked)
            and not self.internals.is_cut(self._limit)
        )

    def _on_syscall(self) -> None:
        try:
            self.handler.syscall()
        except BaseException as error:
            self.fail(error)

    def raise_trap(self, trap: Trap, state: bytes | None = None) -> None:
        """From a hook: end emulation and give ``trap`` to the handler (with ``state`` put back first)."""
        if self._trap is None:
            self._trap = trap
            self._trap_state = state
            self._trap_counter = self.internals.counter
        library.emu_stop(self.handle)

    def fail(self, error: BaseException) -> None:
        """From a hook: end emulation and raise ``error`` out of :meth:`run`."""
        if self._error is None:
            self._error = error
        self._leave()

    # -- running -------------------------------------------------------------------------------------------------

    def run(self, *, max_instructions: int | None = None, until: int | None = None) -> Stop:
        """Run from RIP until something stops it; traps go to the handler on the way.

        ``max_instructions`` bounds this call (:attr:`instructions` counts only when it is given). Raises what a
        hook raised, and ``unicorn.UcError`` for a failure of the engine itself.
        """
        self._stop, self._until = None, until
        self._interrupted = False
        self._trap_counter = None
        # An `until` given to emu_start is walked after every stop, and may fault: use the list of exits instead.
        if not self.owns_uc:
            self.uc.ctl_exits_enabled(True)
        self.uc.ctl_set_exits([] if until is None else [until])
        try:
            return self._run(max_instructions, until)
        finally:
            self._counting = False
            if not self.owns_uc:
                self.uc.ctl_exits_enabled(False)

    def _run(self, remaining: int | None, until: int | None) -> Stop:
        if remaining is None and self.privileged is not None:
            remaining = _UNLIMITED  # a stretch can be cut short behind an instruction only while it is counted
        while True:
            if remaining is not None and remaining <= 0:
                return Stop.LIMIT
            limit = remaining if self.transient is None else None
            self._begin(limit is not None)
            if self.breaker is not None and (self._kicked or self._interrupted):
                self._kicked = False
                return Stop.INTERRUPTED if self._interrupted else Stop.KICKED
            self.window.save()
            self.window.gather_flags()
            rip = self.window.q[window.Q_RIP]
            if rip == until:
                return Stop.UNTIL
            if self.privileged is not None:
                self.privileged.prepare(rip)
            if self._counting is not self.engine.counted:
                if self.breaker is not None:
                    self.breaker.count(self._counting)
                self.engine.count(self._counting, rip)
            if self.transient is not None:
                self.transient.begin(remaining)
            self._limit = limit or 0
            status = library.emu_start(self.handle, rip, 0, 0, self._limit)
            self._counting = False
            status = 0 if status == ENDED else status
            if self._repeats:
                # Perhaps the access was not repeated yet, and the translation that it would replace is still cached.
                self._repeats = False
                self.engine.flush("stopped")
            if self._error is not None:
                error, self._error = self._error, None
                self._trap = None
                self.engine.forget_fault()
                raise error
            trap = self.take_trap()
            looked, self.engine.looked = self.engine.looked, False
            if status and looked and trap is None:
                # The refusal is reported when the run ends, whatever ended it.
                status = 0
                self._again = self._again or (remaining is None and self.privileged is None)
            if limit is not None and remaining is not None:
                remaining -= self._count(limit, trap)
            elif self.transient is not None:
                done, undone = self._count_transient(self.transient)
                remaining = None if remaining is None else remaining - done
                if undone:
                    continue
            again, self._again = self._again, False
            if self.privileged is not None:
                if self.privileged.rescan:
                    continue
                trap = trap or self.privileged.breakpoints.take()
            if again and trap is None and self._stop is None and not self._interrupted:
                continue
            if trap is not None and trap.cpl == 3 and trap.vector == Vector.PF:
                trap = self.ring_three.resolve(trap)
                if trap is None:
                    if remaining is not None and self.ring_three.emulated:
                        remaining -= 1
                        self.instructions += 1
                    if self._interrupted:
                        return Stop.INTERRUPTED
                    continue
            if self.engine.permitted is not None:
                self.ring_three.settle()
            if trap is not None:
                if self.transient is not None:
                    self.transient.fault(trap)
                self.handler.trap(trap)
                if isinstance(self.handler, NoHandler):
                    return Stop.REQUESTED
            elif status:
                raise UcError(status)
            elif (
                self._stop is None
                and not self._interrupted
                and not self._kicked
                and (remaining is None or remaining > 0)
            ):
                if self._broken(limit):
                    return Stop.KICKED
                return Stop.UNTIL if until is not None and self.rip == until else Stop.HALTED
            if self._stop is not None:
                return self._stop
            if self._interrupted:
                return Stop.INTERRUPTED
            if self._kicked:
                self._kicked = False
                return Stop.KICKED

    @property
    def retired(self) -> int:
        """Instructions counted so far, those of the stretch that is running included (from a hook)."""
        return self.instructions + (self.internals.counter if self._counting else 0)

    def take_trap(self) -> Trap | None:
        """The trap that ended an ``emu_start`` of the caller's own, once; None when there was none."""
        trap = self._trap or self.engine.take_fault()
        state, self._trap, self._trap_state = self._trap_state, None, None
        if state is not None:
            self.window.load(state)
            self.window.restore()
            # The engine had not evaluated them all in that hook.
            self.window.live_q[window.Q_RFLAGS] |= self.rflags
        if trap is not None and trap.vector == Vector.GP and trap.error_code == 0 and not trap.software:
            trap = self._stack_fault(trap)
        return trap

    def _count(self, limit: int, trap: Trap | None) -> int:
        """Instructions the last stretch executed; one that faulted is not among them (it has no effect)."""
        counter, self._trap_counter = self._trap_counter, None
        if counter is not None:
            self.internals.counter = counter
        if trap is not None and trap.is_fault and not trap.is_fetch:
            self.internals.uncount()
        executed = self.internals.executed(limit)
        if executed is None:
            raise MmuemuError("this Unicorn does not say how many instructions it ran: install unicorn>=2.1.4,<2.2")
        self.instructions += executed
        return executed

    def _count_transient(self, transient: Transient) -> tuple[int, bool]:
        """Instructions that the last stretch executed, and whether it ended in a window, so that it is to go on."""
        self.window.save()
        undone = transient.ended(self.window.q[window.Q_RIP])
        executed = transient.instructions - self._retired
        self._retired = transient.instructions
        self.instructions += executed
        return executed, undone

    def _stack_fault(self, trap: Trap) -> Trap:
        """#SS(0) in place of #GP(0) where a stack access was not canonical (SDM volume 1, section 3.3.7.1)."""
        from mmuemu.cpu.decode import is_non_canonical_stack_access

        self.window.save()
        code = self.read_linear(trap.rip, 15)
        if code and is_non_canonical_stack_access(code, trap.rip, self.window):
            return Trap(Vector.SS, 0, trap.rip, 0, trap.cpl)
        return trap

    # -- state ---------------------------------------------------------------------------------------------------

    def set_flat_protected(self, cr0: int) -> None:
        """32-bit protected mode in ring 0: paging off, flat segments 0x8 and 0x10 (multiboot's state)."""
        uc = self.uc
        uc.reg_write(x86.UC_X86_REG_CR0, cr0)
        uc.reg_write(x86.UC_X86_REG_CR4, 0)
        self.window.save()
        put_flat_protected(self.window, cr0)
        self.window.restore()
        self.engine.flush()

    @property
    def paging(self) -> PagingState:
        """The paging state in force."""
        self.window.save()
        q = self.window.q
        return PagingState(
            q[window.Q_CR3],
            q[window.Q_CR0],
            q[window.Q_CR4],
            q[window.Q_EFER],
            pkru=q[window.Q_PKRU] & 0xFFFF_FFFF,
            pkrs=self.pkrs,
            page_1g=self.page_1g,
        )

    @property
    def model(self) -> CpuModel | None:
        """The CPU model, or None: CPUID is then answered by the (caller's) engine."""
        return None if self.cpuid is None else self.cpuid.model

    @property
    def page_1g(self) -> bool:
        """Whether there are 1 GiB pages."""
        return self.cpuid is None or self.cpuid.model.page_1g

    def set_model(self, model: CpuModel) -> None:
        """Be this model from now on: CPUID, the bits that CR4 and EFER take, MSRs, XCR0.

        Raises UsageError for what the chosen engine cannot do: PKS, or no 1 GiB pages, on ``native``.
        """
        if self.engine.name == "native" and ("pks" in model.features or not model.page_1g):
            what = "obeys no PKS" if "pks" in model.features else "always has 1 GiB pages (pdpe1gb)"
            raise UsageError(f"the native MMU {what}, as CPU model {model.name} wants it: use --mmu python")
        self.cpuid = CpuidUnit(self, model)
        self.engine.forget_rules()
        self.window.save()
        if self.window.q[window.Q_XCR0] & ~model.xcr0:
            self.window.q[window.Q_XCR0] &= model.xcr0
            self.window.restore()
        if self.privileged is not None:
            self.privileged.set_model(model)

    def set_paging(self, state: PagingState) -> None:
        """Load EFER, CR4, CR3 and CR0, in the order that turns paging on, and drop cached translations."""
        uc = self.uc
        uc.msr_write(MSR_EFER, state.efer)
        uc.reg_write(x86.UC_X86_REG_CR4, state.cr4)
        uc.reg_write(x86.UC_X86_REG_CR3, state.cr3)
        uc.reg_write(x86.UC_X86_REG_CR0, state.cr0)
        self.flush_tlb()

    def set_root(self, root: int) -> None:
        """Load CR3 (a physical address), which drops cached translations."""
        self.uc.reg_write(x86.UC_X86_REG_CR3, root)
        self.flush_tlb()

    def flush_tlb(self, cause: str = "request") -> None:
        """Drop every cached translation: after any table change that removes or weakens a present entry."""
        self.engine.flush(cause)
        if self.tlb is not None:
            self.tlb.flush()

    def read_linear(self, address: int, count: int) -> bytes:
        """Up to ``count`` bytes at a linear address by supervisor rights, stopping at the first unmapped page."""
        self.window.save()
        return self.peek.sync().available(address, count)

    def close(self) -> None:
        """Remove the hooks and free the state window; the CPU cannot run afterwards."""
        # The engine looks up what it has translated for a hook that goes away, in tables that may be gone.
        self.engine.probing = True
        self.hooks.close()
        self.engine.size.close()
        self.window.close()
        self.ram_bytes.release()


_UNLIMITED: Final = 1 << 62
_HAS_ERROR_CODE: Final = frozenset({8, 10, 11, 12, 13, 14, 17, 21})
