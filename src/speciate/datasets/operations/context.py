"""What an operation may ask for beside its rows, in the worker."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets import scan
from speciate.datasets.columns import CONTENT, HIDDEN
from speciate.datasets.loading import loader
from speciate.datasets.loading.decoding import decode_media
from speciate.datasets.loading.marks import Marks, marks
from speciate.datasets.loading.rewriting import Rewriting, rewritten
from speciate.datasets.similarity import similar
from speciate.datasets.similarity.extractors import DESCRIPTOR
from speciate.datasets.splitting import near_pairs
from speciate.datasets.versions import Manifest
from speciate.jobs.pool import Pool
from speciate.jobs.run import Run, Stopped
from speciate.modalities.mixed.multimodal import PartName
from speciate.workspace.packs import PackReader

_SELECT = "speciate.datasets.look.sql_cage:select"
_LOAD = ("speciate.tasks.predictor", "load")
"""Stands above this floor, so it is named by string."""
_EVALUATED = ("speciate.evaluation.pairs", "read")
_SCORES = ("speciate.evaluation.pairs", "scores")
_ANSWERS = ("speciate.evaluation.teachers", "answers")
_SECONDS = 600.0

Vectors = npt.NDArray[np.float32]  # (N, D)


class Answered(NamedTuple):
    """What a teacher said."""

    teacher: str
    """Its ref, with its version."""
    how: str
    """In words: what it was asked to do, and by which words."""
    repeats: Sequence[Sequence[tuple[Any, str | None]]]
    """For each time that all were asked and each row the answer, or None and why there is none."""
    notes: Sequence[str] = ()


class Evaluated(NamedTuple):
    """Answers that an evaluation holds."""

    metric: str
    answers: Mapping[str, Sequence[tuple[str | None, float | None, str]]]
    """By example: each answer, how good it was (more is better), and whose it is."""


class Other(NamedTuple):
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
        """What one SELECT over the view `examples` gives, run in the cage. Hidden columns are not to be seen."""
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

        return similar.vectors(self._run.folders, self.manifest, rows, extractor, progress, part)

    def near_pairs(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        """(M, 2) places of near-duplicates; none where the modality has no sketches."""
        return near_pairs(rows, self.manifest.modality)

    def other(self, ref: str) -> Other:
        """Another dataset version that the step's parameters name, rows of every quality."""
        manifest = self._others[ref]
        return Other(manifest, scan.read(self._run.folders, manifest))

    def examples(self, rows: pa.Table, manifest: Manifest | None = None) -> list[loader.Example]:
        """Decoded, of rows whose media are whole. `manifest`: with other inputs than the version's."""
        folders, manifest = self._run.folders, manifest or self.manifest
        if manifest.inputs:
            media = loader.admitted(manifest, rows)
        else:
            media = decode_media(folders, loader.packs(folders, manifest), manifest.modality, loader.items(rows))
        return loader.examples(rows, media, loader.user_columns(rows))

    def marks(self, rows: pa.Table, unit: str) -> Iterator[Marks]:
        """Where units such as frames begin in the file of each row, in order (loading/marks.py)."""
        contents = rows[CONTENT].to_pylist()
        once = list(dict.fromkeys(contents))  # windows share a file
        found: dict[str, Marks] = {}
        read = marks(self._pool, loader.packs(self._run.folders, self.manifest), self.manifest.modality, once, unit)
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

    def rewritten(self, service: str, payload: Mapping[str, Any], contents: Sequence[str]) -> Rewriting:
        """Media of the version rewritten into a new pack by a service in caged processes (loading/rewriting.py)."""
        folders = self._run.folders
        packs = loader.packs(folders, self.manifest)

        def progress(done: int, total: int) -> None:
            self.progress(done, total, "files", "rewriting")

        return rewritten(self._pool, packs, folders.packs, service, payload, contents, progress)

    def answers(self, rows: pa.Table, repeats: int = 1) -> Answered:
        """What the teacher of this step says of these rows, whose media are whole, each time that it is asked.

        Raises Stopped, and what asking raises; what was answered until then is kept."""
        module, function = _ANSWERS
        ask = getattr(importlib.import_module(module), function)
        wanted = tuple(self.outside["inputs"]) or self.manifest.inputs
        shown = self.manifest.model_copy(update={"inputs": wanted})

        def tell(done: int) -> None:
            self.progress(done, repeats * rows.num_rows, "answers", self.outside["teacher"])

        given: Answered = ask(self._run, self.outside, shown, self.examples(rows, shown), tell, repeats)
        return given

    def evaluated(self) -> Evaluated:
        """What the evaluation that this step names holds."""
        module, function = _EVALUATED
        found: Evaluated = getattr(importlib.import_module(module), function)(self.outside)
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
