"""The part of gap analysis that reads stored rows and decodes media, in a sandboxed process.

Clusters are of the modality's own descriptor: of test examples, of training examples, and of what production was asked
as far as monitoring sampled it, so that a group which fails can be found in the log.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from speciate import features
from speciate.datasets import version_rows
from speciate.datasets.loading.loader import load_examples
from speciate.datasets.versions import Manifest
from speciate.errors import SpeciateError
from speciate.evaluation.reports import stored_answers
from speciate.jobs.pool import ServiceAnswer
from speciate.loop.gap_analysis import (
    Clusters,
    Gap,
    Group,
    cluster,
    compare,
    nearest_centre,
    of_classes,
    of_clusters,
    of_column,
)
from speciate.modalities import find
from speciate.vocabulary import find_metric
from speciate.workspace.workspace import Folders

_FIXED = ("example", "group_key", "truth", "preview")
_MOST_DESCRIBED = 600
"""Test examples, and training examples, that are described for clusters."""
_SHOWN = 6
"""Failed examples that are named of a group."""
_WORST_SHARE = 0.8
"""Quantile of errors without a bound above which an example counts as failed: a fifth of them do."""


class GapRequest(BaseModel):
    model_config = ConfigDict(frozen=True)
    root: Path
    evaluation: str
    model: str
    metric: str
    manifest: Manifest | None
    """Manifest of the evaluated dataset."""
    watched: Path | None = None
    """Where monitoring keeps samples of the log; None where it was never monitored."""
    generation: int = 0
    descriptor: str = ""
    """Its id; '' where monitoring used another extractor, so that its vectors have no distance to ours."""
    count: int = 12
    """Groups to return."""
    answers: int = 12
    """Logged answers that are named of a group, at most."""


class _Production(NamedTuple):
    ids: list[str]
    label: list[str]
    cluster: list[int]


def find_gaps(payload: Mapping[str, object]) -> ServiceAnswer:
    """The service. `gaps` is foreign text but for its numbers."""
    request = GapRequest.model_validate(payload)
    folder = request.root / "evaluations" / request.evaluation
    examples = stored_answers.read_examples(stored_answers.StoredRequest(folder=folder))
    failed, how = _failed(request, folder, examples)
    names = [name for name in examples if name in failed]
    rates = np.array([failed[name] for name in names], np.float64)
    notes = [how] if how else []
    groups, clusters, described = _groups(request, examples, names, notes)
    found = compare(rates, groups, _units(examples, names)) if names else []
    members = {(each.kind, each.column, each.value): each.members for each in groups}
    production = _production(request, clusters)
    listed = [
        _mined(
            _shown(gap, [names[place] for place in np.flatnonzero(members[gap.kind, gap.column, gap.value])], failed),
            production,
            request.answers,
        ).model_dump(mode="json")
        for gap in found[: request.count]
    ]
    return {
        "n": len(names), "failed": float(rates.sum()), "groups": len(found), "gaps": listed, "notes": notes,
        "sampled": len(production.ids) if production else 0,
        "described": described,
    }  # fmt: skip


def _failed(request: GapRequest, folder: Path, examples: Mapping[str, Any]) -> tuple[dict[str, float], str]:
    """Example -> 0 (right) to 1 (wrong), and a note where that is no plain right or wrong. An answer that did not come
    is wrong."""
    filters = [("model", "=", request.model)]
    rows = pq.read_table(folder / "scores.parquet", columns=["example", "metric", "value"], filters=filters)
    metrics = list(dict.fromkeys(rows["metric"].to_pylist()))
    errors = {each["example"] for each in stored_answers.read_answers(folder, [request.model]) if each["error"]}
    if not metrics:
        return {}, "This evaluation has no metric with a score per example, so it cannot be cut into groups."
    name = request.metric if request.metric in metrics else metrics[0]
    metric, scores = find_metric(name), dict[str, list[float]]()
    for example, own, value in zip(*(rows[column].to_pylist() for column in rows.column_names), strict=True):
        if own == name and value is not None and math.isfinite(value) and example in examples:
            scores.setdefault(example, []).append(value)
    means = {example: float(np.mean(values)) for example, values in scores.items()}
    missing = {example: 1.0 for example in errors if example in examples and example not in means}
    if metric.sign > 0 and all(0 <= value <= 1 for value in means.values()):
        return {example: 1 - value for example, value in means.items()} | missing, ""
    losses = {example: -metric.sign * value for example, value in means.items()}
    edge = float(np.quantile(list(losses.values()), _WORST_SHARE)) if losses else 0.0
    found = {example: float(value > edge) for example, value in losses.items()} | missing
    return found, f"{name} has no bound: the worst fifth of the examples counts as failed."


def _units(examples: Mapping[str, Any], names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Examples of one group are no independent ones."""
    groups = [examples[name]["group_key"] for name in names]
    known = [f"group {group}" if group else f"example {name}" for name, group in zip(names, groups, strict=True)]
    return np.unique(known, return_inverse=True)[1].astype(np.int64)


def _groups(
    request: GapRequest, examples: Mapping[str, Any], names: Sequence[str], notes: list[str]
) -> tuple[list[Group], Clusters | None, int]:
    table = pq.read_table(request.root / "evaluations" / request.evaluation / "examples.parquet")
    place = {name: at for at, name in enumerate(table["example"].to_pylist())}
    order = [place[name] for name in names]
    trained = _training_rows(request)
    found: list[Group] = []
    if stored_answers.has_labels(request.metric):
        labels = [str(examples[name]["truth"]) for name in names]
        counts: dict[str, int] = {}
        for cell in trained.get("label", ()):
            counts[str(cell)] = counts.get(str(cell), 0) + 1
        found += of_classes(labels, counts)
    for column in table.column_names:
        if column not in _FIXED:
            cells = table[column].to_pylist()
            found += of_column(column, [cells[at] for at in order], trained.get(column))
    if not trained:
        notes.append("The training data are not there any more: how many examples would help is not known.")
    clusters, described = _clusters(request, names, found)
    return found, clusters, described


def _training_rows(request: GapRequest) -> dict[str, list[Any]]:
    """Column -> cells of the train split."""
    if request.manifest is None:
        return {}
    try:
        rows = version_rows.read(Folders(request.root), request.manifest, splits=["train"], usable=True)
    except SpeciateError:
        return {}
    wanted = [name for name in rows.column_names if not name.startswith("_")]
    return {name: rows[name].to_pylist() for name in wanted} if rows.num_rows else {}


def _clusters(request: GapRequest, names: Sequence[str], found: list[Group]) -> tuple[Clusters | None, int]:
    """Adds clusters to the groups; None where media cannot be described any more."""
    manifest = request.manifest
    if manifest is None or len(names) < 16 or len(names) > _MOST_DESCRIBED:
        return None, 0
    try:
        folders = Folders(request.root)
        own = _described(folders, manifest, list(names))
        train = version_rows.read(folders, manifest, ["id"], splits=["train"], usable=True)["id"].to_pylist()
        some = train[:: max(1, -(-len(train) // _MOST_DESCRIBED))]
        before = _described(folders, manifest, some)
    except (SpeciateError, OSError, ValueError):
        return None, 0
    if len(own) != len(names):
        return None, 0
    rows = np.array([own[name] for name in names], np.float32)
    clusters = cluster(rows)
    learned = nearest_centre(clusters.centres, np.array(list(before.values()), np.float32)) if before else None
    scale = max(1.0, len(train) / max(1, len(before)))
    found += [
        each._replace(trained=None if each.trained is None else round(each.trained * scale))
        for each in of_clusters(clusters, learned)
    ]
    return clusters, len(own) + len(before)


def _described(folders: Folders, manifest: Manifest, ids: Sequence[str]) -> dict[str, Any]:
    kind = find(manifest.modality)
    loaded = load_examples(folders, manifest, ids=ids, in_sandbox=True)
    found = {each.id: np.asarray(kind.features(each.media), np.float32) for each in loaded}
    return {name: vector for name, vector in found.items() if np.isfinite(vector).all()}


def _production(request: GapRequest, clusters: Clusters | None) -> _Production | None:
    """Sampled answers of this generation, with the cluster of each."""
    if request.watched is None:
        return None
    ids: list[str] = []
    keys: list[str] = []
    labels: list[str] = []
    for path in sorted((request.watched / "samples").glob(f"{request.generation}-*.parquet")):
        table = pq.read_table(path, columns=["id", "key", "label"])
        ids += table["id"].to_pylist()
        keys += table["key"].to_pylist()
        labels += table["label"].to_pylist()
    if not ids:
        return None
    own = [-1] * len(ids)
    if clusters is not None and request.descriptor:
        beside = Folders(request.root)
        beside.features = request.watched / "vectors"
        cached = features.read(beside, request.descriptor, keys)
        if cached.vectors.shape[1] == clusters.centres.shape[1]:
            places = np.flatnonzero(cached.known).tolist()
            for place, each in zip(places, nearest_centre(clusters.centres, cached.vectors).tolist(), strict=True):
                own[place] = each
    return _Production(ids, labels, own)


def _mined(gap: Gap, production: _Production | None, most: int) -> Gap:
    """With answers of production that look like the group, in the random order of ids: those it may be asked about."""
    if production is None or gap.kind not in ("class", "cluster"):
        return gap
    if gap.kind == "cluster":
        if not any(each >= 0 for each in production.cluster):
            return gap
        alike = [name for name, each in zip(production.ids, production.cluster, strict=True) if each == int(gap.value)]
    else:
        digest = hashlib.sha256(gap.value.strip().encode("utf-8", "surrogatepass")).hexdigest()[:16]
        alike = [name for name, each in zip(production.ids, production.label, strict=True) if each == digest]
    order = sorted(alike, key=lambda name: hashlib.sha256(name.encode()).digest())
    share = len(alike) / len(production.ids)
    return gap.model_copy(update={"mine": len(alike), "mine_share": share, "answers": tuple(order[:most])})


def _shown(gap: Gap, members: Sequence[str], failed: Mapping[str, float]) -> Gap:
    worst = sorted(members, key=lambda name: (-failed[name], name))[:_SHOWN]
    changes: dict[str, object] = {
        "value": stored_answers.label_text(gap.value), "column": stored_answers.label_text(gap.column),
        "examples": tuple(name for name in worst if failed[name] > 0),
    }  # fmt: skip
    return gap.model_copy(update=changes)
