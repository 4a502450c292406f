"""What a step of an episode asks of a job: the specs, made from what is in the catalog when it is decided."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

from speciate import use_cases
from speciate.datasets import versions
from speciate.datasets.sources.answer_log import LABEL
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.evaluation import decisions
from speciate.evaluation.reports.report import Report
from speciate.loop.watch import random_answers
from speciate.loop.watch.definition import Watch
from speciate.loop.watch.facts import Memory, Start, key_of
from speciate.loop.watch.mine import MineSpec
from speciate.loop.watch.relearn import RelearnSpec, Way
from speciate.loop.watch.rows import Send
from speciate.models import model_folder, registry
from speciate.models.model_card import EXPORT, ModelCard
from speciate.refs import DatasetRef, dataset_ref
from speciate.training.planning.shortlist import is_worthwhile
from speciate.use_cases import UseCase
from speciate.vocabulary import find_task
from speciate.workspace.database import Database
from speciate.workspace.workspace import Workspace

_NETWORKS = ("lora", "full", "replay", "der", "lwf", "ewc")
_RATES = ("accuracy",)
"""Metrics whose target is a share of right answers."""
_FOLDER = "folder"
"""Where a label came from that no column of a log has."""
_SERVED = """
SELECT DISTINCT after FROM audit WHERE use_case = ? AND action IN ('promote', 'rollback') AND after IS NOT NULL
"""
_JUDGED = "SELECT models FROM evaluations WHERE use_case = ? AND starts_with(dataset, ?)"
_REPORTS = "SELECT report FROM evaluations WHERE use_case = ? ORDER BY created, id"


def judged_name(use_case: str) -> str:
    """The dataset of randomly drawn answers that judge what comes: `triage-judged`."""
    return f"{use_case}-judged"


def send_of(workspace: Workspace, watch: Watch, memory: Memory, start: Start, now: float) -> Send:
    """Raises SpeciateError where the step cannot be, as something that it needs is gone."""
    key = key_of(watch.use_case, memory, start.step)
    if start.step == "mine":
        since = memory.moved if start.since is None else start.since
        mine = MineSpec(use_case=watch.use_case, episode=memory.episode, n=start.n, since=since)
        return Send(key, "mine", mine.model_dump(mode="json"))
    use_case = use_cases.get(workspace.database, watch.use_case)
    card = _production(workspace, watch.use_case)
    core = core_of(workspace.database, use_case, card)
    if start.step == "check":
        spec = {"models": [card.ref], "suite": "core", "dataset": core, "use_case": watch.use_case}
        return Send(key, "evaluate", spec)
    return Send(key, "relearn", relearn(workspace, watch, memory, start, now, use_case, card, core))


def relearn(
    workspace: Workspace, watch: Watch, memory: Memory, start: Start, now: float, use_case: UseCase, card: ModelCard,
    core: str,
) -> Mapping[str, object]:  # fmt: skip
    """The spec of `relearn`."""
    base = _base(workspace, card)
    manifest = versions.newest(workspace.database, dataset_ref(str(base.dataset)).name)
    judged = judged_name(watch.use_case)
    group = group_column(workspace.database, manifest)
    source = _source(watch.use_case, memory, group, now) if start.fresh else None
    spec = RelearnSpec(
        use_case=watch.use_case,
        episode=memory.episode,
        dataset=manifest.ref,
        core=core,
        judged=judged,
        judged_exists=judged in versions.names(workspace.database),
        judged_inputs=tuple(manifest.inputs),
        judged_label=_label(manifest),
        train_source=source and source + "&part=train",
        judge_source=source and source + "&part=judge",
        grows=(dataset_ref(core).name, dataset_ref(core).version) == (manifest.name, None),
        ways=ways(workspace, base, start.bases),
        shortlist=is_worthwhile(find_task(use_case.task).family, start.bases),
        metric=use_case.objective.metric,
        best=best_served(workspace.database, use_case, core, card.ref),
        before=memory.before if memory.first is not None else None,
        serving=card.ref,
        serving_share=random_answers.of_episode(workspace, watch.use_case, memory.episode, card.ref)
        if use_case.objective.metric in _RATES
        else None,
        judged_before=judged_before(workspace.database, use_case, judged),
        target=use_case.objective.target,
        margin=next((gate.value for gate in use_case.in_force if gate.rule == "not_worse" and not gate.metric), None),
        further=use_case.suites.further,
        budget_minutes=start.minutes,
        budget_usd=start.usd or None,
        action=watch.policy.action,
    )
    return spec.model_dump(mode="json")


def ways(workspace: Workspace, card: ModelCard, bases: tuple[str, ...]) -> tuple[Way, ...]:
    """From scratch by the same recipe on all rows, which loses nothing of the old; where a network serves, also trained
    on with replay, which is cheaper where training is dear; and new base models, as frozen vectors."""
    found = [Way(name="like", like=card.ref)]
    version = registry.resolve(workspace.database, workspace.folders, card.ref)
    if card.method in _NETWORKS and model_folder.has_backbone(version.path):
        found.insert(0, Way(name="replay", method="replay", continue_from=card.ref))
    found += [Way(name=f"probe-{place}", method="probe", base_model=base) for place, base in enumerate(bases)]
    return tuple(found)


def core_of(database: Database, use_case: UseCase, card: ModelCard) -> str:
    """The core suite; where the use case names none, the dataset that it has decided on, by its name: evaluations then
    go on with the newest version that holds all judged rows."""
    if use_case.suites.core:
        return use_case.suites.core
    first = decisions.first_dataset(database, use_case.name)
    ref = dataset_ref(first) if first else DatasetRef(dataset_ref(str(card.dataset)).name)
    return f"{ref.name}:{ref.split or 'test'}"


def best_served(database: Database, use_case: UseCase, core: str, serving: str) -> str | None:
    """Of the versions that ever served, the one with the best value on the core suite; None where that is what serves.
    Small losses of each promotion against its predecessor would add up. Values of different states of a suite that
    grows are not comparable: so it only says which one a candidate is compared with, on the same rows."""
    served = {str(row[0]) for row in database.read(_SERVED, [use_case.name])}
    wanted, values = dataset_ref(core), dict[str, float]()
    for (text,) in database.read(_REPORTS, [use_case.name]):
        report = Report.model_validate_json(text)
        ref = dataset_ref(report.dataset)
        if report.metric != use_case.objective.metric or (ref.name, ref.split) != (wanted.name, wanted.split or "test"):
            continue
        for row in report.leaderboard:
            if row.model in served and row.value is not None:
                values[row.model] = max(values.get(row.model, -math.inf), use_case.metric.sign * row.value)
    best = max(values, key=lambda model: values[model], default=None)
    if best is None or best == serving:
        return None
    there = any(card.ref == best for card in registry.versions(database, best.partition("@")[0]))
    return best if there else None


def judged_before(database: Database, use_case: UseCase, judged: str) -> int:
    """Candidates that the judged answers judged: each evaluation has what it compared them with, too."""
    rows = database.read(_JUDGED, [use_case.name, f"{judged}@v"])
    return sum(max(0, len(str(models).split(",")) - 1) for (models,) in rows)


def _production(workspace: Workspace, use_case: str) -> ModelCard:
    """Raises NOT_FOUND where nothing is in production."""
    return registry.resolve(workspace.database, workspace.folders, f"{use_case}@production").card


def _base(workspace: Workspace, card: ModelCard) -> ModelCard:
    """What is trained anew: of an export what it was made from. Raises INVALID for what was not trained here."""
    if card.method == EXPORT:
        card = registry.resolve(workspace.database, workspace.folders, card.parents[0]).card
    if card.dataset is None:
        raise SpeciateError(
            Code.INVALID,
            f"{card.ref} was not trained here, so there is no recipe to repeat with new examples.",
            f"Call specialize(use_case={card.use_case or 'NAME'!r}, ...) for a model that can be trained again.",
        )
    return card


def group_column(database: Database, manifest: Manifest) -> str | None:
    """The column that names the groups of a dataset's rows; None where nothing or something else does."""
    for step in versions.history(database, manifest.name):
        operation = versions.version(database, f"{manifest.name}@v{step.version}").operation
        by = operation.get("group_by")
        if isinstance(by, str) and by in manifest.columns:
            return by
    return None


def _source(use_case: str, memory: Memory, group_by: str | None, now: float) -> str:
    """Labelled answers until now, which makes a repeat the same."""
    until = datetime.fromtimestamp(now, UTC).replace(tzinfo=None).isoformat()
    group = f"&group={quote(group_by)}" if group_by else ""
    return f"log:{use_case}?labelled=true&until={until}&arrived=episode-{memory.episode}{group}"


def _label(manifest: Manifest) -> str | None:
    return None if manifest.label in (None, LABEL, _FOLDER) else manifest.label
