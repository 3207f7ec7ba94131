"""A task without a CPU: descriptors, a file-system context and a flat memory, and the calls by name."""

from __future__ import annotations

import os
import struct
from types import SimpleNamespace

from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import AT_FDCWD
from mmuemu.kernel.signals.pending import Pending
from mmuemu.kernel.syscalls import load_all
from mmuemu.kernel.syscalls.table import TABLE
from mmuemu.kernel.timers import Timers
from mmuemu.kernel.wait import Blocked

load_all()
BASE = 0x10000
NUMBERS = {call.name: call for call in TABLE.values()}


class FlatMemory:
    """Guest memory from BASE on; everything else is EFAULT."""

    task_size = 1 << 47

    def __init__(self, size: int = 1 << 16) -> None:
        self.data = bytearray(size)

    def _at(self, address: int, count: int) -> int:
        at = address - BASE
        if at < 0 or at + count > len(self.data):
            raise SyscallError(Errno.EFAULT)
        return at

    def read(self, address: int, count: int) -> bytes:
        at = self._at(address, count)
        return bytes(self.data[at : at + count])

    def write(self, address: int, data: bytes) -> None:
        at = self._at(address, len(data))
        self.data[at : at + len(data)] = data

    def chunks(self, address: int, count: int, write: bool):
        at = self._at(address, 0)
        yield memoryview(self.data)[at : at + count]
        self._at(address, count)

    def read_cstring(self, address: int, limit: int) -> bytes:
        at = self._at(address, 1)
        end = self.data.find(b"\0", at, at + limit)
        if end < 0:
            raise SyscallError(Errno.ENAMETOOLONG)
        return bytes(self.data[at:end])

    def read_u32(self, address: int) -> int:
        return int.from_bytes(self.read(address, 4), "little")

    def read_u64(self, address: int) -> int:
        return int.from_bytes(self.read(address, 8), "little")

    def write_u32(self, address: int, value: int) -> None:
        self.write(address, value.to_bytes(4, "little"))

    def write_u64(self, address: int, value: int) -> None:
        self.write(address, value.to_bytes(8, "little"))


class FakeClock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.time = 1_000_000_000

    def now(self) -> int:
        return self.time

    def realtime(self) -> int:
        return 1_700_000_000_000_000_000 + self.time


class FakeKernel:
    """What files ask of a kernel: the time, timers, and who runs."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.timers = Timers()
        self.current = None
        self.main = None
        self.processes = {}
        self.sent = []

    def send_signal(self, process, info) -> None:
        self.sent.append((process.pid, int(info.signal)))

    def pass_time(self, nanoseconds: int) -> None:
        self.clock.time += nanoseconds
        self.timers.expire(self.clock.time)


def serve(task, name: str, args: tuple[int, ...]) -> int:
    """Make a call with raw 64-bit arguments."""
    call = NUMBERS[name]
    words = dict(zip((form[0] for form in call.forms), args, strict=False))
    return call.call(task, words, 0)


class Sleeping:
    """A call that sleeps. ``woken`` tells whether what it waits for has said so."""

    def __init__(self, guest, name: str, args: tuple[int, ...], blocked: Blocked) -> None:
        self.guest, self.name, self.args = guest, name, args
        self.state = None
        self._wait(blocked)

    def _wait(self, blocked: Blocked) -> None:
        task = self.guest.task
        self.state, task.call_state = task.call_state, None
        self.blocked = blocked.with_traceback(None)
        self.woken = False
        for queue in blocked.queues:
            queue.add(self)

    def _leave(self) -> None:
        for queue in self.blocked.queues:
            queue.remove(self)

    def wake(self) -> None:
        self.woken = True

    def again(self):
        """Make the call again, as the kernel does: its result, or None when it sleeps on."""
        self._leave()
        task = self.guest.task
        task.kernel.current = task
        task.call_state, self.state = self.state, None
        try:
            result = serve(task, self.name, self.args)
        except Blocked as blocked:
            self._wait(blocked)
            return None
        except SyscallError as error:
            result = -error.errno
        task.call_state = None
        return result

    def interrupt(self):
        """A handled signal ends the call."""
        self._leave()
        self.state = None
        return self.blocked.progress if self.blocked.progress is not None else -Errno.EINTR


class Guest:
    """One process that can make system calls; failures come back as negative errno, as in RAX."""

    def __init__(
        self, tree, cwd: str | bytes = "/", memory: int = 1 << 21, uid: int = 1000, kernel=None, pid: int = 42
    ) -> None:
        self.tree = tree
        self.memory = FlatMemory(memory)
        devnull = os.open(os.devnull, os.O_RDWR)
        self._devnull = devnull
        self.task = SimpleNamespace(
            pid=pid, tid=pid, ppid=1, uid=uid, gid=uid, memory=self.memory, mm=self.memory, fs=tree.context(cwd),
            files=tree.standard_streams(devnull, devnull, devnull), name="guest", kernel=kernel or FakeKernel(),
            call_state=None, saved_mask=None, signal_mask=0, signals=Pending(),
            process=SimpleNamespace(signals=Pending(), pid=pid, sid=pid, pgid=pid, actions={}, zombie=False, limits={}),
        )  # fmt: skip
        self.kernel = tree.terminal.kernel = self.task.kernel
        self.kernel.main = self.kernel.main or self.task.process
        self.kernel.processes[pid] = self.task.process

    def fork(self) -> Guest:
        """A second process with copies of the descriptors and of where this one stands."""
        child = Guest(self.tree, uid=self.task.uid, kernel=self.kernel, pid=self.task.pid + 1)
        child.task.files.close_all()
        child.task.files = self.task.files.clone()
        child.task.fs = self.task.fs.clone()
        return child

    def exit(self) -> None:
        """End a forked process."""
        self.task.files.release()
        os.close(self._devnull)

    def sleeps(self, name: str, *args: int) -> Sleeping:
        """Make a call that must sleep."""
        raw = tuple(a & 0xFFFF_FFFF_FFFF_FFFF for a in args)
        self.kernel.current = self.task
        try:
            result = serve(self.task, name, raw)
        except Blocked as blocked:
            return Sleeping(self, name, raw, blocked)
        raise AssertionError(f"{name} returned {result}")

    def close(self) -> None:
        self.task.files.close_all()
        self.tree.close()
        os.close(self._devnull)

    def raw(self, name: str, *args: int) -> int:
        """Call by name with raw 64-bit arguments. A call that sleeps gets its timeout, or EAGAIN without one."""
        padded = tuple(a & 0xFFFF_FFFF_FFFF_FFFF for a in args)
        self.kernel.current = self.task
        try:
            while True:
                try:
                    return serve(self.task, name, padded)
                except Blocked as blocked:
                    if blocked.deadline is None:
                        raise
                    self.kernel.pass_time(blocked.deadline - self.kernel.clock.now())
        except SyscallError as error:
            return -error.errno
        finally:
            self.task.call_state = None

    def call(self, name: str, *args: int | bytes | str) -> int:
        """As raw, with strings and bytes put into memory first (NUL-terminated)."""
        at = BASE + len(self.memory.data) - 40000
        ready = []
        for arg in args:
            if isinstance(arg, (str, bytes)):
                data = os.fsencode(arg) + b"\0"
                self.memory.write(at, data)
                ready.append(at)
                at += len(data)
            else:
                ready.append(arg)
        return self.raw(name, *ready)

    def open(self, path: str | bytes, flags: int = 0, mode: int = 0o644) -> int:
        return self.call("openat", AT_FDCWD, path, flags, mode)

    def read(self, fd: int, count: int = 1 << 16) -> bytes | int:
        got = self.raw("read", fd, BASE, count)
        return self.memory.read(BASE, got) if got >= 0 else got

    def pread(self, fd: int, count: int, offset: int) -> bytes | int:
        got = self.raw("pread64", fd, BASE, count, offset)
        return self.memory.read(BASE, got) if got >= 0 else got

    def write(self, fd: int, data: bytes) -> int:
        self.memory.write(BASE, data)
        return self.raw("write", fd, BASE, len(data))

    def slurp(self, path: str | bytes) -> bytes | int:
        fd = self.open(path)
        if fd < 0:
            return fd
        pieces = []
        while True:
            data = self.read(fd)
            if isinstance(data, int) or not data:
                break
            pieces.append(data)
        self.raw("close", fd)
        return b"".join(pieces) if not isinstance(data, int) else data

    def spit(self, path: str | bytes, data: bytes) -> int:
        fd = self.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        if fd < 0:
            return fd
        done = 0
        while done < len(data):
            done += self.write(fd, data[done : done + (1 << 16)])
        self.raw("close", fd)
        return done

    def stat(self, path: str | bytes, follow: bool = True):
        """(dev, ino, nlink, mode, uid, gid, rdev, size, blocks, mtime_s) or the negative errno."""
        result = self.call("stat" if follow else "lstat", path, BASE)
        return self.unpack_stat() if result == 0 else result

    def unpack_stat(self):
        f = struct.unpack("<QQQIIIIQqqqqqqqqqqqq", self.memory.read(BASE, 144))
        return SimpleNamespace(
            dev=f[0], ino=f[1], nlink=f[2], mode=f[3], uid=f[4], gid=f[5], rdev=f[7], size=f[8],
            blksize=f[9], blocks=f[10], atime=f[11], atime_ns=f[12], mtime=f[13], mtime_ns=f[14],
        )  # fmt: skip

    def readlink(self, path: str | bytes) -> bytes | int:
        got = self.call("readlink", path, BASE, 4096)
        return self.memory.read(BASE, got) if got >= 0 else got

    def listdir(self, path: str | bytes) -> list[bytes] | int:
        fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        if fd < 0:
            return fd
        names = []
        while True:
            got = self.raw("getdents64", fd, BASE, 4096)
            if got <= 0:
                break
            data = self.memory.read(BASE, got)
            while data:
                length = int.from_bytes(data[16:18], "little")
                names.append(data[19 : data.index(b"\0", 19)])
                data = data[length:]
        self.raw("close", fd)
        return names if got == 0 else got
