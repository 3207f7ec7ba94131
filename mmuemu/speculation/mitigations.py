"""Mitigations by name: what each needs of a processor, and which ones Linux picks for it by itself.

The rules are those of Linux 6.1, arch/x86/kernel/cpu/bugs.c, on a machine of one logical processor (no SMT) without
virtual machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from mmuemu.errors import UsageError
from mmuemu.speculation.catalogue import shown_features
from mmuemu.speculation.models import CpuSpec

MITIGATIONS: Final[dict[str, str]] = {
    "kpti": "ring 3 runs on page tables without the kernel (Linux: PTI)",
    "retpoline": "the kernel's indirect branches become returns, which the return stack predicts",
    "ibrs": "in ring 0 no target trained in ring 3 is predicted (SPEC_CTRL.IBRS, set at each entry)",
    "eibrs": "targets are predicted in the ring they were trained in only (IBRS that stays on)",
    "ibpb": "target predictions are forgotten at each switch to another process (PRED_CMD.IBPB)",
    "stibp": "targets trained by another process are not predicted (SPEC_CTRL.STIBP)",
    "rsb-fill": "the return stack is filled with harmless entries at each switch",
    "ssbd": "no load passes a store of unknown address (SPEC_CTRL.SSBD)",
    "pte-inversion": "an entry that is not present holds a frame number outside of memory",
    "l1d-flush": "the L1 data cache is emptied before other code may look (FLUSH_CMD)",
    "verw": "VERW overwrites the leaky buffers on the way to ring 3",
    "lfence": "LFENCE after the bounds check of the kernel's vulnerable system call",
    "nospec": "array_index_nospec clamps the index in the kernel's vulnerable system call",
    "smap": "ring 0 cannot read user pages but where it means to (CR4.SMAP)",
    "eager-fpu": "the FPU's registers are switched with the process, not at its first use",
}
"""Every mitigation, with what it does."""
ON_REQUEST: Final[dict[str, str]] = {
    "ssbd": "PR_SPEC_STORE_BYPASS",
    "ibpb": "PR_SPEC_INDIRECT_BRANCH",
    "l1d-flush": "PR_SPEC_L1D_FLUSH",
}
"""Those that ``NAME=prctl`` leaves to the programs -> what of prctl(PR_SET_SPECULATION_CTRL) turns them on."""
WORDS: Final = ("off", "auto")


def _offers(name: str) -> Callable[[CpuSpec], bool]:
    return lambda spec: name in spec.microcode


_NEEDS: Final[dict[str, tuple[Callable[[CpuSpec], bool], str]]] = {
    "retpoline": (
        lambda spec: spec.btb_entries > 0 and spec.speculates,
        "a retpoline keeps branches from the branch target buffer, and {name} has none",
    ),
    "ibrs": (_offers("ibrs"), "the microcode of {name} has no IBRS (it offers {microcode})"),
    "eibrs": (
        lambda spec: "ibrs" in spec.microcode and "ibrs_all" in spec.capabilities,
        "{name} has no enhanced IBRS (IBRS_ALL of IA32_ARCH_CAPABILITIES is 0)",
    ),
    "ibpb": (_offers("ibpb"), "the microcode of {name} has no IBPB (it offers {microcode})"),
    "stibp": (_offers("stibp"), "the microcode of {name} has no STIBP (it offers {microcode})"),
    "rsb-fill": (
        lambda spec: spec.rsb_entries > 0 and spec.speculates,
        "{name} has no return stack buffer to fill",
    ),
    "ssbd": (_offers("ssbd"), "the microcode of {name} has no SSBD (it offers {microcode})"),
    "l1d-flush": (_offers("l1d_flush"), "the microcode of {name} has no L1D_FLUSH (it offers {microcode})"),
    "verw": (_offers("md_clear"), "VERW of {name} overwrites no buffers (its microcode has no MD_CLEAR)"),
    "smap": (lambda spec: "smap" in shown_features(spec), "{name} has no SMAP"),
}
"""What a mitigation needs of the processor, and how to say that it is missing."""


@dataclass(frozen=True, slots=True)
class Mitigations:
    """What is in force: ``names`` always, ``on_request`` for the processes that ask by prctl."""

    names: frozenset[str] = frozenset()
    on_request: frozenset[str] = frozenset()

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __str__(self) -> str:
        shown = [name if name in self.names else f"{name}=prctl" for name in MITIGATIONS if self.level(name)]
        return ",".join(shown) or "off"

    def level(self, name: str) -> str:
        """``"always"``, ``"prctl"`` or, when it is off, the empty text."""
        return "always" if name in self.names else "prctl" if name in self.on_request else ""

    def also(self, *names: str) -> Mitigations:
        """With further ones always in force."""
        return Mitigations(self.names | set(names), self.on_request - set(names))


OFF: Final = Mitigations()


def impossible(spec: CpuSpec, name: str) -> str:
    """Why ``spec`` cannot have the mitigation ``name``; empty when it can."""
    possible, why = _NEEDS.get(name, (None, ""))
    if possible is None or possible(spec):
        return ""
    return why.format(name=spec.name, microcode=", ".join(spec.microcode) or "nothing")


def automatic(spec: CpuSpec, flaws: frozenset[str]) -> Mitigations:
    """What Linux picks without being told (``mitigations=auto``) for ``spec`` with ``flaws``."""
    names, on_request = {"eager-fpu"}, set()
    if "smap" in shown_features(spec):
        names.add("smap")
    if "v1" in flaws:
        names.add("nospec")
    if "meltdown" in flaws:
        names.add("kpti")
    if flaws & {"v2", "rsb"}:
        # spectre_v2_select_mitigation; without SMT no STIBP (spectre_v2_user_select_mitigation).
        names.add(_branch_mode(spec, flaws))
        names.add("rsb-fill")
        on_request.add("ibpb")
    if "v4" in flaws:
        on_request.add("ssbd")
    if "l1tf" in flaws:
        names.add("pte-inversion")
    if flaws & {"mfbds", "msbds", "mlpds"}:
        names.add("verw")
    return Mitigations(
        frozenset(name for name in names if not impossible(spec, name)),
        frozenset(name for name in on_request if not impossible(spec, name)),
    )


def returns_ask_the_btb(spec: CpuSpec, flaws: frozenset[str]) -> bool:
    """Whether a return can be sent where the branch target buffer says (Retbleed, as Intel's processors have it)."""
    return spec.rsb_underflow == "btb" and flaws >= {"v2", "rsb"}


def _branch_mode(spec: CpuSpec, flaws: frozenset[str]) -> str:
    if not impossible(spec, "eibrs"):
        return "eibrs"
    if returns_ask_the_btb(spec, flaws) and not impossible(spec, "ibrs"):
        return "ibrs"
    return "retpoline"


def parse_mitigations(text: str, spec: CpuSpec, flaws: frozenset[str], option: str = "--mitigations") -> Mitigations:
    """What ``text`` (``off``, ``auto``, or names separated by commas, ``auto`` among them) puts in force.

    Raises UsageError for unknown names, and for what this processor cannot do or what excludes each other.
    """
    words = [word.strip() for word in text.split(",")]
    if words == ["off"] or words == [""]:
        return OFF
    if "off" in words:
        raise UsageError(f"{option} {text}: off means none of them: give it alone")
    names: set[str] = set()
    on_request: set[str] = set()
    for word in words:
        name, _, how = word.partition("=")
        if word == "auto":
            picked = automatic(spec, flaws)
            names |= picked.names
            on_request |= picked.on_request
        elif how == "prctl" and name in ON_REQUEST:
            on_request.add(_possible(spec, name, option))
        elif word in MITIGATIONS:
            names.add(_possible(spec, word, option))
        else:
            raise UsageError(f"{option}: unknown mitigation {word!r}: choose from {', '.join(_choices())}")
    if names >= {"ibrs", "eibrs"}:
        raise UsageError(f"{option}: ibrs and eibrs are the same bit: set at each entry, or once for all; choose one")
    return Mitigations(frozenset(names), frozenset(on_request - names))


def _possible(spec: CpuSpec, name: str, option: str) -> str:
    why = impossible(spec, name)
    if why:
        raise UsageError(f"{option} {name}: {why}")
    return name


def _choices() -> Iterable[str]:
    return [*WORDS, *MITIGATIONS, *(f"{name}=prctl" for name in ON_REQUEST)]
