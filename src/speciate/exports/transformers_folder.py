"""A model folder as transformers loads it: config.json, model.safetensors, a tokenizer or image processor, and the
head.

Weights are the same to the bit. Our heads have no class in transformers: ours apply to pooled states, theirs to one
token or with a further dense layer. So the head is a file of its own, with a description of how to apply it. A model
without a class in transformers keeps its sealed files.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from speciate.models import model_folder, sealed, trust
from speciate.models.backbones.architectures import rebuild

Form = Literal["transformers", "published", "sealed"]
"""`transformers`: written anew. `published`: it is such a folder already. `sealed`: for this package alone."""
HEAD, ABOUT_HEAD, PREPARING = "answers.safetensors", "answers.json", "preparing.json"
_SEALED_HEAD = "head.safetensors"


class WrittenFolder(NamedTuple):
    form: Form
    files: tuple[str, ...]
    pooling: str | None
    """How the states of a medium become one vector; None if that is not known here."""
    notes: tuple[str, ...]


def form_of(folder: Path) -> Form:
    """Read from settings alone, without torch."""
    if model_folder.has_backbone(folder):
        if model_folder.is_export(folder):
            return "sealed"
        config = model_folder.read_settings(folder).get("config")
        known = isinstance(config, Mapping) and "model_type" in config and not config.get("is_encoder_decoder")
        return "transformers" if known else "sealed"
    whole = (folder / "config.json").is_file() and any(folder.glob("model*.safetensors"))
    return "published" if whole else "sealed"


def write(folder: Path, target: Path, labels: tuple[str, ...] = ()) -> WrittenFolder:
    """Fill the empty folder `target` from one whose hashes were checked. `labels`: the model's classes."""
    form = form_of(folder)
    if form == "transformers":
        return _for_transformers(folder, target, labels)
    names = sorted(json.loads((folder / sealed.MANIFEST).read_text())) if (folder / sealed.MANIFEST).is_file() else (
        trust.choose(path.name for path in folder.iterdir() if path.is_file()).files
    )  # fmt: skip
    for name in names:
        shutil.copyfile(folder / name, target / (sealed.PUBLISHER if name == sealed.README else name))
    if form == "sealed":
        shutil.copyfile(folder / sealed.MANIFEST, target / sealed.MANIFEST)
    note = {
        "published": "The files are as they lie in the registry; transformers loads them.",
        "sealed": "transformers has no class for it: the files are those of this package, which alone loads them.",
    }[form]
    return WrittenFolder(form, tuple(sorted(path.name for path in target.iterdir())), None, (note,))


def _for_transformers(folder: Path, target: Path, labels: tuple[str, ...]) -> WrittenFolder:
    settings, notes = model_folder.read_settings(folder), []
    module: Any = model_folder.load(folder, rebuild).module
    if labels:
        module.config.id2label = dict(enumerate(labels))
        module.config.label2id = {label: place for place, label in enumerate(labels)}
    module.save_pretrained(target)
    pooling = _pooling(settings)
    prepare = {"text": _tokenizer, "protein": _residue_tokenizer, "image": _image_processor}.get(settings["modality"])
    if prepare is not None:
        prepare(settings, folder, target)
    else:
        kept = {name: each for name, each in settings.items() if name != "config"}
        (target / PREPARING).write_text(json.dumps(kept, indent=1, sort_keys=True))
        notes.append(f"{PREPARING} says how media were prepared; no class of transformers does the same.")
    if (folder / _SEALED_HEAD).is_file():
        shutil.copyfile(folder / _SEALED_HEAD, target / HEAD)
        manifest = json.loads((folder / sealed.PREDICTOR).read_text())
        about = {"task": manifest["task"], "pooling": pooling, "readout": manifest["readout"]}
        (target / ABOUT_HEAD).write_text(json.dumps(about, indent=1))
        notes.append(f"The head of the task is {HEAD}, described in {ABOUT_HEAD}: AutoModel gives the states below it.")
    return WrittenFolder("transformers", tuple(sorted(path.name for path in target.iterdir())), pooling, tuple(notes))


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
