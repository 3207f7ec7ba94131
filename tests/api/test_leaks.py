"""Noninterference: what a function tells transiently, by every way that it must or must not."""

from __future__ import annotations

import shutil

import pytest

from mmuemu.errors import BadImage, UsageError
from mmuemu.leaks import Subject, leaks

DATA = """
.data
.balign 64
array: .fill 16, 1, 1
.balign 64
size: .quad 16
.balign 64
secret: .fill 16, 1, 0
.balign 4096
probe: .fill 16384, 1, 0
"""
LOOKUP = """
victim:
    lea rcx, [rip + array]
    lea rdx, [rip + probe]
    {before}
    cmp rdi, [rip + size]
    jae out
    {check}
    movzx eax, byte ptr [rcx + rdi]
    shl eax, 6
    movzx eax, byte ptr [rdx + rax]
out:
    ret
"""
OUT_OF_BOUNDS = 128
"""From the array to the secret."""


def lookup(before: str = "", check: str = "") -> str:
    return LOOKUP.format(before=before, check=check) + DATA


def ask(source, **options):
    options.setdefault("calls", [(OUT_OF_BOUNDS,)])
    return leaks(source, "secret", b"\x05", b"\x2a", function="victim", **options)


def test_a_bounds_check_bypass_leaks():
    report = ask(lookup())
    assert report
    assert [touch.line_name for touch in report.only_first] == ["probe+0x140"]
    assert [touch.line_name for touch in report.only_second] == ["probe+0xa80"]
    assert report.causes == {("v1",)}
    assert report.only_first[0].instruction_name.startswith("victim+")
    assert not report.architectural
    assert "probe+0x140" in str(report)


@pytest.mark.parametrize(
    ("before", "check"),
    [("", "lfence"), ("", "and rdi, 15"), ("", "cmp rdi, [rip + size]\nsbb rsi, rsi\nand rdi, rsi")],
    ids=["lfence", "mask", "array_index_nospec"],
)
def test_the_known_remedies_leak_nothing(before, check):
    report = ask(lookup(before, check))
    assert not report
    assert report.windows[0]
    assert "no transient access" in str(report)


def test_a_cpu_without_the_flaw_leaks_nothing():
    assert not ask(lookup(), flaw="v4")
    assert not ask(lookup(), cpu="in-order", flaw=())


def test_constant_time_code_leaks_nothing():
    source = (
        """
victim:
    lea rcx, [rip + secret]
    xor eax, eax
    xor edx, edx
again:
    movzx esi, byte ptr [rcx + rdx]
    xor esi, edi
    or eax, esi
    inc edx
    cmp edx, 16
    jb again
    ret
"""
        + DATA
    )
    report = ask(source, calls=[(7,)])
    assert not report
    assert not report.architectural


def test_an_architectural_leak_is_told_apart():
    source = (
        """
victim:
    movzx eax, byte ptr [rip + secret]
    shl eax, 6
    lea rdx, [rip + probe]
    movzx eax, byte ptr [rdx + rax]
    ret
"""
        + DATA
    )
    report = ask(source)
    assert not report
    assert len(report.architectural) == 2
    assert "architectural" in str(report)


def test_the_cpu_as_it_is_is_asked_with_training():
    source = lookup()
    trained = [(index,) for index in range(8)] * 2
    flush = ["size"]
    assert ask(source, contract="predictors", calls=[*trained, (OUT_OF_BOUNDS,)], flush=flush)
    assert not ask(lookup("", "lfence"), contract="predictors", calls=[*trained, (OUT_OF_BOUNDS,)], flush=flush)


def test_the_same_question_has_the_same_answer():
    assert ask(lookup()) == ask(lookup())


def test_bytes_are_passed_by_pointer():
    source = (
        """
victim:
    mov rax, [rdi]
    cmp rax, [rsi]
    jne out
    movzx eax, byte ptr [rip + secret]
    shl eax, 6
    lea rdx, [rip + probe]
    movzx eax, byte ptr [rdx + rax]
out:
    ret
"""
        + DATA
    )
    assert ask(source, calls=[(b"one", b"two")])
    assert ask(source, calls=[(b"one", "array")])


C_SOURCE = r"""
#include <stdint.h>
#include <string.h>
unsigned size = 16;
uint8_t array[16] __attribute__((aligned(64)));
uint8_t secret[64] __attribute__((aligned(64)));
uint8_t probe[256 * 64] __attribute__((aligned(4096)));
__attribute__((noinline)) int victim(unsigned long index)
{
    if (index < size)
        return probe[array[index] * 64];
    return 0;
}
int same(const uint8_t *guess)
{
    uint8_t different = 0;
    for (int i = 0; i < 16; i++)
        different |= guess[i] ^ secret[i];
    return !different;
}
int main(int argc, char **argv)
{
    char text[32];
    memset(text, argc, sizeof text);
    return victim(argc) + same((uint8_t *)text);
}
"""


@pytest.fixture(scope="module")
def c_program(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not here")
    path = tmp_path_factory.mktemp("leaks") / "victim.c"
    path.write_text(C_SOURCE)
    return str(path)


def test_a_function_of_a_c_program(c_program):
    subject = Subject(c_program, "victim")
    distance = subject.address("secret") - subject.address("array")
    subject = Subject(c_program, "victim", [(distance,)])
    report = leaks(subject, "secret", b"A", b"B")
    assert [touch.line_name for touch in report.only_first] == ["probe+0x1040"]
    assert report.causes == {("v1",)}
    assert not leaks(c_program, "secret", b"A", b"B", function="same", calls=[(b"0123456789abcdef",)])


def test_a_whole_program():
    start = f"_start:\nmov edi, {OUT_OF_BOUNDS}\ncall victim\nmov edi, 0\nmov eax, 60\nsyscall\n"
    assert leaks(start + lookup(), "secret", b"A", b"B")
    assert not leaks(start + lookup("", "lfence"), "secret", b"A", b"B")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contract": "best"}, "unknown contract"),
        ({"function": "nobody"}, "no symbol 'nobody'"),
        ({"calls": [range(7)]}, "at most 6 arguments"),
        ({"flaw": "v9"}, "unknown flaw"),
    ],
)
def test_bad_questions(options, message):
    with pytest.raises(UsageError, match=message):
        leaks(lookup(), "secret", b"a", b"b", **{"function": "victim", **options})


def test_secrets_of_one_length():
    with pytest.raises(UsageError, match="one length"):
        leaks(lookup(), "secret", b"a", b"bb", function="victim")
    with pytest.raises(UsageError, match="no such file"):
        leaks("/nowhere", "secret", b"a", b"b")
    with pytest.raises(BadImage):
        leaks(b"\x7fELF", "secret", b"a", b"b")
