"""Small datasets of many kinds, and calls drawn about them: valid ones, and ones that are wrong in one place.

A call follows from its seed, so that a failure can be repeated: `python -m tests.server.drawn_calls 7 8` makes the
calls of these seeds and prints what became of each.
"""

from __future__ import annotations

import contextlib
import csv
import importlib
import json
import os
import random
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from PIL import Image
from pydantic import BaseModel, ValidationError

from speciate import use_cases
from speciate.datasets.exports import FORMATS
from speciate.errors import Code, SpeciateError
from speciate.jobs.engine import Engine
from speciate.jobs.executors import LocalExecutor
from speciate.jobs.folder import RunFolder
from speciate.jobs.pool import Pool
from speciate.jobs.run import Run, Stopped
from speciate.models.backbones.architectures import ARCHITECTURES
from speciate.server.tool_api import IN_PROCESS, App, DryRun, JobStarted
from speciate.settings import Settings
from speciate.tools import datasets, evaluation, exports, models, predictions, promotion, training
from speciate.training.language_hyperparameters import LANGUAGE_PARAMETERS
from speciate.training.train_spec import PARAMETERS, Method, PriorModelMethod
from speciate.use_cases import Definition
from speciate.vocabulary import METRICS, TASKS
from speciate.workspace.workspace import Workspace
from tests import data
from tests.modalities.samples import chirp, encode, sound
from tests.models.language.world import tiny_model

TOOLS = {
    each.__name__: each
    for each in (
        datasets.create_dataset, datasets.add_examples, datasets.curate_dataset, exports.export_dataset,
        exports.export_model, training.train_model, training.plan_training, training.specialize, training.merge_models,
        evaluation.evaluate_models, promotion.promote_model, predictions.predict, models.register_model,
    )
}  # fmt: skip
KNOWN_BEFORE = (Code.INVALID, Code.NOT_FOUND, Code.CONFLICT, Code.MISSING_EXTRA, Code.REFUSED)
"""Codes of failures that a caller could have avoided: a job that ends by one was accepted too early."""


class Call(NamedTuple):
    tool: str
    arguments: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.tool}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"


class Outcome(NamedTuple):
    state: Literal["refused", "not_valid", "started", "ended", "lied"]
    why: str = ""


# The world


def make_world(root: Path, only: Collection[str] = ()) -> None:
    """A closed workspace at `root / "workspace"`, with files of the caller beside it. `only`: these datasets, and no
    models."""
    workspace = Workspace(root / "workspace", settings=Settings(policy="auto"))
    made = {
        "reviews": {"rows": data.review_rows(60), "label": "label", "inputs": ("text",)},
        "grouped": {"rows": data.review_rows(60), "label": "label", "inputs": ("text",), "group_by": "film"},
        "tumours": {"source": data.tumour_csv(root / "tumours.csv", 90), "label": "diagnosis"},
        "prices": {"rows": _prices(), "label": "price", "inputs": ("rooms", "town")},
        "ranks": {"rows": _ranks(), "label": "grade", "inputs": ("text",)},
        "topics": {"rows": _topics(), "label": "topics", "inputs": ("text",)},
        "tagged": {"rows": _tagged(), "label": "tags", "inputs": ("words",)},
        "plain": {"rows": [{"text": row["text"]} for row in data.review_rows(40)], "inputs": ("text",)},
        "few": {"rows": _reviews(5, split="train"), "label": "label", "inputs": ("text",)},
        "one": {"rows": _reviews(30, label="good"), "label": "label", "inputs": ("text",)},
        "lopsided": {"rows": _lopsided(), "label": "label", "inputs": ("text",)},
        "pairs": {"rows": _pairs(), "inputs": ("prompt",)},
        "sums": {"rows": _sums(), "label": "answer", "inputs": ("question",)},
        "digits": {"source": data.digit_folder(root / "digits", 60, 3), "label": "folder"},
        "peptides": {"source": data.peptide_fasta(root / "peptides.fasta", 50), "label": "kind"},
        "moves": {"source": data.series_ts(root / "moves", 45)},
        "waves": {"rows": _waves(), "inputs": ("left", "right"), "modality": "time-series"},
        "rounds": {"source": _rounds(root / "rounds") / "rows", "modality": "multimodal",
                       "labels": {"path": root / "rounds" / "labels.csv", "key": "name", "column": "urgency"}},
    }  # fmt: skip
    for name, spec in made.items():
        if not only or name in only:
            data.ingest(workspace, name, **spec)
    if only:
        workspace.close()
        return
    quick = {"candidates": ["logistic"]}
    data.run_job(workspace, "train", name="of-texts", dataset="reviews", method="classical", hyperparameters=quick)
    data.run_job(workspace, "train", name="of-rows", dataset="tumours", method="classical", hyperparameters=quick)
    data.run_job(workspace, "train", name="of-prices", dataset="prices", method="classical")
    data.run_job(workspace, "train", name="of-parts", dataset="rounds", method="classical", hyperparameters=quick)
    data.run_job(
        workspace, "train", name="of-pictures", dataset="digits", method="full", base_model="new:vit",
        hyperparameters={"num_train_epochs": 1, "learning_rate": [1e-3], "precision": "float32"},
    )  # fmt: skip
    definition = Definition.model_validate(
        {"name": "sorting", "task": "text-classification", "objective": {"metric": "accuracy", "target": 0.5}}
    )
    workspace.database.transact(lambda tx: use_cases.define(tx, definition, policy="auto"))
    judged = {"models": ("of-texts@v1",), "use_case": "sorting", "dataset": "reviews", "latency": False}
    data.run_job(workspace, "evaluate", **judged)
    tiny_model(root / "writer")
    (root / "empty").mkdir()
    workspace.close()


def _reviews(count: int, **columns: str) -> list[dict[str, Any]]:
    return [{**row, **columns} for row in data.review_rows(count)]


def _prices() -> list[dict[str, Any]]:
    chance = random.Random(0)
    return [
        {"rooms": rooms, "town": town, "price": round(50.5 * rooms + 20 * len(town) + chance.random(), 2)}
        for _ in range(60)
        for rooms, town in [(chance.randint(1, 6), chance.choice(["Oslo", "Lima", "Cairo"]))]
    ]


def _ranks() -> list[dict[str, Any]]:
    words = ("awful", "decent", "superb")
    return [{"text": f"a {words[i % 3]} film, number {i}", "grade": words[i % 3]} for i in range(60)]


def _topics() -> list[dict[str, Any]]:
    every = ("sport", "food", "money")
    return [
        {"text": f"{' and '.join(found) or 'nothing'} today, {i}", "topics": list(found)}
        for i in range(60)
        for found in [[name for at, name in enumerate(every) if i >> at & 1]]
    ]


def _tagged() -> list[dict[str, Any]]:
    names = ("Ada", "Alan", "Grace")
    return [{"words": f"{names[i % 3]} went home {i}", "tags": ["B-PER", "O", "O", "O"]} for i in range(40)]


def _lopsided() -> list[dict[str, Any]]:
    """One label is in the test split alone, and one has a single row to learn from."""
    rows = [{"text": f"a good film {i}", "label": "good", "split": "train"} for i in range(20)]
    rows += [{"text": f"a good play {i}", "label": "good", "split": "test"} for i in range(6)]
    rows += [{"text": f"a bad play {i}", "label": "bad", "split": "test"} for i in range(6)]
    return rows


def _pairs() -> list[dict[str, Any]]:
    return [
        {"prompt": f"is {i} good?", "chosen": ("yes", "sure")[i % 2], "rejected": "no", "same": "yes"}
        for i in range(40)
    ]


def _sums() -> list[dict[str, Any]]:
    return [{"question": f"what is {i} plus {i % 7}?", "answer": str(i + i % 7), "note": ""} for i in range(50)]


def _waves() -> list[dict[str, Any]]:
    at = np.linspace(0, 12, 48)
    return [
        {"left": np.round(np.sin(at + i), 4).tolist(), "right": np.round(np.cos(at * (1 + i % 3)), 4).tolist()}
        for i in range(30)
    ]


def _rounds(folder: Path) -> Path:
    """Rows of a scan, a note, and of most of them a hum."""
    chance, names = np.random.default_rng(0), []
    for i in range(40):
        below = folder / "rows" / f"{i:02}"
        below.mkdir(parents=True)
        shade = 40 if i % 2 else 200
        pixels = np.clip(chance.normal(shade, 20, (12, 12, 3)), 0, 255).astype(np.uint8)
        (below / "scan.png").write_bytes(encode(Image.fromarray(pixels)))
        (below / "note.txt").write_text(f"{'slept well' if i % 2 else 'strong pain'}, visit {i} of the ward")
        if i % 5:
            (below / "hum.wav").write_bytes(sound("WAV", chirp(0.3 + i / 100)))
        names.append({"name": f"{i:02}", "urgency": "calm" if i % 2 else "urgent"})
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["name", "urgency"])
        writer.writeheader()
        writer.writerows(names)
    return folder


DATASETS = (
    "reviews", "grouped", "tumours", "prices", "ranks", "topics", "tagged", "plain", "few", "one", "lopsided", "pairs",
    "sums", "digits", "peptides", "moves", "waves", "rounds",
)  # fmt: skip
COLUMNS = (
    "text", "label", "film", "diagnosis", "price", "rooms", "town", "grade", "topics", "tags", "words", "prompt",
    "chosen", "rejected", "same", "question", "answer", "note", "values", "left", "right", "width", "urgency", "nope",
)  # fmt: skip
MODELS = ("of-texts@v1", "of-rows@v1", "of-prices@v1", "of-parts@v1", "of-pictures@v1")
LABELS = ("good", "bad", "malignant", "benign", "0", "1", "awful", "decent", "superb", "calm", "urgent", "nope")
BASES = (*ARCHITECTURES, "pkg:minilm", "pkg:nope", "timm:resnet18", "timm:nope", "new:nope", *MODELS)
PARTS = ("scan", "note", "hum", "image", "scan.image", "nope")


# Draws


class Draw:
    def __init__(self, seed: int, folder: Path) -> None:
        self.chance, self.seed, self.folder = random.Random(seed), seed, folder

    def of(self, *values: Any) -> Any:
        return self.chance.choice(values)

    def maybe(self, probability: float, *values: Any) -> Any:
        """One of the values, or None."""
        return self.of(*values) if self.chance.random() < probability else None

    def some(self, most: int, values: Sequence[Any]) -> list[Any]:
        return self.chance.sample(list(values), self.chance.randint(1, min(most, len(values))))

    def dataset(self) -> str:
        name = self.of(*DATASETS)
        return str(self.of(name, f"{name}@v1", f"{name}@v1", f"{name}@v1"))

    def column(self, dataset: str) -> str:
        """Mostly one of its own."""
        return str(self.of(*COLUMNS) if self.chance.random() < 0.3 else self.of(*OWN[dataset.partition("@")[0]]))


OWN: Mapping[str, tuple[str, ...]] = {
    "reviews": ("text", "label", "film"), "grouped": ("text", "label", "film"), "tumours": ("diagnosis", "mean_radius"),
    "prices": ("rooms", "town", "price"), "ranks": ("text", "grade"), "topics": ("text", "topics"),
    "tagged": ("words", "tags"), "plain": ("text",), "few": ("text", "label"), "one": ("text", "label", "film"),
    "lopsided": ("text", "label"), "pairs": ("prompt", "chosen", "rejected", "same"),
    "sums": ("question", "answer", "note"), "digits": ("label", "width", "source"), "peptides": ("sequence", "kind"),
    "moves": ("label", "steps"), "waves": ("left", "right"), "rounds": ("urgency", "parts", "missing", "scan_width"),
}  # fmt: skip


def train_model(draw: Draw) -> Call:
    dataset = draw.dataset()
    method = draw.of(*get_args(Method)[:4], *get_args(Method), *get_args(PriorModelMethod))
    natural = (f"path:{draw.folder}/writer",) if method in LANGUAGE_PARAMETERS else _bases_of(dataset)
    return Call("train_model", _given(
        name=f"drawn-{draw.seed}",
        dataset=dataset,
        method=method,
        base_model=draw.maybe(0.6, *natural, *natural, *natural, *BASES) if method != "classical" else
        draw.maybe(0.1, *BASES),
        task=draw.maybe(0.5, *_tasks_of(dataset), *_tasks_of(dataset), *TASKS),
        target=draw.column(dataset) if draw.chance.random() < 0.3 else None,
        hyperparameters=_hyperparameters(draw, method, dataset),
        use_case=draw.maybe(0.1, "sorting", "nope"),
        continue_from=draw.maybe(0.7 if method in get_args(PriorModelMethod) else 0.1, *MODELS),
        teacher=draw.maybe(0.8, *MODELS) if method == "distill" else None,
        like=draw.maybe(0.04, *MODELS),
        budget_minutes=draw.of(0.05, 0.05, None) if method == "classical" else 0.05,
    ))  # fmt: skip


def _bases_of(dataset: str) -> tuple[Any, ...]:
    name = dataset.partition("@")[0]
    return {
        "tumours": ("new:tab-resnet",), "prices": ("new:tab-resnet",), "digits": ("new:vit", "new:resnet", MODELS[4]),
        "peptides": ("new:esm",), "moves": ("new:inceptiontime", "new:patchtst"), "waves": ("new:mlp", "new:gru"),
        "rounds": ("pkg:minilm",),
    }.get(name, ("new:bert", "pkg:minilm"))  # fmt: skip


def _tasks_of(dataset: str) -> tuple[str, ...]:
    name = dataset.partition("@")[0]
    modality = {
        "tumours": "tabular", "prices": "tabular", "digits": "image", "peptides": "protein", "moves": "time-series",
        "waves": "time-series", "rounds": "multimodal",
    }.get(name, "text")  # fmt: skip
    return tuple(each for each, task in TASKS.items() if task.suits(modality))


def _hyperparameters(draw: Draw, method: str, dataset: str) -> dict[str, Any]:
    form = PARAMETERS[method]
    fixed: dict[str, Any] = {}
    if "num_train_epochs" in form.model_fields:
        fixed["num_train_epochs"] = 1
    if "learning_rate" in form.model_fields and method in ("lora", "full", *get_args(PriorModelMethod)):
        fixed["learning_rate"] = [1e-3]
        fixed["precision"] = "float32"
    names = [each for each in form.model_fields if each in VALUES]
    chosen = draw.some(3, names) if names and draw.chance.random() < 0.7 else []
    return {**fixed, **{name: draw.of(*VALUES[name](draw, dataset)) for name in chosen}}


VALUES: Mapping[str, Any] = {
    "folds": lambda draw, dataset: (2, 3, 20),
    "horizon": lambda draw, dataset: (1, 6, 20, 40, 500),
    "order": lambda draw, dataset: (["awful", "decent", "superb"], ["awful", "superb"], ["bad", "good"]),
    "positive_label": lambda draw, dataset: LABELS,
    "normal_share": lambda draw, dataset: (0.5, 0.95),
    "arrived_weight": lambda draw, dataset: ([1.0], [1.0, 2.0]),
    "candidates": lambda draw, dataset: (["logistic"], ["ridge"], ["boosting"], ["svm"], ["means"], ["covariance"],
                                         ["isolation"], ["trees"], ["linear"], ["as-they-are"], ["discriminant"],
                                         ["neighbours"], ["boosting-absolute"], ["logistic", "ridge"]),
    "parts": lambda draw, dataset: (draw.some(2, PARTS), ["note"], ["scan", "note"]),
    "tabm": lambda draw, dataset: (True, False),
    "thorough": lambda draw, dataset: (True, False),
    "C": lambda draw, dataset: ([1.0], 1.0),
    "encoders": lambda draw, dataset: (["pkg:minilm"], ["of-pictures@v1"], ["of-texts@v1"], ["timm:nope"]),
    "early_stopping_patience": lambda draw, dataset: (1, 2),
    "batch_size": lambda draw, dataset: (4, 8, 6),
    "per_device_train_batch_size": lambda draw, dataset: (1, 4, 8),
    "dimensions": lambda draw, dataset: (8, 64),
    "head": lambda draw, dataset: ("auto", "published", "new"),
    "adapter_type": lambda draw, dataset: ("lora", "dora", "ia3"),
    "r": lambda draw, dataset: (1, 4, 500),
    "alpha": lambda draw, dataset: (0.0, 0.5, 1.0),
    "features": lambda draw, dataset: (0.0, 1.0),
    "max_steps": lambda draw, dataset: (1, 2),
    "judged": lambda draw, dataset: (0, 2),
    "beta": lambda draw, dataset: (0.0, 0.1),
    "unlabelled": lambda draw, dataset: (True, False),
    "keep": lambda draw, dataset: ("best", "last"),
    "mem_size": lambda draw, dataset: (0, 5, 500),
    "share": lambda draw, dataset: (0.0, 0.5),
    "sampled": lambda draw, dataset: (5,),
    "shrinkage": lambda draw, dataset: (0.1,),
    "rejected": lambda draw, dataset: ("rejected", "same", "nope", "chosen"),
    "num_generations": lambda draw, dataset: (2, 3),
    "max_length": lambda draw, dataset: (4, 64),
    "max_completion_length": lambda draw, dataset: (4, 16, 4096),
    "kl_limit": lambda draw, dataset: (0.1,),
    "rewards": lambda draw, dataset: ([{"kind": "exact_match"}], [{"kind": "length"}], [{"kind": "nope"}]),
    "loss_type": lambda draw, dataset: ("sigmoid", "ipo", "robust", "dapo"),
    "num_hidden_layers": lambda draw, dataset: (1, 9),
    "refit": lambda draw, dataset: (True, False),
}  # fmt: skip


def curate_dataset(draw: Draw) -> Call:
    dataset = f"{draw.of(*DATASETS)}@v1"
    steps = [draw.of(*STEPS)(draw, dataset) for _ in range(draw.of(1, 1, 1, 2))]
    return Call("curate_dataset", {"dataset": dataset, "steps": [_given(**step) for step in steps]})


_EXTRACTORS = ("descriptor", "pkg:minilm", *MODELS, "nope")
STEPS: tuple[Any, ...] = (
    lambda draw, dataset: {"op": "filter", "where": draw.of(
        "label = 'good'", "split = 'train'", "length(text) > 3", "rooms > 2", "nope = 1", "true", "false", "id",
        "label > 1", "1 + ", "CAST(label AS INTEGER) > 1")},
    lambda draw, dataset: {"op": "derive", "column": draw.of("new", draw.column(dataset)), "sql": draw.of(
        "1", "length(label)", "upper(text)", "count(*)", "sum(1) OVER ()", "CAST(label AS INTEGER)", "nope",
        "random()", "rooms * 2")},
    lambda draw, dataset: {"op": "deduplicate", "by": draw.of("content", "perceptual", "embedding"),
                               "threshold": draw.maybe(0.3, 0.5, 0.99), "extractor": draw.maybe(0.4, *_EXTRACTORS),
                               "part": draw.maybe(0.4 if "rounds" in dataset else 0.05, *PARTS)},
    lambda draw, dataset: {"op": "drop_outliers", "cut": draw.maybe(0.3, 1.0, 100.0), "share": draw.maybe(0.3, 0.1),
                               "neighbours": draw.maybe(0.3, 1, 999), "extractor": draw.maybe(0.4, *_EXTRACTORS),
                               "part": draw.maybe(0.4 if "rounds" in dataset else 0.05, *PARTS),
                               "splits": draw.maybe(0.2, ["train"], ["nope"])},
    lambda draw, dataset: {"op": "find_label_errors", "action": draw.maybe(0.5, "flag", "drop"),
                               "extractor": draw.maybe(0.4, *_EXTRACTORS),
                               "splits": draw.maybe(0.2, ["train"], ["nope"])},
    lambda draw, dataset: {"op": "sample", "n": draw.of(1, 5, 30, 10_000),
                               "strategy": draw.maybe(0.7, "random", "stratified", "diverse", "uncertain"),
                               "model": draw.maybe(0.4, *MODELS), "extractor": draw.maybe(0.2, *_EXTRACTORS)},
    lambda draw, dataset: {"op": "balance", "column": draw.maybe(0.5, draw.column(dataset)),
                               "splits": draw.maybe(0.2, ["train"], ["nope"])},
    lambda draw, dataset: dict(op="window", **draw.of({"seconds": 0.1}, {"seconds": 9.0}, {"steps": 8}, {"steps": 999},
                                                       {"frames": 4}, {"keyframes": 1}),
                               stride=draw.maybe(0.3, 1.0, 4), part=draw.maybe(0.4 if "rounds" in dataset else 0.05,
                                                                               *PARTS)),
    lambda draw, dataset: {"op": "variants", "kinds": draw.maybe(0.6, ["light"], ["jitter"], ["flip", "nope"]),
                               "count": draw.maybe(0.3, 2), "splits": draw.maybe(0.2, ["train"], ["nope"])},
    lambda draw, dataset: {"op": "join", "dataset": draw.dataset(), "key": draw.column(dataset),
                               "other_key": draw.maybe(0.3, *COLUMNS), "columns": draw.maybe(0.4, [draw.of(*COLUMNS)]),
                               "label": draw.maybe(0.3, *COLUMNS)},
    lambda draw, dataset: {"op": "merge", "dataset": draw.of(draw.dataset(), "reviews@v1", "grouped@v1", "one@v1"),
                               "ungrouped": draw.maybe(0.3, "leave_out", "take")},
    lambda draw, dataset: {"op": "relabel", "mapping": {draw.of(*LABELS): draw.of("new", None, "bad")}},
    lambda draw, dataset: {"op": "split", "fractions": draw.maybe(0.4, {"train": 0.5, "test": 0.5},
                                                                {"train": 1.0}, {"train": 0.9, "test": 0.3}),
                               "group_by": draw.maybe(0.4, draw.column(dataset), "folder", "(.)", "("),
                               "stratify_by": draw.maybe(0.3, draw.column(dataset))},
    lambda draw, dataset: {"op": "answer", "model": draw.of(*MODELS, "ensemble:of-texts@v1+of-texts@v1"),
                               "column": draw.maybe(0.3, "said", draw.column(dataset)),
                               "task": draw.maybe(0.2, *TASKS), "splits": draw.maybe(0.3, ["train"], ["nope"])},
    lambda draw, dataset: {"op": "preferences", "answers": draw.of(["chosen", "rejected"], ["chosen", "same"],
                                                                 ["text", "film"], ["answer", "note"]),
                               "metric": draw.maybe(0.6, "exact_match", "chrf", "accuracy"),
                               "truth": draw.maybe(0.4, draw.column(dataset)), "better": draw.maybe(0.2, "same"),
                               "margin": draw.maybe(0.2, 5.0)},
    lambda draw, dataset: {"op": "deidentify"},
)  # fmt: skip


def evaluate_models(draw: Draw) -> Call:
    dataset = draw.dataset()
    of_it = {"reviews": MODELS[0], "grouped": MODELS[0], "tumours": MODELS[1], "prices": MODELS[2], "rounds": MODELS[3],
             "digits": MODELS[4]}.get(dataset.partition("@")[0], MODELS[0])  # fmt: skip
    named = (
        of_it,
        "constant:",
        "nearest:",
        f"column:{draw.column(dataset)}",
        draw.of(*MODELS),
        f"ensemble:{of_it}+{of_it}",
    )
    return Call("evaluate_models", _given(
        models=draw.some(3, named),
        dataset=draw.maybe(0.95, dataset, f"{dataset}:{draw.of('test', 'validation', 'train', 'nope')}"),
        suite=draw.maybe(0.1, "core", "heldout"),
        use_case=draw.maybe(0.2, "sorting", "nope"),
        metrics=draw.maybe(0.3, draw.some(2, list(METRICS))),
        scorer=draw.maybe(0.05, "code_passes", "nope", "package:nope"),
        label_maps=draw.maybe(0.05, {"of-texts@v1": {"good": "bad"}}),
        baselines=draw.maybe(0.2, [draw.of(*named)]),
        latency=False,
    ))  # fmt: skip


def export_dataset(draw: Draw) -> Call:
    dataset = draw.dataset()
    return Call("export_dataset", _given(
        dataset=draw.of(dataset, f"{dataset}:{draw.of('test', 'train', 'nope')}"), format=draw.of(*FORMATS, "nope"),
        path=str(draw.folder / f"out-{draw.seed}"), column=draw.column(dataset) if draw.chance.random() < 0.3 else None,
        identified=draw.maybe(0.1, True), partial=draw.maybe(0.1, True),
    ))  # fmt: skip


def export_model(draw: Draw) -> Call:
    return Call("export_model", _given(
        model=draw.of(*MODELS, "pkg:minilm", "nope"), path=draw.maybe(0.7, str(draw.folder / f"out-{draw.seed}")),
        format=draw.maybe(0.7, "safetensors", "onnx", "openvino"), quantize=draw.maybe(0.2, "int8", "none"),
    ))  # fmt: skip


def merge_models(draw: Draw) -> Call:
    return Call("merge_models", _given(
        name=f"drawn-{draw.seed}", models=draw.of([draw.of(*MODELS)], [draw.of(*MODELS), draw.of(*MODELS)]),
        method=draw.of("soup", "greedy", "slerp", "ties", "dare"), weights=draw.maybe(0.3, [0.5, 0.5], [1.0]),
        dataset=draw.maybe(0.3, draw.dataset()), hyperparameters=draw.maybe(0.3, {"density": 0.5}, {"nope": 1}),
    ))  # fmt: skip


def predict(draw: Draw) -> Call:
    place = str(draw.folder / f"answers-{draw.seed}.{draw.of('jsonl', 'csv', 'parquet', 'txt')}")
    source = draw.maybe(0.3, *(str(draw.folder / name) for name in ("tumours.csv", "digits", "moves", "nowhere")))
    dataset = None if source else draw.of(draw.dataset(), f"{draw.dataset()}:{draw.of('test', 'nope')}")
    return Call("predict", _given(
        model=draw.of(*MODELS), dataset=dataset, source=source, path=draw.maybe(0.7, place),
        save_as=draw.maybe(0.3, f"answers-{draw.seed}", "reviews"),
    ))  # fmt: skip


def create_dataset(draw: Draw) -> Call:
    source = draw.of(
        "tumours.csv", "digits", "peptides.fasta", "moves", "rounds", "rounds/rows", "nowhere", "rounds/labels.csv"
    )
    return Call("create_dataset", _given(
        name=f"drawn-{draw.seed}", source=str(draw.folder / source),
        modality=draw.maybe(0.4, "auto", "text", "image", "tabular", "multimodal", "time-series", "protein", "nope"),
        label=draw.maybe(0.5, *COLUMNS, "folder", "diagnosis", "kind"),
        inputs=draw.maybe(0.2, [draw.of(*COLUMNS)], ["mean_radius"], ["scan"]),
        group_by=draw.maybe(0.2, *COLUMNS, "folder", "(", "(.)"),
        fractions=draw.maybe(0.2, {"train": 0.5, "test": 0.5}, {"train": 2.0}, {"test": 1.0}),
        reader=draw.maybe(0.1, "csv", "json", "nope"),
        labels=draw.maybe(0.1, {"path": str(draw.folder / "rounds/labels.csv"), "key": draw.of("name", "nope"),
                                "column": draw.of("urgency", "nope")}),
    ))  # fmt: skip


def add_examples(draw: Draw) -> Call:
    source = draw.of("tumours.csv", "digits", "peptides.fasta", "moves", "rounds/rows", "nowhere", "rounds/labels.csv")
    rows = draw.maybe(0.4, [{"text": "fresh words", "label": "good"}], [{"text": "other", "label": "nope"}],
                      [{"rooms": 2, "town": "Oslo", "price": 120.0}], [{"rooms": "x", "town": 1, "price": "dear"}],
                      [{"nope": 1}], [{"text": "no label"}])  # fmt: skip
    return Call("add_examples", _given(
        dataset=draw.dataset(), source=None if rows else str(draw.folder / source), rows=rows,
    ))  # fmt: skip


def promote_model(draw: Draw) -> Call:
    return Call("promote_model", _given(
        use_case=draw.of("sorting", "sorting", "nope"), model=draw.of("of-texts@v1", "of-texts@v1", *MODELS, "nope"),
        expected_current=draw.maybe(0.2, "nothing", "of-rows@v1"), canary_percent=draw.maybe(0.2, 10.0),
        propose=draw.maybe(0.2, True),
    ))  # fmt: skip


def register_model(draw: Draw) -> Call:
    source = draw.of("writer", "writer", "empty", "nowhere", "digits")
    return Call("register_model", _given(
        name=f"drawn-{draw.seed}", source=draw.of(f"path:{draw.folder / source}", "timm:nope"),
        task=draw.maybe(0.5, "text-generation", *TASKS), labels=draw.maybe(0.1, {"a": "b"}),
        prompts=draw.maybe(0.1, ["summarize: {input}"], ["{nope}"]),
    ))  # fmt: skip


def specialize(draw: Draw) -> Call:
    return Call("specialize", _given(
        use_case=draw.of("sorting", "sorting", "nope"), dataset=draw.dataset(), budget_minutes=0.5,
        methods=draw.maybe(0.4, draw.some(2, get_args(Method))), base_models=draw.maybe(0.3, [draw.of(*BASES)]),
        order=draw.maybe(0.1, ["bad", "good"]), like=draw.maybe(0.1, *MODELS),
    ))  # fmt: skip


def plan_training(draw: Draw) -> Call:
    dataset = draw.dataset()
    return Call("plan_training", _given(
        dataset=dataset, task=draw.maybe(0.4, *_tasks_of(dataset)), method=draw.maybe(0.3, *get_args(Method)),
        base_model=draw.maybe(0.2, *_bases_of(dataset), *BASES),
    ))  # fmt: skip


DRAWS: tuple[tuple[Any, int], ...] = (
    (train_model, 10), (curate_dataset, 10), (evaluate_models, 6), (export_dataset, 3), (export_model, 2),
    (merge_models, 1), (predict, 3), (create_dataset, 3), (add_examples, 2), (specialize, 1), (plan_training, 2),
    (promote_model, 1), (register_model, 1),
)  # fmt: skip


def drawn(seed: int, folder: Path) -> Call:
    draw = Draw(seed, folder)
    (make,) = draw.chance.choices([each for each, _ in DRAWS], [weight for _, weight in DRAWS])
    call: Call = make(draw)
    return call


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


# What becomes of a call


class _NothingAhead(LocalExecutor):
    """Runs are made in this process, so none is prepared for in another."""

    def prepare(self, preload: str) -> None:
        pass


@contextlib.contextmanager
def opened(root: Path) -> Iterator[App]:
    workspace = Workspace(root / "workspace", settings=Settings(policy="auto"))
    engine = Engine(workspace, executor=_NothingAhead(workspace.folders.root))
    pool = Pool(workspace.folders, workspace.settings, size=1)
    yield App(workspace, engine, pool, IN_PROCESS._replace(folder=root))
    pool.close()
    engine.stop()
    workspace.close()


def outcome(app: App, call: Call) -> Outcome:
    """`lied`: a dry run said that the call is valid, and it was refused, or its job failed for what was known."""
    if call.tool == "plan_training":
        return _planned(app, call)
    try:
        dry = called(app, call, dry_run=True)
    except (SpeciateError, ValidationError) as error:
        return Outcome("refused", str(error))
    except Exception as error:  # noqa: BLE001 - whatever else it is, it teaches nobody the next call
        return Outcome("lied", f"the dry run raised {error!r}")
    assert isinstance(dry, DryRun)
    if not dry.valid:
        return Outcome("not_valid")
    return _started(app, call, dry)


def _planned(app: App, call: Call) -> Outcome:
    """Each training that a plan offers is accepted."""
    try:
        plan = called(app, call)
    except (SpeciateError, ValidationError) as error:
        return Outcome("refused", str(error))
    except Exception as error:  # noqa: BLE001 - as above
        return Outcome("lied", f"the plan raised {error!r}")
    task = {name: value for name, value in call.arguments.items() if name == "task"}
    for each in plan.candidates:
        offered = each.model_dump(include={"method", "base_model", "continue_from"}, exclude_none=True)
        training_call = Call("train_model", {"name": "offered", "dataset": plan.dataset, **offered, **task})
        try:
            called(app, training_call, dry_run=True)
        except SpeciateError as error:
            return Outcome("lied", f"it offered {offered}: {error}")
    return Outcome("ended")


def _started(app: App, call: Call, dry: DryRun) -> Outcome:
    try:
        started = called(app, call)
    except SpeciateError as error:
        return Outcome("lied", f"the call was refused: {error}")
    if not isinstance(started, JobStarted):
        return Outcome("ended")
    job = app.engine.get(started.job)
    app.engine.control(job.id, "cancel")  # it runs in this process, below
    kind = app.engine.kinds[job.kind]
    if not kind.run:
        return Outcome("started")
    folder = RunFolder(app.workspace.folders.runs / f"{job.id}.1")
    plan = kind.plan(kind.spec(**job.spec), app.workspace)
    told = {"job": job.id, "workspace": str(app.workspace.folders.root), "resources": plan.resources.model_dump()}
    folder.create({"payload": plan.payload_json(), **told})
    module, _, function = kind.run.partition(":")
    try:
        result = getattr(importlib.import_module(module), function)(Run(folder))
        (folder.outputs / "result.json").write_text(json.dumps(result))
        kind.collect(folder)
    except SpeciateError as error:
        if error.code in KNOWN_BEFORE and not _said_before(str(error), dry):
            return Outcome("lied", f"the job failed: {error} {error.foreign or ''} {dry.not_checked}")
        return Outcome("started", str(error))
    except Stopped:
        return Outcome("started", "stopped")
    except Exception as error:  # noqa: BLE001 - a job that breaks was accepted too early as well
        return Outcome("lied", f"the job raised {error!r}")
    return Outcome("ended", str(dry.resolved))


def _said_before(why: str, dry: DryRun) -> bool:
    """Whether the dry run named what it had not checked. Of a step of curation: that very step."""
    step = why.partition(")")[0] if why.startswith("Step ") else ""
    return any(told.startswith(step) for told in dry.not_checked or ())


def called(app: App, call: Call, **more: Any) -> Any:
    declared = TOOLS[call.tool].__tool__
    read: BaseModel = declared.arguments.model_validate(call.arguments | more)
    return TOOLS[call.tool](app, **{name: getattr(read, name) for name in read.model_fields_set})


def main(seeds: Sequence[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(os.environ.get("DRAWN_WORLD") or folder)
        if not (root / "workspace").is_dir():
            make_world(root)
        with opened(root) as app:
            for seed in seeds:
                call = drawn(seed, root)
                found = outcome(app, call)
                print(seed, found.state, call if found.state == "lied" else call.tool, found.why[:600], flush=True)


if __name__ == "__main__":
    first, _, last = sys.argv[1].partition("-")
    main(range(int(first), int(last or first) + 1))
