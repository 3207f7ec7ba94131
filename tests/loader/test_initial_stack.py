"""The first stack: byte for byte the host kernel's; the limits are its too."""

from __future__ import annotations

import errno
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from elf_forge import Forge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmuemu.errors import UsageError
from mmuemu.loader.elf import read_image
from mmuemu.loader.layout import choose_bases
from mmuemu.loader.layouts import Layout
from mmuemu.loader.plan import plan
from mmuemu.loader.stack import (
    MAX_ARG_STRLEN,
    ArgumentsTooLong,
    At,
    Credentials,
    auxiliary_vector,
    build_stack,
)

Build = Callable[[str], Path]
TOP = 0x7FFFFFFFF000
SIXTEEN = bytes(range(16))


def parse(dump: bytes) -> tuple[int, list[int], list[int], list[tuple[int, int]]]:
    """argc, argv and envp pointers, and the auxiliary vector up to AT_NULL."""
    words = [word for (word,) in struct.iter_unpack("<Q", dump[: len(dump) // 8 * 8])]
    argc = words[0]
    argv = words[1 : 1 + argc]
    rest = words[2 + argc :]
    end = rest.index(0)
    pairs = list(zip(rest[end + 1 :: 2], rest[end + 2 :: 2], strict=False))
    return argc, argv, rest[:end], pairs[: [kind for kind, _ in pairs].index(0)]


texts = st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"."))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arguments=st.lists(texts, max_size=6), environment=st.lists(texts, max_size=6))
def test_the_host_builds_the_same_bytes(
    build: Build, fixed: list[str], arguments: list[bytes], environment: list[bytes]
) -> None:
    path = build("probe-static")
    variables = {b"N%d" % index: value for index, value in enumerate(environment)}
    dump = subprocess.run(
        [*fixed, str(path), "s", *arguments], stdout=subprocess.PIPE, check=True, env=variables
    ).stdout
    pairs = parse(dump)[3]
    random_at = dict(pairs)[At.RANDOM] - (TOP - len(dump))
    argv = [str(path).encode(), b"s", *arguments]
    envp = [name + b"=" + value for name, value in variables.items()]
    ours = build_stack(TOP, argv, envp, pairs, dump[random_at : random_at + 16], str(path).encode(), b"x86_64")
    assert ours.sp == TOP - len(dump)
    assert ours.data == dump


def test_the_vector_is_linuxs_in_order_and_value(build: Build, fixed: list[str]) -> None:
    path = build("probe-static")
    dump = subprocess.run([*fixed, str(path), "s"], stdout=subprocess.PIPE, check=True, env={}).stdout
    theirs = parse(dump)[3]
    known = dict(theirs)
    image = read_image(path.read_bytes(), str(path))
    ours = auxiliary_vector(
        plan(image, choose_bases(Layout(), image, None)),
        credentials=Credentials(known[At.UID], known[At.EUID], known[At.GID], known[At.EGID]),
        hwcap=known[At.HWCAP],
        hwcap2=known[At.HWCAP2],
        sysinfo_ehdr=known.get(At.SYSINFO_EHDR),
        minsigstksz=known.get(At.MINSIGSTKSZ),
    )
    filled_later = (At.RANDOM, At.EXECFN, At.PLATFORM)
    compared = [(kind, 0 if kind in filled_later else value) for kind, value in theirs if kind not in (27, 28)]
    assert ours == compared


def test_interpreter_bias_and_secure_are_told() -> None:
    image = Forge(kind=3, entry=0x10).load(0, 0, 0x1000).interp(b"/lib/ld\0").image()
    bases = choose_bases(Layout(), image, None)
    vector = dict(auxiliary_vector(plan(image, bases), 0x7F0000000000, secure=True))
    assert (vector[At.BASE], vector[At.SECURE], vector[At.PHNUM]) == (0x7F0000000000, 1, 2)
    assert vector[At.ENTRY] == 0x555555554010
    assert vector[At.PHDR] == 0x555555554040
    assert At.SYSINFO_EHDR not in vector


def test_addresses_point_at_their_strings() -> None:
    stack = build_stack(TOP, [b"a", b"bc"], [b"E=1"], [(At.RANDOM, 0), (77, 5)], SIXTEEN, b"/bin/x")
    data = stack.data

    def at(address: int, size: int) -> bytes:
        return data[address - stack.sp : address - stack.sp + size]

    argc, argv, envp, pairs = parse(data)
    assert (argc, [at(address, 2) for address in argv]) == (2, [b"a\0", b"bc"])
    assert at(envp[0], 4) == b"E=1\0"
    assert pairs == [(At.RANDOM, stack.random), (77, 5)]
    assert at(stack.random, 16) == SIXTEEN
    assert at(stack.execfn, 7) == b"/bin/x\0"
    assert at(stack.arg_start, stack.arg_end - stack.arg_start) == b"a\0bc\0"
    assert at(stack.env_start, stack.env_end - stack.env_start) == b"E=1\0"
    assert stack.auxv in data
    assert stack.auxv.endswith(bytes(16))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1 << 32), st.lists(texts, max_size=4))
def test_the_pointer_is_aligned_and_shuffled_by_the_seed(seed: int, argv: list[bytes]) -> None:
    plain = build_stack(TOP, argv, [], [], SIXTEEN, b"x")
    one = build_stack(TOP, argv, [], [], SIXTEEN, b"x", rng=Random(seed))
    assert one == build_stack(TOP, argv, [], [], SIXTEEN, b"x", rng=Random(seed))
    assert one.sp % 16 == plain.sp % 16 == 0
    assert 0 <= plain.sp - one.sp <= 8192
    assert one.sp + len(one.data) == TOP


def test_seeds_differ() -> None:
    assert len({build_stack(TOP, [], [], [], SIXTEEN, b"x", rng=Random(s)).sp for s in range(20)}) > 10


def test_no_arguments_become_an_empty_one() -> None:
    stack = build_stack(TOP, [], [], [], SIXTEEN, b"x")
    assert parse(stack.data)[0] == 1
    assert stack.arg_end - stack.arg_start == 1


def accepted(argv: list[bytes], path: str) -> bool:
    try:
        build_stack(TOP, argv, [], [], SIXTEEN, path.encode())
    except ArgumentsTooLong:
        return False
    return True


def host_accepts(argv: list[bytes], path: str) -> bool:
    """Whether the host starts ``path`` with ``argv`` under an 8 MiB stack limit."""
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_STACK, (8 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]))

    try:
        subprocess.run(argv, executable=path, env={}, stdout=subprocess.DEVNULL, check=True, preexec_fn=limit)
    except OSError as error:
        if error.errno != errno.E2BIG:
            raise
        return False
    return True


def test_the_limits_are_the_hosts(build: Build) -> None:
    path = str(build("probe-static"))
    longest = [b"x", b"y" * (MAX_ARG_STRLEN - 1)]
    assert accepted(longest, path)
    assert host_accepts(longest, path)
    longest[1] += b"y"
    assert not accepted(longest, path)
    assert not host_accepts(longest, path)
    fill = [b"x", *[b"y" * 99_999] * 20]

    def total(extra: int) -> list[bytes]:
        return [*fill, b"z" * extra]

    low, high = 0, 120_000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if accepted(total(middle), path) else (low, middle)
    assert host_accepts(total(low), path)
    assert not host_accepts(total(low + 1), path)


def test_a_small_stack_still_takes_arg_max() -> None:
    half = b"x" * 60_000
    build_stack(TOP, [half, half], [], [], SIXTEEN, b"x", stack_limit=4096)
    with pytest.raises(ArgumentsTooLong, match="the stack allows 131072"):
        build_stack(TOP, [half, half], [half], [], SIXTEEN, b"x", stack_limit=4096)


def test_what_no_execve_passes() -> None:
    with pytest.raises(UsageError, match="environment string 1 holds a NUL byte"):
        build_stack(TOP, [b"x"], [b"A=1", b"B\0"], [], SIXTEEN, b"x")
    with pytest.raises(ValueError, match="16 bytes, not 3"):
        build_stack(TOP, [b"x"], [], [], b"abc", b"x")
