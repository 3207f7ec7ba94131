"""Objects of a process that gdb reads as a whole (``qXfer``), and the files that the guest sees (``vFile``)."""

from __future__ import annotations

import errno
from collections.abc import Callable
from struct import iter_unpack
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import quoteattr

from mmuemu.gdbstub.events import Failed, ThreadId
from mmuemu.kernel.abi.errno import SyscallError
from mmuemu.kernel.abi.fcntl import O_RDONLY
from mmuemu.kernel.abi.signals import SI_KERNEL, TRAP_TRACE, Signal
from mmuemu.kernel.abi.stat import pack_stat
from mmuemu.kernel.files.paths import lookup
from mmuemu.kernel.signals.pending import SigInfo

if TYPE_CHECKING:
    from mmuemu.gdbstub.processes import ProcessTarget
    from mmuemu.kernel.task import Task

_AT_PHDR, _AT_PHNUM = 3, 5
_PT_DYNAMIC, _PT_PHDR = 2, 6
_DT_DEBUG: Final = 21
_PHDR_BYTES: Final = 56
_TRAP_HWBKPT: Final = 4
_TRAP_CODES: Final = {"swbreak": SI_KERNEL, "watch": _TRAP_HWBKPT, "rwatch": _TRAP_HWBKPT, "awatch": _TRAP_HWBKPT}
"""si_code by the kind of a stop; steps have TRAP_TRACE."""
_MOST: Final = 4096
"""Entries of a list in the guest's memory that are looked at."""
_R_MAP: Final = 8
"""Where ``struct r_debug`` has its first ``struct link_map``: address, name, dynamic section, next, previous."""


def threads_xml(threads: list[tuple[str, str]]) -> bytes:
    """The ``threads`` object from (identifier, name)."""
    rows = "".join(f"<thread id={quoteattr(name)} name={quoteattr(title)}/>" for name, title in threads)
    return f'<?xml version="1.0"?><threads>{rows}</threads>'.encode()


class _Reader:
    """Numbers and strings of a task's memory."""

    def __init__(self, task: Task) -> None:
        self._memory = task.memory

    def word(self, address: int) -> int:
        return int.from_bytes(self._memory.peek(address, 8), "little")

    def text(self, address: int) -> str:
        out = b""
        while len(out) < _MOST and b"\0" not in out:
            size = min(256, 4096 - (address + len(out) & 4095))
            out += self._memory.peek(address + len(out), size)
        return out.partition(b"\0")[0].decode("utf-8", "replace")


def _first_link_map(task: Task, reader: _Reader) -> int:
    """The address of the dynamic linker's first ``struct link_map``; 0 where there is none (yet)."""
    auxv = dict(iter_unpack("<QQ", task.auxv[: len(task.auxv) & ~15]))
    table, count = auxv.get(_AT_PHDR, 0), min(auxv.get(_AT_PHNUM, 0), _MOST)
    dynamic, bias = 0, 0
    for index in range(count):
        at = table + index * _PHDR_BYTES
        kind, address = reader.word(at) & 0xFFFF_FFFF, reader.word(at + 16)
        if kind == _PT_PHDR:
            bias = table - address
        elif kind == _PT_DYNAMIC:
            dynamic = address
    if not dynamic:
        return 0
    for index in range(_MOST):
        tag = reader.word(dynamic + bias + 16 * index)
        if tag == _DT_DEBUG:
            debug = reader.word(dynamic + bias + 16 * index + 8)
            return reader.word(debug + _R_MAP) if debug else 0
        if tag == 0:
            break
    return 0


def libraries_xml(task: Task) -> bytes:
    """The ``libraries-svr4`` object: what the program's dynamic linker says it has loaded."""
    reader = _Reader(task)
    rows, main = [], ""
    try:
        link = _first_link_map(task, reader)
        if link:
            main = f' main-lm="{link:#x}"'
        for _ in range(_MOST):
            if not link:
                break
            base, name, dynamic, following = (reader.word(link + 8 * index) for index in range(4))
            text = reader.text(name)
            if text:
                rows.append(
                    f'<library name={quoteattr(text)} lm="{link:#x}" l_addr="{base:#x}" l_ld="{dynamic:#x}" '
                    f'lmid="0x0"/>'
                )
            link = following
    except SyscallError:
        pass
    return f'<library-list-svr4 version="1.0"{main}>{"".join(rows)}</library-list-svr4>'.encode()


class ProcessObjects:
    """The objects of one target's processes."""

    def __init__(self, target: ProcessTarget) -> None:
        self._target = target

    def transfer(self, thread: ThreadId, what: str, annex: str) -> bytes:
        """An object. Raises Failed, and KeyError for one there is not."""
        target = self._target
        task = target.task(thread)
        if what == "features":
            if annex != "target.xml":
                raise Failed(errno.ENOENT)
            return target.layout.xml.encode()
        if what == "threads":
            return threads_xml([(self._name(one), target.thread_name(one)) for one in target.threads()])
        if what == "auxv":
            return task.auxv
        if what == "exec-file":
            try:
                process = target.debugged[int(annex, 16)] if annex else task.process
            except (KeyError, ValueError):
                raise Failed(errno.ESRCH) from None
            return process.exe.encode("utf-8", "surrogateescape")
        if what == "libraries-svr4":
            return libraries_xml(task)
        if what == "siginfo":
            return self._siginfo(task, thread).pack()
        raise KeyError(what)

    def _siginfo(self, task: Task, thread: ThreadId) -> SigInfo:
        """The signal a thread stopped with; of other stops the SIGTRAP that ptrace has for them."""
        last = self._target.last
        info = self._target.held.get(task)
        if info is None and last.thread == thread:
            info = SigInfo(Signal.SIGTRAP, _TRAP_CODES.get(last.kind, TRAP_TRACE))
        if info is None:
            raise Failed(errno.EINVAL)
        return info

    def _name(self, thread: ThreadId) -> str:
        return "p{:x}.{:x}".format(*thread) if self._target.wishes.multiprocess else f"{thread[1]:x}"

    def _caller(self) -> Task:
        tasks = self._target.tasks()
        if not tasks:
            raise Failed(errno.ESRCH)
        return tasks[0]

    def open_file(self, path: bytes) -> tuple[Callable[[int, int], bytes], bytes]:
        """A regular file as the first task sees it; the owner's permissions do not matter. Raises Failed."""
        try:
            caller = self._caller()
            inode = lookup(caller, path.partition(b"\0")[0])
            if not inode.is_regular:
                raise Failed(errno.EISDIR if inode.is_directory else errno.EACCES)
            file = inode.open(caller, O_RDONLY)
            stat = pack_stat(inode.stat())
        except SyscallError as error:
            raise Failed(error.errno) from None

        def read(offset: int, count: int) -> bytes:
            try:
                return file.pread(offset, count)
            except SyscallError as error:
                raise Failed(error.errno) from None

        return read, stat

    def read_link(self, path: bytes) -> bytes:
        """A symbolic link's target. Raises Failed."""
        try:
            caller = self._caller()
            inode = lookup(caller, path.partition(b"\0")[0], follow=False)
            if not inode.is_symlink:
                raise Failed(errno.EINVAL)
            target: bytes = inode.read_link(caller)  # type: ignore[attr-defined]
        except SyscallError as error:
            raise Failed(error.errno) from None
        return target
