"""What a step of an episode asks of a job: the specs, made from what is in the catalog when it is decided."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

from speciate import use_cases
from speciate.datasets import versions
from speciate.datasets.operations.variants import AUGMENTATIONS
from speciate.datasets.sources.answer_log import LABEL
from speciate.datasets.versions import Manifest
from speciate.errors import Call, Code, SpeciateError
from speciate.evaluation import decisions
from speciate.evaluation.reports.report import Report
from speciate.loop.watch import random_answers, recall
from speciate.loop.watch.definition import Watch
from speciate.loop.watch.facts import Memory, Start, key_of
from speciate.loop.watch.mine import MineSpec
from speciate.loop.watch.recall import Recalled
from speciate.loop.watch.relearn import ACTOR, RelearnSpec
from speciate.loop.watch.rows import Send
from speciate.loop.watch.ways import Way
from speciate.models import model_folder, registry
from speciate.models.model_card import EXPORT, ModelCard
from speciate.models.published.manifest import has_trained_head
from speciate.refs import DatasetRef, dataset_ref
from speciate.serving.deployment_folder import deployment_folder
from speciate.training.planning.available_methods import LANGUAGE, available_candidates
from speciate.training.planning.prior_model_checks import suits_family
from speciate.training.planning.shortlist import is_worthwhile
from speciate.training.train_spec import STREAMING
from speciate.use_cases import UseCase
from speciate.vocabulary import Family, counts_right, find_task
from speciate.workspace.database import Database
from speciate.workspace.workspace import Workspace

_FOLDER = "folder"
"""Where a label came from that no column of a log has."""
_MOST_VARIED = 5_000
"""Training rows: with more, a copy of each teaches little."""
_BY_WATCH = """
SELECT 1 FROM jobs child JOIN jobs parent ON child.parent = parent.id
WHERE child.id = ? AND parent.kind = 'relearn' AND parent.key LIKE 'watch/%'
"""
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
        mine = MineSpec(
            use_case=watch.use_case, episode=memory.episode, n=start.n, since=since, suites=suites(workspace, watch)
        )  # fmt: skip
        return Send(key, "mine", mine.model_dump(mode="json"))
    if start.step == "promote":
        promotion = {
            "use_case": watch.use_case, "model": start.model, "actor": ACTOR,
            "propose": watch.policy.action == "propose", "note": f"episode {memory.episode}, after its canary",
        }  # fmt: skip
        return Send(key, "promote", promotion)
    use_case = use_cases.get(workspace.database, watch.use_case)
    card = _production(workspace, watch.use_case)
    core = core_of(workspace.database, use_case, card)
    if start.step == "check":
        spec = {"models": [card.ref], "suite": "core", "dataset": core, "use_case": watch.use_case}
        return Send(key, "evaluate", spec)
    return Send(key, "relearn", relearn(workspace, watch, memory, start, now, use_case, card, core))


def _teach(
    workspace: Workspace, watch: Watch, memory: Memory, now: float, dataset: str, usd: float
) -> Mapping[str, object] | None:  # fmt: skip
    """None where no person named a teacher for the use case."""
    teacher = workspace.settings.watch.teachers.get(watch.use_case)
    if teacher is None:
        return None
    since = memory.moved if memory.onset is None else memory.onset
    return {
        "use_case": watch.use_case, "teacher": teacher, "since": since, "until": now, "dataset": dataset,
        "budget_usd": usd,
    }  # fmt: skip


def suites(workspace: Workspace, watch: Watch) -> tuple[str, ...]:
    """What judges, beside the suites that the use case names: near-copies of it are not asked about."""
    judged = judged_name(watch.use_case)
    found = [f"{judged}:test"] if judged in versions.names(workspace.database) else []
    use_case = use_cases.get(workspace.database, watch.use_case)
    if use_case.suites.core is None:
        with contextlib.suppress(SpeciateError):  # trained elsewhere, and never evaluated: nothing is held out
            card = _base(workspace, _production(workspace, watch.use_case))
            found.append(core_of(workspace.database, use_case, card))
    return tuple(found)


def relearn(
    workspace: Workspace, watch: Watch, memory: Memory, start: Start, now: float, use_case: UseCase, card: ModelCard,
    core: str,
) -> Mapping[str, object]:  # fmt: skip
    """The spec of `relearn`."""
    base = _base(workspace, card)
    purged = recall.purged_models(workspace.database)
    recalled = recall.find(workspace, card.ref, use_case, purged) if "recall" in memory.causes else None
    manifest = newest_without_variants(workspace.database, dataset_ref(str(base.dataset)).name)
    judged = judged_name(watch.use_case)
    group = group_column(workspace.database, manifest)
    source = _source(watch.use_case, memory, group, now) if start.fresh else None
    alone = memory.causes == ("new_base_model",) and bool(start.bases)
    tried = (*ways(workspace, base, start.bases, recalled), *_with_variants(workspace, base, manifest, recalled))
    if alone and source is None:  # what serves would learn again what it knows
        tried = tuple(way for way in tried if way.base_model in start.bases)
    if not tried:
        raise SpeciateError(
            Code.INVALID,
            f"The base model of {card.ref} must go, and no method for {use_case.task} does without one.",
            next=[Call("search_models", {"task": use_case.task}, "for another base model, then specialize")],
        )
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
        teach=_teach(workspace, watch, memory, now, manifest.ref, start.usd),
        judge_source=source and source + "&part=judge",
        grows=(dataset_ref(core).name, dataset_ref(core).version) == (manifest.name, None),
        ways=tried,
        screens=alone and memory.round == 1,
        chosen_by=chosen_by(base, use_case.objective.metric),
        canary=deployment_folder(workspace.folders, watch.use_case).lives,
        replaces=recalled is not None,
        shortlist=is_worthwhile(find_task(use_case.task).family, start.bases),
        metric=use_case.objective.metric,
        aim=use_case.objective.aim,
        best=best_served(workspace.database, use_case, core, card.ref),
        before=memory.before if memory.first is not None else None,
        serving=card.ref,
        serving_share=random_answers.of_episode(workspace, watch.use_case, memory.episode, card.ref)
        if counts_right(use_case.objective.metric)
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


def chosen_by(card: ModelCard, metric: str) -> float | None:
    """The value on held-out examples that its training tells; None where it was chosen by another metric, or is not
    told."""
    return next((value for name, value in card.metrics.items() if name.endswith(f" {metric}")), None)


def ways(
    workspace: Workspace, card: ModelCard, bases: tuple[str, ...], recalled: Recalled | None = None
) -> tuple[Way, ...]:  # fmt: skip
    """From scratch by the same recipe on all rows, which loses nothing of the old; where a network serves, also trained
    on from where it is, which is cheaper where training is dear; and new base models, as frozen vectors.

    Of what is recalled nothing is trained on further; where its base is at fault, the recipe is not repeated either,
    but the methods without a base model and those bases that are allowed are tried.
    """
    family = find_task(str(card.task)).family
    probes = [Way(name=f"probe-{place}", method="probe", base_model=base) for place, base in enumerate(bases)]
    if recalled is not None and recalled.made_from:
        found = [Way(name=each.method, method=each.method) for each in available_candidates(str(card.modality), family)
                 if each.base_model is None]  # fmt: skip
        return (*found, *probes)
    scratch = Way(name="like", like=_root(workspace, card).ref)
    if recalled is not None:
        return (scratch, *probes)
    warm = _warm(workspace, card, family)
    return (*([warm] if warm else ()), scratch, *probes)


def _with_variants(
    workspace: Workspace, card: ModelCard, manifest: Manifest, recalled: Recalled | None
) -> list[Way]:  # fmt: skip
    """Where there are few training rows, of media whose small changes surely keep what an example is of."""
    few = manifest.splits.get("train", manifest.rows) <= _MOST_VARIED
    if recalled is not None or not few or manifest.inputs or manifest.modality not in AUGMENTATIONS:
        return []
    return [Way(name="variants", like=_root(workspace, card).ref, with_variants=True)]


def newest_without_variants(database: Database, name: str) -> Manifest:
    """The newest version but for those that an episode made of the one before, to train on variants: the next episode
    makes its own."""
    found = versions.version(database, name)
    while (before := _varied_from(database, found)) is not None:
        found = versions.version(database, before)
    return found.manifest


def _varied_from(database: Database, found: versions.Version) -> str | None:
    made = [step.get("op") for step in found.operation.get("steps", ())]
    if made != ["variants"] or found.job is None or not database.read_one(_BY_WATCH, [found.job]):
        return None
    return next(iter(found.parents), None)


def _warm(workspace: Workspace, card: ModelCard, family: Family) -> Way | None:
    """With replay where the task lets answers be replayed; a language model learns on as a base model."""
    if card.method in LANGUAGE:
        return Way(name="warm", method=card.method, base_model=card.ref)
    if card.method == STREAMING:
        return Way(name="warm", method=STREAMING, continue_from=card.ref)
    path = registry.resolve(workspace.database, workspace.folders, card.ref).path
    if not (model_folder.has_backbone(path) or has_trained_head(path)) or card.method == "probe":
        return None
    if suits_family("replay", family):
        return Way(name="replay", method="replay", continue_from=card.ref)
    return Way(name="warm", method="lora" if card.method == "lora" else "full", continue_from=card.ref)


def _root(workspace: Workspace, card: ModelCard) -> ModelCard:
    """The version of its line that was trained from scratch: what was trained on would only be trained on again."""
    seen = {card.ref}
    while (before := (card.recipe.get("spec") or {}).get("continue_from")) is not None:
        try:
            earlier = registry.resolve(workspace.database, workspace.folders, str(before)).card
        except SpeciateError:  # deleted since: its recipe cannot be repeated
            return card
        if earlier.ref in seen or earlier.dataset is None:
            return card
        seen.add(earlier.ref)
        card = earlier
    return card


def core_of(database: Database, use_case: UseCase, card: ModelCard) -> str:
    """The core suite; where the use case names none, the dataset that it has decided on, by its name: evaluations then
    go on with the newest version that holds all judged rows."""
    if use_case.suites.core:
        return use_case.suites.core
    first = decisions.first_dataset(database, use_case.name)
    ref = dataset_ref(first) if first else DatasetRef(dataset_ref(str(card.dataset)).name)
    return f"{ref.name}:{ref.split or 'test'}"


def best_served(database: Database, use_case: UseCase, core: str, serving: str) -> str | None:
    """The version with the best value on the core suite among those that ever served; None where that is what serves.
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


def groups_to_send(workspace: Workspace, use_case: str) -> str | None:
    """What inputs must come with for their answers to be learned from, as a sentence; None where nothing more."""
    try:
        base = _base(workspace, _production(workspace, use_case))
        manifest = newest_without_variants(workspace.database, dataset_ref(str(base.dataset)).name)
    except SpeciateError:
        return None  # an episode says it
    column = group_column(workspace.database, manifest)
    if column is None or column in manifest.inputs:
        return None
    sent = ", ".join(f"{name!r}: ..." for name in (*manifest.inputs, column))
    return (
        f"{manifest.ref} is grouped by {column!r}, so answers are learned from only where they were asked for with it, "
        f"as {{'row': {{{sent}}}}}"
    )


def _source(use_case: str, memory: Memory, group_by: str | None, now: float) -> str:
    """Labelled answers until now, which makes a repeat the same."""
    until = datetime.fromtimestamp(now, UTC).replace(tzinfo=None).isoformat()
    group = f"&group={quote(group_by)}" if group_by else ""
    return f"log:{use_case}?labelled=true&until={until}&arrived=episode-{memory.episode}{group}"


def _label(manifest: Manifest) -> str | None:
    return None if manifest.label in (None, LABEL, _FOLDER) else manifest.label
