"""Search, describe and register models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from speciate import use_cases
from speciate.errors import Code, SpeciateError
from speciate.governance import approvals
from speciate.governance.approvals import postponed
from speciate.lineage import trace
from speciate.lineage.model_report import ModelReport, model_report
from speciate.lineage.trace import Trace
from speciate.models import fetch, pickled_weights, registry, trust
from speciate.models.endpoints import Endpoint
from speciate.models.fetch import KIND as FETCH
from speciate.models.fetch import FetchSpec
from speciate.models.search import known_models
from speciate.models.search.ranking import Hit, Sort
from speciate.models.search.search_query import AtLeast, Query, figure_name
from speciate.models.search.sources import Figure
from speciate.models.signature import State
from speciate.refs import ModelRef, model_ref
from speciate.server.approval_questions import NeedsApproval, needs_approval
from speciate.server.next_actions import after_model, search_children, search_notes, search_relaxed
from speciate.server.roots import check_readable
from speciate.server.tool_api import (
    App,
    Cursor,
    DryRun,
    DryRunFlag,
    Estimate,
    IdempotencyKey,
    JobStarted,
    NextAction,
    Result,
    make_sparse_spec,
    once,
    start_job,
    tool,
)
from speciate.workspace.database import Transaction

_PATH = "path:"
_INSPECT = "speciate.models.pickled_weights_process:inspect"
_SECONDS = 120.0
"""Seconds for all files of a folder with pickled weights."""
_BY_WORDS = "w"
"""Ends a cursor of an order by words alone."""
_SHOWN_FIGURES, _SHOWN_VERSIONS, _SHOWN_NODES = 4, 20, 40
_SHORT_PAGE, _FIGURES_OF_MANY = 10, 2
"""A longer page shows fewer published values of each model; describe_model has all."""

_SHOWN = 40
"""Nodes of a lineage graph in an answer: the nearest ones."""


class Price(Result):
    usd_per_1m_input: float | None = None
    usd_per_1m_output: float | None = None
    usd_per_image: float | None = None
    usd_per_minute: float | None = None


class FoundModel(Result):
    ref: str
    task: str | None = None
    modalities: tuple[str, ...]
    parameters: int | None = None
    license: str | None = Field(None, description="SPDX id; left out: unknown.")
    published_metrics: tuple[Figure, ...] = ()
    price: Price | None = None
    available: bool = Field(description="Whether it can be used with nothing fetched or allowed first.")
    needs: tuple[str, ...] = ()
    score_parts: dict[str, float]
    children: int = Field(0, description="Near-identical models behind this row that fit, too: see children_of.")
    why: str
    origins: dict[str, str] = Field(description="Source and date of each of these fields.")


class ConstraintEffect(Result):
    fails: int
    unknown: int = Field(description="Models without the facts to decide it.")
    alone: int = Field(description="How many more models would fit without it.")


class FoundModels(Result):
    models: tuple[FoundModel, ...]
    total: int = Field(description="Models that fit.")
    rows: int = Field(description="Rows, each family as one row.")
    dropped_by: dict[str, ConstraintEffect] = Field(description="By the argument that removed them.")
    notes: tuple[str, ...] | None = Field(None, description="What none can meet; the sort.")
    next_cursor: str | None = None
    next_actions: tuple[NextAction, ...] = ()


@tool(read_only=True)
def search_models(
    app: App,
    query: Annotated[str, Field(max_length=500, description="For criteria without an argument.")] = "",
    task: Annotated[str | None, Field(description="list_options(kind='task').")] = None,
    modality: Annotated[str | None, Field(description="What it takes: image, text ...")] = None,
    sources: Annotated[list[str] | None, Field(description="timm, mteb, prices ...; default: all.")] = None,
    licenses: Annotated[list[str] | None, Field(description="Allowed SPDX ids.")] = None,
    max_parameters: Annotated[int | None, Field(gt=0, description="As 30000000.")] = None,
    max_usd_per_1m_tokens: Annotated[float | None, Field(ge=0, description="The dearer of input, output.")] = None,
    published: Annotated[
        list[AtLeast] | None,
        Field(max_length=5, description="Must have: [{benchmark, metric, above?, below?}]."),
    ] = None,
    installed: Annotated[bool, Field(description="Only what can be used now.")] = False,
    released_after: Annotated[
        str | None, Field(pattern=r"^\d{4}(-\d{2}(-\d{2})?)?$", description="2026 or 2026-07-28.")
    ] = None,
    use_case: Annotated[str | None, Field(description="Fills task and limits.")] = None,
    children_of: Annotated[str | None, Field(description="A row's ref: its near-copies.")] = None,
    sort: Annotated[Sort, Field(description="published: by its first value.")] = "relevance",
    limit: Annotated[int, Field(ge=1, le=50, description="Page size.")] = 20,
    cursor: Cursor = None,
) -> FoundModels:
    """Search about 7,000 open and hosted models and your own. Works offline, and fetches nothing.

    For how good they are on your data, call specialize or evaluate_models.
    """
    wanted = Query(
        text=query, task=task, modality=modality, sources=tuple(sources or ()), licenses=tuple(licenses or ()),
        max_parameters=max_parameters, max_usd_per_1m_tokens=max_usd_per_1m_tokens, published=tuple(published or ()),
        released_after=released_after, installed=installed, children_of=children_of,
    )  # fmt: skip
    database = app.workspace.database
    wanted = known_models.complete_query(wanted, use_cases.get(database, use_case) if use_case else None)
    (offset, by_words), here = _parse_cursor(cursor), known_models.AccessContext.now(app.workspace)
    pool = None if by_words else app.pool
    found = known_models.search(app.workspace, wanted, sort=sort, limit=limit, offset=offset, pool=pool, here=here)
    figures = _SHOWN_FIGURES if limit <= _SHORT_PAGE else _FIGURES_OF_MANY
    next_cursor = f"{offset + limit}{'' if found.by_meaning else _BY_WORDS}"
    return FoundModels(
        models=tuple(_found_model(hit, wanted, here, figures) for hit in found.hits),
        total=found.total,
        rows=found.shown,
        dropped_by={name: ConstraintEffect(**each._asdict()) for name, each in found.dropped_by.items()},
        notes=search_notes(app.workspace, wanted, found) or None,
        next_cursor=next_cursor if offset + limit < found.shown else None,
        next_actions=search_children(wanted, found, use_case) if found.total else search_relaxed(wanted, found),
    )


def _found_model(hit: Hit, query: Query, here: known_models.AccessContext, most: int) -> FoundModel:
    row, access = hit.row, known_models.access(hit.row, here)
    price = Price(**{name: row[name] for name in Price.model_fields})
    tasks = row["tasks"] or ()
    return FoundModel(
        ref=row["ref"],
        task=query.task if query.task in tasks else next(iter(tasks), None),
        modalities=tuple(row["modalities"] or ()),
        parameters=row["parameters"],
        license=row["license"],
        published_metrics=_figures(row, query, most),
        price=None if price == Price() else price,
        available=access.available,
        needs=access.needs,
        score_parts=hit.score_parts,
        children=hit.children,
        why=_why_found(row, hit),
        origins=_origins(row),
    )  # fmt: skip


def _figures(row: dict[str, Any], query: Query, most: int) -> tuple[Figure, ...]:
    """The first published values; those that were asked for come first."""
    asked = {each.name for each in query.published}
    figures = [Figure(**figure) for figure in row["published"] or ()]
    figures.sort(key=lambda figure: figure_name(figure.benchmark, figure.metric) not in asked)
    return tuple(figures[:most])


def _why_found(row: dict[str, Any], hit: Hit) -> str:
    """A sentence from known facts alone."""
    strongest = max(hit.score_parts, key=lambda name: hit.score_parts[name], default="")
    reasons = {"words": "its words fit", "meaning": "its meaning is near to the query",
               "published": "its published value is high", "recency": "it is recent",
               "use": "many use it"}  # fmt: skip
    size = f"{row['parameters']:,} parameters" if row["parameters"] else "of unknown size"
    return f"{size}; {reasons[strongest]}" if strongest and hit.score_parts[strongest] > 0 else size


def _origins(row: dict[str, Any]) -> dict[str, str]:
    """The source of each shown field."""
    origins = dict(row["origins"])
    shown = {"parameters": "parameters", "license": "license", "published": "published_metrics",
             "usd_per_minute": "price", "usd_per_image": "price", "usd_per_1m_output": "price"}  # fmt: skip
    return {name: origins[field] for field, name in shown.items() if field in origins}


def _parse_cursor(cursor: str | None) -> tuple[int, bool]:
    """Where a page begins, and whether the page before was ordered without a vector of the query. If so, this page is,
    too, or rows would come twice."""
    if cursor is None:
        return 0, False
    number = cursor.removesuffix(_BY_WORDS)
    if not (number.isascii() and number.isdecimal()):
        raise SpeciateError(Code.INVALID, f"{cursor!r} is no cursor of this call.", "Call again without cursor.")
    return int(number), number != cursor


class VersionLine(Result):
    version: int
    method: str
    job: str | None = None
    dataset: str | None = None
    base_model: str | None = None
    seconds: float | None = None
    usd: float | None = None


class EvaluationLine(Result):
    evaluation: str
    dataset: str
    judged_split: str | None = Field(None, description="Where these are no test rows: it is optimistic.")
    metric: str
    value: float | None = None
    interval: tuple[float, float] | None = None
    n: int


class TrustView(Result):
    id: str = Field(description="sha256 of the list of its files' hashes.")
    intact: bool | None = Field(None, description="Whether its files are what was sealed; checked just now.")
    problem: str | None = None
    source: str
    revision: str | None = None
    set_aside: int = Field(description="Files of the publisher that were excluded.")
    license: str | None = None
    signature: State = Field(description="unknown_key: by one that the settings do not name; broken: changed since.")
    signed_by: str | None = None


class ProviderView(Result):
    served: tuple[str, ...] = Field(description="Model names that the provider last reported.")
    checked: float | None = Field(None, description="When it last answered the pinned questions; left out: never.")
    self_disagreement: float | None = Field(None, description="Share of them that it answered in two ways at one time.")
    changed: float | None = Field(None, description="When a change of the model was last seen.")
    why: tuple[str, ...] = ()
    may_not_hold: tuple[str, ...] = Field((), description="Evaluations from before the change.")
    check: str = Field(description="Command with which a person checks it again.")


class Cards(Result):
    readme: str | None = Field(None, description="Its publisher's own.")


class ExternalModel(Result):
    license: str | None = None
    published_metrics: tuple[Figure, ...] = ()
    price: Price | None = None
    released: str | None = None
    bytes: int | None = None
    origins: dict[str, str] = Field(description="Source and date of each field.")


class ExportGate(Result):
    name: str
    outcome: str
    reason: str


class ExportView(Result):
    parent: str
    format: str
    quantize: str
    gates: tuple[ExportGate, ...]
    measured: dict[str, Any] = Field(description="Parity, metric, latency, memory and bytes, parent and export.")


class LineageNode(Result):
    id: str = Field(description="KIND:NAME")
    facts: dict[str, Any] | None = None


class LineageView(Result):
    nodes: tuple[LineageNode, ...]
    edges: tuple[tuple[str, str, str], ...] = Field(description="From, to, how.")
    not_shown: int | None = None

    @classmethod
    def of(cls, traced: Trace) -> LineageView:
        shown = traced.graph.nearest(traced.start, _SHOWN_NODES)
        return cls(
            nodes=tuple(LineageNode(id=node.id, facts=node.facts or None) for node in shown.nodes.values()),
            edges=tuple((edge.source, edge.target, edge.how) for edge in shown.edges),
            not_shown=len(traced.graph.nodes) - len(shown.nodes) or None,
        )


class ModelDescription(Result):
    model: str
    task: str | None = None
    modality: str | None = None
    parameters: int | None = None
    versions: tuple[VersionLine, ...]
    aliases: dict[str, str] = Field(description="USE_CASE@ALIAS -> version.")
    lineage: LineageView = Field(description="Data and models around it; of a prediction all that it depends on.")
    evaluations: tuple[EvaluationLine, ...]
    trust: TrustView | None = Field(None, description="Left out: not in this workspace.")
    provider: ProviderView | None = Field(None, description="Of an endpoint: whether it still serves the same model.")
    export: ExportView | None = Field(None, description="Of an export: gates and figures beside its parent.")
    available: bool
    needs: tuple[str, ...] = ()
    card: str = Field(description="Markdown, written from the facts known here.")
    elsewhere: ExternalModel | None = Field(None, description="Of a published model: facts of the index.")
    next_actions: tuple[NextAction, ...] = ()
    untrusted: Cards


@tool(read_only=True)
def describe_model(
    app: App,
    model: Annotated[
        str, Field(description="name (newest), name@v3, USE_CASE@production, pkg:NAME, of search_models, prediction.")
    ],
) -> ModelDescription:
    """Show a model of this workspace: versions, lineage, evaluations, licence, and whether its files are intact.

    For a published model (hf:, timm:), the facts that search_models has. For its figures, call describe_evaluation.
    """
    traced = trace.trace_answer(app.workspace, model) if trace.is_answer(model) else None
    model = trace.model_of_answer(app.workspace, model) if traced else model
    ref = model_ref(model)
    if (
        registry.fetched(app.workspace.database, ref) is None
        and (row := known_models.find_row(app.workspace, ref)) is not None
    ):
        return _describe_external(app, ref, row)
    found = model_report(app.workspace, model)
    card = found.shown
    return ModelDescription(
        model=card.ref, task=card.task, modality=card.modality, parameters=card.parameters,
        versions=tuple(
            VersionLine(version=each.version, method=each.method, job=each.job, dataset=each.dataset,
                        base_model=each.base_model, seconds=each.seconds, usd=each.usd)
            for each in found.versions[-_SHOWN_VERSIONS:]
        ),
        aliases=found.aliases, lineage=LineageView.of(traced or trace.trace_model(app.workspace, card.ref)),
        evaluations=tuple(EvaluationLine(**each._asdict()) for each in found.evaluations),
        provider=ProviderView(**found.provider._asdict()) if found.provider else None,
        export=_export(card.recipe.get("export")), trust=TrustView(**found.trust._asdict()),
        available=found.access.available, needs=found.access.needs,
        card=found.card, untrusted=Cards(readme=found.readme), next_actions=_next_actions(app, found),
    )  # fmt: skip


def _next_actions(app: App, found: ModelReport) -> tuple[NextAction, ...]:
    """Describe its newest evaluation; without one, evaluate it."""
    if found.evaluations:
        newest = found.evaluations[0].evaluation
        return (NextAction(tool="describe_evaluation", arguments={"evaluation": newest}),)
    return after_model(app.workspace, found.shown.ref)


def _export(record: dict[str, Any] | None) -> ExportView | None:
    if record is None:
        return None
    return ExportView(
        parent=record["parent"], format=record["format"], quantize=record["quantize"], measured=record["measured"],
        gates=tuple(ExportGate(**gate) for gate in record["gates"]),
    )  # fmt: skip


def _describe_external(app: App, ref: ModelRef, row: dict[str, Any]) -> ModelDescription:
    access, tasks, modalities = (
        known_models.access(row, known_models.AccessContext.now(app.workspace)),
        row["tasks"],
        row["modalities"],
    )
    price = Price(**{name: row[name] for name in Price.model_fields})
    fetch = NextAction(tool="register_model", arguments={"name": registry.name_of(ref), "source": str(ref)})
    size = f"{row['parameters']:,} parameters" if row["parameters"] else "of unknown size"
    card = f"# {row['ref']}\n\nNot in this workspace; known from its publishers alone: {size}, nothing measured here."
    return ModelDescription(
        model=row["ref"], task=next(iter(tasks or ()), None), modality=next(iter(modalities or ()), None),
        parameters=row["parameters"], versions=(), aliases={}, evaluations=(),
        lineage=LineageView.of(trace.trace_foreign_model(row["ref"], row["base_model"])),
        available=access.available, needs=access.needs, card=card,
        elsewhere=ExternalModel(
            license=row["license"], price=None if price == Price() else price, released=row["released"],
            bytes=row["bytes"], origins=dict(row["origins"]),
            published_metrics=tuple(Figure(**figure) for figure in (row["published"] or ())),
        ),
        next_actions=(fetch,) if ref.source in ("hf", "timm") and row["format"] != "pickle" else (),
        untrusted=Cards(),
    )  # fmt: skip


class ModelRegistered(Result):
    model: str
    host: str
    needs: tuple[str, ...] = Field(description="Commands that a person runs before the endpoint can be called.")
    next_actions: tuple[NextAction, ...] = ()


@tool(idempotent=True, open_world=True)
def register_model(
    app: App,
    name: Annotated[str, Field(description="Gets its next version.")],
    source: Annotated[str | None, Field(description="hf:org/name[@REVISION], timm:NAME or path:/dir.")] = None,
    endpoint: Annotated[
        Endpoint | None,
        Field(description="{base_url, model, secret: a stored key, usd_per_1m_input?, usd_per_1m_output?}."),
    ] = None,
    task: Annotated[str | None, Field(description="Default: its card's.")] = None,
    license: Annotated[str | None, Field(max_length=64, description="SPDX id; default: its card's.")] = None,  # noqa: A002
    weights_license: Annotated[str | None, Field(max_length=64, description="If not the code's.")] = None,
    labels: Annotated[dict[str, str] | None, Field(description="{published label: yours}: it answers yours.")] = None,
    prompts: Annotated[
        list[str] | None, Field(description="Zero-shot: 'a photo of a {label}'; 'summarize: {input}'.")
    ] = None,
    base_model: Annotated[str | None, Field(description="Of an adapter; default: its own.")] = None,
    trained_on: Annotated[list[str] | None, Field(description="Datasets it learned from.")] = None,
    data_until: Annotated[str | None, Field(description="Nothing learned is later: '2024-06'.")] = None,
    idempotency_key: IdempotencyKey = None,
    dry_run: DryRunFlag = False,
) -> ModelRegistered | JobStarted | NeedsApproval | DryRun:
    """Make a published model a version here: fetch its weights (a job), or name where others serve it.

    A person approves pytorch_model.bin. No code of a model is run. api:openai/MODEL needs none. To train one, call
    specialize.
    """
    if (source is None) == (endpoint is None):
        raise SpeciateError(
            Code.INVALID,
            f"register_model takes one of source and endpoint; got {'neither' if source is None else 'both'}.",
            "Call again with one of them.",
        )
    if endpoint is None:
        spec = make_sparse_spec(
            FetchSpec, name=name, source=_readable(app, source or ""), task=task, license=license,
            weights_license=weights_license, labels=labels,
            prompts=tuple(prompts) if prompts else None, trained_on=tuple(trained_on) if trained_on else None,
            data_until=data_until, base_model=base_model and _readable(app, base_model),
        )  # fmt: skip
        if spec.source.startswith(_PATH) and (pickled := trust.pickled_in(Path(spec.source.removeprefix(_PATH)))):
            return _ask_to_convert(app, spec, pickled, idempotency_key, dry_run=dry_run)
        return start_job(app, FETCH, spec, idempotency_key=idempotency_key, dry_run=dry_run)
    if labels or prompts or trained_on or data_until or weights_license or base_model:
        raise SpeciateError(
            Code.INVALID,
            "labels, prompts, trained_on, data_until, weights_license and base_model are of published weights; an "
            "endpoint is asked in words.",
            "Call again without them.",
        )  # fmt: skip
    card = registry.served_card(app.workspace, name, endpoint, task=task, license=license)
    if dry_run:
        return DryRun(valid=True, estimate=Estimate(), resolved={"host": endpoint.host})

    def step(tx: Transaction) -> ModelRegistered:
        model = registry.register(tx, app.workspace.folders, card, None).ref
        then = NextAction(tool="evaluate_models", arguments={"models": [model]})
        needs = registry.commands_needed(endpoint, app.workspace.settings.private_hosts)
        return ModelRegistered(model=model, host=endpoint.host, needs=needs, next_actions=(then,))

    arguments = {"name": name, "endpoint": endpoint.model_dump(), "task": task, "license": license}
    return once(app, "register_model", arguments, idempotency_key, step, answer=ModelRegistered)


def _readable(app: App, source: str) -> str:
    """The caller's folder with its full path, if it lies below the roots."""
    return _PATH + str(check_readable(app, source.removeprefix(_PATH))) if source.startswith(_PATH) else source


def _ask_to_convert(
    app: App, spec: FetchSpec, pickled: tuple[str, ...], idempotency_key: str | None, *, dry_run: bool
) -> NeedsApproval | DryRun:
    """A person is asked about these bytes, once a sandboxed process found nothing but tensors in them."""
    folder = Path(spec.source.removeprefix(_PATH))

    def look() -> tuple[FetchSpec, dict[str, object]]:
        files = pickled_weights.hash_files(folder, pickled)
        paths = [str(folder / name) for name in pickled]
        found = app.pool.ask(_INSPECT, {"files": paths}, _SECONDS, readable=frozenset(map(Path, paths)))
        approved = spec.model_copy(update={"pickles": {name: each["sha256"] for name, each in files.items()}})
        fetch.plan(approved, app.workspace)
        return approved, {
            "folder": str(folder), "files": files, "holds": found,
            "also": "A process without a network, which may read nothing else, writes the tensors as safetensors.",
        }  # fmt: skip

    looked = postponed(look)
    if dry_run:
        return DryRun(valid=True, estimate=Estimate(), resolved=looked()[1])

    def step(tx: Transaction) -> NeedsApproval:
        approved, evidence = looked()
        hours = app.workspace.settings.approval_hours
        arguments = approved.model_dump(mode="json", exclude_unset=True)
        return needs_approval(
            tx, approvals.request(tx, "convert", arguments, evidence, subject=f"model:{spec.name}", hours=hours)
        )

    arguments = spec.model_dump(mode="json", exclude_unset=True)
    return once(app, "register_model", arguments, idempotency_key, step, answer=NeedsApproval)
