"""Use cases: what is wanted of a model, as versioned data.

A changed requirement is a new version; the same content is the same version. Loosening what a model in production
was held to waits for a person where policy says so: until then the version before it stays in force.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypedDict

from pydantic import BaseModel, ConfigDict, Field

from speciate.errors import Call, Code, SpeciateError, unknown
from speciate.refs import check_name, dataset_ref, model_ref
from speciate.sample_size import to_show_target
from speciate.vocabulary import Family, Metric, find_metric, find_task, metrics_of
from speciate.workspace.database import Database, Row, Transaction

ACTIVE, NEEDS_APPROVAL = "active", "needs_approval"
COLUMN, CONSTANT, NEAREST = "column:", "constant:", "nearest:"
"""Answers that are not a model's: those stored in a column, the best constant by the metric, and those of the nearest
training rows."""

NOT_WORSE_MARGIN = 0.02
"""How much worse counts as not worse, for metrics between 0 and 1 ..."""
NOT_WORSE_SHARE = 0.05
"""... and, for metrics without bounds, as a share of the baseline's value."""

_NEWEST = (
    "SELECT spec, version, created FROM use_cases WHERE name = ? AND state = 'active' ORDER BY version DESC LIMIT 1"
)
_IN_FORCE = """
SELECT spec, version, created FROM use_cases WHERE state = 'active'
QUALIFY row_number() OVER (PARTITION BY name ORDER BY version DESC) = 1 ORDER BY name
"""
_VERSION = "SELECT spec, version, created FROM use_cases WHERE name = ? AND version = ?"
_LAST = "SELECT spec, version, created, state FROM use_cases WHERE name = ? ORDER BY version DESC LIMIT 1"
_STARTED = "SELECT min(created) FROM use_cases WHERE name = ?"
_NAMES = "SELECT DISTINCT name FROM use_cases ORDER BY name"
_INSERT = "INSERT INTO use_cases VALUES (?, ?, ?, ?, ?)"
_ACTIVATE = "UPDATE use_cases SET state = 'active' WHERE name = ? AND version = ?"
_MANIFESTS = "SELECT version, manifest FROM dataset_versions WHERE name = ? AND version IN (?, ?)"
_MODEL_OF_NAME = "SELECT count(*) FROM model_versions WHERE name = ?"
_IN_PRODUCTION = "SELECT model FROM aliases WHERE use_case = ? AND alias = 'production'"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Aim = Literal["pass", "best"]


class Objective(_Frozen):
    metric: str = Field(description="list_options(kind='metric')")
    target: float | None = Field(None, description="None: only beat the incumbent.")
    aim: Aim = Field("pass", description="best: use the whole budget.")


class UseCaseLimits(_Frozen):
    p95_latency_ms: float | None = Field(None, gt=0, description="Of one example, warm.")
    usd_per_1k: float | None = Field(None, gt=0, description="Per 1,000 examples.")
    max_parameters: int | None = Field(None, gt=0)
    max_memory_mb: float | None = Field(None, gt=0)
    licenses: tuple[str, ...] = Field((), description="SPDX ids.")
    offline: bool = Field(False, description="Needs no network.")


class Gate(_Frozen):
    """One condition that a candidate must meet. `metric` None is the objective's.

    reaches: value or better, by the interval. not_worse, better: than the incumbent, by the paired interval, allowing a
    margin or asking for a gain of `value`. better_if_dearer: as better, where the candidate costs more. at_most: one of
    p95_latency_ms, usd_per_1k, parameters, memory_mb. license, offline: from the model's card. unseen: nothing that it
    is judged by was in its training data; always in force; if_unknown: of a published model a person is asked
    (default), or it is refused or accepted. no_slice_worse: as not_worse, for each value of `column`. consent: `column`
    of the training data says yes. fresh_rows: on rows that judged others before, all holds at a stricter level; always
    in force. free_method: with nothing in use, the nearest neighbour is not surely better; always in force.
    """

    rule: Literal[
        "reaches", "not_worse", "better", "better_if_dearer", "at_most", "license", "offline", "unseen",
        "no_slice_worse", "fresh_rows", "free_method", "consent",
    ]  # fmt: skip
    metric: str | None = None
    value: float | None = None
    column: str | None = None
    if_unknown: Literal["ask", "refuse", "accept"] | None = None


class Suites(_Frozen):
    """Datasets: core (verdicts rest on it), heldout and regression (where a candidate may not be worse)."""

    core: str | None = None
    heldout: str | None = None
    regression: str | None = None

    @property
    def further(self) -> tuple[str, ...]:
        return tuple(name for name in ("heldout", "regression") if getattr(self, name))


class Definition(_Frozen):
    """What the user writes of a use case."""

    name: str
    task: str
    objective: Objective
    target_column: str | None = None
    positive_label: str | None = None
    limits: UseCaseLimits = UseCaseLimits()
    incumbent: str | None = None
    gates: tuple[Gate, ...] = ()
    suites: Suites = Suites()
    description: str = ""


class UseCase(Definition):
    version: int
    created: float

    @property
    def metric(self) -> Metric:
        return find_metric(self.objective.metric)

    @property
    def in_force(self) -> tuple[Gate, ...]:
        """The gates of objective and limits, and the user's, which replace those of the same rule and metric."""
        return gates_in_force(self)

    def gates_on(self, suite: str) -> tuple[Gate, ...]:
        """Gates that are applied on one of its suites: beside the core a candidate must only not be worse."""
        kept = ("unseen", "not_worse", "no_slice_worse")
        return self.in_force if suite == "core" else tuple(gate for gate in self.in_force if gate.rule in kept)


class DefineResult(NamedTuple):
    use_case: UseCase
    state: str
    clock_started_at: float
    changed: tuple[str, ...]
    """`objective.target: 0.9 -> 0.85`, against the version in force; empty for the first."""
    loosened: tuple[str, ...]
    """Those changes among `changed` that ask less of a model."""

    @property
    def needed_test_examples(self) -> int | None:
        """Test rows that the metric counts: no dataset says yet which share of all rows each label has."""
        return to_show_target(self.use_case.metric, self.use_case.objective.target)


# Reading


def names(reader: Database | Transaction) -> list[str]:
    return [name for (name,) in reader.read(_NAMES)]


def get(reader: Database | Transaction, name: str, version: int | None = None) -> UseCase:
    """The version in force, or the one asked for. Raises NOT_FOUND with near names."""
    rows = reader.read(_NEWEST, [name]) if version is None else reader.read(_VERSION, [name, version])
    if rows:
        return _use_case(rows[0])
    known = names(reader)
    if name in known:
        raise SpeciateError(
            Code.NOT_FOUND,
            f"The use case {name!r} has no version {version or 'in force'}.",
            next=[Call("get_status", {"use_case": name})],
        )
    raise unknown("use case", name, known, "Call define_use_case, or get_status() for the use cases there are.")


def in_force(reader: Database | Transaction) -> dict[str, UseCase]:
    """The version in force of each use case, by name."""
    return {found.name: found for row in reader.read(_IN_FORCE) if (found := _use_case(row))}


def serving(reader: Database | Transaction, name: str) -> str | None:
    """The model behind NAME@production, or None."""
    rows = reader.read(_IN_PRODUCTION, [name])
    return str(rows[0][0]) if rows else None


def incumbent_of(reader: Database | Transaction, use_case: UseCase) -> str:
    """What is used today: production, else what the definition names, else the constant answer."""
    return serving(reader, use_case.name) or use_case.incumbent or CONSTANT


# Writing


def define(tx: Transaction, definition: Definition, *, policy: Literal["auto", "person"] = "person") -> DefineResult:
    """Store a use case or its next version; the same content again changes nothing.

    Where the change loosens what production is held to and the policy is a person's, the new version is stored as
    `needs_approval` and is not in force. Raises INVALID or NOT_FOUND for what does not fit together, CONFLICT for
    a name that a model has.
    """
    check(definition)
    name = definition.name
    if tx.execute(_MODEL_OF_NAME, [name])[0][0]:
        raise SpeciateError(
            Code.CONFLICT,
            f"{name!r} is the name of a model; use cases and models share their names.",
            "Call again with another name.",
        )
    last = tx.execute(_LAST, [name])
    if not last:
        use_case = UseCase(**definition.model_dump(), version=1, created=tx.now)
        _store(tx, use_case, ACTIVE, "use_case.created", {})
        return DefineResult(use_case, ACTIVE, tx.now, (), ())
    started: float = tx.execute(_STARTED, [name])[0][0]
    current = get(tx, name)
    changed, loosened = changes(current, definition), loosenings(current, definition, tx)
    if _definition(last[0]) == definition:
        return DefineResult(_use_case(last[0]), last[0][3], started, changed, loosened)
    waits = bool(loosened) and policy == "person" and serving(tx, name) is not None
    state = NEEDS_APPROVAL if waits else ACTIVE
    use_case = UseCase(**definition.model_dump(), version=last[0][1] + 1, created=tx.now)
    _store(tx, use_case, state, "use_case.changed", {"changed": changed, "loosened": loosened})
    return DefineResult(use_case, state, started, changed, loosened)


class ActivatedUseCase(TypedDict):
    use_case: str
    version: int
    state: str


def apply_approved(tx: Transaction, arguments: Mapping[str, Any], by: str) -> ActivatedUseCase:
    """Put a version in force that a person approved. Raises CONFLICT where a newer one was defined since."""
    name, version = arguments["use_case"], arguments["version"]
    newest = tx.execute(_LAST, [name])[0][1]
    if newest != version:
        raise SpeciateError(
            Code.CONFLICT,
            f"Version {version} of {name!r} is no longer the newest: version {newest} was defined since.",
            "Call define_use_case again with what is wanted now.",
        )
    tx.execute(_ACTIVATE, [name, version])
    tx.event(f"use_case:{name}", "use_case.changed", {"version": version, "state": ACTIVE, "approved_by": by})
    return {"use_case": name, "version": version, "state": ACTIVE}


# Checking


def check(definition: Definition) -> None:
    """Raise INVALID or NOT_FOUND where parts of the definition are unknown or do not fit together."""
    check_name("use case", definition.name)
    family = find_task(definition.task).family
    metric = find_metric(definition.objective.metric)
    _check_metric(metric, definition, family)
    _check_target(metric, definition.objective.target)
    for gate in definition.gates:
        _check_gate(gate, definition, family)
    for role, suite in definition.suites.model_dump(exclude_none=True).items():
        if (split := dataset_ref(suite).split) in ("train", "validation"):
            raise SpeciateError(
                Code.INVALID,
                f"suites.{role} is {suite!r}: models learn from the split 'train' and are chosen on 'validation', so "
                f"no verdict can rest on {split!r}.",
                f"Call define_use_case again with suites={{{role!r}: '{dataset_ref(suite).name}:test'}}.",
            )
    incumbent = definition.incumbent
    if incumbent is not None and incumbent != CONSTANT and not incumbent.startswith(COLUMN):
        model_ref(incumbent)


def _check_metric(metric: Metric, definition: Definition, family: Family) -> None:
    if family not in metric.families:
        fitting = ", ".join(metrics_of(family, "any"))
        raise SpeciateError(
            Code.INVALID,
            f"The metric {metric.name!r} measures {' and '.join(metric.families)}, but the task {definition.task!r} is "
            f"{family}.",
            f"Call define_use_case again with one of: {fitting}.",
        )
    if metric.positive and definition.positive_label is None:
        raise SpeciateError(
            Code.INVALID,
            f"The metric {metric.name!r} is about one label, and positive_label is missing.",
            "Call define_use_case again with positive_label set to the label that must be found.",
        )


def _check_target(metric: Metric, target: float | None) -> None:
    low, high = metric.low, metric.high
    fits = target is None or (
        math.isfinite(target) and (low is None or target >= low) and (high is None or target <= high)
    )
    if not fits:
        bounds = f"{'any' if low is None else low} and {'any' if high is None else high}"
        raise SpeciateError(
            Code.INVALID,
            f"The target {target} cannot be reached: {metric.name} lies between {bounds}.",
            "Call define_use_case again; a share is written as 0.95, not 95.",
        )


WITH_COLUMN = ("no_slice_worse", "consent")
"""Gates about a column: of the rows that models are judged on, and of those that they learned from."""
_MEASURES = ("p95_latency_ms", "usd_per_1k", "parameters", "memory_mb")


def _check_gate(gate: Gate, definition: Definition, family: Family) -> None:
    if (gate.rule in WITH_COLUMN) != (gate.column is not None):
        raise SpeciateError(
            Code.INVALID,
            f"The gate {gate.rule!r} has column={gate.column!r}: {' and '.join(map(repr, WITH_COLUMN))} need "
            "one, no other gate takes one.",
            "Call again with a column of the dataset in it ('label': the label), or without.",
        )
    if gate.if_unknown is not None and gate.rule not in ("unseen", "consent"):
        raise SpeciateError(
            Code.INVALID,
            f"The gate {gate.rule!r} has if_unknown={gate.if_unknown!r}, which only 'unseen' and 'consent' take.",
            "Call again with {'rule': 'unseen', 'if_unknown': 'ask'}, or without it.",
        )
    if gate.rule in ("license", "offline", "unseen", "fresh_rows", "free_method", "consent"):
        return
    if gate.rule == "at_most" and gate.metric not in _MEASURES:
        raise unknown("measure", str(gate.metric), _MEASURES, "A gate 'at_most' takes one of them as metric.")
    if gate.rule in ("at_most", "reaches") and gate.value is None:
        raise SpeciateError(
            Code.INVALID, f"The gate {gate.rule!r} has no value to hold against.", "Call again with a value in it."
        )
    if gate.rule != "at_most" and gate.metric is not None:
        _check_metric(find_metric(gate.metric), definition, family)


# Gates

CONSENT = "consent"
"""Name of the column that says whether whoever is heard agreed, where a use case names no other one."""
_YES = ("yes", "true", "1", "given", "granted")
OF_VOICES = Gate(rule="consent", column=CONSENT, if_unknown="ask")
"""In force wherever speech is made, unless the use case has a gate `consent` of its own."""


def says_yes(cell: object) -> bool:
    """Whether a cell of a column about consent says that it was given."""
    return str(cell).strip().lower() in _YES


def gates_in_force(definition: Definition) -> tuple[Gate, ...]:
    """Objective and limits as gates, then the comparison with the incumbent, consent where speech is made, then the
    user's own."""
    objective, limits = definition.objective, definition.limits
    gates = [Gate(rule="reaches", value=objective.target)] if objective.target is not None else []
    gates += [Gate(rule="unseen"), Gate(rule="not_worse"), Gate(rule="better_if_dearer")]
    ceilings = {
        "p95_latency_ms": limits.p95_latency_ms,
        "usd_per_1k": limits.usd_per_1k,
        "parameters": limits.max_parameters,
        "memory_mb": limits.max_memory_mb,
    }
    gates += [Gate(rule="at_most", metric=name, value=value) for name, value in ceilings.items() if value is not None]
    if limits.licenses:
        gates.append(Gate(rule="license"))
    if limits.offline:
        gates.append(Gate(rule="offline"))
    speaks = find_task(definition.task).family == "speech-synthesis"
    if speaks and all(gate.rule != "consent" for gate in definition.gates):
        gates.append(OF_VOICES)
    own = {(gate.rule, gate.metric, gate.column): gate for gate in definition.gates}
    kept = [gate for gate in gates if (gate.rule, gate.metric, gate.column) not in own]
    return (*kept, *own.values())


# Changes


def changes(before: Definition, after: Definition) -> tuple[str, ...]:
    """Each changed field as `path: old -> new`."""
    old, new = _flatten(before), _flatten(after)
    return tuple(
        f"{path}: {_json(old.get(path))} -> {_json(new.get(path))}"
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    )


def _json(value: object) -> str:
    """As it was written: names and descriptions are in any language."""
    return json.dumps(value, ensure_ascii=False)


_HARMLESS = ("description", "incumbent")
_LOWER_IS_TIGHTER = ("limits.p95_latency_ms", "limits.usd_per_1k", "limits.max_parameters", "limits.max_memory_mb")


def loosenings(
    before: Definition, after: Definition, reader: Database | Transaction | None = None
) -> tuple[str, ...]:  # fmt: skip
    """The changes that are not surely at least as strict as before: whatever cannot be compared counts as loosening.
    With a `reader` suites can be: one that only grew is as strict."""
    old, new = _flatten(before), _flatten(after)
    paths = sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))
    sign = find_metric(before.objective.metric).sign
    return tuple(
        path
        for path in paths
        if not _is_tighter(path, old.get(path), new.get(path), sign)
        and not (reader is not None and path.startswith("suites.") and has_grown(reader, old.get(path), new.get(path)))
    )


def has_grown(reader: Database | Transaction, old: object, new: object) -> bool:
    """Whether a suite is a later version of the same split of the same dataset that holds all of its files as they
    were: rows were added, and none was changed or removed."""
    if not isinstance(old, str) or not isinstance(new, str):
        return False
    before, after = dataset_ref(old), dataset_ref(new)
    if (before.name, before.split) != (after.name, after.split) or before.version is None or after.version is None:
        return False
    rows: dict[int, str] = dict(reader.read(_MANIFESTS, [before.name, before.version, after.version]))
    if len(rows) < 2 or after.version < before.version:
        return False
    parts = {version: [_part(each) for each in json.loads(text)["parts"]] for version, text in rows.items()}
    return all(part in parts[after.version] for part in parts[before.version])


def _part(part: Mapping[str, Any]) -> tuple[object, ...]:
    return part["file"], part["rows"], json.dumps(part.get("removed"))


def _is_tighter(path: str, old: Any, new: Any, sign: int) -> bool:
    if path in _HARMLESS:
        return True
    if path == "objective.target":
        return new is not None and (old is None or sign * (new - old) > 0)
    if path in _LOWER_IS_TIGHTER:
        return new is not None and (old is None or new < old)
    if path == "limits.licenses":
        return bool(new) and (not old or set(new) < set(old))
    if path == "limits.offline":
        return bool(new)
    return path.startswith("suites.") and old is None


def _flatten(definition: Definition) -> dict[str, object]:
    fields = Definition.model_fields.keys()
    document = definition.model_dump(mode="json", include=set(fields))
    flat: dict[str, object] = {}
    for key, value in document.items():
        flat |= {f"{key}.{inner}": item for inner, item in value.items()} if isinstance(value, dict) else {key: value}
    return flat


# Rows


def _definition(row: Row) -> Definition:
    return Definition.model_validate_json(row[0])


@functools.lru_cache(maxsize=4096)
def _use_case(row: Row) -> UseCase:
    """A row never changes, and neither does what it becomes."""
    return UseCase(**_definition(row).model_dump(), version=row[1], created=row[2])


def _store(tx: Transaction, use_case: UseCase, state: str, event: str, data: Mapping[str, object]) -> None:
    spec = use_case.model_dump_json(include=set(Definition.model_fields))
    tx.execute(_INSERT, [use_case.name, use_case.version, spec, state, use_case.created])
    tx.event(f"use_case:{use_case.name}", event, {"version": use_case.version, "state": state, **data})
