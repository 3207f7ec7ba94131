"""What the machine does, as it happens: page faults, the TLB, the scheduler, signals (``--trace``).

Each event is a record, a dict that JSON can hold (docs/reference-trace.md); :func:`text_of` makes a line of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final

from mmuemu.cpu.window import D_HFLAGS
from mmuemu.kernel.abi.signals import CODE_NAMES, SIG_DFL, SIG_IGN, signal_name
from mmuemu.kernel.maps import area_name
from mmuemu.kernel.registers import ORIG_AX
from mmuemu.kernel.vma import VM_MAYSHARE
from mmuemu.x86.paging import ADDRESS_MASK, P

if TYPE_CHECKING:
    from mmuemu.kernel.address_space import AddressSpace
    from mmuemu.kernel.events import FaultEvent, SignalEvent, SwitchEvent
    from mmuemu.kernel.faults import FaultRecord, PagedSpace
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.process import Process
    from mmuemu.kernel.task import Task
    from mmuemu.kernel.vma import Vma

Record = dict[str, Any]

KINDS: Final = ("faults", "tlb", "sched", "signals")
"""What can be asked for; the records' types are these without their plural."""
_WRITE, _FETCH = 2, 16
_ACCESS: Final = ("read", "write", "execute")
_SENDERS: Final = {0: "SI_USER", -1: "SI_QUEUE", -2: "SI_TIMER", -6: "SI_TKILL", 0x80: "SI_KERNEL"}
_CHILD: Final = {1: "CLD_EXITED", 2: "CLD_KILLED", 3: "CLD_DUMPED", 5: "CLD_STOPPED", 6: "CLD_CONTINUED"}
_SIGCHLD: Final = 17


class MachineTracer:
    """Gives a record of each event of the wanted ``kinds`` to ``put``, from now until :meth:`close`."""

    def __init__(self, kernel: Kernel, kinds: Collection[str], put: Callable[[Record], object]) -> None:
        self._kernel = kernel
        self._put = put
        self._on = True
        self.events = 0
        """Records so far."""
        self._start = kernel.clock.now()
        self._live = kernel.cpu.window.live_d
        events = kernel.events
        if "faults" in kinds:
            events.fault.append(self._refused)
            events.space.append(self._watch)
            for space in {id(task.mm): task.mm for task in kernel.tasks.values()}.values():
                self._watch(space)
        if "tlb" in kinds:
            kernel.cpu.engine.watch(self)
        if "sched" in kinds:
            events.switch.append(self._switch)
            events.slice.append(self._slice)
            events.fork.append(self._fork)
            events.exit.append(self._exit)
        if "signals" in kinds:
            events.signal.append(self._signal)

    def close(self) -> None:
        """No more records."""
        self._on = False

    def _tell(self, kind: str, task: Task | None, record: Record) -> None:
        if self._on:
            self.events += 1
            tid, pid = (0, 0) if task is None else (task.tid, task.pid)
            self._put({"type": kind, "time": self._kernel.clock.now() - self._start, "pid": pid, "tid": tid, **record})

    # -- faults -------------------------------------------------------------------------------------------------------

    def _watch(self, space: AddressSpace) -> None:
        space.watch(self._fault)

    def _fault(self, space: PagedSpace, record: FaultRecord) -> None:
        if record.result:
            return  # a refused access comes back, with its exact address, or was nobody's
        vma = space.vmas.find(record.address)
        self._tell(
            "fault",
            self._kernel.current,
            {
                "kind": _kind(space, vma, record),
                "address": hex(record.address),
                "access": _access(record.error),
                "by": "user" if self._live[D_HFLAGS] & 3 == 3 else "kernel",
                "code": record.error,
                "major": record.major,
                "area": _area(space, vma),
            },
        )

    def _refused(self, event: FaultEvent) -> None:
        if event.resolved:
            return
        mm = event.task.mm
        name = signal_name(event.signal)
        self._tell(
            "fault",
            event.task,
            {
                "kind": "refused",
                "address": hex(event.address),
                "access": _access(event.error_code),
                "by": "user",
                "code": event.error_code,
                "major": False,
                "area": _area(mm, mm.vmas.find(event.address)),
                "ip": hex(event.ip),
                "signal": name,
                "si_code": CODE_NAMES.get((event.signal, event.si_code), str(event.si_code)),
            },
        )

    # -- TLB (TlbWatcher) ---------------------------------------------------------------------------------------------

    def filled(self, page: int, access: int, frame: int, permissions: int, ring: int) -> None:
        """A translation is cached."""
        shown = "".join(letter if permissions & bit else "-" for letter, bit in (("r", 1), ("w", 2), ("x", 4)))
        record = {"what": "fill", "page": hex(page), "frame": hex(frame), "access": _ACCESS[access]}
        self._tell("tlb", self._kernel.current, {**record, "permissions": shown, "ring": ring})

    def flushed(self, cause: str) -> None:
        """All translations are dropped."""
        self._tell("tlb", self._kernel.current, {"what": "flush", "cause": cause})

    def grown(self, entries: int) -> None:
        """The engine's TLB grows."""
        self._tell("tlb", self._kernel.current, {"what": "growth", "entries": entries})

    # -- scheduler ----------------------------------------------------------------------------------------------------

    def _switch(self, event: SwitchEvent) -> None:
        previous = event.previous
        call = None
        if previous is not None and event.why == "sleep":
            found = self._kernel.table.get(previous.registers[ORIG_AX] & 0xFFFF_FFFF)
            call = None if found is None else found.name
        record = {"what": "switch", "from": 0 if previous is None else previous.tid, "why": event.why, "call": call}
        self._tell("sched", event.following, record)

    def _slice(self, task: Task, instructions: int | None) -> None:
        self._tell("sched", task, {"what": "slice", "instructions": instructions})

    def _fork(self, parent: Task, child: Task) -> None:
        same = child.process is parent.process
        self._tell("sched", parent, {"what": "thread" if same else "fork", "child": child.tid})

    def _exit(self, process: Process, task: Task) -> None:
        death = process.death
        signal = None if death is None else signal_name(int(death.signal))
        status = None if death is not None else (process.exit_status or 0) & 0xFF
        self._tell("sched", task, {"what": "exit", "status": status, "signal": signal})

    # -- signals ------------------------------------------------------------------------------------------------------

    def _signal(self, event: SignalEvent) -> None:
        info = event.info
        record: Record = {"what": event.what}
        if info is not None:
            record |= {"signal": signal_name(info.signal), "si_code": _code(info.signal, info.code)}
        if event.what in ("sent", "ignored"):
            record |= {"from": 0 if event.sender is None else event.sender.tid, "to_process": event.to_process}
        else:
            record["handler"] = {SIG_DFL: "SIG_DFL", SIG_IGN: "SIG_IGN"}.get(event.handler, hex(event.handler))
        self._tell("signal", event.task, record)


def _code(signal: int, code: int) -> str:
    if signal == _SIGCHLD and code in _CHILD:
        return _CHILD[code]
    return CODE_NAMES.get((signal, code)) or _SENDERS.get(code) or str(code)


def _access(error: int) -> str:
    return "execute" if error & _FETCH else "write" if error & _WRITE else "read"


def _area(space: PagedSpace, vma: Vma | None) -> Record | None:
    if vma is None:
        return None
    name = area_name(space, vma)  # type: ignore[arg-type]
    return {"start": hex(vma.start), "end": hex(vma.end), "permissions": vma.permissions, "name": name}


def _kind(space: PagedSpace, vma: Vma | None, record: FaultRecord) -> str:
    """What the kernel did, in a word."""
    old = record.old
    if record.outside:
        return "stack-growth"
    if old and not old & P:
        old = space.page_table.kept(old)
    if old:
        if (old ^ record.new) & ADDRESS_MASK:
            huge = old & ADDRESS_MASK == space.frames.zero_frame and space.huge.holds(record.address)
            return "huge-copy-on-write" if huge else "copy-on-write"
        return "stale" if record.old == record.new else "right"
    if vma is None or vma.mapping is None:
        kind = "zero-page" if record.new & ADDRESS_MASK == space.frames.zero_frame else "demand-zero"
        return f"huge-{kind}" if space.huge.holds(record.address) else kind
    return "file-copy" if record.error & _WRITE and not vma.flags & VM_MAYSHARE else "file"


# -- lines for people -------------------------------------------------------------------------------------------------


def text_of(record: Record) -> str:
    """A record as a line, without the newline."""
    who = f"[{record['tid']}]" if record["tid"] else "[-]"
    return f"{record['type']}: {who} {words_of(record)}"


def words_of(record: Record) -> str:
    """What a record says, without its type and who it happened to."""
    return _TEXTS[record["type"]](record)


def _fault_text(record: Record) -> str:
    area = record["area"]
    place = "no area" if area is None else f"{area['name'] or 'anonymous'} {area['permissions']}"
    words = [record["kind"], record["access"], record["address"], f"({place})", f"error code {record['code']:#x}"]
    if record["by"] == "kernel":
        words.append("by the kernel")
    if record["major"]:
        words.append("major")
    if record["kind"] == "refused":
        words.append(f"at {record['ip']}: {record['signal']} ({record['si_code']})")
    return " ".join(words)


def _tlb_text(record: Record) -> str:
    if record["what"] == "fill":
        return (
            f"fill {record['page']} -> {record['frame']} {record['permissions']} for {record['access']} "
            f"in ring {record['ring']}"
        )
    return f"flush: {record['cause']}" if record["what"] == "flush" else f"growth to {record['entries']} entries"


def _sched_text(record: Record) -> str:
    what = record["what"]
    if what == "switch":
        call = f" in {record['call']}" if record["call"] else ""
        return f"runs after {record['from'] or 'nobody'} ({record['why']}{call})"
    if what == "slice":
        count = record["instructions"]
        return "may run on" if count is None else f"may run for {count} instructions"
    if what == "exit":
        return f"ends by {record['signal']}" if record["signal"] else f"ends with {record['status']}"
    return f"starts {'thread' if what == 'thread' else 'process'} {record['child']}"


def _signal_text(record: Record) -> str:
    what = record["what"]
    if what == "return":
        return f"returns from a handler to {record['handler']}"
    name = f"{record['signal']} ({record['si_code']})"
    if what in ("sent", "ignored"):
        target = "process" if record["to_process"] else "thread"
        return f"{name} {what}, to the {target}, from {record['from'] or 'nobody'}"
    return f"{name} {'delivered' if what == 'delivered' else 'runs its handler'}: {record['handler']}"


_TEXTS: Final[dict[str, Callable[[Record], str]]] = {
    "fault": _fault_text,
    "tlb": _tlb_text,
    "sched": _sched_text,
    "signal": _signal_text,
}
