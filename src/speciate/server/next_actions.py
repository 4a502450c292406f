"""What to call next: after a dataset, after a model, after a search, after an error.

Only calls that work as they stand: an evaluation is planned before it is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, count
from typing import Any

from speciate import use_cases
from speciate.datasets import version_rows, versions
from speciate.datasets.sources import answer_log
from speciate.datasets.version_rows import ancestors
from speciate.datasets.versions import Manifest, Version
from speciate.errors import Code, SpeciateError, complete, quote_name
from speciate.evaluation import decisions, evaluate
from speciate.jobs.job import Job
from speciate.models import registry
from speciate.models.model_card import SERVED, ModelCard
from speciate.models.search import known_models
from speciate.models.search.ranking import Order, SearchResult
from speciate.models.search.search_query import Query, not_published
from speciate.refs import SPLITS, dataset_ref
from speciate.server.tool_api import NextAction
from speciate.tasks.example_targets import usual_task
from speciate.use_cases import CONSTANT, UseCase
from speciate.vocabulary import task_named
from speciate.workspace.database import Database
from speciate.workspace.workspace import Workspace

_FRACTIONS = {"train": 0.6, "validation": 0.2, "test": 0.2}
_DECIDED_ON = """
SELECT DISTINCT decisions.use_case, evaluations.dataset FROM decisions
JOIN evaluations ON evaluations.id = decisions.evaluation
"""
_MINUTES = 10
"""A budget that suits a first try; the caller knows better."""


def first_steps(database: Database) -> tuple[NextAction, ...]:
    """What comes before the first use case: a dataset, and what a new one leads to."""
    newest = versions.newest_of_all(database)
    if newest is None:
        example = {"name": "NAME", "source": "PATH", "dry_run": True}
        return (NextAction(tool="create_dataset", arguments=example, purpose="shows how files would be read"),)
    return after_dataset(database, newest)


def after_dataset(database: Database, ref: str) -> tuple[NextAction, ...]:
    """Calls that work as they stand; none where the version is gone."""
    try:
        found = versions.version(database, ref)
    except SpeciateError:
        return ()
    look = NextAction(tool="describe_dataset", arguments={"dataset": ref})
    if not set(SPLITS) <= found.manifest.splits.keys():
        steps = [{"op": "split", "fractions": _FRACTIONS}]
        return (look, NextAction(tool="curate_dataset", arguments={"dataset": ref, "steps": steps}))
    return (look, *_find_a_model(database, found))


def _find_a_model(database: Database, found: Version) -> tuple[NextAction, ...]:
    """`specialize` where a use case could take it, else the use case; nothing where there is no target. What was logged
    is for the use case that was asked, whatever task its labels look like."""
    manifest = found.manifest
    usual = task_named(usual_task(manifest) or "")
    if usual is None:
        return ()
    names = use_cases.names(database)
    if (asker := _use_case_of_log(database, found)) in names:
        return (_specialize(asker, manifest),)
    for name in _likely(database, names, manifest):
        use_case = use_cases.get(database, name)
        task = task_named(use_case.task)
        suits = task is not None and task.suits(manifest.modality) and task.family == usual.family
        if suits and _has_its_columns(use_case, manifest):
            return (_specialize(name, manifest),)
    numbered = (f"{manifest.name}-use-{number}" for number in count(2))
    free = chain([f"{manifest.name}-use"], numbered)  # one that is there would get another version
    name = next(each for each in free if each not in names)
    arguments = {"name": name, "task": usual.name, "objective": {"metric": usual.default_metric}}
    return (NextAction(tool="define_use_case", arguments=arguments),)


def _likely(database: Database, names: Sequence[str], manifest: Manifest) -> list[str]:
    """Use cases that decided on this dataset, then those that decided on none; others would get no decision on it."""
    decided: dict[str, set[str]] = {}
    for name, dataset in database.read(_DECIDED_ON):
        decided.setdefault(name, set()).add(dataset_ref(dataset).name)
    here = [name for name in names if manifest.name in decided.get(name, set())]
    return here + [name for name in names if name not in decided]


def _has_its_columns(use_case: UseCase, manifest: Manifest) -> bool:
    """Whether what the use case reads is there: its target, and the answers of its incumbent. With a suite of its own
    it is about that dataset alone."""
    incumbent = use_case.incumbent or ""
    answers = incumbent.removeprefix(use_cases.COLUMN) if incumbent.startswith(use_cases.COLUMN) else None
    core = use_case.suites.core
    return (
        {use_case.target_column, answers} - {None} <= {*manifest.columns, "label"}
        and (core is None or dataset_ref(core).name == manifest.name)
    )  # fmt: skip


def _specialize(use_case: str, manifest: Manifest) -> NextAction:
    arguments = {"use_case": use_case, "dataset": manifest.name, "budget_minutes": _MINUTES}
    return NextAction(tool="specialize", arguments=arguments)


def _use_case_of_log(database: Database, found: Version) -> str:
    """The use case whose log the examples come from, the latest where there are several; empty where there is none."""
    for each in (found, *ancestors(database, found)):
        source = str(each.operation.get("source") or "")
        if source.startswith(f"{answer_log.KIND}:"):
            return answer_log.parse(source).use_case
    return ""


def after_model(workspace: Workspace, ref: str) -> tuple[NextAction, ...]:
    """Evaluate the version that a job has made, on examples that it has not seen, beside what it must beat. Nothing if
    it is gone or its dataset is unknown; if its dataset cannot evaluate it, the calls that mend that."""
    try:
        card = registry.resolve(workspace.database, workspace.folders, ref).card
        use_case = use_cases.get(workspace.database, card.use_case) if card.use_case else None
    except SpeciateError:
        return ()
    if card.dataset is None or card.method == SERVED:
        return ()
    if use_case and use_cases.serving(workspace.database, use_case.name) == card.ref:
        return (first_answer(workspace, use_case.name),)
    refused: SpeciateError | None = None
    first: Mapping[str, Any] | None = None
    for arguments in _evaluations(workspace, card, use_case):
        try:
            evaluate.plan(evaluate.EvaluateSpec(**arguments), workspace)
        except SpeciateError as error:
            refused, first = refused or error, first or arguments
        else:
            return (NextAction(tool="evaluate_models", arguments=arguments),)
    if refused is None or refused.code is not Code.INVALID:
        return ()
    return next_calls(refused.next_documents(), "evaluate_models", first)


def first_answer(workspace: Workspace, use_case: str) -> NextAction:
    """Ask what serves about a test example of its dataset, which it has not learned from; without inputs where none can
    be asked about by itself."""
    arguments: dict[str, Any] = {"use_case": use_case}
    with suppress(SpeciateError):
        serving = use_cases.serving(workspace.database, use_case) or ""
        card = registry.resolve(workspace.database, workspace.folders, serving).card
        manifest = versions.resolve(workspace.database, card.dataset or "")
        if example := version_rows.first_single(workspace.folders, manifest, "test"):
            arguments["inputs"] = [{"example": example, "dataset": manifest.ref}]
    return NextAction(tool="predict", arguments=arguments)


def _evaluations(workspace: Workspace, card: ModelCard, use_case: UseCase | None) -> Iterator[Mapping[str, Any]]:
    """The most telling one first: on what the use case decides on, else the test split of what it was trained on."""
    if use_case is not None:  # its incumbent takes part by itself
        yield {"models": [card.ref], "use_case": use_case.name, **_suite(workspace, card, use_case)}
    for rival in _rivals(workspace, card):
        yield {"models": [rival, card.ref], "dataset": _test_split(card)}
    yield {"models": [card.ref], "dataset": _test_split(card)}


def _suite(workspace: Workspace, card: ModelCard, use_case: UseCase) -> dict[str, str]:
    if use_case.suites.core:
        return {"suite": "core"}
    first = decisions.first_dataset(workspace.database, use_case.name)
    own = _test_split(card)
    return {"dataset": first if first and dataset_ref(first).name != dataset_ref(own).name else own}


def _rivals(workspace: Workspace, card: ModelCard) -> Iterator[str]:
    """What it was made from, then the version before it, then the constant answer."""
    yield from card.parents[:1]
    if card.base_model is not None:
        yield card.base_model
    before = [each.version for each in registry.versions(workspace.database, card.name) if each.version < card.version]
    if before:
        yield f"{card.name}@v{max(before)}"
    yield CONSTANT


def _test_split(card: ModelCard) -> str:
    trained = dataset_ref(card.dataset or "")
    return str(trained._replace(split="test"))


def search_children(query: Query, found: SearchResult, use_case: str | None) -> tuple[NextAction, ...]:
    """Show the models that the first row with children stands for."""
    first = next((hit for hit in found.hits if hit.children), None)
    if first is None:
        return ()
    beside = {} if use_case is None else {"use_case": use_case}
    return (_search_again(query.model_copy(update={"children_of": first.row["ref"]}), beside),)


def search_relaxed(query: Query, found: SearchResult) -> tuple[NextAction, ...]:
    """If nothing was found: the same search without the few constraints that exclude everything."""
    if not found.lifted:
        return ()
    kept = tuple(each for each in query.published if each.constraint not in found.lifted)
    lifted = {name: Query.model_fields[name].default for name in found.lifted if name in Query.model_fields}
    return (_search_again(query.model_copy(update={**lifted, "published": kept}), {}),)


def search_notes(workspace: Workspace, query: Query, found: SearchResult) -> tuple[str, ...]:
    """Which constraints no model can meet, and which ones the next call leaves out."""
    published = known_models.models(workspace).published() if query.published and not found.total else set()
    wrong = {each.constraint: not_published(each, published) for each in query.published} if published else {}
    notes = [reason for reason in wrong.values() if reason]
    notes += [
        f"Of no model here it is known whether it holds {name!r}: it removes all."
        for name, each in found.dropped_by.items()
        if each.unknown == found.known and not wrong.get(name)
    ]
    if found.order is not None and found.total:
        notes.append(_order_note(found.order, found.total))
    if found.total and found.unmatched:
        notes.append(f"No model has a word of {quote_name(query.text)}: these pass the filters, and match nothing.")
    if not found.total and found.lifted:
        lifted = ", ".join(map(repr, found.lifted))
        notes.append(f"No model is known to pass {lifted}; next_actions asks again without.")
    return tuple(notes)


def _order_note(order: Order, total: int) -> str:
    if order.by is None:
        return "None of these has such a value, so they are sorted by relevance."
    return f"Sorted by {order.by}, which {order.have} of {total} have; the others come last."


def _search_again(query: Query, beside: Mapping[str, str]) -> NextAction:
    """The same search with what a use case had filled in, as far as there are arguments for it."""
    fields = query.model_dump(mode="json", exclude_defaults=True, exclude={"weights"})
    arguments = {"query" if key == "text" else key: value for key, value in fields.items()}
    return NextAction(tool="search_models", arguments={**arguments, **beside})


_HARMLESS = frozenset(
    {
        "add_examples", "curate_dataset", "define_use_case", "describe_dataset", "describe_evaluation",
        "describe_model", "evaluate_models", "get_job", "get_status", "list_jobs", "list_options", "merge_models",
        "plan_training", "preview_dataset", "query_dataset", "search_models", "train_model", "wait_for_job",
    }
)  # fmt: skip
"""What is offered after an error: tools that neither destroy nor reach outside."""
_MOST = 3


def next_calls(
    documents: Sequence[Mapping[str, Any]], refused: str = "", given: Mapping[str, Any] | None = None
) -> tuple[NextAction, ...]:
    """The calls of an error, each once, as suggestions. `refused(**given)`: the call that it answered, where known."""
    found: list[NextAction] = []
    for each in documents:
        whole = complete(each, refused, given)
        if whole is None:
            continue
        action = NextAction(tool=whole["tool"], arguments=whole["arguments"], purpose=each.get("purpose"))
        if action.tool in _HARMLESS and action not in found:
            found.append(action)
    return tuple(found[:_MOST])


TOOL_OF_KIND = {"merge": "merge_models", "train": "train_model"}
"""Kinds of job whose stored spec has the arguments of the tool that starts them, under their names."""
NO_ARGUMENTS = {"verdict_level"}
"""But for what a search gives its trainings alone."""


def after_failure(job: Job) -> tuple[NextAction, ...]:
    """The calls that the error of a failed job names; its own once more, with what must change."""
    documents = (job.error or {}).get("next", ())
    asked = {name: value for name, value in job.spec.items() if name not in NO_ARGUMENTS}
    return next_calls(documents, TOOL_OF_KIND.get(job.kind, ""), asked)
