"""What a BIOS leaves in memory for a kernel to find: the BIOS data area, the MP table and the ACPI tables.

Sources: Intel MultiProcessor Specification 1.4, chapter 4; ACPI specification 6.5, 5.2.5 to 5.2.12 (RSDP, RSDT, XSDT,
FADT revision 1 fields, MADT) and 20.2 (the AML of ``_S5``); the IBM PC's BIOS data area at 0x400. They describe
:mod:`mmuemu.devices.platform`: one CPU, one I/O APIC, ISA interrupts, S5 by PM1a control, no PCI.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import pack
from typing import Final

from mmuemu.devices.acpi_pm import BASES, PM1_CNT, PM_TMR
from mmuemu.devices.apic_data import DEFAULT_BASE
from mmuemu.devices.ioapic import IOAPIC_BASE
from mmuemu.devices.pic import CASCADE, LINES
from mmuemu.devices.rtc import CENTURY
from mmuemu.devices.serial import COM1

BDA: Final = 0x400
BDA_COM1: Final = 0x400
BDA_EBDA: Final = 0x40E
BDA_MEMORY: Final = 0x413
EBDA: Final = 0x9_FC00
BASE_MEMORY_KIB: Final = EBDA >> 10
TABLES: Final = 0xF_0000
"""Where the MP and ACPI tables begin: in the area that both specifications have kernels search."""

SCI: Final = 9
PIT_GSI: Final = 2
OEM: Final = b"MMUEMU"
LEVEL_ACTIVE_HIGH: Final = 0x000D


def closed(table: bytes, at: int) -> bytes:
    """``table`` with the byte at ``at`` chosen so that all bytes add up to 0."""
    total = sum(table) - table[at]
    return table[:at] + bytes((-total & 0xFF,)) + table[at + 1 :]


def mp_configuration(signature: int, features: int) -> bytes:
    """The MP configuration table; ``signature`` and ``features`` are EAX and EDX of CPUID leaf 1."""
    entries = [
        pack("<BBBBIIQ", 0, 0, 0x14, 3, signature, features, 0),
        pack("<BB6s", 1, 0, b"ISA   "),
        pack("<BBBBI", 2, 0, 0x20, 1, IOAPIC_BASE),
    ]
    for line in range(LINES):
        if line != CASCADE:
            entries.append(pack("<BBHBBBB", 3, 0, 0, 0, line, 0, line or PIT_GSI))
    entries.append(pack("<BBHBBBB", 4, 3, 0, 0, 0, 0, 0))
    entries.append(pack("<BBHBBBB", 4, 1, 0, 0, 0, 0xFF, 1))
    body = b"".join(entries)
    header = pack(
        "<4sHBB8s12sIHHIHBB",
        *(
            b"PCMP",
            44 + len(body),
            4,
            0,
            OEM.ljust(8),
            b"PC".ljust(12),
            0,
            0,
            len(entries),
            DEFAULT_BASE,
            0,
            0,
            0,
        ),
    )
    return closed(header + body, 7)


def mp_table(base: int, signature: int = 0, features: int = 0) -> bytes:
    """The MP floating pointer, to be placed at ``base`` (a multiple of 16), and the table it points to behind it."""
    pointer = pack("<4sIBBB5x", b"_MP_", base + 16, 1, 4, 0)
    return closed(pointer, 10) + mp_configuration(signature, features)


def sdt(signature: bytes, revision: int, body: bytes) -> bytes:
    """A system description table: the common header and its body."""
    header = pack("<4sIBB6s8sI4sI", signature, 36 + len(body), revision, 0, OEM, OEM.ljust(8), 1, OEM[:4], 1)
    return closed(header + body, 9)


def dsdt() -> bytes:
    """A definition block with one object: ``Name (_S5, Package (4) {0, 0, 0, 0})``."""
    return sdt(b"DSDT", 1, b"\x08_S5_\x12\x06\x04" + bytes(4))


def fadt(facs_at: int, dsdt_at: int) -> bytes:
    """The fixed description: ACPI is always on (no SMI command), the PM registers of the platform, 24-bit timer."""
    pm = BASES[0]
    body = pack("<IIBBHI4B", facs_at, dsdt_at, 1, 0, SCI, 0, 0, 0, 0, 0)
    body += pack("<8I", pm, 0, pm + PM1_CNT, 0, 0, pm + PM_TMR, 0, 0)
    body += pack("<8B4H5B", 4, 2, 0, 4, 0, 0, 0, 0, 0xFFF, 0xFFF, 0, 0, 0, 0, 0, 0, CENTURY)
    # WBINVD works; no power or sleep button and no RTC wake-up among the fixed hardware.
    return sdt(b"FACP", 1, body + pack("<HBI", 0, 0, 1 << 0 | 1 << 4 | 1 << 5 | 1 << 6))


def madt() -> bytes:
    """The interrupt controllers: one CPU, one I/O APIC, IRQ 0 on input 2, NMI on LINT1, and the 8259s."""
    body = pack("<II", DEFAULT_BASE, 1)
    body += pack("<BBBBI", 0, 8, 0, 0, 1)
    body += pack("<BBBBII", 1, 12, 0, 0, IOAPIC_BASE, 0)
    body += pack("<BBBBIH", 2, 10, 0, 0, PIT_GSI, 0)
    body += pack("<BBBBIH", 2, 10, 0, SCI, SCI, LEVEL_ACTIVE_HIGH)
    body += pack("<BBBHB", 4, 6, 0xFF, 0, 1)
    return sdt(b"APIC", 1, body)


def acpi_tables(base: int) -> bytes:
    """RSDP at ``base`` (a multiple of 16), and behind it RSDT, XSDT, FADT, MADT, DSDT and FACS."""
    blob = bytearray(48)

    def place(table: bytes, align: int = 16) -> int:
        blob.extend(bytes(-(base + len(blob)) % align))
        blob.extend(table)
        return base + len(blob) - len(table)

    facs_at = place(pack("<4sI56x", b"FACS", 64), 64)
    roots = (place(fadt(facs_at, place(dsdt()))), place(madt()))
    rsdt_at = place(sdt(b"RSDT", 1, pack("<2I", *roots)))
    xsdt_at = place(sdt(b"XSDT", 1, pack("<2Q", *roots)))
    rsdp = closed(pack("<8sB6sBI", b"RSD PTR ", 0, OEM, 2, rsdt_at), 8)
    blob[:36] = closed(rsdp + pack("<IQB3x", 36, xsdt_at, 0), 32)
    return bytes(blob)


def firmware_memory(signature: int = 0, features: int = 0) -> Iterator[tuple[int, bytes]]:
    """Everything a BIOS would have left: pairs of (physical address, bytes) to be written before the kernel starts.

    The top of base memory, and so the memory map a loader reports, is :data:`EBDA`; 0xf0000 to 0xfffff is taken.
    ``signature`` and ``features`` are EAX and EDX of CPUID leaf 1.
    """
    yield BDA_COM1, pack("<H", COM1)
    yield BDA_EBDA, pack("<H", EBDA >> 4)
    yield BDA_MEMORY, pack("<H", BASE_MEMORY_KIB)
    yield EBDA, b"\x01"
    mp = mp_table(TABLES, signature, features)
    yield TABLES, mp
    yield TABLES + 0x1000, acpi_tables(TABLES + 0x1000)
