"""Relocations: against the host's own ld.so on the same library, and one refusal per way to be wrong."""

from __future__ import annotations

import ctypes
import re
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from elf_forge import Forge

from mmuemu.errors import BadImage
from mmuemu.loader.elf import ElfImage, Tls, read_image
from mmuemu.loader.relocate import Relocations, Resolver, Write, relocate, static_tls_offsets, type_name
from mmuemu.loader.symbols import all_symbols, dynamic_symbols

Build = Callable[[str], Path]
BIAS = 0x7F00_0000_0000


def image_of(path: Path) -> ElfImage:
    return read_image(path.read_bytes(), path.name)


def host_base(path: str) -> int:
    rows = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    return min(int(row[0].split("-")[0], 16) for row in rows if row[-1] == path)


def libc_path() -> str:
    rows = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    found = [row[-1] for row in rows if re.search(r"/libc\.so\.6$|/libc-2.*\.so$", row[-1])]
    if not found:
        pytest.skip("this Python does not run on glibc")
    return found[0]


def linker_path() -> str:
    """The host's ld.so, which defines __tls_get_addr."""
    rows = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    return next(row[-1] for row in rows if re.search(r"/ld-[^/]*\.so[^/]*$", row[-1]))


def word_at(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


@pytest.mark.parametrize("name", ["library", "library-relr"])
def test_every_word_is_what_ld_so_wrote(build: Build, name: str) -> None:
    path = build(name)
    ctypes.CDLL(str(path))
    bias = host_base(str(path))
    image = image_of(path)
    result = relocate(image, bias, [(image_of(Path(p)), host_base(p)) for p in (libc_path(), linker_path())])
    module_ids = {w.address for w in result.writes if w.value == 1}
    assert len(module_ids) == 2
    compared = [w for w in result.writes if w.address not in module_ids]
    assert len(compared) > 10
    assert [(hex(w.address), hex(w.value)) for w in compared] == [
        (hex(w.address), hex(word_at(w.address))) for w in compared
    ]
    assert len(result.resolvers) >= 3
    for resolver in result.resolvers:
        answer = ctypes.CFUNCTYPE(ctypes.c_uint64)(resolver.function)()
        assert answer + resolver.addend == word_at(resolver.address)
    named = {symbol.name: symbol for symbol in dynamic_symbols(image).values()}
    past = next(w.value for w in result.writes if w.address == bias + named["pointer_past"].value)
    assert past == bias + named["shared_value"].value + 12


def test_relr_is_really_tested(build: Build) -> None:
    image = image_of(build("library-relr"))
    assert 36 in (image.dynamic or {})
    plain = image_of(build("free-pie"))
    packed = image_of(build("free-relr"))
    assert 36 in (packed.dynamic or {})
    assert len(relocate(packed, BIAS).writes) == len(relocate(plain, BIAS).writes) == 4


def readelf_relocations(path: Path) -> list[tuple[int, str, int]]:
    text = subprocess.run(["readelf", "-rW", str(path)], capture_output=True, text=True, check=True).stdout
    rows = re.findall(r"^(\w{16})  \w{16} (R_X86_64_\w+)(.*)$", text, flags=re.MULTILINE)
    return [(int(offset, 16), kind, int(rest.split()[-1], 16)) for offset, kind, rest in rows]


@pytest.mark.parametrize("name", ["free-pie", "glibc-static-pie"])
def test_relative_ones_are_those_readelf_lists(build: Build, name: str) -> None:
    listed = readelf_relocations(build(name))
    result = relocate(image_of(build(name)), BIAS)
    relative = [(o + BIAS, a + BIAS) for o, kind, a in listed if kind == "R_X86_64_RELATIVE"]
    assert relative
    assert sorted(relative) == sorted((w.address, w.value) for w in result.writes if w.value >= BIAS)
    irelative = [(o + BIAS, a + BIAS, 0) for o, kind, a in listed if "IREL" in kind]
    assert irelative == [tuple(r) for r in result.resolvers]


def test_a_static_program_without_a_dynamic_table(build: Build) -> None:
    image = image_of(build("free-ifunc"))
    assert image.dynamic is None
    listed = readelf_relocations(build("free-ifunc"))
    assert [tuple(r) for r in relocate(image, 0).resolvers] == [(o, a, 0) for o, _, a in listed]
    assert listed


def test_relocations_kept_for_tools_are_not_applied(build: Build) -> None:
    plain, kept = build("free-ifunc"), build("free-ifunc-emit")
    assert len(readelf_relocations(kept)) > len(readelf_relocations(plain))
    assert len(relocate(image_of(kept), 0).resolvers) == len(relocate(image_of(plain), 0).resolvers)
    assert not relocate(image_of(kept), 0).writes


def test_local_symbols_are_not_offered() -> None:
    symbols = [(b"inside", 0x01, 1, 0x1900), (b"outside", GLOBAL, 1, 0x1908)]
    image = forged(symbols=symbols, tags=[(4, 0x1000 + HASH)], content=struct.pack("<2I", 1, 3) + bytes(16))
    assert list(dynamic_symbols(image)) == ["outside"]


def test_symbols_need_no_section_headers(build: Build) -> None:
    data = bytearray(build("library").read_bytes())
    whole = dynamic_symbols(read_image(bytes(data), "whole"))
    start = struct.unpack_from("<Q", data, 40)[0]
    data[start:] = b"\xff" * (len(data) - start)
    assert dynamic_symbols(read_image(bytes(data), "bare")) == whole
    assert "work" in whole


def test_copies_and_symbols_of_a_library(build: Build) -> None:
    user, library, libc = image_of(build("user")), image_of(build("library")), image_of(Path(libc_path()))
    result = relocate(user, 0, [(library, BIAS), (libc, BIAS * 2 - 0x100000000000)])
    offered = dynamic_symbols(library)
    ours = dynamic_symbols(user)["shared_value"]
    assert [tuple(c) for c in result.copies] == [(ours.value, BIAS + offered["shared_value"].value, 4)]
    assert BIAS + offered["work"].value in {w.value for w in result.writes}


def test_undefined_symbols(build: Build) -> None:
    with pytest.raises(BadImage, match=r"library: needs the symbol 'puts' of version 'GLIBC_2.2.5', which nothing"):
        relocate(image_of(build("library")), BIAS)
    with pytest.raises(BadImage, match=r"user: R_X86_64_COPY of 'shared_value': no library defines it"):
        relocate(image_of(build("user")), 0, [(image_of(Path(libc_path())), BIAS)])


def test_thread_pointer_offsets_are_the_link_editors(build: Build) -> None:
    path = build("library-ie")
    image = image_of(path)
    assert image.tls is not None
    result = relocate(image, BIAS, [(image_of(Path(libc_path())), BIAS * 2 - 0x100000000000)])
    symbol = dynamic_symbols(image)["local_counter"]
    below = -(-image.tls.memsz // image.tls.align) * image.tls.align
    wanted = {(symbol.value - below) % 2**64}
    wanted |= {(a - below) % 2**64 for _, kind, a in readelf_relocations(path) if kind.endswith("TPOFF64")}
    assert wanted <= {w.value for w in result.writes}


def test_static_tls_offsets_stack_up() -> None:
    assert static_tls_offsets([Tls(0, 0, 10, 16), None, Tls(0, 0, 100, 64), Tls(0, 0, 1, 1)]) == [
        16,
        0,
        128,
        129,
    ]


def test_static_tls_offset_is_what_gcc_assumes(build: Build) -> None:
    """Local-exec code holds the offset as an immediate: find it in the code of ``main``."""
    path = build("glibc-static")
    image = image_of(path)
    symbols = {symbol.name: symbol for symbol in all_symbols(image)}
    main, counter = symbols["main"], symbols["counter"]
    offset = image.file_offset(main.value, main.size)
    assert offset is not None
    code = bytes(image.data[offset : offset + main.size])
    assert struct.pack("<i", counter.value - static_tls_offsets([image.tls])[0]) in code


def test_symbols_are_those_nm_lists(build: Build) -> None:
    text = subprocess.run(["nm", str(build("free-pie"))], capture_output=True, text=True, check=True).stdout
    listed = {row.split()[2]: int(row.split()[0], 16) for row in text.splitlines() if len(row.split()) == 3}
    ours = {symbol.name: symbol.value for symbol in all_symbols(image_of(build("free-pie")))}
    assert "begin" in listed
    assert {name: ours[name] for name in listed} == listed


SYMTAB, STRTAB, RELA, DATA, HASH = 0x100, 0x200, 0x300, 0x800, 0x900


def forged(
    relocations: Sequence[tuple[int, int, int, int]] = (),
    *,
    symbols: Sequence[tuple[bytes, int, int, int]] = (),
    relr: Sequence[int] = (),
    tags: Sequence[tuple[int, int]] = (),
    tls: bool = False,
    content: bytes = b"",
) -> ElfImage:
    """A DYN file of one page at 0x1000; relocations are (offset, type, symbol, addend)."""
    rela = b"".join(struct.pack("<QQq", o, s << 32 | k, a) for o, k, s, a in relocations)
    names, table = b"\0", bytes(24)
    for name, info, section, value in symbols:
        table += struct.pack("<IBBHQQ", len(names), info, 0, section, value, 8)
        names += name + b"\0"
    packed = b"".join(struct.pack("<Q", word) for word in relr)
    entries = [
        (6, 0x1000 + SYMTAB),
        (5, 0x1000 + STRTAB),
        (10, len(names)),
        (7, 0x1000 + RELA),
        (8, len(rela)),
    ]
    entries += [(36, 0x1000 + RELA), (35, len(packed))] if relr else []
    forge = Forge(kind=3, entry=0x1000, size=0x12000).load(0x1000, 0x1000, 0x1000, 0x2000, flags=6)
    forge.put(0x1000 + SYMTAB, table).put(0x1000 + STRTAB, names).put(0x1000 + RELA, rela or packed)
    forge.put(0x1000 + DATA, struct.pack("<8Q", *range(1, 9)))
    forge.put(0x1000 + HASH, content)
    if tls:
        forge.header(7, vaddr=0x1800, offset=0x1800, filesz=8, memsz=24, align=16)
    return forge.dynamic([*entries, *tags]).image()


GLOBAL, WEAK, TLS_SYMBOL, IFUNC = 0x11, 0x22, 0x16, 0x1A


def values(result: Relocations) -> list[tuple[int, int]]:
    return [(w.address, w.value) for w in result.writes]


def test_formulas() -> None:
    symbols = [(b"a", GLOBAL, 1, 0x1900), (b"w", WEAK, 0, 0), (b"abs", GLOBAL, 0xFFF1, 0x77)]
    image = forged(
        [
            (0x1800, 8, 0, 0x1234),
            (0x1808, 1, 1, 5),
            (0x1810, 6, 1, 5),
            (0x1818, 7, 1, 5),
            (0x1820, 1, 2, 3),
            (0x1828, 1, 3, 1),
            (0x1830, 1, 0, -1),
            (0x9999999, 0, 0, 0),
            (0x2FF8, 37, 0, 0x1040),
        ],
        symbols=symbols,
    )
    result = relocate(image, BIAS)
    assert values(result) == [
        (BIAS + 0x1800, BIAS + 0x1234),
        (BIAS + 0x1808, BIAS + 0x1905),
        (BIAS + 0x1810, BIAS + 0x1900),
        (BIAS + 0x1818, BIAS + 0x1900),
        (BIAS + 0x1820, 3),
        (BIAS + 0x1828, 0x78),
        (BIAS + 0x1830, 2**64 - 1),
    ]
    assert result.resolvers == [Resolver(BIAS + 0x2FF8, BIAS + 0x1040)]


def test_thread_local_formulas() -> None:
    image = forged(
        [(0x1800, 16, 1, 0), (0x1808, 17, 1, 2), (0x1810, 18, 1, 1), (0x1818, 18, 0, 4), (0x1820, 18, 2, 0)],
        symbols=[(b"t", TLS_SYMBOL, 1, 8), (b"w", WEAK, 0, 0)],
        tls=True,
    )
    assert [value for _, value in values(relocate(image, 0))] == [
        1,
        10,
        (9 - 32) % 2**64,
        (4 - 32) % 2**64,
        0,
    ]


def test_ifunc_symbols_become_resolvers() -> None:
    image = forged([(0x1800, 1, 1, 4), (0x1808, 6, 1, 4)], symbols=[(b"f", IFUNC, 1, 0x1010)])
    assert relocate(image, BIAS).resolvers == [
        Resolver(BIAS + 0x1800, BIAS + 0x1010, 4),
        Resolver(BIAS + 0x1808, BIAS + 0x1010, 0),
    ]


def test_relr_words() -> None:
    image = forged(relr=[0x1800, 0b1011, 0b11, 0x1830])
    after = BIAS + 0x1808 + 63 * 8
    with pytest.raises(BadImage, match="RELR table that goes back, to 0x1830"):
        relocate(image, BIAS)
    good = forged(relr=[0x1800, 0b1011, 0b11])
    assert values(relocate(good, BIAS)) == [
        (BIAS + 0x1800, BIAS + 1),
        (BIAS + 0x1808, BIAS + 2),
        (BIAS + 0x1818, BIAS + 4),
        (after, BIAS),
    ]


def test_jmprel_inside_rela_is_applied_once() -> None:
    beyond = (0x1810, 10, 0, 0)
    image = forged(
        [(0x1800, 8, 0, 1), (0x1808, 8, 0, 2), beyond],
        tags=[(8, 48), (23, 0x1000 + RELA + 24), (2, 24), (20, 7)],
    )
    assert values(relocate(image, 0)) == [(0x1800, 1), (0x1808, 2)]


def test_jmprel_alone() -> None:
    image = forged([(0x1800, 8, 0, 1)], tags=[(8, 0), (23, 0x1000 + RELA), (2, 24), (20, 7)])
    assert relocate(image, 0).writes == [Write(0x1800, 1)]


REFUSED: dict[str, tuple[Callable[[], ElfImage], str]] = {
    "target": (lambda: forged([(0x2FF9, 8, 0, 0)]), "RELATIVE refers to 0x2ff9, outside every segment"),
    "far target": (lambda: forged([(2**64 - 8, 1, 0, 0)]), "outside every segment"),
    "resolver": (lambda: forged([(0x1800, 37, 0, 0x99999)]), "IRELATIVE refers to 0x99999"),
    "known type": (lambda: forged([(0x1800, 10, 0, 0)]), "type R_X86_64_32 at 0x1800, which no loader"),
    "unknown type": (lambda: forged([(0x1800, 4000, 0, 0)]), "of type R_X86_64_4000 at"),
    "symbol": (lambda: forged([(0x1800, 1, 9999999, 0)]), "symbol 9999999, which does not exist"),
    "strong": (
        lambda: forged([(0x1800, 1, 1, 0)], symbols=[(b"gone\nnow", 0x10, 0, 0)]),
        r"needs the symbol 'gone\\nnow', which nothing defines",
    ),
    "no tls": (
        lambda: forged([(0x1800, 18, 1, 0)], symbols=[(b"t", TLS_SYMBOL, 1, 0)]),
        "R_X86_64_TPOFF64 refers to thread-local storage, and there is no TLS segment",
    ),
    "tls of data": (
        lambda: forged([(0x1800, 18, 1, 0)], symbols=[(b"d", GLOBAL, 1, 0)], tls=True),
        "refers to 'd', which is not thread-local",
    ),
    "huge": (lambda: forged(tags=[(8, 24 << 50)]), r"table \(0x60000000000000 bytes at 0x1300\) outside"),
    "uneven": (lambda: forged(tags=[(8, 25)]), "DT_RELA table of 0x19 bytes, no multiple of 24"),
    "entry size": (lambda: forged([(0x1800, 8, 0, 0)], tags=[(9, 16)]), "DT_RELA entries of 16 bytes"),
    "rel": (lambda: forged(tags=[(17, 0x1300)]), r"relocations without addends \(DT_REL\)"),
    "plt rel": (lambda: forged(tags=[(20, 17)]), r"relocations without addends \(DT_REL\)"),
    "symtab": (lambda: forged(tags=[(6, 0x999999)]), "symbol table at 0x999999, outside its file"),
    "strtab": (lambda: forged(tags=[(10, 1 << 60)]), "string table .* outside its file"),
    "bitmap": (lambda: forged(relr=[3]), "RELR table that begins with a bitmap"),
    "relr in bss": (lambda: forged(relr=[0x2800]), "RELR relocates 0x2800, outside every"),
    "relr size": (lambda: forged(relr=[0x1800], tags=[(37, 16)]), "DT_RELR entries of 16 bytes, not 8"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_each_way_to_be_wrong_has_its_reason(case: str) -> None:
    make, reason = REFUSED[case]
    with pytest.raises(BadImage, match=reason) as caught:
        relocate(make(), BIAS)
    assert "\n" not in str(caught.value)


def test_type_names() -> None:
    assert [type_name(n) for n in (1, 8, 18, 37, 36, 99)] == [
        f"R_X86_64_{name}" for name in ("64", "RELATIVE", "TPOFF64", "IRELATIVE", "TLSDESC", "99")
    ]
