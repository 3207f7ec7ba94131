"""Futexes: tasks asleep on a word of memory, in the order they came (kernel/futex/*.c; futex(2)).

A word is known by a key: (address space, address) when it is private or in private memory, (file, offset) when it
lies in a shared mapping. A priority-inheritance futex holds its owner's thread id; there are no priorities here, so
the first who waits gets it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.sleeper import Sleeper
from mmuemu.kernel.vma import VM_MAYSHARE, VM_WRITE
from mmuemu.x86.paging import ADDRESS_MASK

if TYPE_CHECKING:
    from mmuemu.kernel.task import Task

FUTEX_WAITERS: Final = 0x8000_0000
FUTEX_OWNER_DIED: Final = 0x4000_0000
FUTEX_TID_MASK: Final = 0x3FFF_FFFF
MATCH_ANY: Final = 0xFFFF_FFFF
ROBUST_LIST_LIMIT: Final = 2048
"""A circular robust list ends after this many entries (include/linux/futex.h)."""
_SHARED_BIT: Final = 1
"""Tells a word looked for in all processes from the same one looked for in its own (FUT_OFF_MMSHARED)."""

Key = tuple[object, int]


class FutexWaiter(Sleeper):
    """One who waits. ``target`` is where WAIT_REQUEUE_PI goes to; ``pi``: it waits to own the word."""

    __slots__ = ("address", "bitset", "key", "pi", "target", "target_address")

    def __init__(
        self, task: Task, key: Key, address: int, bitset: int = MATCH_ANY, deadline: int | None = None
    ) -> None:
        super().__init__(task, deadline)
        self.key = key
        self.address = address
        self.bitset = bitset
        self.pi = False
        self.target: Key | None = None
        self.target_address = 0


class VectorWaiter(FutexWaiter):
    """One of the words of a futex_waitv(2); ``whole`` is the call, whose result is the place of the word."""

    __slots__ = ("place", "whole")

    def __init__(self, whole: Sleeper, key: Key, address: int, place: int) -> None:
        super().__init__(whole.task, key, address)
        whole.task.call_state = whole
        self.whole = whole
        self.place = place

    @property
    def asleep(self) -> bool:
        """Whether the whole call still waits."""
        return self.whole.asleep

    def finish(self, result: int = 0) -> None:
        """End the whole call: this word was woken."""
        self.whole.finish(self.place)


def key_of(task: Task, address: int, private: bool, *, write: bool = True) -> Key:
    """The key of a word of ``task`` (``get_futex_key``); ``write``: it is going to be changed.

    EINVAL when it is not aligned; EFAULT outside of user memory and, unless ``private``, where there is no page.
    """
    mm = task.mm
    if address & 3:
        raise SyscallError(Errno.EINVAL)
    if not 0 <= address <= mm.task_size - 4:
        raise SyscallError(Errno.EFAULT)
    if private:
        return mm, address
    vma = mm.vmas.find(address)
    if vma is None:
        raise SyscallError(Errno.EFAULT)
    if vma.flags & VM_WRITE and vma.flags & VM_MAYSHARE == 0:
        return mm, address | _SHARED_BIT
    if write and not vma.flags & VM_WRITE:
        raise SyscallError(Errno.EFAULT)
    task.memory.read(address, 4)
    if vma.mapping is None:
        raise SyscallError(Errno.EFAULT)
    index = vma.page_index(address)
    if not vma.flags & VM_MAYSHARE:
        entry = mm.frames.ram.qwords[mm.page_table.entry_address(address) >> 3]
        if vma.mapping.pages.get(index) != entry & ADDRESS_MASK:
            raise SyscallError(Errno.EFAULT)  # a private copy that nobody can change any more
    return vma.mapping.inode, index << 12 | address & 0xFFF


class FutexTable:
    """Every futex of a machine that somebody waits for."""

    def __init__(self) -> None:
        self._queues: dict[Key, list[FutexWaiter]] = {}
        self._owners: dict[Key, Task] = {}
        """Who owns a priority-inheritance futex that others wait for."""

    def waiters(self, key: Key) -> list[FutexWaiter]:
        """Who waits at ``key``, the oldest first."""
        queue = self._queues.get(key)
        if queue is None:
            return []
        alive = [waiter for waiter in queue if waiter.asleep and waiter.key == key]
        self._keep(key, alive)
        return alive

    def _keep(self, key: Key, queue: list[FutexWaiter]) -> None:
        if queue:
            self._queues[key] = queue
        else:
            self._queues.pop(key, None)
            self._owners.pop(key, None)

    def add(self, waiter: FutexWaiter) -> None:
        """Put ``waiter`` at the end of its key's queue."""
        self._keep(waiter.key, [*self.waiters(waiter.key), waiter])

    def remove(self, waiter: FutexWaiter) -> None:
        """Take ``waiter`` out of its queue, if it is in one."""
        queue = self._queues.get(waiter.key, [])
        self._keep(waiter.key, [other for other in queue if other is not waiter])

    def _end(self, waiter: FutexWaiter) -> None:
        self.remove(waiter)
        waiter.finish()

    def wake(self, key: Key, count: int, bitset: int = MATCH_ANY) -> int:
        """Wake up to ``count`` of those at ``key`` with a bit of ``bitset``, one at least; how many were.

        EINVAL when one of them waits for a priority-inheritance futex (``futex_wake``).
        """
        if key not in self._queues:
            return 0
        woken = 0
        for waiter in self.waiters(key):
            if waiter.pi or waiter.target is not None:
                raise SyscallError(Errno.EINVAL)
            if waiter.bitset & bitset:
                self._end(waiter)
                woken += 1
                if woken >= count:
                    break
        return woken

    def requeue(self, source: Key, target: Key, wake: int, move: int) -> int:
        """Wake ``wake`` of those at ``source`` and let ``move`` more wait at ``target``; how many in all."""
        done = 0
        for waiter in self.waiters(source):
            if done >= wake + move:
                break
            if waiter.pi or waiter.target is not None:
                raise SyscallError(Errno.EINVAL)
            if done < wake:
                self._end(waiter)
            else:
                self._move(waiter, target)
            done += 1
        return done

    def _move(self, waiter: FutexWaiter, target: Key) -> None:
        if target != waiter.key:
            self.remove(waiter)
            waiter.key = target
            self.add(waiter)

    # Priority inheritance

    def lock(self, task: Task, key: Key, address: int, new_owner: Task, *, waiters: bool = False) -> bool:
        """Let ``new_owner`` have the word if nobody has it (``futex_lock_pi_atomic``); whether it has it now.

        ``task`` is whose ``address`` it is. EDEADLK when it has it already, ESRCH for an owner that is gone,
        EINVAL when somebody waits in another manner. If not, the word tells that there are waiters.
        """
        value = task.memory.read_u32(address)
        if value & FUTEX_TID_MASK == new_owner.tid:
            raise SyscallError(Errno.EDEADLK)
        queue = self.waiters(key)
        if queue and not queue[0].pi:
            raise SyscallError(Errno.EINVAL)
        if not value & FUTEX_TID_MASK:
            kept = value & FUTEX_OWNER_DIED | (FUTEX_WAITERS if waiters or queue else 0)
            task.memory.write_u32(address, kept | new_owner.tid)
            if queue:
                self._owners[key] = new_owner
            return True
        owner = task.kernel.tasks.get(value & FUTEX_TID_MASK)
        if queue:
            if self._owners.get(key) is not owner:
                raise SyscallError(Errno.EINVAL)
        elif owner is None or owner.ended:
            raise SyscallError(Errno.ESRCH)
        task.memory.write_u32(address, value | FUTEX_WAITERS)
        return False

    def wait_to_own(self, waiter: FutexWaiter, owner: Task) -> None:
        """Queue ``waiter`` behind those who want the word that ``owner`` has."""
        waiter.pi = True
        self.add(waiter)
        self._owners[waiter.key] = owner

    def hand_over(self, key: Key, *, died: bool = False) -> bool:
        """Give the word at ``key`` to the first who waits for it; False when nobody does.

        Raises EFAULT when its word cannot be written, EINVAL when it waits in another manner.
        """
        queue = self.waiters(key)
        if not queue:
            return False
        first = queue[0]
        if not first.pi:
            raise SyscallError(Errno.EINVAL)
        value = FUTEX_WAITERS | first.task.tid | (FUTEX_OWNER_DIED if died else 0)
        first.task.memory.write_u32(first.target_address or first.address, value)
        self._end(first)
        if key in self._queues:
            self._owners[key] = first.task
        return True

    def requeue_to_own(self, task: Task, source: Key, target: Key, address: int, move: int) -> int:
        """FUTEX_CMP_REQUEUE_PI: the first at ``source`` gets the word at ``address``, ``move`` more wait for it."""
        queue = self.waiters(source)
        if any(waiter.target != target or waiter.pi for waiter in queue[: move + 1]):
            raise SyscallError(Errno.EINVAL)
        done = 0
        if queue and self.lock(task, target, address, queue[0].task, waiters=len(queue) > 1 and move > 0):
            owner = queue[0].task
            self._end(queue.pop(0))
            done = 1
        elif queue:
            owner = task.kernel.tasks[task.memory.read_u32(address) & FUTEX_TID_MASK]
        for waiter in queue[:move]:
            self.remove(waiter)
            waiter.key = target
            self.wait_to_own(waiter, owner)
            done += 1
        return done

    # Endings

    def release(self, task: Task) -> None:
        """``task`` ends or executes a program: pass on what it owns (``futex_exit_release``)."""
        state, task.call_state = task.call_state, None
        if isinstance(state, FutexWaiter):
            self.remove(state)
        if task.robust_list:
            self._walk_robust_list(task)
            task.robust_list = 0
        for key in [key for key, owner in self._owners.items() if owner is task]:
            try:
                self.hand_over(key, died=True)
            except SyscallError:
                continue

    def _walk_robust_list(self, task: Task) -> None:
        """Mark every lock on the list as its owner's estate (``exit_robust_list``); a bad list ends the walk."""
        memory, head = task.memory, task.robust_list
        try:
            entry = memory.read_u64(head)
            offset = memory.read_u64(head + 8)
            pending = memory.read_u64(head + 16)
            for _ in range(ROBUST_LIST_LIMIT):
                if entry & ~1 == head:
                    break
                following = memory.read_u64(entry & ~1)
                if entry & ~1 != pending & ~1:
                    self._bury(task, (entry & ~1) + offset, bool(entry & 1))
                entry = following
            if pending & ~1:
                self._bury(task, (pending & ~1) + offset, bool(pending & 1), pending=True)
        except SyscallError:
            return

    def _bury(self, task: Task, address: int, pi: bool, *, pending: bool = False) -> None:
        """The owner of one robust lock is dead (``handle_futex_death``)."""
        address &= (1 << 64) - 1
        key = key_of(task, address, False)
        value = task.memory.read_u32(address)
        if pending and not pi and not value:
            self.wake(key, 1)
        if value & FUTEX_TID_MASK != task.tid:
            return
        task.memory.write_u32(address, value & FUTEX_WAITERS | FUTEX_OWNER_DIED)
        if not pi and value & FUTEX_WAITERS:
            self.wake(key, 1)


def mm_release(task: Task, *, shared: bool = True) -> None:
    """``task`` leaves its address space, by its end or by execve (kernel/fork.c: ``mm_release``).

    Its robust locks go to others; the word set_tid_address(2) and CLONE_CHILD_CLEARTID name becomes 0 and one who
    waits there is woken, when the memory is ``shared`` with others who are left.
    """
    table = task.kernel.futexes
    table.release(task)
    address, task.clear_child_tid = task.clear_child_tid, 0
    if address and shared:
        try:
            task.memory.write_u32(address, 0)
            table.wake(key_of(task, address, False), 1)
        except SyscallError:
            return
