"""The dynamic loader for programs that name libraries and no interpreter; start-up code for programs it relocates.

Linux has none: there such a program crashes at its first call into a library. Libraries are mapped from their files, so
that programs share the pages they do not write; symbols are bound at once; what needs the program's own rights
(resolvers, start functions, RELRO) is done in ring 3 by guest/link_start.s, before the program's entry point.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from mmuemu.errors import BadImage
from mmuemu.guest.build import load
from mmuemu.kernel import registers as regs
from mmuemu.kernel.abi.mman import MAP_ANONYMOUS, MAP_PRIVATE
from mmuemu.kernel.program import NotLinked, map_image
from mmuemu.loader.layout import page_up
from mmuemu.loader.linking import Array, Calls, Linked, TlsPlan, link, link_alone, plan_tls, thread_block
from mmuemu.loader.plan import LoadPlan, plan_library
from mmuemu.loader.relocate import TLS_GET_ADDR, TLSDESC_STATIC, TLSDESC_UNDEFINED
from mmuemu.x86.paging import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mmuemu.kernel.address_space import AddressSpace
    from mmuemu.kernel.kernel import Kernel
    from mmuemu.kernel.program import LibraryFile
    from mmuemu.kernel.user_memory import UserMemory
    from mmuemu.loader.libraries import Closure, Library

_FUNCTIONS: Final = ("link_start", "link_fini", "tls_get_addr", "tlsdesc", "tlsdesc_undefined")
"""What the code page holds, in this order, each at 16 bytes; link_start's block lies at the page after."""
_RUNTIME: Final = {TLS_GET_ADDR: "tls_get_addr", TLSDESC_STATIC: "tlsdesc", TLSDESC_UNDEFINED: "tlsdesc_undefined"}
_NAME: Final = "[linker]"
_CHUNK: Final = 1 << 20
_GAP_PAGES: Final = 1 << 12
"""Above each library lie fewer random pages than this, unmapped: no base tells another."""
_READ, _READ_WRITE, _READ_EXEC = 1, 3, 5
_PRIVATE: Final = MAP_PRIVATE | MAP_ANONYMOUS
_MASK: Final = (1 << 64) - 1


class Linker:
    """Relocates one program in its new address space, with its libraries if it has any."""

    def __init__(self, kernel: Kernel, space: AddressSpace, memory: UserMemory) -> None:
        self.kernel = kernel
        self.space = space
        self.memory = memory

    def start(self, program: LoadPlan, libraries: Closure[LibraryFile] | None) -> dict[int, int]:
        """Map the libraries, link; the user registers that differ from those of a start without linking.

        Raises NotLinked for what the libraries lack, BadImage for a broken program, SyscallError, OutOfFrames.
        """
        if libraries is None:
            linked = link_alone(program.image, program.load_bias)
            if linked.resolvers:
                return self._enter(linked, program.entry, self._map_runtime())
            self._apply(linked)
            return {}
        try:
            return self._start_linked(program, libraries)
        except BadImage as error:
            raise NotLinked(error.name, error.why) from None

    def _start_linked(self, program: LoadPlan, libraries: Closure[LibraryFile]) -> dict[int, int]:
        plans = [program, *(self._map(library) for library in libraries.modules[1:])]
        loaded = [(planned.image, planned.load_bias) for planned in plans]
        tls = plan_tls([image for image, _ in loaded])
        pointer = self._thread_area(tls)
        places = self._map_runtime()
        runtime = {symbol: places[name] for symbol, name in _RUNTIME.items()}
        linked = link(loaded, libraries.initialization_order(), runtime, tls, pointer)
        return self._enter(linked, program.entry, places, pointer)

    def _map(self, library: Library[LibraryFile]) -> LoadPlan:
        """Map one library at a base of its own."""
        image, opened = library.image, library.file
        assert opened is not None
        rng = self.kernel.aslr
        gap = rng.randrange(_GAP_PAGES) * PAGE_SIZE if rng is not None else 0
        slack = image.alignment - PAGE_SIZE
        lowest = image.start & ~(image.alignment - 1)
        base = self.space.unmapped_area(0, page_up(image.end - lowest) + gap + slack)
        planned = plan_library(image, ((base + slack) & ~(image.alignment - 1)) - lowest)
        map_image(self.space, self.memory, planned, opened.file, opened.path)
        return planned

    def _thread_area(self, tls: TlsPlan) -> int:
        """Make the static thread-local storage with its control block; the thread pointer."""
        extra = max(tls.align - PAGE_SIZE, 0)
        area = self.space.mmap(0, tls.size + extra, _READ_WRITE, _PRIVATE)
        start = (area + tls.align - 1) & ~(tls.align - 1) if extra else area
        random = self.kernel.random
        guards = random.getrandbits(56) << 8, random.getrandbits(64)
        self.memory.poke(start + tls.pointer, thread_block(tls, start, guards))
        return start + tls.pointer

    def _map_runtime(self) -> dict[str, int]:
        """Map the code page and room for the block behind it; the address of each function."""
        at = self.space.mmap(0, 2 * PAGE_SIZE, _READ_EXEC, _PRIVATE, name=_NAME)
        code, places = bytearray(), {}
        for name in _FUNCTIONS:
            code += bytes(-len(code) % 16)
            places[name] = at + len(code)
            code += load(name)
        self.memory.poke(at, code)
        return places

    def _apply(self, linked: Linked) -> None:
        """Everything that needs no guest code; read-only pages are written as a loader writes them, before RELRO."""
        memory = self.memory
        for address, value in linked.writes:
            memory.poke(address, value.to_bytes(8, "little"))
        for destination, source, size in linked.copies:
            for done in range(0, size, _CHUNK):
                memory.poke(destination + done, memory.peek(source + done, min(_CHUNK, size - done)))

    def _enter(self, linked: Linked, entry: int, places: Mapping[str, int], thread_pointer: int = 0) -> dict[int, int]:
        """Apply what can be, write the block that link_start reads; the registers to begin with."""
        memory = self.memory
        self._apply(linked)
        init = list(_addresses(memory, linked.init))
        fini = list(_addresses(memory, linked.fini, backwards=True))
        words = [word for r in linked.resolvers for word in (r.function, r.address, r.addend & _MASK)]
        words += [word for area in linked.relro for word in area]
        words += init
        tables = struct.pack(f"<{len(words) + len(fini) + 1}Q", *words, *fini, 0)
        at = self.space.mmap(0, len(tables), _READ, _PRIVATE, name=_NAME)
        memory.poke(at, tables)
        finish = places["link_fini"] if thread_pointer else 0
        counts = len(linked.resolvers), len(linked.relro), len(init), len(fini)
        block = places[_FUNCTIONS[0]] + PAGE_SIZE
        memory.poke(block, struct.pack("<9Q", entry, finish, thread_pointer, *counts, at + len(words) * 8, at))
        return {regs.IP: places["link_start"], regs.BX: block}


def _addresses(memory: UserMemory, calls: Calls, *, backwards: bool = False) -> Iterator[int]:
    """The functions that ``calls`` come to; arrays are read from memory, which holds them relocated."""
    for call in calls:
        if isinstance(call, Array):
            words = struct.unpack(f"<{call.length}Q", memory.peek(call.address, call.length * 8))
            yield from reversed(words) if backwards else words
        else:
            yield call
