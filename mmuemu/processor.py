"""A machine's processor: what the speculation room decides, in the plain data that the kernel takes."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from mmuemu.errors import UsageError

if TYPE_CHECKING:
    from mmuemu.kernel.speculation_control import SpeculationControl
    from mmuemu.loader.layouts import Layout
    from mmuemu.speculation.mitigations import Mitigations
    from mmuemu.speculation.settings import Settings


def kernel_options(settings: Settings | None, layout: Layout, kpti: bool) -> dict[str, Any]:
    """The fields of :class:`mmuemu.kernel.options.Options` that follow from a CPU model, or from having none.

    Raises UsageError for a layout that the processor cannot have.
    """
    if settings is None:
        return {"kpti": kpti, "cpu_flags": ("pti",) if kpti else ()}
    from mmuemu.speculation import identity

    spec, flaws, mitigations, _ = settings
    model = identity.cpu_model(spec, flaws)
    if layout.levels == 5 and "la57" not in model.features:
        raise UsageError(f"layout {layout.name} has page tables of 5 levels, and CPU {spec.name} walks 4 (no la57)")
    bugs = identity.bugs(spec, flaws)
    return {
        "kpti": "kpti" in mitigations,
        "cpu_model": model,
        "cpu_flags": identity.kernel_flags(spec, mitigations),
        "bugs": bugs,
        "vulnerabilities": identity.vulnerabilities(spec, flaws, mitigations),
        "speculation_control": _control(mitigations, bugs),
        "mitigations": mitigations.names,
        "lazy_fpu": "meltdown-nm" in flaws and "eager-fpu" not in mitigations,
    }


def _control(mitigations: Mitigations, affected: Collection[str]) -> SpeculationControl:
    """What programs may say by prctl: store bypass, indirect branches (IBPB or STIBP), flushing the L1D."""
    from mmuemu.kernel.speculation_control import ALWAYS, SpeculationControl

    branches = mitigations.level("ibpb") or (ALWAYS if "stibp" in mitigations else "")
    return SpeculationControl(
        mitigations.level("ssbd") if "spec_store_bypass" in affected else None,
        branches if "spectre_v2" in affected else None,
        mitigations.level("l1d-flush"),
    )
