"""The answer cache, so that no question is put twice: rows by who answered, what was asked, and the repeat.

`predictions/FINGERPRINT/` holds a file for each time a run asked. Meanwhile that is a journal of JSON lines, each on
disk before the next question is put where answers cost money; at the end it is sealed as Parquet. A later run reads
both, so a killed run loses only the calls in flight. Two runs that ask the same at once both keep their answer:
the first one counts. An answer with an error that may pass by itself does not count as given.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from speciate.workspace import integrity
from speciate.workspace.workspace import Folders

_LOST = "With it, answers that models gave, and what they cost, are lost."
_RECOVERY = (
    "Restore it from a backup of the workspace, or run `speciate verify --all --quarantine`: it is moved away, and "
    "what was in it is asked again, at a cost where the model has a price."
)


class AnswerKey(NamedTuple):
    """`asked`: `ID:DIGEST` of an example as it is shown to this model; `repeat` counts from 0."""

    asked: str
    repeat: int = 0


class CachedAnswer(NamedTuple):
    """One answer with what it cost. Of models on this machine costs are measured apart, and None here.

    `output` is JSON: the prediction or, of an endpoint, the text that it said.
    """

    output: Any = None
    confidence: float | None = None
    probabilities: dict[str, float] | None = None
    error: str | None = None
    passing: bool = False
    """The error may pass by itself: asked again, there may be an answer."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    usd: float | None = None
    usd_at_most: float | None = None
    """With the worst case of what did not say what it cost: what caps are held against."""
    latency_s: float | None = None
    ttft_s: float | None = None
    attempts: int = 1
    served_model: str | None = None
    host: str | None = None
    """Who was asked, and paid."""
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
    """What one run asks of one model, and what it is told. A context: leaving it seals the file, whatever happened."""

    def __init__(self, folders: Folders, fingerprint: str, owner: str) -> None:
        self._folder = folders.predictions / fingerprint
        self._path = _unused_path(self._folder, owner)
        self._file: IO[str] | None = None

    def begin(self, key: AnswerKey, host: str | None = None, usd_at_most: float = 0.0) -> None:
        """Say that it is asked now: a kill before the answer is then no secret, and may have cost so much."""
        self._line({_BEGUN: list(key), "host": host, "usd_at_most": usd_at_most})

    def keep(self, answers: Sequence[tuple[AnswerKey, CachedAnswer]]) -> None:
        """They are on disk when it returns."""
        for key, kept in answers:
            self._line({"key": key.asked, "repeat": key.repeat, **kept._asdict()})
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

    def _line(self, said: dict[str, Any]) -> None:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("x", encoding="utf-8")
        self._file.write(json.dumps(said) + "\n")
        if _BEGUN in said:
            self._file.flush()


def read(folders: Folders, fingerprint: str, keys: Collection[AnswerKey]) -> dict[AnswerKey, CachedAnswer]:
    """The answers to these that are known: the first that is no passing error, else the first."""
    wanted, found = set(keys), dict[AnswerKey, CachedAnswer]()
    for key, kept in _all_answers(folders.predictions / fingerprint, {key.asked for key in wanted}):
        if key in wanted and (key not in found or (found[key].passing and not kept.passing)):
            found[key] = kept
    return found


def count_lost_calls(folders: Folders, fingerprint: str) -> int:
    """How many questions were put of which nobody heard the answer: those under way when a run was killed."""
    return sum(len(_unanswered(path)) for path in _files(folders.predictions / fingerprint, "*"))


def paid(folders: Folders, job: str) -> dict[str, float]:
    """USD by host that a job's runs paid until now at most, whatever became of them."""
    total: dict[str, float] = {}
    for folder in folders.predictions.glob("*"):
        for path in _files(folder, f"{job}.*"):
            for row in [*_costs(path), *_unanswered(path)]:
                usd = row.get("usd") if row.get("usd_at_most") is None else row["usd_at_most"]
                if row.get("host") and usd:
                    total[row["host"]] = total.get(row["host"], 0.0) + usd
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


def _all_answers(folder: Path, asked: Collection[str]) -> Iterator[tuple[AnswerKey, CachedAnswer]]:
    """Oldest file first, so that an answer that was once reported stays the one that is."""
    for path in _files(folder, "*"):
        rows = [_row(line) for line in _lines(path) if line.get("key") in asked]
        if sealed := _sealed(path):
            table = integrity.read_table(sealed, _LOST, _RECOVERY)
            rows = table.filter(pc.is_in(table["key"], value_set=pa.array(sorted(asked), pa.string()))).to_pylist()
        for row in rows:
            yield AnswerKey(row.pop("key"), row.pop("repeat")), _cached_answer(row)


def _files(folder: Path, pattern: str) -> list[Path]:
    """Each file of answers once, oldest first: one that is just being sealed lies there twice for a moment."""
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


def _costs(path: Path) -> list[dict[str, Any]]:
    if sealed := _sealed(path):
        return list(integrity.read_table(sealed, _LOST, _RECOVERY, columns=["host", "usd", "usd_at_most"]).to_pylist())
    return [line for line in _lines(path) if "key" in line]


def _unanswered(path: Path) -> list[dict[str, Any]]:
    """Questions that were put and whose answer nobody heard: `host` and `usd_at_most` of each."""
    if sealed := _sealed(path):
        integrity.check(sealed, _LOST, _RECOVERY)
        said = (pq.read_schema(sealed).metadata or {}).get(_UNANSWERED.encode(), b"[]")
        unheard: list[dict[str, Any]] = json.loads(said)
        return unheard
    begun: dict[tuple[str, int], dict[str, Any]] = {}
    for line in _lines(path):
        if _BEGUN in line:
            begun[tuple(line[_BEGUN])] = {"host": line.get("host"), "usd_at_most": line.get("usd_at_most")}
        elif "key" in line:
            begun.pop((line["key"], line.get("repeat", 0)), None)
    return list(begun.values())


def _row(line: dict[str, Any]) -> dict[str, Any]:
    """A line of a journal as a row of the schema."""
    texts = {name: None if line.get(name) is None else json.dumps(line[name]) for name in _JSON}
    return line | texts | {"content": line["key"].partition(":")[0]}


def _cached_answer(row: dict[str, Any]) -> CachedAnswer:
    cells: dict[str, Any] = {name: row.get(name) for name in CachedAnswer._fields}
    return CachedAnswer(**cells | {name: None if row[name] is None else json.loads(row[name]) for name in _JSON})


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines; a torn one is no answer."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:  # sealed meanwhile
        return
    for line in text.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if isinstance(said, dict):
            yield said


def _unused_path(folder: Path, owner: str) -> Path:
    """Where the owner's next journal goes: a run may ask the same model several times, and each is sealed by itself."""
    names = (folder / f"{owner}.{time}.jsonl" for time in itertools.count())
    return next(path for path in names if not path.exists() and not path.with_suffix(".parquet").exists())


def write_table(table: pa.Table, path: Path) -> None:
    """All of it or what was there before, whenever the machine stops."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w+b") as file:
        integrity.write_table(table, file)
        os.fsync(file.fileno())
    temporary.replace(path)


def digest(said: str | bytes) -> str:
    """Of what is asked, for a key."""
    return hashlib.sha256(said.encode("utf-8", "surrogatepass") if isinstance(said, str) else said).hexdigest()[:32]
