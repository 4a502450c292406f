"""Scorers beyond the table of metrics, by what a caller writes as `scorer`.

| `path/to/file.py:FUNCTION` | a user's own, in a sandbox |
| `package:NAME` | of an installed package (entry point group `speciate.scorers`), trusted as it was installed |
| `code_passes` | runs the program that was answered against the example's column `tests`, in a sandbox |
| `likeness:MODEL` | how like a drawn image is to its text, by a registered CLIP-like model |
| `spoken_wer:MODEL` | word errors of a registered recogniser on speech that was made from a text |
| `gym_score` | what the task of reasoning-gym that made the example gives for the answer, in a sandbox |
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import Any, NamedTuple

from speciate.errors import Code, SpeciateError, unknown
from speciate.evaluation.scorers import likeness, sandboxed_scorers, spoken_wer
from speciate.evaluation.scorers.sandboxed_scorers import Better, ScorerError, ScoreResult, check_scores
from speciate.sandbox import SandboxPolicy
from speciate.vocabulary import LOWER

GROUP = "speciate.scorers"
"""Entry point group of third parties: name = "module:function", a function as in sandboxed_scorers.py."""
BUILT_IN: dict[str, tuple[str, Better]] = {
    "rmsd": ("speciate.evaluation.metrics.structure_scores:rmsd", "lower"),
    "tm_score": ("speciate.evaluation.metrics.structure_scores:tm_score", "higher"),
    "lddt": ("speciate.evaluation.metrics.structure_scores:lddt", "higher"),
}
"""Scorers that come with this package: name -> ("module:function", which direction is better)."""
_PACKAGE = "package:"
_HOW = (
    "Name 'path/to/file.py:FUNCTION', 'package:NAME', 'likeness:MODEL', 'spoken_wer:MODEL', 'code_passes' or "
    "'gym_score'."
)


class Scorer(NamedTuple):
    """`signature` is the metric's name; `score_all(run_folder, rows)` as in sandboxed_scorers.py."""

    signature: str
    better: Better
    score_all: Callable[[Path, Sequence[Mapping[str, Any]]], list[ScoreResult]]

    def metric(self, entry: str | None = None) -> str:
        """What the scores are called; `entry`: the name that the function gives them, where it is not its own."""
        own = self.signature.partition("@")[0].rpartition(":")[2]
        entry = None if entry == self.signature else entry
        more = "" if entry in (None, own) else f"/{''.join(c if c.isalnum() else '_' for c in str(entry))}"
        return self.signature + more + (LOWER if self.better == "lower" else "")


def find_scorer(ref: str, policy: SandboxPolicy = "required") -> Scorer:
    """NOT_FOUND or INVALID where it cannot be used. Runs no file; loads a package's module."""
    if ref == sandboxed_scorers.CODE_PASSES:
        return Scorer(ref, "higher", partial(sandboxed_scorers.score_programs, policy=policy))
    if ref == sandboxed_scorers.GYM_SCORE:
        sandboxed_scorers.check_gym()
        return Scorer(ref, "higher", partial(sandboxed_scorers.score_gym, policy=policy))
    if ref.startswith(likeness.PREFIX):
        return Scorer(likeness.metric_of(ref), "higher", partial(likeness.score_images, ref))
    if ref.startswith(spoken_wer.PREFIX):
        return Scorer(spoken_wer.metric_of(ref), "lower", partial(spoken_wer.score_speech, ref))
    if ref.startswith(_PACKAGE):
        return _installed(ref.removeprefix(_PACKAGE))
    path, _, function = ref.rpartition(":")
    if not path or not function.isidentifier():
        raise SpeciateError(Code.INVALID, f"{ref!r} is no scorer.", _HOW)
    own = sandboxed_scorers.describe_scorer(Path(path), function)
    score_all = partial(_score_by_user, own, policy)
    return Scorer(own.signature, own.better, score_all)


def is_sandboxed(ref: str | None) -> bool:
    """Whether what it runs was written by others, or by a model: not a package's function, which is installed."""
    return ref is not None and not ref.startswith((_PACKAGE, likeness.PREFIX, spoken_wer.PREFIX))


def _score_by_user(
    own: sandboxed_scorers.UserScorer, policy: SandboxPolicy, run_folder: Path, rows: Sequence[Mapping[str, Any]]
) -> list[ScoreResult]:
    return sandboxed_scorers.score_by_user(run_folder, own.file, own.function, rows, sha256=own.sha256, policy=policy)


def _installed(name: str) -> Scorer:
    if name in BUILT_IN:
        place, own_better = BUILT_IN[name]
        module, _, attribute = place.partition(":")
        function = getattr(importlib.import_module(module), attribute)
        return Scorer(f"{_PACKAGE}{name}@{version('speciate')}", own_better, partial(_score_installed, function, name))
    known = _points()
    if name not in known:
        raise unknown("scorer", name, [*BUILT_IN, *known], _HOW)
    point = known[name]
    function = point.load()
    better: Better = "lower" if _direction(function) == "lower" else "higher"
    release = point.dist.version if point.dist else "0"
    return Scorer(f"{_PACKAGE}{name}@{release}", better, partial(_score_installed, function, name))


def _direction(function: Callable[..., Any]) -> Any:
    return getattr(importlib.import_module(function.__module__), "BETTER", "higher")


def _score_installed(
    function: Callable[..., Any], name: str, run_folder: Path, rows: Sequence[Mapping[str, Any]]
) -> list[ScoreResult]:
    return [_score_row(function, name, row) for row in rows]


def _score_row(function: Callable[..., Any], name: str, row: Mapping[str, Any]) -> ScoreResult:
    try:
        answer = function(row["example"], row["prediction"])
    except Exception as error:  # noqa: BLE001 - others' code may fail in any way; it is counted
        return ScorerError("raised", f"{type(error).__name__}: {error}"[:300])
    return check_scores(answer, name)


@cache
def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
