"""The payload of an evaluation: everything that `evaluate.plan` resolved, for the worker."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from speciate.datasets.versions import Manifest
from speciate.evaluation.endpoints.prompts import Prompt
from speciate.evaluation.evaluated_models import EvaluatedModel
from speciate.evaluation.holdout_reuse import LooksOnRows
from speciate.evaluation.judges.judge_plan import Judge
from speciate.evaluation.near_looks import SuiteElsewhere
from speciate.evaluation.reports.report import Role, Suite, SuiteChange, ValidationEvidence
from speciate.tasks.task import TaskTerms
from speciate.use_cases import UseCase
from speciate.vocabulary import Family, find_task


class Scoring(BaseModel):
    """A scorer. `metric`: the name of its scores, unless the function names them."""

    model_config = ConfigDict(frozen=True)
    ref: str
    metric: str


class CostLimits(NamedTuple):
    """What a use case allows; None: anything."""

    p95_ms: float | None = None
    usd_per_1k: float | None = None


UNLIMITED = CostLimits()


class EvaluationPayload(BaseModel):
    """`metrics` starts with the main one."""

    model_config = ConfigDict(frozen=True)
    dataset: Manifest
    split: str | None
    models: tuple[EvaluatedModel, ...] = Field(validation_alias=AliasChoices("models", "contestants"))
    """Read under the former name, too: an evaluation may have been planned before an upgrade and run after it."""
    task: str
    metrics: tuple[str, ...]
    target_column: str | None = None
    positive_label: str | None = None
    terms: TaskTerms = TaskTerms()
    baseline: str
    candidate: str | None = None
    use_case: UseCase | None = None
    no_decision: str | None = None
    """Why no verdict may be given; None if one may."""
    suite: Suite = "core"
    """Which suite of the use case the dataset is."""
    unseen: tuple[str, ...] = ()
    """Warnings of the dataset's report about labels that the split lacks."""
    earlier: LooksOnRows = LooksOnRows()
    """What these rows were asked before."""
    elsewhere: tuple[SuiteElsewhere, ...] = ()
    """Suites of other rows of this modality, of which some may be near-copies of these."""
    older_elsewhere: int = 0
    """Such suites that are not compared, for they are older than many others."""
    suite_id: str = ""
    """Id of the rows as they were planned: evaluations under way find each other by it."""
    known_jobs: tuple[str, ...] = ()
    """Evaluations under way that `earlier` accounts for."""
    gain_shown: tuple[str, ...] = ()
    """Candidates whose gain is shown by other rows."""
    order: tuple[ValidationEvidence, ...] = ()
    """In which the candidates may go forward; empty: the cheapest that passes does."""
    suite_change: SuiteChange | None = None
    """Against the rows that the use case stands on."""
    reference_column: str | None = None
    """The column of the references in the stored rows; None where references lie in the media."""
    roles: dict[str, Role] = {}
    """Model -> what it is here. Candidates get a verdict; only they make the intervals wider."""
    remarks: tuple[str, ...] = ()
    """About the suite, for the report's notes."""
    latency: bool = True
    threads: int = 1
    """For the answers of frozen networks; costs are measured with one."""
    seed: int = 0
    prompt: Prompt = Prompt()
    """For models that take prompts."""
    judge: Judge | None = None
    scoring: Scoring | None = None
    repeats: int = 1
    """How often models that may answer differently each time are asked."""
    budget_usd: float | None = None
    """Cap on the cost of all answers."""
    allowances: dict[str, float] = {}
    """USD by host that are left of a person's consent for this dataset. A run's own share replaces it."""
    private_hosts: tuple[str, ...] = ()
    """Hosts at private addresses that a person listed."""
    usd_per_core_hour: float
    """Price of this machine's time."""

    @property
    def shown(self) -> str:
        return self.dataset.ref + (f":{self.split}" if self.split else "")

    @property
    def family(self) -> Family:
        return find_task(self.task).family

    @property
    def asks_for_memory(self) -> bool:
        return self.use_case is not None and any(gate.metric == "memory_mb" for gate in self.use_case.in_force)

    @property
    def limits_latency(self) -> bool:
        return self.use_case is not None and any(gate.metric == "p95_latency_ms" for gate in self.use_case.in_force)

    @property
    def cost_limits(self) -> CostLimits:
        gates = self.use_case.in_force if self.use_case else ()
        most = {gate.metric: gate.value for gate in gates if gate.rule == "at_most"}
        return CostLimits(most.get("p95_latency_ms"), most.get("usd_per_1k"))
