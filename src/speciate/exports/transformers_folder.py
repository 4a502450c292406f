"""A model folder for other tools: with a head of transformers, where the model fits one; else its sealed files, and the
program that answers from them (model_program.py).

In a head of transformers our temperature, units and pooling lie in the weights (transformers_heads.py), and the rest of
the weights is the same to the bit. A network without the head of a task leaves as the encoder that it is. What others
published leaves as it came.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from speciate.exports import model_program, snippets
from speciate.exports.transformers_heads import HeadedModel, with_head
from speciate.models import model_folder, sealed, trust
from speciate.models.backbones.architectures import rebuild
from speciate.models.backbones.layered import plain
from speciate.models.diffusion import pipeline_folder
from speciate.models.model_card import ModelCard
from speciate.models.published.manifest import read_manifest
from speciate.tasks import input_ranges, network_predictor
from speciate.tasks.image_generator import load_sampling
from speciate.tasks.language_predictor import saved_language_settings
from speciate.tasks.predictor import TrainedPredictor, load
from speciate.tasks.representations import Embeddings
from speciate.vocabulary import find_task

Form = Literal["transformers", "published", "sealed", "onnx"]
"""`transformers`: written anew. `published`: it is such a folder already. `sealed`: our files, with a program. `onnx`:
one graph (onnx_folder.py)."""
PREPARING = "preparing.json"
_SEALED_HEAD = "head.safetensors"
_POOLED_FAMILIES = ("classification", "multi-label", "regression")


class WrittenFolder(NamedTuple):
    form: Form
    files: tuple[str, ...]
    pipeline: str | None
    """The task of transformers' pipeline that answers as the model does."""
    program: str | None
    """Lines of Python for its card, from inputs to answers."""
    requires: tuple[str, ...]
    """Packages that those need."""
    pooling: str | None
    """For an encoder without a head: how the states of a medium become one vector; None if that is not known here."""
    notes: tuple[str, ...]


def form_of(folder: Path) -> Form:
    """Read from settings alone, without torch; what proves not to fit a head of transformers leaves as `sealed`."""
    if pipeline_folder.is_pipeline(folder):
        return "published"
    if model_folder.has_backbone(folder):
        if model_folder.is_export(folder):
            return "sealed"
        settings = model_folder.read_settings(folder)
        config = settings.get("config")
        known = isinstance(config, Mapping) and "model_type" in config and not config.get("is_encoder_decoder")
        if not known or ((folder / sealed.PREDICTOR).is_file() and not _may_fit(folder, settings)):
            return "sealed"
        return "transformers"
    whole = (folder / "config.json").is_file() and any(folder.glob("model*.safetensors"))
    return "published" if whole else "sealed"


def _may_fit(folder: Path, settings: Mapping[str, Any]) -> bool:
    family = json.loads((folder / sealed.PREDICTOR).read_text())["readout"]["family"]
    kind, pooled = settings["config"]["model_type"], family in _POOLED_FAMILIES
    if not (folder / _SEALED_HEAD).is_file():
        return False  # the vectors of a probe are brought to unit length, which no head does
    match settings["modality"]:
        case "text":
            return family == "tokens" or (pooled and (kind == "modernbert" or settings["pooling"] == "first"))
        case "image":
            return family in ("classification", "multi-label")
        case "audio":
            return "conv_kernel" in settings["config"] and family in ("classification", "transcription")
    return False


def write(folder: Path, target: Path, card: ModelCard, *, fit: bool = True) -> WrittenFolder:
    """Fill the empty folder `target` from one whose hashes were checked. `fit` False: with no head of transformers."""
    form = form_of(folder)
    if pipeline_folder.is_pipeline(folder):
        return _diffusers_pipeline(folder, target)
    if form == "transformers" and not (folder / sealed.PREDICTOR).is_file():
        return _encoder(folder, target, card.labels)
    if form == "transformers" and fit:
        predictor = network_predictor.load_network(folder)
        if (headed := with_head(predictor)) is not None:
            return _with_head(folder, target, card, predictor, headed)
    return _published(folder, target, card) if form == "published" else _sealed(folder, target, card)


def _with_head(
    folder: Path, target: Path, card: ModelCard, predictor: network_predictor.NetworkPredictor, headed: HeadedModel
) -> WrittenFolder:
    task_head: Any = predictor.task_head
    config = headed.module.config
    if task_head.family == "multi-label":
        config.thresholds = dict(zip(task_head.labels, task_head.thresholds, strict=True))
    if task_head.family == "tokens":
        config.commonest = task_head.commonest
    headed.module.save_pretrained(target)
    settings = model_folder.read_settings(folder)
    match predictor.backbone.modality:
        case "text":
            _tokenizer(settings, folder, target)
        case "image":
            _image_processor(settings, folder, target)
        case "audio":
            _feature_extractor(settings, target)
            if task_head.family == "transcription":
                _character_tokenizer(task_head.characters, target)
    packages = ("torch", "transformers", *(("pillow",) if predictor.backbone.modality == "image" else ()))
    note = (
        f"`transformers.pipeline({headed.pipeline!r})` answers as the model does. What its head adds to a plain layer "
        "of transformers (pooling, temperature, units) lies in the weights."
    )
    return WrittenFolder(
        "transformers", _names(target), headed.pipeline,
        snippets.of_pipeline(headed.pipeline, task_head.family, card), packages, None, (note,),
    )  # fmt: skip


def _encoder(folder: Path, target: Path, labels: tuple[str, ...]) -> WrittenFolder:
    settings, notes = model_folder.read_settings(folder), list[str]()
    module: Any = model_folder.load(folder, rebuild).module
    if labels:
        module.config.id2label = dict(enumerate(labels))
        module.config.label2id = {label: place for place, label in enumerate(labels)}
    module.save_pretrained(target)
    prepare = {"text": _tokenizer, "protein": _residue_tokenizer, "image": _image_processor}.get(settings["modality"])
    if prepare is not None:
        prepare(settings, folder, target)
    else:
        kept = {name: each for name, each in settings.items() if name != "config"}
        (target / PREPARING).write_text(json.dumps(kept, indent=1, sort_keys=True))
        notes.append(f"{PREPARING} says how media were prepared; no class of transformers does the same.")
    return WrittenFolder("transformers", _names(target), None, None, (), _pooling(settings), tuple(notes))


def _published(folder: Path, target: Path, card: ModelCard) -> WrittenFolder:
    listed = (folder / sealed.MANIFEST).is_file()
    names = sorted(json.loads((folder / sealed.MANIFEST).read_text())) if listed else (
        trust.choose(path.name for path in folder.iterdir() if path.is_file()).files
    )  # fmt: skip
    _copy(folder, target, names)
    if (family := _pipeline_family(folder)) is not None:
        task, modality = f"{card.modality}-classification", str(card.modality)
        note = "Its own head was trained further, and the files are as save_pretrained writes them."
        if began := card.recipe.get("published_head", {}).get("new_labels"):
            note += f" That head had no label for {', '.join(map(repr, began))}: their rows began at zero."
        return WrittenFolder(
            "published", _names(target), task, snippets.of_pipeline(task, family, card),
            ("torch", "transformers", *(("pillow", "torchvision") if modality == "image" else ())), None, (note,),
        )  # fmt: skip
    asked = saved_language_settings(folder)
    if asked is None:
        note = "The files are as they lie in the registry; transformers loads them."
        return WrittenFolder("published", _names(target), None, None, (), None, (note,))
    note = "The files are as they lie in the registry; `transformers.pipeline` asks the model as it was asked here."
    return WrittenFolder(
        "published", _names(target), "text-generation", snippets.of_chat(asked.form.template == "plain"),
        ("torch", "transformers"), None, (note,),
    )  # fmt: skip


def _diffusers_pipeline(folder: Path, target: Path) -> WrittenFolder:
    """Writes a folder for each part, as diffusers saves it; `predictor.json` says how images were drawn here."""
    for name in sorted(json.loads((folder / sealed.MANIFEST).read_text())):
        place = target / pipeline_folder.nested_name(sealed.PUBLISHER if name == sealed.README else name)
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(folder / name, place)
    sampling = load_sampling(folder)
    note = "diffusers loads the folder; its scheduler DDIM draws as images were drawn here, by other seeds."
    names = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    return WrittenFolder(
        "published", tuple(names), None, snippets.of_diffusers(sampling.steps, sampling.guidance),
        ("diffusers", "torch", "transformers"), None, (note,),
    )  # fmt: skip


def _pipeline_family(folder: Path) -> str | None:
    """The family of the task, for a published head that was trained further here, if transformers' pipeline answers as
    we do; else None."""
    manifest = read_manifest(folder)
    if manifest is None or not manifest.trained or manifest.task.split("-")[0] not in ("text", "image", "audio"):
        return None
    family = find_task(manifest.task).family
    return family if family in ("classification", "multi-label") else None


def _sealed(folder: Path, target: Path, card: ModelCard) -> WrittenFolder:
    _copy(folder, target, sorted(json.loads((folder / sealed.MANIFEST).read_text())))
    shutil.copyfile(folder / sealed.MANIFEST, target / sealed.MANIFEST)
    if not model_program.has_program(folder):
        note = "The files are those of speciate, which alone loads them."
        return WrittenFolder("sealed", _names(target), None, None, (), None, (note,))
    notes = [_add_encoder(folder, target)]
    made = model_program.write_program(folder, target, card)
    notes.append(
        f"`{model_program.MODEL_PROGRAM}` answers as the model does, with labels, thresholds and all that makes an "
        f"answer of numbers. It needs {', '.join(made.requires)}; speciate is not needed."
    )
    program = snippets.of_program(card, _channels(folder), _texts(folder))
    kept = tuple(note for note in notes if note)
    return WrittenFolder("sealed", _names(target), None, program, made.requires, None, kept)


def _add_encoder(folder: Path, target: Path) -> str:
    """The network of a probe, where that is a package's and so not among its files."""
    if model_folder.has_backbone(folder):
        return ""
    found = load(folder)
    if not (isinstance(found, TrainedPredictor) and isinstance(found.representation, Embeddings)):
        return ""
    before = {path.name for path in target.iterdir()}
    model_folder.save(plain(found.representation.encoder.network()), target)
    sealed.add_files(target, {path.name for path in target.iterdir()} - before)
    return "The frozen network that it reads media with is among the files."


def _texts(folder: Path) -> list[str]:
    """The columns of a table in which training saw categories."""
    return [name for name, seen in input_ranges.load(folder).items() if seen.values is not None]


def _channels(folder: Path) -> int | None:
    for name, key in ((model_folder.SETTINGS, ""), (sealed.PREDICTOR, "representation")):
        if (folder / name).is_file():
            said = json.loads((folder / name).read_text())
            said = said.get(key, {}) if key else said
            if isinstance(found := said.get("channels"), int):
                return found
    return 1


def _copy(folder: Path, target: Path, names: Collection[str]) -> None:
    for name in names:
        shutil.copyfile(folder / name, target / sealed.exported_name(name, names))


def _names(target: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in target.iterdir()))


def _pooling(settings: Mapping[str, Any]) -> str | None:
    match settings["modality"]:
        case "text":
            return str(settings["pooling"])
        case "protein":
            return "mean"
        case "image" if settings["base_model"] == "new:vit":
            return "patches"
    return None


def _tokenizer(settings: Mapping[str, Any], folder: Path, target: Path) -> None:
    from tokenizers import Tokenizer

    known = Tokenizer.from_file(str(folder / "tokenizer.json"))
    config = settings["config"]
    special = dict[str, str]()
    for name in ("pad", "cls", "sep", "bos", "eos"):
        number = config.get(f"{name}_token_id")
        if (name == "pad" or number is not None) and (token := known.id_to_token(number or 0)) is not None:
            special[f"{name}_token"] = token
    _save_tokenizer(known, settings["max_tokens"], special, target)


def _residue_tokenizer(settings: Mapping[str, Any], folder: Path, target: Path) -> None:
    """A token for each letter, and X for each letter that the vocabulary lacks. (ESM's own tokenizer makes one token of
    several such letters in a row.)"""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    vocabulary = settings["vocabulary"]
    ends = {"cls_token": ("<cls>", vocabulary["first"]), "eos_token": ("<eos>", vocabulary["last"])}
    special = {**ends, "pad_token": ("<pad>", vocabulary["filler"])}
    known = Tokenizer(models.WordLevel({**vocabulary["residues"], **dict(special.values())}, unk_token="X"))
    known.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    known.post_processor = processors.TemplateProcessing(
        single="<cls> $A <eos>", special_tokens=list(ends.values())
    )  # fmt: skip
    names = {name: token for name, (token, _) in special.items()}
    _save_tokenizer(known, settings["max_tokens"], {**names, "unk_token": "X"}, target)


def _save_tokenizer(known: Any, most: int, special: Mapping[str, str], target: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    made: Any = PreTrainedTokenizerFast(tokenizer_object=known, model_max_length=most, **special)  # type: ignore[no-untyped-call]
    made.save_pretrained(target)


def _image_processor(settings: Mapping[str, Any], folder: Path, target: Path) -> None:
    own = settings["preprocessing"]
    config = {
        "image_processor_type": "ViTImageProcessor", "do_convert_rgb": True, "do_resize": True,
        "size": {"height": own["side"], "width": own["side"]}, "resample": own.get("resample", 2),
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": list(own["mean"]), "image_std": list(own["std"]),
    }  # fmt: skip
    (target / "preprocessor_config.json").write_text(json.dumps(config, indent=1))


def _feature_extractor(settings: Mapping[str, Any], target: Path) -> None:
    config = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1, "sampling_rate": 16000,
        "padding_value": 0.0, "do_normalize": settings["preprocessing"]["loudness"], "return_attention_mask": True,
    }  # fmt: skip
    (target / "preprocessor_config.json").write_text(json.dumps(config, indent=1))


def _character_tokenizer(characters: str, target: Path) -> None:
    from transformers import Wav2Vec2CTCTokenizer

    places = {"<pad>": 0} | {character: place for place, character in enumerate(characters, 1)}
    vocabulary = target / "vocab.json"
    vocabulary.write_text(json.dumps(places, ensure_ascii=False))
    kind: Any = Wav2Vec2CTCTokenizer
    made = kind(
        str(vocabulary), pad_token="<pad>", unk_token="<pad>", bos_token="<pad>", eos_token="<pad>",
        word_delimiter_token=" ", replace_word_delimiter_char=" ", do_lower_case=False,
    )  # fmt: skip
    made.save_pretrained(target)
