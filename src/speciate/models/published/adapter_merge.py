"""PEFT adapters: a folder with changes to a base model, merged into the whole model that both make.

A merged model is a published model like any other: it answers, is trained further, served and exported. Of the
adapter's settings the numbers are read, by a list of those that are known; a setting that would change the sums in
another way refuses it. Every tensor of the adapter must find its place, and every weight of the model must come from
one of the two: nothing is initialised at random.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from speciate import foreign_files
from speciate.errors import CallAgain, Code, SpeciateError
from speciate.models import sealed
from speciate.models.declared_size import check_declared_counts, check_declared_size
from speciate.models.published.architectures import architecture_of, read_config
from speciate.models.published.published_model import quiet_transformers, refuse_unmatched

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_REPOSITORY = re.compile(r"[\w\-.]+/[\w\-.]+")
_OTHER_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin that change the base model's weights, too: the published ones are then not what the adapter fits."""
_OTHER_SUMS = (
    "layer_replication", "alora_invocation_tokens", "use_qalora", "use_bdlora", "arrow_config", "kasa_config",
    "velora_config", "monteclora_config", "megatron_config", "trainable_token_indices",
)  # fmt: skip
"""Settings that have no merge into the weights, or none that was tried here."""
_READ = re.compile(
    r"(?i)[\w.\-]+\.(json|txt|md|jinja)|(spiece|tokenizer|sentencepiece(\.bpe)?)\.model|adapter_model\.safetensors"
    r"|([\w\-]+[_\-.])?licen[cs]es?([_\-.][\w\-]+)?|copying|notice"
)
_PREFIX, _LORA = "base_model.model.", ".lora_"
_NOT_COPIED = re.compile(
    rf"config\.json|generation_config\.json|{re.escape(SETTINGS)}|.*\.safetensors(\.index\.json)?|{sealed.MANIFEST}"
    rf"|{sealed.CARD}|{sealed.PREDICTOR}|.*/|\d.*"
)
_LICENCE = re.compile(r"(?i).*(licen[cs]e|copying|notice).*")


class AdapterSettings(BaseModel):
    """What the sums need of `adapter_config.json`; by PEFT's names."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    peft_type: str
    task_type: str | None = None
    auto_mapping: Mapping[str, Any] | None = None
    base_model_name_or_path: str | None = None
    r: int = 8
    lora_alpha: float = 8
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    target_parameters: list[str] | None = None
    modules_to_save: list[str] | None = None
    fan_in_fan_out: bool = False
    bias: str = "none"
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    rank_pattern: Mapping[str, int] = {}
    alpha_pattern: Mapping[str, float] = {}
    init_lora_weights: bool | str = True


class MergedModel(NamedTuple):
    architecture: str
    tensors: int
    """Number of the adapter's tensors."""


def is_adapter(names: Iterable[str]) -> bool:
    """Whether these files are an adapter without the model that it changes, by their names."""
    names = set(names)
    whole = any(re.fullmatch(r"model[\w.\-]*\.safetensors", name) for name in names)
    return SETTINGS in names and WEIGHTS in names and not whole


def files_of(names: Iterable[str]) -> tuple[str, ...]:
    """The files of an adapter's folder that are read: a checkpoint's state of the optimizer and the like are left."""
    return tuple(sorted(name for name in names if _READ.fullmatch(name)))


def read_settings(folder: Path) -> AdapterSettings:
    """Raises INVALID for an adapter that cannot be merged here."""
    try:
        said = foreign_files.read_json(folder / SETTINGS)
        settings = AdapterSettings.model_validate(said)
    except (OSError, ValueError, ValidationError) as error:
        raise _invalid(f"its {SETTINGS} cannot be read", str(error)[:300]) from error
    if settings.peft_type != "LORA":
        raise _invalid("it is no LoRA, the one kind that is merged here", settings.peft_type[:40])
    begun = str(settings.init_lora_weights).lower()
    if begun.startswith(_OTHER_BASE):
        raise _invalid("it was begun in a way that changes the base model's own weights", begun[:40])
    if told := [name for name in _OTHER_SUMS if said.get(name)]:
        raise _invalid(f"it uses {', '.join(told)}, which is not merged here")
    return settings


def base_of(settings: AdapterSettings, source: str) -> str:
    """The base model that the adapter names, as a ref. Raises INVALID where it names a folder: whose, nobody knows."""
    named = settings.base_model_name_or_path or ""
    if not _REPOSITORY.fullmatch(named) or named.startswith("."):
        raise SpeciateError(
            Code.INVALID,
            f"{source!r} is an adapter of PEFT, and does not name its base model as org/name.",
            "Say which model it changes.",
            named[:200],
            next=[CallAgain("register_model", {"base_model": "path:/dir/of/the/base"})],
        )
    return f"hf:{named}"


def merge(base: Path, adapter: Path, target: Path, source: str) -> MergedModel:
    """Write the whole model into the empty folder `target`, in float32, with the files of its preprocessing. Raises
    INVALID where weights have no place or no value."""
    import peft
    import torch
    import transformers
    from safetensors.torch import load_file

    settings, state = read_settings(adapter), load_file(adapter / WEIGHTS)
    config = read_config(base)
    told = (settings.auto_mapping or {}).get("base_model_class")
    architecture = architecture_of(config, settings.task_type, told if isinstance(told, str) else None)
    if architecture is None:
        raise _invalid("no class of transformers is known for its base model and its task")
    whole = {_plain(name): tensor for name, tensor in state.items() if _LORA not in name}
    options = _label_options(read_config(adapter), whole)
    made: Any = getattr(transformers, architecture)
    with quiet_transformers(transformers):
        try:
            check_declared_counts(base)
            declared = made.config_class.from_pretrained(base, local_files_only=True)
            check_declared_size(base, lambda: made(declared))
            module, info = made.from_pretrained(
                base, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32,
                output_loading_info=True, ignore_mismatched_sizes=True, **options,
            )  # fmt: skip
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, ImportError, AttributeError) as error:
            raise _invalid(f"{type(error).__name__} in its base model's weights or config", str(error)[:300]) from error
        same_head = architecture in (config.get("architectures") or ())
        refuse_unmatched(base, _left(info, set(whole), same_head))
        try:
            adapted: Any = peft.get_peft_model(module, _lora(peft, settings))
            loaded: Any = peft.set_peft_model_state_dict(adapted, state)
        except (ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
            raise _invalid(f"{type(error).__name__} where its tensors meet the base model", str(error)[:300]) from error
        learned = [name for name in loaded.missing_keys if _LORA in name or "modules_to_save" in name]
        if loaded.unexpected_keys or learned:
            left = [*loaded.unexpected_keys, *learned]
            raise _invalid("its tensors are not those that its settings name", ", ".join(map(str, left[:5])))
        made = adapted.merge_and_unload()
        made.save_pretrained(target)
    _copy_files(base, adapter, target)
    return MergedModel(architecture, len(state))


def _lora(peft: Any, settings: AdapterSettings) -> Any:
    given = settings.model_dump(
        exclude={"peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "init_lora_weights"},
        exclude_none=True,
    )
    return peft.LoraConfig(**given, task_type=settings.task_type, init_lora_weights=False, inference_mode=True)


def _plain(name: str) -> str:
    """A weight's name in the base model, from that in the adapter's file."""
    return re.sub(r"\.modules_to_save(\.default)?|\.base_layer", "", name.removeprefix(_PREFIX))


def _label_options(config: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
    """The labels that a config beside the adapter names; else as many as its own head has, without names."""
    named = config.get("id2label")
    if isinstance(named, dict) and named and all(str(key).isdigit() for key in named):
        by_place = {int(key): str(label) for key, label in named.items()}
        return {"id2label": by_place, "label2id": {label: place for place, label in by_place.items()}}
    heads = [tensor for name, tensor in whole.items() if tensor.ndim == 2 and name.endswith(".weight")]
    heads = heads[-1:] if any("classifier" in name or "score" in name for name in whole) else []
    return {"num_labels": int(heads[0].shape[0])} if heads else {}


def _left(info: Mapping[str, Any], given: set[str], same_head: bool) -> dict[str, Any]:
    """What neither has: weights that the adapter brings are none, nor is the head of another task of the base model."""
    left = dict(info)
    for kind in ("missing_keys", "mismatched_keys"):
        named = info.get(kind) or ()
        left[kind] = [each for each in named if (each[0] if isinstance(each, tuple | list) else each) not in given]
    if not same_head:
        left["unexpected_keys"] = ()
    return left


def _copy_files(base: Path, adapter: Path, target: Path) -> None:
    """Tokenizers and preprocessors: the adapter's, where it has its own. The base model's licence keeps its text."""
    for folder in (adapter, base):
        for path in sorted(folder.iterdir()):
            name = path.name
            if folder is base and _LICENCE.fullmatch(name):
                name = f"{path.stem}.base"
            if folder is base and name == sealed.README:
                continue
            if path.is_file() and not _NOT_COPIED.fullmatch(name) and not (target / name).exists():
                shutil.copyfile(path, target / name, follow_symlinks=False)


def _invalid(why: str, foreign: str = "") -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"The adapter cannot be merged: {why}.",
        "Merge it where it was made (merge_and_unload, then save_pretrained) and name that folder; or train one here: "
        "train_model(method='lora', base_model=THE BASE MODEL).",
        foreign,
    )
