"""What is asked of a judge, as a caller says it and as a run is handed it."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from speciate.models.endpoints import Endpoint

Scale = Literal["yes/no", "1-3", "1-5", "1-10"]
_WORDING = 1
"""Counted up when any text of `questions.py` changes: verdicts on other questions are other verdicts."""


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
    """`human` is by the contestants' canonical names; `baseline` is of pairwise judging."""

    model_config = ConfigDict(frozen=True)
    name: str
    endpoint: Endpoint
    asked: Judging
    baseline: str | None = None
    human: dict[str, str] = {}

    @property
    def form(self) -> str:
        """sha256 of all that changes a verdict beside what is judged and who judges."""
        asked = self.asked.model_dump(include={"rubric", "mode", "temperature", "max_tokens"})
        scale = self.asked.scale if self.asked.mode == "graded" else None
        said = json.dumps({"wording": _WORDING, "scale": scale, **asked}, sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    @property
    def metric(self) -> str:
        """Its scores' name: who judges, or against whom, with a digest of everything that decides them."""
        said = f"{self.endpoint.identity} {self.form} {self.baseline}"
        digest = hashlib.sha256(said.encode()).hexdigest()[:8]
        if self.baseline is not None:
            return f"preferred_over_{_plain(self.baseline)}@{digest}"
        return f"judge_{_plain(self.name)}@{digest}"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.\-]+", "-", name).strip("-")[:48] or "model"


def grades(scale: Scale) -> tuple[str, ...]:
    """From the worst to the best.

    >>> grades("1-3")
    ('1', '2', '3')
    """
    return ("no", "yes") if scale == "yes/no" else tuple(map(str, range(1, int(scale.removeprefix("1-")) + 1)))
