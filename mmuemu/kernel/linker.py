"""The dynamic loader for programs that name libraries and no interpreter; start-up code for programs it relocates.

Linux has none: there such a program crashes at its first call into a library. Libraries are mapped from their files, so
that programs share the pages they do not write; symbols are bound at once; what needs the program's own rights
(resolvers, start functions, RELRO) is done in ring 3 by guest/link_start.s, before the program's entry point.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mmuemu.guest.build import load
from mmuemu.kernel.abi.mman import MAP_ANONYMOUS, MAP_PRIVATE
from mmuemu.kernel.exec import NotFound, content_of, map_image, open_program
from mmuemu.kernel.files.paths import path_of
from mmuemu.loader.layout import page_up
from mmuemu.loader.libraries import Closure, Library, find_libraries
from mmuemu.loader.linking import Array, Calls, Linked, TlsPlan, link, link_alone, plan_tls, thread_block
from mmuemu.loader.plan import LoadPlan, plan_library
from mmuemu.loader.relocate import TLS_GET_ADDR, TLSDESC_STATIC, TLSDESC_UNDEFINED
from mmuemu.x86.paging import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from mmap import mmap

    from mmuemu.kernel.exec import Caller
    from mmuemu.kernel.files.openfile import OpenFile
    from mmuemu.kernel.task import Task
    from mmuemu.kernel.user_memory import UserMemory
    from mmuemu.loader.elf import ElfImage

_FUNCTIONS: Final = ("link_start", "link_fini", "tls_get_addr", "tlsdesc", "tlsdesc_undefined")
"""What the code page holds, in this order, each at 16 bytes; link_start's block lies at the page after."""
_RUNTIME: Final = {TLS_GET_ADDR: "tls_get_addr", TLSDESC_STATIC: "tlsdesc", TLSDESC_UNDEFINED: "tlsdesc_undefined"}
_NAME: Final = "[linker]"
_CHUNK: Final = 1 << 20
_GAP_PAGES: Final = 1 << 12
"""Above each library lie fewer random pages than this, unmapped: no base tells another."""
_READ, _READ_WRITE, _READ_EXEC = 1, 3, 5
_MASK: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class _LibraryFile:
    """An opened library of the guest's view."""

    path: str
    data: bytes | mmap
    file: OpenFile


class Libraries:
    """The libraries of one program, found; or the interpreter that must load them."""

    def __init__(self, caller: Caller, program: ElfImage, path: str, environment: Sequence[bytes]) -> None:
        """Find what ``program`` at guest ``path`` needs. Raises BadImage."""

        def opened(name: str) -> _LibraryFile | None:
            try:
                file = open_program(caller, os.fsencode(name), need_execute=False)
            except NotFound:
                return None
            real = os.fsdecode(path_of(file.inode))
            return _LibraryFile(real, content_of(file, real), file)

        found: Closure[_LibraryFile] = find_libraries(program, path, opened, _library_path(environment))
        self.interpreter = found.interpreter
        """The dynamic linker of a C library among them, which then must start the program."""
        self.because = found.because
        self.modules: list[Library[_LibraryFile]] = found.modules
        self.order = found.initialization_order() if found.interpreter is None else []

    def linker_arguments(self, path: str, argv: Sequence[bytes]) -> list[bytes]:
        """The arguments of that linker (ld.so(8); musl's takes the same) for the program at guest ``path``.

        Made its interpreter by force, glibc's ends: ``rtld_setup_main_map`` asserts that there is a PT_INTERP, and
        without PT_PHDR, which goes with it, neither linker finds where a PIE was loaded.
        """
        linker = os.fsencode(self.interpreter or "")
        return [linker, b"--argv0", argv[0] if argv else b"", os.fsencode(path), *argv[1:]]

    def start(self, task: Task, program: LoadPlan) -> dict[str, int]:
        """Map the libraries, link, and give the registers with which ring 3 begins. Raises BadImage, SyscallError."""
        plans = [program, *(_map(task, library) for library in self.modules[1:])]
        loaded = [(planned.image, planned.load_bias) for planned in plans]
        tls = plan_tls([image for image, _ in loaded])
        pointer = _thread_area(task, tls)
        places = _map_runtime(task)
        runtime = {symbol: places[name] for symbol, name in _RUNTIME.items()}
        linked = link(loaded, self.order, runtime, tls, pointer)
        return _enter(task, linked, program.entry, places, pointer)


def start_relocated(task: Task, program: LoadPlan) -> dict[str, int]:
    """Relocate a program that needs no library and does not do it itself; the registers that then differ."""
    linked = link_alone(program.image, program.load_bias)
    if not linked.resolvers:
        _apply(task.memory, linked)
        return {}
    return _enter(task, linked, program.entry, _map_runtime(task))


def _library_path(environment: Sequence[bytes]) -> list[str]:
    """The directories of LD_LIBRARY_PATH, which colons or semicolons part."""
    prefix = b"LD_LIBRARY_PATH="
    value = next((entry[len(prefix) :] for entry in environment if entry.startswith(prefix)), b"")
    return os.fsdecode(value).replace(";", ":").split(":") if value else []


def _map(task: Task, library: Library[_LibraryFile]) -> LoadPlan:
    """Map one library at a base of its own."""
    image, opened = library.image, library.file
    assert opened is not None
    span = page_up(image.end - image.start)
    rng = task.kernel.aslr
    gap = rng.randrange(_GAP_PAGES) * PAGE_SIZE if rng is not None else 0
    base = task.mm.unmapped_area(0, span + gap + image.alignment - PAGE_SIZE)
    base = (base + image.alignment - 1) & ~(image.alignment - 1)
    planned = plan_library(image, base - (image.start & ~(image.alignment - 1)))
    map_image(task, planned, opened.file, opened.path)
    return planned


def _thread_area(task: Task, tls: TlsPlan) -> int:
    """Make the static thread-local storage with its control block; the thread pointer."""
    extra = max(tls.align - PAGE_SIZE, 0)
    area = task.mm.mmap(0, tls.size + extra, _READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS)
    start = (area + tls.align - 1) & ~(tls.align - 1) if extra else area
    random = task.kernel.random
    guards = random.getrandbits(56) << 8, random.getrandbits(64)
    task.memory.poke(start + tls.pointer, thread_block(tls, start, guards))
    return start + tls.pointer


def _map_runtime(task: Task) -> dict[str, int]:
    """Map the code page and room for the block behind it; the address of each function."""
    at = task.mm.mmap(0, 2 * PAGE_SIZE, _READ_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, name=_NAME)
    code, places = bytearray(), {}
    for name in _FUNCTIONS:
        code += bytes(-len(code) % 16)
        places[name] = at + len(code)
        code += load(name)
    task.memory.poke(at, code)
    return places


def _apply(memory: UserMemory, linked: Linked) -> None:
    """Everything that needs no guest code; read-only pages are written as a loader writes them, before RELRO."""
    for address, value in linked.writes:
        memory.poke(address, value.to_bytes(8, "little"))
    for destination, source, size in linked.copies:
        for done in range(0, size, _CHUNK):
            memory.poke(destination + done, memory.peek(source + done, min(_CHUNK, size - done)))


def _addresses(memory: UserMemory, calls: Calls, *, backwards: bool = False) -> Iterator[int]:
    """The functions that ``calls`` come to; arrays are read from memory, which holds them relocated."""
    for call in calls:
        if isinstance(call, Array):
            words = struct.unpack(f"<{call.length}Q", memory.peek(call.address, call.length * 8))
            yield from reversed(words) if backwards else words
        else:
            yield call


def _enter(
    task: Task, linked: Linked, entry: int, places: Mapping[str, int], thread_pointer: int = 0
) -> dict[str, int]:
    """Apply what can be, write the block that link_start reads; the registers to begin with."""
    memory = task.memory
    _apply(memory, linked)
    init = list(_addresses(memory, linked.init))
    fini = list(_addresses(memory, linked.fini, backwards=True))
    words = [word for r in linked.resolvers for word in (r.function, r.address, r.addend & _MASK)]
    words += [word for area in linked.relro for word in area]
    words += init
    tables = struct.pack(f"<{len(words) + len(fini) + 1}Q", *words, *fini, 0)
    at = task.mm.mmap(0, len(tables), _READ, MAP_PRIVATE | MAP_ANONYMOUS, name=_NAME)
    memory.poke(at, tables)
    finish = places["link_fini"] if thread_pointer else 0
    counts = len(linked.resolvers), len(linked.relro), len(init), len(fini)
    block = places[_FUNCTIONS[0]] + PAGE_SIZE
    memory.poke(block, struct.pack("<9Q", entry, finish, thread_pointer, *counts, at + len(words) * 8, at))
    return {"rip": places["link_start"], "rbx": block}
