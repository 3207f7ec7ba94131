"""A bare machine: CPU, memory and the devices of a small PC, for kernels of the guest's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Final

from unicorn import UcError, unicorn_const

from mmuemu.cpu import window
from mmuemu.cpu.bare import BareMetal
from mmuemu.cpu.cpu import Cpu, Stop
from mmuemu.cpu.cpuid import DEFAULT, CpuModel
from mmuemu.cpu.delivery import Event
from mmuemu.cpu.ports import map_io
from mmuemu.devices.apic import MsrRefused
from mmuemu.devices.clock import NS_PER_SECOND, InstructionClock
from mmuemu.devices.firmware_tables import firmware_memory
from mmuemu.devices.platform import Platform
from mmuemu.devices.serial import Source
from mmuemu.errors import UsageError
from mmuemu.loader.multiboot import Block, BootPlan, Module, place
from mmuemu.memory.ram import GuestRam
from mmuemu.mmu.state import PagingState
from mmuemu.x86.exceptions import Vector
from mmuemu.x86.paging import PS, RW, SIZE_1G, P
from mmuemu.x86.registers import CR0_ET, CR0_PE, CR0_PG, CR4_PAE, EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE, RFLAGS_IF
from mmuemu.x86.segments import KERNEL_GDT

if TYPE_CHECKING:
    from mmuemu.loader.kernel_image import KernelImage
    from mmuemu.saving.board_snapshots import BoardSnapshot, BoardSnapshots

MOST_MEMORY: Final = 0xC000_0000
"""RAM ends below the devices' addresses, where QEMU's "pc" ends it too."""
BOOT_TABLES: Final = 0x3000
"""Bytes at the end of RAM that hold the page tables and the GDT of a long-mode start."""
TRIPLE_FAULT: Final = 120
HALTED: Final = 122
"""Exit codes; even, since those of the debug-exit port are odd."""
INSTRUCTIONS_PER_US: Final = 100
"""Guest time: the engine executes about so many, and a kernel that polls a timer must not take for ever."""
PORT_COST: Final = INSTRUCTIONS_PER_US
"""What a port access takes on an ISA bus: about a microsecond."""
_NO_CODE: Final = frozenset({unicorn_const.UC_ERR_FETCH_UNMAPPED, unicorn_const.UC_ERR_FETCH_PROT})
_LONGEST_DELAY: Final = 2 * INSTRUCTIONS_PER_US
_FIRST_SLICE: Final = 16
_LONGEST_SLICE: Final = 4096
_FOREVER: Final = 1 << 40
_NMI: Final = 2

TRACE_KINDS: Final = ("exceptions", "cr", "tlb")


@dataclass(slots=True)
class BoardEnd:
    """How a bare machine ended.

    ``kind`` is ``exit`` (debug-exit port), ``shutdown``, ``reset``, ``halted`` (for ever), ``triple fault``,
    ``instructions``, ``timeout``, ``error``, ``killed`` (by a debugger) or ``paused`` (:meth:`Board.pause`, and can go
    on); ``exit_code`` is the command line's; ``reason`` is for people.
    """

    kind: str
    exit_code: int
    reason: str = ""


@dataclass(slots=True)
class BoardOptions:
    """What a bare machine is made of; the serial callbacks are those of :class:`Platform`."""

    memory: int = 128 << 20
    mmu: str = "python"
    serial_out: Callable[[bytes], None] = field(default=lambda data: None)
    serial_in: Source | None = None
    debug_out: Callable[[bytes], None] = field(default=lambda data: None)
    firmware: bool = True
    model: CpuModel = DEFAULT
    seed: int | None = None
    """Delays each device event by up to 2 us of guest time: interrupts fall on other instructions, repeatably."""


class _Ports:
    """Port I/O with the devices' clock brought up to the instruction that does it."""

    def __init__(self, board: Board) -> None:
        self.board = board

    def read(self, port: int, size: int) -> int:
        self.board.catch_up()
        self.board.idle += PORT_COST
        return self.board.pc.ports.read(port, size)

    def write(self, port: int, size: int, value: int) -> None:
        self.board.catch_up()
        self.board.idle += PORT_COST
        self.board.pc.ports.write(port, size, value)


class Board:
    """One CPU with RAM at physical 0 and a QEMU-"pc"-like set of devices.

    Interrupts arrive at exact instruction counts: the devices' clock is the count of executed instructions.
    """

    def __init__(self, options: BoardOptions | None = None) -> None:
        options = options or BoardOptions()
        if not 1 << 20 <= options.memory <= MOST_MEMORY:
            raise UsageError(
                f"a bare machine takes 1M to {MOST_MEMORY >> 20}M of memory, not {options.memory:#x} bytes"
            )
        self.ram = GuestRam(options.memory)
        self._look_at = 0
        """The instruction count before which nothing need be looked at: a limit of the caller's came first."""
        self.cpu = Cpu(self.ram, mmu=options.mmu)
        self.bare = BareMetal(self.cpu, _Ports(self))
        self.pc = Platform(
            options.memory,
            clock=InstructionClock(INSTRUCTIONS_PER_US),
            serial_out=options.serial_out,
            serial_in=options.serial_in,
            debug_out=options.debug_out,
            wake=self._wake,
            firmware=options.firmware,
        )
        model = options.model.on_board(tsc_hz=self.pc.clock.tsc_hz, crystal_hz=NS_PER_SECOND)
        self.cpu.set_model(model)
        assert self.cpu.cpuid is not None
        self.cpu.cpuid.apic_enabled = lambda: self.pc.lapic.enabled
        self._random = None if options.seed is None else Random(options.seed)
        self.idle = 0
        """Instructions' worth of time that passed while the CPU was halted or waited for a port."""
        self.trace: Callable[[str, str], None] | None = None
        self.hold_interrupts = False
        """No interrupt is delivered, whatever is pending: a debugger steps."""
        self.running = False
        self.snapshots: BoardSnapshots | None = None
        """Who takes snapshots, once one was taken."""
        self.options = options
        self._paused = False
        self._slice = _FIRST_SLICE
        self._map_devices()
        if options.firmware:
            for address, data in firmware_memory(model.signature, model.hwcap):
                self.write(address, data)
        self.cpu.tsc = self._tsc
        privileged = self.cpu.privileged
        assert privileged is not None
        privileged.owns_msr = self.pc.owns_msr
        privileged.read_msr = self._read_msr
        privileged.write_msr = self._write_msr
        privileged.read_cr8 = lambda: self.pc.lapic.cr8
        privileged.observers.append(self._observe)
        self.bare.on_event = self._on_event

    # -- memory ----------------------------------------------------------------------------------------

    def write(self, physical: int, data: bytes | memoryview) -> None:
        """Put ``data`` at a physical address of RAM."""
        self.ram.write(physical, data)

    def _map_devices(self) -> None:
        """Everything beyond RAM leads to the bus, where devices come and go; an empty one reads as ones.

        One range, once: for the engine to unmap a large one takes as long as the range has pages.
        """
        mmio, start = self.pc.mmio, self.ram.size

        def read(offset: int, width: int) -> int:
            self.catch_up()
            return mmio.read(start + offset, width)

        def write(offset: int, width: int, value: int) -> None:
            self.catch_up()
            mmio.write(start + offset, width, value)

        map_io(self.cpu, start, (1 << 40) - start, read, write)

    # -- time and devices ------------------------------------------------------------------------------

    def catch_up(self) -> None:
        """Bring the devices' clock up to the instruction that is being executed."""
        self.pc.clock.advance_to(self.cpu.retired + self.idle)

    @property
    def now(self) -> int:
        """Nanoseconds of guest time; the devices' clock may be behind."""
        return (self.cpu.retired + self.idle) * 1000 // INSTRUCTIONS_PER_US

    def _tsc(self) -> int:
        self.catch_up()
        return self.pc.clock.tsc()

    def _wake(self) -> None:
        self._look_at = 0
        self.cpu.stop_soon()

    def _read_msr(self, number: int) -> int | None:
        if number == 0x10:
            return self._tsc()
        if not self.pc.owns_msr(number):
            return None
        self.catch_up()
        try:
            return self.pc.read_msr(number)
        except MsrRefused:
            return -1

    def _write_msr(self, number: int, value: int) -> bool | None:
        if number == 0x10:
            self.catch_up()
            self.pc.clock.set_tsc(value)
            return True
        if not self.pc.owns_msr(number):
            return None
        self.catch_up()
        try:
            self.pc.write_msr(number, value)
        except MsrRefused:
            return False
        return True

    # -- tracing ---------------------------------------------------------------------------------------

    def _observe(self, what: str, old: int, new: int) -> None:
        if what == "cr8":
            self.pc.lapic.cr8 = new
        if self.trace is None:
            return
        kind = "tlb" if what in ("invlpg", "invpcid", "cr3") else "cr"
        text = f"invlpg {old:#x}" if what == "invlpg" else f"{what} {old:#x} -> {new:#x}"
        self.trace(kind, f"{text} at {self.cpu.rip:#x}")

    def _on_event(self, chain: list[Event]) -> None:
        if self.trace is not None:
            delivered = " -> ".join(str(event) for event in chain)
            self.trace("exceptions", f"{delivered} from {chain[0].rip:#x}")

    # -- start states ----------------------------------------------------------------------------------

    def enter_protected(self, entry: int, registers: dict[str, int]) -> None:
        """32-bit protected mode with flat segments and paging off, as multiboot asks for (specification 3.2).

        ``registers`` by their 32-bit names.
        """
        self.cpu.set_flat_protected(CR0_PE | CR0_ET)
        self.cpu.set_idt(0, 0)
        wide = {f"r{name[1:]}": value for name, value in registers.items()}
        self.cpu.set_registers(rip=entry, rflags=2, **wide)

    def enter_long(self, entry: int, registers: dict[str, int]) -> None:
        """64-bit mode on an identity map of the first 512 GiB; tables and GDT lie in the last pages of RAM."""
        base = self.ram.size - BOOT_TABLES
        q = self.ram.qwords
        q[base >> 3] = (base + 0x1000) | P | RW
        for index in range(512):
            q[(base + 0x1000 >> 3) + index] = index * SIZE_1G | P | RW | PS
        for index, entry_bits in enumerate(KERNEL_GDT):
            q[(base + 0x2000 >> 3) + index] = entry_bits
        self.cpu.set_paging(
            PagingState(base, CR0_PG | CR0_PE | CR0_ET, CR4_PAE | 0x600, EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE)
        )
        self.cpu.set_gdt(base + 0x2000, len(KERNEL_GDT) * 8 - 1)
        self.cpu.set_idt(0, 0)
        self.cpu.set_ring(0)
        self.cpu.set_registers(rip=entry, rflags=2, **{"rsp": base, **registers})

    def load(self, image: KernelImage, modules: Sequence[Module] = (), line: str = "") -> BootPlan:
        """Put a kernel, its modules and its command line into memory, and the CPU at its entry. Raises BadImage."""
        memory = self.ram.size
        reserved = [Block(memory - BOOT_TABLES, memory)] if image.kind == "long" else []
        plan = place(image, memory, modules, line, reserved)
        for address, size in plan.zeros:
            self.ram.zero(address, size)
        for address, data in plan.writes:
            self.write(address, data)
        enter = self.enter_long if image.kind == "long" else self.enter_protected
        enter(plan.entry, plan.registers)
        return plan

    # -- running ---------------------------------------------------------------------------------------

    def run(self, *, max_instructions: int | None = None, expired: Callable[[], bool] = lambda: False) -> BoardEnd:
        """Run until the machine ends. ``expired`` is asked when another thread has interrupted the CPU."""
        limit = _FOREVER if max_instructions is None else max_instructions
        self.running = True
        try:
            return self._run(self.cpu.instructions + limit, expired)
        finally:
            self.running = False

    def _run(self, last: int, expired: Callable[[], bool]) -> BoardEnd:
        """Run to the instruction count ``last``, or until the machine ends."""
        cpu = self.cpu
        while True:
            self.catch_up()
            if self._paused:
                self._paused = False
                return BoardEnd("paused", 0)
            end = self._ended(last - cpu.instructions)
            if end is not None:
                return end
            if self._look_at <= cpu.instructions or self.hold_interrupts:
                self._look_at = cpu.instructions + self._deliver_or_wait()
            try:
                stop = cpu.run(max_instructions=min(self._look_at, last) - cpu.instructions)
            except UcError as error:
                self._look_at = 0
                if error.errno not in _NO_CODE:
                    return BoardEnd("error", 125, f"the engine cannot go on at {cpu.rip:#x}: {error}")
                # Nothing answers there: the bus reads ff ff, which is no instruction.
                self.bare.deliver(Event(Vector.UD, 0, cpu.rip, fault=True))
                continue
            if stop is not Stop.LIMIT or self.hold_interrupts:
                self._look_at = 0
            if stop is Stop.INTERRUPTED:
                if expired():
                    return BoardEnd("timeout", 124, "the time is up (--timeout)")
                raise KeyboardInterrupt
            if stop is Stop.HALTED:
                end = self._sleep()
                if end is not None:
                    return end

    def pause(self) -> None:
        """Have :meth:`run` return when the CPU stops next; for debuggers, which stop it themselves."""
        self._paused = True

    @property
    def ended(self) -> bool:
        """Whether the machine will never run on."""
        return self.bare.shutdown is not None or self.pc.ending is not None

    def _ended(self, left: int) -> BoardEnd | None:
        if self.bare.shutdown is not None:
            return BoardEnd("triple fault", TRIPLE_FAULT, f"triple fault: {self.bare.shutdown}")
        ending = self.pc.ending
        if ending is not None:
            return BoardEnd(ending.kind, ending.status & 0xFF)
        if left <= 0:
            return BoardEnd("instructions", 124, "the instruction limit is reached (--max-instructions)")
        return None

    def _pending(self) -> bool:
        return (self.pc.nmi_pending and not self.bare.nmi_blocked) or self.pc.pending_vector(True) is not None

    def _deliver_or_wait(self) -> int:
        """Deliver what can be delivered; how many instructions may run before the next look."""
        if self.hold_interrupts:
            return self._next_event()
        if self.pc.nmi_pending and not self.bare.nmi_blocked:
            self.pc.acknowledge_nmi()
            self.bare.interrupt(_NMI, nmi=True)
        elif self.pc.pending_vector(True) is not None:
            if not self.bare.interruptible:
                # Interrupts are off: look again soon, and less often the longer it takes.
                self._slice = min(self._slice * 2, _LONGEST_SLICE)
                return min(self._slice, self._next_event())
            self.bare.interrupt(self.pc.acknowledge())
        self._slice = _FIRST_SLICE
        return self._next_event()

    def _next_event(self) -> int:
        event = self.pc.clock.next_event_in()
        if event is None:
            return _FOREVER
        return event if self._random is None else event + self._random.randrange(_LONGEST_DELAY)

    def _sleep(self) -> BoardEnd | None:
        """HLT: let time pass to the next event that wakes the CPU, or end."""
        while not self._ended(1):
            if self._pending() and (self.bare.interruptible or self.pc.nmi_pending):
                return None
            step = self.pc.clock.next_event_in()
            flags_if = self.cpu.rflags & RFLAGS_IF
            if step is None or not flags_if:
                why = "no event will ever wake it" if flags_if else "interrupts are off"
                return BoardEnd("halted", HALTED, f"halted for ever at {self.cpu.rip:#x}: {why}")
            if self.cpu.interrupted:
                return None
            self.idle += step
            self.catch_up()
        return None

    # -- snapshots -------------------------------------------------------------------------------------

    def snapshot(self) -> BoardSnapshot:
        """The whole machine as it is now, between two runs. Raises UsageError while it runs, when it has ended, and for
        debug registers that break somewhere.
        """
        if self.snapshots is None:
            from mmuemu.saving.board_snapshots import BoardSnapshots

            self.snapshots = BoardSnapshots(self)
        return self.snapshots.take()

    def restore(self, snapshot: BoardSnapshot) -> None:
        """Be again what this machine was at ``snapshot``, as often as wanted; what went out stays out.

        Raises UsageError while it runs, and for another machine's snapshot.
        """
        if self.snapshots is None:
            raise UsageError("this snapshot is another machine's")
        self.snapshots.restore(snapshot)

    def save(self, path: str) -> None:
        """Write the machine to a file. Raises UsageError as :meth:`snapshot` does, and for a path that takes none."""
        from mmuemu.saving.board_file import save

        save(self, path)

    @classmethod
    def resume(cls, path: str, options: BoardOptions | None = None) -> Board:
        """The machine of a file that :meth:`save` wrote; of ``options`` where its serial lines lead counts. Raises
        UsageError for a file that is damaged, of another version or no bare machine.
        """
        from mmuemu.saving.board_file import resume

        return resume(path, options or BoardOptions())

    # -- reports ---------------------------------------------------------------------------------------

    def state(self) -> dict[str, int]:
        """Registers, control registers and where the tables are, for reports."""
        out = self.cpu.registers()
        self.cpu.window.save()
        q, d = self.cpu.window.q, self.cpu.window.d
        return out | {
            "cr0": q[window.Q_CR0],
            "cr2": q[window.Q_CR2],
            "cr3": q[window.Q_CR3],
            "cr4": q[window.Q_CR4],
            "efer": q[window.Q_EFER],
            "cs": d[window.CS.selector],
            "ss": d[window.SS.selector],
            "ring": d[window.D_HFLAGS] & 3,
            "gdt": q[window.GDT.base],
            "idt": q[window.IDT.base],
            "idt_limit": d[window.IDT.limit],
            "tr": d[window.TR.selector],
        }

    def close(self) -> None:
        """Free what the machine holds of the host."""
        if self.snapshots is not None:
            self.snapshots.close()
        self.cpu.close()
        self.ram.close()
