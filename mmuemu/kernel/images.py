"""Program files that were read lately: who executes the same one again need not read and judge it again.

Only files that are the host's own are kept, under what fstat(2) says of them: a guest's changes lie elsewhere.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING, Final

from mmuemu.errors import BadImage
from mmuemu.kernel.files.hostfs import HostFile
from mmuemu.kernel.page_cache import FileMapping
from mmuemu.loader.elf import ElfImage, read_image
from mmuemu.loader.selfrelocation import Verdict, needs_relocation
from mmuemu.x86.paging import USER_TOP_5LEVEL

if TYPE_CHECKING:
    from mmuemu.kernel.files.openfile import OpenFile

LARGEST_FILE: Final = 4 << 30
"""The most bytes a program file may have."""
MAPPED_FROM: Final = 64 << 20
"""Host files with more bytes are mapped, not read."""
MOST_KEPT: Final = 8
LARGEST_KEPT: Final = 8 << 20
"""Larger files are read each time."""

_Key = tuple[str, int, int, int, int, int]
_kept: OrderedDict[_Key, ElfImage] = OrderedDict()
_verdicts: dict[ElfImage, Verdict] = {}


def content(file: OpenFile, name: str) -> bytes | mmap:
    """The bytes of a program file; a large one on the host is mapped, so that only what is looked at takes memory."""
    size = file.inode.size
    if size > LARGEST_FILE:
        raise BadImage(
            name,
            f"is {size >> 30} GiB large; program files of more than {LARGEST_FILE >> 30} GiB are not loaded",
        )
    if size > MAPPED_FROM and isinstance(file.inode, HostFile) and file.inode.content is None:
        try:
            return mmap(file.inode.reader.get(), size, access=ACCESS_READ)
        except (OSError, ValueError):
            pass
    return file.inode.read_at(0, size)


def _key(file: OpenFile, name: str) -> _Key | None:
    """What tells this state of the file from every other; None for one that is not kept."""
    inode = file.inode
    if not isinstance(inode, HostFile) or inode.content is not None or inode.size > LARGEST_KEPT:
        return None
    if isinstance(inode.mapping, FileMapping) and inode.mapping.aliased:
        return None  # somebody may be storing to its pages
    try:
        facts = os.fstat(inode.reader.get())
    except OSError:
        return None
    return name, facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def image_of(file: OpenFile, name: str) -> ElfImage:
    """The program in ``file``, which is called ``name``. Raises BadImage, and what reading the file raises."""
    key = _key(file, name)
    found = None if key is None else _kept.get(key)
    if found is not None and key is not None:
        _kept.move_to_end(key)
        return found
    image = read_image(content(file, name), name, USER_TOP_5LEVEL)
    if key is not None:
        _kept[key] = image
        if len(_kept) > MOST_KEPT:
            _verdicts.pop(_kept.popitem(last=False)[1], None)
    return image


def relocates(image: ElfImage) -> Verdict:
    """:func:`mmuemu.loader.selfrelocation.needs_relocation`, found out once for a program that is kept."""
    found = _verdicts.get(image)
    if found is None:
        found = needs_relocation(image)
        if any(kept is image for kept in _kept.values()):
            _verdicts[image] = found
    return found
