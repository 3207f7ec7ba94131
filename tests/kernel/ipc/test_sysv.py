"""System V shared memory, semaphores and message queues, between tasks without a CPU."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmuemu.kernel.abi.errno import Errno
from mmuemu.kernel.abi.mman import MAP_ANONYMOUS, MAP_PRIVATE
from tests.kernel.ipc.conftest import ASLEEP, System, Task

CREAT, EXCL, NOWAIT = 0o1000, 0o2000, 0o4000
RMID, SET, STAT = 0, 1, 2
GETPID, GETVAL, GETALL, GETNCNT, GETZCNT, SETVAL, SETALL = range(11, 18)
RDONLY, RND, REMAP = 0o10000, 0o20000, 0o40000
UNDO = 0x1000


@pytest.fixture
def task(system: System) -> Task:
    return system.process()


def scratch(task: Task) -> int:
    return task.mm.mmap(0, 0x4000, 3, MAP_PRIVATE | MAP_ANONYMOUS)


def nattch(task: Task, shmid: int, buffer: int) -> int:
    assert task.call("shmctl", shmid, STAT, buffer) == 0
    return task.memory.read_u64(buffer + 88)


# Shared memory


def test_keys_and_identifiers(task):
    first = task.call("shmget", 7, 5000, CREAT | 0o600)
    assert first == 0
    assert task.call("shmget", 7, 5000, CREAT | EXCL | 0o600) == -Errno.EEXIST
    assert task.call("shmget", 7, 0, 0) == first
    assert task.call("shmget", 7, 5001, 0) == -Errno.EINVAL
    assert task.call("shmget", 8, 1, 0) == -Errno.ENOENT
    assert task.call("shmget", 8, 0, CREAT) == -Errno.EINVAL
    assert task.call("shmget", 0, 1 << 62, CREAT) == -Errno.ENOMEM
    assert task.call("shmget", 0, 1 << 64, CREAT) == -Errno.EINVAL
    assert task.call("shmctl", first, RMID, 0) == 0
    assert task.call("shmctl", first, RMID, 0) == -Errno.EINVAL
    assert task.call("shmget", 7, 1, CREAT) == 1


def test_an_identifier_comes_back_only_with_another_sequence_number(task):
    seen = set()
    for _ in range(200):
        shmid = task.call("shmget", 0, 1, CREAT)
        assert shmid not in seen
        seen.add(shmid)
        task.call("shmctl", shmid, RMID, 0)
    assert max(seen) >> 15 == 3


def test_attached_memory_is_shared_and_stays(system, task):
    before = system.frames.used
    shmid = task.call("shmget", 0, 5000, CREAT | 0o600)
    buffer = scratch(task)
    address = task.call("shmat", shmid, 0, 0)
    again = task.call("shmat", shmid, 0, RDONLY)
    task.memory.write(address + 4096, b"written")
    assert task.memory.read(again + 4096, 7) == b"written"
    assert nattch(task, shmid, buffer) == 2
    child = system.fork(task)
    assert nattch(task, shmid, buffer) == 4
    child.memory.write(address, b"child")
    assert task.memory.read(address, 5) == b"child"
    child.mm.destroy()
    assert nattch(task, shmid, buffer) == 2
    assert task.call("shmdt", address) == task.call("shmdt", again) == 0
    assert task.call("shmdt", address) == -Errno.EINVAL
    assert nattch(task, shmid, buffer) == 0
    other = system.process()
    address = other.call("shmat", shmid, 0, 0)
    assert other.memory.read(address + 4096, 7) == b"written"
    assert task.call("shmctl", shmid, RMID, 0) == 0
    assert other.memory.read(address, 5) == b"child"
    other.mm.destroy()
    assert other.call("shmctl", shmid, STAT, buffer) == -Errno.EINVAL
    task.mm.destroy()
    assert system.frames.used <= before


def test_where_memory_is_attached(task):
    shmid = task.call("shmget", 0, 8192, CREAT | 0o600)
    place = 0x1234_5000
    assert task.call("shmat", shmid, place + 5, 0) == -Errno.EINVAL
    assert task.call("shmat", shmid, place + 5, RND) == place
    assert task.call("shmat", shmid, place + 4096, 0) == -Errno.EINVAL
    assert task.call("shmat", shmid, place + 4096, REMAP) == place + 4096
    assert task.call("shmat", shmid, 0, REMAP) == -Errno.EINVAL
    assert task.call("shmat", 99, 0, 0) == -Errno.EINVAL
    assert task.call("shmdt", place + 1) == -Errno.EINVAL
    assert [(vma.start, vma.end) for vma in task.mm.vmas] == [(place, place + 4096), (place + 4096, place + 12288)]
    assert task.call("shmdt", place) == 0
    assert [(vma.start, vma.end) for vma in task.mm.vmas] == [(place + 4096, place + 12288)]


def test_a_part_of_an_attachment_is_unmapped(task):
    shmid = task.call("shmget", 0, 0x4000, CREAT | 0o600)
    buffer = scratch(task)
    address = task.call("shmat", shmid, 0, 0)
    task.mm.munmap(address + 0x1000, 0x1000)
    assert nattch(task, shmid, buffer) == 2
    assert task.call("shmdt", address + 0x2000) == -Errno.EINVAL
    assert task.call("shmdt", address) == 0
    assert nattch(task, shmid, buffer) == 0


def test_shared_memory_rights(system, task):
    other = system.process(uid=2000)
    shmid = task.call("shmget", 5, 1, CREAT | 0o640)
    buffer = scratch(other)
    assert other.call("shmat", shmid, 0, RDONLY) == -Errno.EACCES
    assert other.call("shmctl", shmid, STAT, buffer) == -Errno.EACCES
    assert other.call("shmctl", shmid, RMID, 0) == -Errno.EPERM
    assert other.call("shmget", 5, 1, 0o400) == -Errno.EACCES
    assert other.call("shmget", 5, 1, 0) == shmid
    root = system.process(uid=0)
    address = root.call("shmat", shmid, 0, 0)
    assert address > 0
    readonly = task.call("shmat", shmid, 0, RDONLY)
    with pytest.raises(Exception, match="EFAULT"):
        task.memory.write(readonly, b"x")
    assert task.call("mprotect", readonly, 4096, 3) == -Errno.EACCES


def test_the_line_of_sysvipc_has_its_columns(system, task):
    task.call("shmget", 7, 5000, CREAT | 0o600)
    task.call("semget", 7, 3, CREAT | 0o600)
    task.call("msgget", 7, CREAT | 0o600)
    for table in (system.ipc.shm, system.ipc.sem, system.ipc.msg):
        header, line = table.text().splitlines()
        assert len(header.split()) == len(line.split())
        assert len(header) == len(line)


# Semaphores


def operations(task: Task, buffer: int, *parts: tuple[int, int, int]) -> int:
    task.memory.write(buffer, b"".join(struct.pack("<Hhh", *part) for part in parts))
    return len(parts)


def test_semaphore_operations_are_all_or_none(task):
    buffer = scratch(task)
    semid = task.call("semget", 0, 2, CREAT | 0o600)
    assert task.call("semctl", semid, 0, SETVAL, 3) == 0
    count = operations(task, buffer, (0, -2, 0), (1, -1, NOWAIT))
    assert task.call("semop", semid, buffer, count) == -Errno.EAGAIN
    assert task.call("semctl", semid, 0, GETVAL) == 3
    count = operations(task, buffer, (0, -2, 0), (1, 4, 0), (1, -4, 0), (1, 0, 0))
    assert task.call("semop", semid, buffer, count) == 0
    assert task.call("semctl", semid, 0, GETVAL) == 1
    assert task.call("semctl", semid, 1, GETPID) == task.pid


def test_semaphores_wait_and_go_on(system, task):
    buffer = scratch(task)
    semid = task.call("semget", 0, 1, CREAT | 0o600)
    waiter, zero = system.thread(task), system.thread(task)
    task.call("semop", semid, buffer, operations(task, buffer, (0, 1, 0)))
    assert zero.call("semop", semid, buffer, operations(task, buffer, (0, 0, 0))) == ASLEEP
    assert waiter.call("semop", semid, buffer, operations(task, buffer, (0, -2, 0))) == ASLEEP
    assert not waiter.restart
    assert task.call("semctl", semid, 0, GETNCNT) == task.call("semctl", semid, 0, GETZCNT) == 1
    assert task.call("semop", semid, buffer, operations(task, buffer, (0, 1, 0))) == 0
    assert waiter.woken
    assert zero.woken
    assert waiter.again() == zero.again() == 0
    assert task.call("semctl", semid, 0, GETVAL) == 0


def test_semaphore_timeout_and_removal(system, task):
    buffer = scratch(task)
    other = system.thread(task)
    semid = task.call("semget", 0, 1, CREAT | 0o600)
    task.memory.write(buffer + 64, struct.pack("<qq", 0, 1000))
    count = operations(task, buffer, (0, -1, 0))
    assert task.call("semtimedop", semid, buffer, count, buffer + 64) == ASLEEP
    system.clock.time += 1000
    assert task.again() == -Errno.EAGAIN
    assert other.call("semop", semid, buffer, count) == ASLEEP
    assert task.call("semctl", semid, 0, RMID) == 0
    assert other.again() == -Errno.EIDRM


def test_what_semaphores_refuse(task):
    buffer = scratch(task)
    semid = task.call("semget", 4, 2, CREAT | 0o600)
    assert task.call("semget", 4, 3, 0) == -Errno.EINVAL
    assert task.call("semget", 0, 0, CREAT) == task.call("semget", 0, 32001, CREAT) == -Errno.EINVAL
    assert task.call("semop", semid, buffer, 0) == -Errno.EINVAL
    assert task.call("semop", semid, buffer, 501) == -Errno.E2BIG
    assert task.call("semop", semid, 16, 1) == -Errno.EFAULT
    assert task.call("semop", semid, buffer, operations(task, buffer, (2, 1, 0))) == -Errno.EFBIG
    assert task.call("semctl", semid, 2, GETVAL) == -Errno.EINVAL
    assert task.call("semctl", semid, 0, SETVAL, 32768) == -Errno.ERANGE
    assert task.call("semctl", semid, 0, SETVAL, 32767) == 0
    assert task.call("semop", semid, buffer, operations(task, buffer, (0, 1, 0))) == -Errno.ERANGE
    assert task.call("semctl", semid, 0, 99) == -Errno.EINVAL


def test_adjustments_are_undone_at_the_end_of_the_process(system, task):
    buffer = scratch(task)
    semid = task.call("semget", 0, 2, CREAT | 0o600)
    task.memory.write(buffer + 64, struct.pack("<HH", 5, 0))
    assert task.call("semctl", semid, 0, SETALL, buffer + 64) == 0
    child = system.fork(task)
    assert child.call("semop", semid, buffer, operations(child, buffer, (0, -4, UNDO), (1, 2, UNDO))) == 0
    assert task.call("semop", semid, buffer, operations(task, buffer, (0, -3, 0))) == ASLEEP
    system.ipc.exit(child)
    assert task.again() == 0
    assert task.call("semctl", semid, 0, GETALL, buffer + 64) == 0
    assert struct.unpack("<HH", task.memory.read(buffer + 64, 4)) == (2, 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-3, 3)), max_size=30))
def test_the_value_of_a_semaphore_is_what_went_through(steps):
    system = System(64)
    base = system.process()
    buffer = scratch(base)
    semid = base.call("semget", 0, 1, CREAT | 0o600)
    tasks = [system.thread(base) for _ in range(5)]
    asleep: dict[Task, int] = {}
    value = 0
    for who, change in steps:
        task = tasks[who]
        if task in asleep:
            continue
        if task.call("semop", semid, buffer, operations(base, buffer, (0, change, 0))) == ASLEEP:
            asleep[task] = change
        else:
            value += change
        for other in [other for other in asleep if other.woken]:
            assert other.again() == 0
            value += asleep.pop(other)
        assert base.call("semctl", semid, 0, GETVAL) == value
        assert not any((change == 0 and value == 0) or 0 < -change <= value for change in asleep.values())


# Message queues


def send(task: Task, msqid: int, kind: int, text: bytes, flags: int = 0) -> object:
    buffer = scratch(task)
    task.memory.write(buffer, struct.pack("<q", kind) + text)
    return task.call("msgsnd", msqid, buffer, len(text), flags)


def receive(task: Task, msqid: int, kind: int, flags: int = 0, size: int = 100) -> object:
    task.buffer = scratch(task)
    return taken(task, task.call("msgrcv", msqid, task.buffer, size, kind, flags))


def taken(task: Task, result: object) -> object:
    if isinstance(result, str) or result < 0:
        return result
    return task.memory.read_u64(task.buffer), task.memory.read(task.buffer + 8, result) if result else b""


def test_messages_by_type(task):
    msqid = task.call("msgget", 0, CREAT | 0o600)
    for kind, text in ((3, b"three"), (1, b"one"), (2, b"two"), (1, b"uno"), (9, b"")):
        assert send(task, msqid, kind, text) == 0
    assert receive(task, msqid, 0, NOWAIT, 4) == -Errno.E2BIG
    assert receive(task, msqid, 1, NOWAIT | 0o40000) == (1, b"one")
    assert receive(task, msqid, -2, NOWAIT) == (1, b"one")
    assert receive(task, msqid, 3, NOWAIT | 0o20000) == (2, b"two")
    assert receive(task, msqid, 3, NOWAIT | 0o10000, 4) == (3, b"thre")
    assert receive(task, msqid, 5, NOWAIT) == -Errno.ENOMSG
    assert receive(task, msqid, 0) == (1, b"uno")
    assert receive(task, msqid, 9) == (9, b"")
    assert receive(task, msqid, 0, NOWAIT) == -Errno.ENOMSG


def test_receivers_and_senders_wait(system, task):
    msqid = task.call("msgget", 0, CREAT | 0o600)
    one, two, sender = system.process(), system.process(), system.process()
    assert receive(one, msqid, 5) == receive(two, msqid, 0) == ASLEEP
    assert send(task, msqid, 6, b"x") == 0
    assert not one.woken
    assert taken(two, two.again()) == (6, b"x")
    assert send(task, msqid, 5, b"y" * 101) == 0
    assert one.again() == -Errno.E2BIG
    assert send(task, msqid, 1, b"z" * 8192) == 0
    assert send(task, msqid, 1, b"z" * 8192, NOWAIT) == -Errno.EAGAIN
    assert send(sender, msqid, 2, b"w" * 8192) == ASLEEP
    assert receive(task, msqid, 5, 0, 200) == (5, b"y" * 101)
    assert sender.again() == 0
    assert task.call("msgctl", msqid, STAT, task.buffer) == 0
    assert struct.unpack("<QQQii", task.memory.read(task.buffer + 72, 32)) == (
        16384, 2, 16384, sender.pid, task.pid,
    )  # fmt: skip
    assert receive(one, msqid, 77) == ASLEEP
    assert task.call("msgctl", msqid, RMID, 0) == 0
    assert one.again() == -Errno.EIDRM


def test_what_message_queues_refuse(task):
    msqid = task.call("msgget", 0, CREAT | 0o600)
    assert send(task, msqid, 0, b"x") == -Errno.EINVAL
    assert send(task, msqid, 1, b"x" * 8193) == -Errno.EINVAL
    assert send(task, 55, 1, b"x") == -Errno.EINVAL
    assert task.call("msgsnd", msqid, 16, 1, 0) == -Errno.EFAULT
    assert task.call("msgrcv", msqid, 16, -1, 0, NOWAIT) == -Errno.EINVAL
    assert receive(task, msqid, 0, 0o40000) == -Errno.EINVAL
    assert task.call("msgget", 77, 0) == -Errno.ENOENT
