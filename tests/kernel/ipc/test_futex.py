"""Futexes: who is woken, in which order, and what becomes of locks whose owner is gone."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmuemu.kernel.abi.errno import Errno
from mmuemu.kernel.abi.mman import MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED
from mmuemu.kernel.futex import FUTEX_OWNER_DIED, FUTEX_WAITERS, mm_release
from tests.kernel.ipc.conftest import ASLEEP, System, Task

WAIT, WAKE, REQUEUE, CMP_REQUEUE, WAKE_OP, LOCK_PI, UNLOCK_PI, TRYLOCK_PI = 0, 1, 3, 4, 5, 6, 7, 8
WAIT_BITSET, WAKE_BITSET, WAIT_REQUEUE_PI, CMP_REQUEUE_PI, LOCK_PI2 = 9, 10, 11, 12, 13
PRIVATE, REALTIME = 128, 256
BAD = 0x10


def page(task: Task, kind: int = MAP_PRIVATE, prot: int = 3) -> int:
    return task.mm.mmap(0, 4096, prot, kind | MAP_ANONYMOUS)


@pytest.fixture
def pair(system: System):
    first = system.process()
    return first, system.thread(first), page(first)


def test_wait_compares_and_wake_wakes(pair):
    one, two, word = pair
    assert one.call("futex", word, WAIT | PRIVATE, 1) == -Errno.EAGAIN
    assert one.call("futex", word, WAIT | PRIVATE, 0) == ASLEEP
    two.memory.write_u32(word, 7)
    assert one.again() == ASLEEP
    assert two.call("futex", word, WAKE | PRIVATE, 1) == 1
    assert one.woken
    assert one.again() == 0
    assert two.call("futex", word, WAKE | PRIVATE, 1) == 0


def test_a_private_wake_does_not_find_a_shared_waiter(pair):
    one, two, word = pair
    assert one.call("futex", word, WAIT, 0) == ASLEEP
    assert two.call("futex", word, WAKE | PRIVATE, 1) == 0
    assert two.call("futex", word, WAKE, 1) == 1


def test_waiters_go_in_order_and_only_as_many_as_asked(system, pair):
    one, two, word = pair
    sleepers = [system.thread(one) for _ in range(5)]
    for task in sleepers:
        assert task.call("futex", word, WAIT | PRIVATE, 0) == ASLEEP
    assert two.call("futex", word, WAKE | PRIVATE, 2) == 2
    assert [task.woken for task in sleepers] == [True, True, False, False, False]
    sleepers[2].interrupt()
    assert two.call("futex", word, WAKE | PRIVATE, 1) == 1
    assert [task.woken for task in sleepers] == [True, True, False, True, False]


def test_bitsets(system, pair):
    one, two, word = pair
    three = system.thread(one)
    assert one.call("futex", word, WAIT_BITSET | PRIVATE, 0, 0, 0, 0) == -Errno.EINVAL
    assert one.call("futex", word, WAIT_BITSET | PRIVATE, 0, 0, 0, 1) == ASLEEP
    assert three.call("futex", word, WAIT_BITSET | PRIVATE, 0, 0, 0, 2) == ASLEEP
    assert two.call("futex", word, WAKE_BITSET | PRIVATE, 9, 0, 0, 0) == -Errno.EINVAL
    assert two.call("futex", word, WAKE_BITSET | PRIVATE, 9, 0, 0, 2) == 1
    assert three.woken
    assert not one.woken


def test_timeouts(pair):
    one, two, word = pair
    clock = one.kernel.clock
    one.memory.write(word + 64, struct.pack("<qq", 1, 5))
    assert one.call("futex", word, WAIT | PRIVATE, 0, word + 64) == ASLEEP
    assert one.deadline == clock.now() + 1_000_000_005
    assert not one.restart
    clock.time += 1_000_000_004
    assert one.again() == ASLEEP
    clock.time += 1
    assert one.again() == -Errno.ETIMEDOUT
    assert two.call("futex", word, WAKE | PRIVATE, 1) == 0
    when = clock.realtime() + 2_000_000_000
    one.memory.write(word + 64, struct.pack("<qq", *divmod(when, 10**9)))
    assert one.call("futex", word, WAIT_BITSET | PRIVATE | REALTIME, 0, word + 64, 0, 1) == ASLEEP
    assert one.deadline == clock.now() + 2_000_000_000
    one.interrupt()
    one.memory.write(word + 64, struct.pack("<qq", 0, 10**9))
    assert one.call("futex", word, WAIT | PRIVATE, 0, word + 64) == -Errno.EINVAL


def test_what_is_refused(pair):
    one, _, word = pair
    assert one.call("futex", word + 1, WAIT | PRIVATE, 0) == -Errno.EINVAL
    assert one.call("futex", BAD, WAIT | PRIVATE, 0) == -Errno.EFAULT
    assert one.call("futex", BAD, WAKE | PRIVATE, 1) == 0
    assert one.call("futex", BAD, WAKE, 1) == -Errno.EFAULT
    assert one.call("futex", 1 << 63, WAKE | PRIVATE, 1) == -Errno.EFAULT
    assert one.call("futex", word, 2, 0) == -Errno.ENOSYS
    assert one.call("futex", word, 14, 0) == -Errno.ENOSYS
    assert one.call("futex", word, WAIT | REALTIME, 0) == -Errno.ENOSYS
    assert one.call("futex", word, REQUEUE, -1, 1, word + 4) == -Errno.EINVAL
    assert one.call("set_robust_list", word, 23) == -Errno.EINVAL
    assert one.call("get_robust_list", 99999, word, word) == -Errno.ESRCH


def test_shared_memory_is_one_futex_wherever_it_is_mapped(system):
    parent = system.process()
    word = page(parent, MAP_SHARED)
    child = system.fork(parent)
    parent.memory.write_u32(word, 3)
    assert child.call("futex", word, WAIT, 3) == ASLEEP
    assert parent.call("futex", word, WAKE | PRIVATE, 1) == 0
    assert parent.call("futex", word, WAKE, 1) == 1
    assert child.again() == 0


def test_private_memory_of_two_processes_is_two_futexes(system):
    parent = system.process()
    word = page(parent)
    child = system.fork(parent)
    assert child.call("futex", word, WAIT, 0) == ASLEEP
    assert parent.call("futex", word, WAKE, 1) == 0


def test_requeue(system, pair):
    one, two, word = pair
    sleepers = [system.thread(one) for _ in range(4)]
    for task in sleepers:
        task.call("futex", word, WAIT | PRIVATE, 0)
    assert two.call("futex", word, CMP_REQUEUE | PRIVATE, 1, 2, word + 4, 9) == -Errno.EAGAIN
    assert two.call("futex", word, CMP_REQUEUE | PRIVATE, 1, 2, word + 4, 0) == 3
    assert [task.woken for task in sleepers] == [True, False, False, False]
    assert two.call("futex", word, WAKE | PRIVATE, 9) == 1
    assert two.call("futex", word + 4, WAKE | PRIVATE, 9) == 2
    assert [task.again() for task in sleepers] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("operation", "old", "new", "both"),
    [
        (0 << 28 | 0 << 24 | 5 << 12 | 1, 1, 5, True),
        (1 << 28 | 1 << 24 | 0xFFF << 12 | 1, 1, 0, False),
        (2 << 28 | 2 << 24 | 8 << 12 | 2, 1, 9, True),
        (3 << 28 | 3 << 24 | 1 << 12 | 0, 1, 0, False),
        (4 << 28 | 4 << 24 | 3 << 12 | 0xFFF, 1, 2, True),
        (8 << 28 | 5 << 24 | 4 << 12 | 1, 1, 16, True),
    ],
)
def test_wake_op(system, pair, operation, old, new, both):
    one, two, word = pair
    three = system.thread(one)
    one.memory.write_u32(word + 4, old)
    one.call("futex", word, WAIT | PRIVATE, 0)
    three.call("futex", word + 4, WAIT | PRIVATE, old)
    assert two.call("futex", word, WAKE_OP | PRIVATE, 1, 1, word + 4, operation) == 1 + both
    assert two.word(word + 4) == new
    assert one.woken
    assert three.woken is both


def test_priority_inheritance_lock(system, pair):
    one, two, word = pair
    three = system.thread(one)
    assert one.call("futex", word, LOCK_PI | PRIVATE) == 0
    assert one.word(word) == one.tid
    assert one.call("futex", word, LOCK_PI | PRIVATE) == -Errno.EDEADLK
    assert two.call("futex", word, TRYLOCK_PI | PRIVATE) == -Errno.EAGAIN
    assert two.call("futex", word, UNLOCK_PI | PRIVATE) == -Errno.EPERM
    assert two.call("futex", word, LOCK_PI | PRIVATE) == ASLEEP
    assert three.call("futex", word, LOCK_PI2 | PRIVATE) == ASLEEP
    assert one.word(word) == one.tid | FUTEX_WAITERS
    assert one.call("futex", word, WAKE | PRIVATE, 1) == -Errno.EINVAL
    assert one.call("futex", word, UNLOCK_PI | PRIVATE) == 0
    assert one.word(word) == two.tid | FUTEX_WAITERS
    assert two.again() == 0
    assert not three.woken
    assert two.call("futex", word, UNLOCK_PI | PRIVATE) == 0
    assert three.again() == 0
    assert three.call("futex", word, UNLOCK_PI | PRIVATE) == 0
    assert one.word(word) == 0
    one.memory.write_u32(word, 4242)
    assert one.call("futex", word, LOCK_PI | PRIVATE) == -Errno.ESRCH


def test_the_owner_of_a_priority_inheritance_lock_dies(system, pair):
    one, two, word = pair
    one.call("futex", word, LOCK_PI | PRIVATE)
    assert two.call("futex", word, LOCK_PI | PRIVATE) == ASLEEP
    one.ended = True
    mm_release(one)
    assert two.again() == 0
    assert two.word(word) == two.tid | FUTEX_WAITERS | FUTEX_OWNER_DIED


def test_a_condition_variable_on_a_priority_inheritance_lock(system, pair):
    one, two, word = pair
    three, lock = system.thread(one), word + 8
    assert two.call("futex", word, WAIT_REQUEUE_PI | PRIVATE, 0, 0, lock) == ASLEEP
    assert three.call("futex", word, WAIT_REQUEUE_PI | PRIVATE, 0, 0, lock) == ASLEEP
    assert one.call("futex", word, WAKE | PRIVATE, 1) == -Errno.EINVAL
    assert one.call("futex", word, CMP_REQUEUE_PI | PRIVATE, 2, 9, lock, 0) == -Errno.EINVAL
    assert one.call("futex", word, CMP_REQUEUE_PI | PRIVATE, 1, 9, word + 12, 0) == -Errno.EINVAL
    assert one.call("futex", word, CMP_REQUEUE_PI | PRIVATE, 1, 9, lock, 0) == 2
    assert two.again() == 0
    assert not three.woken
    assert one.word(lock) == two.tid | FUTEX_WAITERS
    assert two.call("futex", lock, UNLOCK_PI | PRIVATE) == 0
    assert three.again() == 0


def test_robust_locks_of_a_dead_thread(system, pair):
    one, two, word = pair
    three = system.thread(one)
    head, first, second, foreign = word + 256, word + 512, word + 768, word + 1024
    for node, following in ((head, first), (first, second), (second, foreign), (foreign, head)):
        one.memory.write_u64(node, following)
    one.memory.write_u64(head + 8, 16)
    one.memory.write_u64(head + 16, 0)
    one.memory.write_u32(first + 16, one.tid | FUTEX_WAITERS)
    one.memory.write_u32(second + 16, one.tid)
    one.memory.write_u32(foreign + 16, two.tid)
    assert one.call("set_robust_list", head, 24) == 0
    assert two.call("get_robust_list", one.tid, word, word + 8) == 0
    assert two.memory.read_u64(word) == head
    assert two.memory.read_u64(word + 8) == 24
    assert two.call("futex", first + 16, WAIT, one.tid | FUTEX_WAITERS) == ASLEEP
    assert three.call("futex", first + 16, WAIT, one.tid | FUTEX_WAITERS) == ASLEEP
    mm_release(one)
    assert two.woken
    assert not three.woken
    assert two.word(first + 16) == FUTEX_OWNER_DIED | FUTEX_WAITERS
    assert two.word(second + 16) == FUTEX_OWNER_DIED
    assert two.word(foreign + 16) == two.tid


@pytest.mark.parametrize("following", ["itself", "nowhere", "unaligned"])
def test_a_bad_robust_list_ends_somewhere(pair, following):
    one, _, word = pair
    entry = word + 512
    one.memory.write_u64(word, entry)
    one.memory.write_u64(entry, {"itself": entry, "nowhere": 0xDEAD_0000_0000, "unaligned": word + 6}[following])
    one.memory.write_u32(entry + 16, one.tid)
    one.memory.write_u64(word + 8, 16)
    one.call("set_robust_list", word, 24)
    mm_release(one)
    assert one.word(entry + 16) == FUTEX_OWNER_DIED


def test_the_word_of_a_thread_is_cleared_at_its_end(pair):
    one, two, word = pair
    one.memory.write_u32(word, one.tid)
    one.clear_child_tid = word
    assert two.call("futex", word, WAIT, one.tid) == ASLEEP
    mm_release(one)
    assert two.again() == 0
    assert two.word(word) == 0


def test_waiting_for_several_words(system, pair):
    one, two, word = pair
    three = system.thread(one)
    table = word + 2048
    for place in range(3):
        one.memory.write(table + 24 * place, struct.pack("<QQII", 0, word + 4 * place, 2 | 128, 0))
    assert one.call("futex_waitv", table, 3, 0, 0, 1) == ASLEEP
    assert three.call("futex", word + 4, WAIT | PRIVATE, 0) == ASLEEP
    assert two.call("futex", word + 4, WAKE | PRIVATE, 9) == 2
    assert one.again() == 1
    assert two.call("futex", word, WAKE | PRIVATE, 9) == 0
    assert one.call("futex_waitv", table, 0, 0, 0, 1) == -Errno.EINVAL
    assert one.call("futex_waitv", table, 129, 0, 0, 1) == -Errno.EINVAL
    one.memory.write_u32(word + 8, 1)
    assert one.call("futex_waitv", table, 3, 0, 0, 1) == -Errno.EAGAIN


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(0, 7), st.integers(0, 2)),
        st.tuples(st.just("wake"), st.integers(1, 4), st.integers(0, 2)),
        st.tuples(st.just("interrupt"), st.integers(0, 7), st.just(0)),
        st.tuples(st.just("requeue"), st.integers(0, 8), st.integers(0, 5)),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_no_waiter_is_lost_or_woken_twice(steps):
    system = System(64)
    base = system.process()
    word = page(base)
    tasks = [system.thread(base) for _ in range(8)]
    queues: list[list[Task]] = [[], [], []]
    for kind, first, second in steps:
        if kind == "wait":
            task = tasks[first]
            if not any(task in queue for queue in queues):
                assert task.call("futex", word + 4 * second, WAIT | PRIVATE, 0) == ASLEEP
                queues[second].append(task)
            continue
        if kind == "interrupt":
            for queue in queues:
                if tasks[first] in queue:
                    tasks[first].interrupt()
                    queue.remove(tasks[first])
            continue
        if kind == "wake":
            expected = queues[second][:first]
            del queues[second][:first]
            assert base.call("futex", word + 4 * second, WAKE | PRIVATE, first) == len(expected)
        else:
            source, target = first % 3, first // 3
            expected, moved = queues[source][:1], queues[source][1 : 1 + second]
            del queues[source][: 1 + second]
            address = word + 4 * target
            assert base.call("futex", word + 4 * source, REQUEUE | PRIVATE, 1, second, address) == len(expected + moved)
            if source == target:
                queues[source][:0] = moved
            else:
                queues[target] += moved
        assert [task for task in tasks if task.woken] == [task for task in tasks if task in expected]
        for task in expected:
            assert task.again() == 0
    for place, queue in enumerate(queues):
        assert base.call("futex", word + 4 * place, WAKE | PRIVATE, 99) == len(queue)
