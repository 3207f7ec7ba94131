"""What a guest sees of the world: the mount tree, composed from options."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from mmuemu.errors import UsageError
from mmuemu.kernel.abi.errno import Errno, SyscallError
from mmuemu.kernel.abi.stat import TMPFS_MAGIC, makedev
from mmuemu.kernel.files.context import FsContext
from mmuemu.kernel.files.etc import HOST_NAMES, EtcFs, ShownDirectory, fill
from mmuemu.kernel.files.fdtable import FdTable
from mmuemu.kernel.files.hostfd import NO_FOLLOW, SEARCH, HostDescriptors
from mmuemu.kernel.files.hostfs import HostDirectory, HostFs
from mmuemu.kernel.files.inode import MAX_FILES, Directory, FileSystem, Inode, Quota
from mmuemu.kernel.files.inotify import Notifications
from mmuemu.kernel.files.memfs import MemoryDirectory
from mmuemu.kernel.files.paths import resolve
from mmuemu.kernel.files.pty import PtmxInode, PtsDirectory
from mmuemu.kernel.files.terminal import HostTerminal, Terminal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO

    from mmuemu.kernel.files.procsource import ProcSource
    from mmuemu.kernel.files.stream import StreamInode
    from mmuemu.kernel.process import Process

SYSTEM_DIRECTORIES: Final = (b"bin", b"sbin", b"lib", b"lib64", b"lib32", b"libx32", b"usr")
"""The host directories a guest sees by default."""
DEFAULT_LIMIT: Final = 1 << 30
_KEPT_OUT: Final = ("/", "/proc", "/sys", "/dev")
"""Working directories that are never shown: they would give the whole host, or its kernel."""


class ViewOptions(NamedTuple):
    """How to compose the guest's tree.

    ``root``: a host directory to be the guest's ``/`` (changes stay in memory). ``mounts``: strings
    ``SRC:DST[:ro|rw]``. ``isolate``: show no host directories. ``files``: host files shown at their own path.
    ``cwd``: the host working directory to show and start in; None means the emulator's own, "" none.
    ``limit``: bytes of changes kept in memory. ``clock``: nanoseconds since the epoch, for file times.
    ``max_files``: open files of all processes together. ``random``: gives bytes for /dev/random; None makes it
    unreadable (EIO).
    """

    root: str | None = None
    mounts: Sequence[str] = ()
    isolate: bool = False
    files: Sequence[str] = ()
    cwd: str | None = None
    limit: int = DEFAULT_LIMIT
    max_files: int = MAX_FILES
    uid: int = 1000
    gid: int = 1000
    hostname: str = "mmuemu"
    clock: Callable[[], int] = time.time_ns
    random: Callable[[int], bytes] | None = None


class _Builder:
    """The caller under which the tree is built."""

    pid = 0
    uid = 0
    gid = 0
    call_state: object = None

    def __init__(self, mounts: MountTree) -> None:
        self.fs = FsContext(mounts)
        self.files = FdTable()


class MountTree:
    """The file systems of a guest: ``root`` and what is mounted below it, as (path, file system, options)."""

    def __init__(self, root: Directory, quota: Quota, clock: Callable[[], int], descriptors: HostDescriptors) -> None:
        root.fs.root = root
        self.root = root
        self.quota = quota
        self.clock = clock
        self.descriptors = descriptors
        self.mounted: list[tuple[bytes, FileSystem, str]] = [(b"/", root.fs, "rw")]
        self.proc: ProcSource | None = None
        """What /proc shows; set by the kernel before the guest starts."""
        self.pipes = FileSystem("pipefs", 0x50495045, makedev(0, 14), clock, quota)
        """Pipes and standard streams live here."""
        self.notifications = Notifications()
        """What inotify counts."""
        self._next_minor = 40
        self.terminal = HostTerminal()
        self.terminal_stream: StreamInode | None = None
        """The standard stream that is a terminal."""
        self.pts = PtsDirectory(self.memory_fs("devpts", 0x1CD1), self.terminal)

    def context(self, cwd: str | bytes = b"/", umask: int = 0o022) -> FsContext:
        """A file-system context whose working directory is the guest's ``cwd``, or ``/`` if there is none."""
        context = FsContext(self, umask=umask)
        builder = _Builder(self)
        try:
            inode = resolve(builder, os.fsencode(cwd) or b"/").existing()
        except SyscallError:
            inode = self.root
        context.cwd = inode if isinstance(inode, Directory) else self.root
        return context

    def lookup(self, path: str | bytes) -> Inode:
        """The inode at a guest path, seen as root; SyscallError when there is none."""
        return resolve(_Builder(self), os.fsencode(path)).existing()

    def standard_streams(
        self, stdin: int | IO[bytes] = 0, stdout: int | IO[bytes] = 1, stderr: int | IO[bytes] = 2
    ) -> FdTable:
        """A descriptor table with 0, 1 and 2 over host descriptors or binary file objects."""
        from mmuemu.kernel.abi.fcntl import O_RDONLY, O_WRONLY
        from mmuemu.kernel.files.stream import HostStream

        table = FdTable()
        for fd, stream in enumerate((stdin, stdout, stderr)):
            flags = O_RDONLY if fd == 0 else O_WRONLY
            file = HostStream.of(self.pipes, stream, host_flags(stream, flags))
            table.install(file)
            if isinstance(stream, int) and stream >= 0 and os.isatty(stream):
                file.inode.terminal = self.terminal
                self.terminal_stream = self.terminal_stream or file.inode
        return table

    def terminal_of(self, process: Process) -> Terminal | None:
        """The controlling terminal of a process."""
        if self.terminal_stream is not None and self.terminal.settle().belongs_to(process):
            return self.terminal
        found = (pty.terminal for pty in self.pts.ptys.values() if pty.terminal.belongs_to(process))
        return next(found, None)

    def terminal_node(self, process: Process | None) -> Inode | None:
        """What /dev/tty stands for, for a process."""
        terminal = self.terminal if process is None else self.terminal_of(process)
        if terminal is self.terminal:
            return self.terminal_stream
        return next((self.pts.nodes[pty.number] for pty in self.pts.ptys.values() if pty.terminal is terminal), None)

    def memory_fs(self, name: str, magic: int = TMPFS_MAGIC) -> FileSystem:
        """A new file system that lives in memory."""
        self._next_minor += 1
        return FileSystem(name, magic, makedev(0, self._next_minor), self.clock, self.quota)

    def mount(self, path: bytes, root: Inode, options: str = "rw") -> None:
        """Mount the file system whose top is ``root`` at guest path ``path``, making the mount point."""
        point = self.make(path, isinstance(root, Directory))
        if isinstance(root, Directory) is not isinstance(point, Directory):
            kind = "a directory" if isinstance(root, Directory) else "a file"
            raise UsageError(f"cannot mount {kind} at {os.fsdecode(path)}: another kind of file is there")
        root.fs.root = root
        root.fs.covers = point
        point.mounted = root
        self.mounted.append((path, root.fs, options))

    def make(self, path: bytes, directory: bool) -> Inode:
        """The inode at ``path``, made (with the directories above it) when missing."""
        builder = _Builder(self)
        parts = [p for p in path.split(b"/") if p]
        inode: Inode = self.root
        for depth in range(1, len(parts) + 1):
            here = resolve(builder, b"/" + b"/".join(parts[:depth]))
            if here.inode is None:
                last = depth == len(parts)
                if last and not directory:
                    here.inode = here.parent.create(here.name, 0o100644, 0, 0)
                else:
                    here.inode = here.parent.mkdir(here.name, 0o755, 0, 0)
            inode = here.inode
        return inode

    def close(self) -> None:
        """Close every host descriptor kept open, and give the host its terminal back."""
        if self.terminal_stream is not None:
            self.terminal_stream.restore_modes()
        self.descriptors.close_for_good()


def host_flags(stream: int | IO[bytes], default: int) -> int:
    """How a host descriptor was opened (its O_ACCMODE, O_APPEND), or ``default``."""
    if not isinstance(stream, int):
        return default
    try:
        from fcntl import F_GETFL, fcntl

        flags = fcntl(stream, F_GETFL)
    except (ImportError, OSError):
        return default
    from mmuemu.kernel.abi.fcntl import O_ACCMODE, O_APPEND, O_LARGEFILE

    return flags & (O_ACCMODE | O_LARGEFILE) | (O_APPEND if flags & os.O_APPEND else 0)


class _Composer:
    """Builds one tree."""

    def __init__(self, options: ViewOptions) -> None:
        self.options = options
        self.quota = Quota(options.limit, options.max_files)
        self.descriptors = HostDescriptors()

    def host_root(self, source: str | bytes, option: str, kind: type[HostFs] = HostFs) -> Inode:
        """The top inode of a new view of the host's ``source`` (links in it are followed, once, now)."""
        options = self.options
        path = os.path.realpath(os.fsencode(source))
        if b"\0" in path or os.open not in os.supports_dir_fd:
            raise UsageError(f"{option}: host directories cannot be shown here")
        try:
            st = os.stat(path)
            name = os.fsdecode(path)
            fs = kind(name, options.clock, self.quota, self.descriptors, options.uid, options.gid, st.st_dev)
            if os.path.isdir(path):
                directory = fs.new_directory(st)
                directory.handle.adopt(os.open(path, SEARCH | NO_FOLLOW))
                fs.table[directory.host_id] = directory
                return directory
            above = fs.new_directory(os.stat(os.path.dirname(path)))
            above.handle.adopt(os.open(os.path.dirname(path), SEARCH | NO_FOLLOW))
            if not os.path.isfile(path):
                raise UsageError(f"{option}: {name} is neither a file nor a directory")
            inode = fs.inode_for(st, above, os.path.basename(path))
            inode.nlink = 1
            return inode
        except OSError as error:
            raise UsageError(f"{option}: {os.fsdecode(source)}: {error.strerror}") from error

    def build(self) -> MountTree:
        """The whole tree."""
        options = self.options
        if options.root is not None:
            root = self.host_root(options.root, "--root")
            if not isinstance(root, Directory):
                raise UsageError(f"--root {options.root}: not a directory")
            tree = MountTree(root, self.quota, options.clock, self.descriptors)
        else:
            fs = FileSystem("rootfs", TMPFS_MAGIC, makedev(0, 40), options.clock, self.quota)
            tree = MountTree(MemoryDirectory(fs, 0o755), self.quota, options.clock, self.descriptors)
            if not options.isolate:
                self.system_directories(tree)
            self.etc(tree)
        if options.root is None or tree.root.lookup(b"tmp") is None:
            tmp = tree.memory_fs("tmpfs")
            tree.mount(b"/tmp", MemoryDirectory(tmp, 0o1777))
        if not options.isolate and options.root is None:
            self.working_directory(tree)
        self.kernel_trees(tree)
        for path in options.files:
            self.single_file(tree, path)
        for spec in options.mounts:
            self.extra(tree, spec)
        return tree

    def system_directories(self, tree: MountTree) -> None:
        """The host's /usr and what belongs to it, links as links."""
        for name in SYSTEM_DIRECTORIES:
            path = b"/" + name
            if os.path.islink(path):
                tree.root.symlink(name, os.readlink(path), 0, 0)
            elif os.path.isdir(path):
                tree.mount(path, self.host_root(path, os.fsdecode(path)), "rw,overlay")

    def working_directory(self, tree: MountTree) -> None:
        """Show the working directory at its own path, unless it is visible already or is the whole host."""
        if os.open not in os.supports_dir_fd:
            return
        cwd = os.path.realpath(os.getcwd() if self.options.cwd is None else self.options.cwd or "/")
        if any(cwd == top or (top != "/" and cwd.startswith(top + "/")) for top in _KEPT_OUT):
            return
        path = os.fsencode(cwd)
        try:
            if isinstance(tree.lookup(path), HostDirectory):
                return
        except SyscallError:
            pass
        tree.mount(path, self.host_root(path, "working directory"), "rw,overlay")

    def etc(self, tree: MountTree) -> None:
        """The host's /etc in part, or an empty one, with the guest's accounts."""
        options = self.options
        of_host = not options.isolate and os.open in os.supports_dir_fd and os.path.isdir("/etc")
        if of_host:
            root = self.host_root("/etc", "/etc", EtcFs)
            assert isinstance(root, ShownDirectory)
            root.only = HOST_NAMES
            tree.mount(b"/etc", root, "rw,overlay")
        etc = tree.lookup(b"/etc") if of_host else tree.root.mkdir(b"etc", 0o755, 0, 0)
        assert isinstance(etc, Directory)
        fill(etc, options.uid, options.gid, options.hostname, of_host)

    def kernel_trees(self, tree: MountTree) -> None:
        """/dev, /proc and /sys."""
        from mmuemu.kernel.files.devices import CharDevice, TerminalNode, nothing, zeros
        from mmuemu.kernel.files.procfs import ProcRoot
        from mmuemu.kernel.files.sysfs import sys_root

        dev = MemoryDirectory(tree.memory_fs("devtmpfs"), 0o755)
        fs = dev.fs
        random = self.options.random or _no_random
        nodes: dict[bytes, Inode] = {
            b"null": CharDevice(fs, 1, 3, nothing),
            b"zero": CharDevice(fs, 1, 5, zeros),
            b"full": CharDevice(fs, 1, 7, zeros, takes=False),
            b"random": CharDevice(fs, 1, 8, random),
            b"urandom": CharDevice(fs, 1, 9, random),
            b"tty": TerminalNode(fs),
            b"ptmx": PtmxInode(fs, tree.pts),
        }
        tree.terminal.node = nodes[b"tty"]
        for name, inode in nodes.items():
            dev.put(name, inode)
            inode.place = (dev, name)
        links = {b"fd": b"", b"stdin": b"/0", b"stdout": b"/1", b"stderr": b"/2"}
        for name, tail in links.items():
            dev.symlink(name, b"/proc/self/fd" + tail, 0, 0)
        dev.mkdir(b"shm", 0o1777, 0, 0)
        dev.mkdir(b"pts", 0o755, 0, 0)
        tree.mount(b"/dev", dev)
        tree.mount(b"/dev/pts", tree.pts)
        tree.mount(b"/proc", ProcRoot(tree))
        tree.mount(b"/sys", sys_root(tree))

    def single_file(self, tree: MountTree, path: str) -> None:
        """One host file at its own path."""
        where = os.fsencode(os.path.abspath(path))
        try:
            if isinstance(tree.lookup(where), Inode):
                return
        except SyscallError as error:
            if error.errno is not Errno.ENOENT:
                raise UsageError(f"{path}: {error}") from error
        try:
            tree.mount(where, self.host_root(where, "file"), "rw,overlay")
        except SyscallError as error:
            raise UsageError(f"{path}: cannot be shown to the guest at its own path: {error}") from error

    def extra(self, tree: MountTree, spec: str) -> None:
        """One ``--mount SRC:DST[:ro|rw]``."""
        source, _, rest = spec.partition(":")
        target, _, mode = rest.partition(":")
        if not source or not target or mode not in ("", "ro", "rw"):
            raise UsageError(f"--mount {spec}: not of the form SRC:DST[:ro|rw]")
        if not target.startswith("/") or "\0" in spec or os.path.normpath(target) == "/":
            raise UsageError(f"--mount {spec}: the guest path must be absolute and below /")
        kind = HostFs
        if mode == "rw":
            from mmuemu.kernel.files.hostrw import WritableFs

            kind = WritableFs
        root = self.host_root(source, f"--mount {spec}", kind)
        try:
            tree.mount(os.fsencode(target), root, "rw" if mode == "rw" else "rw,overlay")
        except SyscallError as error:
            raise UsageError(f"--mount {spec}: {target}: {error}") from error


def _no_random(count: int) -> bytes:
    raise SyscallError(Errno.EIO)


def build_namespace(options: ViewOptions | None = None) -> MountTree:
    """The guest's mount tree; UsageError naming the option when it cannot be composed."""
    return _Composer(options or ViewOptions()).build()
