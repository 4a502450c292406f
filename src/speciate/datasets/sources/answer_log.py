"""The log of a use case as a source: `log:USE_CASE`, its inputs as rows or files, the right outputs as their labels,
and the model version and time of each answer.

    log:triage                           every answer that is kept, labelled or not
    log:triage?labelled=true             those that somebody labelled
    log:triage?model=triage-model@v3     of one version
    log:triage?since=2026-11-01&until=2026-12-01
    log:triage?labelled=true&part=train  what may be learned from, in the splits train and validation
    log:triage?labelled=true&part=judge  what may judge, in the split test; `group=COLUMN` names the groups of both
    log:triage?labelled=true&part=train&taught=JOB   with what a teacher labelled in that job (loop/watch/teach.py)

Only answers that were drawn at random judge: those that were asked about for their doubt are harder than the rest. On
which of the two sides an answer lies follows from its group alone (without one, from its content), so a later answer of
a group that was learned from never judges. The column `drawn` says how each answer came to its label. What feedback
claims of itself counts for nothing there: an answer was drawn at random where the episode of a watch asked about it so
(`label_requests`), or where the random order itself says so (`quality.drawn_in_order`).

The label comes from a person, else an agent, else a system, else (only in the split train, of no group that judges) a
teacher; never from the model's answer. The source is written like
our own export (own_export.py), which says which columns a model may see: the answer is not among them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import parse_qsl

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.columns import array
from speciate.datasets.readers.rows import Row
from speciate.datasets.sources.listing import ExcludedFile
from speciate.datasets.sources.own_export import MARKER, Marker
from speciate.errors import Code, SpeciateError
from speciate.predictions import feedback, reading
from speciate.predictions.log_files import LogFolder, log_folder
from speciate.predictions.random_labels import drawn_at_random
from speciate.predictions.reading import LoggedAnswer, StoredFeedback
from speciate.refs import check_name
from speciate.settings import load
from speciate.workspace import integrity
from speciate.workspace.database import Database
from speciate.workspace.workspace import Folders

KIND = "log"
_REQUESTED = "SELECT prediction FROM label_requests WHERE use_case = ? AND drawn = 'random' ORDER BY prediction"
LABEL = "label"
_FORM = "log:USE_CASE?labelled=true&model=NAME@v3&since=2026-11-01&until=2026-12-01"
_KNOWN = {"labelled", "model", "since", "until", "part", "group", "arrived", "taught"}
TEACHER = "model"
"""The label source of what a teacher labelled."""
_MARKED = ("prediction", "predicted", "predicted_by", "predicted_at", "confidence", "label_source", "drawn")
"""The origin of a row: columns beside its inputs."""


JUDGES, VALIDATES = 0.5, 0.6
"""Shares of the groups that judge, and up to which the next validate; the rest is learned from."""
Part = Literal["train", "judge"]


class LogQuery(NamedTuple):
    use_case: str
    labelled: bool = False
    model: str | None = None
    since: float = 0.0
    until: float = float("inf")
    part: Part | None = None
    group: str | None = None
    """Column of the rows that names their groups."""
    arrived: str | None = None
    """What the column of this name says of each row: in which episode it came."""
    taught: str | None = None
    """The job in which a teacher labelled some."""


class LoggedExample(NamedTuple):
    answer: LoggedAnswer
    label: Any
    label_source: str | None
    drawn: str | None = None
    """`random`, `uncertain` or `disagreement`, as the queue asked about it; None: nobody asked."""


def parse(source: str) -> LogQuery:
    """Raises INVALID for a malformed source of this kind."""
    name, _, parameters = source.removeprefix(f"{KIND}:").partition("?")
    fields = dict(parse_qsl(parameters, keep_blank_values=True))
    if strange := sorted(set(fields) - _KNOWN):
        raise _source_error(source, f"there is no {strange[0]!r}")
    if fields.get("labelled", "false") not in ("true", "false"):
        raise _source_error(source, "labelled is true or false")
    if fields.get("part", "train") not in ("train", "judge"):
        raise _source_error(source, "part is train or judge")
    return LogQuery(
        check_name("use case", name),
        fields.get("labelled") == "true",
        fields.get("model"),
        _moment(source, fields["since"]) if "since" in fields else 0.0,
        _moment(source, fields["until"]) if "until" in fields else float("inf"),
        cast(Part | None, fields.get("part")),
        fields.get("group"),
        fields.get("arrived"),
        fields.get("taught"),
    )


def taught_file(log: LogFolder, job: str) -> Path:
    """Where the labels lie that a teacher gave in a job. A purge of answers removes the folder."""
    return log.watched / "taught" / f"{check_name('job', job)}.parquet"


def _taught(log: LogFolder, query: LogQuery) -> dict[str, Any]:
    """Prediction -> the teacher's label. A part that judges has none."""
    if query.taught is None or query.part != "train":
        return {}
    try:
        table = integrity.read_table(taught_file(log, query.taught), "With it, labels of a teacher are lost.", "")
    except FileNotFoundError:  # purged since: then it taught nothing
        return {}
    return {name: json.loads(label) for name, label in zip(*table.select(["prediction", "label"]).to_pydict().values(),
                                                           strict=True)}  # fmt: skip


def check(source: str, folders: Folders | None = None) -> None:
    """Refuses at once an invalid source. Raises INVALID, or NOT_FOUND if that use case has no log."""
    query = parse(source)
    if folders is not None and not log_folder(folders, query.use_case).path.exists():
        raise _empty_error(query)


def requested_at_random(source: str, database: Database) -> tuple[str, ...]:
    """Answers about which episodes of the watch of this log asked, drawn at random."""
    return tuple(row[0] for row in database.read(_REQUESTED, [parse(source).use_case]))


def write(
    source: str, folders: Folders, target: Path, label: str | None, column: str | None = None, *, now: float,
    requested: Collection[str] = (),
) -> list[ExcludedFile]:  # fmt: skip
    """Writes the source into the empty folder `target`; returns the excluded answers.

    `label`: the name of the label column. `column`: the only input column, if there is one: a text input becomes a cell
    of it. `now`: by the workspace's clock, which dated the answers. `requested`: what episodes of its watch asked about
    at random. Raises NOT_FOUND if the log holds no such answers.
    """
    query = parse(source)
    log = log_folder(folders, query.use_case)
    retention = load(folders.root).log.of(query.use_case).retention_days
    since = max(query.since, reading.retention_start(now, retention))
    taken, excluded = examples(log, query._replace(since=since), column, requested)
    if query.part is not None:
        taken = [each for each in taken if split_of(each, query) is not None]
    if not taken:
        raise _empty_error(query)
    label = label or LABEL
    if taken[0].answer.input and "data" in taken[0].answer.input:
        excluded += _write_files(taken, log, target, label, query)
    else:
        _write_rows(taken, target, label, column or "text", query)
    return excluded


def examples(
    log: LogFolder, query: LogQuery, column: str | None = None, requested: Collection[str] = ()
) -> tuple[list[LoggedExample], list[ExcludedFile]]:
    """Answers whose input was kept, of the most frequent form; oldest first.

    Texts are rows if `column` is given.
    """
    if not log.path.exists():
        return [], []
    rows = reading.answers(log, since=query.since, models=[query.model] if query.model else ())
    given = feedback.latest_by_source(reading.feedback(log, since=query.since))
    at_random = drawn_at_random(log, query.since, given, requested)
    taught = _taught(log, query)
    found, excluded = list[LoggedExample](), list[ExcludedFile]()
    for row in rows.to_pylist():
        answer = reading.to_logged_answer(row)
        label = feedback.prevailing_label(given.get(answer.id, {}))
        by_teacher = label is None and answer.id in taught
        if answer.at >= query.until or (query.labelled and label is None and not by_teacher):
            continue
        if answer.error:
            excluded.append(ExcludedFile(answer.id, "It could not be answered."))
        elif not answer.input:
            excluded.append(
                ExcludedFile(answer.id, f"Its input was not kept: {'; '.join(answer.left_out) or 'unknown'}.")
            )
        elif "parts" in answer.input:
            excluded.append(ExcludedFile(answer.id, "It is a mixed row; those are not taken from a log yet."))
        elif by_teacher:
            found.append(LoggedExample(answer, taught[answer.id], TEACHER))
        else:
            found.append(LoggedExample(answer, *_said(label, answer.id in at_random)))
    forms = Counter(_form(each, column) for each in found)
    if forms:
        usual = forms.most_common(1)[0][0]
        excluded += [
            ExcludedFile(each.answer.id, "Its input has another form.")
            for each in found
            if _form(each, column) != usual
        ]
        found = [each for each in found if _form(each, column) == usual]
    return found, excluded


def _said(label: StoredFeedback | None, at_random: bool) -> tuple[Any, str | None, str | None]:
    """The label, whose it is, and how the answer came to it. What claims to be a random draw and is none was drawn in a
    way that nobody knows."""
    if label is None:
        return None, None, None
    return label.label, label.source, "random" if at_random else None if label.drawn == "random" else label.drawn


def split_of(example: LoggedExample, query: LogQuery) -> str | None:
    """Where an answer lies in its part; None: in the other part, or in none. Pure: it follows from the group, or where
    there is none from the content. Of a group that judges nothing is learned."""
    kept = example.answer.input or {}
    group = (kept.get("row") or {}).get(query.group) if query.group else None
    content = kept["data"]["sha256"] if "data" in kept else kept
    side = _side(content if group is None else group)
    drawn = example.drawn == "random"
    if example.label_source == TEACHER:  # what it labels wrongly chooses no model, and no group of it ever judges
        return "train" if query.part == "train" and side >= VALIDATES else None
    if query.part == "judge":
        return "test" if drawn and side < JUDGES else None
    if side < JUDGES and (drawn or group is not None):
        return None
    if group is not None:  # all of it on one side, also what was asked about for its doubt
        return "validation" if side < VALIDATES else "train"
    return "validation" if drawn and side < VALIDATES else "train"


def _side(named: object) -> float:
    """A number in [0, 1) that follows from a group's name, or from content."""
    text = json.dumps(named, sort_keys=True, default=str)
    return int.from_bytes(hashlib.sha256(f"side/{text}".encode()).digest()[:8]) / 2**64


def _write_rows(taken: Sequence[LoggedExample], target: Path, label: str, column: str, query: LogQuery) -> None:
    cells = [_row(each, column) for each in taken]
    names = [name for name in dict.fromkeys(name for row in cells for name in row) if name != label]
    columns = {name: array([row.get(name) for row in cells]) for name in names}
    pq.write_table(_columns_of_answers(columns, taken, label, query), target / "answers.parquet")
    _write_marker(target, ".", taken, label, tuple(names))


def _write_files(
    taken: Sequence[LoggedExample], log: LogFolder, target: Path, label: str, query: LogQuery
) -> list[ExcludedFile]:
    """Each file once, with the newest answer to it, of labelled ones the newest labelled."""
    chosen: dict[str, LoggedExample] = {}
    for each in sorted(taken, key=lambda one: (one.label is not None, one.answer.at)):
        assert each.answer.input
        chosen[each.answer.input["data"]["sha256"]] = each
    excluded, there = list[ExcludedFile](), dict[str, LoggedExample]()
    (target / "data").mkdir()
    for sha256, each in chosen.items():
        try:
            shutil.copyfile(log.medium(sha256), target / "data" / sha256)
        except FileNotFoundError:
            excluded.append(ExcludedFile(each.answer.id, "Its file no longer exists."))
        else:
            there[sha256] = each
    if not there:
        raise SpeciateError(
            Code.NOT_FOUND,
            "No file among the inputs was kept.",
            "See keep_inputs and media_mb in [log] of settings.toml.",
        )
    columns = {"file_name": array(list(there))}
    table = _columns_of_answers(columns, list(there.values()), label, query)
    pq.write_table(table, target / "data" / "metadata.parquet")
    _write_marker(target, "data", taken, label, ())
    return excluded


def _columns_of_answers(
    columns: dict[str, pa.Array], taken: Sequence[LoggedExample], label: str, query: LogQuery
) -> pa.Table:
    """The input columns, then the label, then the origin of each row and, of a part, its split."""
    answers = [each.answer for each in taken]
    origins = [[a.id for a in answers], [_cell(a.output) for a in answers], [a.model for a in answers],
            [datetime.fromtimestamp(a.at, UTC).isoformat(timespec="milliseconds") for a in answers],
            [a.confidence for a in answers], [each.label_source for each in taken],
            [each.drawn for each in taken]]  # fmt: skip
    every = {**columns, label: array([_cell(each.label) for each in taken])}
    for name, values in zip(_MARKED, origins, strict=True):
        every[_free(name, every)] = array(values)
    if query.part is not None:
        every["split"] = array([split_of(each, query) for each in taken])
    if query.arrived is not None:
        every[_free("arrived", every)] = array([query.arrived] * len(taken))
    return pa.table(every)


def _write_marker(
    target: Path, again: str, taken: Sequence[LoggedExample], label: str, inputs: tuple[str, ...]
) -> None:
    marker = Marker(
        format=KIND, again=again, modality=taken[-1].answer.modality, files=not inputs, inputs=inputs,
        label=label if any(each.label is not None for each in taken) else None,
    )  # fmt: skip
    (target / MARKER).write_text(marker.model_dump_json())


def _row(each: LoggedExample, column: str) -> Row:
    kept = each.answer.input or {}
    return dict(kept["row"]) if "row" in kept else {column: kept["text"]}


def _form(each: LoggedExample, column: str | None) -> str:
    form = next(iter(each.answer.input or {"": None}))
    return "row" if column and form == "text" else form


def _cell(value: Any) -> Any:
    """A cell: what is neither text nor number is JSON."""
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value, sort_keys=True)


def _free(name: str, taken: Mapping[str, pa.Array]) -> str:
    return name if name not in taken else f"log_{name}"


def _moment(source: str, text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise _source_error(source, f"{text!r} is no date") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _source_error(source: str, why: str) -> SpeciateError:
    message = f"{source!r} names no part of a log: {why}."
    return SpeciateError(Code.INVALID, message, f"Write {_FORM}; all but the name may be left out.")


def _empty_error(query: LogQuery) -> SpeciateError:
    return SpeciateError(
        Code.NOT_FOUND,
        f"The log of {query.use_case!r} holds no such answers with their inputs.",
        f"Read speciate://use-cases/{query.use_case}/answers for what it holds; keep_inputs and sample are in [log] of "
        "settings.toml.",
    )
