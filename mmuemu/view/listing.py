"""Instructions as people read them: names in place of addresses, and nothing that a terminal or a picture chokes on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from mmuemu.cpu import decode
from mmuemu.errors import printable

_KEPT: Final = 4096
disassemble: Final = lru_cache(_KEPT)(decode.disassemble)
"""As :func:`mmuemu.cpu.decode.disassemble`; the same instructions come again and again."""
instruction_length: Final = lru_cache(_KEPT)(decode.instruction_length)
_RIP: Final = re.compile(r"rip( [+-] (?:0x[0-9a-f]+|\d+))?")
_SIZE: Final = re.compile(r"\b(x?y?z?m?m?[bdqt]?word|byte) ptr ")
_NUMBER: Final = re.compile(r"0x[0-9a-f]+")


@lru_cache(_KEPT)
def plain(code: bytes, address: int) -> str:
    """The instruction with addresses in numbers, rip-relative ones worked out; its bytes when it is none."""
    text = disassemble(code, address)
    if text is None:
        return f"({code[:8].hex(' ')})" if code else "(?)"
    if "rip" in text:
        end = address + instruction_length(code, address)
        text = _RIP.sub(lambda found: hex(end + int((found[1] or "0").replace(" ", ""), 0) & (1 << 64) - 1), text)
    return _SIZE.sub(r"\1 ", text) if "ptr" in text else text


@lru_cache(_KEPT)
def references(code: bytes, address: int) -> tuple[int, ...]:
    """The numbers in an instruction that may be addresses."""
    return tuple(value for found in _NUMBER.findall(plain(code, address)) if (value := int(found, 16)) >= 0x1000)


def named(code: bytes, address: int, symbols: Mapping[int, str]) -> str:
    """The instruction with the names that ``symbols`` has."""

    def name(found: re.Match[str]) -> str:
        return symbols.get(int(found[0], 16), found[0])

    return printable(_NUMBER.sub(name, plain(code, address)))
