"""From what a caller asks of a judge to what a run is handed: who it is, whom it may judge, what people said."""

from __future__ import annotations

from collections.abc import Sequence

from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError, unknown
from speciate.evaluation.contestants import Contestant, find
from speciate.evaluation.endpoints import media
from speciate.evaluation.judges import kinship
from speciate.evaluation.judges.spec import Judge, Judging
from speciate.evaluation.outlay import Asking, Verdicts
from speciate.vocabulary import Family
from speciate.workspace.workspace import Workspace

TEXTS: tuple[Family, ...] = ("generation", "transcription", "classification", "ordinal", "anomaly")
"""Families whose answers are text."""
_REASON_TOKENS = 80


def resolve(
    workspace: Workspace,
    asked: Judging,
    manifest: Manifest,
    family: Family,
    contestants: Sequence[Contestant],
    baseline: Contestant,
) -> Judge:
    """Raises SpeciateError where the judge is no endpoint or of a judged model's family, or nothing can be judged."""
    columns = tuple(manifest.columns)
    found = find(workspace, asked.model, columns)
    if found.endpoint is None:
        raise SpeciateError(
            Code.INVALID,
            f"{asked.model!r} is no model that could be asked to judge: judges are chat models behind an endpoint.",
            "Call again with judge.model='api:PROVIDER/MODEL', or with one that register_model(endpoint=...) made.",
        )
    _check_judgeable(manifest, family)
    if not asked.same_family:
        kinship.check(found.name, found.endpoint, contestants)
    if asked.mode == "pairwise" and len(contestants) < 2:
        raise SpeciateError(
            Code.INVALID,
            f"Only {baseline.name} takes part, and a pairwise judge needs another one to compare with it.",
            "Call again with a second model in models, or with judge.mode='graded'.",
        )
    return Judge(
        name=found.name,
        endpoint=found.endpoint,
        asked=asked,
        baseline=baseline.name if asked.mode == "pairwise" else None,
        human=_human(workspace, asked, manifest, contestants, baseline),
    )


def outlay_of(judge: Judge, asking: Asking, contestants: int) -> Verdicts:
    """What it will be asked at most: answers that are alike are judged once."""
    pairwise = judge.asked.mode == "pairwise"
    answers = asking.examples * asking.repeats * (contestants - 1 if pairwise else contestants)
    return Verdicts(
        judge.endpoint,
        2 * answers if pairwise else answers,
        len(judge.asked.rubric or ""),
        min(judge.asked.max_tokens, _REASON_TOKENS),
        2 if pairwise else 1,
    )


def _check_judgeable(manifest: Manifest, family: Family) -> None:
    if family not in TEXTS:
        raise SpeciateError(
            Code.INVALID,
            f"Answers of the family {family!r} are no texts that a judge could read.",
            f"Call again without judge; it is for {', '.join(TEXTS)}.",
        )
    if manifest.modality not in media.SHOWN:
        raise SpeciateError(
            Code.INVALID,
            f"Judges cannot be shown {manifest.modality}, and {manifest.ref} holds nothing else.",
            f"Call again without judge, or with a dataset of {', '.join(media.SHOWN)}.",
        )


def _human(
    workspace: Workspace,
    asked: Judging,
    manifest: Manifest,
    contestants: Sequence[Contestant],
    baseline: Contestant,
) -> dict[str, str]:
    """By canonical name; of the baseline a pairwise judge says nothing."""
    named = {each.name for each in contestants} - ({baseline.name} if asked.mode == "pairwise" else set())
    found = {}
    for ref, column in asked.human.items():
        name = find(workspace, ref, tuple(manifest.columns)).name
        if name not in named:
            raise unknown("judged model", ref, sorted(named), "judge.human names models that the judge judges.")
        if column not in manifest.columns:
            raise unknown("column", column, manifest.columns, "Call describe_dataset for the columns of this dataset.")
        if column in manifest.inputs:
            raise SpeciateError(
                Code.INVALID,
                f"{column!r} is an input of {manifest.ref}: the models would see what people said of their answers.",
                "Call create_dataset again with inputs that leave it out.",
            )
        found[name] = column
    return found
