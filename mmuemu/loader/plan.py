"""What one image maps: page-aligned regions in the order and shape Linux makes them.

Follows fs/binfmt_elf.c of Linux 6.6 and later: ``elf_map`` maps whole file pages, ``elf_load`` zeroes the
rest of the last one when the segment is writable (``padzero``) and puts anonymous pages, always readable and
writable (``vm_brk_flags``), where a segment outgrows its file part. Later segments replace what they overlap.
"""

from __future__ import annotations

from typing import NamedTuple

from mmuemu.errors import BadImage
from mmuemu.loader.elf import PROT_EXEC, PROT_READ, PROT_WRITE, ElfImage, Segment, Tls
from mmuemu.loader.layout import Bases, page_down, page_up
from mmuemu.x86.paging import PAGE_MASK, USER_TOP_5LEVEL


class PlannedRegion(NamedTuple):
    """Pages ``start`` to ``end`` (exclusive) with ``prot``, from the file at ``file_offset`` or anonymous.

    ``zero_from`` is the address in the region's last page from which the page is zero and not the file's, or
    None. ``name`` is the image's, empty for anonymous memory. Bytes beyond the file's end are zero.
    """

    start: int
    end: int
    prot: int
    file_offset: int | None
    name: str
    zero_from: int | None = None


class LoadPlan(NamedTuple):
    """An image at its place: biased addresses, regions in ascending order without overlap."""

    image: ElfImage
    regions: tuple[PlannedRegion, ...]
    load_bias: int
    entry: int
    phdr: int
    """The value of AT_PHDR; the bias alone when no segment holds the program headers, as in Linux."""
    brk_start: int
    tls: Tls | None
    """The TLS template at its biased address."""


def _segment_regions(segment: Segment, bias: int, name: str) -> list[PlannedRegion]:
    """The regions of one segment (``elf_load``)."""
    start = segment.vaddr + bias
    regions = []
    zero_start = page_down(start)
    if segment.filesz:
        zero_start = start + segment.filesz
        cut = zero_start & PAGE_MASK and segment.memsz > segment.filesz and segment.prot & PROT_WRITE
        regions.append(
            PlannedRegion(
                page_down(start),
                page_up(zero_start),
                segment.prot,
                segment.offset - (segment.vaddr & PAGE_MASK),
                name,
                zero_start if cut else None,
            )
        )
    if segment.memsz > segment.filesz and page_up(start + segment.memsz) > page_up(zero_start):
        prot = PROT_READ | PROT_WRITE | segment.prot & PROT_EXEC
        regions.append(PlannedRegion(page_up(zero_start), page_up(start + segment.memsz), prot, None, ""))
    return regions


def _continues(before: PlannedRegion, after: PlannedRegion) -> bool:
    """Whether Linux keeps the two as one mapping and one region can say so."""
    if before.end != after.start or before.prot != after.prot or before.zero_from is not None:
        return False
    if before.file_offset is None or after.file_offset is None:
        return before.file_offset is after.file_offset
    return before.file_offset + (before.end - before.start) == after.file_offset


def _put(regions: list[PlannedRegion], new: PlannedRegion) -> None:
    """Append ``new``, replacing what it overlaps at the end of the ascending ``regions`` (MAP_FIXED)."""
    while regions and regions[-1].end > new.start:
        last = regions.pop()
        if last.start < new.start:
            regions.append(last._replace(end=new.start, zero_from=None))
    if regions and _continues(regions[-1], new):
        new = new._replace(start=regions[-1].start, file_offset=regions.pop().file_offset)
    regions.append(new)


def _plan(image: ElfImage, bias: int, brk_start: int, user_top: int) -> LoadPlan:
    entry = image.entry + bias
    if not 0 <= entry < user_top:
        raise BadImage(image.name, f"has its entry point at {entry:#x}, outside user space")
    regions: list[PlannedRegion] = []
    for segment in image.segments:
        for region in _segment_regions(segment, bias, image.name):
            _put(regions, region)
    tls = image.tls._replace(vaddr=image.tls.vaddr + bias) if image.tls else None
    phdr = (bias + (image.phdr_vaddr or 0)) & 0xFFFF_FFFF_FFFF_FFFF
    return LoadPlan(image, tuple(regions), bias, entry, phdr, brk_start, tls)


def plan(image: ElfImage, bases: Bases) -> LoadPlan:
    """The program's mappings, entry, AT_PHDR, first program break and TLS template, all biased.

    Raises :class:`BadImage` when the biased entry point leaves user space.
    """
    return _plan(image, bases.load_bias, bases.brk_start, bases.user_top)


def plan_interpreter(image: ElfImage, bases: Bases) -> LoadPlan:
    """The same for the interpreter the bases were chosen with; its ``brk_start`` is the program's."""
    if bases.interp_bias is None:
        raise ValueError("the bases were chosen without an interpreter")
    return _plan(image, bases.interp_bias, bases.brk_start, bases.user_top)


def plan_library(image: ElfImage, bias: int) -> LoadPlan:
    """The same for a shared library loaded at ``bias``; its ``brk_start`` means nothing."""
    return _plan(image, bias, 0, USER_TOP_5LEVEL)
