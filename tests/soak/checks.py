"""What must hold of a machine whenever it stands still: frames, sharing, the kernel half, the TLB, the host's files."""

from __future__ import annotations

import ctypes
import hashlib
import os
import time
from operator import sub
from pathlib import Path
from typing import Final

from mmuemu.cpu.ahead import USER_MODE
from mmuemu.cpu.engines import PythonEngine
from mmuemu.cpu.window import Q_CR0, Q_CR3, Q_CR4, Q_EFER, Q_PKRU
from mmuemu.kernel.kernel import Kernel
from mmuemu.x86.paging import PAGE_MASK
from tests.kernel import isolation

_KERNEL: Final = 1 << 63
_MOST: Final = (1 << 64) - 1
_NAMES: Final = ("read", "write", "fetch")


class TlbShadow:
    """Every translation that the engine's TLB may hold, by what was filled and flushed.

    The engine may have given up some of them, so this is more than there is: software must flush as if it were all
    there. What the guest's own writes of CR3 and PKRU drop is seen by the registers having changed.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.checked = 0
        self._held: dict[tuple[bool, int], tuple[int, int]] = {}
        self._state: tuple[int, ...] = ()
        if isinstance(kernel.cpu.engine, PythonEngine):
            kernel.cpu.engine.watch(self)
            kernel.events.switch.append(lambda _event: self._forget_user())

    def _follow(self) -> None:
        q = self.kernel.cpu.window.live_q
        state = (q[Q_CR0], q[Q_CR3], q[Q_CR4], q[Q_EFER], q[Q_PKRU] & 0xFFFF_FFFF)
        if state != self._state:
            self._state = state
            if self.kernel.options.kpti:
                self._held.clear()
            self._forget_user()

    def _forget_user(self) -> None:
        self._held = {key: held for key, held in self._held.items() if key[1] & _KERNEL}

    def filled(self, page: int, _access: int, frame: int, permissions: int, ring: int) -> None:
        """A translation is cached."""
        self._follow()
        self._held[ring == 3, page] = (frame & ~PAGE_MASK, permissions)

    def flushed(self, _cause: str) -> None:
        """All are dropped."""
        self._held.clear()

    def grown(self, _entries: int) -> None:
        """The flush follows."""

    def check(self) -> None:
        """Whatever may be cached, and whatever the engine has cached, the tables give too, by a walk now."""
        if not self._held:
            return
        self._follow()
        for (user, page), (frame, permissions) in self._held.items():
            self._is_given(user, page, frame, permissions)
        engine = self.kernel.cpu.engine
        assert isinstance(engine, PythonEngine)
        cached = engine_tlb(engine)
        for page, (frame, permissions, host) in cached.items():
            self._is_given(True, page, frame, permissions)
            assert host == engine.cpu.ram.address + frame, f"{page:#x} at {frame:#x} is the host's {host:#x}"
        self.checked += len(self._held) + len(cached)

    def _is_given(self, user: bool, page: int, frame: int, permissions: int) -> None:
        cpu = self.kernel.cpu
        walk = cpu.engine.walk_now(cpu.window.live_q)
        for access in range(3):
            if permissions >> access & 1:
                owed: list[tuple[int, int]] = []
                found = walk(cpu.window.live_q[Q_CR3], page, access, user, True, owed, None)
                assert not owed, f"the TLB may {_NAMES[access]} {page:#x}, A or D is clear"
                assert found & ~7 == frame, (
                    f"the TLB may {_NAMES[access]} {page:#x} at {frame:#x} (ring {3 if user else 0}), "
                    f"the tables say {found:#x}"
                )


def engine_tlb(engine: PythonEngine) -> dict[int, tuple[int, int, int]]:
    """The engine's own TLB for user accesses: page -> physical page, permissions, the host's address."""
    table, _, entries = engine.size.table(USER_MODE)
    words = (ctypes.c_uint64 * (8 * entries)).from_address(table)
    found = {}
    for at in range(0, 8 * entries, 8):
        ways = [word & ~PAGE_MASK if word != _MOST else None for word in words[at : at + 3]]
        pages = {page for page in ways if page is not None}
        if pages:
            (page,) = pages
            permissions = sum(1 << access for access, way in zip((0, 1, 2), ways, strict=True) if way is not None)
            found[page] = words[at + 3], permissions, words[at + 4] + page & _MOST
    return found


def at_rest(kernel: Kernel) -> None:
    """When every process has ended: what is kept for later goes, and then nothing of theirs is left."""
    assert not kernel.tasks
    main = kernel.main
    if main is not None and main.leader is not None and not main.leader.mm.users:
        main.leader.mm.unmap_areas(0, main.leader.mm.task_size)
    kernel.idle_pages.give_up()
    isolation.check(kernel)
    mapped = [mapping for mapping in isolation.mappings(kernel) if mapping.pages]
    segments = [segment.pages for segment in kernel.ipc.shm.ids]
    assert all(mapping in segments for mapping in mapped), f"pages of files that nobody has: {mapped}"


def view(top: Path) -> str:
    """A digest of a directory of the host: names, kinds, rights, times, contents."""
    found = hashlib.sha256()
    for directory, names, files in os.walk(top):
        names.sort()
        for name in sorted((*names, *files)):
            path = os.path.join(directory, name)
            st = os.lstat(path)
            found.update(f"{path} {st.st_mode:o} {st.st_size} {st.st_mtime_ns} {st.st_nlink}\n".encode())
            if os.path.islink(path):
                found.update(os.fsencode(os.readlink(path)))
            elif os.path.isfile(path):
                found.update(Path(path).read_bytes())
    return found.hexdigest()


def handles() -> tuple[int, int]:
    """Descriptors and threads of this process."""
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))


def settled(before: tuple[int, int]) -> tuple[int, int]:
    """:func:`handles`, once no more than ``before``, or after a second: a joined thread may be leaving."""
    until = time.monotonic() + 1
    while max(map(sub, found := handles(), before)) > 0 and time.monotonic() < until:
        time.sleep(0.005)
    return found


def resident() -> int:
    """Resident KiB of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * (os.sysconf("SC_PAGE_SIZE") >> 10)
