"""Transient windows made by hand, with the times that a Skylake-like CPU would give them."""

from __future__ import annotations

from mmuemu.speculation.trace import NEVER, Fill, Step, Window
from mmuemu.view.transient_file import Header, Traced

HEADER = Header(
    cpu="skylake", mitigations=("lfence",), flaws=("meltdown", "v1"), seed=7, program="/tmp/spectre",
    arguments=("spectre",), mmuemu="0.1.0",
)  # fmt: skip
CMP = bytes.fromhex("483b3df92e0000")
JAE = bytes.fromhex("7320")


def spectre_v1() -> Traced:
    """``if (x < array1_size) temp &= array2[array1[x] * 4096]`` with array1_size flushed, as gcc -O1 has it."""
    window = Window(
        number=12, flaw="v1", opener=0x401147, start=0x401149, resumed=0x401169, context=1, ring=3, opened=5210,
        closes=5426, reason="resolved", waited_for=(0x401140,),
    )  # fmt: skip
    window.before = [Step(0x401140, CMP, 5208, 5419, (), "load memory 0x404040", linear=0x404040, level=4)]
    window.steps = [
        Step(0x401149, bytes.fromhex("0fb68760404000"), 5210, 5214, (), "load L1 0x404131", linear=0x404131, level=1),
        Step(0x401150, bytes.fromhex("c1e00c"), 5214, 5215, (0x401149,)),
        Step(0x401153, bytes.fromhex("4898"), 5215, 5216, (0x401150,)),
        Step(0x401155, bytes.fromhex("8a8080514000"), 5216, NEVER, (0x401153,), "load memory", 0x458180, 4),
        Step(0x40115B, bytes.fromhex("2005ef2e0000"), NEVER, NEVER, (0x401155,)),
    ]
    window.fills = [Fill(0x12180, 0x458180, 0x401155, 4, 5216, 5428, ("v1",))]
    symbols = {
        0x401140: "victim", 0x401147: "victim+0x7", 0x401149: "victim+0x9", 0x401150: "victim+0x10",
        0x401153: "victim+0x13", 0x401155: "victim+0x15", 0x40115B: "victim+0x1b", 0x401169: "victim+0x29",
        0x404040: "array1_size", 0x404050: "temp", 0x404060: "array1", 0x404131: "secret+0x1", 0x405180: "array2",
        0x458180: "array2+0x53000",
    }  # fmt: skip
    return Traced(window, symbols, {0x401147: JAE})


def meltdown() -> Traced:
    """A load of a kernel address that L1 holds, and the probe behind it."""
    window = Window(
        number=3, flaw="meltdown", opener=0x401200, start=0x401203, resumed=0x401200, context=1, ring=3, opened=900,
        closes=1021, reason="resolved",
    )  # fmt: skip
    window.steps = [
        Step(0x401203, bytes.fromhex("48c1e00c"), 904, 905, (0x401200,)),
        Step(0x401207, bytes.fromhex("488b1c03"), 905, NEVER, (0x401203,), "load memory", 0x7F0000053000, 4),
        Step(0x40120B, bytes.fromhex("4883c301"), NEVER, NEVER, (0x401207,)),
    ]
    window.fills = [Fill(0x55000, 0x7F0000053000, 0x401207, 4, 905, 1117, ("meltdown",))]
    symbols = {0x401200: "probe_kernel", 0x401203: "probe_kernel+0x3", 0x401207: "probe_kernel+0x7"}
    return Traced(window, symbols, {0x401200: bytes.fromhex("0fb601")})


def long_window() -> Traced:
    """A window of 200 instructions, of which two matter."""
    traced = spectre_v1()
    load, *_, probe, _ = traced.window.steps
    between = [Step(0x402000 + index, b"\x90", 5212 + index // 4, 5213 + index // 4) for index in range(196)]
    probe.waits_for = (load.address,)
    traced.window.steps = [load, *between, probe]
    traced.window.reason = "reorder buffer full"
    return traced


def empty() -> Traced:
    """A window in which nothing ran."""
    window = Window(
        number=1, flaw="rsb", opener=0x401300, start=0x401400, resumed=0x401500, context=2, ring=0, opened=10,
        closes=10, reason="lfence",
    )  # fmt: skip
    return Traced(window)
