"""The tables as kernels read them: found by search, checked by sum, parsed by the specifications' offsets."""

from __future__ import annotations

from struct import unpack_from

import pytest

from mmuemu.devices.firmware_tables import firmware_memory


@pytest.fixture(scope="module")
def memory():
    low = bytearray(1 << 20)
    for address, data in firmware_memory(0x806E9, 0x0FABFBFF):
        assert not any(low[address : address + len(data)])
        low[address : address + len(data)] = data
    return bytes(low)


def find(memory, signature, first, last):
    for address in range(first, last, 16):
        if memory.startswith(signature, address):
            return address
    raise AssertionError(f"no {signature}")


def test_bios_data_area(memory):
    assert unpack_from("<H", memory, 0x400) == (0x3F8,)
    assert unpack_from("<H", memory, 0x40E)[0] << 4 == unpack_from("<H", memory, 0x413)[0] << 10 == 0x9FC00


def test_mp_table_as_xv6_reads_it(memory):
    """xv6's mpsearch(), mpconfig() and mpinit()."""
    pointer = find(memory, b"_MP_", 0xF0000, 0x100000)
    assert sum(memory[pointer : pointer + 16]) & 0xFF == 0
    (at,) = unpack_from("<I", memory, pointer + 4)
    assert memory[pointer + 11] == 0
    assert memory[at : at + 4] == b"PCMP"
    (length,) = unpack_from("<H", memory, at + 4)
    assert memory[at + 6] == 4
    assert sum(memory[at : at + length]) & 0xFF == 0
    assert unpack_from("<I", memory, at + 36) == (0xFEE00000,)
    position, kinds, routes = at + 44, [], {}
    while position < at + length:
        kind = memory[position]
        kinds.append(kind)
        if kind == 0:
            assert unpack_from("<BBBII", memory, position + 1) == (0, 0x14, 3, 0x806E9, 0x0FABFBFF)
        elif kind == 2:
            assert (memory[position + 1], unpack_from("<I", memory, position + 4)[0]) == (0, 0xFEC00000)
        elif kind == 3:
            assert memory[position + 1 : position + 5] == bytes(4)
            assert memory[position + 6] == 0
            routes[memory[position + 5]] = memory[position + 7]
        elif kind == 4:
            pin = (memory[position + 1], memory[position + 6], memory[position + 7])
            assert pin in ((3, 0, 0), (1, 0xFF, 1))  # ExtINT for CPU 0, NMI for all
        position += 20 if kind == 0 else 8
    assert position == at + length
    assert len(kinds) == unpack_from("<H", memory, at + 34)[0]
    assert [kinds.count(kind) for kind in range(5)] == [1, 1, 1, 15, 2]
    assert routes == {line: line or 2 for line in range(16) if line != 2}


def tables(memory):
    """OSDev's way from the RSDP by both root tables; every checksum on the way."""
    rsdp = find(memory, b"RSD PTR ", 0xE0000, 0x100000)
    assert sum(memory[rsdp : rsdp + 20]) & 0xFF == 0
    assert sum(memory[rsdp : rsdp + 36]) & 0xFF == 0
    assert memory[rsdp + 15] == 2
    rsdt, length, xsdt = unpack_from("<IIQ", memory, rsdp + 16)
    assert length == 36
    roots = []
    for at, size, code in ((rsdt, 4, "I"), (xsdt, 8, "Q")):
        (whole,) = unpack_from("<I", memory, at + 4)
        assert sum(memory[at : at + whole]) & 0xFF == 0
        roots.append(unpack_from(f"<{(whole - 36) // size}{code}", memory, at + 36))
    assert roots[0] == roots[1]
    found = {}
    for at in roots[0]:
        (whole,) = unpack_from("<I", memory, at + 4)
        assert sum(memory[at : at + whole]) & 0xFF == 0
        found[memory[at : at + 4]] = memory[at : at + whole]
    return found


def test_madt_describes_the_platform(memory):
    madt = tables(memory)[b"APIC"]
    assert unpack_from("<II", madt, 36) == (0xFEE00000, 1)
    position, entries = 44, []
    while position < len(madt):
        entries.append(madt[position : position + madt[position + 1]])
        position += madt[position + 1]
    assert position == len(madt)
    assert [entry[0] for entry in entries] == [0, 1, 2, 2, 4]
    assert unpack_from("<BBI", entries[0], 2) == (0, 0, 1)
    assert unpack_from("<BBII", entries[1], 2) == (0, 0, 0xFEC00000, 0)
    assert unpack_from("<BBIH", entries[2], 2) == (0, 0, 2, 0)
    assert unpack_from("<BHB", entries[4], 2) == (0xFF, 0, 1)


def test_fadt_and_the_way_to_shutdown(memory, pc):
    """The shutdown that hobby kernels have: PM1a_CNT from the FADT, SLP_TYPa from the bytes after _S5_ in the DSDT."""
    fadt = tables(memory)[b"FACP"]
    assert len(fadt) == 116
    facs, dsdt = unpack_from("<II", fadt, 36)
    assert (facs % 64, memory[facs : facs + 4], unpack_from("<I", memory, facs + 4)) == (0, b"FACS", (64,))
    assert unpack_from("<H", fadt, 46) == (9,)
    assert unpack_from("<I", fadt, 48) == (0,)  # no SMI command: ACPI is on
    event, _, control, _, _, timer = unpack_from("<6I", fadt, 56)
    assert (event, control, timer, fadt[88], fadt[89], fadt[91], fadt[108]) == (
        0x600,
        0x604,
        0x608,
        4,
        2,
        4,
        0x32,
    )
    assert unpack_from("<4H", fadt, 96) == (0xFFF, 0xFFF, 0, 0)  # no C2, no C3
    assert unpack_from("<I", fadt, 112) == (0b1110001,)
    (length,) = unpack_from("<I", memory, dsdt + 4)
    block = memory[dsdt : dsdt + length]
    assert sum(block) & 0xFF == 0
    at = block.index(b"_S5_")
    assert block[at - 1] == 0x08
    assert block[at + 4] == 0x12
    at += 5
    at += (block[at] >> 6) + 2
    pc.outw(control, block[at] << 10 | 1 << 13)
    assert pc.ending.kind == "shutdown"
