"""The scorer `gym_score`: what the tasks of reasoning-gym that made the examples give for the answers, in a cage.

To some of their questions there are many right answers, of which `exact_match` knows one.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speciate.datasets.sources.gym_tasks import INSTALL, PACKAGE
from speciate.errors import Code, SpeciateError
from speciate.evaluation import gym_scores, own_code, own_scorer
from speciate.evaluation.caged_lines import CagedLines
from speciate.evaluation.own_code import KeptCage
from speciate.evaluation.own_scorer import Scored, ScorerError
from speciate.sandbox import CagePolicy

NAME = "gym_score"
SECONDS = 10.0
"""For one answer."""
_LOADING = {
    "source": f"import reasoning_gym\nfrom {gym_scores.__name__} import score", "function": "score", "name": NAME,
}  # fmt: skip


def check() -> None:
    """MISSING_EXTRA where the package is not installed."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise SpeciateError(
            Code.MISSING_EXTRA, f"{NAME!r} needs the package {PACKAGE!r}, which is not installed.", f"Run: {INSTALL}"
        )


def score_all(
    run_folder: Path, rows: Sequence[Mapping[str, Any]], *, policy: CagePolicy = "required", seconds: float = SECONDS
) -> list[Scored]:
    """0 to 1 for each row `{"example": {"entry": ...}, "prediction": {"output": ...}}`.

    An example without an entry is an error. UNAVAILABLE where this kernel has no cage.
    """

    def load() -> CagedLines:
        return own_code.loaded(CagedLines(own_code.CAGE, run_folder, policy), _LOADING, f"The scorer {NAME!r}")

    kept = KeptCage(load, "answers")
    try:
        return [_scored(kept, row, seconds) for row in rows]
    finally:
        kept.end()


def _scored(kept: KeptCage, row: Mapping[str, Any], seconds: float) -> Scored:
    if not isinstance(row["example"].get(gym_scores.COLUMN), str):
        return ScorerError("not_a_number", f"the example has no text in the column {gym_scores.COLUMN!r}")
    return own_scorer.scored(kept, NAME, row, seconds)
