"""The answer cache, so that no model is asked twice: rows by model, question and repeat.

`predictions/FINGERPRINT/` holds a file per run that asked. While the run asks, it is a journal of JSON lines; if
answers cost money, each line is on disk before the next call. At the end it is sealed as Parquet. A later run reads
both, so a killed run loses only the calls in flight. If two runs ask the same at once, both answers stay and the
first one counts. An answer with a passing error does not count.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self, TypedDict

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate.workspace import integrity
from speciate.workspace.blobs import make_folder, sync_folder
from speciate.workspace.workspace import Folders

_LOST = "With it, answers that models gave, and what they cost, are lost."
_RECOVERY = (
    "Restore it from a backup of the workspace, or run `speciate verify --all --quarantine`: it is moved away, and "
    "what was in it is asked again, at a cost where the model has a price."
)


class AnswerKey(NamedTuple):
    """`question`: `ID:DIGEST` of an example as this model sees it; `repeat` counts from 0."""

    question: str
    repeat: int = 0


class CachedAnswer(NamedTuple):
    """One answer with its cost. Costs of models on this machine are measured apart, and None here.

    `output` is JSON: the prediction or, of an endpoint, its text.
    """

    output: Any = None
    confidence: float | None = None
    probabilities: dict[str, float] | None = None
    error: str | None = None
    passing: bool = False
    """The error may be gone on the next call."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    usd: float | None = None
    usd_at_most: float | None = None
    """With the worst case of calls that did not report their cost. Caps are checked against it."""
    latency_s: float | None = None
    ttft_s: float | None = None
    attempts: int = 1
    served_model: str | None = None
    host: str | None = None
    """The endpoint's host, which was paid."""
    created: float = 0.0


_SCHEMA = pa.schema(
    [
        ("key", pa.string()), ("content", pa.string()), ("repeat", pa.int64()), ("output", pa.string()),
        ("confidence", pa.float64()), ("probabilities", pa.string()), ("error", pa.string()), ("passing", pa.bool_()),
        ("input_tokens", pa.int64()), ("output_tokens", pa.int64()), ("usd", pa.float64()),
        ("usd_at_most", pa.float64()), ("latency_s", pa.float64()),
        ("ttft_s", pa.float64()), ("attempts", pa.int64()), ("served_model", pa.string()), ("host", pa.string()),
        ("created", pa.float64()),
    ]
)  # fmt: skip
_JSON = ("output", "probabilities")
_BEGUN = "begun"
_UNANSWERED = "unheard"


class Journal:
    """Questions of one run to one model, and their answers. A context: leaving it seals the file, also after errors."""

    def __init__(self, folders: Folders, fingerprint: str, owner: str) -> None:
        self._folder = folders.predictions / fingerprint
        self._path = _unused_path(self._folder, owner)
        self._file: IO[str] | None = None

    def begin(self, key: AnswerKey, host: str | None = None, usd_at_most: float = 0.0) -> None:
        """Record that the call begins, so that a kill before the answer shows, with its cost at most."""
        self._line({_BEGUN: list(key), "host": host, "usd_at_most": usd_at_most})

    def keep(self, answers: Sequence[tuple[AnswerKey, CachedAnswer]]) -> None:
        """They are on disk when it returns."""
        for key, kept in answers:
            self._line({"key": key.question, "repeat": key.repeat, **kept._asdict()})
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        self._file.close()
        seal(self._path)

    def _line(self, line: Mapping[str, object]) -> None:
        if self._file is None:
            make_folder(self._folder)
            self._file = self._path.open("x", encoding="utf-8")
            sync_folder(self._folder)
        self._file.write(json.dumps(line) + "\n")
        if _BEGUN in line:
            self._file.flush()


def read(folders: Folders, fingerprint: str, keys: Collection[AnswerKey]) -> dict[AnswerKey, CachedAnswer]:
    """Cached answers to these keys: the first without a passing error, else the first."""
    missing, found = set(keys), dict[AnswerKey, CachedAnswer]()
    for key, kept in _all_answers(folders.predictions / fingerprint, {key.question for key in missing}):
        if key in missing and (key not in found or (found[key].passing and not kept.passing)):
            found[key] = kept
    return found


def count_lost_calls(folders: Folders, fingerprint: str) -> int:
    """The number of calls without an answer: those in flight when a run was killed."""
    return sum(len(_unanswered(path)) for path in _files(folders.predictions / fingerprint, "*"))


def paid(folders: Folders, job: str) -> dict[str, float]:
    """USD by host that a job's runs paid until now at most."""
    total: dict[str, float] = {}
    for folder in folders.predictions.glob("*"):
        for path in _files(folder, f"{job}.*"):
            for row in [*_costs(path), *_unanswered(path)]:
                usd = row.get("usd") if row.get("usd_at_most") is None else row["usd_at_most"]
                if (host := row.get("host")) and usd:
                    total[host] = total.get(host, 0.0) + usd
    return total


def seal(path: Path) -> None:
    """A journal as Parquet, in its place. Harmless to repeat."""
    rows = [_row(line) for line in _lines(path) if "key" in line]
    facts = {_UNANSWERED: json.dumps(_unanswered(path))}
    write_table(pa.Table.from_pylist(rows, _SCHEMA).replace_schema_metadata(facts), path.with_suffix(".parquet"))
    path.unlink(missing_ok=True)


def sealed(folders: Folders) -> list[Path]:
    """Every file of answers, each with the example's id as `content`; journals of runs that were killed are sealed."""
    for path in sorted(folders.predictions.glob("*/*.jsonl")):
        seal(path)
    return sorted(folders.predictions.glob("*/*.parquet"))


def _all_answers(folder: Path, questions: Collection[str]) -> Iterator[tuple[AnswerKey, CachedAnswer]]:
    """Oldest file first, so that an answer that was once reported stays the reported one."""
    for path in _files(folder, "*"):
        rows = [_row(line) for line in _lines(path) if line.get("key") in questions]
        if sealed := _sealed(path):
            table = integrity.read_table(sealed, _LOST, _RECOVERY)
            rows = table.filter(pc.is_in(table["key"], value_set=pa.array(sorted(questions), pa.string()))).to_pylist()
        for row in rows:
            yield AnswerKey(row["key"], row["repeat"]), _cached_answer(row)


def _files(folder: Path, pattern: str) -> list[Path]:
    """Each file of answers once, oldest first: while it is sealed, a file is there twice for a moment."""
    found: dict[str, tuple[float, Path]] = {}
    for path in folder.glob(pattern):
        if path.suffix not in (".parquet", ".jsonl") or path.name.startswith("."):
            continue
        with contextlib.suppress(
            FileNotFoundError
        ):  # sealed meanwhile: its other name is listed, or found when it is read
            written = path.stat().st_mtime
            if path.stem not in found or path.suffix == ".parquet":
                found[path.stem] = written, path
    return [path for _, path in sorted(found.values())]


def _sealed(path: Path) -> Path | None:
    """Where the rows of a file lie as Parquet, if they do by now."""
    parquet = path.with_suffix(".parquet")
    return parquet if parquet.exists() else None


class _Cost(TypedDict, total=False):
    """What one call cost in US dollars, and at which host. A line of the journal has further keys."""

    host: str | None
    usd: float | None
    usd_at_most: float | None


def _costs(path: Path) -> list[_Cost]:
    if sealed := _sealed(path):
        return list(integrity.read_table(sealed, _LOST, _RECOVERY, columns=["host", "usd", "usd_at_most"]).to_pylist())
    return [{"host": line.get("host"), "usd": line.get("usd"), "usd_at_most": line.get("usd_at_most")}
            for line in _lines(path) if "key" in line]  # fmt: skip


def _unanswered(path: Path) -> list[_Cost]:
    """`host` and `usd_at_most` of each call that got no answer."""
    if sealed := _sealed(path):
        integrity.check(sealed, _LOST, _RECOVERY)
        stored = (pq.read_schema(sealed).metadata or {}).get(_UNANSWERED.encode(), b"[]")
        unanswered: list[_Cost] = json.loads(stored)
        return unanswered
    begun: dict[tuple[str, int], _Cost] = {}
    for line in _lines(path):
        if _BEGUN in line:
            begun[tuple(line[_BEGUN])] = {"host": line.get("host"), "usd_at_most": line.get("usd_at_most")}
        elif "key" in line:
            begun.pop((line["key"], line.get("repeat", 0)), None)
    return list(begun.values())


def _row(line: Mapping[str, Any]) -> Mapping[str, Any]:
    """A line of a journal as a row of the schema."""
    texts = {name: None if line.get(name) is None else json.dumps(line[name]) for name in _JSON}
    return {**line, **texts, "content": line["key"].partition(":")[0]}


def _cached_answer(row: Mapping[str, Any]) -> CachedAnswer:
    """The cached answer in a row of the schema; an older file may lack some of its columns."""
    cells: Mapping[str, Any] = {name: row.get(name) for name in CachedAnswer._fields}
    texts = {name: None if row[name] is None else json.loads(row[name]) for name in _JSON}
    return CachedAnswer(**{**cells, **texts})


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """The whole lines; a torn one is no answer."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:  # sealed meanwhile
        return
    for line in text.splitlines():
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            yield found


def _unused_path(folder: Path, owner: str) -> Path:
    """The path of the owner's next journal: a run may ask a model several times, with a journal each time."""
    names = (folder / f"{owner}.{time}.jsonl" for time in itertools.count())
    return next(path for path in names if not path.exists() and not path.with_suffix(".parquet").exists())


def write_table(table: pa.Table, path: Path) -> None:
    """Atomic: a crash leaves the whole table or the file from before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w+b") as file:
        integrity.write_table(table, file)
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def digest(content: str | bytes) -> str:
    """The first 32 hex digits of the sha256 of a question, or of what identifies a model: part of a key."""
    return hashlib.sha256(
        content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    ).hexdigest()[:32]
