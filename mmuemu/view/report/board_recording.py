"""Recording a bare machine for its report: exceptions, interrupts, address spaces, devices, its memory at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mmuemu.cpu.window import Q_CR0, Q_CR3, Q_CR4, Q_EFER
from mmuemu.devices.serial import COM1
from mmuemu.errors import UsageError
from mmuemu.mmu.state import PagingState
from mmuemu.view.report.board_maps import Ground, Place, physical_regions, space_regions
from mmuemu.view.report.data import Budget, level_facts, map_facts, tables_facts
from mmuemu.view.report.events import CONTROL, DEVICE, EXCEPTION, FAULT, FLUSH, INTERRUPT, SWITCH, EventLog
from mmuemu.view.tables import Table, read_paging
from mmuemu.x86.exceptions import Vector, vector_name
from mmuemu.x86.paging import PAGE_SIZE
from mmuemu.x86.registers import CR0_PG, MSR_EFER

if TYPE_CHECKING:
    from mmuemu.cpu.bare import BareMetal
    from mmuemu.cpu.delivery import Event
    from mmuemu.devices.bus import Access
    from mmuemu.devices.platform import Platform
    from mmuemu.view.regions import Region

MOST_SPACES: Final = 64
"""Address spaces whose memory is kept."""
MOST_TABLES: Final = 2048
"""Page tables of all address spaces that are read."""
_MOST_TOLD: Final = 4
"""Accesses to one device, one after the other, that are told one by one."""
_MOST_LETTERS: Final = 120
_LETTERS: Final = frozenset(b"\n\t" + bytes(range(0x20, 0x7F)))
_OFF: Final = -1
"""The key of addresses that are physical: paging is off."""
_PAGE_FAULT_BITS: Final = ((8, "reserved bit"), (32, "protection key"), (1, "protection"))


class _Space:
    """One address space that was seen: its number, and the registers that it last ran with."""

    def __init__(self, number: int, time: int) -> None:
        self.number = number
        self.first = self.last = time
        self.loads = 0
        self.state: PagingState | None = None


class _Accesses(NamedTuple):
    """Accesses to one device, one after the other: the event's row, what they are."""

    device: str
    row: int
    told: list[str]
    counts: list[int]
    letters: bytearray


class BoardRecording:
    """Records what a bare machine does until :meth:`close`. ``now`` gives its time in ns, ``places`` what was
    loaded.

    With a ``log`` of None no events are kept, only what its address spaces are in the end.
    """

    kernel_tables: dict[str, Any] | None = None

    def __init__(
        self, bare: BareMetal, pc: Platform, now: Callable[[], int], places: Sequence[Place], log: EventLog | None
    ) -> None:
        self.log = EventLog(0) if log is None else log
        self.processes: dict[int, dict[str, Any]] = {}
        """The maps of the page, by their place in it: the last address space, the others, physical memory."""
        self.regions: list[Region] = []
        """The last address space, or physical memory without paging."""
        self.programs: dict[int, str] = {}
        self.left_out = 0
        self.last_program = ""
        """Whose regions they are, in words."""
        self.ports = tuple(pc.ports.ranges())
        """Which devices have which I/O ports."""
        self._bare, self._pc, self._now = bare, pc, now
        self._places = list(places)
        self._live = bare.cpu.window.live_q
        self._spaces: dict[int, _Space] = {}
        self._accesses: _Accesses | None = None
        self._on = True
        self._undo: list[Callable[[], object]] = []
        assert bare.cpu.privileged is not None
        observers = bare.cpu.privileged.observers
        observers.append(self._changed)
        self._undo.append(partial(observers.remove, self._changed))
        self._space = self._enter(self._key(self._live[Q_CR0], self._live[Q_CR3]), "runs first")
        if log is not None:
            self._listen()

    def _listen(self) -> None:
        """Put hooks where others may have theirs already, which are told as before."""
        bare, engine = self._bare, self._bare.cpu.engine
        former = bare.on_event
        self._undo.append(partial(setattr, bare, "on_event", former))

        def delivered(chain: list[Event]) -> None:
            if former is not None:
                former(chain)
            self._delivered(chain)

        bare.on_event = delivered
        for bus in (self._pc.ports, self._pc.mmio):
            self._undo.append(partial(setattr, bus, "trace", bus.trace))
            bus.trace = partial(self._accessed, "port " if bus is self._pc.ports else "")
        self._undo.append(partial(setattr, engine, "watcher", engine.watcher))
        engine.watcher = self

    def speculation(self) -> None:
        """A board speculates nothing."""

    # -- address spaces ------------------------------------------------------------------------------------------------

    def _key(self, cr0: int, cr3: int) -> int:
        """What tells address spaces apart: the root of their tables."""
        if not cr0 & CR0_PG:
            return _OFF
        state = PagingState(cr3, cr0, self._live[Q_CR4], self._live[Q_EFER])
        try:
            return cr3 & state.mode.root_mask
        except UsageError:
            return _OFF

    def _enter(self, key: int, why: str) -> _Space:
        """The address space ``key`` is what addresses are translated by from now on."""
        time = self._now()
        found = self._spaces.get(key)
        if found is None:
            found = self._spaces[key] = _Space(len(self._spaces) + 1, time)
            self.programs[found.number] = "paging off" if key == _OFF else f"CR3 {key:#x}"
        found.last = time
        found.loads += 1
        self._space = found
        self._end_accesses()
        self.log.off_cpu(time)
        self.log.add(SWITCH, time, found.number, found.number, why)
        self.log.on_cpu(time, found.number, found.number)
        return found

    def _left(self) -> None:
        """Keep the registers that the address space ran with."""
        live = self._live
        self._space.state = PagingState(live[Q_CR3], live[Q_CR0], live[Q_CR4], live[Q_EFER])

    def _changed(self, what: str, old: int, new: int) -> None:
        """A control register, an MSR is about to change, or a translation to be dropped."""
        if what in ("invlpg", "invpcid"):
            self._tell(FLUSH, f"{what} {old:#x}")
            return
        if what not in ("cr0", "cr3"):
            if what != "cr8":
                name = "IA32_EFER" if what == f"msr {MSR_EFER:#x}" else what
                self._tell(CONTROL, f"{name} {old:#x} -> {new:#x}" if what[0] == "c" or old else f"{name} = {new:#x}")
            return
        cr0 = new if what == "cr0" else self._live[Q_CR0]
        key = self._key(cr0, new if what == "cr3" else self._live[Q_CR3])
        before = self._key(self._live[Q_CR0], self._live[Q_CR3])
        if what == "cr0":
            self._tell(CONTROL, f"cr0 {old:#x} -> {new:#x}")
        elif key == before:
            self._tell(
                *((CONTROL, f"cr3 = {new:#x}, paging is off") if key == _OFF else (FLUSH, "cr3 has the same root"))
            )
        if key != before:
            self._left()
            self._enter(key, f"{what} {old:#x} -> {new:#x}")

    # -- other events --------------------------------------------------------------------------------------------------

    def _tell(self, kind: int, text: str) -> None:
        self._end_accesses()
        self.log.add(kind, self._now(), self._space.number, self._space.number, text)

    def flushed(self, cause: str) -> None:
        """All translations are dropped, by mmuemu itself."""
        if cause != "request":
            self._tell(FLUSH, cause)

    def grown(self, entries: int) -> None:
        """The engine's TLB grows."""
        self._tell(FLUSH, f"growth to {entries} entries")

    def filled(self, page: int, access: int, frame: int, permissions: int, ring: int) -> None:
        """Not told."""

    def _delivered(self, chain: list[Event]) -> None:
        first = chain[0]
        names = " -> ".join(map(str, chain))
        if self._bare.shutdown is not None:
            self._tell(EXCEPTION, f"triple fault: {names} from {first.rip:#x}")
        elif first.external:
            name = "NMI" if first.vector == Vector.NMI else f"vector {first.vector:#x}"
            self._tell(INTERRUPT, f"{name}{names[len(str(first)) :]} at {first.rip:#x}")
        elif first.vector == Vector.PF and not first.software:
            self._tell(FAULT, f"{_page_fault(first)}{names[len(str(first)) :]} from {first.rip:#x}")
        else:
            kind = "interrupt by instruction: " if first.software and first.vector >= 32 else ""
            self._tell(EXCEPTION, f"{kind}{names if not kind else vector_name(first.vector)} from {first.rip:#x}")

    def _accessed(self, space: str, access: Access) -> None:
        """An access to a device: those to one device that follow one another are one event."""
        device = access.device or "nobody"
        now = self._accesses
        if now is None or now.device != device or len(now.letters) >= _MOST_LETTERS or now.letters[-1:] == b"\n":
            self._end_accesses()
            row = self.log.add(DEVICE, self._now(), self._space.number, self._space.number, "")
            now = self._accesses = _Accesses(device, row, [], [0, 0], bytearray())
        now.counts[access.write] += 1
        if len(now.told) < _MOST_TOLD:
            what = "write" if access.write else "read"
            now.told.append(f"{what} {space}{access.address:#x} {'=' if access.write else 'gives'} {access.value:#x}")
        if access.write and access.size == 1 and access.address == COM1 and access.value in _LETTERS:
            now.letters.append(access.value)

    def _end_accesses(self) -> None:
        now, self._accesses = self._accesses, None
        if now is None or now.row < 0:
            return
        text = "; ".join(now.told)
        if sum(now.counts) > len(now.told):
            reads, writes = now.counts
            text = f"{reads} read{'' if reads == 1 else 's'}, {writes} write{'' if writes == 1 else 's'}: {text}; ..."
        if now.letters:
            text = f"{now.letters.decode('latin-1')!a}, {text}"
        self.log.finish(now.row, self._now(), f"{now.device}: {text}")

    # -- the end -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the recording: put the hooks back, and look at memory."""
        if not self._on:
            return
        self._on = False
        self._end_accesses()
        self.log.off_cpu(self._now())
        for undo in self._undo:
            undo()
        self._left()
        self._look()

    def _look(self) -> None:
        ram = self._bare.cpu.ram
        devices = [Place(one.first, one.first + one.size, "device", one.name) for one in self._pc.mmio.ranges()]
        ground = Ground(ram.size, devices)
        budget = Budget()
        last = self._space
        spaces = sorted(self._spaces.values(), key=lambda space: (space is not last, space.number))
        frames: dict[int, int] = {}
        tables = MOST_TABLES
        for space in spaces:
            state = space.state
            if state is None or not state.cr0 & CR0_PG:
                continue
            if len(self.processes) >= MOST_SPACES or tables <= 0:
                self.left_out += 1
                continue
            table = read_paging(ram.qwords, state, tables)
            read = {one.physical: _bytes(one, state) for one in table.tables() if not one.note}
            frames |= read
            tables -= len(read)
            regions = space_regions(table, state.mode, ground)
            self._keep(space, state, table, regions, budget)
        physical = physical_regions(ground, self._places, frames)
        self.regions = self.regions or physical
        self.last_program = self.last_program or "physical memory"
        self.processes[len(self.processes)] = {
            **map_facts(physical), "pid": 0, "program": "physical memory", "tables": None, "levels": [],
            "when": "when the run ended",
        }  # fmt: skip

    def _keep(self, space: _Space, state: PagingState, table: Table, regions: list[Region], budget: Budget) -> None:
        mode = state.mode
        name = f"{self.programs[space.number]}, {mode.name} paging"
        if not self.regions:
            self.regions, self.last_program = regions, name
        loads = f"loaded {space.loads} time{'' if space.loads == 1 else 's'}"
        self.processes[len(self.processes)] = {
            **map_facts(regions),
            "pid": space.number,
            "program": name,
            "tables": tables_facts(table, budget),
            "levels": level_facts(mode),
            "cr3": f"{state.cr3:#x}",
            "when": f"as its tables are at the end of the run ({loads})",
        }


def _bytes(table: Table, state: PagingState) -> int:
    """How much memory a table takes."""
    return 32 if table.level == "PDPTE" and not state.mode.levels[0].has_rights else PAGE_SIZE


def _page_fault(event: Event) -> str:
    code = event.error_code
    access = "execute" if code & 16 else "write" if code & 2 else "read"
    why = next((words for bit, words in _PAGE_FAULT_BITS if code & bit), "not present")
    return f"{access} {event.address:#x} in ring {'3' if code & 4 else '0-2'}: {why}, error code {code:#x}"


__all__ = ["BoardRecording"]
