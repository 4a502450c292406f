"""The table of backbones, by ref. A new architecture is a line here and a file beside it. Imports no torch.

`new:NAME` fresh weights of an architecture; `timm:NAME` fresh weights of timm's; `pkg:NAME`, `path:/dir` published
weights in a transformers folder; `name@v3` the backbone of a model that was trained here.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from speciate import foreign_files
from speciate.errors import Call, Code, SpeciateError, closest
from speciate.models import model_folder, packaged
from speciate.models.backbones import exported
from speciate.models.backbones.contract import Backbone, BackboneSettings, ModelConfig
from speciate.refs import model_ref


class Architecture(NamedTuple):
    """`build` is "module:function", called as contract.py says."""

    modality: str
    what: str
    citation: str
    build: str
    rate: float = 1e-3
    """The best learning rate that was measured, for AdamW with all weights trained."""
    locates: bool = True
    """Whether its states are fine enough to say where something is, where the medium has places."""
    divides: bool = True
    """Whether a batch can be learned in parts: not where its norms are over all examples of a batch (BatchNorm)."""


FILES = {
    "text": "speciate.models.backbones.text",
    "protein": "speciate.models.backbones.protein",
    "image": "speciate.models.backbones.image",
    "audio": "speciate.models.backbones.audio",
    "video": "speciate.models.backbones.video",
    "time-series": "speciate.models.backbones.time_series",
    "tabular": "speciate.models.backbones.tabular",
    "volume": "speciate.models.backbones.volume",
    "point-cloud": "speciate.models.backbones.points",
    "episode": "speciate.models.backbones.episode",
}
"""Modality -> the module that reads it: its `build` also reads transformers folders, its `rebuild` saved settings.
Networks whose settings name their `architecture` are rebuilt by that architecture's module."""

FOLDERS = {
    "protein": ("esm", "esmc"),
    "image": (
        "vit", "deit", "beit", "dinov2", "dinov2_with_registers", "dinov3_vit", "ijepa", "vit_msn",
        "clip_vision_model", "siglip_vision_model", "swin", "swinv2", "convnext", "convnextv2",
        "resnet", "regnet", "efficientnet", "mobilenet_v2", "mobilevit", "segformer", "yolos", "timm_wrapper", "timm",
    ),
    "audio": ("wav2vec2", "wav2vec2-conformer", "hubert", "wavlm", "unispeech", "unispeech-sat", "sew"),
    "video": ("videomae",),
}  # fmt: skip
"""Modality -> the `model_type`s of config.json that its `build` reads; others are text if _reads_text."""

_OTHER_MODALITIES = (
    "vision_config", "audio_config", "encoder_config", "image_size", "num_mel_bins", "input_feat_per_channel",
    "feature_projection_input_dim", "conv_stride",
)  # fmt: skip
"""Entries of a config.json of a network that reads images or audio and has a tokenizer for its output."""
_NEEDS = ("torch", "transformers")


def modality_of(base_model: str, folder: Path | None = None) -> str | None:
    """The modality that a base model reads; None if it is unknown.

    `path:` names its folder itself, unless `folder` is a copy; for a registered model, pass its version's folder.
    """
    if base_model in ARCHITECTURES:
        return ARCHITECTURES[base_model].modality
    source, _, rest = base_model.partition(":")
    match source:
        case "new":
            return None
        case "timm":
            return "image"
        case "pkg":
            entry = packaged.PACKAGED.get(rest)
            return entry.modality if entry else None
        case "path":
            return _folder_modality(folder or Path(rest))
    return _folder_modality(folder) if folder else None


def build(base_model: str, media: Sequence[Any], seed: int, folder: Path | None = None, **options: Any) -> Backbone:
    """The backbone to be trained, fitted on the training media if its weights are fresh.

    `folder`: of a registered version, or a copy of `path:`; `pkg:` and `path:` are found without. `options`: of the
    modality's `build`. The same arguments give the same weights. Raises INVALID, NOT_FOUND or
    MISSING_EXTRA.
    """
    folder = _locate(base_model, folder)
    _check_libraries()
    if folder is not None:
        refuse_adapter(folder)
    if folder is not None and model_folder.has_backbone(folder):
        if model_folder.is_export(folder):
            raise exported.refuse_training(base_model)
        return model_folder.load(folder, rebuild, base_model)
    modality = modality_of(base_model, folder)
    if modality not in FILES:
        raise SpeciateError(
            Code.INVALID,
            f"{base_model!r} cannot be trained: {_why_not(base_model, folder)}",
            "Use one of: " + ", ".join(ARCHITECTURES) + ", timm:NAME, pkg:NAME, path:/dir or a trained model.",
        )
    function = ARCHITECTURES[base_model].build if base_model in ARCHITECTURES else f"{FILES[modality]}:build"
    built: Backbone = _load(function)(base_model, media, seed, folder, **options)
    return built


def refuse_adapter(folder: Path) -> None:
    """Raise INVALID if transformers would change the network by weights that are not in its own files."""
    if (folder / "adapter_config.json").is_file():
        raise SpeciateError(
            Code.INVALID,
            f"{folder} holds an adapter (adapter_config.json), which changes what its network computes.",
            "register_model merges it with its base model: name the version that it makes.",
            next=[Call("register_model", {"name": "merged", "source": f"path:{folder}"})],
        )


def rebuild(settings: BackboneSettings, folder: Path) -> Backbone:
    """The backbone that gave these `settings()`, with meaningless weights. `folder` holds its `files()`."""
    _check_libraries()
    rebuilt: Backbone = _load(rebuilt_by(settings))(settings, folder)
    return rebuilt


def rebuilt_by(settings: BackboneSettings) -> str:
    """ "module:function" of the `rebuild` for these settings."""
    known = ARCHITECTURES.get(settings.get("architecture", ""))
    return f"{known.build.partition(':')[0] if known else FILES[settings['modality']]}:rebuild"


def _locate(base_model: str, folder: Path | None) -> Path | None:
    ref = model_ref(base_model)
    if ref.source == "pkg":
        if packaged.find(ref.name).weights:
            raise SpeciateError(
                Code.INVALID,
                f"{base_model!r} is a language model in GGUF: it writes text, and no head can be put on it.",
                f"Train it with train_model(method='sft', base_model={base_model!r}, ...).",
            )
        return packaged.locate(ref.name)
    return folder or (Path(ref.name) if ref.source == "path" else None)


def _folder_modality(folder: Path) -> str | None:
    if (found := model_folder.modality(folder)) is not None:
        return found
    try:
        config = foreign_files.read_json(folder / "config.json")
        kind = str(config.get("model_type") or "timm" * ("architecture" in config and "pretrained_cfg" in config))
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    for modality, kinds in FOLDERS.items():
        if kind in kinds:
            return modality
    return "text" if _reads_text(folder, config) else None


def _reads_text(folder: Path, config: ModelConfig) -> bool:
    """Whether a network reads text, by its files and settings, as there are hundreds of types."""
    tokenizer = any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json"))
    return tokenizer and "vocab_size" in config and not any(name in config for name in _OTHER_MODALITIES)


def _why_not(base_model: str, folder: Path | None) -> str:
    if folder is None:
        return closest(base_model, ARCHITECTURES)
    return f"{folder} has no config.json of a supported network, or no tokenizer beside a text network."


def _load(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _check_libraries() -> None:
    for library in _NEEDS:
        if importlib.util.find_spec(library) is None:
            raise SpeciateError(
                Code.MISSING_EXTRA,
                f"Networks need the library {library!r}, which is not installed.",
                "Run: pip install 'speciate[train]'",
            )


ARCHITECTURES = {
    "new:bert": Architecture(
        "text", "a small text encoder, with word pieces learned from the training texts",
        "Warner et al. 2024", "speciate.models.backbones.text:build",
    ),
    "new:esm": Architecture(
        "protein", "a small protein encoder, one token per residue",
        "Rives et al. 2021", "speciate.models.backbones.protein:build",
    ),
    "new:resnet": Architecture(
        "image", "a small residual network of convolutions, the strongest on few images; no boxes or masks",
        "He et al. 2016", "speciate.models.backbones.image:build", locates=False, divides=False,
    ),
    "new:vit": Architecture(
        "image", "a small vision transformer",
        "Dosovitskiy et al. 2021", "speciate.models.backbones.image:build",
    ),
    "new:conformer": Architecture(
        "audio", "a small convolution-augmented transformer over a spectrogram, a state every 20 ms",
        "Gulati et al. 2020", "speciate.models.backbones.audio:build",
    ),
    "new:ast": Architecture(
        "audio", "a small audio spectrogram transformer",
        "Gong et al. 2021", "speciate.models.backbones.audio:build", 2e-3,
    ),
    "new:wav2vec2": Architecture(
        "audio", "a small transformer over convolutions of the waveform",
        "Baevski et al. 2020", "speciate.models.backbones.audio:build",
    ),
    "new:videomae": Architecture(
        "video", "a small vision transformer over tubes of patches, 16 frames at once",
        "Tong et al. 2022", "speciate.models.backbones.video:build",
    ),
    "new:inceptiontime": Architecture(
        "time-series", "convolutions of three lengths at once, strong on short series",
        "Ismail Fawaz et al. 2020", "speciate.models.backbones.time_series:build", 2e-3, divides=False,
    ),
    "new:patchtst": Architecture(
        "time-series", "a transformer over patches of each channel",
        "Nie et al. 2023", "speciate.models.backbones.time_series:build", 3e-3,
    ),
    # The rates of these three are those that were published with them; no others were tried.
    "new:mlp": Architecture(
        "time-series", "two hidden layers over all steps of series that line up",
        "Greydanus & Kobak 2024", "speciate.models.backbones.fixed_length:build", 1e-2,
    ),
    "new:cnn": Architecture(
        "time-series", "three convolutions over series that line up",
        "Greydanus & Kobak 2024", "speciate.models.backbones.fixed_length:build", 1e-2,
    ),
    "new:gru": Architecture(
        "time-series", "a gated recurrent network, read in both directions, over series that line up",
        "Greydanus & Kobak 2024", "speciate.models.backbones.fixed_length:build", 1e-2,
    ),
    "new:bc-mlp": Architecture(
        "episode", "a perceptron over the measurements of a step",
        "Mandlekar et al. 2021", "speciate.models.backbones.episode:build",
    ),
    "new:bc-cnn": Architecture(
        "episode", "convolutions that locate things in the cameras' frames of a step, beside the measurements",
        "Levine et al. 2016", "speciate.models.backbones.episode:build", 3e-3,
    ),
    "new:cnn3d": Architecture(
        "volume", "a small residual network of convolutions along three axes",
        "Hara et al. 2018", "speciate.models.backbones.volume:build",
    ),
    "new:unet3d": Architecture(
        "volume", "a small U-Net of three axes, with a state for each voxel",
        "Çiçek et al. 2016", "speciate.models.backbones.volume:build", 2e-3,
    ),
    "new:pointnet": Architecture(
        "point-cloud", "the same layers for every point of a cloud or of a surface, and the largest of each channel",
        "Qi et al. 2017", "speciate.models.backbones.points:build", 2e-3,
    ),
    "new:tab-resnet": Architecture(
        "tabular", "a residual network over scaled numbers and embedded categories",
        "Gorishniy et al. 2021", "speciate.models.backbones.tabular:build",
    ),
}  # fmt: skip

_READ_AS = {"dicom": ("volume", "image"), "nifti": ("volume", "image"), "mesh": ("point-cloud",)}
"""Modality -> other modalities whose networks can read its media, the best first."""

_FRESH_RATE, _KNOWN_RATE = 1e-3, 1e-4


def reads(base_model: str, modality: str, folder: Path | None = None) -> bool:
    return suits(modality_of(base_model, folder), modality)


def suits(read: str | None, modality: str) -> bool:
    """Whether a network for `read` can read media of `modality`, too: volumes are also read slice by slice."""
    return read == modality or read in _READ_AS.get(modality, ())


def names(modality: str) -> list[str]:
    """Base models that can be trained here on this modality, best first: published weights, then fresh ones."""
    if any(importlib.util.find_spec(library) is None for library in _NEEDS):
        return []
    published = [
        f"pkg:{name}"
        for name, entry in packaged.PACKAGED.items()
        if entry.modality == modality and not entry.weights and packaged.installed(name)
    ]
    own = (modality, *_READ_AS.get(modality, ())[:1])
    return published + [name for name, entry in ARCHITECTURES.items() if entry.modality in own]


def locates(base_model: str) -> bool:
    return base_model not in ARCHITECTURES or ARCHITECTURES[base_model].locates


def dividing(base_model: str) -> str:
    """This one, or where it cannot learn a batch in parts, the first of the same modality that can."""
    if base_model not in ARCHITECTURES or ARCHITECTURES[base_model].divides:
        return base_model
    modality = ARCHITECTURES[base_model].modality
    others = (name for name, each in ARCHITECTURES.items() if each.modality == modality and each.divides)
    return next(others, base_model)


def usual_rate(base_model: str) -> float:
    """A learning rate to begin with if all weights are trained: lower for published weights."""
    if base_model in ARCHITECTURES:
        return ARCHITECTURES[base_model].rate
    return _FRESH_RATE if base_model.startswith("timm:") else _KNOWN_RATE
