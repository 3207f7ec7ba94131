"""What the test kernels print, as a PC must have it; QEMU 7.2 prints the same but for what is named here."""

from __future__ import annotations

LONG64 = """\
multiboot, long mode
vector 3 error 0 ring 0
vector 6 error 0 ring 0 on ist rf
vector 0 error 0 ring 0 rf
vector 14 error 0 ring 0 cr2 140000123 rf
vector 14 error 2 ring 0 cr2 140000123 rf
vector 14 error 3 ring 0 cr2 a00040 rf
vector 13 error 48 ring 0 rf
steps 5
syscall 1 with 21
int 80 with 42 on rsp0
vector 3 error 0 ring 3 on rsp0
vector 13 error 0 ring 3 on rsp0 rf
vector 13 error 10a ring 3 on rsp0 rf
vector 14 error 7 ring 3 cr2 800040 on rsp0 rf
vector 14 error 5 ring 3 cr2 800044 on rsp0 rf
vector 14 error 15 ring 3 cr2 800048 on rsp0 rf
vector 6 error 0 ring 3 on ist rf
"""
"""The status is 0x43, which came back from ``int 0x80``."""


def as_qemu_says(text: str) -> str:
    """QEMU's two departures from the SDM: no RF in the flags it saves for a fault (volume 3, 18.3.1.1), and an error
    code of vector * 16 + 2 where a gate refuses ``int n`` (6.13 says vector * 8 + 2)."""
    return text.replace(" rf\n", "\n").replace("error 10a", "error 212")


TIMER = "".join(f"tick {n}\n" for n in range(1, 11)) + "masked\nothers 0\n"

INTERPROCESSOR = """\
self-ipi ok
held by tpr ok
released by tpr ok
in service ok
held by service ok
released by eoi ok
"""
APIC = (
    """\
apic base ok
version ok
calibrated ok
ten ticks in ten milliseconds ok
"""
    + INTERPROCESSOR
)
X2APIC = APIC + "x2apic\n" + INTERPROCESSOR
"""Where CPUID shows an x2APIC."""

ECHO_IN = b"Hello there\nabc\x04never seen"
ECHO = "ready\nHELLO THERE\nABC\ncharacters 15\n"

WILD = "".join(f"at {place} {{0}}\n" for place in ("d0000000", "e0001234", "fd000000", "fef00002"))
WILD += "witness 12345678\n"


def wild(reads: str) -> str:
    """``reads``: what four, two and one byte read where nothing is (all ones; QEMU says 0)."""
    return WILD.format(reads)


def flood() -> bytes:
    """2 MiB in 32,768 lines."""
    rows = [bytes(ord("a") + (line + i) % 26 for i in range(8, 63)) for line in range(26)]
    return b"".join(b"%08x%s\n" % (line, rows[line % 26]) for line in range(4096))


STATUS = {"hello32": 16, "long64": 0x43, "timer": 10, "timer32": 10, "apic": 0, "flood": 3, "echo": 4, "wild": 5}
"""What each kernel writes to the debug-exit port; the exit status is ``value << 1 | 1``."""


def exit_code(kernel: str) -> int:
    """The exit status of the machine after ``kernel``'s own end."""
    return (STATUS[kernel] << 1 | 1) & 0xFF
