"""Sleeping on files: who is woken, what is remembered, what a signal finds done."""

from __future__ import annotations

import gc
import itertools
import os
import struct

import pytest
from files_guest import BASE
from hypothesis import given, settings
from hypothesis import strategies as st

from mmuemu.kernel.abi import fcntl as c
from mmuemu.kernel.abi.errno import Errno
from mmuemu.kernel.files.locks import FileLocks, RecordLock
from mmuemu.kernel.files.pipe import CAPACITY, PipeInode

SOCK_STREAM, SOCK_DGRAM = 1, 2


def make_pipe(guest, flags: int = 0) -> tuple[int, int]:
    assert guest.raw("pipe2", BASE, flags) == 0
    return struct.unpack("<ii", guest.memory.read(BASE, 8))


def make_pair(guest, kind: int = SOCK_STREAM) -> tuple[int, int]:
    assert guest.raw("socketpair", 1, kind, 0, BASE) == 0
    return struct.unpack("<ii", guest.memory.read(BASE, 8))


def test_a_reader_is_woken_by_a_write_and_by_the_last_close(guest):
    reader, writer = make_pipe(guest)
    sleeping = guest.sleeps("read", reader, BASE + 4096, 10)
    assert not sleeping.woken
    assert sleeping.again() is None
    guest.write(writer, b"abc")
    assert sleeping.woken
    assert sleeping.again() == 3
    sleeping = guest.sleeps("read", reader, BASE + 4096, 10)
    guest.raw("close", writer)
    assert sleeping.woken
    assert sleeping.again() == 0


def test_a_large_write_goes_on_where_it_was(guest):
    reader, writer = make_pipe(guest)
    data = os.urandom(3 * CAPACITY)
    guest.memory.write(BASE, data)
    sleeping = guest.sleeps("write", writer, BASE, len(data))
    assert sleeping.blocked.progress == CAPACITY
    got = b""
    result = None
    while result is None:
        assert guest.raw("read", reader, BASE + (1 << 20), 50_000) > 0
        got += guest.memory.read(BASE + (1 << 20), min(50_000, len(data) - len(got)))
        result = sleeping.again() if sleeping.woken else None
    assert result == len(data)
    while len(got) < len(data):
        count = guest.raw("read", reader, BASE + (1 << 20), 50_000)
        got += guest.memory.read(BASE + (1 << 20), count)
    assert got == data


def test_a_signal_leaves_what_was_written(guest):
    _, writer = make_pipe(guest)
    assert guest.sleeps("write", writer, BASE, CAPACITY + 1).interrupt() == CAPACITY
    assert guest.sleeps("write", writer, BASE, 10).interrupt() == -Errno.EINTR


def fifo(guest) -> PipeInode:
    assert guest.call("mknod", "fifo", 0o10644, 0) == 0
    return guest.tree.lookup("/tmp/fifo")


def test_opening_a_fifo_waits_and_counts_meanwhile(guest):
    pipe = fifo(guest)
    guest.memory.write(BASE, b"/tmp/fifo\0")
    opening = guest.sleeps("openat", c.AT_FDCWD, BASE, os.O_RDONLY, 0)
    assert pipe.readers == 1
    writer = guest.open("fifo", os.O_WRONLY | os.O_NONBLOCK)
    assert writer >= 0, "whoever waits counts as a reader"
    guest.raw("close", writer)
    assert opening.woken
    reader = opening.again()
    assert guest.read(reader) == b"", "the writer that let it through is gone again"
    guest.raw("close", reader)
    assert (pipe.readers, pipe.writers) == (0, 0)


def test_a_pipe_without_a_name_is_opened_again_at_once(guest):
    reader, writer = make_pipe(guest)
    guest.write(writer, b"left")
    guest.raw("close", writer)
    again = guest.open(f"/proc/self/fd/{reader}")
    assert guest.read(again) == b"left"


def test_an_interrupted_open_of_a_fifo_leaves_no_end(guest):
    pipe = fifo(guest)
    guest.memory.write(BASE, b"/tmp/fifo\0")
    opening = guest.sleeps("openat", c.AT_FDCWD, BASE, os.O_WRONLY, 0)
    assert pipe.writers == 1
    assert opening.interrupt() == -Errno.EINTR
    del opening
    gc.collect()
    assert pipe.writers == 0


def test_poll_sleeps_on_every_file_until_the_timeout(guest):
    reader, writer = make_pipe(guest)
    event = guest.raw("eventfd2", 0, 0)
    guest.memory.write(BASE, struct.pack("<iHHiHH", reader, c.POLLIN, 0, event, c.POLLIN, 0))
    sleeping = guest.sleeps("poll", BASE, 2, 5)
    assert len(sleeping.blocked.queues) == 2
    deadline = sleeping.blocked.deadline
    assert deadline == guest.kernel.clock.now() + 5_000_000
    assert sleeping.again() is None
    assert sleeping.blocked.deadline == deadline, "the timeout does not start anew"
    guest.kernel.pass_time(5_000_000)
    assert sleeping.again() == 0
    sleeping = guest.sleeps("poll", BASE, 2, -1)
    guest.memory.write(BASE + 4096, (1).to_bytes(8, "little"))
    guest.raw("write", event, BASE + 4096, 8)
    assert sleeping.woken
    assert sleeping.again() == 1
    assert sleeping.interrupt() == -Errno.EINTR
    assert writer >= 0


def test_ppoll_has_its_mask_while_it_lasts(guest):
    reader, writer = make_pipe(guest)
    task = guest.task
    task.signal_mask = 0b1010
    guest.memory.write(BASE, struct.pack("<iHH", reader, c.POLLIN, 0))
    guest.memory.write_u64(BASE + 64, 0b0100)
    sleeping = guest.sleeps("ppoll", BASE, 1, 0, BASE + 64, 8)
    assert (task.signal_mask, task.saved_mask) == (0b0100, 0b1010)
    guest.raw("write", writer, BASE, 1)
    assert sleeping.again() == 1
    assert (task.signal_mask, task.saved_mask) == (0b1010, None)
    assert guest.raw("ppoll", BASE, 1, 0, BASE + 64, 4) == -Errno.EINVAL


@pytest.mark.parametrize("kind", [SOCK_STREAM, SOCK_DGRAM])
def test_sockets_wake_both_ways(guest, kind):
    one, other = make_pair(guest, kind)
    sleeping = guest.sleeps("read", other, BASE, 100)
    guest.write(one, b"hello")
    assert sleeping.woken
    assert sleeping.again() == 5
    while guest.raw("sendto", one, BASE, 1 << 16, 0x40, 0, 0) > 0:
        pass
    sleeping = guest.sleeps("sendto", one, BASE, 1 << 16, 0, 0, 0)
    guest.raw("read", other, BASE, 1 << 20)
    assert sleeping.woken


def test_a_receive_timeout_is_from_the_first_call(guest):
    one, _ = make_pair(guest)
    guest.memory.write(BASE, struct.pack("<qq", 0, 250_000))
    assert guest.raw("setsockopt", one, 1, 20, BASE, 16) == 0
    sleeping = guest.sleeps("recvfrom", one, BASE, 10, 0, 0, 0)
    guest.kernel.pass_time(200_000_000)
    assert sleeping.again() is None
    guest.kernel.pass_time(50_000_000)
    assert sleeping.again() == -Errno.EAGAIN


def test_a_message_that_waits_keeps_its_files_open(guest):
    one, other = make_pair(guest)
    reader, writer = make_pipe(guest)
    pipe = guest.task.files.get(writer).inode
    control = struct.pack("<Qii", 20, 1, 1) + struct.pack("<i4x", writer)
    guest.memory.write(BASE + 512, control)
    guest.memory.write(BASE + 256, struct.pack("<QQ", BASE, 1))
    guest.memory.write(BASE + 128, struct.pack("<QIIQQQQQ", 0, 0, 0, BASE + 256, 1, BASE + 512, len(control), 0))
    assert guest.raw("sendmsg", one, BASE + 128, 0) == 1
    guest.raw("close", writer)
    assert pipe.writers == 1
    guest.raw("close", one)
    guest.raw("close", other)
    assert pipe.writers == 0, "an unread message's files are closed with it"
    assert guest.read(reader) == b""


def test_edge_triggered_items_leave_the_list_until_woken(guest):
    reader, writer = make_pipe(guest)
    ep = guest.raw("epoll_create1", 0)
    guest.memory.write(BASE, struct.pack("<IQ", c.POLLIN | 1 << 31, 77))
    assert guest.raw("epoll_ctl", ep, 1, reader, BASE) == 0
    sleeping = guest.sleeps("epoll_wait", ep, BASE, 4, -1)
    guest.raw("write", writer, BASE, 1)
    assert sleeping.woken
    assert sleeping.again() == 1
    assert struct.unpack("<IQ", guest.memory.read(BASE, 12)) == (c.POLLIN, 77)
    sleeping = guest.sleeps("epoll_wait", ep, BASE, 4, -1)
    guest.raw("close", reader)
    assert not guest.task.files.get(ep).items


def test_a_timer_wakes_at_its_time(guest):
    fd = guest.raw("timerfd_create", 1, 0)
    guest.memory.write(BASE, struct.pack("<4q", 0, 300, 0, 1000))
    assert guest.raw("timerfd_settime", fd, 0, BASE, 0) == 0
    sleeping = guest.sleeps("read", fd, BASE, 8)
    guest.kernel.pass_time(999)
    assert not sleeping.woken
    guest.kernel.pass_time(1 + 650)
    assert sleeping.woken
    assert sleeping.again() == 8
    assert guest.memory.read_u64(BASE) == 3
    guest.raw("timerfd_gettime", fd, BASE)
    assert struct.unpack("<4q", guest.memory.read(BASE, 32)) == (0, 300, 0, 250)


def test_locks_wait_and_deadlock_is_seen(guest):
    fd = guest.open("f", os.O_CREAT | os.O_RDWR)
    child = guest.fork()

    def lock(who, command, kind, start, length):
        who.memory.write(BASE, struct.pack("<hhxxxxqqixxxx", kind, 0, start, length, 0))
        return who.raw("fcntl", fd, command, BASE)

    assert lock(guest, c.F_SETLK, c.F_WRLCK, 0, 1) == 0
    assert lock(child, c.F_SETLK, c.F_WRLCK, 1, 1) == 0
    assert lock(child, c.F_SETLK, c.F_RDLCK, 0, 1) == -Errno.EAGAIN
    child.memory.write(BASE, struct.pack("<hhxxxxqqixxxx", c.F_WRLCK, 0, 0, 1, 0))
    sleeping = child.sleeps("fcntl", fd, c.F_SETLKW, BASE)
    assert lock(guest, c.F_SETLKW, c.F_WRLCK, 1, 1) == -Errno.EDEADLK
    other = guest.open("f", os.O_RDONLY)
    guest.raw("close", other)
    assert sleeping.woken, "closing any descriptor of the file drops the process's locks"
    assert sleeping.again() == 0
    assert lock(guest, c.F_SETLK, c.F_WRLCK, 0, 1) == -Errno.EAGAIN
    child.exit()
    assert lock(guest, c.F_SETLK, c.F_WRLCK, 0, 2) == 0


def test_flock_belongs_to_the_description(guest):
    fd = guest.open("f", os.O_CREAT | os.O_RDWR)
    child = guest.fork()
    other = child.open("f", os.O_RDWR)
    assert guest.raw("flock", fd, c.LOCK_EX) == 0
    sleeping = child.sleeps("flock", other, c.LOCK_SH)
    assert child.raw("flock", fd, c.LOCK_EX) == 0, "the child's inherited descriptor is the same lock"
    guest.raw("close", fd)
    assert not sleeping.woken
    child.raw("close", fd)
    assert sleeping.woken
    assert sleeping.again() == 0
    child.exit()


def test_a_running_program_is_not_written_to_and_the_reverse(guest):
    fd = guest.open("program", os.O_CREAT | os.O_RDWR, 0o755)
    inode = guest.task.files.get(fd).inode
    with pytest.raises(Exception, match="ETXTBSY"):
        inode.deny_write_access()
    guest.raw("close", fd)
    inode.deny_write_access()
    assert guest.open("program", os.O_WRONLY) == -Errno.ETXTBSY
    assert guest.open("program", os.O_RDONLY | os.O_TRUNC) == -Errno.ETXTBSY
    assert guest.call("truncate", "program", 0) == -Errno.ETXTBSY
    inode.allow_write_access()
    assert guest.open("program", os.O_WRONLY) >= 0


def test_open_files_of_a_machine_are_limited(guest):
    quota = guest.tree.quota
    quota.max_files = quota.files + 2
    first = guest.open("/etc/passwd")
    assert guest.raw("pipe", BASE) == -Errno.ENFILE
    assert guest.raw("dup", first) > first
    assert guest.open("/etc/passwd") >= 0
    assert guest.open("/etc/passwd") == -Errno.ENFILE
    assert guest.raw("epoll_create1", 0) == -Errno.ENFILE


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 11), st.integers(0, 11)), min_size=1, max_size=25
    )
)
def test_record_locks_are_as_if_kept_for_each_byte(steps):
    """Splitting and joining against a table of one entry a byte and owner."""
    locks = FileLocks()
    owners = ["a", "b", "c"]
    table: dict[tuple[str, int], int] = {}
    for who, kind, one, other in steps:
        owner, start, end = owners[who], min(one, other), max(one, other)
        wanted = RecordLock(owner, who, kind, start, end)
        clash = any(
            table.get((o, byte)) is not None and not table[o, byte] == kind == c.F_RDLCK
            for o in owners if o != owner for byte in range(start, end + 1)
        )  # fmt: skip
        if kind != c.F_UNLCK:
            assert (locks.conflict(wanted) is not None) == clash
            if clash:
                continue
        locks.set(wanted)
        for byte in range(start, end + 1):
            if kind == c.F_UNLCK:
                table.pop((owner, byte), None)
            else:
                table[owner, byte] = kind
        kept = {(lock.owner, byte): lock.kind for lock in locks.records for byte in range(lock.start, lock.end + 1)}
        assert kept == table
        mine = [lock for lock in locks.records if lock.owner == owner]
        assert all(a.end + 1 < b.start or a.kind != b.kind for a, b in itertools.pairwise(mine)), "joined"
