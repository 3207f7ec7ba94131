"""Which shared libraries a program needs, directly and not, in ld.so's load order.

The search is ld.so(8)'s: DT_RPATH when there is no DT_RUNPATH, LD_LIBRARY_PATH, DT_RUNPATH, then the usual directories
of x86-64 distributions. The order of initialization is that of glibc's elf/dl-sort-maps.c (``dfs_traversal``).
"""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from mmuemu.errors import BadImage
from mmuemu.loader.elf import DT_NEEDED, DT_NULL, ElfImage, ElfType, read_image
from mmuemu.loader.tables import symbol_table

if TYPE_CHECKING:
    from mmap import mmap

DT_SONAME: Final = 14
DT_RPATH: Final = 15
DT_RUNPATH: Final = 29

DIRECTORIES: Final = (
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/usr/local/lib",
)
"""Where libraries lie that nothing else tells the place of."""

_GLIBC: Final = "/lib64/ld-linux-x86-64.so.2"
_MUSL: Final = "/lib/ld-musl-x86_64.so.1"
C_LIBRARIES: Final = {
    "libc.so.6": _GLIBC,
    "ld-linux-x86-64.so.2": _GLIBC,
    "libc.so": _MUSL,
    "libc.musl-x86_64.so.1": _MUSL,
    "ld-musl-x86_64.so.1": _MUSL,
}
"""Libraries that only their own dynamic linker can start, and that linker: glibc's libc.so.6 works on the state that
ld.so keeps of the process (``_rtld_global``, ``_rtld_global_ro``, version GLIBC_PRIVATE); musl's libc is the linker."""

_MOST_LIBRARIES: Final = 1024
_PAIR: Final = struct.Struct("<QQ")


class LibraryFile(Protocol):
    """An opened library."""

    @property
    def path(self) -> str:
        """Where it is, links resolved: two names of one file have one path."""

    @property
    def data(self) -> bytes | mmap:
        """Its bytes."""


File = TypeVar("File", bound=LibraryFile)


@dataclass(slots=True)
class Library(Generic[File]):
    """One module of a process; ``needed`` are the numbers of the modules it names, in its order."""

    image: ElfImage
    file: File | None
    """None for the program."""
    path: str
    loader: int | None = None
    """The module that was the first to need it."""
    needed: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Closure(Generic[File]):
    """The modules of a process in load order, the program first; or the interpreter that must load them."""

    modules: list[Library[File]]
    interpreter: str | None = None
    """A C library is among what is needed: its dynamic linker, by path; ``modules`` is incomplete then."""
    because: str = ""
    """The C library's name."""

    def initialization_order(self) -> list[int]:
        """Numbers of the libraries, each after those it needs; of a cycle, the one met last in the search first."""
        order: list[int] = []
        seen = {0}
        for start in range(len(self.modules) - 1, 0, -1):
            if start in seen:
                continue
            seen.add(start)
            path = [(start, iter(self.modules[start].needed))]
            while path:
                number, rest = path[-1]
                following = next((n for n in rest if n not in seen), None)
                if following is None:
                    order.append(number)
                    path.pop()
                else:
                    seen.add(following)
                    path.append((following, iter(self.modules[following].needed)))
        return order


def dynamic_values(image: ElfImage, *tags: int) -> Iterator[int]:
    """The values of every dynamic entry with one of ``tags``, in the table's order."""
    if image.dynamic_vaddr is None or image.dynamic is None:
        return
    offset = image.file_offset(image.dynamic_vaddr, _PAIR.size)
    if offset is None:
        raise BadImage(image.name, f"has its dynamic table at {image.dynamic_vaddr:#x}, outside its segments")
    size = (len(image.data) - offset) // _PAIR.size * _PAIR.size
    for tag, value in _PAIR.iter_unpack(image.data[offset : offset + size]):
        if tag == DT_NULL:
            return
        if tag in tags:
            yield value


def dynamic_strings(image: ElfImage, *tags: int) -> list[str]:
    """The same for tags whose values are names: DT_NEEDED, DT_SONAME, DT_RPATH, DT_RUNPATH."""
    values = list(dynamic_values(image, *tags))
    if not values:
        return []
    table = symbol_table(image)
    return [table.string(value) for value in values] if table is not None else []


class _Search(Generic[File]):
    """The loading of one program's libraries."""

    def __init__(
        self,
        program: ElfImage,
        path: str,
        open_file: Callable[[str], File | None],
        library_path: Sequence[str],
    ) -> None:
        self.open_file = open_file
        self.library_path = library_path
        self.modules: list[Library[File]] = [Library(program, None, path)]
        self.names: dict[str, int] = {}
        self.paths: dict[str, int] = {path: 0}

    def run(self) -> Closure[File]:
        at = 0
        while at < len(self.modules):
            for name in dynamic_strings(self.modules[at].image, DT_NEEDED):
                if name in C_LIBRARIES and not self.is_plain(at, name):
                    return Closure(self.modules, C_LIBRARIES[name], name)
                number = self.load(at, name)
                if number not in self.modules[at].needed and number != at:
                    self.modules[at].needed.append(number)
            at += 1
        return Closure(self.modules)

    def is_plain(self, requester: int, name: str) -> bool:
        """Whether the library that bears a C library's name is another: those can all be started by themselves."""
        if name in self.names:
            return True
        file = self.find(requester, name)
        if file is None or file.data[:4] != b"\x7fELF":
            return False
        image = read_image(file.data, file.path)
        return image.interp is None and not image.entry

    def load(self, requester: int, name: str) -> int:
        """The number of the module called ``name``, loaded now if it is new."""
        if name in self.names:
            return self.names[name]
        needs = self.modules[requester].image.name
        file = self.find(requester, name)
        if file is None:
            raise BadImage(needs, f"needs the library {name!r}, which is not in the guest's view")
        number = self.paths.get(file.path)
        if number is None:
            if len(self.modules) >= _MOST_LIBRARIES:
                raise BadImage(needs, f"needs more than {_MOST_LIBRARIES} libraries")
            image = read_image(file.data, file.path)
            if image.type != ElfType.DYN:
                raise BadImage(needs, f"needs {name!r}, which is no shared library but a program at fixed addresses")
            number = len(self.modules)
            self.modules.append(Library(image, file, file.path, requester))
            self.paths[file.path] = number
            for soname in dynamic_strings(image, DT_SONAME):
                self.names.setdefault(soname, number)
        self.names[name] = number
        return number

    def find(self, requester: int, name: str) -> File | None:
        if "/" in name:
            return self.open_file(self.expanded(requester, name))
        for directory in self.directories(requester):
            file = self.open_file(posixpath.join(directory, name))
            if file is not None and not _of_another_machine(file.data[:20]):
                return file
        return None

    def directories(self, requester: int) -> Iterator[str]:
        yield from self.rpath(requester)
        yield from (directory or "." for directory in self.library_path)
        yield from self.listed(requester, DT_RUNPATH)
        yield from DIRECTORIES

    def rpath(self, requester: int) -> Iterator[str]:
        """DT_RPATH of who asks, of who loaded it, and so on; nothing when who asks has DT_RUNPATH."""
        if DT_RUNPATH in (self.modules[requester].image.dynamic or {}):
            return
        number: int | None = requester
        while number is not None:
            if DT_RUNPATH not in (self.modules[number].image.dynamic or {}):
                yield from self.listed(number, DT_RPATH)
            number = self.modules[number].loader

    def listed(self, number: int, tag: int) -> Iterator[str]:
        for text in dynamic_strings(self.modules[number].image, tag):
            for directory in text.split(":"):
                yield self.expanded(number, directory or ".")

    def expanded(self, number: int, text: str) -> str:
        """``text`` with ld.so's tokens replaced."""
        if "$" not in text:
            return text
        origin = posixpath.dirname(self.modules[number].path)
        for token, value in (("ORIGIN", origin), ("LIB", "lib/x86_64-linux-gnu"), ("PLATFORM", "x86_64")):
            text = text.replace(f"${{{token}}}", value).replace(f"${token}", value)
        return text


def _of_another_machine(head: bytes) -> bool:
    """Whether ld.so passes over a file: ELF, and not for a 64-bit x86-64."""
    return head[:4] == b"\x7fELF" and (head[4:5] == b"\x01" or head[18:20] != b"\x3e\x00")


def find_libraries(
    program: ElfImage,
    path: str,
    open_file: Callable[[str], File | None],
    library_path: Sequence[str] = (),
) -> Closure[File]:
    """Every library that ``program``, which lies at ``path``, needs, breadth first.

    ``open_file`` opens a library by path, None when there is none; ``library_path`` are the directories of
    LD_LIBRARY_PATH. Raises :class:`BadImage` for a library that is not found or cannot be loaded, naming who needs it.
    """
    return _Search(program, path, open_file, library_path).run()
