"""Libraries as plans: symbol lookup against readelf, order of start, thread-local storage, and hostile files."""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from elf_forge import Forge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_relocate import libc_path

from mmuemu.errors import BadImage
from mmuemu.guest import vdso
from mmuemu.loader import lookup
from mmuemu.loader.elf import ElfImage, Tls, read_image
from mmuemu.loader.libraries import Closure, Library, dynamic_strings, find_libraries
from mmuemu.loader.linking import TCB_SIZE, link, plan_tls, thread_block
from mmuemu.loader.lookup import Exports, Wanted
from mmuemu.loader.relocate import Resolver

Build = Callable[[str], Path]
BIAS = 0x7F00_0000_0000
RUNTIME = {"__tls_get_addr": 0x1000, "tlsdesc": 0x2000, "tlsdesc_undefined": 0x3000}


def image_of(path: Path) -> ElfImage:
    return read_image(path.read_bytes(), path.name)


def listed(path: Path) -> list[tuple[int, str, str, str, str]]:
    """(value, type, section, name, version as readelf writes it) of every dynamic symbol that is not local."""
    text = subprocess.run(["readelf", "--dyn-syms", "-W", path], capture_output=True, text=True, check=True).stdout
    pattern = r"^ *\d+: (\w+) +\w+ (\w+) +(?:GLOBAL|WEAK|UNIQUE) +DEFAULT +(\w+) ([^@\s]+)(@{0,2}[^\s]*)"
    return [(int(v, 16), *rest) for v, *rest in re.findall(pattern, text, re.MULTILINE)]


def test_every_version_of_every_symbol_of_libc_is_found() -> None:
    path = Path(libc_path())
    exports = Exports(image_of(path))
    defined = [row for row in listed(path) if row[2] not in ("UND", "ABS")]
    assert len(defined) > 2000
    for value, _, _, name, version in defined:
        found = exports.find(Wanted(name, version.lstrip("@")))
        assert found is not None, name
        assert found.value == value, name
        if version.startswith("@@"):
            default = exports.find(Wanted(name))
            assert default is None or default.value == value or len([r for r in defined if r[3] == name]) > 1


@pytest.mark.parametrize("name", ["library", "library-relr"])
def test_both_hash_tables_find_what_is_there_and_nothing_else(build: Build, name: str) -> None:
    image = image_of(build(name))
    assert (lookup.DT_GNU_HASH in (image.dynamic or {})) == (name == "library")
    exports = Exports(image)
    rows = listed(build(name))
    assert {row[3] for row in rows if row[2] == "UND"} >= {"puts", "nowhere"}
    for value, _, section, symbol, _ in rows:
        found = exports.find(Wanted(symbol))
        assert (found is None) == (section == "UND"), symbol
        assert found is None or found.value == value
    assert exports.find(Wanted("no_such_symbol")) is None
    assert exports.find(Wanted("")) is None


def test_references_know_their_versions(build: Build) -> None:
    image = image_of(build("glibc-dynamic"))
    exports = Exports(image)
    rows = [row for row in listed(build("glibc-dynamic")) if row[2] == "UND"]
    assert exports.table is not None
    named = {exports.table.symbol(i).name: exports.version_of(i) for i in range(1, len(rows) + 1)}
    assert {row[3] for row in rows} <= set(named)
    for *_, name, version in rows:
        assert named[name] == (version.lstrip("@") or None)


@given(st.binary(max_size=40))
def test_the_vdso_is_hashed_as_it_is_looked_up(name: bytes) -> None:
    assert vdso._gnu_hash(name) == lookup.gnu_hash(name)
    assert vdso._sysv_hash(name) == lookup.sysv_hash(name)


def test_hashes_are_the_documented_ones() -> None:
    assert lookup.gnu_hash(b"printf") == 0x156B2BB8
    assert lookup.gnu_hash(b"flapenguin.me") == 0x8AE9F18E
    assert lookup.sysv_hash(b"printf") == 0x077905A6


@given(st.lists(st.lists(st.integers(0, 11), max_size=4), min_size=1, max_size=12))
def test_libraries_start_after_those_they_need(graph: list[list[int]]) -> None:
    """Of an acyclic graph: edges lead to higher numbers only."""
    image = Forge().load(0, 0x200000, 0x100).image()
    modules: list[Library[Opened]] = [
        Library(image, None, str(number), needed=[n for n in needs if number < n < len(graph)])
        for number, needs in enumerate(graph)
    ]
    order = Closure(modules).initialization_order()
    assert sorted(order) == list(range(1, len(graph)))
    for number in order:
        assert all(order.index(needed) < order.index(number) for needed in modules[number].needed)


@given(st.lists(st.lists(st.integers(0, 11), max_size=4), min_size=1, max_size=12))
def test_cycles_end(graph: list[list[int]]) -> None:
    image = Forge().load(0, 0x200000, 0x100).image()
    modules: list[Library[Opened]] = [
        Library(image, None, str(number), needed=[n for n in needs if n < len(graph)])
        for number, needs in enumerate(graph)
    ]
    assert sorted(Closure(modules).initialization_order()) == list(range(1, len(graph)))


def with_tls(memsz: int, align: int) -> ElfImage:
    forge = Forge().load(0, 0x200000, 0x1000, 0x10000)
    return forge.header(7, offset=0x100, vaddr=0x200100, filesz=min(8, memsz), memsz=memsz, align=align).image()


@given(st.lists(st.tuples(st.integers(0, 5000), st.sampled_from([1, 8, 64, 4096, 16384])), min_size=1, max_size=6))
def test_blocks_of_thread_local_storage(modules: list[tuple[int, int]]) -> None:
    images = [with_tls(memsz, align) for memsz, align in modules]
    plan = plan_tls(images)
    start = 0x7F0000000000
    pointer = start + plan.pointer
    blocks = sorted(
        (pointer - offset, size, align) for offset, (size, align) in zip(plan.offsets, modules, strict=True)
    )
    assert blocks[0][0] >= start
    assert all(address % align == 0 for address, _, align in blocks)
    ends = [address + size for address, size, _ in blocks]
    assert all(end <= address for end, (address, _, _) in zip(ends, blocks[1:], strict=False))
    assert ends[-1] <= pointer
    block = thread_block(plan, start, (0x1100, 0x22))
    assert plan.pointer + len(block) <= plan.size
    self, vector, again = struct.unpack_from("<3Q", block)
    assert self == again == pointer
    assert vector == pointer + TCB_SIZE
    assert struct.unpack_from("<2Q", block, 0x28) == (0x1100, 0x22)
    for number, offset in enumerate(plan.offsets, 1):
        assert struct.unpack_from("<Q", block, TCB_SIZE + number * 16)[0] == pointer - offset


def test_too_much_thread_local_storage() -> None:
    image = Forge().load(0, 0x200000, 0x1000, 1 << 40)
    huge = image.header(7, offset=0x100, vaddr=0x200100, filesz=8, memsz=1 << 39, align=8).image()
    with pytest.raises(BadImage, match="bytes of thread-local storage"):
        plan_tls([huge])
    assert huge.tls == Tls(0x200100, 8, 1 << 39, 8)


@dataclass
class Opened:
    path: str
    data: bytes


def opener(files: dict[str, bytes], asked: list[str]) -> Callable[[str], Opened | None]:
    def open_file(path: str) -> Opened | None:
        asked.append(path)
        return Opened(path, files[path]) if path in files else None

    return open_file


def test_a_file_for_another_machine_is_passed_over(build: Build) -> None:
    user, library = image_of(build("user")), build("library").read_bytes()
    name = next(name for name in dynamic_strings(user, 1) if name.endswith("library"))
    assert "/" in name  # gcc names what has no soname by its path
    asked: list[str] = []
    with pytest.raises(BadImage, match=r"user: needs the library '.*library', which is not in the guest's view"):
        find_libraries(user, "/bin/user", opener({}, asked))
    assert asked == [name]
    found = find_libraries(user, "/bin/user", opener({name: library}, []))
    assert (found.interpreter, found.because) == ("/lib64/ld-linux-x86-64.so.2", "libc.so.6")


def needing(name: bytes, *, kind: int = 3, entry: int = 0) -> bytes:
    """A shared object that needs ``name``."""
    tags = [(1, 1), (5, 0x2000), (10, len(name) + 2), (6, 0x2000)]
    forge = Forge(kind=kind, entry=entry).load(0, 0, 0x10000).put(0x2000, b"\0" + name + b"\0")
    return forge.dynamic(tags, vaddr=forge.free + 0x1800).bytes()


def test_the_search() -> None:
    program = read_image(needing(b"libone.so"), "/opt/program")
    arm = bytearray(needing(b"libtwo.so"))
    arm[18] = 183
    files = {
        "/first/libone.so": bytes(arm),
        "/second/libone.so": needing(b"libtwo.so"),
        "/usr/lib64/libtwo.so": needing(b"libone.so"),
    }
    asked: list[str] = []
    found = find_libraries(program, "/opt/program", opener(files, asked), ["/first", "/second"])
    assert [library.path for library in found.modules] == ["/opt/program", "/second/libone.so", "/usr/lib64/libtwo.so"]
    assert [library.needed for library in found.modules] == [[1], [2], [1]]
    assert [library.loader for library in found.modules] == [None, 0, 1]
    assert asked[:2] == ["/first/libone.so", "/second/libone.so"]
    assert found.initialization_order() == [1, 2]


def test_a_program_is_no_library() -> None:
    program = read_image(needing(b"libone.so"), "program")
    files = {"/lib/libone.so": needing(b"libtwo.so", kind=2)}
    with pytest.raises(BadImage, match=r"program: needs 'libone.so', which is no shared library but a program"):
        find_libraries(program, "/program", opener(files, []))
    with pytest.raises(BadImage, match=r"/lib/libone.so: is not an ELF file"):
        find_libraries(program, "/program", opener({"/lib/libone.so": b"INPUT ( x )" * 10}, []))


def test_what_bears_a_c_librarys_name_may_be_another() -> None:
    program = read_image(needing(b"libc.so"), "program")
    plain, musl = needing(b"libc.so"), needing(b"libc.so", entry=0x100)
    assert find_libraries(program, "/p", opener({"/lib/libc.so": plain}, [])).interpreter is None
    for files in ({"/lib/libc.so": musl}, {"/lib/libc.so": b"/* GNU ld script */"}, {}):
        assert find_libraries(program, "/p", opener(files, [])).interpreter == "/lib/ld-musl-x86_64.so.1"


def test_a_chain_without_end(build: Build) -> None:
    data = bytearray(build("library").read_bytes())
    image = read_image(bytes(data), "library")
    offset = image.file_offset((image.dynamic or {})[lookup.DT_GNU_HASH], 16)
    assert offset is not None
    start = 1 + (len(data) - (offset + 28)) // 4 + 1
    data += bytes(40000)
    struct.pack_into("<4IQI", data, offset, 1, 1, 1, 6, (1 << 64) - 1, start)
    with pytest.raises(BadImage, match="hash chain of more than 4096 symbols"):
        Exports(read_image(bytes(data), "library")).find(Wanted("work"))


def test_what_a_copy_takes_of_a_resolved_word_is_resolved_again(build: Build) -> None:
    library = image_of(build("library"))
    pieces = link([(library, BIAS)], [], RUNTIME | {"puts": 1}, plan_tls([library]), 0x7E0000000000)
    template = next(copy for copy in pieces.copies)
    assert library.tls is not None
    assert (template.source, template.size) == (library.tls.vaddr + BIAS, library.tls.filesz)
    assert template.destination == 0x7E0000000000 - plan_tls([library]).offsets[0]
    assert all(isinstance(resolver, Resolver) for resolver in pieces.resolvers)


def attempt(program: bytes, library: bytes) -> None:
    """Link; only BadImage, in one printable line, may come out."""
    try:
        images = [read_image(program, "program"), read_image(library, "library")]
        for image in images:
            dynamic_strings(image, 1, 14, 15, 29)
        modules = [(images[0], 0x400000 if images[0].type == 3 else 0), (images[1], BIAS)]
        runtime = RUNTIME | {"puts": 1, "__libc_start_main": 2, "printf": 3}
        link(modules, [1], runtime, plan_tls(images), 0x7E0000000000)
    except BadImage as error:
        refused = str(error)
    else:
        return
    assert refused.isprintable()
    assert len(refused) < 5000


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["library", "library-relr", "library-ie"]),
    whose=st.booleans(),
    flips=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), max_size=10),
    keep=st.floats(0.2, 1) | st.just(1),
)
def test_spoiled_files_are_refused_or_linked(
    build: Build, name: str, whose: bool, flips: list[tuple[float, int]], keep: float
) -> None:
    files = [bytearray(build("user").read_bytes()), bytearray(build(name).read_bytes())]
    data = files[whose]
    for place, change in flips:
        data[int(place**3 * (len(data) - 1))] ^= change
    del data[int(keep * len(data)) :]
    attempt(bytes(files[0]), bytes(files[1]))


def test_the_files_before_they_are_spoiled_link(build: Build) -> None:
    images = [image_of(build("user")), image_of(build("library"))]
    runtime = RUNTIME | {"puts": 1, "__libc_start_main": 2}
    linked = link([(images[0], 0), (images[1], BIAS)], [1], runtime, plan_tls(images), 0x7E0000000000)
    assert len(linked.writes) > 10
    assert len(linked.copies) == 2
    assert linked.init
    assert linked.fini
    assert linked.relro
