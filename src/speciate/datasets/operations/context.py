"""What an operation may ask for beside its rows, in the worker."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets import version_rows
from speciate.datasets.columns import CONTENT, HIDDEN
from speciate.datasets.loading import loader
from speciate.datasets.loading.decoding import Timestamps, ask_for_timestamps, decode_media, invalid_answer_error
from speciate.datasets.similarity import embed
from speciate.datasets.similarity.extractors import DESCRIPTOR
from speciate.datasets.splits import near_pairs
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.jobs.run import Run, Stopped
from speciate.modalities.multimodal import PartName
from speciate.workspace.packs import PackReader, PackWriter

_SELECT = "speciate.datasets.inspect.sql_sandbox:select"
_LOAD = ("speciate.tasks.predictor", "load")
"""Stands above this floor, so it is named by string."""
_EVALUATED = ("speciate.evaluation.preference_pairs", "read")
_SCORES = ("speciate.evaluation.preference_pairs", "scores")
_ANSWERS = ("speciate.evaluation.teacher_answers", "answers")
_SECONDS = 600.0

Vectors = npt.NDArray[np.float32]  # (N, D)


class TeacherAnswers(NamedTuple):
    """What a teacher said."""

    teacher: str
    """Its ref, with its version."""
    how: str
    """In words: what it was asked to do, and by which words."""
    repeats: Sequence[Sequence[tuple[Any, str | None]]]
    """For each time that all were asked and each row the answer, or None and why there is none."""
    notes: Sequence[str] = ()


class EvaluationAnswers(NamedTuple):
    """Answers that an evaluation holds."""

    metric: str
    answers: Mapping[str, Sequence[tuple[str | None, float | None, str]]]
    """By example: each answer, how good it was (more is better), and whose it is."""


class OtherDataset(NamedTuple):
    manifest: Manifest
    rows: pa.Table


class Context:
    """`manifest`: of the version as the steps so far have made it; not sealed, so never read rows by it."""

    def __init__(
        self, run: Run, manifest: Manifest, pool: Pool, others: Mapping[str, Manifest], models: Mapping[str, str]
    ) -> None:
        self.manifest = manifest
        self._run, self._pool, self._others, self._models = run, pool, others, models
        self._scratch = run.folder.path / "scratch"
        self.outside: Mapping[str, Any] = {}
        """What the plan settled for the step that runs, where it asks models."""

    def progress(self, done: float, total: float, unit: str, message: str = "") -> None:
        """Raises Stopped where the run was asked to stop."""
        if self._run.stopping:
            raise Stopped
        self._run.progress(done, total, unit, message)

    def select(self, rows: pa.Table, sql: str) -> pa.Table:
        """What one SELECT over the view `examples` gives, run in the sandbox. Hidden columns are not to be seen."""
        file = self._written(rows.drop_columns([name for name in HIDDEN if name in rows.column_names]))
        payload = {"file": str(file), "sql": sql}
        try:
            return self._pool.ask_for_file(_SELECT, payload, _read_table, _SECONDS, readable=frozenset({self._scratch}))
        finally:
            file.unlink()

    def vectors(self, rows: pa.Table, extractor: str | None, part: PartName | None = None) -> Vectors:
        """(N, D) of rows whose media are whole, or of a part that they all have. `extractor` None: the modality's own
        descriptor."""

        def progress(done: int, total: int) -> None:
            self.progress(done, total, "vectors", extractor or DESCRIPTOR)

        return embed.row_vectors(self._run.folders, self.manifest, rows, extractor, progress, part)

    def near_pairs(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        """(M, 2) places of near-duplicates; none where the modality has no sketches."""
        return near_pairs(rows, self.manifest.modality)

    def other(self, ref: str) -> OtherDataset:
        """Another dataset version that the step's parameters name, rows of every quality."""
        manifest = self._others[ref]
        return OtherDataset(manifest, version_rows.read(self._run.folders, manifest))

    def examples(self, rows: pa.Table, manifest: Manifest | None = None) -> list[loader.Example]:
        """Decoded, of rows whose media are whole. `manifest`: with other inputs than the version's."""
        folders, manifest = self._run.folders, manifest or self.manifest
        if manifest.inputs:
            media = loader.admit_media(manifest, rows)
        else:
            media = decode_media(folders, loader.packs(folders, manifest), manifest.modality, loader.items(rows))
        return loader.examples(rows, media, loader.user_columns(rows))

    def marks(self, rows: pa.Table, unit: str) -> Iterator[Timestamps]:
        """Where units such as frames begin in the file of each row, in order (loading/marks.py)."""
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
        """The workspace's, which a manifest's paths are relative to."""
        return self._run.folders.root

    def held(self, contents: Sequence[str]) -> set[str]:
        """Those whose bytes lie in the version's packs: of what could not be read at ingest none are kept."""
        with PackReader(loader.packs(self._run.folders, self.manifest)) as packs:
            return {content for content in contents if content in packs}

    def rewritten(self, service: str, payload: Mapping[str, Any], contents: Sequence[str]) -> RewrittenMedia:
        """Media of the version rewritten into a new pack by a service in sandboxed processes (loading/rewriting.py)."""
        folders = self._run.folders
        packs = loader.packs(folders, self.manifest)

        def progress(done: int, total: int) -> None:
            self.progress(done, total, "files", "rewriting")

        return rewrite_media(self._pool, packs, folders.packs, service, payload, contents, progress)

    def answers(self, rows: pa.Table, repeats: int = 1) -> TeacherAnswers:
        """What the teacher of this step says of these rows, whose media are whole, each time that it is asked.

        Raises Stopped, and what asking raises; what was answered until then is kept."""
        module, function = _ANSWERS
        ask = getattr(importlib.import_module(module), function)
        wanted = tuple(self.outside["inputs"]) or self.manifest.inputs
        shown = self.manifest.model_copy(update={"inputs": wanted})

        def tell(done: int) -> None:
            self.progress(done, repeats * rows.num_rows, "answers", self.outside["teacher"])

        given: TeacherAnswers = ask(self._run, self.outside, shown, self.examples(rows, shown), tell, repeats)
        return given

    def evaluated(self) -> EvaluationAnswers:
        """What the evaluation that this step names holds."""
        module, function = _EVALUATED
        found: EvaluationAnswers = getattr(importlib.import_module(module), function)(self.outside)
        return found

    def scores(self, metric: str, truths: Sequence[str | None], given: Sequence[str | None]) -> list[float | None]:
        """(N,) how good each answer is under a metric, more is better; None where that cannot be said."""
        module, function = _SCORES
        found: list[float | None] = getattr(importlib.import_module(module), function)(metric, truths, given)
        return found

    def predictor(self, model: str) -> Any:
        """The model behind a resolved ref, with `predict(examples)` (tasks.contract.Predictor)."""
        module, function = _LOAD
        return getattr(importlib.import_module(module), function)(Path(self._models[model]), self._run.folders)

    def _written(self, rows: pa.Table) -> Path:
        self._scratch.mkdir(exist_ok=True)
        file = self._scratch / "rows.parquet"
        pq.write_table(rows, file)
        return file


def _read_table(path: Path, answer: Mapping[str, Any]) -> pa.Table:
    return pq.read_table(path)


# Media of a version rewritten, one by one, into a new pack: by a service in sandboxed processes, for they are foreign.
#
# A service is a function {packs, contents, ...} -> {file, items}: the file holds the new bytes one after another, and
# an item for each of the contents says how many they are (none where it could not be done) and whatever else was
# found out. Where a process dies on several, each is asked about alone, and the one at fault has no new bytes.


_CHUNK, _CHUNK_BYTES = 32, 16 << 20
"""Most media and bytes per question to a process."""


class RewrittenFile(NamedTuple):
    content: str | None
    """sha256 of the new bytes, by which the new pack knows them."""
    size: int
    told: dict[str, Any]
    """What the service said of it, which comes from a process that met foreign bytes; empty where it died."""


class RewrittenMedia(NamedTuple):
    pack: Path
    media: dict[str, RewrittenFile]
    """By the content that was rewritten."""


def rewrite_media(
    pool: Pool,
    packs: Sequence[Path],
    target: Path,
    service: str,
    payload: Mapping[str, Any],
    contents: Sequence[str],
    progress: Callable[[int, int], None],
) -> RewrittenMedia:
    """`contents`: each once. `target`: the folder of packs. Nothing is left where it raises."""
    media: dict[str, RewrittenFile] = {}
    about = {**payload, "packs": [str(pack) for pack in packs]}
    with PackReader(packs) as reader:
        chunks = list(_chunks(contents, reader))
    with PackWriter(target) as writer, ThreadPoolExecutor(pool.size, thread_name_prefix="rewrite") as threads:
        for chunk, items in zip(
            chunks, threads.map(lambda each: _ask_to_rewrite(pool, service, about, each), chunks), strict=True
        ):
            for content, (data, told) in zip(chunk, items, strict=True):
                media[content] = RewrittenFile(None if data is None else writer.add(data), len(data or b""), told)
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


Item = tuple[bytes | None, dict[str, Any]]


def _ask_to_rewrite(pool: Pool, service: str, about: dict[str, Any], contents: Sequence[str]) -> list[Item]:
    def read(path: Path, answer: dict[str, Any]) -> list[Item]:
        """Checked: it comes from a process that met foreign bytes."""
        data, items = path.read_bytes(), answer["items"]
        lengths = [item["length"] for item in items]
        if len(items) != len(contents) or sum(length or 0 for length in lengths) != len(data):
            raise invalid_answer_error()
        found, start = list[Item](), 0
        for item, length in zip(items, lengths, strict=True):
            told = {name: value for name, value in item.items() if name != "length"}
            found.append((None if length is None else data[start : start + length], told))
            start += length or 0
        return found

    try:
        return pool.ask_for_file(service, {**about, "contents": list(contents)}, read, _SECONDS)
    except SpeciateError as error:
        if error.code != Code.UNAVAILABLE:
            raise
        if len(contents) == 1:
            return [(None, {})]
        return [item for content in contents for item in _ask_to_rewrite(pool, service, about, [content])]
