"""`model.py` in the folder of a model that has left: `load(folder).predict(inputs)` answers as the model does here.

It needs no package of ours: `model_code/` beside it holds the part of this package that the model uses (program.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.exports.program import REPLACED, Program, extract, file_of
from speciate.modalities import MODALITIES
from speciate.models import blend, estimators, model_folder
from speciate.models.backbones.architectures import rebuilt_by
from speciate.models.blend import Blend
from speciate.models.encoders import OF_FRAMES, OF_LAYERS
from speciate.models.model_card import ModelCard
from speciate.tasks import predictor
from speciate.tasks.nested_encoders import has_nested
from speciate.tasks.network_predictor import MANIFEST
from speciate.tasks.predictor import ESTIMATOR
from speciate.tasks.task_heads import PER_UNIT, TASK_HEADS

MODEL_PROGRAM, MODEL_CODE = "model.py", "model_code"
_STANDALONE = "speciate.exports.standalone"


class ModelProgram(NamedTuple):
    requires: tuple[str, ...]
    """Packages, by the names by which they are installed."""


class _Facade(NamedTuple):
    name: str
    """ "module:class" that the program's `load` makes."""
    parts: Mapping[str, str]
    """The class's arguments that are names in the code."""
    facts: Mapping[str, object]
    """The class's arguments that are values."""


def has_program(folder: Path) -> bool:
    """Whether a program can be written for the model in this folder: it was made here and has the head of a task."""
    manifest = _manifest(folder)
    said = manifest.get("representation")
    return bool(manifest.get("backbone")) or (said is not None and not has_nested(said))


def write_program(folder: Path, target: Path, card: ModelCard) -> ModelProgram:
    """`folder`: of the sealed version, whose files are in `target` already, with the network of a probe."""
    facade = _facade(folder, target, card)
    tables = {name: MODALITIES[name] for name in _modalities(folder, card) if name in MODALITIES}
    program = extract((facade.name, *facade.parts.values()), tables)
    code = target / MODEL_CODE
    code.mkdir()
    (code / "__init__.py").write_text("", encoding="utf-8")
    for name, source in program.modules.items():
        (code / name).write_text(source, encoding="utf-8")
    requires = _required(program, target)
    (target / MODEL_PROGRAM).write_text(_source(facade, card, requires), encoding="utf-8")
    return ModelProgram(requires)


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _facade(folder: Path, target: Path, card: ModelCard) -> _Facade:
    manifest = _manifest(folder)
    family = manifest["readout"]["family"]
    parts: dict[str, str] = {"head": _name_of(TASK_HEADS[family])}
    facts: dict[str, object] = {"modality": _medium(folder, card)}
    if model_folder.has_backbone(target):
        read = "read_exported_backbone" if model_folder.is_export(target) else "read_backbone"
        parts |= {
            "read": f"{_STANDALONE}.backbones:{read}",
            "rebuild": rebuilt_by(model_folder.read_settings(target)),
        }
    if manifest.get("backbone"):
        return _Facade(f"{_STANDALONE}.networks:Network", parts, facts | {"per_unit": family in PER_UNIT})
    said = manifest["representation"]
    _, metadata = estimators.load_arrays(folder / ESTIMATOR)
    blended = metadata["form"] == blend.FORM
    parts["estimator"] = _name_of(Blend if blended else estimators.FORMS[metadata["form"]])
    if said["kind"] == "embeddings":
        facts["by_frames"] = said["encoder"].endswith(OF_FRAMES)
        facts["by_layers"] = said["encoder"].endswith(OF_LAYERS) and not model_folder.is_export(target)
        return _Facade(f"{_STANDALONE}.probes:Probe", parts, facts)
    name = _name_of(predictor.REBUILD[said["kind"]])
    parts["representation"] = REPLACED.get(name, name)
    facade = "blends:Blended" if blended else "classical:Classical"
    return _Facade(f"{_STANDALONE}.{facade}", parts, facts)


def _name_of(kind: type[Any]) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _medium(folder: Path, card: ModelCard) -> str:
    found = card.modality or next(iter(_modalities(folder, card)), None)
    if found is None:
        raise SpeciateError(
            Code.INVALID, f"{card.ref} does not say which modality it reads.", f"Call describe_model({card.ref!r})."
        )
    return found


def _modalities(folder: Path, card: ModelCard) -> dict[str, None]:
    """Modalities that the program may look up, in the order in which they are met."""
    found = dict.fromkeys([card.modality] if card.modality else [])
    found |= dict.fromkeys(part.rpartition(".")[2] for part in card.parts)
    manifest = _manifest(folder)
    found |= dict.fromkeys(_named(manifest.get("representation", {})))
    if model_folder.has_backbone(folder):
        found |= dict.fromkeys([str(model_folder.read_settings(folder)["modality"])])
    return dict.fromkeys(found)


def _named(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("modality"), str):
            yield value["modality"]
        if value.get("kind") == "parts":
            yield from (part["name"].rpartition(".")[2] for part in value["parts"])
        for each in value.values():
            yield from _named(each)
    elif isinstance(value, list):
        for each in value:
            yield from _named(each)


def _required(program: Program, target: Path) -> tuple[str, ...]:
    """numpy goes without saying in no program of ours; timm only where the network is timm's."""
    found = {*program.requires, "numpy"}
    if model_folder.has_backbone(target) and "timm" not in str(model_folder.read_settings(target).get("config", "")):
        found.discard("timm")
    return tuple(sorted(found))


def _source(facade: _Facade, card: ModelCard, requires: tuple[str, ...]) -> str:
    names = {"facade": facade.name, **facade.parts}
    lines = [
        f'"""Answers as {card.ref} does, where speciate is not installed.',
        "",
        f"Needs: {', '.join(requires)}. `load(folder).predict(inputs)` gives a dict for each input: `answer`,",
        "`confidence` and `probabilities`. No other file of Python is run than those in model_code/.",
        '"""',
        "",
        "import importlib",
        "import importlib.util",
        "import sys",
        "from pathlib import Path",
        "",
        f'_CODE = "{MODEL_CODE}_{card.id[:12] or "0"}"',
        f'_PLACE = Path(__file__).resolve().parent / "{MODEL_CODE}"',
        "",
        "",
        "def load(folder=_PLACE.parent):",
        '    """The model in `folder`: `predict(inputs)` answers a list of inputs."""',
    ]
    for name, target in names.items():
        module, _, symbol = target.partition(":")
        lines.append(f'    {name} = _find("{file_of(module)}", "{symbol}")')
    given = [
        *(f"{name}={name}" for name in facade.parts),
        *(f"{name}={value!r}" for name, value in facade.facts.items()),
    ]
    lines += [
        f"    return facade(folder, {', '.join(given)})",
        "",
        "",
        "def _find(module, name):",
        "    if _CODE not in sys.modules:",
        '        where = {"submodule_search_locations": [str(_PLACE)]}',
        '        spec = importlib.util.spec_from_file_location(_CODE, _PLACE / "__init__.py", **where)',
        "        sys.modules[_CODE] = importlib.util.module_from_spec(spec)",
        '    return getattr(importlib.import_module(f"{_CODE}.{module}"), name)',
        "",
    ]
    return "\n".join(lines)
