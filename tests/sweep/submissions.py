"""Small submissions, as a course gets them: each prints a digit, and most print the right one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmuemu.sources import build

PRINT = """\
_start: mov eax, 1
 mov edi, 1
 lea rsi, [rip+text]
 mov edx, 2
 syscall
 {end}
.data
text: .ascii "{digit}\\n"
"""
ENDS = {
    "good": "mov eax, 60\n xor edi, edi\n syscall",
    "code": "mov eax, 60\n mov edi, 3\n syscall",
    "fault": "mov rax, [0]",
    "loop": "spin: jmp spin",
}
WRONG = {3: "digit", 5: "code", 8: "fault", 11: "loop", 15: "syntax"}
"""What is wrong with submission N; with the others nothing."""


def write(folder: Path, count: int) -> dict[str, bool]:
    """Make ``count`` of them, every fourth as an ELF file; which are right, by name."""
    right = {}
    for number in range(count):
        wrong = WRONG.get(number % 20)
        digit = "7" if wrong == "digit" else "4"
        text = PRINT.format(end=ENDS.get(wrong or "good", ENDS["good"]), digit=digit)
        path = folder / f"s{number:03}.s"
        path.write_text(text + ("\n mov rax\n" if wrong == "syntax" else f"\n# {number}\n"))
        if number % 4 == 2:
            image = build(str(path))
            path.unlink()
            path = path.with_suffix("")
            path.write_bytes(image + bytes([number % 256, number // 256]))
        right[path.name] = wrong is None
    return right


def matrix(path: Path, programs: list[dict[str, Any]] | None = None, **more: Any) -> str:
    """Write a matrix file; its path."""
    limits = {"max_instructions": 100_000}
    graded = [{"path": "s*", "expect": {"exit": 0, "stdout": "4\n"}, "points": 2}]
    path.write_text(json.dumps({"programs": programs or graded, "limits": limits, "jobs": 2, **more}))
    return str(path)
