"""Models named as `hf:org/name[@REVISION]` that are not here yet: the jobs that fetch them before a training or an
evaluation.

`plan_before_fetch` checks what can be checked of that meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from speciate import hf_hub
from speciate.datasets import versions
from speciate.errors import Code, SpeciateError
from speciate.jobs.engine import Engine
from speciate.jobs.job import ENDED, StoredSpec
from speciate.jobs.kinds import Plan
from speciate.models import fetch, registry
from speciate.models.backbones.architectures import ARCHITECTURES, suits
from speciate.models.fetch import FetchSpec
from speciate.refs import model_ref
from speciate.training.train_spec import read_parameters
from speciate.workspace.workspace import Workspace

_HUB = "hf"
_MOST_JOBS = 200


class ModelToFetch(NamedTuple):
    """A model of the hub that must come first."""

    ref: str
    spec: StoredSpec
    """Spec of the job `fetch`."""


def models_to_fetch(workspace: Workspace, base_models: Sequence[str]) -> tuple[ModelToFetch, ...]:
    """Base models of the hub that are not registered, each once. Raises INVALID for what is on no hub, CONFLICT where a
    use case has the name that it would get, MISSING_EXTRA without the hub's library."""
    found: dict[str, ModelToFetch] = {}
    for base in base_models:
        ref = model_ref(base)
        if ref.source != _HUB or registry.fetched(workspace.database, ref) is not None:
            continue
        spec = {"name": registry.name_of(ref), "source": str(ref)}
        fetch.plan(FetchSpec.model_validate(spec), workspace)
        if not hf_hub.is_installed():
            raise SpeciateError(
                Code.MISSING_EXTRA,
                f"Fetching '{ref}' needs the package 'huggingface_hub'.",
                "Run: pip install 'speciate[hub]'",
            )
        found[str(ref)] = ModelToFetch(str(ref), spec)
    return tuple(found.values())


def fetch_all(engine: Engine, wanted: Sequence[ModelToFetch], key: str | None) -> list[str]:
    """The jobs that fetch them: those that are on their way already, else new ones; the same for the same `key`."""
    live = {
        job.spec.get("source"): job.id for job in engine.list(kind="fetch", limit=_MOST_JOBS) if job.state not in ENDED
    }
    return [
        live.get(each.ref)
        or engine.submit("fetch", each.spec, key=None if key is None else f"fetch/{key}/{each.ref}").id
        for each in wanted
    ]


def plan_before_fetch(engine: Engine, kind: str, spec: Mapping[str, Any], wanted: Sequence[ModelToFetch]) -> Plan:
    """The plan as if a fresh network stood where those that are to come will: dataset, task, splits, use case and
    hyperparameters are checked before anything is fetched. What a base model must bring is checked when it is here."""
    absent = {each.ref for each in wanted}
    if kind == "evaluate":
        return engine.plan(kind, _evaluate(dict(spec), absent))
    modality = versions.resolve(engine.workspace.database, str(spec.get("dataset", ""))).modality
    fitting = [name for name, each in ARCHITECTURES.items() if suits(each.modality, modality) and each.locates]
    standing_in = next(iter(fitting), None)
    change = _CHANGES.get(kind)
    if standing_in is None or change is None:
        return Plan()
    checked = engine.plan(kind, change(dict(spec), absent, standing_in))
    if kind == "train" and spec.get("method"):
        read_parameters(str(spec["method"]), str(checked.resolved["task"]), spec.get("hyperparameters") or {})
    return Plan(use_case=checked.use_case, resolved={**checked.resolved, "base_model": sorted(absent)})


def _train(spec: StoredSpec, absent: set[str], standing_in: str) -> StoredSpec:
    known = {"name", "dataset", "use_case", "task", "target", "seed", "budget_minutes", "budget_usd", "resources"}
    kept = {name: value for name, value in spec.items() if name in known}
    return {**kept, "method": "full", "base_model": standing_in}


def _specialize(spec: StoredSpec, absent: set[str], standing_in: str) -> StoredSpec:
    others = [base for base in spec.get("base_models", ()) if base not in absent]
    return {**spec, "base_models": others or [standing_in], "methods": [], "ways": [], "shortlist": False}


def _evaluate(spec: StoredSpec, absent: set[str]) -> StoredSpec:
    """Spec of an evaluation with the constant answer in place of what is not here."""

    def here(refs: Sequence[str]) -> list[str]:
        return [ref for ref in refs if not absent & set(ref.removeprefix("ensemble:").split("+"))]

    def of_others(by_model: Mapping[str, Any]) -> dict[str, Any]:
        return {ref: value for ref, value in by_model.items() if ref not in absent}

    return {
        **spec, "models": here(spec["models"]) or ["constant:"], "baselines": here(spec.get("baselines", ())),
        "label_maps": of_others(spec.get("label_maps", {})), "prompts": of_others(spec.get("prompts", {})),
    }  # fmt: skip


_CHANGES: dict[str, Callable[[StoredSpec, set[str], str], StoredSpec]] = {
    "train": _train,
    "specialize": _specialize,
}
"""Kind -> its spec with something else in the place of what is not here."""
