"""What stops a run from outside it: a request that comes to nothing is made again."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import cast

from mmuemu.cpu.cpu import Cpu
from mmuemu.cpu.watchdog import Watchdog


class Deaf:
    """A CPU that hears the third request of each kind."""

    def __init__(self) -> None:
        self.kicks = self.interrupts = 0
        self.kicked = False
        self.heard, self.ended = threading.Event(), threading.Event()

    def kick(self) -> None:
        self.kicks += 1
        self.kicked = self.kicks < 3
        if not self.kicked:
            self.heard.set()

    def interrupt(self) -> None:
        self.interrupts += 1
        if self.interrupts == 3:
            self.ended.set()


def test_a_pause_is_asked_for_until_it_is_made() -> None:
    cpu = Deaf()
    with Watchdog(cast(Cpu, cpu), seconds=60) as watchdog:
        os.write(watchdog._write, bytes([signal.SIGUSR1]))
        assert cpu.heard.wait(20)
        time.sleep(0.1)
        assert (cpu.kicks, cpu.interrupts, watchdog.expired) == (3, 0, False)
        os.write(watchdog._write, bytes([signal.SIGINT]))
        assert cpu.ended.wait(20)
        assert cpu.kicks == 3
        assert not watchdog.expired


def test_the_deadline_comes_while_a_pause_is_asked_for() -> None:
    cpu = Deaf()
    cpu.kicks = -1 << 30
    with Watchdog(cast(Cpu, cpu), seconds=0.3) as watchdog:
        os.write(watchdog._write, bytes([signal.SIGUSR1]))
        assert cpu.ended.wait(20)
        assert watchdog.expired
    assert cpu.kicks + (1 << 30) > 2
