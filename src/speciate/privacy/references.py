"""Which jobs name a dataset or a model (in spec, plan or result), and which models were made from which."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.jobs.job import ENDED, StoredSpec
from speciate.models.model_card import ModelCard
from speciate.workspace.database import Database, Transaction

PURGE_KINDS = ("forget", "erase", "gc")
"""Kinds that take things away."""
_FIELDS = {"dataset", "parent", "parents", "ref", "core", "heldout", "regression"}
"""Fields of specs, plans and results that hold refs of datasets."""
_CARDS = "SELECT card FROM model_versions ORDER BY created, name, version"
_MANIFEST = {"name", "version", "parts"}
_JOBS = """
SELECT jobs.id, jobs.kind, jobs.state, jobs.attempt, jobs.executor, jobs.spec, jobs.result, job_plans.plan
FROM jobs LEFT JOIN job_plans ON job_plans.job = jobs.id
WHERE (executor = 'local' AND state IN ('failed', 'cancelled', 'dead')) OR EXISTS (
    SELECT 1 FROM unnest(?::VARCHAR[]) AS wanted(name)
    WHERE contains(spec, name) OR contains(coalesce(result, ''), name) OR contains(coalesce(plan, ''), name)
)
ORDER BY jobs.created, jobs.id
"""


class JobReference(NamedTuple):
    id: str
    kind: str
    state: str
    attempts: int
    spec: StoredSpec
    named: bool
    """Whether it speaks of one of the names; an ended run that failed is listed in any case."""

    @property
    def ended(self) -> bool:
        return self.state in ENDED


def jobs_naming(reader: Database | Transaction, names: Collection[str]) -> list[JobReference]:
    """Oldest first: the jobs that name one of `names` or a version of it, and the runs that did not succeed."""
    rows = reader.read(_JOBS, [sorted(names)])
    found = []
    for id, kind, state, attempts, executor, *texts in rows:  # noqa: A001 - the column
        documents = [json.loads(text) for text in texts if text and any(name in text for name in names)]
        named = any(_refers_to(ref, names) for document in documents for ref in dataset_refs(kind, document))
        failed = executor == "local" and state in ENDED and state != "succeeded"
        if named or failed:
            found.append(JobReference(id, kind, state, attempts, json.loads(texts[0]), named))
    return found


def unfinished_jobs(reader: Database | Transaction, names: Collection[str]) -> list[JobReference]:
    """Jobs that have not ended and work with one of `names`; not those that take things away."""
    return [job for job in jobs_naming(reader, names) if job.named and not job.ended and job.kind not in PURGE_KINDS]


class Origins(NamedTuple):
    """What a model version came from."""

    card: ModelCard
    datasets: frozenset[str]
    """Versions that it was trained on, `name@v3`."""
    made_from: tuple[str, ...]
    """Its base model, and all texts of its recipe: the refs among them are models that it was made from."""


def model_origins(tx: Transaction) -> list[Origins]:
    """Origins of every model version, oldest first: a model comes after those that it was made from."""
    found = []
    for (text,) in tx.execute(_CARDS):
        card = ModelCard.model_validate_json(text)
        datasets = frozenset((ref or "").partition(":")[0] for ref in (card.dataset, *card.beside))
        found.append(Origins(card, datasets, (card.base_model or "", *string_values(card.recipe))))
    return found


def describe_jobs(found: Collection[JobReference]) -> str:
    return ", ".join(f"{job.id} ({job.kind}, {job.state})" for job in found)


def refuse_busy(reader: Database | Transaction, names: Collection[str]) -> None:
    """Raise CONFLICT where a job that has not ended works with one of `names`."""
    if found := unfinished_jobs(reader, names):
        raise SpeciateError(
            Code.CONFLICT,
            f"Jobs that have not ended work with {', '.join(sorted(names))}: {describe_jobs(found)}.",
            f"Call wait_for_job(job={found[0].id!r}), or control_job(action='cancel'); then call manage_data again.",
        )


def dataset_refs(kind: str, document: Any, *, field: bool = False) -> Iterator[str]:
    """The datasets that a job's spec, plan or result works with: what fields for refs hold, and names of manifests.

    Anything else may be called like a dataset: a column, a class, a model.
    """
    if isinstance(document, str) and field:
        yield document
    elif isinstance(document, dict) and document.keys() >= _MANIFEST:
        yield document["name"]
    elif isinstance(document, dict):
        for name, value in document.items():
            yield from dataset_refs("", value, field=name in _FIELDS or (kind == "ingest" and name == "name"))
    elif isinstance(document, list):
        for value in document:
            yield from dataset_refs("", value, field=field)


def string_values(document: Any) -> Iterator[str]:
    """Every string value of a JSON document, at any depth."""
    if isinstance(document, str):
        yield document
    elif isinstance(document, dict):
        for value in document.values():
            yield from string_values(value)
    elif isinstance(document, list):
        for value in document:
            yield from string_values(value)


def _refers_to(text: str, names: Collection[str]) -> bool:
    """`name`, `name@v3`, `name@TAG`, `name:test`."""
    return any(text == name or text.startswith((f"{name}@", f"{name}:")) for name in names)
