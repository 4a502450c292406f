"""Which published head a folder holds: its task, its architecture and its labels, by config.json alone.

The table of architectures is transformers' own: its Auto mappings are read as source text, so that a plan imports no
model library. An architecture is matched by `model_type` and by name: a suffix says too little, as
`Wav2Vec2ForSequenceClassification` reads audio and `Qwen3ForSequenceClassification` text.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from speciate import foreign_files
from speciate.errors import Call, Code, SpeciateError
from speciate.models.backbones.contract import ModelConfig
from speciate.models.policies.policy_folder import read_policy
from speciate.models.published.onnx_model import OnnxCard, is_onnx, read_card
from speciate.models.sealed import PREDICTOR

Adapter = Literal[
    "text-classification", "token-classification", "image-classification", "object-detection", "image-segmentation",
    "audio-classification", "speech", "ctc", "zero-shot-image", "zero-shot-audio", "video-classification", "seq2seq",
    "image-to-text", "visual-questions", "question-answering", "forecast", "zero-shot-detection", "depth", "panoptic",
    "policy", "text-to-spectrogram", "text-to-waveform", "forecast-quantiles",
]  # fmt: skip
"""How media become a batch and outputs answers: a function each in models/published/adapters/."""

MOST_LABELS = 5_000
"""Probabilities of all labels are kept for each answer; a head of 21,000 would take a megabyte for each."""


class PublishedHead(NamedTuple):
    adapter: Adapter
    task: str
    """Name in the vocabulary of this package, such as `image-classification`."""
    modality: str
    architecture: str
    """The class of transformers."""
    model_type: str
    labels: tuple[str, ...] | None = None
    """In the order of the head's outputs. () of a head without labels; None where the weights' library knows them."""
    multi_label: bool = False
    steps: int | None = None
    """Number of steps that a forecaster gives."""
    engine: Literal["torch", "onnx"] = "torch"
    """The engine that computes it. An ONNX network answers, and cannot be trained."""
    relative: bool = False
    """For depth: whether larger is nearer, in no unit, as MiDaS and Depth Anything are trained, but for their metric
    sorts."""

    pairs: bool = False
    """Whether it compares two texts, the first line and what stands below it, as sentence-transformers' cross-encoders
    do."""

    @property
    def zero_shot(self) -> bool:
        """Whether its labels are sentences that the caller's labels are put into."""
        return self.adapter in ("zero-shot-image", "zero-shot-audio", "zero-shot-detection")

    def reads(self, modality: str) -> bool:
        """Whether it reads the examples of a dataset. One that writes about images also reads mixed rows with one; one
        that speaks reads what is spoken in recordings."""
        spoken = self.adapter in SPEAKING and modality == "audio"
        return self.modality == modality or spoken or (self.adapter == "image-to-text" and modality == "multimodal")

    @property
    def writes(self) -> bool:
        """Whether it writes a text, so that one template may be put around what it is asked."""
        return self.adapter in ("seq2seq", "image-to-text", "visual-questions")

    @property
    def reads_boxes(self) -> bool:
        """Whether its words need their places on the page, `Total:@92,31,140,44`."""
        return self.model_type in LAYOUTS


class _AutoTable(NamedTuple):
    adapter: Adapter
    names: str
    """The mapping in transformers' module modeling_auto."""
    kinds: tuple[str, ...] = ()
    """Model types of the mapping that need nothing but the medium; empty: all."""


_SPEECH = ("whisper", "speech_to_text", "moonshine", "speech-encoder-decoder")
_DETECTORS = (
    "conditional_detr", "d_fine", "dab-detr", "deformable_detr", "deimv2", "detr", "lw_detr", "rf_detr", "rt_detr",
    "rt_detr_v2", "table-transformer", "yolos",
)  # fmt: skip
_IMAGES_AND_WORDS = ("align", "altclip", "chinese_clip", "clip", "metaclip_2", "siglip", "siglip2")
_BOXES_BY_WORDS = ("owlvit", "owlv2")
_DEPTH = ("depth_anything", "depth_pro", "dpt", "glpn", "zoedepth")
_DISTANCES = ("depth_pro", "glpn", "zoedepth")
_CAPTIONERS, _QUESTIONS = ("blip",), ("blip", "vilt")
LAYOUTS = ("layoutlm", "lilt")
"""Networks of documents that read words with their places, and no pixels."""
_TEXT_TO_TEXT = (
    "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "fsmt", "led", "longt5", "m2m_100", "marian", "mbart",
    "mt5", "mvp", "nllb-moe", "pegasus", "pegasus_x", "plbart", "prophetnet", "switch_transformers", "t5", "umt5",
)  # fmt: skip
_TABLES = (
    _AutoTable("token-classification", "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES"),
    _AutoTable("text-classification", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES"),
    _AutoTable("image-classification", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES"),
    _AutoTable("object-detection", "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES", _DETECTORS),
    _AutoTable("image-segmentation", "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES"),
    _AutoTable("image-segmentation", "MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES", ("mask2former", "maskformer")),
    _AutoTable("panoptic", "MODEL_FOR_IMAGE_SEGMENTATION_MAPPING_NAMES", ("detr",)),
    _AutoTable("zero-shot-detection", "MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES", _BOXES_BY_WORDS),
    _AutoTable("depth", "MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES", _DEPTH),
    _AutoTable("audio-classification", "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES"),
    _AutoTable("video-classification", "MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES"),
    _AutoTable("speech", "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES", _SPEECH),
    _AutoTable("ctc", "MODEL_FOR_CTC_MAPPING_NAMES"),
    _AutoTable("zero-shot-image", "MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES", _IMAGES_AND_WORDS),
    _AutoTable("question-answering", "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES"),
    _AutoTable("question-answering", "MODEL_FOR_DOCUMENT_QUESTION_ANSWERING_MAPPING_NAMES", LAYOUTS),
    _AutoTable("visual-questions", "MODEL_FOR_VISUAL_QUESTION_ANSWERING_MAPPING_NAMES", _QUESTIONS),
    _AutoTable("image-to-text", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES", _CAPTIONERS),
    _AutoTable("seq2seq", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES", _TEXT_TO_TEXT),
)
"""The first that lists an architecture counts."""
_BESIDE: Mapping[str, Adapter] = {
    "PatchTSTForPrediction": "forecast", "PatchTSMixerForPrediction": "forecast",
    "ChronosBoltModelForForecasting": "forecast-quantiles",
    "TimesFmModelForPrediction": "forecast", "TimesFm2_5ModelForPrediction": "forecast",
    "SpeechT5ForTextToSpeech": "text-to-spectrogram", "VitsModel": "text-to-waveform",
    "ClapModel": "zero-shot-audio", "VisionEncoderDecoderModel": "image-to-text",
}  # fmt: skip
"""Heads for which transformers has no Auto class, or one that does not tell what is read."""
_TASKS: Mapping[Adapter, tuple[str, str]] = {
    "text-classification": ("text-classification", "text"),
    "token-classification": ("token-classification", "text"),
    "image-classification": ("image-classification", "image"),
    "object-detection": ("object-detection", "image"),
    "image-segmentation": ("image-segmentation", "image"),
    "audio-classification": ("audio-classification", "audio"),
    "video-classification": ("video-classification", "video"),
    "speech": ("automatic-speech-recognition", "audio"),
    "ctc": ("automatic-speech-recognition", "audio"),
    "zero-shot-image": ("image-classification", "image"),
    "zero-shot-audio": ("audio-classification", "audio"),
    "seq2seq": ("text-generation", "text"),
    "image-to-text": ("image-text-to-text", "image"),
    "visual-questions": ("image-text-to-text", "multimodal"),
    "zero-shot-detection": ("object-detection", "image"),
    "depth": ("depth-estimation", "image"),
    "panoptic": ("panoptic-segmentation", "image"),
    "question-answering": ("text-generation", "text"),
    "forecast": ("time-series-forecasting", "time-series"),
    "forecast-quantiles": ("time-series-forecasting", "time-series"),
    "policy": ("behaviour-cloning", "episode"),
    "text-to-spectrogram": ("text-to-speech", "text"),
    "text-to-waveform": ("text-to-speech", "text"),
}
"""Adapter -> task and modality."""
SPEAKING: tuple[Adapter, ...] = ("text-to-spectrogram", "text-to-waveform")
_LABELLED: tuple[Adapter, ...] = (
    "text-classification", "token-classification", "image-classification", "object-detection", "image-segmentation",
    "audio-classification", "video-classification", "panoptic",
)  # fmt: skip
_SEVERAL_TASKS: Mapping[str, tuple[str, ...]] = {
    "mask2former": ("image-segmentation", "panoptic-segmentation"),
    "maskformer": ("image-segmentation", "panoptic-segmentation"),
}
"""Networks whose masks answer either task; which one they were trained for, no file says. The first is meant where
nobody says the other."""
_PROTEINS = ("esm", "esmc")
_CROSS_ENCODERS = ("sentence_transformers", "sbert_ce_default_activation_function")
"""Entries of config.json that sentence-transformers writes for a cross-encoder, now and before version 4."""
_OTHER_INPUTS = (
    "bros", "layoutlmv2", "layoutlmv3", "markuplm", "tapas", "udop", "oneformer", "perceiver",
)  # fmt: skip
"""Networks that need more than the medium: boxes of words, cells of a table, a task as text."""
_ONNX = "onnx"
_IN_ONE_PASS: tuple[Adapter, ...] = (
    *_LABELLED, "question-answering", "depth", "zero-shot-image", "ctc",
)  # fmt: skip
"""Adapters that a network of one forward pass is enough for: an ONNX file holds no generation."""
_TIMM, _TIMM_HEAD = "timm_wrapper", "TimmWrapperForImageClassification"
_PROCESSORS: Mapping[str, tuple[str, ...]] = {
    "text": (
        "tokenizer.json",
        "vocab.txt",
        "vocab.json",
        "spiece.model",
        "sentencepiece.bpe.model",
        "tokenizer.model",
        "spm_char.model",
    ),
    "image": ("preprocessor_config.json", "processor_config.json"),
    "audio": ("preprocessor_config.json", "processor_config.json"),
    "multimodal": ("preprocessor_config.json", "processor_config.json"),
    "video": ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"),
}
"""Modality -> files of which one must be there: without it nobody knows how media are prepared."""
_TOKENIZED: tuple[Adapter, ...] = (
    "speech", "ctc", "zero-shot-image", "zero-shot-audio", "zero-shot-detection", "image-to-text", "visual-questions",
)  # fmt: skip
"""Adapters that need a tokenizer, too."""


def find_head(folder: Path, task: str | None = None) -> PublishedHead | None:
    """The published head in a folder; None where config.json names none that this package can ask. `task`: which of
    several is wanted, of a head that does more than one; else the one that it was registered for, or its usual one."""
    onnx = is_onnx(folder)
    if onnx and (card := read_card(folder)) is not None:
        return _of_card(card)
    config = read_config(folder)
    if (policy := read_policy(config)) is not None:
        return PublishedHead("policy", *_TASKS["policy"], f"LeRobot's {policy.type}", policy.type, ())
    architecture, model_type = _named(config)
    adapter = _adapter(architecture, model_type)
    if adapter is None or (onnx and adapter not in _IN_ONE_PASS):
        return None
    if adapter == "image-segmentation" and _told_task(folder, task) in _SEVERAL_TASKS.get(model_type, ())[1:]:
        adapter = "panoptic"
    task, modality = _TASKS[adapter]
    labels = _labels(config) if adapter in _LABELLED else ()
    if model_type in _PROTEINS:
        task, modality = task.replace("text-", "protein-"), "protein"
    multi_label = False
    if task.endswith("-classification") and adapter in _LABELLED and adapter != "token-classification":
        kind = config.get("problem_type")
        multi_label = kind == "multi_label_classification"
        prefix = task.removesuffix("-classification")
        if multi_label:
            task = f"{prefix}-multi-label-classification"
        elif kind == "regression" or (labels is not None and len(labels) == 1):
            task, labels = f"{prefix}-regression", ()
    given = _steps(config, adapter)
    steps = given if isinstance(given, int) else None
    engine: Literal["torch", "onnx"] = "onnx" if onnx else "torch"
    kind = config.get("depth_estimation_type", "relative")
    relative = adapter == "depth" and model_type not in _DISTANCES and kind != "metric"
    return PublishedHead(
        adapter, task, modality, architecture, model_type, labels, multi_label, steps, engine, relative,
        adapter == "text-classification" and any(name in config for name in _CROSS_ENCODERS),
    )  # fmt: skip


def _steps(config: ModelConfig, adapter: Adapter) -> object:
    """How many steps a forecaster gives, by its config; Chronos has settings of its own in it."""
    if adapter == "forecast-quantiles":
        own = config.get("chronos_config")
        return own.get("prediction_length") if isinstance(own, dict) else None
    return config.get("prediction_length", config.get("horizon_length")) if adapter == "forecast" else None


def find_labels(folder: Path) -> tuple[str, ...] | None:
    """The labels in the order of the head's outputs; None where there is no head that can be asked, or a library knows
    them."""
    head = find_head(folder)
    return head.labels if head else None


def _of_card(card: OnnxCard) -> PublishedHead:
    adapter: Adapter = "image-to-text" if card.task == "image-text-to-text" else "image-classification"
    return PublishedHead(adapter, card.task, "image", _ONNX, _ONNX, card.labels, engine="onnx")


def check_head(folder: Path, ref: str, task: str | None = None) -> PublishedHead:
    """The head by `find_head`. Raises INVALID, with what to do, for a folder that cannot be asked as it is."""
    head, config = find_head(folder, task), read_config(folder)
    if head is None:
        raise _no_head(ref, *_named(config))
    if head.labels is not None and len(head.labels) > MOST_LABELS:
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} has a head of {len(head.labels):,} labels, more than {MOST_LABELS:,}: the probabilities of all "
            "labels are kept for every answer.",
            "Use a model of the same family with fewer labels, or train a head of your own labels on it: "
            f"train_model(method='probe', base_model={ref!r}, ...).",
        )
    lacking = _lacking_processor(folder, head)
    if lacking:
        raise SpeciateError(
            Code.INVALID,
            f"{ref!r} has no processor: {' or '.join(lacking)} is missing, so nobody knows how its maker prepared its "
            "inputs.",
            "Copy the file from the model that it was fine-tuned from into the folder, or use another model.",
            next=[Call("search_models", {"task": head.task}, "for others")],
        )
    return head


def read_config(folder: Path) -> ModelConfig:
    """The folder's config.json; empty if there is none that can be read."""
    try:
        found = foreign_files.read_json(folder / "config.json")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _told_task(folder: Path, task: str | None) -> str | None:
    """The task that is wanted, or that stands in `predictor.json`."""
    if task is not None:
        return task
    try:
        said = foreign_files.read_json(folder / PREDICTOR)
    except (OSError, ValueError):
        return None
    told = said.get("task") if isinstance(said, dict) else None
    return told if isinstance(told, str) else None


def _named(config: ModelConfig) -> tuple[str, str]:
    """Architecture and model type; empty where the config names none."""
    if "pretrained_cfg" in config and "architecture" in config:  # as timm writes it
        return _TIMM_HEAD, _TIMM
    named = config.get("architectures")
    architecture = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else ""
    kind = config.get("model_type")
    return _plain(architecture), _plain(kind if isinstance(kind, str) else "")


_BY_TASK: Mapping[str, str] = {
    "SEQ_CLS": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "TOKEN_CLS": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "QUESTION_ANS": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "SEQ_2_SEQ_LM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "CAUSAL_LM": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "FEATURE_EXTRACTION": "MODEL_MAPPING_NAMES",
}
"""PEFT's name of a task -> transformers' mapping of its classes."""


def architecture_of(config: ModelConfig, task: str | None, named: str | None = None) -> str | None:
    """The class of transformers that an adapter changes: `named`, else that of its task (PEFT's name), else the base
    model's own. None for one that no Auto mapping has for this type of model."""
    own, model_type = _named(config)
    known = [names for table in _auto_mappings().values() for names in table.get(model_type, ())]
    by_task = _auto_mappings().get(_BY_TASK.get(task or "", ""), {}).get(model_type, ())
    for wanted in (named or "", *([own] if own in by_task or not by_task else []), *by_task):
        if wanted in known:
            return wanted
    return None


def _plain(name: str) -> str:
    """Empty for what is no name, as it comes back in refusals."""
    return name if re.fullmatch(r"[\w.\-]{1,80}", name, re.ASCII) else ""


def _adapter(architecture: str, model_type: str) -> Adapter | None:
    if architecture in _BESIDE:
        return _BESIDE[architecture]
    if not architecture or model_type in _OTHER_INPUTS:
        return None
    for table in _TABLES:
        known = _auto_mappings().get(table.names, {}).get(model_type, ())
        if architecture in known and (not table.kinds or model_type in table.kinds):
            return table.adapter
    return None


@cache
def _auto_mappings() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """Name of an Auto mapping -> model type -> its architectures. Empty without transformers."""
    found = importlib.util.find_spec("transformers")
    if found is None or not found.submodule_search_locations:
        return {}
    path = Path(next(iter(found.submodule_search_locations))) / "models" / "auto" / "modeling_auto.py"
    tree = ast.parse(path.read_text("utf-8"))
    tables: dict[str, dict[str, tuple[str, ...]]] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and isinstance(node.targets[0], ast.Name):
            tables[node.targets[0].id] = _pairs(node.value)
    return tables


def _pairs(call: ast.Call) -> dict[str, tuple[str, ...]]:
    """Model type -> names of classes in `OrderedDict([("bert", "BertForX"), ("wav2vec2", ("A", "B"))])`."""
    found: dict[str, tuple[str, ...]] = {}
    for pair in call.args[0].elts if call.args and isinstance(call.args[0], ast.List) else ():
        try:
            kind, named = ast.literal_eval(pair)
        except (ValueError, TypeError):
            continue
        found[kind] = (named,) if isinstance(named, str) else tuple(named)
    return found


def _labels(config: ModelConfig) -> tuple[str, ...] | None:
    """The labels by the head's outputs. A config that names none has transformers' own names, LABEL_0 and so on."""
    if isinstance(named := config.get("label_names"), list):
        return tuple(str(each) for each in named)
    by_output = config.get("id2label")
    if isinstance(by_output, dict) and by_output:
        try:
            return tuple(str(by_output[key]) for key in sorted(by_output, key=int))
        except (ValueError, TypeError):
            return None
    if "pretrained_cfg" in config:
        return None  # timm knows those of ImageNet
    count = config.get("num_labels", 2)
    enough = min(count if isinstance(count, int) else 2, MOST_LABELS + 1)  # a config may declare a billion
    return tuple(f"LABEL_{place}" for place in range(enough))


def _lacking_processor(folder: Path, head: PublishedHead) -> tuple[str, ...]:
    """Files of which none is there; () if nothing is missing."""
    modality = "text" if head.modality == "protein" else head.modality
    needed = [modality, *(["text"] if head.adapter in _TOKENIZED else [])]
    needed += ["audio"] if head.adapter == "text-to-spectrogram" else []
    for kind in needed:
        names = _PROCESSORS.get(kind, ())
        if names and head.model_type not in (_TIMM, _ONNX) and not any((folder / name).is_file() for name in names):
            return names[:2]
    return ()


_ENDINGS: Mapping[str, str] = {
    "ForMaskedLM": "fills in masked words", "ForPreTraining": "was only pretrained",
    "ForMultipleChoice": "chooses among texts", "Model": "has no head",
}  # fmt: skip


def _no_head(ref: str, architecture: str, model_type: str) -> SpeciateError:
    why = next((what for ending, what in _ENDINGS.items() if architecture.endswith(ending)), "")
    shown = f"its architecture {architecture[:60]!r}" if architecture else "its config.json names no architecture"
    if architecture:
        shown += f" {why}" if why else f" of the type {model_type[:40]!r} is none that is asked as it is"
    return SpeciateError(
        Code.INVALID,
        f"{ref!r} gives no answers that could be compared: {shown}.",
        f"Train a head on it: train_model(method='probe', base_model={ref!r}, ...).",
        next=[Call("list_options", {"kind": "task"}, "for the tasks there are")],
    )
