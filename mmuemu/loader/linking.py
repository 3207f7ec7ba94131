"""Linking a program with its libraries: relocations, thread-local storage, the order of start and end.

Thread-local storage: "ELF Handling For Thread-Local Storage", section 3.4.6 (x86-64, variant II): blocks lie below the
thread pointer, the thread control block at it. The block's fields are glibc's (sysdeps/x86_64/nptl/tls.h), because
compilers know two of them: its own address at fs:0 and the stack guard at fs:0x28. Start and end: gABI chapter 5,
"Initialization and Termination Functions"; like ld.so, the program's own DT_INIT and DT_INIT_ARRAY are left to its
start-up code.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from mmuemu.errors import BadImage
from mmuemu.loader.layout import page_down
from mmuemu.loader.relocate import Copy, Loaded, Relocations, Resolver, Scope, Write, relocate_in, static_tls_offsets

if TYPE_CHECKING:
    from mmuemu.loader.elf import ElfImage

DT_INIT: Final = 12
DT_FINI: Final = 13
DT_INIT_ARRAY: Final = 25
DT_FINI_ARRAY: Final = 26
DT_INIT_ARRAYSZ: Final = 27
DT_FINI_ARRAYSZ: Final = 28
DT_PREINIT_ARRAY: Final = 32
DT_PREINIT_ARRAYSZ: Final = 33

TCB_SIZE: Final = 0x700
"""Bytes of the thread control block; glibc's struct pthread takes 0x900, of which programs know the first 0x40."""
_DTV_ENTRY: Final = 16
_STACK_GUARD: Final = 0x28
_POINTER_GUARD: Final = 0x30
_LARGEST_TLS: Final = 1 << 30


class TlsPlan(NamedTuple):
    """Where static thread-local storage goes in one area of ``size`` bytes, ``align``-ed to at least a page."""

    size: int
    align: int
    pointer: int
    """Offset of the thread pointer from the area's start."""
    dtv: int
    """Offset of the dynamic thread vector: 16 bytes for the generation, then 16 for each module that has TLS."""
    offsets: tuple[int, ...]
    """How far below the thread pointer each module's block begins, 0 without one."""
    blocks: tuple[int, ...]
    """The same of the modules that have one, in the order of their numbers (1, 2, ...)."""


class Array(NamedTuple):
    """``length`` function pointers at ``address``, to be read once all is relocated."""

    address: int
    length: int


Calls = list["int | Array"]
"""Functions to call, in order: addresses, and arrays of them."""


@dataclass(slots=True)
class Linked:
    """What linking comes to, in the order to do it."""

    writes: list[Write] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
    """After the writes: R_X86_64_COPY, then the templates of thread-local storage."""
    resolvers: list[Resolver] = field(default_factory=list)
    relro: list[tuple[int, int]] = field(default_factory=list)
    """First address and size, both of whole pages, of what becomes read-only after the resolvers."""
    init: Calls = field(default_factory=list)
    fini: Calls = field(default_factory=list)
    """To be called in this order; an array from its end."""


def plan_tls(images: Sequence[ElfImage]) -> TlsPlan:
    """The static thread-local storage of all modules, the program first."""
    blocks = [image.tls for image in images]
    offsets = static_tls_offsets(blocks)
    below = max(offsets)
    align = max([64, *(tls.align for tls in blocks if tls is not None)])
    if below > _LARGEST_TLS or align > _LARGEST_TLS:
        raise BadImage(images[0].name, f"and its libraries have {below:#x} bytes of thread-local storage")
    pointer = (below + align - 1) & ~(align - 1)
    dtv = pointer + TCB_SIZE
    present = tuple(offset for tls, offset in zip(blocks, offsets, strict=True) if tls is not None)
    return TlsPlan(dtv + (1 + len(present)) * _DTV_ENTRY, align, pointer, dtv, tuple(offsets), present)


def thread_block(plan: TlsPlan, start: int, guards: tuple[int, int]) -> bytes:
    """The thread control block and the vector behind it, for an area at ``start``, to be written at its pointer.

    ``guards`` are the stack guard and the pointer guard.
    """
    pointer = start + plan.pointer
    block = bytearray(TCB_SIZE)
    struct.pack_into("<3Q", block, 0, pointer, start + plan.dtv, pointer)
    struct.pack_into("<Q", block, _STACK_GUARD, guards[0])
    struct.pack_into("<Q", block, _POINTER_GUARD, guards[1])
    vector = [1, 0]
    for offset in plan.blocks:
        vector += [pointer - offset, 0]
    return bytes(block) + struct.pack(f"<{len(vector)}Q", *vector)


def _array(image: ElfImage, bias: int, tag: int, size_tag: int) -> Calls:
    tags = image.dynamic or {}
    count = tags.get(size_tag, 0) // 8
    if tag not in tags or not count:
        return []
    if image.file_offset(tags[tag], count * 8) is None:
        raise BadImage(image.name, f"has an array of functions at {tags[tag]:#x}, outside its file")
    return [Array(tags[tag] + bias, count)]


def _function(image: ElfImage, bias: int, tag: int) -> Calls:
    value = (image.dynamic or {}).get(tag)
    if not value:
        return []
    if image.segment_of(value, 1) is None:
        raise BadImage(image.name, f"has a start or end function at {value:#x}, outside its segments")
    return [value + bias]


def _relro(image: ElfImage, bias: int) -> list[tuple[int, int]]:
    """The whole pages of PT_GNU_RELRO (glibc's ``_dl_protect_relro``)."""
    if image.relro is None:
        return []
    start, end = page_down(image.relro[0] + bias), page_down(image.relro[0] + image.relro[1] + bias)
    return [(start, end - start)] if start < end else []


def _seen_through(copies: Iterable[Copy], resolvers: Iterable[Resolver]) -> list[Resolver]:
    """The resolvers whose results are part of what is copied, once more for the copies."""
    words = sorted(resolvers, key=attrgetter("address"))
    again = []
    for copy in copies:
        first = bisect_left(words, copy.source, key=attrgetter("address"))
        last = bisect_right(words, copy.source + copy.size - 8, key=attrgetter("address"))
        for word in words[first:last]:
            again.append(Resolver(word.address - copy.source + copy.destination, word.function, word.addend))
    return again


def link(
    modules: Sequence[Loaded],
    order: Sequence[int],
    runtime: Mapping[str, int],
    tls: TlsPlan,
    thread_pointer: int,
) -> Linked:
    """Link ``modules`` (image and bias, in load order, the program first).

    ``order`` are the numbers of the libraries as they are initialized; ``runtime`` the addresses of the functions a
    loader brings (``__tls_get_addr`` and the TLS descriptors'). Raises :class:`BadImage`.
    """
    scope = Scope(modules, runtime)
    out = Linked()
    # Libraries come before who needs them, so that copies and resolvers see them relocated (elf/rtld.c).
    for number in (*order, 0):
        _add(out, relocate_in(scope, number))
    for number, (image, bias) in enumerate(modules):
        if image.tls is not None and image.tls.filesz:
            if image.segment_of(image.tls.vaddr, image.tls.filesz) is None:
                raise BadImage(image.name, "has its TLS template outside its segments")
            block = thread_pointer - tls.offsets[number]
            out.copies.append(Copy(block, image.tls.vaddr + bias, image.tls.filesz))
    out.resolvers += _seen_through(out.copies, out.resolvers)
    program, program_bias = modules[0]
    out.init += _array(program, program_bias, DT_PREINIT_ARRAY, DT_PREINIT_ARRAYSZ)
    for number in order:
        image, bias = modules[number]
        out.init += _function(image, bias, DT_INIT) + _array(image, bias, DT_INIT_ARRAY, DT_INIT_ARRAYSZ)
    for number in (0, *reversed(order)):
        image, bias = modules[number]
        out.fini += _array(image, bias, DT_FINI_ARRAY, DT_FINI_ARRAYSZ) + _function(image, bias, DT_FINI)
    for image, bias in modules:
        out.relro += _relro(image, bias)
    return out


def link_alone(image: ElfImage, bias: int) -> Linked:
    """Relocate a program without libraries. Raises :class:`BadImage`."""
    out = Linked()
    _add(out, relocate_in(Scope([(image, bias)]), 0))
    return out


def _add(out: Linked, changes: Relocations) -> None:
    out.writes += changes.writes
    out.copies += changes.copies
    out.resolvers += changes.resolvers
