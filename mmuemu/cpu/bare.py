"""A CPU without a kernel of ours: exceptions, interrupts and system calls go to the guest's own handlers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from unicorn import x86_const as x86

from mmuemu.cpu import window
from mmuemu.cpu.delivery import Delivery, Event, TripleFault
from mmuemu.cpu.emulated import emulate
from mmuemu.cpu.inline import Inline
from mmuemu.cpu.privileged import Privileged
from mmuemu.cpu.rings import put_protected_ring, put_ring
from mmuemu.cpu.traps import Trap
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.msrs import MSR_SYSENTER_CS, MSR_SYSENTER_EIP, MSR_SYSENTER_ESP
from mmuemu.x86.registers import DR6_BS, EFER_LMA, EFER_SCE, RFLAGS_IF, RFLAGS_VM

if TYPE_CHECKING:
    from mmuemu.cpu.cpu import Cpu


class Ports(Protocol):
    """Where ``in`` and ``out`` go."""

    def read(self, port: int, size: int) -> int:
        """``size`` bytes from ``port``."""

    def write(self, port: int, size: int, value: int) -> None:
        """``size`` bytes to ``port``."""


class _NoPorts:
    def read(self, port: int, size: int) -> int:
        return (1 << 8 * size) - 1

    def write(self, port: int, size: int, value: int) -> None:
        return None


class BareMetal:
    """The trap handler of a bare machine: delivers through the IDT.

    ``on_event`` is called with every chain of events delivered (tracing); a triple fault stops the run and is kept in
    ``shutdown``. ``before_trap`` is asked before an exception or a software interrupt; True: it is not delivered.
    """

    def __init__(self, cpu: Cpu, ports: Ports | None = None) -> None:
        self.cpu = cpu
        self.ports: Ports = ports or _NoPorts()
        self.delivery = Delivery(cpu)
        self.on_event: Callable[[list[Event]], None] | None = None
        self.before_trap: Callable[[Trap], bool] | None = None
        self.shutdown: TripleFault | None = None
        self.nmi_blocked = False
        cpu.handler = self
        cpu.privileged = Privileged(cpu)
        cpu.inline = Inline(self, cpu.privileged)
        cpu.window.save()
        cpu.window.q[window.Q_XCR0] = 1
        cpu.window.restore()

    def page_fault(self, page: int, error_code: int) -> int:
        """Page faults are the guest's own business."""
        return 0

    def trap(self, trap: Trap) -> None:
        """Deliver an exception or a software interrupt to the guest."""
        if trap.vector == Vector.UD and not trap.software:
            left = emulate(self.cpu, trap)
            if left is None:
                return
            trap = left
        if self.before_trap is not None and self.before_trap(trap):
            return
        self.deliver(
            Event(
                trap.vector,
                trap.error_code,
                trap.rip,
                trap.address,
                software=trap.software,
                start=self._start(trap) if trap.software else None,
                fault=trap.is_fault or self._is_instruction_breakpoint(trap),
            )
        )

    def _is_instruction_breakpoint(self, trap: Trap) -> bool:
        """Whether a #DB is the fault of an instruction breakpoint (SDM volume 3, 17.3.1.1), to be resumed with RF."""
        if trap.vector != Vector.DB:
            return False
        uc = self.cpu.uc
        hit, enabled = uc.reg_read(x86.UC_X86_REG_DR6), uc.reg_read(x86.UC_X86_REG_DR7)
        executed = any(hit >> number & 1 and not enabled >> 16 + 4 * number & 3 for number in range(4))
        return executed and not hit & DR6_BS

    def _start(self, trap: Trap) -> int:
        """Where the INT3, INTO or INT n before ``trap.rip`` begins."""
        last = self.cpu.read_linear(trap.rip - 1, 1)
        return trap.rip - (1 if last in (b"\xcc", b"\xce") and trap.vector in (Vector.BP, Vector.OF) else 2)

    def interrupt(self, vector: int, *, nmi: bool = False) -> None:
        """Deliver an external interrupt (the caller has checked :attr:`interruptible`)."""
        if nmi:
            self.block_nmi()
        self.deliver(Event(vector, 0, self.cpu.rip, external=True))

    def block_nmi(self) -> None:
        """No NMI until the next IRET."""
        if self.cpu.privileged is not None:
            self.nmi_blocked = True
            self.cpu.privileged.at_next_iret(self._unblock_nmi)

    def _unblock_nmi(self) -> None:
        """The next IRET, whoever's it is, lets NMIs in again (SDM volume 3, 6.7.1)."""
        self.nmi_blocked = False
        self.cpu.stop_soon()

    @property
    def interruptible(self) -> bool:
        """Whether a maskable interrupt may be delivered now: IF is set and no STI or MOV SS shadow is on."""
        state = self.cpu.window
        state.save()
        return bool(state.q[window.Q_RFLAGS] & RFLAGS_IF) and not state.d[window.D_HFLAGS] & window.HFLAG_INHIBIT_IRQ

    def deliver(self, event: Event) -> None:
        """Enter the guest's handler; a triple fault stops the run."""
        try:
            chain = self.delivery.deliver(event)
        except TripleFault as fault:
            self.shutdown = fault
            chain = fault.chain
            self.cpu.stop()
        if self.on_event is not None:
            self.on_event(chain)

    def syscall(self) -> None:
        """``syscall``: into ring 0 at LSTAR when EFER.SCE is set and the code is 64-bit, else #UD."""
        state = self.cpu.window
        state.save()
        if state.q[window.Q_EFER] & EFER_SCE and state.d[window.D_HFLAGS] & window.HFLAG_CS64:
            self.cpu.enter_kernel()
        else:
            self.cpu.raise_trap(
                Trap(Vector.UD, 0, state.q[window.Q_RIP], 0, state.d[window.D_HFLAGS] & 3), state.snapshot()
            )

    def sysenter(self) -> None:
        """``sysenter`` (SDM volume 2): ring 0 at IA32_SYSENTER_EIP; #GP(0) while IA32_SYSENTER_CS is null."""
        cpu = self.cpu
        selector = cpu.uc.msr_read(MSR_SYSENTER_CS) & 0xFFFC
        stack, entry = cpu.uc.msr_read(MSR_SYSENTER_ESP), cpu.uc.msr_read(MSR_SYSENTER_EIP)
        flags = cpu.rflags
        state = cpu.window
        state.save()
        length = cpu.fast_calls.length(state.q[window.Q_RIP])
        state.save()
        if not selector:
            trap = Trap(Vector.GP, 0, state.q[window.Q_RIP], 0, state.d[window.D_HFLAGS] & 3)
            cpu.raise_trap(trap, state.snapshot())
            return
        if state.q[window.Q_EFER] & EFER_LMA:
            put_ring(state, 0, selector, selector + 8)
        else:
            put_protected_ring(state, selector, selector + 8)
        state.set_rflags(flags & ~(RFLAGS_IF | RFLAGS_VM))
        state.q[window.Q_RSP] = stack
        # The engine adds the length of the instruction to whatever the hook leaves.
        state.q[window.Q_RIP] = entry - length
        state.restore()

    def port_in(self, port: int, size: int) -> int:
        return self.ports.read(port, size)

    def port_out(self, port: int, size: int, value: int) -> None:
        self.ports.write(port, size, value)
