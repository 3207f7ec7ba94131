"""Transient windows of every shape that the schema allows, however senseless."""

from __future__ import annotations

from hypothesis import strategies as st

from mmuemu.speculation.flaws import FLAWS
from mmuemu.speculation.trace import NEVER, Fill, Step, Window
from mmuemu.view.transient_file import Header, Traced

ADDRESSES = st.one_of(st.integers(0, 2**64 - 1), st.integers(0x401000, 0x401010))
CYCLES = st.one_of(st.integers(0, 400), st.integers(0, NEVER - 1))
TIMES = st.one_of(CYCLES, st.just(NEVER))
TEXTS = st.text(max_size=12)
CAUSES = st.lists(st.one_of(st.sampled_from(sorted(FLAWS)), TEXTS), max_size=3).map(tuple)
SEVERAL = st.lists(ADDRESSES, max_size=4).map(tuple)
STEPS = st.builds(
    Step,
    address=ADDRESSES,
    code=st.binary(max_size=15),
    start=TIMES,
    done=TIMES,
    waits_for=SEVERAL,
    note=st.one_of(TEXTS, st.sampled_from(["load L1 0x0", "forwarded meltdown", "nested v1"])),
    linear=st.one_of(st.none(), ADDRESSES),
    level=st.integers(0, 5),
)
FILLS = st.builds(
    Fill,
    line=ADDRESSES,
    linear=ADDRESSES,
    address=ADDRESSES,
    level=st.integers(0, 5),
    cycle=CYCLES,
    arrives=TIMES,
    causes=CAUSES,
)
WINDOWS = st.builds(
    Window,
    number=st.integers(0, 2**32),
    flaw=st.one_of(st.sampled_from([*sorted(FLAWS), "fault"]), TEXTS),
    opener=ADDRESSES,
    start=ADDRESSES,
    resumed=ADDRESSES,
    context=st.integers(0, 2**31),
    ring=st.integers(0, 3),
    opened=CYCLES,
    closes=CYCLES,
    reason=st.one_of(st.sampled_from(["resolved", "lfence", "reorder buffer full"]), TEXTS),
    waited_for=SEVERAL,
    before=st.lists(STEPS, max_size=3),
    steps=st.lists(STEPS, max_size=60),
    fills=st.lists(FILLS, max_size=6),
    nested=st.lists(st.tuples(ADDRESSES, TEXTS), max_size=3),
)
TRACED = st.builds(
    Traced,
    window=WINDOWS,
    symbols=st.dictionaries(ADDRESSES, TEXTS, max_size=6),
    code=st.dictionaries(ADDRESSES, st.binary(max_size=15), max_size=4),
)
HEADERS = st.builds(
    Header,
    cpu=TEXTS,
    mitigations=st.lists(TEXTS, max_size=3).map(tuple),
    flaws=st.lists(TEXTS, max_size=3).map(tuple),
    seed=st.one_of(st.none(), st.integers(-(2**63), 2**63)),
    program=TEXTS,
    arguments=st.lists(TEXTS, max_size=3).map(tuple),
    mmuemu=TEXTS,
)
