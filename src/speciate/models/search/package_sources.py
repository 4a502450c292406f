"""Models that installed Python packages name: timm, torchvision, transformers, MTEB, open_clip,
segmentation_models_pytorch, genai-prices, and weights that come as packages.

Some are imported, others are read as source without running it. Each source says in its class what it tells.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from speciate.models.licenses import spdx
from speciate.models.packaged import PACKAGED
from speciate.models.search.package_code import literal_calls, source_files
from speciate.models.search.sources import Entry, Figure, PackageSource
from speciate.models.search.timm_results import Published


class Packages:
    """Weights that come as Python packages (models/packaged.py)."""

    name, what, package = "pkg", "weights that come as Python packages", None

    def installed(self) -> bool:
        return True

    def origin(self) -> str:
        return "speciate"

    def entries(self) -> Iterator[Entry]:
        for name, each in sorted(PACKAGED.items()):
            yield Entry(
                ref=f"pkg:{name}",
                what=f"{name} {each.what}",
                access="weights",
                tasks=(each.task,),
                modalities=(each.modality,),
                parameters=each.parameters,
                license=each.license,
                format="safetensors",
            )


PACKAGES = Packages()


class Timm(PackageSource):
    """Image encoders and classifiers of timm: every set of pretrained weights that it names.

    The package states neither sizes nor accuracies. `timm_parameters` counts sizes on networks without memory (torch's
    device `meta`), which takes minutes for all, so builders of an index pass the known ones.
    """

    name, what, package = "timm", "image encoders and classifiers with weights on the Hugging Face hub", "timm"

    def entries(self) -> Iterator[Entry]:
        from timm.models import get_pretrained_cfg, list_pretrained

        for name in sorted(list_pretrained()):
            config = get_pretrained_cfg(name)
            if config is None:
                continue
            architecture, _, tag = name.partition(".")
            tasks = ("image-classification",) if config.num_classes and "in1k" in tag else ()
            yield Entry(
                ref=f"timm:{name}",
                what=f"{architecture} {tag} {config.description or ''} {config.notes or ''}".strip(),
                access="weights",
                tasks=(*tasks, "feature-extraction"),
                modalities=("image",),
                license=spdx(config.license),
                hub=config.hf_hub_id.partition("@")[0] if config.hf_hub_id else None,
            )


def timm_parameters(names: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """(architecture, learned numbers) of those that `names` lacks."""
    import timm
    import torch
    from timm.models import list_models

    for architecture in list_models():
        if architecture in names:
            continue
        try:
            with torch.device("meta"):
                network = timm.create_model(architecture, pretrained=False)
        except Exception:  # noqa: BLE001 - some need libraries or arguments of their own: then it stays unknown
            continue
        yield architecture, sum(weights.numel() for weights in network.parameters())


def timm_published() -> Mapping[str, Published]:
    """What timm says of each of its weights."""
    from timm.models import get_pretrained_cfg, list_pretrained

    found = {}
    for name in list_pretrained():
        config = get_pretrained_cfg(name)
        if config is not None and config.input_size:
            hub = config.hf_hub_id.partition("@")[0] if config.hf_hub_id else None
            found[name] = Published(config.input_size[-1], hub)
    return found


TIMM = Timm()


_TASKS = {
    "classification": ("image-classification", "image"),
    "detection": ("object-detection", "image"),
    "segmentation": ("image-segmentation", "image"),
    "video": ("video-classification", "video"),
}
"""Package below torchvision.models -> task and modality."""


class Torchvision(PackageSource):
    """Weights of torchvision, with the figures that it publishes beside them."""

    name, what, package = "torchvision", "weights of torchvision with their published metrics", "torchvision"

    def entries(self) -> Iterator[Entry]:
        from torchvision.models import get_model_weights, list_models

        for name in sorted(list_models()):
            for weights in get_model_weights(name):
                yield _torchvision_entry(name, weights)


def _torchvision_entry(name: str, weights: Any) -> Entry:
    meta = weights.meta
    family = type(weights).__module__.removeprefix("torchvision.models.").partition(".")[0]
    task, modality = _TASKS.get(
        family, _TASKS["classification"] if family not in ("optical_flow",) else (None, "video")
    )
    figures = [
        Figure(benchmark=benchmark, metric=metric, value=value)
        for benchmark, values in sorted(meta.get("_metrics", {}).items())
        for metric, value in sorted(values.items())
        if math.isfinite(value)
    ]
    return Entry(
        ref=f"torchvision:{name}.{weights.name}",
        what=f"{name} {weights.name} {meta.get('recipe', '')} {' '.join(str(meta.get('_docs', '')).split())}".strip(),
        access="weights",
        tasks=(task,) if task else (),
        modalities=(modality,),
        parameters=meta.get("num_params"),
        published=tuple(figures),
        format="pickle",
        bytes=round(meta["_file_size"] * 2**20) if "_file_size" in meta else None,
        gflops=meta.get("_ops"),
    )


TORCHVISION = Torchvision()


_READS = {
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": ("text", "text-generation"),
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES": ("image", "image-text-to-text"),
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES": ("image", "image-classification"),
    "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES": ("image", "object-detection"),
    "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES": ("image", "image-segmentation"),
    "MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES": ("video", "video-classification"),
    "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES": ("audio", "audio-classification"),
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES": ("audio", "automatic-speech-recognition"),
    "MODEL_FOR_CTC_MAPPING_NAMES": ("audio", "automatic-speech-recognition"),
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES": ("text", "text-classification"),
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES": ("text", "token-classification"),
    "MODEL_FOR_TIME_SERIES_PREDICTION_MAPPING_NAMES": ("time-series", "time-series-forecasting"),
    "MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES": ("audio", "text-to-speech"),
}
"""A table of transformers' auto classes -> the modality of its models, and our name of the task."""
_MISFILED = {
    "musicgen": (), "musicgen_melody": (), "moshi": (), "moss_transcribe_diarize": (),
    "dia": (("audio", "text-to-speech"),),
}  # fmt: skip
"""Architectures of audio that lie in a table of another task: their modalities and our tasks, as in `_READS`."""
_DONE = (
    "text-generation", "image-text-to-text", "automatic-speech-recognition", "object-detection", "text-to-speech",
    "time-series-forecasting",
)  # fmt: skip
"""Tasks that a published checkpoint of such an architecture does as it is; other tasks need a trained head."""
_SPEAKS = "microsoft/speecht5_tts"
"""SpeechT5 has a checkpoint for each task. The configuration names the one that transcribes."""


class Transformers(PackageSource):
    """Checkpoints that transformers names as the example of each architecture, with the tasks of the architecture's
    heads. It does not state which of those heads a checkpoint was trained with, so only the tasks in _DONE count."""

    name, what, package = "transformers", "the checkpoint that transformers names for each architecture", "transformers"

    def entries(self) -> Iterator[Entry]:
        known: dict[str, list[list[str]]] = {}
        for path in source_files(self.package, "transformers/models/"):
            if path.name.startswith("configuration_"):
                of_file: dict[str, list[str]] = {}
                for repository, kind in _checkpoints(path):
                    of_file.setdefault(repository, []).append(kind)
                for repository, kinds in of_file.items():
                    known.setdefault(repository, []).append(kinds)
        for repository, architectures in sorted(known.items()):
            kinds = architectures[0]
            whole = [each for each in kinds if each in _heads()] if len(architectures) == 1 else []
            kind = next(iter(whole), kinds[0])  # parts, such as decoders, have no head
            heads = _heads().get(kind, ())
            done = tuple(dict.fromkeys(task for _, task in heads if task in _DONE))
            yield Entry(
                ref=f"hf:{repository}",
                what=f"{repository} {kind} fine-tune for {' '.join(sorted({task for _, task in heads}))}",
                access="weights",
                tasks=done or ("feature-extraction",),
                modalities=tuple(dict.fromkeys(modality for modality, _ in heads)),
                hub=repository,
            )
        yield Entry(
            ref=f"hf:{_SPEAKS}", what=f"{_SPEAKS} speecht5 fine-tune for text-to-speech", access="weights",
            tasks=("text-to-speech",), modalities=("audio",), hub=_SPEAKS,
        )  # fmt: skip


def _checkpoints(path: Path) -> Iterator[tuple[str, str]]:
    """(repository, model type) of each configuration class whose documentation names one."""
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (SyntaxError, ValueError, OSError):
        return
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        named = [
            word.value.value
            for decorator in node.decorator_list
            if isinstance(decorator, ast.Call)
            for word in decorator.keywords
            if word.arg == "checkpoint" and isinstance(word.value, ast.Constant)
        ]
        kinds = [
            statement.value.value
            for statement in node.body
            if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(statement.value, ast.Constant)
            and "model_type" in ast.unparse(statement).partition("=")[0]
        ]  # fmt: skip
        for repository in named:
            if isinstance(repository, str) and repository.count("/") == 1 and kinds:
                yield repository, str(kinds[0])


@cache
def _heads() -> dict[str, tuple[tuple[str, str], ...]]:
    """Architecture -> (modality, task) of each head that there is for it."""
    from transformers.models.auto import modeling_auto

    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for table, meaning in _READS.items():
        for kind in getattr(modeling_auto, table, {}):
            found[kind] = (*found.get(kind, ()), meaning)
    return found | _MISFILED


TRANSFORMERS = Transformers()


_HUB = re.compile(r"[\w.\-]+/[\w.\-]+")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


class Mteb(PackageSource):
    """Embedding models that the benchmark MTEB knows: sizes, licences, dates, languages, base models. Its package has
    no scores; those are published elsewhere."""

    name, what, package = "mteb", "embedding models for text, images, audio and video", "mteb"

    def entries(self) -> Iterator[Entry]:
        for path in source_files(self.package, "mteb/models/model_implementations/"):
            for meta in literal_calls(path, "ModelMeta"):
                try:
                    entry = _mteb_entry(meta)
                except ValidationError:
                    continue
                if entry is not None:
                    yield entry


def _mteb_entry(meta: Mapping[str, Any]) -> Entry | None:
    name = meta.get("name")
    if not isinstance(name, str) or not _HUB.fullmatch(name):
        return None
    served = meta.get("open_weights") is False
    frameworks = [str(each) for each in meta.get("framework", ())]
    kinds = " ".join(str(each) for each in meta.get("model_type", ()))
    released = str(meta.get("release_date") or "")
    adapted = meta.get("adapted_from")
    tokens = meta.get("max_tokens")
    return Entry(
        ref=f"api:{name}" if served else f"hf:{name}",
        what=f"{name} {kinds} embedding {' '.join(frameworks)}",
        access="api" if served else "weights",
        tasks=("feature-extraction",),
        modalities=tuple(str(each) for each in meta.get("modalities", ("text",))),
        parameters=meta.get("n_parameters") or None,  # 0 for baselines that are no network
        license=spdx(meta.get("license")),
        context_tokens=int(tokens) if tokens is not None and math.isfinite(tokens) else None,
        released=released if _DATE.fullmatch(released) else None,
        base_model=f"hf:{adapted}" if isinstance(adapted, str) and _HUB.fullmatch(adapted) else None,
        hub=None if served else name,
        revision=meta.get("revision"),
        format="safetensors" if "safetensors" in frameworks else None,
        languages=tuple(str(each) for each in meta.get("languages", ())),
    )


MTEB = Mteb()


_OPEN_CLIP_REPOSITORY = re.compile(r"""hf_hub=["']([\w.\-]+/[\w.\-]+)""")


class OpenClip(PackageSource):
    """Encoders of images and text together, as open_clip names them; those with a repository of their own."""

    name, what, package = "open_clip", "encoders of images and text together", "open_clip_torch"

    def entries(self) -> Iterator[Entry]:
        paths = [path for path in source_files(self.package, "open_clip/") if path.name == "pretrained.py"]
        found = {name for path in paths for name in _OPEN_CLIP_REPOSITORY.findall(path.read_text("utf-8"))}
        for repository in sorted(found):
            yield Entry(
                ref=f"hf:{repository}",
                what=f"{repository} CLIP pictures and text zero-shot",
                access="weights",
                tasks=("feature-extraction",),
                modalities=("image", "text"),
                hub=repository,
            )


OPEN_CLIP = OpenClip()


_SMP_REPOSITORY = re.compile(r"""["']repo_id["']: ["'](smp-hub/([\w.\-]+?)\.([\w.\-]+))["']""")


class SegmentationModels(PackageSource):
    """Encoders that segmentation_models_pytorch has weights for."""

    name, package = "segmentation_models", "segmentation_models_pytorch"
    what = "encoders for image segmentation"

    def entries(self) -> Iterator[Entry]:
        folder = "segmentation_models_pytorch/encoders/"
        text = "\n".join(path.read_text("utf-8") for path in source_files(self.package, folder))
        for repository, architecture, data in sorted(set(_SMP_REPOSITORY.findall(text))):
            yield Entry(
                ref=f"hf:{repository}",
                what=f"{architecture} {data} encoder for segmentation",
                access="weights",
                tasks=("feature-extraction",),
                modalities=("image",),
                hub=repository,
            )


SEGMENTATION_MODELS = SegmentationModels()


_OURS = {"x-ai": "xai", "huggingface_together": "huggingface"}
"""genai-prices' name of a provider -> ours, where they differ."""


class Prices(PackageSource):
    """Models behind inference APIs, with the prices that the package genai-prices collected until its release. They are
    called `api:PROVIDER/MODEL`; providers without a known address are listed, too."""

    name, what, package = "prices", "models behind inference APIs, with prices", "genai-prices"

    def entries(self) -> Iterator[Entry]:
        from genai_prices.data import providers as known

        for provider in sorted(known, key=lambda each: each.id):
            ours = _OURS.get(provider.id, provider.id)
            for model in sorted(provider.models, key=lambda each: each.id):
                price = _usual(model.prices)
                yield Entry(
                    ref=f"api:{ours}/{model.id}",
                    what=f"{model.name or ''} {model.id} {provider.name} {' '.join((model.description or '').split())}",
                    access="api",
                    tasks=("text-generation",) if _writes(price) else (),
                    modalities=("text",),
                    usd_per_1m_input=_usd(price, "input_mtok"),
                    usd_per_1m_output=_usd(price, "output_mtok"),
                    context_tokens=model.context_window,
                )


def _usual(prices: Any) -> Any:
    """The usual price: of several conditional ones the last, which has no condition."""
    return prices[-1].prices if isinstance(prices, list) else prices


def _writes(price: Any) -> bool:
    return getattr(price, "output_mtok", None) is not None


def _usd(price: Any, name: str) -> float | None:
    """The base price where it rises with length."""
    found = getattr(price, name, None)
    found = getattr(found, "base", found)
    return None if found is None else float(found)


PRICES = Prices()
