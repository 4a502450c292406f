"""Folders of sentence-transformers: a network of tokens, how its states become one vector, and layers after that.

`modules.json` lists the parts. A part's files lie in a folder of its own, `1_Pooling/config.json`; a version of a model
has no subfolders, and there the file is called `1_Pooling--config.json`. A network in `0_Transformer/` lies at the top.
The package itself is not used, and a part of another type than those here refuses the folder: its code is never run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from speciate import foreign_files
from speciate.errors import Code, SpeciateError

MODULES, POOLING, SEPARATOR = "modules.json", "1_Pooling/config.json", "--"
_NETWORK = "0_Transformer"
_PART = re.compile(r"[1-9]\d?_[A-Za-z]\w{0,40}")
_SETTINGS, _WEIGHTS, _LIMITS = "config.json", "model.safetensors", "sentence_bert_config.json"
_MODES: Mapping[str, str] = {
    "pooling_mode_cls_token": "first", "pooling_mode_max_tokens": "max", "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean-root", "pooling_mode_weightedmean_tokens": "weighted",
    "pooling_mode_lasttoken": "last",
}  # fmt: skip
"""Settings of a pooling -> our name; of several that are true the vectors stand one after the other, in this order."""
_MODE_NAMES: Mapping[str, str] = {"cls": "first", "mean_sqrt_len_tokens": "mean-root", "weightedmean": "weighted",
                                  "lasttoken": "last", "mean": "mean", "max": "max"}  # fmt: skip
"""As newer versions name them, in `pooling_mode`."""
_ACTIVATIONS: Mapping[str, str] = {"Tanh": "tanh", "Identity": "identity", "ReLU": "relu", "GELU": "gelu",
                                   "Sigmoid": "sigmoid"}  # fmt: skip
_IGNORED = ("Normalize", "Dropout")
"""Vectors are brought to length 1 wherever they are compared."""


class DenseSettings(NamedTuple):
    """A layer after the pooling."""

    part: str
    inputs: int
    outputs: int
    bias: bool
    activation: str


class SentenceModules(NamedTuple):
    pooling: str = "mean"
    """Modes joined by `+`."""
    dense: tuple[DenseSettings, ...] = ()
    longest: int | None = None
    """Tokens, special ones included."""
    lower: bool = False
    """Whether texts are folded to lower case before they are cut."""

    def width(self, states: int) -> int:
        """Width of the vectors, from that of the network's states."""
        return self.dense[-1].outputs if self.dense else states * (self.pooling.count("+") + 1)


def is_part_file(name: str) -> bool:
    """Whether a nested name is one that reading such a folder needs, beside the network's own in `0_Transformer/`."""
    folder, _, file = name.partition("/")
    return bool(_PART.fullmatch(folder)) and file in (_SETTINGS, _WEIGHTS)


def is_network_file(name: str) -> bool:
    return name.startswith(f"{_NETWORK}/") and name.count("/") == 1


def flat_name(name: str) -> str:
    """`2_Dense/model.safetensors` -> `2_Dense--model.safetensors`; `0_Transformer/config.json` -> `config.json`."""
    return name.removeprefix(f"{_NETWORK}/").replace("/", SEPARATOR)


def nested_files(folder: Path) -> list[str]:
    """The names `PART/FILE` that may be read in a folder with `modules.json`; none in another folder."""
    if not (folder / MODULES).is_file():
        return []
    parts = [path.name for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
    found = [f"{part}/{file}" for part in parts for file in (_SETTINGS, _WEIGHTS) if (folder / part / file).is_file()]
    inner = folder / _NETWORK
    own = [f"{_NETWORK}/{path.name}" for path in inner.iterdir()] if _NETWORK in parts else []
    return sorted({each for each in found if is_part_file(each)} | set(own))


def counting_files(folder: Path) -> list[Path]:
    """The files beside a network's own that determine its vectors."""
    parts = [path for path in folder.glob(f"*{SEPARATOR}*") if is_part_file(path.name.replace(SEPARATOR, "/", 1))]
    nested = [folder / name for name in nested_files(folder) if is_part_file(name) and name != POOLING]
    limits = folder / _LIMITS
    return sorted([*parts, *nested, *([limits] if limits.is_file() else [])])


def read_modules(folder: Path) -> SentenceModules:
    """How states become a vector; the mean over tokens where no file says it. Raises INVALID for a part of another type
    than these, or one that does not fit."""
    limits = _read(folder / _LIMITS) or _read(folder / _NETWORK / _LIMITS) or {}
    longest = limits.get("max_seq_length")
    told = SentenceModules(
        longest=longest if isinstance(longest, int) and longest > 2 else None, lower=limits.get("do_lower_case") is True
    )
    listed = _read(folder / MODULES)
    if listed is None:
        return told._replace(pooling=_pooling(_part(folder, POOLING.partition("/")[0]) or {}))
    dense: list[DenseSettings] = []
    for entry in listed if isinstance(listed, list) else ():
        kind, part = str(entry.get("type", "")), str(entry.get("path", ""))
        name = kind.rpartition(".")[2]
        if not kind.startswith("sentence_transformers.") or name not in ("Transformer", "Pooling", "Dense", *_IGNORED):
            raise _invalid(folder, f"its part {kind[:80]!r} is of a type that is not read here")
        if name == "Pooling":
            told = told._replace(pooling=_pooling(_part(folder, part) or {}))
        elif name == "Dense":
            dense.append(_dense(folder, part))
    return told._replace(dense=tuple(dense))


def dense_weights(folder: Path, part: str) -> Path:
    flat = folder / f"{part}{SEPARATOR}{_WEIGHTS}"
    return flat if flat.is_file() else folder / part / _WEIGHTS


def _dense(folder: Path, part: str) -> DenseSettings:
    said = _part(folder, part) or {}
    activation = _ACTIVATIONS.get(str(said.get("activation_function", "Tanh")).rpartition(".")[2])
    inputs, outputs = said.get("in_features"), said.get("out_features")
    if activation is None or not isinstance(inputs, int) or not isinstance(outputs, int):
        raise _invalid(folder, f"its layer {part[:40]!r} has no sizes, or an activation that is not known here")
    if not dense_weights(folder, part).is_file():
        raise _invalid(folder, f"its layer {part[:40]!r} has no {_WEIGHTS}")
    return DenseSettings(part, inputs, outputs, said.get("bias") is not False, activation)


def _pooling(said: Mapping[str, Any]) -> str:
    named = said.get("pooling_mode")
    if isinstance(named, str) and named:
        given: Iterable[str] = named.replace("+", " ").replace(",", " ").split()
        found = [_MODE_NAMES[each] for each in given if each in _MODE_NAMES]
    else:
        found = [ours for name, ours in _MODES.items() if said.get(name) is True]
    return "+".join(found) or "mean"


def _part(folder: Path, part: str) -> Mapping[str, Any] | None:
    found = _read(folder / f"{part}{SEPARATOR}{_SETTINGS}") or _read(folder / part / _SETTINGS)
    return found if isinstance(found, dict) else None


def _read(path: Path) -> Any:
    try:
        return foreign_files.read_json(path)
    except (OSError, ValueError):
        return None


def _invalid(folder: Path, why: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID,
        f"The model of sentences in {folder.name!r} cannot be read: {why}.",
        "Use another model of sentences, whose modules.json lists a Transformer, a Pooling, Dense and Normalize alone.",
    )
