"""A judge's settings, from a caller (`Judging`) and for a run (`Judge`): which model judges which, and by what
verdicts of people it is checked.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError, unknown
from speciate.evaluation.endpoints import prompts
from speciate.evaluation.endpoints.cost_check import PlannedCalls, PlannedVerdicts
from speciate.evaluation.evaluated_models import EvaluatedModel, find_model
from speciate.evaluation.judges import same_family
from speciate.models.endpoints import Endpoint
from speciate.vocabulary import Family
from speciate.workspace.workspace import Workspace

Scale = Literal["yes/no", "1-3", "1-5", "1-10"]
_WORDING = 1
"""Counted up when any text of judge_prompts.py changes: verdicts on other prompts are other verdicts."""


class Judging(BaseModel):
    """Another model grades texts by a rubric, or says which of two is better."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str = Field(description="A registered endpoint, or 'api:PROVIDER/MODEL'.")
    rubric: str | None = Field(None, max_length=20_000, description="What makes an answer good.")
    mode: Literal["graded", "pairwise"] = Field("graded", description="pairwise: against the baseline's answer.")
    scale: Scale = "1-5"
    human: dict[str, str] = Field(
        {}, max_length=20, description="By model of models: the column with people's verdicts on its answers."
    )
    same_family: bool = Field(False, description="Let it judge models of its own family.")
    temperature: float | None = Field(0.0, ge=0, le=2, description="None: not sent.")
    max_tokens: int = Field(1024, ge=16, le=200_000)


class Judge(BaseModel):
    """`human` is by the models' canonical names; `baseline` is of pairwise judging."""

    model_config = ConfigDict(frozen=True)
    name: str
    endpoint: Endpoint
    asked: Judging
    baseline: str | None = None
    human: dict[str, str] = {}

    @property
    def form(self) -> str:
        """sha256 of all that changes a verdict beside what is judged and who judges."""
        settings = self.asked.model_dump(include={"rubric", "mode", "temperature", "max_tokens"})
        scale = self.asked.scale if self.asked.mode == "graded" else None
        content = json.dumps({"wording": _WORDING, "scale": scale, **settings}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def metric(self) -> str:
        """Its scores' name: who judges, or against whom, with a digest of everything that decides them."""
        content = f"{self.endpoint.identity} {self.form} {self.baseline}"
        digest = hashlib.sha256(content.encode()).hexdigest()[:8]
        if self.baseline is not None:
            return f"preferred_over_{_grade_text(self.baseline)}@{digest}"
        return f"judge_{_grade_text(self.name)}@{digest}"


def _grade_text(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.\-]+", "-", name).strip("-")[:48] or "model"


def grades(scale: Scale) -> tuple[str, ...]:
    """From the worst to the best.

    >>> grades("1-3")
    ('1', '2', '3')
    """
    return ("no", "yes") if scale == "yes/no" else tuple(map(str, range(1, int(scale.removeprefix("1-")) + 1)))


TEXT_FAMILIES: tuple[Family, ...] = ("generation", "transcription", "classification", "ordinal", "anomaly")
"""Families whose answers are text."""
_REASON_TOKENS = 80


def resolve_judge(
    workspace: Workspace,
    judging: Judging,
    manifest: Manifest,
    family: Family,
    models: Sequence[EvaluatedModel],
    baseline: EvaluatedModel,
) -> Judge:
    """Raises SpeciateError where the judge is no endpoint or of a judged model's family, or nothing can be judged."""
    columns = tuple(manifest.columns)
    found = find_model(workspace, judging.model, columns)
    if found.endpoint is None:
        raise SpeciateError(
            Code.INVALID,
            f"{judging.model!r} is no model that could be asked to judge: judges are chat models behind an endpoint.",
            "Call again with judge.model='api:PROVIDER/MODEL', or with one that register_model(endpoint=...) made.",
        )
    _check_judgeable(manifest, family)
    if not judging.same_family:
        same_family.check_same_family(found.name, found.endpoint, models)
    if judging.mode == "pairwise" and len(models) < 2:
        raise SpeciateError(
            Code.INVALID,
            f"Only {baseline.name} takes part, and a pairwise judge needs another one to compare with it.",
            "Call again with a second model in models, or with judge.mode='graded'.",
        )
    return Judge(
        name=found.name,
        endpoint=found.endpoint,
        asked=judging,
        baseline=baseline.name if judging.mode == "pairwise" else None,
        human=_human(workspace, judging, manifest, models, baseline),
    )


def planned_verdicts(judge: Judge, planned: PlannedCalls, models: int) -> PlannedVerdicts:
    """The most calls to expect: equal answers are judged once."""
    pairwise = judge.asked.mode == "pairwise"
    answers = planned.examples * planned.repeats * (models - 1 if pairwise else models)
    return PlannedVerdicts(
        judge.endpoint,
        2 * answers if pairwise else answers,
        len(judge.asked.rubric or ""),
        min(judge.asked.max_tokens, _REASON_TOKENS),
        2 if pairwise else 1,
    )


def _check_judgeable(manifest: Manifest, family: Family) -> None:
    if family not in TEXT_FAMILIES:
        raise SpeciateError(
            Code.INVALID,
            f"Answers of the family {family!r} are no texts that a judge could read.",
            f"Call again without judge; it is for {', '.join(TEXT_FAMILIES)}.",
        )
    if manifest.modality not in prompts.PROMPT_MODALITIES:
        raise SpeciateError(
            Code.INVALID,
            f"Judges cannot be shown {manifest.modality}, and {manifest.ref} holds nothing else.",
            f"Call again without judge, or with a dataset of {', '.join(prompts.PROMPT_MODALITIES)}.",
        )


def _human(
    workspace: Workspace,
    judging: Judging,
    manifest: Manifest,
    models: Sequence[EvaluatedModel],
    baseline: EvaluatedModel,
) -> dict[str, str]:
    """The columns of people's grades by canonical name; of the baseline a pairwise judge says nothing."""
    named = {each.name for each in models} - ({baseline.name} if judging.mode == "pairwise" else set())
    found = {}
    for ref, column in judging.human.items():
        name = find_model(workspace, ref, tuple(manifest.columns)).name
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
