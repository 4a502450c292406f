"""Parts of mixed rows that frozen base models read: found, kept with the model, and worth their place."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import BertConfig

from speciate.datasets.loading.loader import load_examples
from speciate.datasets.versions import resolve
from speciate.errors import SpeciateError
from speciate.exports import model_program
from speciate.modalities.bundles import bundle
from speciate.models import model_folder, packaged, registry, sealed
from speciate.models.backbones import architectures
from speciate.models.backbones.text import learn_tokenizer
from speciate.tasks import nested_encoders, predictor
from speciate.training.cascade.candidates import choose_candidates
from speciate.training.planning.training_plan import plan_training
from speciate.workspace.workspace import Workspace
from tests.models.backbones.folders import SMALL, TEXTS, text_folder
from tests.training.world import define, make_dataset, model_path, thirds, train_now

TASK = "multimodal-classification"
NEEDS_MINILM = pytest.mark.skipif(not packaged.installed("minilm"), reason="the weights come as a package")


def plain(grey: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), grey, np.uint8)).save(out, "PNG")
    return out.getvalue()


def rows(
    workspace: Workspace, notes: Sequence[str], greys: Sequence[int | None], labels: Sequence[str],
    remarks: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """A grey of None: without a photo."""
    chance = np.random.default_rng(1)
    remarks = remarks or [" ".join(chance.choice(["sun", "rain", "wind", "snow"], 3)) for _ in notes]
    media = []
    for note, grey, remark in zip(notes, greys, remarks, strict=True):
        parts = {"note.text": note.encode(), "remark.text": remark.encode()}
        shown = {"photo.image": plain(grey)} if grey is not None else {"missing/photo.image": b""}
        media.append(bundle(parts | shown))
    parts = [f"note.text, {'photo.image, ' if grey is not None else ''}remark.text" for grey in greys]
    make_dataset(
        workspace, "rounds", "multimodal", {"parts": parts}, labels=labels, splits=thirds(len(labels)), media=media
    )


def learned(workspace: Workspace, base_model: str = "pkg:minilm", **more: Any) -> dict[str, Any]:
    report: dict[str, Any] = train_now(
        workspace, name="urgency", dataset="rounds", method="probe", base_model=base_model, task=TASK, **more
    )["report"]
    return report


def right(workspace: Workspace) -> float:
    test = load_examples(workspace.folders, resolve(workspace.database, "rounds"), ("test",))
    given = predictor.load(model_path(workspace, "urgency")).predict(test)
    return float(np.mean([one.output == example.label for one, example in zip(given, test, strict=True)]))


def best(report: dict[str, Any], said: str) -> float:
    """Of the candidates whose parts are said so; a candidate's name is `PARTS: LEARNER`."""
    found = [
        one["value"]
        for one in report["candidates"]
        if one["value"] is not None and one["name"].rpartition(":")[0].endswith(said)
    ]
    return max(found)


@pytest.fixture
def bases(tmp_path: Path) -> tuple[str, str]:
    """Networks of texts and of images, with weights that nobody trained."""
    size = learn_tokenizer(TEXTS).get_vocab_size()
    texts = text_folder(tmp_path / "texts", BertConfig(vocab_size=size, pad_token_id=0, **SMALL))
    (images := tmp_path / "images").mkdir()
    shown = [np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)]
    model_folder.save(architectures.build("new:vit", shown, 0), images)
    sealed.seal(images)
    return f"path:{texts}", f"path:{images}"


def test_base_models_of_several_parts_are_kept_with_the_model(workspace: Workspace, bases: tuple[str, str]) -> None:
    greys = [20 + 200 * (i // 4 % 2) for i in range(60)]
    rows(workspace, ["slept well"] * 60, greys, [("dark", "bright")[i // 4 % 2] for i in range(60)])
    report = learned(workspace, bases[0], hyperparameters={"encoders": [bases[1]]})
    assert report["validation"]["value"] > 0.9
    assert best(report, f"photo by {bases[1]} alone") > 0.9
    assert any("its description" in one["name"] for one in report["candidates"])

    path = model_path(workspace, "urgency")
    test = load_examples(workspace.folders, resolve(workspace.database, "rounds"), ("test",))
    made = predictor.load(path)
    assert isinstance(made, predictor.TrainedPredictor)
    inside = nested_encoders.encoders_of(made.representation)
    assert inside, "a base model reads what decides"
    for each in inside:
        assert (path / f"{each.encoder.id}--backbone.json").is_file()
    assert right(workspace) > 0.9
    without = [example._replace(media={**example.media, "note.text": None}) for example in test]
    assert len(made.predict(without)) == len(test), "a part may be missing"
    assert not model_program.has_program(path), "no program of ours leaves with base models inside"
    assert registry.resolve(workspace.database, workspace.folders, "urgency").card.base_model == bases[0]


def test_a_base_model_that_reads_none_of_the_parts_is_refused(workspace: Workspace, bases: tuple[str, str]) -> None:
    make_dataset(
        workspace, "rounds", "multimodal", {"parts": ["photo.image"] * 12}, labels=list("aabb") * 3, splits=thirds(12),
        media=[bundle({"photo.image": plain(i)}) for i in range(12)],
    )  # fmt: skip
    with pytest.raises(SpeciateError, match=r"reads text; .* parts of image"):
        learned(workspace, bases[0])
    define(workspace, "sort", TASK)
    assert [way.method for way in choose_candidates(workspace, "sort", "rounds")] == ["classical"]


@NEEDS_MINILM
def test_the_cascade_tries_one_probe_of_all_parts(workspace: Workspace, bases: tuple[str, str]) -> None:
    rows(workspace, ["slept well"] * 12, [20] * 12, ["a", "b"] * 6)
    define(workspace, "sort", TASK)
    assert [(way.method, way.base_model, way.encoders) for way in choose_candidates(workspace, "sort", "rounds")] == [
        ("classical", None, None),
        ("probe", "pkg:minilm", None),
    ]
    (probe,) = choose_candidates(workspace, "sort", "rounds", ["pkg:minilm", bases[1]])[1:]
    assert (probe.base_model, probe.encoders) == ("pkg:minilm", (bases[1],))


COMPLAINTS = (
    "It hurts terribly.", "Severe pain all night.", "She screams in agony.", "An aching, burning chest.",
    "The wound stings badly.", "Suffering a lot today.", "A stabbing feeling in the belly.", "Cramps that do not stop.",
)  # fmt: skip
COMFORTS = (
    "Slept like a baby.", "Feeling great again.", "Enjoyed breakfast and a walk.", "Calm, relaxed and smiling.",
    "A good mood this morning.", "Recovered and happy.", "Comfortable in the chair.", "Laughed with visitors.",
)  # fmt: skip


def said(bad: bool, held_out: bool, chance: np.random.Generator) -> str:
    """Test examples have sentences that training has not."""
    sentences = (COMPLAINTS if bad else COMFORTS)[5:] if held_out else (COMPLAINTS if bad else COMFORTS)[:5]
    return str(chance.choice(sentences))


@NEEDS_MINILM
@pytest.mark.slow
@pytest.mark.parametrize("how", ["differ", "both", "missing"])
def test_the_pair_that_tells_together_is_found_and_better_than_a_part(workspace: Workspace, how: str) -> None:
    """Planted: the label is whether note and photo differ, or whether both say so, or the note where the photo is
    missing. The remark says nothing."""
    chance, splits = np.random.default_rng(3), thirds(360)
    notes, greys, labels = list[str](), list[int | None](), list[str]()
    for split in splits:
        bad, bright = bool(chance.integers(2)), bool(chance.integers(2))
        label = (bad and bright) if how == "both" else bad != bright
        gone = how == "missing" and chance.random() < 0.3
        label = bad if gone else label
        notes.append(said(bad, split == "test", chance))
        greys.append(None if gone else (200 if bright else 40) + int(chance.integers(30)))
        labels.append("urgent" if label else "calm")
    rows(workspace, notes, greys, labels)
    report = learned(workspace)
    alone = best(report, " alone")
    pair = best(report, "note by pkg:minilm + photo")
    assert pair > alone + 0.02
    assert pair > 0.85
    assert right(workspace) > 0.75, "in sentences that training has not seen"


@NEEDS_MINILM
@pytest.mark.slow
def test_where_nothing_tells_anything_no_pair_pretends_to(workspace: Workspace) -> None:
    chance = np.random.default_rng(4)
    labels = ["urgent" if chance.integers(2) else "calm" for _ in range(240)]
    notes = [said(bool(chance.integers(2)), False, chance) for _ in labels]
    rows(workspace, notes, chance.integers(0, 250, 240).tolist(), labels)
    learned(workspace)
    assert abs(right(workspace) - 0.5) < 0.2, "three standard errors"


@NEEDS_MINILM
def test_rows_that_no_base_model_reads_are_planned_without_one(workspace: Workspace) -> None:
    make_dataset(
        workspace, "rounds", "multimodal", {"parts": ["photo.image"] * 12}, labels=list("aabb") * 3, splits=thirds(12),
        media=[bundle({"photo.image": plain(i)}) for i in range(12)],
    )  # fmt: skip
    planned = plan_training(workspace, "rounds", task=TASK)
    assert [each.method for each in planned.candidates] == ["classical"]
