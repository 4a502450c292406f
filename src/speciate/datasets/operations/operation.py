"""An operation: a name, parameters, and a pure function from the rows of a version to other rows.

An operation gets the whole table, rows of every quality, sorted by id. Rows that are missing in its result leave the
version. It is repeatable: the same rows and parameters give the same result, and randomness comes from a seed among the
parameters. It reads nothing but its arguments; the context does everything else for it.

Below: checks before a row is read, masks of rows, columns that say which model or rule made a value, and the parts of
mixed rows. `made_by`, `made_from` and `how` stand in rows that an operation made; values that it only adds to an
example have columns of their own, `NAME_made_by` and so on, so that several models can answer the same rows. All of
them are user columns: `filter(where="made_by IS NULL")` removes all generated rows, and no model sees them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from speciate.datasets.columns import FINGERPRINT, FIXED, SKETCH, rename, with_column
from speciate.datasets.inspect.sql_sandbox import VIEW, check, check_repeatable
from speciate.datasets.version_report import Dealing
from speciate.datasets.versions import Manifest
from speciate.errors import Call, Code, SpeciateError, closest, unknown
from speciate.jobs.allowances import Spend
from speciate.jobs.egress import Departure
from speciate.modalities.multimodal import MULTIMODAL, PartName, parse_part_names
from speciate.modalities.part_sketches import unpack_sketches
from speciate.secrets import SecretRequest
from speciate.workspace import memory_database

if TYPE_CHECKING:
    from speciate.datasets.operations.context import Context


Others = Mapping[str, Manifest]
"""Ref -> the dataset versions that parameters name."""
Reference = Literal["dataset", "model", "extractor"]
Mask = npt.NDArray[np.bool_]
Splits = tuple[str, ...]
LEARNED = ("train",)
"""Splits that cleaning touches by default: thinning out a test split would change what is measured."""
SPLITS = Field(LEARNED, min_length=1, description="Only rows of these; rows without a split count as train.")
_NUMBER = re.compile(r"DOUBLE|FLOAT|REAL")
_TREE = "SELECT json_serialize_sql(?::VARCHAR)"
_OWN_NAMES = ("LAMBDA", "SUBQUERY")
"""Expressions that bring names of their own."""
MADE_BY, MADE_FROM, HOW = "made_by", "made_from", "how"
"""A model's ref or the name of a rule; the id of the example that it was made from; settings, in words."""
OF_ROWS = (MADE_BY, MADE_FROM, HOW)
"""A model's ref or the name of a rule; the id of the original example; settings, in words."""
WHY = "why_not"
"""Suffix of the column beside a column of answers that says why an answer is missing."""
PARTS = "parts"
ROWS_CHECKED = ("id", "split", "label", "group_key", "quality", "reason", FINGERPRINT, PARTS)
"""The columns that `Operation.check_rows` sees, those that are there: none of them is large."""


class Parameters(BaseModel):
    """The parameters of a step beside `op`. Unknown ones are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Outcome(NamedTuple):
    rows: pa.Table
    audit: Mapping[str, object] = MappingProxyType({})
    """Facts about the result for people: JSON, short."""
    flagged_column: str | None = None
    """The boolean column, if it flags rows instead of leaving them out."""
    manifest: Manifest | None = None
    """The version's manifest, if packs or roles changed. Fields that follow from the rows may be stale."""
    split_made_by: str | None = None
    """How, if it made a new split."""
    dealing: Dealing = {}  # noqa: RUF012 - never changed
    """How that split was made."""
    only_removes: bool = False
    """Whether the rows that are left are as they were."""


class Outside(NamedTuple):
    """The needs of a step that asks models, settled before there is a job: consent, keys, money."""

    names: Mapping[str, Any]
    """Parameters with full names in place of the caller's."""
    payload: Mapping[str, Any]
    """JSON for the run (`Context.teacher_answers`)."""
    secrets: tuple[SecretRequest, ...] = ()
    usd: float | None = 0.0
    """Estimated cost; None if unknown."""
    spends: tuple[Spend, ...] = ()
    """Money that a person allowed."""
    departures: tuple[Departure, ...] = ()
    """Rows that leave this machine."""
    resolved: Mapping[str, Any] = MappingProxyType({})
    """For `dry_run`."""
    missing: tuple[SpeciateError, ...] = ()
    """Keys and consents without which the step may not start."""


def _no_preflight(parameters: Any, manifest: Manifest, others: Others) -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Operation:
    name: str
    what: str
    """One line, for people who choose."""
    parameters: type[BaseModel]
    apply: Callable[[pa.Table, Any, Context], Outcome]
    """Raises SpeciateError for faults that only the rows show."""
    preflight: Callable[[Any, Manifest, Others], Manifest | None] = _no_preflight
    """Refuses before anything is read, and predicts the version's manifest: its columns, packs and roles, and at least
    the labels that it will have. None if that cannot be known: then later steps are checked when they run."""
    check_rows: Callable[[pa.Table, Any, Manifest], None] | None = None
    """Refuses what the stored rows tell before the run, by `ROWS_CHECKED` of them. Asked of a first step alone."""
    unchecked: str = ""
    """What only the run can tell and may refuse, as the end of a sentence that begins with the step."""
    refers: Mapping[str, Reference] = field(default_factory=dict)
    """Which parameters name something of the workspace. They are resolved before the run: `more` becomes `more@v3`."""
    needs: tuple[str, ...] = ()
    """Libraries that it imports."""
    takes_cores: Callable[[Any], bool] = lambda parameters: False
    """Whether a step with these parameters computes on all cores of its job, for many rows."""
    outside: str = ""
    """For an operation that asks models: `module:function` of (parameters, manifest, others, workspace) -> Outside, or
    None if this step asks no model. It stands above this floor, so it is named by string."""


def refusal(message: str, recovery: str = "Call curate_dataset again with another step.") -> SpeciateError:
    return SpeciateError(Code.INVALID, message, recovery)


def usable_rows(rows: pa.Table) -> Mask:
    """(N,) rows of quality ok."""
    return np.asarray(pc.equal(rows["quality"], "ok"), bool)


def decoded_rows(rows: pa.Table) -> Mask:
    """(N,) rows that are usable, or excluded only because the label is missing: their media decoded."""
    decoded = pc.and_(pc.equal(rows["quality"], "partial"), pc.is_null(rows["label"]))
    return np.asarray(usable_rows(rows) | np.asarray(pc.and_(decoded, pc.is_valid(rows[FINGERPRINT]))), bool)


def usable_rows_in(rows: pa.Table, splits: Sequence[str]) -> Mask:
    """(N,) usable rows of these splits."""
    there = pc.is_in(pc.fill_null(rows["split"], "train"), pa.array(list(splits), pa.string()))
    return np.asarray(usable_rows(rows) & np.asarray(there), bool)


def keep_rows(rows: pa.Table, kept: Mask) -> pa.Table:
    return rows.filter(pa.array(kept))


def preflight_unchanged(parameters: Any, manifest: Manifest, others: Others) -> Manifest:
    """For operations that only leave rows out and refuse nothing beforehand."""
    return manifest


def check_column(manifest: Manifest, name: str) -> str:
    """NOT_FOUND with near names."""
    if name not in FIXED and name not in manifest.columns:
        raise unknown_column(manifest, name)
    return name


def unknown_column(manifest: Manifest, name: str) -> SpeciateError:
    known = {*FIXED, *manifest.columns}
    return unknown(
        "column", name, known, next=[Call("describe_dataset", {"dataset": manifest.name}, "for its columns")]
    )


def is_number(manifest: Manifest, name: str) -> bool:
    """Whether the column holds numbers with fractions."""
    kind = ("DOUBLE" if manifest.numeric else "VARCHAR") if name == "label" else manifest.columns.get(name, "VARCHAR")
    return bool(_NUMBER.fullmatch(kind))


def check_classes(manifest: Manifest, what: str) -> None:
    """INVALID if there are no classes."""
    if manifest.label is None:
        raise refusal(
            f"{manifest.ref} has no labels, and {what} needs them.",
            "Call label_examples, or create_dataset with label.",
        )
    if manifest.numeric:
        raise refusal(f"The labels of {manifest.ref} are numbers, and {what} is about classes.")


def check_sql(manifest: Manifest, select: str) -> None:
    """INVALID unless it is one repeatable SELECT over `examples`; NOT_FOUND for an unknown column.

    Only parses. A query that brings names of its own (subqueries, lambdas) is left to the run.
    """
    with memory_database.cursor() as connection:
        check(connection, select)
        check_repeatable(connection, select)
        tree = json.loads(connection.execute(_TREE, [select]).fetchall()[0][0])
    known = {name.lower() for name in (*FIXED, *manifest.columns, VIEW)}
    stack, named = [tree], []
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, dict):
            if node.get("class") in _OWN_NAMES or (isinstance(map_ := node.get("cte_map"), dict) and map_.get("map")):
                return
            if node.get("class") == "COLUMN_REF":
                named.append([str(part) for part in node.get("column_names", ())])
            stack.extend(node.values())
    for parts in named:
        if not any(part.lower() in known for part in parts):
            raise unknown_column(manifest, parts[-1])


def provenance_columns(column: str) -> tuple[str, str, str]:
    """Names of the columns that say who made the values of `column`, how, and why some are missing."""
    return f"{column}_{MADE_BY}", f"{column}_{HOW}", f"{column}_{WHY}"


def declare_columns(manifest: Manifest, names: Mapping[str, str]) -> Manifest:
    """The manifest with these columns (name -> type).

    INVALID for a name that cannot be the user's, that plays a role, or that SQL could not tell from another.
    """
    for name in names:
        if rename([name])[name] != name:
            raise refusal(f"{name!r} cannot name a column of yours.", "Call again with another column.")
        if name in manifest.inputs or name == manifest.label:
            role = "an input" if name in manifest.inputs else "where the label comes from"
            raise refusal(f"The column {name!r} is {role}, which cannot be replaced.", "Call again with another one.")
        twin = next((other for other in manifest.columns if other.lower() == name.lower() and other != name), None)
        if twin is not None:
            raise refusal(f"SQL cannot tell {name!r} from the column {twin!r}.", "Call again with another column.")
    return manifest.model_copy(update={"columns": {**manifest.columns, **names}})


def fill_column(
    rows: pa.Table, name: str, places: Sequence[int], values: Sequence[object], kind: pa.DataType
) -> pa.Table:
    """Writes values at these positions of the column; elsewhere the old values stay, or null."""
    cells = rows[name].to_pylist() if name in rows.column_names else [None] * rows.num_rows
    if name in rows.column_names and rows.schema.field(name).type != kind:
        kind = pa.string() if any(cell is not None for cell in cells) else kind
    for place, value in zip(places, values, strict=True):
        cells[place] = value
    if pa.types.is_string(kind):
        cells = [None if cell is None else str(cell) for cell in cells]
    return with_column(rows, name, pa.array(cells, kind))


def without_generated_evaluation_rows(rows: pa.Table) -> tuple[pa.Table, int]:
    """Removes rows made from another example in validation and test; returns how many those were."""
    if MADE_FROM not in rows.column_names or not pa.types.is_string(rows.schema.field(MADE_FROM).type):
        return rows, 0
    of_another = pc.and_(rows[MADE_FROM].is_valid(), pc.not_equal(rows[MADE_FROM], rows["id"]))
    known = pc.is_in(rows[MADE_FROM], rows["id"].combine_chunks())
    evaluation = pc.is_in(rows["split"], pa.array(["validation", "test"]))
    left = pc.fill_null(pc.and_(pc.and_(of_another, known), evaluation), False)
    return rows.filter(pc.invert(left)), int(pc.sum(left).as_py() or 0)


def check_part_allowed(part: str | None, modality: str) -> None:
    """INVALID if a part is named and the examples have no parts."""
    if part is not None and modality != MULTIMODAL.name:
        raise SpeciateError(
            Code.INVALID,
            f"part={part!r} names a part, and examples of {modality} have none.",
            "Call again without part.",
        )


def parts_of(rows: pa.Table) -> list[PartName]:
    """The parts that any row has, by name."""
    if PARTS not in rows.column_names:
        return []
    return sorted({part for cell in pc.unique(rows[PARTS]).to_pylist() if cell for part in parse_part_names(cell)})


def find_part(rows: pa.Table, name: str) -> PartName:
    """The part of this name, INVALID if no row has it."""
    known = {part.own: part for part in parts_of(rows)}
    if name not in known:
        raise SpeciateError(
            Code.INVALID,
            f"No usable example has a part {name!r}; {closest(name, known)}",
            f"Call again with part as one of {', '.join(known)}." if known else "Call again without part.",
        )
    return known[name]


def rows_with_part(rows: pa.Table, part: PartName) -> npt.NDArray[np.bool_]:
    """(N,) which rows have the part."""
    cells = rows[PARTS].combine_chunks().dictionary_encode()
    has = np.array([part in parse_part_names(cell) for cell in cells.dictionary.to_pylist()] + [False], bool)
    found: npt.NDArray[np.bool_] = has[np.asarray(pc.fill_null(cells.indices.cast(pa.int64()), len(has) - 1))]
    return found


def part_digests(rows: pa.Table, part: PartName) -> list[bytes | None]:
    """(N,) equal for parts with the same fingerprint; None if the part is missing or was cut."""
    sketches: Sequence[bytes | None] = rows[SKETCH].to_pylist()
    found = [None if sketch is None else unpack_sketches(sketch).get(str(part)) for sketch in sketches]
    return [None if each is None else each.digest for each in found]
