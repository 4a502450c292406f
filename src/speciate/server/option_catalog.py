"""What can be chosen in a tool's arguments, read from the tables that the engine itself chooses from.

One function per kind in one table. A list has the names of parameters; whoever names one option gets their schema.
Modules are described by the first line of their docstring, read from the file:
nothing is imported for it. Triggers join with the tool that uses them.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

from speciate import modalities
from speciate.datasets import operations
from speciate.datasets.curate import missing_packages
from speciate.datasets.exports import FORMATS
from speciate.datasets.similarity import extractors
from speciate.datasets.sources import reasoning_gym
from speciate.errors import Call, unknown
from speciate.evaluation import metric_libraries
from speciate.models.diffusion.pipeline_folder import TEXT_TO_IMAGE
from speciate.server.mcp.arguments import compact_schema, input_schema, is_deferred, written_result
from speciate.server.tool_api import DECLARED
from speciate.tasks.families import preference
from speciate.training.language_hyperparameters import (
    LANGUAGE_PARAMETERS,
    VISION_TASK,
    VISION_VARIANTS,
    LanguageParameters,
)
from speciate.training.planning.available_methods import available_candidates
from speciate.training.planning.prior_model_checks import base_method, suits_family
from speciate.training.rewards import sandboxed_rewards
from speciate.training.rewards.reward_spec import REWARD_SPECS
from speciate.training.train_spec import METHOD_DESCRIPTIONS, PARAMETERS, parameters_of
from speciate.vocabulary import METRICS, TASKS, Metric, Task, find_task

Kind = Literal[
    "task", "metric", "method", "modality", "operation", "extractor", "format", "reward", "gym", "argument", "result"
]

_LIBRARIES = {
    "classical": ("sklearn", "classical"),
    "probe": ("torch", "train"),
    "lora": ("peft", "train"),
    "full": ("torch", "train"),
    **dict.fromkeys(LANGUAGE_PARAMETERS, ("trl", "language")),
    "replay": ("torch", "train"),
    "der": ("torch", "train"),
    "lwf": ("torch", "train"),
    "ewc": ("torch", "train"),
    "slda": ("torch", "train"),
    "distill": ("torch", "train"),
    TEXT_TO_IMAGE: ("diffusers", "images"),
}
"""Method, or that task -> the library that it imports and the extra that brings it."""


class Option(NamedTuple):
    name: str
    what: str
    parameters: Mapping[str, Any]
    """JSON schema of what may be set, empty where nothing may."""
    needs: tuple[str, ...]
    """What to install first."""

    @property
    def parameter_names(self) -> tuple[str, ...]:
        return tuple(self.parameters.get("properties", self.parameters))


def list_options(kind: Kind, name: str | None = None, task: str | None = None) -> list[Option]:
    """The options of a kind, of one name only or of those that suit a task. NOT_FOUND with near names."""
    found = _KINDS[kind](None if task is None else find_task(task))
    if name is None:
        return found
    named = [option for option in found if option.name == name]
    if not named:
        raise unknown(kind, name, [option.name for option in found], next=[Call("list_options", {"kind": kind})])
    return named


def _tasks(task: Task | None) -> list[Option]:
    """Tasks whose modality can be read."""
    known = modalities.table()
    return [
        Option(each.name, f"{each.what}; usually measured by {each.default_metric}", {}, ())
        for each in TASKS.values()
        if known.keys() & set(each.modalities) and task in (None, each)
    ]


def _metrics(task: Task | None) -> list[Option]:
    return [
        Option(
            metric.name,
            _metric_text(metric),
            {},
            (metric_libraries.INSTALL,) if metric_libraries.lacks_library(metric) else (),
        )
        for metric in METRICS.values()
        if task is None or task.family in metric.families
    ]


def _metric_text(metric: Metric) -> str:
    label = "; needs positive_label" if metric.positive else ""
    return f"{metric.what}; {metric.better} is better{label}"


def _methods(task: Task | None) -> list[Option]:
    """All methods; for a task, those that do it with what is installed, with the base models that they can take."""
    can = task and [way for each in task.modalities for way in available_candidates(each, task.family)]
    found = []
    for name, parameters in PARAMETERS.items():
        known = base_method(name, task.family if task else None)
        if task is not None and not suits_family(name, task.family):
            continue
        bases = dict.fromkeys(way.base_model for way in can or () if way.method == known and way.base_model)
        writes = task is not None and name in LANGUAGE_PARAMETERS and _is_learned_by(task, name)
        draws = task is not None and task.name == TEXT_TO_IMAGE and name == "lora"
        others = can if can and task and task.name != preference.PREFERENCE else ()
        if can is None or writes or draws or any(way.method == known for way in others):
            what = METHOD_DESCRIPTIONS[name] + (f" Base models: {', '.join(bases)}." if bases else "")
            form = parameters_of(name, task.name) if task else parameters
            lacking = _needs("sft" if issubclass(form, LanguageParameters) else TEXT_TO_IMAGE if draws else name)
            found.append(Option(name, what, _parameters_schema(form), lacking))
    return found


def _parameters_schema(form: type[BaseModel]) -> Mapping[str, Any]:
    """Without the fields of each kind of reward, which `list_options(kind='reward')` has."""
    schema = form.model_json_schema()
    rewards = schema["properties"].get("rewards")
    if rewards is not None:
        kinds = ", ".join(REWARD_SPECS)
        rewards["items"] = {"type": "object", "description": f"By its kind: {kinds}; list_options(kind='reward')."}
    return compact_schema(schema)


def _is_learned_by(task: Task, method: str) -> bool:
    """Whether a method that trains language models does this task."""
    if method == preference.REWARD or task.name == preference.PREFERENCE:
        return (task.name, method) == (preference.PREFERENCE, preference.REWARD)
    return method in VISION_VARIANTS if task.name == VISION_TASK else task.family == "generation"


def _needs(method: str) -> tuple[str, ...]:
    library, extra = _LIBRARIES[method]
    return () if importlib.util.find_spec(library) else (f"pip install 'speciate[{extra}]'",)


def _modalities(task: Task | None) -> list[Option]:
    return [
        Option(name, first_line(place.partition(":")[0]), {}, ())
        for name, place in sorted(modalities.table().items())
        if task is None or task.suits(name)
    ]


def _extractors(task: Task | None) -> list[Option]:
    """The descriptor once, though each modality has its own."""
    found: dict[str, Option] = {}
    for each in extractors.choices(None):
        if task is not None and not task.suits(each.modality):
            continue
        about = "any modality" if each.name == extractors.DESCRIPTOR else each.modality
        found.setdefault(each.name, Option(each.name, f"{about}: {each.what}", {}, each.needs))
    return list(found.values())


def _formats(task: Task | None) -> list[Option]:
    """Formats of exports. All of them: whether one fits is a matter of the dataset, which export_dataset looks at."""
    return [Option(name, first_line(place.partition(":")[0]), {}, ()) for name, place in FORMATS.items()]


def _operations(task: Task | None) -> list[Option]:
    found = [operations.find(name) for name in sorted(operations.table())]
    return [
        Option(each.name, each.what, compact_schema(each.parameters.model_json_schema()), missing_packages(each))
        for each in found
    ]


def _rewards(task: Task | None) -> list[Option]:
    """Kinds of `rewards` of grpo and rloo, each with all that may be set of it."""
    if task is not None and task.family != "generation":
        return []
    return [
        Option(
            kind,
            spec.__doc__ or "",
            compact_schema(spec.model_json_schema()),
            (sandboxed_rewards.INSTALL,) if sandboxed_rewards.lacks_library(kind) else (),
        )
        for kind, spec in REWARD_SPECS.items()
    ]


def _gym(task: Task | None) -> list[Option]:
    """Tasks of `gym:TASK`, a source of create_dataset; settings as the package writes them."""
    return [Option(name, each.what, dict(each.settings), ()) for name, each in reasoning_gym.list_tasks().items()]


def _arguments(task: Task | None) -> list[Option]:
    """Arguments that `tools/list` names without writing them out."""
    return [
        Option(f"{tool}.{name}", field.get("description", ""), field.get("items", field), ())
        for tool, each in sorted(DECLARED.items())
        for name, field in input_schema(each.arguments)["properties"].items()
        if is_deferred(field)
    ]


def _results(task: Task | None) -> list[Option]:
    """What each tool answers, with all fields: tools/list names those of the first level and what is in them."""
    return [
        Option(name, f"What {name} answers.", written_result(each.result), ())
        for name, each in sorted(DECLARED.items())
    ]


_KINDS: dict[Kind, Callable[[Task | None], list[Option]]] = {
    "task": _tasks,
    "metric": _metrics,
    "method": _methods,
    "modality": _modalities,
    "operation": _operations,
    "extractor": _extractors,
    "format": _formats,
    "reward": _rewards,
    "gym": _gym,
    "argument": _arguments,
    "result": _results,
}


@cache
def first_line(module: str) -> str:
    """The first line of a module's docstring, to the end of its sentence."""
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        return ""
    words = ast.get_docstring(ast.parse(Path(found.origin).read_text())) or ""
    line = words.partition("\n")[0]
    whole = " ".join(words.partition("\n\n")[0].split())
    end = whole.find(". ", len(line) - 1)
    return whole if end < 0 else whole[: end + 1]
