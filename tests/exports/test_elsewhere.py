"""What an exported model answers where this package is not installed, by the program of its own card as it stands."""

from __future__ import annotations

import errno
import importlib.util
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import ImageOps

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.exports import export_model, model_program, snippets
from speciate.exports.card_check import compare, program_of, run_card
from speciate.exports.export_model import ExportModelSpec
from speciate.exports.standalone import media, word_counts
from speciate.exports.transformers_heads import with_head
from speciate.jobs.folder import RunFolder
from speciate.jobs.run import Run
from speciate.modalities.image import IMAGE
from speciate.models import registry, sealed
from speciate.models.backbones import architectures
from speciate.models.model_card import ModelCard
from speciate.tasks import network_predictor, predictor
from speciate.tasks.families.classification import Classification
from speciate.tasks.families.detection import Detection
from speciate.tasks.families.forecasting import Forecasting
from speciate.tasks.families.multi_label import MultiLabel
from speciate.tasks.families.ordinal import Ordinal
from speciate.tasks.families.regression import Regression
from speciate.tasks.families.retrieval import Retrieval
from speciate.tasks.families.segmentation import Segmentation
from speciate.tasks.families.tokens import Tokens
from speciate.tasks.families.transcription import Transcription
from speciate.tasks.network_predictor import NetworkPredictor
from speciate.tasks.representations import Documents
from speciate.tasks.term_counts import NGrams
from speciate.workspace.workspace import Workspace
from tests.training.world import make_dataset, thirds, train_now

pytest.importorskip("torch")
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="pip install 'speciate[exports]'",
)
N = 50
LABELS = ("__import__('os')", "no", 'yes: "quoted" `x`', "übrig")
_WORDS = [
    *("a", "fine", "film", "that", "nobody", "saw", "in", "the", "harbour", "although"),
    *("it", "rained", ",", "warm", "and", "Übermut", "zyzzyva", "12", "!"),
]


class Made(NamedTuple):
    task: str
    modality: str
    architecture: str
    head: Any
    media: Callable[[np.random.Generator], Any]
    form: str
    """Of the exported folder."""


def text(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(_WORDS, rng.integers(1, 30)))


def image(rng: np.random.Generator) -> Any:
    coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
    return np.kron(coarse, np.ones((rng.integers(6, 12), rng.integers(6, 12), 1), np.uint8))


def sound(rng: np.random.Generator) -> Any:
    steps = np.arange(rng.integers(6000, 16000))
    return (np.sin(steps * rng.uniform(0.02, 0.6)) + 0.1 * rng.normal(size=len(steps))).astype(np.float32)


def series(rng: np.random.Generator) -> Any:
    return (rng.normal(size=(2, 48)).cumsum(1)).astype(np.float32)


def protein(rng: np.random.Generator) -> str:
    return "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWYB"), rng.integers(5, 60)))


def row(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "size": float(rng.normal()),
        "colour": str(rng.choice(["red", "blue"])),
        '`odd` "name"': float(rng.normal()),
    }


THRESHOLDS = (0.5, 0.4, 0.6, 0.3)
NETWORKS = {
    "text": Made(
        "text-classification", "text", "new:bert", Classification(labels=LABELS, temperature=1.7), text, "transformers"
    ),
    "image": Made(
        "image-classification",
        "image",
        "new:vit",
        Classification(labels=LABELS, temperature=0.6),
        image,
        "transformers",
    ),
    "image, by convolutions": Made(
        "image-classification", "image", "new:resnet", Classification(labels=LABELS), image, "transformers"
    ),
    "text, several labels": Made(
        "text-multi-label", "text", "new:bert", MultiLabel(labels=LABELS, thresholds=THRESHOLDS), text, "transformers"
    ),
    "text, a number": Made(
        "text-regression", "text", "new:bert", Regression(mean=50.0, spread=12.0), text, "transformers"
    ),
    "text, ranks": Made("text-ordinal", "text", "new:bert", Ordinal(labels=LABELS), text, "sealed"),
    "words": Made(
        "token-classification",
        "text",
        "new:bert",
        Tokens(labels=LABELS, commonest="no", temperature=2.0),
        text,
        "transformers",
    ),
    "residues": Made(
        "residue-classification",
        "protein",
        "new:esm",
        Tokens(labels=LABELS, modality="protein", commonest="no"),
        protein,
        "sealed",
    ),
    "protein": Made("protein-classification", "protein", "new:esm", Classification(labels=LABELS), protein, "sealed"),
    "image, several labels": Made(
        "image-multi-label", "image", "new:vit", MultiLabel(labels=LABELS, thresholds=THRESHOLDS), image, "transformers"
    ),
    "image, a number": Made("image-regression", "image", "new:vit", Regression(mean=5.0, spread=2.0), image, "sealed"),
    "boxes": Made("object-detection", "image", "new:vit", Detection(labels=LABELS), image, "sealed"),
    "masks": Made("image-segmentation", "image", "new:vit", Segmentation(labels=LABELS, side=48), image, "sealed"),
    "retrieval": Made("image-retrieval", "image", "new:vit", Retrieval(known=LABELS), image, "sealed"),
    "sound": Made(
        "audio-classification", "audio", "new:wav2vec2", Classification(labels=LABELS), sound, "transformers"
    ),
    "sound, by its spectrum": Made(
        "audio-classification", "audio", "new:conformer", Classification(labels=LABELS), sound, "sealed"
    ),
    "speech": Made(
        "speech-recognition", "audio", "new:wav2vec2", Transcription(characters=" 'abcdefgh"), sound, "transformers"
    ),
    "speech, by its spectrum": Made(
        "speech-recognition", "audio", "new:conformer", Transcription(characters=" abc"), sound, "sealed"
    ),
    "series": Made(
        "time-series-classification",
        "time-series",
        "new:inceptiontime",
        Classification(labels=LABELS),
        series,
        "sealed",
    ),
    "forecast": Made(
        "forecasting", "time-series", "new:patchtst", Forecasting(channels=2, horizon=6), series, "sealed"
    ),
    "table": Made("tabular-classification", "tabular", "new:tab-resnet", Classification(labels=LABELS), row, "sealed"),
}


def media_of(make: Callable[[np.random.Generator], Any], count: int = N, seed: int = 3) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [make(rng) for _ in range(count)]


def as_examples(media: Sequence[Any]) -> list[Example]:
    return [Example(str(place), each, None, str(place), "", {}) for place, each in enumerate(media)]


def registered(workspace: Workspace, tmp_path: Path, made: Made) -> None:
    """A network with random weights, its head made steep so that its answers differ. Convolutions get the norms of a
    few batches, as training gives them: without those all images lie in one direction, and have one answer."""
    import torch

    torch.manual_seed(1)
    learned = media_of(made.media, 40, 1)
    backbone = architectures.build(made.architecture, learned, 0)
    head = made.head.head(backbone.width)
    with torch.no_grad():
        for each in head.parameters():
            each.mul_(12.0 if each.ndim == 2 else 1.0)
        if made.architecture == "new:resnet":
            batch = backbone.collate(backbone.prepare(learned))
            backbone.module.train()
            for _ in range(20):
                backbone.states(batch)
            backbone.module.eval()
    own = NetworkPredictor(made.task, made.head, backbone, head)
    identity = own.save(tmp_path / "made")
    inputs = ("size", "colour", '`odd` "name"') if made.modality == "tabular" else ()
    card = ModelCard(
        name="own", id=identity, task=made.task, modality=made.modality, method="full", labels=made.head.labels,
        license="Apache-2.0", base_model=made.architecture, inputs=inputs,
    )  # fmt: skip
    workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, tmp_path / "made"))


def exported(workspace: Workspace, path: Path, model: str = "own", **more: Any) -> dict[str, Any]:
    folder = RunFolder(workspace.folders.runs / f"job-{path.name}.1")
    payload = export_model.plan(ExportModelSpec(model=model, path=path, **more), workspace).payload_json()
    folder.create({"payload": payload, "job": "job-e", "workspace": str(workspace.folders.root)})
    return dict(export_model.run(Run(folder)))


def agree(workspace: Workspace, folder: Path, media: Sequence[Any], *, images: bool, model: str = "own") -> None:
    """The card's program, run elsewhere, answers as the version in the registry does."""
    version = registry.resolve(workspace.database, workspace.folders, model)
    ours = predictor.load(version.path).predict(as_examples(media))
    told = run_card(folder, media, images=images)
    found = compare(told, ours)
    assert found.ties <= 1
    assert found.n == len(media)
    answers = [str(each.output) for each in ours]
    assert len(set(answers)) > 1, "a model that always answers the same shows nothing"


def as_it_stands(folder: Path) -> str:
    """What the card's program prints, with the example that it shows."""
    program = [sys.executable, "-W", "ignore", "-c", program_of(folder)]
    ran = subprocess.run(program, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert not ran.returncode, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("alone", [False, True])
def test_the_example_of_a_card_is_answered(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, alone: bool
) -> None:
    """A table's, by model.py and, where there is none, by speciate."""
    rows = {"size": [float(i % 7) for i in range(60)], "colour": ["red" if i % 7 > 3 else "blue" for i in range(60)]}
    labels = ["high" if i % 7 > 3 else "low" for i in range(60)]
    make_dataset(workspace, "rows", "tabular", rows, labels=labels, splits=thirds(60), inputs=list(rows))
    train_now(workspace, name="own", dataset="rows", method="classical", hyperparameters={"candidates": ["logistic"]})
    if not alone:
        monkeypatch.setattr(model_program, "has_program", lambda folder: False)
    result = exported(workspace, tmp_path / "out")
    assert result["report"]["form"] == "sealed"
    assert ("import speciate" in program_of(tmp_path / "out")) != alone
    assert as_it_stands(tmp_path / "out") in ("['high']\n", "['low']\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_answers_elsewhere_as_it_does_here(workspace: Workspace, tmp_path: Path, name: str) -> None:
    made = NETWORKS[name]
    registered(workspace, tmp_path, made)
    result = exported(workspace, tmp_path / "out")
    assert result["report"]["form"] == made.form, result["report"]["notes"]
    agree(workspace, tmp_path / "out", media_of(made.media), images=made.form == "transformers")
    readme = (tmp_path / "out" / "README.md").read_text()
    assert ("pipeline_tag:" in readme) == (made.form == "transformers")
    assert ("library_name: transformers" in readme) == (made.form == "transformers")


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["text", "image", "text, several labels", "text, a number", "words", "image, several labels"]
)
def test_one_graph_answers_as_the_model_does(workspace: Workspace, tmp_path: Path, name: str) -> None:
    import onnx

    made = NETWORKS[name]
    registered(workspace, tmp_path, made)
    result = exported(workspace, tmp_path / "out", format="onnx")
    assert result["report"]["form"] == "onnx"
    agree(workspace, tmp_path / "out", media_of(made.media), images=True)
    graph = onnx.load(tmp_path / "out" / "model.onnx").graph
    about = json.loads((tmp_path / "out" / "preprocessing.json").read_text())
    assert {each.name for each in graph.input} == set(about["inputs"])
    for each in graph.input:
        sides = [side.dim_param or side.dim_value for side in each.type.tensor_type.shape.dim]
        assert sides == about["inputs"][each.name]["shape"]
    (output,) = graph.output
    assert output.name in about["outputs"]
    assert output.type.tensor_type.shape.dim[0].dim_param == "batch"


@needs_onnx
def test_what_one_graph_cannot_answer_is_refused_before_there_is_a_job(workspace: Workspace, tmp_path: Path) -> None:
    registered(workspace, tmp_path, NETWORKS["table"])
    with pytest.raises(SpeciateError, match="cannot leave as one ONNX graph") as caught:
        export_model.plan(ExportModelSpec(model="own", path=tmp_path / "out", format="onnx"), workspace)
    assert caught.value.next[0].tool == "export_model"


def test_a_classical_model_answers_elsewhere_as_it_does_here_and_foreign_text_stays_text(
    workspace: Workspace, tmp_path: Path
) -> None:
    foreign = "<b>good</b> ```python import os``` [x](http://x) | \u202e"
    texts = [f"{'a fine film' if i % 4 < 2 else 'an awful bore, over & over'} {i % 9} Übermut" for i in range(120)]
    labels = [foreign if i % 4 < 2 else "bad" for i in range(120)]
    make_dataset(workspace, "films", "text", {"text": texts}, labels=labels, splits=thirds(120), inputs=["text"])
    train_now(workspace, name="own", dataset="films", method="classical", hyperparameters={"candidates": ["logistic"]})
    result = exported(workspace, tmp_path / "out")
    assert result["report"]["checked_on"] == 16
    assert not [name for name in result["report"]["files"] if "pycache" in name]
    agree(workspace, tmp_path / "out", [*texts[:49], "nothing of what was counted: zzz"], images=False)
    assert re.match(r"\['(<b>good|bad).*'\]$", as_it_stands(tmp_path / "out")), "the card's own example is answered"
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "pipeline_tag" not in readme and "library_name" not in readme  # noqa: PT018 - one claim
    assert "<b>" not in readme and "](http" not in readme and "\u202e" not in readme  # noqa: PT018
    assert readme.count("```") == 2, "one block, which is the program"
    code = "".join(path.read_text() for path in (tmp_path / "out").rglob("*.py"))
    assert "good" not in code, "labels are read as data"
    assert not re.search(r"^(import|from) (sklearn|scipy|torch|pydantic)", code, re.MULTILINE)


@pytest.mark.parametrize(
    ("task", "validated"),
    [
        ("protein-classification", True), ("protein-regression", False),
        *(
            pytest.param(*more, marks=pytest.mark.slow(reason="each task and each way of judging is in the two before"))
            for more in (("protein-classification", False), ("protein-regression", True))
        ),
    ],
)  # fmt: skip
def test_a_mean_of_several_candidates_is_kept_where_it_is_best_and_answers_elsewhere(
    workspace: Workspace, tmp_path: Path, task: str, *, validated: bool
) -> None:
    seed = 2 if task == "protein-classification" and not validated else 1
    generator, count = np.random.default_rng(seed), 270 if validated else 180
    letters = ("KRKRWLFIGAACDEFGHIKLMNPQRSTVWY", "DESTNQGAVPACDEFGHIKLMNPQRSTVWY")
    kinds = [place // 4 % 2 for place in range(count)]
    proteins = ["".join(generator.choice(list(letters[kind]), int(generator.integers(8, 16)))) for kind in kinds]
    charge = [abs(sum(map(s.count, "KR")) - 3 - s.count("W")) + float(generator.normal()) for s in proteins]
    splits = thirds(count) if validated else thirds(count, ("train", "test"))
    make_dataset(
        workspace, "data", "protein", {"sequence": proteins, "charge": charge}, splits=splits, inputs=["sequence"],
        labels=[LABELS[0] if kind and generator.random() > 0.1 else LABELS[3] for kind in kinds],
    )  # fmt: skip
    target = {"target": "charge"} if task == "protein-regression" else {}
    given = {} if validated else {"folds": 2}
    report = train_now(
        workspace, name="model", dataset="data", method="classical", task=task, hyperparameters=given, **target
    )["report"]  # fmt: skip
    mean = next(each for each in report["candidates"] if each["name"].startswith("mean of"))
    singles = [each["value"] for each in report["candidates"] if each is not mean]
    assert mean["chosen"]
    assert mean["value"] < min(singles) if target else mean["value"] >= max(singles)
    exported(workspace, tmp_path / "out", "model")
    agree(workspace, tmp_path / "out", proteins[:30], images=False, model="model")


@pytest.mark.slow
def test_a_table_that_perceptrons_answer_is_answered_elsewhere_without_torch(
    workspace: Workspace, tmp_path: Path
) -> None:
    numbers, count = np.random.default_rng(3).uniform(-1, 1, (240, 2)), 240
    columns = {"left": numbers[:, 0].tolist(), "right": numbers[:, 1].tolist()}
    labels = [LABELS[0] if left * right > 0 else LABELS[3] for left, right in numbers]
    make_dataset(workspace, "data", "tabular", columns, labels=labels, splits=thirds(count), inputs=["left", "right"])
    how = {"candidates": ["logistic"], "tabm": True}
    report = train_now(workspace, name="model", dataset="data", method="classical", hyperparameters=how)["report"]
    assert [each["name"] for each in report["candidates"] if each["chosen"]] == ["scaled columns: tabm"]
    exported(workspace, tmp_path / "out", "model")
    rows = [{"left": float(left), "right": float(right)} for left, right in numbers[:30]]
    agree(workspace, tmp_path / "out", rows, images=False, model="model")
    code = "".join(path.read_text() for path in (tmp_path / "out").rglob("*.py"))
    assert not re.search(r"^(import|from) torch", code, re.MULTILINE)


def test_series_as_random_convolutions_answer_elsewhere(workspace: Workspace, tmp_path: Path) -> None:
    generator, count = np.random.default_rng(5), 90
    place = np.arange(48)
    waves = [
        np.stack([np.sin(place / (3 + kind)), np.cos(place / 5)]) + generator.normal(size=(2, 48)) * 0.8
        for kind in (number // 3 % 2 for number in range(count))
    ]
    make_dataset(
        workspace, "data", "time-series", {"left": [one[0] for one in waves], "right": [one[1] for one in waves]},
        labels=[LABELS[number // 3 % 2] for number in range(count)], splits=thirds(count), inputs=["left", "right"],
    )  # fmt: skip
    report = train_now(
        workspace, name="model", dataset="data", method="classical", hyperparameters={"candidates": ["ridge"]}
    )["report"]
    (chosen,) = [each["name"] for each in report["candidates"] if each["chosen"]]
    assert chosen in ("convolutions: ridge", "competing convolutions: ridge", "convolutions of both: ridge")
    exported(workspace, tmp_path / "out", "model")
    agree(workspace, tmp_path / "out", [one.astype(np.float32) for one in waves[:30]], images=False, model="model")


@pytest.mark.parametrize("unit", [("word", 1, 2), ("char_wb", 2, 5), ("char", 1, 3)])
def test_words_are_counted_as_scikit_learn_counts_them(unit: tuple[str, int, int]) -> None:
    counting = NGrams(*unit)  # type: ignore[arg-type]  # of the parameters above
    texts = [
        "It's a FINE film, a fine film!", "ab", "x", "Übermut  tut\tselten gut", "naïve İstanbul ſ", "", "1 22 333",
        "two\nlines  and a_b", "   ",
    ]  # fmt: skip
    learned = Documents.fit(as_examples(texts), "text", counting)
    settings, arrays = learned.settings(), learned.arrays()
    plain = word_counts.Documents.rebuild(settings, arrays)
    asked = as_examples([*texts, "a fine new word ab"])
    np.testing.assert_allclose(plain.encode(asked), learned.encode(asked).toarray(), atol=1e-12)


IMAGES_CARD = ModelCard(name="own", id="", task="image-classification", modality="image", method="full", labels=LABELS)


def odd_images() -> dict[str, bytes]:
    """Files whose pixels are not what Pillow opens: turned by a camera, transparent, with a palette, deep."""
    from PIL import Image

    base = Image.fromarray(media_of(image, 1)[0]).resize((40, 24))
    deep = Image.fromarray(np.arange(960, dtype=np.uint16).reshape(24, 40) * 60)
    real = np.where(np.arange(960) == 7, np.nan, np.linspace(-3, 8, 960)).astype(np.float32).reshape(24, 40)
    turned, clear = Image.Exif(), base.convert("RGBA")
    turned[0x0112] = 6
    clear.putalpha(base.convert("L"))
    saved: dict[str, tuple[Any, str, dict[str, Any]]] = {
        "turned": (base, "JPEG", {"exif": turned}),
        "clear": (clear, "PNG", {}),
        "gray and clear": (clear.convert("LA"), "PNG", {}),
        "palette": (base.quantize(8), "PNG", {"transparency": 3}),
        "CMYK": (base.convert("CMYK"), "JPEG", {}),
        "deep": (deep, "PNG", {}),
        "deep, big-endian": (Image.frombytes("I;16B", (40, 24), np.asarray(deep).astype(">u2").tobytes()), "TIFF", {}),
        "deep and turned": (deep, "TIFF", {"exif": turned}),
        "numbers": (Image.fromarray(real), "TIFF", {}),
        "whole numbers": (Image.fromarray(np.asarray(deep).astype(np.int32) - 900), "TIFF", {}),
    }
    found = {}
    for name, (made, form, more) in saved.items():
        made.save(file := io.BytesIO(), form, **more)
        found[name] = file.getvalue()
    return found


@pytest.mark.parametrize("name", odd_images())
def test_an_image_of_pillow_is_read_elsewhere_as_its_file_is_here(name: str) -> None:
    from PIL import Image

    data = odd_images()[name]
    ours = IMAGE.decode(data)
    opened = Image.open(io.BytesIO(data))
    (example,) = media.as_examples([opened], "image")
    assert np.array_equal(example.media, ours)
    assert opened.size == Image.open(io.BytesIO(data)).size, "what the caller holds stays as it is"
    for program in (
        snippets.of_onnx("image", "classification"),
        snippets.of_pipeline("image-classification", "", IMAGES_CARD),
    ):
        lines = re.search(r"^def flat.*?\n\n", program, re.MULTILINE | re.DOTALL)
        assert lines is not None
        names: dict[str, Any] = {"Image": Image, "ImageOps": ImageOps, "np": np}
        exec(lines[0], names)
        assert np.array_equal(np.asarray(names["flat"](opened)), ours)


def test_a_name_is_no_image() -> None:
    with pytest.raises(TypeError, match=r"pathlib\.Path"):
        media.as_examples(["a.png"], "image")


@pytest.mark.parametrize("name", ["text", "image", "words", "text, several labels"])
def test_a_head_of_transformers_gives_our_numbers(name: str) -> None:
    import torch

    made = NETWORKS[name]
    torch.manual_seed(1)
    media = media_of(made.media, 12)
    backbone = architectures.build(made.architecture, media, 0)
    head = made.head.head(backbone.width)
    own = NetworkPredictor(made.task, made.head, backbone, head)
    items = backbone.prepare(media)
    batch = backbone.collate(items)
    ours = network_predictor.scores(backbone, head, made.head, items)
    found = with_head(own)
    assert found is not None
    given = {"pixel_values": batch["pixels"]} if made.modality == "image" else {
        "input_ids": batch["ids"], "attention_mask": batch["attended"].long(),
    }  # fmt: skip
    with torch.no_grad():
        logits = found.module(**given).logits.numpy() * getattr(made.head, "temperature", 1.0)
    if name == "words":
        logits = [row[there] for row, there in zip(logits, batch["counted"].numpy(), strict=True)]
    for theirs, wanted in zip(logits, ours, strict=True):
        np.testing.assert_allclose(theirs, wanted, atol=2e-5)


@pytest.mark.parametrize(
    ("terms", "clause"),
    [("CC-BY-NC-ND-4.0", r"section 2\(a\)\(1\)\(B\)"), ("LicenseRef-proprietary", "grant no right")],
)
def test_what_a_licence_forbids_to_give_away_stays(
    workspace: Workspace, tmp_path: Path, terms: str, clause: str
) -> None:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    base = ModelCard(name="base", id=sealed.seal(folder), method="published", license=terms)
    workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, base, folder))
    own = tmp_path / "own"
    own.mkdir()
    (own / "config.json").write_text("[]")
    card = ModelCard(name="own", id=sealed.seal(own), method="full", base_model="base@v1")
    workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, own))
    with pytest.raises(SpeciateError, match=clause) as caught:
        export_model.plan(ExportModelSpec(model="own", path=tmp_path / "out"), workspace)
    assert caught.value.code is Code.REFUSED
    assert "base@v1" in caught.value.message


def test_an_export_that_would_answer_otherwise_is_not_written(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{'a fine film' if i % 4 < 2 else 'an awful bore'} {i}" for i in range(40)]
    labels = ["good" if i % 4 < 2 else "bad" for i in range(40)]
    make_dataset(workspace, "films", "text", {"text": texts}, labels=labels, splits=thirds(40), inputs=["text"])
    train_now(workspace, name="own", dataset="films", method="classical", hyperparameters={"candidates": ["logistic"]})
    wrong = snippets.of_program(ModelCard(name="x", method="full", modality="text"), None) + "\nanswers[0] = 'another'"
    monkeypatch.setattr(snippets, "of_program", lambda card, channels, texts: wrong)
    with pytest.raises(SpeciateError, match="would not answer as it does here"):
        exported(workspace, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*.exporting"))


def test_a_path_below_a_file_is_refused_before_there_is_a_job(workspace: Workspace, tmp_path: Path) -> None:
    registered(workspace, tmp_path, NETWORKS["table"])
    (tmp_path / "file").touch()
    with pytest.raises(SpeciateError, match="that is no folder"):
        export_model.plan(ExportModelSpec(model="own", path=tmp_path / "file" / "out"), workspace)


def test_a_full_disk_leaves_nothing_behind(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"{'a fine film' if i % 4 < 2 else 'an awful bore'} {i}" for i in range(40)]
    labels = ["good" if i % 4 < 2 else "bad" for i in range(40)]
    make_dataset(workspace, "films", "text", {"text": texts}, labels=labels, splits=thirds(40), inputs=["text"])
    train_now(workspace, name="own", dataset="films", method="classical", hyperparameters={"candidates": ["logistic"]})

    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(model_program, "write_program", full)
    with pytest.raises(OSError, match="No space left"):
        exported(workspace, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*.exporting"))
