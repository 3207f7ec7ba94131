"""Ending a run of the CPU, and why one ended."""

from __future__ import annotations

import threading
from enum import Enum

from unicorn import Uc

from mmuemu.cpu import library
from mmuemu.cpu.breaker import Breaker, new_breaker
from mmuemu.cpu.internals import Internals


class Stop(Enum):
    """Why a run ended."""

    REQUESTED = "requested"
    """Somebody called :meth:`Cpu.stop <Stoppable.stop>`."""
    HALTED = "halted"
    """``hlt`` in ring 0."""
    LIMIT = "limit"
    """The instruction limit."""
    INTERRUPTED = "interrupted"
    """:meth:`Cpu.interrupt <Stoppable.interrupt>`, from another thread."""
    KICKED = "kicked"
    """:meth:`Cpu.kick <Stoppable.kick>`: somebody wants to look at the state between two instructions."""
    UNTIL = "until"
    """The address given as ``until``."""


class Stoppable:
    """The ways to end a run of a :class:`Cpu`, from its own hooks and from other threads."""

    def __init__(self, uc: Uc) -> None:
        self.uc = uc
        self._handle = library.handle(uc)
        self.internals = Internals(self._handle)
        self.breaker: Breaker | None = None
        """Set (:meth:`make_breakable`) where a run that was interrupted must be able to go on."""
        self._stop: Stop | None = None
        self._trap_counter: int | None = None
        self._counting = self._again = False
        self._interrupted = self._kicked = False
        self._breaking = threading.RLock()  # a signal's handler may come in between, and interrupt

    def stop(self) -> None:
        """End the run after the current instruction (from a hook or a trap handler)."""
        self._stop = Stop.REQUESTED
        if self._trap_counter is None:
            # The engine counts one more instruction before it notices.
            self._trap_counter = self.internals.counter
        self._leave()

    def pause(self) -> None:
        """From a callback of a counted run: look around behind the current instruction, then go on."""
        self._again = True
        self.internals.cut_short()

    def stop_soon(self) -> None:
        """End the run after the current instruction, from a callback in the middle of it (memory-mapped I/O).

        Stopping the engine there would have it execute the instruction again.
        """
        self._stop = Stop.REQUESTED
        self._break()

    def stop_before(self) -> None:
        """From a hook on code, in a counted run: end the run before the instruction that it was called for."""
        self._stop = Stop.REQUESTED
        if self._trap_counter is None:
            # The engine has counted that instruction.
            self._trap_counter = self.internals.counter - 1
        library.emu_stop(self._handle)

    def make_breakable(self, *, hooked: bool = False) -> None:
        """Have :meth:`interrupt`, :meth:`kick` and :meth:`stop` end runs at exact places, before the first one.

        ``hooked``: hooks on blocks and on code are to come that end runs, too.
        """
        if self.breaker is not None:
            self.breaker.close()
        self.breaker = new_breaker(self.uc, hooked=hooked)

    def _leave(self) -> None:
        """From a hook: end the stretch that is on."""
        if self.breaker is not None and not self._counting:
            self.breaker.arm()
        else:
            library.emu_stop(self._handle)

    def _break(self) -> None:
        """End the stretch that is on between two instructions, from any thread."""
        with self._breaking:
            if self._counting:
                self.internals.cut_short()
            else:
                self._leave()

    def interrupt(self) -> None:
        """End the run from another thread; call again until it has ended (a stop between two stretches is lost)."""
        self._interrupted = True
        self._break()

    def kick(self) -> None:
        """End the run soon, from a hook, or from another thread, which calls again while :attr:`kicked` (as above)."""
        self._kicked = True
        self._break()

    def forget_interrupt(self) -> None:
        """Whoever interrupted has been heard."""
        self._interrupted = False

    @property
    def interrupted(self) -> bool:
        """Whether :meth:`interrupt` was called and nobody has heard it."""
        return self._interrupted

    @property
    def kicked(self) -> bool:
        """Whether :meth:`kick` was called and the run has not ended since."""
        return self._kicked

    def _begin(self, counted: bool) -> None:
        """A stretch begins: what is broken from now on is it, and by the means for such a one."""
        with self._breaking:
            self._counting = counted
            if self.breaker is not None:
                self.breaker.disarm()

    def _broken(self, limit: int | None) -> bool:
        """Whether the last stretch was ended by :meth:`_break` alone.

        Another thread sets its flag, then breaks; in between this one may have come by, heard the flag and gone on.
        """
        if self.breaker is None:
            return False
        return self.breaker.armed if limit is None else self.internals.is_cut(limit)
