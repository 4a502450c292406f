"""The log of a use case as a source: `log:USE_CASE`, what was asked as rows or files and what it should have been as
their label, with which version answered what, and when.

    log:triage                           every answer that is kept, labelled or not
    log:triage?labelled=true             those that somebody labelled
    log:triage?model=triage-model@v3     of one version
    log:triage?since=2026-11-01&until=2026-12-01

The label is what a person said, else an agent, else a system; never what the model answered. It is written like an
export of ours (exported.py), which says which columns a model may see: the answer itself is none of them.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.columns import array
from speciate.datasets.sources.listing import ExcludedFile
from speciate.datasets.sources.own_export import MARKER, Marker
from speciate.errors import Code, SpeciateError
from speciate.predictions import feedback, reading
from speciate.predictions.log_files import LogFolder, log_folder
from speciate.predictions.reading import LoggedAnswer
from speciate.refs import check_name
from speciate.settings import load
from speciate.workspace.workspace import Folders

KIND = "log"
LABEL = "label"
_FORM = "log:USE_CASE?labelled=true&model=NAME@v3&since=2026-11-01&until=2026-12-01"
_KNOWN = {"labelled", "model", "since", "until"}
_MARKED = ("prediction", "predicted", "predicted_by", "predicted_at", "confidence", "label_source")
"""Where a row comes from: columns beside those that were asked about."""


class LogQuery(NamedTuple):
    use_case: str
    labelled: bool = False
    model: str | None = None
    since: float = 0.0
    until: float = float("inf")


class LoggedExample(NamedTuple):
    answer: LoggedAnswer
    label: Any
    label_source: str | None


def parse(source: str) -> LogQuery:
    """Raises INVALID for what is no source of this kind."""
    name, _, query = source.removeprefix(f"{KIND}:").partition("?")
    settings = dict(parse_qsl(query, keep_blank_values=True))
    if strange := sorted(set(settings) - _KNOWN):
        raise _source_error(source, f"there is no {strange[0]!r}")
    if settings.get("labelled", "false") not in ("true", "false"):
        raise _source_error(source, "labelled is true or false")
    return LogQuery(
        check_name("use case", name),
        settings.get("labelled") == "true",
        settings.get("model"),
        _moment(source, settings["since"]) if "since" in settings else 0.0,
        _moment(source, settings["until"]) if "until" in settings else float("inf"),
    )


def check(source: str, folders: Folders | None = None) -> None:
    """Refuse at once what cannot be one. Raises INVALID, or NOT_FOUND where that use case has no log."""
    asked = parse(source)
    if folders is not None and not log_folder(folders, asked.use_case).path.exists():
        raise _empty_error(asked)


def write(
    source: str, folders: Folders, target: Path, label: str | None, column: str | None = None
) -> list[ExcludedFile]:
    """Into the empty folder `target`; what could not be taken. `label`: how the column of labels is to be called.
    `column`: the only one that models see, if there is such: a text that was asked about is a cell of it.

    Raises NOT_FOUND where the log holds nothing of the kind.
    """
    asked = parse(source)
    log = log_folder(folders, asked.use_case)
    retention = load(folders.root).log.of(asked.use_case).retention_days
    since = max(asked.since, reading.retention_start(time.time(), retention))
    taken, excluded = examples(log, asked._replace(since=since), column)
    if not taken:
        raise _empty_error(asked)
    label = label or LABEL
    if taken[0].answer.input and "data" in taken[0].answer.input:
        excluded += _write_files(taken, log, target, label)
    else:
        _write_rows(taken, target, label, column or "text")
    return excluded


def examples(
    log: LogFolder, asked: LogQuery, column: str | None = None
) -> tuple[list[LoggedExample], list[ExcludedFile]]:
    """Answers whose input was kept, of the form that most have; oldest first. Texts are rows where `column` is said."""
    if not log.path.exists():
        return [], []
    rows = reading.answers(log, since=asked.since, models=[asked.model] if asked.model else ())
    given = feedback.latest_by_source(reading.feedback(log, since=asked.since))
    found, excluded = list[LoggedExample](), list[ExcludedFile]()
    for row in rows.to_pylist():
        answer = reading.to_logged_answer(row)
        told = feedback.prevailing_label(given.get(answer.id, {}))
        if answer.at >= asked.until or (asked.labelled and told is None):
            continue
        if answer.error:
            excluded.append(ExcludedFile(answer.id, "It could not be answered."))
        elif not answer.input:
            excluded.append(
                ExcludedFile(answer.id, f"Its input was not kept: {'; '.join(answer.left_out) or 'unknown'}.")
            )
        elif "parts" in answer.input:
            excluded.append(ExcludedFile(answer.id, "It is a mixed row; those are not taken from a log yet."))
        else:
            found.append(LoggedExample(answer, told.label if told else None, told.source if told else None))
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


def _write_rows(taken: Sequence[LoggedExample], target: Path, label: str, column: str) -> None:
    cells = [_row(each, column) for each in taken]
    names = [name for name in dict.fromkeys(name for row in cells for name in row) if name != label]
    columns = {name: array([row.get(name) for row in cells]) for name in names}
    pq.write_table(_columns_of_answers(columns, taken, label), target / "answers.parquet")
    _write_marker(target, ".", taken, label, tuple(names))


def _write_files(taken: Sequence[LoggedExample], log: LogFolder, target: Path, label: str) -> list[ExcludedFile]:
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
            excluded.append(ExcludedFile(each.answer.id, "Its file is gone."))
        else:
            there[sha256] = each
    if not there:
        raise SpeciateError(
            Code.NOT_FOUND,
            "Of all files that were asked about none is kept.",
            "See keep_inputs and media_mb in [log] of settings.toml.",
        )
    columns = {"file_name": array(list(there))}
    pq.write_table(_columns_of_answers(columns, list(there.values()), label), target / "data" / "metadata.parquet")
    _write_marker(target, "data", taken, label, ())
    return excluded


def _columns_of_answers(columns: dict[str, pa.Array], taken: Sequence[LoggedExample], label: str) -> pa.Table:
    """The columns that were asked about, then the label, then where each comes from."""
    answers = [each.answer for each in taken]
    told = [[a.id for a in answers], [_cell(a.output) for a in answers], [a.model for a in answers],
            [datetime.fromtimestamp(a.at, UTC).isoformat(timespec="milliseconds") for a in answers],
            [a.confidence for a in answers], [each.label_source for each in taken]]  # fmt: skip
    every = {**columns, label: array([_cell(each.label) for each in taken])}
    for name, values in zip(_MARKED, told, strict=True):
        every[_free(name, every)] = array(values)
    return pa.table(every)


def _write_marker(
    target: Path, again: str, taken: Sequence[LoggedExample], label: str, inputs: tuple[str, ...]
) -> None:
    marker = Marker(
        format=KIND, again=again, modality=taken[-1].answer.modality, files=not inputs, inputs=inputs,
        label=label if any(each.label is not None for each in taken) else None,
    )  # fmt: skip
    (target / MARKER).write_text(marker.model_dump_json())


def _row(each: LoggedExample, column: str) -> dict[str, Any]:
    kept = each.answer.input or {}
    return dict(kept["row"]) if "row" in kept else {column: kept["text"]}


def _form(each: LoggedExample, column: str | None) -> str:
    form = next(iter(each.answer.input or {"": None}))
    return "row" if column and form == "text" else form


def _cell(value: Any) -> Any:
    """A cell: what is neither text nor number is JSON."""
    return value if value is None or isinstance(value, str | int | float) else json.dumps(value, sort_keys=True)


def _free(name: str, taken: dict[str, Any]) -> str:
    return name if name not in taken else f"log_{name}"


def _moment(source: str, text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise _source_error(source, f"{text!r} is no date") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _source_error(source: str, why: str) -> SpeciateError:
    told = f"{source!r} names no part of a log: {why}."
    return SpeciateError(Code.INVALID, told, f"Write {_FORM}; all but the name may be left out.")


def _empty_error(asked: LogQuery) -> SpeciateError:
    return SpeciateError(
        Code.NOT_FOUND,
        f"The log of {asked.use_case!r} holds no such answers with what was asked.",
        f"Read speciate://use-cases/{asked.use_case}/answers for what it holds; keep_inputs and sample are in [log] of "
        "settings.toml.",
    )
