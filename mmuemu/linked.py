"""What a dynamic program links to: its interpreter and shared libraries among the host's files (``--isolate``).

Directories are searched as ld.so(8) does: DT_RPATH or DT_RUNPATH, then the usual ones of x86-64 distributions.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from mmuemu.loader.libraries import C_LIBRARIES, DIRECTORIES


def linked_files(program: str) -> list[str]:
    """Paths of the interpreter and of every library ``program`` needs, directly or not, as far as they are found.

    Empty for a static program and for what is no ELF file.
    """
    found: dict[str, None] = {}
    waiting = [program]
    seen = {program}
    while waiting:
        for path in _needs(waiting.pop()):
            if path not in seen:
                seen.add(path)
                found[path] = None
                waiting.append(path)
    return list(found)


def _needs(path: str) -> Iterator[str]:
    """The interpreter and the libraries that one file names."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        with open(path, "rb") as file:
            elf = ELFFile(file)
            names, places = [], []
            for segment in elf.iter_segments():
                if segment["p_type"] == "PT_INTERP":
                    yield segment.get_interp_name()
                elif segment["p_type"] == "PT_DYNAMIC":
                    for tag in segment.iter_tags():
                        if tag.entry.d_tag == "DT_NEEDED":
                            names.append(tag.needed)
                        elif tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH"):
                            text = tag.rpath if tag.entry.d_tag == "DT_RPATH" else tag.runpath
                            places += text.replace("$ORIGIN", os.path.dirname(path)).split(":")
            for name in names:
                if name in C_LIBRARIES:
                    yield C_LIBRARIES[name]
                yield from _search(name, places)
    except (OSError, ELFError, AttributeError, ValueError, KeyError):
        return


def _search(name: str, places: list[str]) -> Iterator[str]:
    if "/" in name:
        yield name
        return
    for directory in (*places, *DIRECTORIES):
        path = os.path.join(directory, name)
        if os.path.isfile(path):
            yield path
            return
