"""The picture of a transient window: in a terminal, as SVG, in words."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from mmuemu.speculation.trace import NEVER
from mmuemu.view.timeline import PLAIN_CYCLES, Scale, picture
from mmuemu.view.timeline_svg import svg
from mmuemu.view.timeline_text import MOST_WIDTH, draw
from mmuemu.view.transient import lines
from mmuemu.view.transient_rows import interest, path_of, rows_of
from tests.view import strategies, windows

RELAXED = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))

SPECTRE = """\
Window 12: v1 at victim+0x7
                                 cycle   0   4                        209    216
# instruction                    waits   ┬   ┬            ≈≈           ┬      ┬
1 cmp rdi, qword [array1_size]         ████████████████████████████████
2 jae victim+0x29                1       ═════════════════════════════════════│
3 movzx eax, byte [rdi + array1]         ████                                 │
4 shl eax, 0xc                   3       ····█                                │
5 cdqe                           4       ·····█                               │
6 mov al, byte [rax + array2]    5       ······◆░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░│  ◇
7 and byte [temp], al            6       ·····································│
6 ◆ array2+0x53000 from memory, asked for at 6, there at 218; cause: v1

· waits for its operands   █ runs   ░ began, no result in time
═ the opener is not decided   ◆ asks for a line   ◇ the line is there
│ the window closes   ≈ a stretch drawn shorter

"""
SPECTRE_WORDS = [
    "`jae victim+0x29` (victim+0x7) waited 216 cycles for array1_size, which came from memory. Meanwhile the CPU went "
    "where the pattern history table said, to victim+0x9.",
    "5 instructions ran that the program never gets to. 1 of them did nothing: its operands were not there in time. 1 "
    "began and had no result in time.",
    "`mov al, byte [rax + array2]` (victim+0x15) fetched the line of array2+0x53000 from memory; which line that is "
    "depends on what `movzx eax, byte [rdi + array1]` (victim+0x9) read at secret+0x1 (cause: v1).",
    "Then the branch was decided, and the prediction was wrong. Registers and memory are as if nothing had run; the "
    "program goes on at victim+0x29.",
    "But the line stays in the cache, where a clock finds it.",
    "v1: a conditional branch is predicted, and the wrong way runs (Spectre v1, v1.1; CVE-2017-5753, 2018-3693).",
]
SPECTRE_LINES = """\
window 12: v1 at victim+0x7 (jae victim+0x29), cycle 5210 for 216, ring 3, pid 1, 5 instructions, 1 fills (v1), \
closed: resolved
  waited for victim: cmp rdi, qword [array1_size]
       +0    4  victim+0x9: movzx eax, byte [rdi + array1]  [load L1 0x404131]
       +4    1  victim+0x10: shl eax, 0xc
       +5    1  victim+0x13: cdqe
       +6    -  victim+0x15: mov al, byte [rax + array2]  [load memory]
    never    -  victim+0x1b: and byte [temp], al
  fill array2+0x53000 (line 0x12180) from memory at +6 by victim+0x15, cause v1
  goes on at victim+0x29"""


def printed(shown, width, encoding="utf-8", **options):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace", write_through=True)
    draw(shown, Console(file=file, width=width, highlight=False, **options))
    return raw.getvalue().decode(encoding)


def stripped(text):
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def test_the_terminal_picture():
    out = stripped(printed(picture(windows.spectre_v1()), 82))
    assert out[: len(SPECTRE)] == SPECTRE
    assert " ".join(out[len(SPECTRE) :].split()) == " ".join(" ".join(SPECTRE_WORDS).split())


def test_the_words():
    assert picture(windows.spectre_v1()).words == SPECTRE_WORDS


def test_the_words_of_meltdown_name_the_load_as_the_source():
    words = " ".join(picture(windows.meltdown()).words)
    assert "`movzx eax, byte [rcx]` (probe_kernel) reads what only ring 0 may (U/S) and will fault" in words
    assert "takes effect only after 121 cycles" in words
    assert (
        "fetched the line of 0x7f0000053000 from memory; which line that is depends on what `movzx eax, byte [rcx]`"
        in words
    )
    assert "Then the fault was taken." in words


def test_the_words_of_a_window_without_anything():
    assert picture(windows.empty()).words == [
        "0x401300 waited 0 cycles. Meanwhile the CPU went where the return stack buffer said, to 0x401400.",
        "Nothing ran before the window closed.",
        "An LFENCE came, so nothing younger could start. Registers and memory are as if nothing had run; the program "
        "goes on at 0x401500.",
        "No line was moved: nothing is left that a clock could find.",
        "rsb: a return goes where the return stack buffer says (ret2spec, SpectreRSB; CVE-2018-15572).",
    ]


def test_a_trace_that_names_only_addresses_says_what_was_waited_for():
    traced = windows.spectre_v1()
    traced.window.before = []
    traced.code[0x401140] = windows.CMP
    assert "waited 216 cycles for `cmp rdi, qword [array1_size]` (victim)." in picture(traced).words[0]
    assert "1 cmp rdi, qword [array1_size]" in printed(picture(traced), 100)


def test_the_lines_of_a_trace():
    assert "\n".join(lines(windows.spectre_v1())) == SPECTRE_LINES


def test_without_utf_8_the_picture_is_ascii():
    out = printed(picture(windows.spectre_v1()), 90, "ascii")
    assert out.isascii()
    row = next(line for line in out.splitlines() if line.startswith("6 mov"))
    assert row.rstrip().endswith("o")
    assert "....*---" in row


def test_no_colour_means_no_escape(monkeypatch):
    shown = picture(windows.spectre_v1())
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = printed(shown, 90, force_terminal=True, color_system="truecolor")
    assert "\x1b[1;35m" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    plain = printed(shown, 90, force_terminal=True, color_system="truecolor")
    assert not any(f"\x1b[{style}m" in plain for style in ("35", "1;35", "36", "31", "33"))
    assert "\x1b" not in printed(shown, 90)


@pytest.mark.parametrize("width", [1, 60, 79, 100, 120, 200, 10**9])
def test_no_row_is_wider_than_asked(width):
    for make in (windows.spectre_v1, windows.meltdown, windows.long_window):
        rows = [line for line in printed(picture(make()), width).splitlines() if "│" in line]
        assert rows
        assert all(len(line) <= min(max(width, 60), MOST_WIDTH) for line in rows)


def test_a_long_window_shows_what_led_to_the_fill():
    shown = picture(windows.long_window())
    assert [row.kind for row in shown.rows] == ["before", "opener", "step", "gap", "step"]
    assert [row.number for row in shown.rows] == [1, 2, 3, 0, 200]
    assert shown.rows[4].waits == [2]
    assert (shown.hidden, shown.rows[3].text) == (196, "(196 instructions not shown)")
    assert "The reorder buffer was full" in shown.words[3]
    assert len(picture(windows.long_window(), None).rows) == 200


def test_in_a_loop_the_last_one_before_is_waited_for():
    traced = windows.spectre_v1()
    steps = traced.window.steps
    traced.window.steps = [*steps[:3], *steps[:4]]
    rows = rows_of(traced)
    assert [row.waits for row in rows] == [[], [0], [], [2], [3], [], [5], [6], [7]]
    assert path_of(rows, 8) == [5, 6, 7, 8]


def test_the_window_with_a_telling_fill_is_the_interesting_one():
    plain = windows.spectre_v1()
    plain.window.steps[3].code = bytes.fromhex("8a042580514000")  # mov al, [0x405180]
    plain.window.steps[3].waits_for = ()
    ordered = sorted([windows.spectre_v1(), windows.empty(), plain], key=interest)
    assert [one.window.number for one in ordered] == [1, 12, 12]
    assert ordered[2].window.steps[3].waits_for == (0x401153,)


def test_the_scale_keeps_order_and_shortens_what_is_empty():
    shown = picture(windows.spectre_v1())
    scale = Scale(shown, 100)
    assert scale.shortened == [(6, 209)]
    places = [scale(cycle) for cycle in range(-2, 219)]
    assert places == sorted(places)
    assert (places[0], round(places[-1], 6)) == (0, 100)
    assert scale(6) - scale(0) == pytest.approx(6 * (scale(218) - scale(217)))
    assert scale(209) - scale(6) < (scale(6) - scale(0)) / 6 * (209 - 6)
    assert scale(10**9) == scale(218)
    assert PLAIN_CYCLES > 6


def test_the_svg_holds_every_instruction_and_both_grounds():
    text = svg(picture(windows.spectre_v1()), "a < b & c")
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    words = [element.text for element in root.iter(f"{space}text")]
    for row in picture(windows.spectre_v1()).rows:
        assert row.text in words
    assert "a < b & c" in words
    assert "closes at 216" in words
    assert "array2+0x53000 from memory (v1)" in words
    assert "prefers-color-scheme: dark" in text
    assert "<script" not in text
    classes = [element.get("class") for element in root.iter() if element.get("class")]
    drawn = {name: classes.count(name) for name in ("open", "late", "fill", "arrives", "closes")}
    assert drawn == {
        "open": 2,
        "late": 2,
        "fill": 2,
        "arrives": 2,
        "closes": 2,
    }  # one in the picture, one in the legend
    assert classes.count("never") == 1
    assert classes.count("runs") == 5


def test_names_that_would_harm_are_made_harmless():
    traced = windows.spectre_v1()
    traced.symbols[0x404060] = "\x1b[2J<&\udc80\x00"
    traced.symbols[0x401149] = "\x1b]0;x\x07"
    out = printed(picture(traced), 120)
    assert "\x1b" not in out
    assert "?[2J<&??" in out
    ElementTree.fromstring(svg(picture(traced), "\x00\x1b"))
    assert "\x1b" not in "\n".join(lines(traced))


@RELAXED
@given(traced=strategies.TRACED, width=st.integers(1, 200), limit=st.one_of(st.none(), st.integers(1, 50)))
def test_whatever_a_trace_holds_can_be_drawn(traced, width, limit):
    shown = picture(traced, limit)
    assert all(row.start <= NEVER for row in shown.rows)
    out = printed(shown, width, "ascii" if width % 2 else "utf-8")
    assert "\x1b" not in out
    ElementTree.fromstring(svg(shown, "x"))
    assert "\n" not in "".join(lines(traced))
    interest(traced)
