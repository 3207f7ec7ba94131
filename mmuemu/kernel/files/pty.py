"""Pseudo-terminals (pty(7)): /dev/ptmx makes a pair, /dev/pts has the terminal's side of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mmuemu.kernel.abi import fcntl as c
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.fcntl import POLLERR, POLLHUP, POLLIN, POLLOUT, POLLRDNORM, POLLWRNORM
from mmuemu.kernel.abi.signals import Signal
from mmuemu.kernel.abi.stat import S_IFCHR, makedev
from mmuemu.kernel.files.inode import Caller, Directory, FileSystem, Inode
from mmuemu.kernel.files.linediscipline import LONGEST_LINE, TOSTOP, LineDiscipline
from mmuemu.kernel.files.openfile import Blocked, OpenFile
from mmuemu.kernel.files.terminal import Terminal
from mmuemu.kernel.wait import WaitQueue

if TYPE_CHECKING:
    from typing import NoReturn

    from mmuemu.kernel.files.openfile import UserMemory
    from mmuemu.kernel.process import Process

_TENTH: Final = 100_000_000
MOST: Final = 4096
ROOM: Final = 1 << 16
"""Bytes that may wait for the master to read them."""


class Pty:
    """One pair: what the master has to read, the line discipline, and who has it open."""

    __slots__ = (
        "discipline",
        "locked",
        "master_open",
        "number",
        "opened",
        "output",
        "queue",
        "slaves",
        "terminal",
        "window",
    )

    def __init__(self, number: int, terminal: Terminal) -> None:
        self.number = number
        self.terminal = terminal
        self.discipline = LineDiscipline(self._echoed, terminal.signal)
        self.output = bytearray()
        self.queue = WaitQueue()
        self.locked = True
        self.master_open = True
        self.slaves = 0
        self.opened = False
        """Whether the terminal's side was ever opened: until then its being closed is no hang-up."""
        self.window = bytes(8)

    def _echoed(self, data: bytes) -> None:
        if len(self.output) < ROOM:
            self.output += data

    def ioctl(self, memory: UserMemory, request: int, argument: int) -> int:
        """Modes, window size and flushing, the same from either side."""
        if request == c.TCGETS:
            memory.write(argument, self.discipline.termios)
        elif request in (c.TCSETS, c.TCSETSW, c.TCSETSF):
            if request == c.TCSETSF:
                self.discipline.flush()
            self.discipline.set(memory.read(argument, 36))
        elif request == c.TIOCGWINSZ:
            memory.write(argument, self.window)
        elif request == c.TIOCSWINSZ:
            before, self.window = self.window, memory.read(argument, 8)
            if before != self.window:
                self.terminal.signal(Signal.SIGWINCH)
        elif request == c.TCFLSH:
            if argument in (0, 2):
                self.discipline.flush()
            if argument in (1, 2):
                self.output.clear()
        elif request not in (c.TCSBRK, c.TCXONC):
            raise SyscallError(Errno.ENOTTY)
        self.queue.wake()
        return 0


class _Side(OpenFile):
    """What both sides share."""

    __slots__ = ("pty",)

    whole = True
    pollable = True

    def __init__(self, inode: Inode, flags: int, pty: Pty) -> None:
        super().__init__(inode, flags)
        self.pty = pty

    def _block(self) -> NoReturn:
        raise SyscallError(Errno.EAGAIN) if self.nonblocking else Blocked(self.pty.queue)

    def wait_queues(self) -> tuple[WaitQueue, ...]:
        """The pair's."""
        return (self.pty.queue,)


class Master(_Side):
    """The side of a terminal emulator: it reads what is shown and writes what is typed."""

    __slots__ = ()

    def read(self, count: int) -> bytes:
        """What the programs wrote; EIO once nobody has the terminal open any more."""
        pty = self.pty
        if not count:
            return b""
        if not pty.output:
            if pty.opened and not pty.slaves:
                raise SyscallError(Errno.EIO)
            self._block()
        data = bytes(pty.output[:count])
        del pty.output[:count]
        pty.queue.wake()
        return data

    def unread(self, data: bytes) -> None:
        """Put it back."""
        self.pty.output[:0] = data

    def write(self, data: bytes) -> int:
        """Type ``data``, as much as there is room for."""
        discipline, done = self.pty.discipline, 0
        while done < len(data) and (room := discipline.room()):
            discipline.typed(data[done : done + room])
            done = min(done + room, len(data))
        if data and not done:
            self._block()
        self.pty.queue.wake()
        return done

    def ioctl(self, memory: UserMemory, request: int, argument: int) -> int:
        """The pair's number and lock, and what both sides know."""
        pty = self.pty
        if request == c.TIOCGPTN:
            memory.write(argument, pty.number.to_bytes(4, "little"))
        elif request == c.TIOCSPTLCK:
            pty.locked = any(memory.read(argument, 4))
        elif request == c.TIOCGPTLCK:
            memory.write(argument, int(pty.locked).to_bytes(4, "little"))
        elif request == c.FIONREAD:
            memory.write(argument, len(pty.output).to_bytes(4, "little"))
        else:
            return pty.ioctl(memory, request, argument)
        return 0

    def poll(self) -> int:
        """Readable with output, writable with room, hung up without anybody on the other side."""
        pty = self.pty
        bits = POLLIN | POLLRDNORM if pty.output else 0
        bits |= POLLOUT | POLLWRNORM if pty.discipline.room() else 0
        return bits | (POLLHUP if pty.opened and not pty.slaves else 0)

    def terminal(self) -> Terminal:
        """The other side's."""
        return self.pty.terminal

    def closed(self) -> None:
        """The terminal hangs up."""
        super().closed()
        pty = self.pty
        pty.master_open = False
        directory = self.inode
        assert isinstance(directory, PtmxInode)
        directory.pts.ptys.pop(pty.number, None)
        pty.terminal.hang_up()
        pty.queue.wake()


class _Timed:
    """A read that waits no longer than VTIME: the bytes that were there when the time began, and when it ends."""

    __slots__ = ("deadline", "there")

    def __init__(self, there: int, deadline: int) -> None:
        self.there = there
        self.deadline = deadline


class Slave(_Side):
    """The terminal's side."""

    __slots__ = ()

    def __init__(self, inode: Inode, flags: int, pty: Pty) -> None:
        super().__init__(inode, flags, pty)
        pty.slaves += 1
        pty.opened = True
        pty.queue.wake()

    def read(self, count: int) -> bytes:
        """A line, or without canonical mode what was typed; empty after the end-of-file key or a hang-up."""
        if not self.readable:
            raise SyscallError(Errno.EBADF)
        pty = self.pty
        if not pty.master_open or not count:
            return b""
        pty.terminal.check_foreground(Signal.SIGTTIN)
        self._wait_for_input(count)
        if not pty.discipline.ready:
            return b""
        data = pty.discipline.take(count)
        pty.queue.wake()
        return data

    def _wait_for_input(self, count: int) -> None:
        """Sleep until a read of ``count`` bytes has to wait no longer; EAGAIN with O_NONBLOCK and nothing there."""
        pty = self.pty
        tenths = pty.discipline.patience(count)
        if tenths == 0 or (self.nonblocking and pty.discipline.ready):
            return
        kernel = pty.terminal.kernel
        task = kernel.current if kernel is not None else None
        if tenths is None or self.nonblocking or kernel is None or task is None:
            self._block()
        there = pty.discipline.waiting()
        if not isinstance(task.call_state, _Timed) or task.call_state.there != there:
            task.call_state = _Timed(there, kernel.clock.now() + tenths * _TENTH)
        if kernel.clock.now() < task.call_state.deadline:
            raise Blocked(pty.queue, deadline=task.call_state.deadline)

    def unread(self, data: bytes) -> None:
        """Put it back."""
        self.pty.discipline.ready.appendleft(data)

    def write(self, data: bytes) -> int:
        """Show ``data``; EIO after a hang-up."""
        if not self.writable:
            raise SyscallError(Errno.EBADF)
        pty = self.pty
        if not pty.master_open:
            raise SyscallError(Errno.EIO)
        if pty.discipline.lflag & TOSTOP:
            pty.terminal.check_foreground(Signal.SIGTTOU)
        room = ROOM - len(pty.output)
        if room <= 0 and data:
            self._block()
        piece = data[:room]
        pty.output += pty.discipline.processed(piece)
        pty.queue.wake()
        return len(piece)

    def ioctl(self, memory: UserMemory, request: int, argument: int) -> int:
        """As the pair; EIO after a hang-up."""
        pty = self.pty
        if not pty.master_open:
            raise SyscallError(Errno.EIO)
        if request == c.FIONREAD:
            memory.write(argument, min(pty.discipline.waiting(), LONGEST_LINE - 1).to_bytes(4, "little"))
            return 0
        if request == c.TIOCOUTQ:
            memory.write(argument, len(pty.output).to_bytes(4, "little"))
            return 0
        if request in (c.TCSETS, c.TCSETSW, c.TCSETSF, c.TCFLSH, c.TCSBRK, c.TCXONC):
            pty.terminal.check_foreground(Signal.SIGTTOU)
        return pty.ioctl(memory, request, argument)

    def poll(self) -> int:
        """Readable with a line; everything after a hang-up."""
        pty = self.pty
        if not pty.master_open:
            return POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM | POLLERR | POLLHUP
        bits = POLLIN | POLLRDNORM if pty.discipline.is_readable() else 0
        return bits | (POLLOUT | POLLWRNORM if len(pty.output) < ROOM else 0)

    def terminal(self) -> Terminal:
        """Its own."""
        return self.pty.terminal

    def closed(self) -> None:
        """One user less."""
        super().closed()
        self.pty.slaves -= 1
        self.pty.queue.wake()


class PtsInode(Inode):
    """/dev/pts/N."""

    __slots__ = ("pty",)

    def __init__(self, fs: FileSystem, pty: Pty, uid: int, gid: int) -> None:
        super().__init__(fs, S_IFCHR | 0o620, uid, gid)
        self.pty = pty

    @property
    def rdev(self) -> int:
        """136, and the number."""
        return makedev(136, self.pty.number)

    def open(self, caller: Caller, flags: int) -> OpenFile:
        """The terminal; a session leader without one gets it as its controlling terminal, unless O_NOCTTY. EIO."""
        pty = self.pty
        if pty.locked or not pty.master_open:
            raise SyscallError(Errno.EIO)
        process: Process | None = getattr(caller, "process", None)
        leads = process is not None and process.sid == process.pid and not pty.terminal.session
        if process is not None and leads and not flags & c.O_NOCTTY and not has_terminal(caller, process):
            pty.terminal.take(process)
        return Slave(self, flags, pty)


def has_terminal(caller: Caller, process: Process) -> bool:
    """Whether a process has a controlling terminal."""
    return caller.fs.mounts.terminal_of(process) is not None


class PtsDirectory(Directory):
    """/dev/pts, and the pairs that exist."""

    __slots__ = ("nodes", "ptys", "terminal")

    def __init__(self, fs: FileSystem, host: Terminal) -> None:
        super().__init__(fs, 0o040755)
        self.nlink = 2
        self.terminal = host
        """The host's, which knows the kernel."""
        self.ptys: dict[int, Pty] = {}
        self.nodes: dict[int, PtsInode] = {}

    def new(self, uid: int, gid: int) -> Pty:
        """A pair; ENOSPC when there are too many."""
        number = next((n for n in range(MOST) if n not in self.ptys), None)
        if number is None:
            raise SyscallError(Errno.ENOSPC)
        pty = self.ptys[number] = Pty(number, Terminal(self.terminal.kernel))
        node = self.nodes[number] = PtsInode(self.fs, pty, uid, gid)
        node.place = (self, b"%d" % number)
        return pty

    def lookup(self, name: bytes) -> Inode | None:
        """The terminal of that number."""
        number = int(name) if name.isdigit() and name == b"%d" % int(name) else -1
        return self.nodes[number] if number in self.ptys else None

    def entries(self) -> list[tuple[bytes, int, int]]:
        """Every terminal."""
        return [(b"%d" % number, self.nodes[number].ino, 2) for number in sorted(self.ptys)]


class PtmxInode(Inode):
    """/dev/ptmx: each open makes a pair."""

    __slots__ = ("pts",)

    def __init__(self, fs: FileSystem, pts: PtsDirectory) -> None:
        super().__init__(fs, S_IFCHR | 0o666)
        self.pts = pts

    @property
    def rdev(self) -> int:
        """ptmx's device number."""
        return makedev(5, 2)

    def open(self, caller: Caller, flags: int) -> OpenFile:
        """The master of a new pair."""
        return Master(self, flags, self.pts.new(caller.uid, caller.gid))
