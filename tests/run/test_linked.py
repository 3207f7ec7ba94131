"""Programs that need libraries and name no interpreter, against the same under the host's ld.so."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.run.harness import ENGINES, ENVIRONMENT, host, mmuemu
from tests.run.linked_build import FREE, LD_SO, NO_PIE, PIE, SOURCES, Bench, run_compiler

KINDS = {"PIE": PIE, "fixed": NO_PIE}
engines = pytest.mark.parametrize("engine", ENGINES)
kinds = pytest.mark.parametrize("kind", KINDS)


def lines(result) -> dict[str, str]:
    return dict(line.rsplit(" ", 1) for line in result.out.decode().splitlines())


@engines
@kinds
@pytest.mark.parametrize("style", ["gnu", "sysv"])
def test_binding(engine: str, kind: str, style: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path, "symbols")
    options = [f"-Wl,--hash-style={style}"]
    second = Bench(tmp_path, "symbols").library("b", *options)
    bench.library("a", *options, second)
    bench.libraries.append(second)
    said = lines(bench.compare(*options, kind=KINDS[kind], engine=engine))
    assert said["through b"] == "10"
    assert said["one address"] == "1"
    assert said["copy seen from the library"] == "99"


def test_symbolic_libraries_and_packed_relocations(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "symbols")
    bench.library("a", "-Wl,-Bsymbolic-functions", "-Wl,-z,pack-relative-relocs", "-Wl,-z,lazy")
    bench.library("b", "-Wl,-Bsymbolic", "-Wl,-z,now")
    assert lines(bench.compare("-Wl,-z,pack-relative-relocs"))["through b"] == "11"


def test_relocated_text(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "needs")
    bench.library("a", "-DWHICH=6")
    found = bench.compare("-fno-pic", "-mcmodel=large", "-Wl,-z,notext", kind=["-pie"])
    assert lines(found) == {"needed": "1", "other": "6"}


@engines
def test_versions(engine: str, tmp_path: Path) -> None:
    old = tmp_path / "old.map"
    new = tmp_path / "new.map"
    old.write_text("V1 { global: f; g; local: *; };")
    new.write_text("V1 { global: f; g; local: *; };\nV2 { global: f; h; } V1;\nV3 { global: f; } V2;")
    then = Bench(tmp_path / "then", "versions").library("v", "-DOLD", f"-Wl,--version-script={old}")
    now = Bench(tmp_path / "now", "versions").library("v", f"-Wl,--version-script={new}")
    bench = Bench(tmp_path, "versions")
    bench.library("w", now)
    bench.libraries.append(then)
    found = bench.compare(engine=engine, find=[f"-Wl,-rpath,$ORIGIN:{now.parent}"])
    assert lines(found) == {"program's f": "1", "library's f": "3", "g": "4"}


def test_an_unversioned_reference_takes_the_base_version(tmp_path: Path) -> None:
    new = tmp_path / "new.map"
    new.write_text("V1 { global: f; g; local: *; };\nV2 { global: f; h; } V1;\nV3 { global: f; } V2;")
    then = Bench(tmp_path / "then", "versions").library("v", "-DOLD")
    now = Bench(tmp_path / "now", "versions").library("v", f"-Wl,--version-script={new}")
    bench = Bench(tmp_path, "versions")
    bench.library("w", then)
    bench.libraries.append(then)
    found = bench.compare(find=[f"-Wl,-rpath,$ORIGIN:{now.parent}"])
    assert lines(found)["program's f"] == "1"


def test_a_version_that_is_gone(tmp_path: Path) -> None:
    script = tmp_path / "new.map"
    script.write_text("V1 { global: f; g; local: *; };\nV2 { global: f; h; } V1;\nV3 { global: f; } V2;")
    old = tmp_path / "old.map"
    old.write_text("V1 { global: f; g; local: *; };")
    now = Bench(tmp_path / "now", "versions").library("v", f"-Wl,--version-script={script}")
    then = Bench(tmp_path / "then", "versions").library("v", "-DOLD", f"-Wl,--version-script={old}")
    bench = Bench(tmp_path, "versions")
    bench.library("w", now)
    bench.libraries.append(now)
    ours, _ = bench.program(find=[f"-Wl,-rpath,$ORIGIN:{then.parent}"])
    found = mmuemu(ours, cwd=tmp_path)
    assert found.code == 126
    assert b"libw.so: needs the symbol 'f' of version 'V3', which nothing defines" in found.err


@engines
@kinds
def test_ifunc(engine: str, kind: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path, "ifunc")
    bench.library("a")
    said = lines(bench.compare(kind=KINDS[kind], engine=engine))
    assert said["inside"] == "224"
    assert said["copied"] == "21"


TLS = {
    "general dynamic": [],
    "descriptors": ["-mtls-dialect=gnu2"],
    "initial exec": ["-ftls-model=initial-exec"],
}


@engines
@pytest.mark.parametrize("model", TLS)
@kinds
def test_thread_local_storage(engine: str, model: str, kind: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path, "tls")
    second = Bench(tmp_path, "tls").library("b", *TLS[model])
    bench.library("a", *TLS[model], second)
    bench.libraries.append(second)
    said = lines(bench.compare(kind=KINDS[kind], engine=engine))
    assert said["guard"] == "1"
    assert said["below the thread pointer"] == "1"


@engines
def test_start_and_end_in_a_diamond(engine: str, tmp_path: Path) -> None:
    last = graph(tmp_path, {"d": "", "b": "d", "c": "d", "a": "bc"})
    bench = Bench(tmp_path, "order", [last["a"]])
    found = bench.compare(engine=engine, arguments=["first", "last"])
    assert found.code == 3
    order = [line for line in found.out.decode().splitlines() if " up last" in line]
    assert [line[0] for line in order] == ["d", "c", "b", "a"]
    assert all(line.endswith("and environment 41") for line in order)


def graph(directory: Path, needs: dict[str, str]) -> dict[str, Path]:
    """Libraries that need each other as told; a cycle is closed by building its members twice."""
    paths = {name: directory / f"lib{name}.so" for name in needs}
    common = [*FREE, "-fPIC", "-shared", SOURCES / "order.c", "-Wl,--no-as-needed", "-Wl,-init,start_function"]
    common += ["-Wl,-fini,end_function", "-Wl,-rpath,$ORIGIN"]
    for final in (False, True):
        for name, others in needs.items():
            options = [f'-DNAME="{name}"', f"-Wl,-soname,lib{name}.so", "-o", paths[name]]
            run_compiler(*common, *options, *([paths[other] for other in others if other != name] if final else []))
    return paths


@pytest.mark.parametrize("seed", range(4))
def test_start_and_end_in_any_graph(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    names = "abcdef"
    needs = {name: "".join(dice.sample(names, dice.randrange(3))) for name in names}
    paths = graph(tmp_path, needs)
    bench = Bench(tmp_path, "order", [paths[name] for name in dice.sample(names, 3)])
    bench.compare(arguments=["x"])


@pytest.mark.parametrize(("whose", "code"), [("library", 139), ("program", 139), ("none", 0)])
@engines
def test_what_is_read_only_after_relocation(whose: str, code: int, engine: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path, "relro")
    bench.library("a", "-Wl,-z,relro")
    found = bench.compare("-Wl,-z,relro", engine=engine, arguments=[whose])
    assert found.code == code
    assert (b"after" in found.out) == (code == 0)


def test_libraries_are_mapped_as_ld_so_maps_them(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "maps")
    bench.library("a")
    ours, theirs = bench.program()
    shapes = []
    for result in (host([theirs], cwd=tmp_path), mmuemu(ours, cwd=tmp_path)):
        found = re.findall(r"^(\w+)-(\w+) (\S+) (\w+) \S+ \d+ +(\S*)$", result.out.decode(), re.MULTILINE)
        rows = [(int(end, 16) - int(start, 16), rights, offset) for start, end, rights, offset, name in found
                if name.endswith("liba.so")]  # fmt: skip
        shapes.append(rows)
    assert len(shapes[0]) == 5
    assert shapes[1] == shapes[0]


def test_bases_are_random_and_repeat_with_the_seed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "maps")
    bench.library("a")
    ours, _ = bench.program()
    first, again, other = (mmuemu("--seed", seed, ours, cwd=tmp_path).out for seed in ("1", "1", "2"))
    assert first == again
    assert first != other
    assert b"[vdso]" in first


def test_a_missing_library(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "needs")
    library = bench.library("a", "-DWHICH=1")
    ours, _ = bench.program()
    library.unlink()
    found = mmuemu(ours, cwd=tmp_path)
    assert found.code == 126
    assert found.out == b""
    assert b"program: needs the library 'liba.so', which is not in the guest's view" in found.err


def test_a_missing_symbol(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "needs")
    bench.library("a", "-DWHICH=1")
    ours, _ = bench.program()
    Bench(tmp_path, "needs").library("a", "-DWHICH=1", "-DEMPTY")
    found = mmuemu(ours, cwd=tmp_path)
    assert found.code == 126
    assert b"program: needs the symbol 'needed', which nothing defines" in found.err


def test_a_missing_weak_symbol_is_null(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "needs")
    bench.library("a", "-DWHICH=1")
    assert lines(bench.compare())["needed"] == "1"


def test_programs_execute_programs_that_need_libraries(tmp_path: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("no busybox")
    bench = Bench(tmp_path, "needs")
    library = bench.library("a", "-DWHICH=8", at="apart/liba.so")
    ours, _ = bench.program(find=[])
    command = f"export LD_LIBRARY_PATH={library.parent}; exec {ours}"
    assert lines(mmuemu(busybox, "sh", "-c", command, cwd=tmp_path))["other"] == "8"
    assert mmuemu(busybox, "sh", "-c", f"exec {ours}", cwd=tmp_path).code == 126
    Bench(tmp_path, "needs").library("a", "-DWHICH=8", "-DEMPTY", at="apart/liba.so")
    found = mmuemu(busybox, "sh", "-c", command, cwd=tmp_path)
    assert (found.out, found.code) == (b"", 126)
    assert b"an not access a needed shared library" in found.err


SEARCHES = {
    "DT_RUNPATH": (["-Wl,-rpath,$ORIGIN/one"], "", "1"),
    "DT_RUNPATH after LD_LIBRARY_PATH": (["-Wl,-rpath,$ORIGIN/one"], "nowhere:{}/two", "2"),
    "DT_RPATH before LD_LIBRARY_PATH": (["-Wl,-rpath,${ORIGIN}/one", "-Wl,--disable-new-dtags"], "{}/two", "1"),
    "LD_LIBRARY_PATH": ([], "{}/two", "2"),
    "an empty directory is the working one": ([], "nowhere::", "3"),
}


@pytest.mark.parametrize("how", SEARCHES)
def test_where_libraries_are_looked_for(how: str, tmp_path: Path) -> None:
    find, path, which = SEARCHES[how]
    bench = Bench(tmp_path, "needs")
    for number, place in ((1, "one/liba.so"), (2, "two/liba.so"), (3, "liba.so")):
        library = bench.library("a", f"-DWHICH={number}", at=place)
    bench.libraries = [library]
    ours, theirs = bench.program(find=find)
    environment = {**ENVIRONMENT, "LD_LIBRARY_PATH": path.format(tmp_path)} if path else ENVIRONMENT
    expected = host([theirs], cwd=tmp_path, env=environment)
    found = mmuemu(ours, cwd=tmp_path, env=environment)
    assert (found.out, found.code) == (expected.out, expected.code)
    assert lines(found)["other"] == which


def test_one_file_under_two_names_is_one_library(tmp_path: Path) -> None:
    last = graph(tmp_path, {"a": ""})["a"]
    (tmp_path / "libz.so").symlink_to("liba.so")
    copy = tmp_path / "elsewhere" / "libz.so"
    copy.parent.mkdir()
    shutil.copy(last, copy)
    run_compiler(*FREE, "-fPIC", "-shared", SOURCES / "order.c", '-DNAME="z"', "-Wl,-soname,libz.so", "-o", copy)
    found = Bench(tmp_path, "order", [last, copy]).compare(arguments=["x"])
    assert found.out.count(b"a up x") == 1


HELLO = (
    '#include <stdio.h>\n__thread int c = 7;\nint main(int n, char **a) { printf("%d %s\\n", c + n, a[1]); return 3; }'
)


@pytest.mark.parametrize(("compiler", "kind"), [("gcc", "-pie"), ("gcc", "-no-pie"), ("musl-gcc", "-no-pie")])
def test_a_c_library_is_left_to_its_own_linker(compiler: str, kind: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    (tmp_path / "hello.c").write_text(HELLO)
    program = tmp_path / "hello"
    subprocess.run([compiler, kind, tmp_path / "hello.c", "-Wl,--no-dynamic-linker", "-o", program], check=True)
    assert b"INTERP" not in subprocess.run(["readelf", "-lW", program], capture_output=True, check=True).stdout
    found = mmuemu(program, "there", cwd=tmp_path)
    assert (found.out, found.code) == (b"9 there\n", 3), found.err
    linker = "/lib/ld-musl-x86_64.so.1" if "musl" in compiler else LD_SO
    found = mmuemu("--root", tmp_path, "/hello", "there", cwd=tmp_path)
    assert found.code == 126
    assert (
        f"which only the dynamic linker {linker} can start, and that is not in the guest's view".encode() in found.err
    )


@pytest.mark.parametrize("compiler", ["gcc", "musl-gcc"])
def test_isolated_it_still_has_its_c_library(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    (tmp_path / "hello.c").write_text(HELLO)
    program = tmp_path / "hello"
    subprocess.run([compiler, tmp_path / "hello.c", "-Wl,--no-dynamic-linker", "-o", program], check=True)
    found = mmuemu("--isolate", program, "there", cwd=tmp_path)
    assert (found.out, found.code) == (b"9 there\n", 3), found.err


def test_isolated_it_still_has_its_libraries(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "needs")
    bench.library("a", "-DWHICH=4", at="apart/liba.so")
    ours, _ = bench.program(find=["-Wl,-rpath,$ORIGIN/apart"])
    assert lines(mmuemu("--isolate", ours, cwd=tmp_path))["other"] == "4"


def test_what_is_no_file_is_passed_over(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "needs")
    bench.library("a", "-DWHICH=4", at="apart/liba.so")
    ours, _ = bench.program(find=["-Wl,-rpath,$ORIGIN/pipe:$ORIGIN/directory:$ORIGIN/apart"])
    (tmp_path / "directory" / "liba.so").mkdir(parents=True)
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "liba.so")
    assert lines(mmuemu(ours, cwd=tmp_path))["other"] == "4"
