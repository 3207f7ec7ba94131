"""What is told of an attack: causes, reasons, ranges of latencies, tables; output of attacks that is broken."""

from __future__ import annotations

import io
import pickle
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from mmuemu.guest.attacks.output import Told, read_told
from mmuemu.view.demonstration import ARCHITECTURAL, Demonstration, cause_of
from mmuemu.view.demonstration_html import page
from mmuemu.view.demonstration_matrix import Cell, as_texts
from mmuemu.view.demonstration_matrix import draw as draw_matrix
from mmuemu.view.demonstration_text import buckets, draw, verdict


def shown(**more: object) -> Demonstration:
    told = more.pop("told", Told(who="nobody", leaked=b"ab", sure=b"\1\1", tries=2, threshold=100, flushed=230))
    fields: dict[str, object] = {
        "attack": "v1", "cpu": "skylake", "mitigations": "off", "flaws": ("v1",), "seed": 1, "noise": None, "size": 2,
        "secret": b"ab", "told": told, "budget": 1000, "fills": Counter({("v1",): 2}), "cycles": 1000, "seconds": 0.5,
    }  # fmt: skip
    return Demonstration(**{**fields, **more})  # type: ignore[arg-type]


def drawn(what: Demonstration, width: int) -> str:
    out = io.StringIO()
    draw(what, Console(file=out, width=width, highlight=False))
    return out.getvalue()


@pytest.mark.parametrize(
    ("chain", "cause"),
    [
        (("v1",), "v1"),
        (("v2", "v1"), "v2"),
        (("v1", "meltdown"), "meltdown"),
        (("rsb", "mfbds", "v1"), "mfbds"),
        ((), ARCHITECTURAL),
    ],
)
def test_the_root_of_a_chain_is_what_forwarded_the_data_or_what_began(chain, cause):
    assert cause_of(chain) == cause


def test_figures_count_right_bytes_only():
    half = shown(told=Told(leaked=b"ax", sure=b"\1\1"))
    assert (half.accuracy, half.believed, half.exit_code) == (0.5, 2, 1)
    assert (half.bytes_per_second, half.cycles_per_byte) == (2.0, 1000.0)
    assert verdict(half) == "1 of 2 bytes leaked"
    unsure = shown(told=Told(leaked=b"ab", sure=b"\0\1"))
    assert unsure.right == [False, True]


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({}, ""),
        ({"told": Told(), "exhausted": True}, "the budget of 1,000 instructions is spent"),
        ({"told": Told(), "guest_exit": 3}, "the attack ended with exit code 3"),
        ({"told": Told(threshold=1), "flaws": ()}, "skylake does not have v1 here"),
        ({"told": Told(notes=["no keys here"])}, "no keys here"),
        ({"told": Told(threshold=1), "attack": "v1-kernel", "mitigations": "kpti,lfence"}, "stopped by lfence"),
        ({"told": Told(threshold=1), "attack": "v1-mask"}, "as it should be: the victim is hardened"),
        ({"told": Told()}, "the clock tells cached lines from flushed ones by nothing"),
        ({"told": Told(threshold=1, tries=7)}, "no value led in 7 attempts"),
        (
            {"told": Told(leaked=b"xx", sure=b"\1\1"), "misled": Counter({("mfbds",): 1})},
            "what the attack believes is not the secret, and came by mfbds",
        ),
        (
            {"told": Told(notes=["open(x) = -14", "gone = -99999"], faults=2), "attack": "plain-read"},
            "refused: open(x) = -EFAULT, SIGSEGV (2 times)",
        ),
    ],
)
def test_a_reason_for_every_end(more, reason):
    assert shown(**more).reason == reason


@given(st.dictionaries(st.integers(0, 1023), st.integers(1, 5000)), st.integers(0, 300), st.integers(0, 600))
def test_ranges_hold_every_latency_once_and_part_at_the_threshold(histogram, threshold, flushed):
    what = shown(told=Told(histogram=histogram, threshold=threshold, flushed=flushed))
    ranges = buckets(what)
    assert sum(count for *_, count in ranges) == sum(histogram.values())
    for least, greatest, count in ranges:
        assert count == sum(number for cycles, number in histogram.items() if least <= cycles <= greatest)
    assert all(left[1] < right[0] for left, right in pairwise(ranges))
    if flushed >= threshold:
        assert not any(least < threshold <= greatest for least, greatest, _ in ranges)
    assert len(ranges) <= 18


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_output_of_a_guest_is_read_and_shown(output):
    prefixes = (b"leaked ", b"sure ", b"hist ", b"probes ", b"who ", b"note ", b"threshold ", b"")
    for told in (read_told(prefix + output) for prefix in prefixes):
        what = shown(told=told)
        assert drawn(what, 60).startswith("v1: ")
        assert "<script" not in page(what)
        assert what.as_json()["exit_code"] in (0, 1)


def test_no_colour_where_none_is_wanted_and_narrow_terminals():
    text = drawn(
        shown(told=Told(leaked=b"ab", sure=b"\1\1", histogram={30: 2, 230: 500}, threshold=100, flushed=230)), 40
    )
    assert "\x1b" not in text
    assert [line.split()[0] for line in text.splitlines() if "█" in line] != []


def test_a_result_crosses_processes():
    what = shown()
    assert pickle.loads(pickle.dumps(what)).as_json() == what.as_json()


def test_a_matrix_is_split_where_the_terminal_is_narrow():
    cells = [Cell("By CPU", attack, cpu, shown()) for attack in ("v1", "v2") for cpu in ("skylake", "zen2", "icelake")]
    cells.append(Cell("By CPU", "v1", "in-order", "it cannot"))
    out = io.StringIO()
    draw_matrix(cells, Console(file=out, width=32, highlight=False))
    text = out.getvalue()
    assert text.count("attack ") == 2
    assert "icelake" in text
    assert text.count("100% v1") == 6
    assert "n/a it cannot: v1" in text
    assert max(map(len, text.splitlines())) <= 32
    assert as_texts(cells) == [
        (
            "By CPU",
            [
                ["attack", "skylake", "zen2", "icelake", "in-order"],
                ["v1", "100% v1", "100% v1", "100% v1", "n/a"],
                ["v2", "100% v1", "100% v1", "100% v1", ""],
            ],
        )
    ]
