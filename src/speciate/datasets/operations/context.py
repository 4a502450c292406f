"""The context of an operation in the worker: everything that it may ask for besides its rows.

`rewrite_media` rewrites media of a version one by one into a new pack, by a service in sandboxed processes, because
they are foreign bytes. A service is a function of a RewriteRequest, with its own keys, that gives a RewriteAnswer. If a
process dies on several media, each is rewritten alone, and the one at fault has no new bytes.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets import version_rows
from speciate.datasets.columns import CONTENT, HIDDEN
from speciate.datasets.inspect.sql_sandbox import SelectRequest
from speciate.datasets.loading import loader
from speciate.datasets.loading.decoding import Timestamps, ask_for_timestamps, decode_media, invalid_answer_error
from speciate.datasets.similarity import embed
from speciate.datasets.similarity.extractors import DESCRIPTOR
from speciate.datasets.sources.sandbox_calls import read_parquet_answer
from speciate.datasets.splits import near_pairs
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import FileAnswer, Pool, ServiceAnswer
from speciate.jobs.run import Run, Stopped
from speciate.modalities.multimodal import PartName
from speciate.workspace.packs import PackReader, PackWriter

_SELECT = "speciate.datasets.inspect.sql_sandbox:select"
_LOAD = ("speciate.tasks.predictor", "load")
"""These modules stand above this floor, so they are named by string."""
_EVALUATION_ANSWERS = ("speciate.evaluation.preference_pairs", "read")
_SCORES = ("speciate.evaluation.preference_pairs", "scores")
_TEACHER_ANSWERS = ("speciate.evaluation.teacher_answers", "answers")
_SECONDS = 600.0

Vectors = npt.NDArray[np.float32]  # (N, D)
_CHUNK, _CHUNK_BYTES = 32, 16 << 20
"""Most media and bytes per question to a process."""
Item = tuple[bytes | None, ServiceAnswer]
"""The new bytes, and the service's report."""


class RewriteRequest(TypedDict):
    """What `rewrite_media` adds to the caller's keys."""

    packs: list[str]
    contents: list[str]


class RewrittenItem(TypedDict):
    """The length of the new bytes and a report, which may have further keys."""

    length: int | None
    """None if there are none."""
    reason: NotRequired[str]
    """Why."""
    verdict: NotRequired[Sequence[object]]
    """Verdict on the new bytes: a `validation.Verdict`."""


class RewriteAnswer(FileAnswer):
    """The file holds the new bytes one after another."""

    items: Sequence[RewrittenItem]
    """One item for each of the contents."""


class TeacherAnswers(NamedTuple):
    """Answers of a teacher."""

    teacher: str
    """The teacher's ref, with its version."""
    how: str
    """The teacher's task and wording, in words."""
    repeats: Sequence[Sequence[tuple[Any, str | None]]]
    """For each repeat and each row the answer, or None and the reason."""
    notes: Sequence[str] = ()


class EvaluationAnswers(NamedTuple):
    """Answers stored in an evaluation."""

    metric: str
    answers: Mapping[str, Sequence[tuple[str | None, float | None, str]]]
    """By example: each answer, its score (more is better), and its model."""


class OtherDataset(NamedTuple):
    manifest: Manifest
    rows: pa.Table


class Context:
    """`manifest`: of the version as the steps so far have made it; it is not sealed, so never read rows by it."""

    def __init__(
        self, run: Run, manifest: Manifest, pool: Pool, others: Mapping[str, Manifest], models: Mapping[str, str],
        inputs: Mapping[str, Sequence[str]],
    ) -> None:  # fmt: skip
        self.manifest = manifest
        self._run, self._pool, self._others, self._models, self._inputs = run, pool, others, models, inputs
        self._scratch, self.cores = run.folder.path / "scratch", run.cores
        self.outside: Mapping[str, Any] = {}
        """The plan's decisions for the current step, if it asks models."""

    def progress(self, done: float, total: float, unit: str, message: str = "") -> None:
        """Raises Stopped if the run is to stop."""
        if self._run.stopping:
            raise Stopped
        self._run.progress(done, total, unit, message)

    def select(self, rows: pa.Table, sql: str) -> pa.Table:
        """The result of one SELECT over the view `examples`, run in the sandbox without the hidden columns."""
        file = self._write_rows(rows.drop_columns([name for name in HIDDEN if name in rows.column_names]))
        payload = SelectRequest(file=str(file), sql=sql)
        try:
            return self._pool.ask_for_file(
                _SELECT, payload, read_parquet_answer, _SECONDS, readable=frozenset({self._scratch})
            )
        finally:
            file.unlink()

    def vectors(self, rows: pa.Table, extractor: str | None, part: PartName | None = None) -> Vectors:
        """(N, D) of rows whose media decode wholly, or of a part that they all have.

        `extractor` None: the modality's own descriptor.
        """

        def progress(done: int, total: int) -> None:
            self.progress(done, total, "vectors", extractor or DESCRIPTOR)

        return embed.row_vectors(self._run.folders, self.manifest, rows, extractor, progress, part)

    def near_pairs(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        """(M, 2) positions of near-duplicates; none if the modality has no sketches."""
        return near_pairs(rows, self.manifest.modality, self._run.folders)

    def other(self, ref: str) -> OtherDataset:
        """Another dataset version that the step's parameters name, rows of every quality."""
        manifest = self._others[ref]
        return OtherDataset(manifest, version_rows.read(self._run.folders, manifest))

    def examples(self, rows: pa.Table, manifest: Manifest | None = None) -> list[loader.Example]:
        """Decoded examples of rows whose media decode wholly. `manifest`: with other inputs than the version's."""
        folders, manifest = self._run.folders, manifest or self.manifest
        if manifest.inputs:
            media = loader.admit_media(manifest, rows)
        else:
            media = decode_media(folders, loader.packs(folders, manifest), manifest.modality, loader.items(rows))
        return loader.examples(rows, media, loader.user_columns(rows))

    def timestamps(self, rows: pa.Table, unit: str) -> Iterator[Timestamps]:
        """Where units such as frames begin in the file of each row, in order."""
        contents = rows[CONTENT].to_pylist()
        once = list(dict.fromkeys(contents))  # windows share a file
        found: dict[str, Timestamps] = {}
        read = ask_for_timestamps(
            self._pool, loader.packs(self._run.folders, self.manifest), self.manifest.modality, once, unit
        )
        for done, (content, each) in enumerate(zip(once, read, strict=True)):
            found[content] = each
            self.progress(done + 1, len(once), "files", unit)
        return (found[content] for content in contents)

    @property
    def root(self) -> Path:
        """The workspace's root, which a manifest's paths are relative to."""
        return self._run.folders.root

    def stored_contents(self, contents: Sequence[str]) -> set[str]:
        """The contents whose bytes lie in the version's packs: unreadable files of an ingest are not kept."""
        with PackReader(loader.packs(self._run.folders, self.manifest)) as packs:
            return {content for content in contents if content in packs}

    def rewrite(self, service: str, payload: Mapping[str, object], contents: Sequence[str]) -> RewrittenMedia:
        """Rewrites media of the version into a new pack by a service in sandboxed processes (`rewrite_media`)."""
        folders = self._run.folders
        packs = loader.packs(folders, self.manifest)

        def progress(done: int, total: int) -> None:
            self.progress(done, total, "files", "rewriting")

        return rewrite_media(self._pool, packs, folders.packs, service, payload, contents, progress)

    def teacher_answers(self, rows: pa.Table, repeats: int = 1) -> TeacherAnswers:
        """Answers of this step's teacher to rows whose media decode wholly, `repeats` times.

        Raises Stopped and the teacher's errors; answers until then are kept.
        """
        module, function = _TEACHER_ANSWERS
        ask = getattr(importlib.import_module(module), function)
        wanted = tuple(self.outside["inputs"]) or self.manifest.inputs
        manifest = self.manifest.model_copy(update={"inputs": wanted})

        def progress(done: int) -> None:
            self.progress(done, repeats * rows.num_rows, "answers", self.outside["teacher"])

        examples = self.examples(rows, manifest)
        answers: TeacherAnswers = ask(self._run, self.outside, manifest, examples, progress, repeats)
        return answers

    def evaluation_answers(self) -> EvaluationAnswers:
        """Answers stored in the evaluation that this step names."""
        module, function = _EVALUATION_ANSWERS
        found: EvaluationAnswers = getattr(importlib.import_module(module), function)(self.outside)
        return found

    def scores(
        self, metric: str, references: Sequence[str | None], answers: Sequence[str | None]
    ) -> list[float | None]:
        """(N,) scores of the answers under a metric, more is better; None if there is no score."""
        module, function = _SCORES
        found: list[float | None] = getattr(importlib.import_module(module), function)(metric, references, answers)
        return found

    def examples_for(self, model: str, rows: pa.Table) -> list[loader.Example]:
        """Decoded examples of rows, of the columns that a resolved model reads: they may be others than the version's
        inputs."""
        wanted = tuple(self._inputs.get(model, ())) or self.manifest.inputs
        return self.examples(rows, self.manifest.model_copy(update={"inputs": wanted}))

    def predictor(self, model: str) -> Any:
        """The model behind a resolved ref, with `predict(examples)` (tasks.contract.Predictor)."""
        module, function = _LOAD
        return getattr(importlib.import_module(module), function)(Path(self._models[model]), self._run.folders)

    def _write_rows(self, rows: pa.Table) -> Path:
        self._scratch.mkdir(exist_ok=True)
        file = self._scratch / "rows.parquet"
        pq.write_table(rows, file)
        return file


class RewrittenFile(NamedTuple):
    content: str | None
    """sha256 of the new bytes, their name in the new pack."""
    size: int
    report: ServiceAnswer
    """The service's report, from a process that met foreign bytes; empty if it died."""


class RewrittenMedia(NamedTuple):
    pack: Path
    media: dict[str, RewrittenFile]
    """Content of an original -> its rewritten file."""


def rewrite_media(
    pool: Pool,
    packs: Sequence[Path],
    target: Path,
    service: str,
    payload: Mapping[str, object],
    contents: Sequence[str],
    progress: Callable[[int, int], None],
) -> RewrittenMedia:
    """`contents`: each once. `target`: the folder of packs. Nothing is left if it raises."""
    media: dict[str, RewrittenFile] = {}
    request = {**payload, "packs": [str(pack) for pack in packs]}
    with PackReader(packs) as reader:
        chunks = list(_chunks(contents, reader))
    with PackWriter(target) as writer, ThreadPoolExecutor(pool.size, thread_name_prefix="rewrite") as threads:
        for chunk, items in zip(
            chunks, threads.map(lambda each: _ask_to_rewrite(pool, service, request, each), chunks), strict=True
        ):
            for content, (data, report) in zip(chunk, items, strict=True):
                media[content] = RewrittenFile(None if data is None else writer.add(data), len(data or b""), report)
            progress(len(media), len(contents))
        return RewrittenMedia(writer.seal(), media)


def _chunks(contents: Sequence[str], reader: PackReader) -> Iterator[list[str]]:
    chunk, size = list[str](), 0
    for content in contents:
        length = reader.length(content)
        if chunk and (len(chunk) == _CHUNK or size + length > _CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(content)
        size += length
    if chunk:
        yield chunk


def _ask_to_rewrite(pool: Pool, service: str, request: Mapping[str, object], contents: Sequence[str]) -> list[Item]:
    def read(path: Path, answer: ServiceAnswer) -> list[Item]:
        """Checked: it comes from a process that met foreign bytes."""
        data, items = path.read_bytes(), answer["items"]
        lengths = [item["length"] for item in items]
        if len(items) != len(contents) or sum(length or 0 for length in lengths) != len(data):
            raise invalid_answer_error()
        found, start = list[Item](), 0
        for item, length in zip(items, lengths, strict=True):
            report = {name: value for name, value in item.items() if name != "length"}
            found.append((None if length is None else data[start : start + length], report))
            start += length or 0
        return found

    try:
        return pool.ask_for_file(service, {**request, "contents": list(contents)}, read, _SECONDS)
    except SpeciateError as error:
        if error.code != Code.UNAVAILABLE:
            raise
        if len(contents) == 1:
            return [(None, {})]
        return [item for content in contents for item in _ask_to_rewrite(pool, service, request, [content])]
