"""A folder of `export_model` in this process: `speciate.load(Path("out/triage"))`, with no workspace.

    files.json, model.json             sealed: the version's own files, by their own code; a changed byte is refused
    model.onnx, preprocessing.json     one graph, by onnxruntime
    config.json, README.md             a head of transformers, by its pipeline

A graph and a pipeline answer as the card's program does, of media that are decoded as everywhere here. No code that
lies in the folder is run, `model.py` is for programs without speciate, and weights are read as safetensors alone.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.exports.onnx_folder import GRAPH, PREPROCESSING
from speciate.models import sealed, trust
from speciate.models.backbones.exported import check_installed
from speciate.models.model_card import ModelCard
from speciate.models.published.published_model import quiet_transformers, refuse_unmatched
from speciate.serving.local_model import LocalModel
from speciate.tasks import predictor
from speciate.tasks.task import Prediction
from speciate.vocabulary import TASKS

_TAG = re.compile(r"^pipeline_tag: *['\"]?([a-z-]+)", re.MULTILINE)
_WORD = re.compile(r"\S+")
_RATE = 16_000
"""Samples a second, as audio is decoded here."""
_ADAPTER = "adapter_config.json"


class _Head(NamedTuple):
    """Classes of transformers that load from a folder: of the model, and of each other argument of the pipeline."""

    modality: str
    model: str
    parts: Mapping[str, str]


_TEXT, _IMAGE = {"tokenizer": "AutoTokenizer"}, {"image_processor": "AutoImageProcessor"}
_SOUND = {"feature_extractor": "AutoFeatureExtractor"}
_PIPELINES: Mapping[str, _Head] = {
    "text-classification": _Head("text", "AutoModelForSequenceClassification", _TEXT),
    "token-classification": _Head("text", "AutoModelForTokenClassification", _TEXT),
    "image-classification": _Head("image", "AutoModelForImageClassification", _IMAGE),
    "audio-classification": _Head("audio", "AutoModelForAudioClassification", _SOUND),
    "automatic-speech-recognition": _Head("audio", "AutoModelForCTC", {**_TEXT, **_SOUND}),
}
"""By the task of transformers' pipeline."""
Scores = npt.NDArray[np.float64]
"""(N, labels), or (N, 1) for a number."""


def open_export(folder: Path) -> LocalModel:
    """Raises NOT_FOUND for a folder that is no export, REFUSED for changed files and for what is not safe to load,
    INVALID for one whose answers are made of its outputs by other code."""
    if (folder / GRAPH).is_file() and (folder / PREPROCESSING).is_file():
        return _open_graph(folder)
    if sealed.is_sealed_export(folder):
        card = sealed.card_of_export(folder)
        sealed.check_unchanged(folder)
        trust.check(folder)
        return LocalModel(folder, card, predictor.load_checked(folder))
    if (folder / "config.json").is_file():
        return _open_pipeline(folder)
    raise SpeciateError(
        Code.NOT_FOUND,
        f"{folder} is no folder that export_model wrote.",
        "Name such a folder, or a model of a workspace: NAME, NAME@v3 or USE_CASE@production.",
    )


def _card(folder: Path, task: str, modality: str, labels: Sequence[str], inputs: Sequence[str] = ()) -> ModelCard:
    return ModelCard(
        name=folder.name[:64] or "export", task=task, modality=modality, method="export", labels=tuple(labels),
        inputs=tuple(inputs),
    )  # fmt: skip


# One graph


class _Preprocessing(BaseModel):
    """`preprocessing.json`, as `exports/onnx_folder.py` and `onnx_table.py` write it."""

    model_config = ConfigDict(frozen=True)
    task: str
    family: Literal["classification", "multi-label", "regression", "tokens", "ordinal"]
    labels: tuple[str, ...] = ()
    thresholds: tuple[float, ...] = ()
    commonest: str | None = None
    inputs: dict[str, Any] = Field(min_length=1)
    max_tokens: int = 512
    pad_token_id: int = 0
    side: int = 224
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    resample: int = 2
    numbers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    missing: str = ""

    @property
    def modality(self) -> str:
        return {"input_ids": "text", "pixel_values": "image"}.get(next(iter(self.inputs)), "tabular")


def _open_graph(folder: Path) -> LocalModel:
    try:
        about = _Preprocessing.model_validate_json((folder / PREPROCESSING).read_bytes())
    except ValidationError as error:
        raise SpeciateError(
            Code.INVALID, f"{folder / PREPROCESSING} is not as export_model writes it.", "Export it again.", str(error)
        ) from error
    check_installed("onnxruntime", *(("tokenizers",) if about.modality == "text" else ()))
    card = _card(folder, about.task, about.modality, about.labels, (*about.numbers, *about.categories))
    return LocalModel(folder, card, GraphPredictor(folder, about))


class GraphPredictor:
    """Answers of one ONNX graph, as the program on its card makes them."""

    def __init__(self, folder: Path, about: _Preprocessing) -> None:
        self._folder, self._about = folder, about
        self.task, self.labels = about.task, about.labels

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        if not examples:
            return []
        media, about = [each.media for each in examples], self._about
        if about.modality == "text":
            pieces = self._tokenizer.encode_batch([str(each) for each in media])
            given = {
                "input_ids": np.array([each.ids for each in pieces], np.int64),
                "attention_mask": np.array([each.attention_mask for each in pieces], np.int64),
            }
            made = self._run(given)
            if about.family == "tokens":
                return [self._tagged(*each) for each in zip(map(str, media), pieces, made, strict=True)]
            return answers_of(made, about.family, about.labels, about.thresholds)
        made = self._run({"pixel_values": self._pixels(media)} if about.modality == "image" else self._cells(media))
        return answers_of(made, about.family, about.labels, about.thresholds)

    def _run(self, given: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        (made,) = self._session.run(None, dict(given))
        return np.asarray(made)

    @cached_property
    def _session(self) -> Any:
        onnxruntime = importlib.import_module("onnxruntime")
        return onnxruntime.InferenceSession(str(self._folder / GRAPH), providers=["CPUExecutionProvider"])

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
        tokenizer.enable_truncation(self._about.max_tokens)
        tokenizer.enable_padding(pad_id=self._about.pad_token_id)
        return tokenizer

    def _pixels(self, media: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        from PIL import Image

        about = self._about
        size, filter_ = (about.side, about.side), Image.Resampling(about.resample)
        small = [np.asarray(Image.fromarray(each).convert("RGB").resize(size, filter_)) / 255 for each in media]
        scaled = (np.stack(small) - np.array(about.mean)) / np.array(about.std)
        return np.asarray(scaled.transpose(0, 3, 1, 2), np.float32)

    def _cells(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, npt.NDArray[Any]]:
        about = self._about
        given: dict[str, npt.NDArray[Any]] = {}
        if "numbers" in about.inputs:
            numbers = [[_number(row[name]) for name in about.numbers] for row in rows]
            given["numbers"] = np.array(numbers, np.float64)
        if "categories" in about.inputs:
            words = [
                [about.missing if row[name] is None else str(row[name]) for name in about.categories] for row in rows
            ]
            given["categories"] = np.array(words, object)
        return given

    def _tagged(self, text: str, piece: Any, scores: npt.NDArray[np.float32]) -> Prediction:
        """The tag of a word is that of its first token."""
        ends = [end for _, end in piece.offsets]  # special tokens end at 0
        first = [
            next((place for place, end in enumerate(ends) if end > word.start()), None) for word in _WORD.finditer(text)
        ]
        labels, usual = self._about.labels, self._about.commonest
        return Prediction([usual if at is None else labels[int(scores[at].argmax())] for at in first], None, None)


def _number(cell: object) -> float:
    return float("nan") if cell is None else float(cell)  # type: ignore[arg-type]  # admitted cells are numbers


def answers_of(
    scores: Scores, family: str, labels: Sequence[str], thresholds: Sequence[float] = ()
) -> list[Prediction]:
    """Answers from probabilities (N, labels), or from numbers (N, 1)."""
    if family == "regression":
        return [Prediction(float(row[0]), None, None) for row in scores]
    found = []
    for row in scores:
        table = {label: float(score) for label, score in zip(labels, row, strict=True)}
        if family == "multi-label":
            given = [label for (label, score), least in zip(table.items(), thresholds, strict=True) if score > least]
            found.append(Prediction(given, None, table))
            continue
        # of ranks the answer is the median
        place = int((1 - row.cumsum()[:-1] > 0.5).sum()) if family == "ordinal" else int(row.argmax())
        found.append(Prediction(labels[place], float(row[place]), table))
    return found


# A head of transformers


class _HeadConfig(BaseModel):
    """What answers are made with, of `config.json`: transformers' entries, and two of ours."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)
    id2label: dict[int, str] = {}
    problem_type: str | None = None
    thresholds: dict[str, float] = {}
    commonest: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.id2label[place] for place in sorted(self.id2label))


def _open_pipeline(folder: Path) -> LocalModel:
    readme = folder / "README.md"
    found = _TAG.search(readme.read_text(encoding="utf-8", errors="replace")) if readme.is_file() else None
    kind = found[1] if found else ""
    if kind not in _PIPELINES:
        raise SpeciateError(
            Code.INVALID,
            f"{folder} names no pipeline that answers here ({kind or 'none'}); known: {', '.join(_PIPELINES)}.",
            "Use the program on its card, or load the version from the workspace.",
        )
    _refuse_unsafe(folder)
    check_installed("transformers", "torch")
    try:
        config = _HeadConfig.model_validate_json((folder / "config.json").read_bytes())
    except ValidationError as error:
        raise _unreadable(folder, "its config.json is not as export_model writes it", str(error)) from error
    task = kind if kind in TASKS else "automatic-speech-recognition"
    card = _card(folder, task, _PIPELINES[kind].modality, config.labels)
    return LocalModel(folder, card, PipelinePredictor(_load_pipeline(folder, kind), kind, config))


def _refuse_unsafe(folder: Path) -> None:
    """Raise REFUSED for what a registry would not take, for code and pickles even where they would not be read, and for
    an adapter, which names the model that it is put on."""
    names = trust.entries(folder)
    excluded = trust.choose(names).excluded
    trust.check(folder)
    unsafe = [name for name in names if (name in excluded and trust.could_run(name)) or name == _ADAPTER]
    if unsafe:
        why = excluded.get(unsafe[0], "An adapter names another model.")
        raise SpeciateError(
            Code.REFUSED,
            f"{folder} is not safe to load: {unsafe[0][:100]!r} lies in it. {why}",
            "export_model writes no such file: load the folder as it was written.",
        )


def _unreadable(folder: Path, why: str, foreign: str = "") -> SpeciateError:
    return SpeciateError(
        Code.INVALID, f"{folder} cannot answer: {why}.", "Export it again with export_model.", foreign[:500]
    )


class PipelinePredictor:
    """Answers of a folder by `transformers.pipeline`, as the program on its card makes them."""

    def __init__(self, pipeline: Any, kind: str, config: _HeadConfig) -> None:
        self._pipeline, self._kind, self._config = pipeline, kind, config
        self.task, self.labels = kind, config.labels

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        if not examples:
            return []
        media = [each.media for each in examples]
        match self._kind:
            case "automatic-speech-recognition":
                return [Prediction(" ".join(each["text"].split()), None, None) for each in self._pipeline(media)]
            case "token-classification":
                tagged = self._pipeline(media, ignore_labels=[])
                return [self._tags(text, pieces) for text, pieces in zip(media, tagged, strict=True)]
            case "image-classification":
                from PIL import Image

                images = [Image.fromarray(each).convert("RGB") for each in media]
                found = self._pipeline(images, top_k=len(self.labels))
            case "text-classification":
                found = self._pipeline(media, truncation=True, top_k=None)
            case _:
                found = self._pipeline(media, top_k=None)
        return [self._answer({each["label"]: float(each["score"]) for each in one}) for one in found]

    def _answer(self, scores: Mapping[str, float]) -> Prediction:
        if thresholds := self._config.thresholds:
            family, least = "multi-label", [thresholds[label] for label in self.labels]
        else:
            family, least = "regression" if self._config.problem_type == "regression" else "classification", []
        row = np.array([[scores[label] for label in self.labels]], np.float64)
        return answers_of(row, family, self.labels, least)[0]

    def _tags(self, text: str, pieces: Sequence[Mapping[str, Any]]) -> Prediction:
        usual = self._config.commonest
        words = [word.start() for word in _WORD.finditer(text)]
        tags = [next((one["entity"] for one in pieces if one["end"] > word), usual) for word in words]
        return Prediction(tags, None, None)


def _load_pipeline(folder: Path, kind: str) -> Any:
    """All parts are loaded here: `transformers.pipeline` would load them from a folder with other options."""
    transformers: Any = importlib.import_module("transformers")
    head = _PIPELINES[kind]

    def load(name: str, **options: Any) -> Any:
        named = getattr(transformers, name)
        return named.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options)

    with quiet_transformers(transformers):
        try:
            module, info = load(head.model, use_safetensors=True, dtype="auto", output_loading_info=True)
            # torchvision rounds otherwise
            parts = {
                part: load(name, **({"backend": "pil"} if part == "image_processor" else {}))
                for part, name in head.parts.items()
            }
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, ImportError, AttributeError) as error:
            why = f"transformers does not load it as {head.model} ({type(error).__name__})"
            raise _unreadable(folder, why, str(error)) from error
    refuse_unmatched(folder, info)
    if "feature_extractor" in parts and parts["feature_extractor"].sampling_rate != _RATE:
        raise _unreadable(folder, f"it hears other than {_RATE:,} samples a second")
    return transformers.pipeline(kind, model=module.eval(), trust_remote_code=False, **parts)
