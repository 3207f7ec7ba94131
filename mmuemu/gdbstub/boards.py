"""A bare machine as gdb sees it: one thread, the CPU; exceptions before they are delivered through the IDT."""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Final

from mmuemu.cpu import window
from mmuemu.cpu.debug import DebugPlaces
from mmuemu.cpu.traps import Trap
from mmuemu.gdbstub import registers as gdb
from mmuemu.gdbstub.description import BOARD_32, BOARD_64, GENERAL_32
from mmuemu.gdbstub.events import Action, Failed, StopEvent, ThreadId, Wishes
from mmuemu.gdbstub.monitor import board_command
from mmuemu.gdbstub.objects import threads_xml
from mmuemu.gdbstub.packets import ALL
from mmuemu.gdbstub.signals import EXCEPTION_SIGNALS, INT, TRAP
from mmuemu.gdbstub.watchpoints import KINDS, LONGEST, Watchpoints
from mmuemu.x86.exceptions import Vector

if TYPE_CHECKING:
    from mmuemu.board import Board, BoardEnd

_THREAD: Final = (1, 1)
_MOST_POINTS: Final = 4096
_WIDE: Final = {name: f"r{name[1:]}" for name in (*GENERAL_32, "eip")}
_MEMORY_MAP: Final = (
    b'<?xml version="1.0"?><!DOCTYPE memory-map PUBLIC "+//IDN gnu.org//DTD GDB Memory Map V1.0//EN" '
    b'"http://sourceware.org/gdb/gdb-memory-map.dtd"><memory-map><memory type="ram" start="0x0" '
    b'length="0xffffffffffffffff"/></memory-map>'
)
"""Linear addresses, which the guest maps as it likes."""


class BoardTarget:
    """One board."""

    features: tuple[str, ...] = ("qXfer:memory-map:read+",)

    def __init__(self, board: Board, bits: int = 64) -> None:
        """``bits`` of the registers that gdb is shown: what its symbols are for, 64 or 32."""
        self.board = board
        self.layout = BOARD_64 if bits == 64 else BOARD_32
        self.wishes = Wishes()
        self.end: BoardEnd | None = None
        """How the machine ended, once it has."""
        self._going = True
        self._event: StopEvent | None = None
        self._held: Trap | None = None
        self._stepping = False
        self.points: dict[int, int] = {}
        self.places = DebugPlaces(board.cpu, self._reached)
        self.watchpoints = Watchpoints(self.places, self._physical, self._touched)
        board.bare.before_trap = self._before_trap
        assert board.cpu.privileged is not None
        board.cpu.privileged.observers.append(self._changed)
        self.places.set_code(set())

    @property
    def alive(self) -> bool:
        """Whether the machine has not ended and is debugged."""
        return self._going and self.end is None

    def threads(self) -> list[ThreadId]:
        """The CPU."""
        return [_THREAD]

    def thread_name(self, thread: ThreadId) -> str:
        """The ring it is in."""
        self._check(thread)
        return f"CPU 0, ring {self.board.cpu.cpl}"

    def _check(self, thread: ThreadId) -> None:
        if thread != _THREAD:
            raise Failed(errno.ESRCH)

    # -- registers and memory --------------------------------------------------------------------------------------

    def read_registers(self, thread: ThreadId) -> bytes:
        """The ``g`` packet."""
        self._check(thread)
        cpu = self.board.cpu
        flags = cpu.rflags
        cpu.window.save()
        known = gdb.values(cpu) | {"eflags": flags, "cr8": self.board.pc.lapic.cr8}
        return gdb.pack(cpu, self.layout, known | {narrow: known[wide] for narrow, wide in _WIDE.items()})

    def write_registers(self, thread: ThreadId, data: bytes) -> None:
        """Set them; EPERM for segments and control registers."""
        try:
            changed = gdb.changes(self.layout, self.read_registers(thread), data)
        except gdb.Refused:
            raise Failed(errno.EPERM) from None
        cpu = self.board.cpu
        floats = {name: value for name, value in changed.items() if gdb.is_float(name)}
        integers = {
            _WIDE.get(name, name): int.from_bytes(value, "little")
            for name, value in changed.items()
            if name not in floats
        }
        cpu.window.save()
        if floats:
            gdb.set_floats(cpu, floats)
        for name, index in (("fs_base", window.FS.base), ("gs_base", window.GS.base), ("cr2", window.Q_CR2)):
            if name in integers:
                cpu.window.q[index] = integers.pop(name)
        cpu.window.restore()
        if "eflags" in integers:
            integers["rflags"] = integers.pop("eflags")
        if integers:
            cpu.set_registers(**integers)
        if "rip" in integers:
            self._held = None

    def _physical(self, _owner: Hashable, address: int) -> int | None:
        cpu = self.board.cpu
        cpu.window.save()
        found = cpu.peek.sync().physical(address)
        return found if found is not None and found < self.board.ram.size else None

    def read_memory(self, thread: ThreadId, address: int, count: int) -> bytes:
        """RAM by linear address and supervisor rights; EFAULT."""
        self._check(thread)
        data = self.board.cpu.read_linear(address, count)
        if not data:
            raise Failed(errno.EFAULT)
        return data

    def write_memory(self, thread: ThreadId, address: int, data: bytes) -> None:
        """The same to be written, also where the guest may not write; EFAULT with nothing stored."""
        self._check(thread)
        parts = []
        done = 0
        while done < len(data):
            size = min(4096 - (address + done & 4095), len(data) - done)
            physical = self._physical(None, address + done)
            if physical is None:
                raise Failed(errno.EFAULT)
            parts.append((physical, data[done : done + size]))
            done += size
        for physical, part in parts:
            self.board.write(physical, part)
            self.board.cpu.engine.forget_code(physical & ~4095)

    # -- breakpoints -----------------------------------------------------------------------------------------------

    def set_point(self, thread: ThreadId, kind: int, address: int, length: int) -> bool:
        """Insert one."""
        self._check(thread)
        if kind in KINDS:
            if not 0 < length <= LONGEST:
                raise Failed(errno.EINVAL)
            self.watchpoints.add(None, kind, address, length)
        elif kind > 1:
            return False
        elif len(self.points) >= _MOST_POINTS:
            raise Failed(errno.ENOSPC)
        else:
            self.points[address] = kind
        return True

    def remove_point(self, thread: ThreadId, kind: int, address: int, length: int) -> bool:
        """Remove one."""
        self._check(thread)
        if kind in KINDS:
            self.watchpoints.remove(None, kind, address, length)
        elif kind > 1:
            return False
        else:
            self.points.pop(address, None)
        return True

    def _reached(self, address: int) -> None:
        kind = self.points.get(address)
        if kind is None or self._stepping:
            return
        self._tell("hwbreak" if kind else "swbreak")
        self.board.pause()
        self.board.cpu.stop_before()

    def _touched(self, _owner: Hashable, name: str, address: int) -> None:
        self._tell(name, b"%x" % address)
        self.board.pause()
        self.board.cpu.stop_soon()

    def _changed(self, what: str, _old: int, _new: int) -> None:
        """A privileged instruction: translations may lead elsewhere now."""
        if self.watchpoints and what in ("cr3", "invlpg", "invpcid", "cr0", "cr4"):
            self.watchpoints.refresh()

    # -- running ---------------------------------------------------------------------------------------------------

    def _tell(self, kind: str, detail: bytes = b"", signal: int = TRAP) -> None:
        if self._event is None:
            self._event = StopEvent(kind, _THREAD, signal, detail)

    def _before_trap(self, trap: Trap) -> bool:
        """An exception is about to be delivered: True when gdb is to be told first."""
        signal = EXCEPTION_SIGNALS.get(trap.vector)
        if signal is None or (trap.software and trap.vector != Vector.BP) or signal in self.wishes.passed:
            if self._stepping:
                # The step ends at the handler's first instruction.
                self._tell("signal")
                self.board.pause()
                self.board.cpu.stop()
            return False
        self._held = trap
        self._tell("signal", signal=signal)
        self.board.pause()
        self.board.cpu.stop()
        return True

    def resume(self, actions: Sequence[Action], interrupted: Callable[[], bool]) -> StopEvent:
        """Run until there is something to tell."""
        action = next((action for action in actions if action.covers(_THREAD)), None)
        if action is None:
            return StopEvent("none", _THREAD)
        self._event = None
        self.watchpoints.sync()
        self.places.set_code(set(self.points))
        delivered = self._deliver(action.signal)
        if action.step:
            if delivered:
                self._tell("signal")
            else:
                self._step(action, interrupted)
        while self._event is None and self.end is None:
            self._go(None, interrupted)
        if self.end is not None:
            return StopEvent("exited", _THREAD, self.end.exit_code)
        assert self._event is not None
        return self._event

    def _deliver(self, signal: int) -> bool:
        """Deliver the exception that gdb was told of, if it wants the guest to have it."""
        trap, self._held = self._held, None
        if trap is None or not signal:
            return False
        bare = self.board.bare
        before, bare.before_trap = bare.before_trap, None
        try:
            bare.trap(trap)
        finally:
            bare.before_trap = before
        return True

    def _step(self, action: Action, interrupted: Callable[[], bool]) -> None:
        first, end = action.range
        self._stepping = True
        self.board.hold_interrupts = True
        try:
            while self._event is None and self.end is None:
                if self._go(1, interrupted):
                    rip = self.board.cpu.rip
                    if not first <= rip < end or rip in self.points:
                        self._tell("signal")
        finally:
            self._stepping = False
            self.board.hold_interrupts = False

    def _go(self, count: int | None, interrupted: Callable[[], bool]) -> bool:
        """Run on, for ``count`` instructions; whether that many were executed."""
        try:
            end = self.board.run(max_instructions=count, expired=interrupted)
        except KeyboardInterrupt:
            if not self.board.cpu.interrupted:
                raise
            return False  # an interruption of gdb's that came late
        if end.kind == "paused":
            return False
        if end.kind == "timeout":
            self._tell("signal", signal=INT)
            return False
        if end.kind == "instructions":
            return True
        self.end = end
        return False

    # -- what else gdb asks ----------------------------------------------------------------------------------------

    def transfer(self, thread: ThreadId, what: str, annex: str) -> bytes:
        """An object of ``qXfer``."""
        self._check(thread)
        if what == "features":
            if annex != "target.xml":
                raise Failed(errno.ENOENT)
            return self.layout.xml.encode()
        if what == "threads":
            return threads_xml([("p1.1" if self.wishes.multiprocess else "1", self.thread_name(_THREAD))])
        if what == "memory-map":
            return _MEMORY_MAP
        raise KeyError(what)

    def open_file(self, path: bytes) -> tuple[Callable[[int, int], bytes], bytes]:
        """There are none."""
        raise Failed(errno.ENOENT)

    def read_link(self, path: bytes) -> bytes:
        """There are none."""
        raise Failed(errno.ENOENT)

    def monitor(self, thread: ThreadId, command: list[str]) -> str:
        """The text of a ``monitor`` command."""
        self._check(thread)
        return board_command(self.board, command)

    # -- endings ---------------------------------------------------------------------------------------------------

    def detach(self, pid: int) -> None:
        """Let the machine go on without us; an exception that was held is delivered."""
        if pid not in (ALL, _THREAD[0]):
            raise Failed(errno.ESRCH)
        self._deliver(TRAP)
        self._going = False

    def kill(self, pid: int) -> None:
        """Switch the machine off."""
        from mmuemu.board import BoardEnd

        if pid not in (ALL, _THREAD[0]):
            raise Failed(errno.ESRCH)
        self._going = False
        self.end = BoardEnd("killed", 137)

    def finish(self) -> None:
        """Be debugged no more."""
        self.points.clear()
        self.watchpoints.clear()
        self.places.set_code(set())
        self.board.bare.before_trap = None
        assert self.board.cpu.privileged is not None
        self.board.cpu.privileged.observers.remove(self._changed)
