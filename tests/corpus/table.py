"""docs/compat.md, made of trials."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.corpus.case import Case
from tests.corpus.cases import GROUPS
from tests.corpus.trial import ENGINES, Trial, missing

PAGE = Path(__file__).resolve().parents[2] / "docs" / "compat.md"

_HEAD = """# What runs, and what does not

Each row is one case of `tests/corpus`: a program of Debian {debian}, unmodified, run on the host and under `mmuemu run`
in equal directories. "same" says that standard output, standard error, the exit code and all files left (names, modes,
contents, symbolic links) are the host's, for every seed tried ({seeds}) on that engine. CPU seconds are mmuemu's,
start-up included, the mean of the trials; the last column is their ratio to those of a program that does nothing
({nothing:.2f} s).

This page is made by

```sh
python -m tests.corpus --write
```

{same} of {tried} cases do the same on both engines.
"""


def page(cases: Sequence[Case], trials: Sequence[Trial]) -> str:
    """The text of docs/compat.md."""
    of: dict[str, list[Trial]] = {case.name: [] for case in cases}
    for trial in trials:
        of[trial.case.name].append(trial)
    nothing = _seconds([trial for trial in trials if trial.case.command == ["true"]]) or 1.0
    tried = [name for name, some in of.items() if some]
    same = sum(not any(trial.wrong for trial in of[name]) for name in tried)
    seeds = " ".join(str(seed) for seed in sorted({trial.seed for trial in trials}))
    text = _HEAD.format(debian=_debian(), seeds=seeds, nothing=nothing, same=same, tried=len(tried))
    for title, group in GROUPS.items():
        columns = " | ".join(f"`{engine}`" for engine in ENGINES)
        text += f"\n## {title}\n\n| program | what was tried | {columns} | CPU s | ratio |\n|---|---|---|---|---|---|\n"
        text += "".join(_row(case, of[case.name], nothing) for case in group)
    return text


def _row(case: Case, trials: Sequence[Trial], nothing: float) -> str:
    tried = case.tried.replace("|", "\\|")
    if not trials:
        cells = [f"not tried: {missing(case)}", "", "", ""]
    else:
        seconds = _seconds(trials)
        cells = [_verdict(case, [trial for trial in trials if trial.engine == engine]) for engine in ENGINES]
        cells += [f"{seconds:.2f}", f"{seconds / nothing:.1f}"]
    return f"| `{case.program}` | {tried} | {' | '.join(cells)} |\n"


def _verdict(case: Case, trials: Sequence[Trial]) -> str:
    wrong = [trial for trial in trials if trial.wrong]
    if not wrong:
        return "same" if trials else ""
    some = "" if len(wrong) == len(trials) else f" with {len(wrong)} of {len(trials)} seeds"
    return f"differs{some}: {case.fails or wrong[0].wrong[0].partition(':')[0]}"


def _seconds(trials: Sequence[Trial]) -> float:
    return sum(trial.seconds for trial in trials) / len(trials) if trials else 0.0


def _debian() -> str:
    try:
        return Path("/etc/debian_version").read_text().strip()
    except OSError:
        return "(another system)"
