"""Models of mixed rows that read some of their parts: how they are chosen, and what they take."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from speciate.datasets.loading.loader import load_examples
from speciate.datasets.versions import resolve
from speciate.lineage import model_report
from speciate.modalities.bundles import bundle
from speciate.models import registry
from speciate.models.registry import ModelVersion
from speciate.serving import predict
from speciate.serving.items import Item
from speciate.serving.predict import Input, _payload
from speciate.serving.predict_worker import answer
from speciate.tasks import predictor
from speciate.workspace.workspace import Workspace
from tests.modalities.samples import photo
from tests.training.world import make_dataset, thirds, train_now

TASK = "multimodal-classification"
PART = ("note.text", "photo.image")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path / "workspace")
    yield workspace
    workspace.close()


def rows(workspace: Workspace, notes: Sequence[str], pictures: Sequence[bytes], labels: Sequence[str]) -> None:
    media = [
        bundle({"note.text": f"{note} {number}".encode(), "photo.image": picture})
        for number, (note, picture) in enumerate(zip(notes, pictures, strict=True))
    ]
    make_dataset(workspace, "rounds", "multimodal", {}, labels=labels, splits=thirds(len(labels)), media=media)


def told_by_the_note(workspace: Workspace, count: int = 60) -> None:
    """The picture is another in each row, and says nothing."""
    labels = [("calm", "urgent")[i % 3 == 0] for i in range(count)]
    notes = [{"calm": "slept well", "urgent": "strong pain"}[label] for label in labels]
    rows(workspace, notes, [_plain(3 * i) for i in range(count)], labels)


def trained(workspace: Workspace, **hyperparameters: Any) -> tuple[ModelVersion, dict[str, Any]]:
    done = train_now(
        workspace, name="urgency", dataset="rounds", method="classical", task=TASK, hyperparameters=hyperparameters
    )
    return registry.resolve(workspace.database, workspace.folders, done["model"]), done["report"]


def answered(version: ModelVersion, *inputs: Input) -> list[dict[str, Any]]:
    def no_example(given: Input) -> Item:
        raise AssertionError(f"no example of a dataset was given: {given}")

    payload = _payload(
        version.card, version.path, inputs, lambda path, most: predict.read_caller_file(Path(path), most), no_example
    )
    return list(answer(payload)["predictions"])


def test_a_model_of_one_part_takes_whole_rows(workspace: Workspace, tmp_path: Path) -> None:
    told_by_the_note(workspace)
    version, report = trained(workspace, parts=["note"])
    assert (version.card.parts, version.card.ignored_parts) == (("note.text",), ("photo.image",))
    assert (report["parts"], report["ignored_parts"]) == (["note.text"], ["photo.image"])
    assert "Of a row it reads note; what else a row may bring (photo) is passed over." in model_report.model_card_text(
        version.card, [], [], ""
    )
    folder = tmp_path / "0003"
    folder.mkdir()
    (folder / "note.txt").write_text("strong pain")
    (folder / "photo.png").write_bytes(photo())
    member = base64.b64encode(bundle({"note.text": b"strong pain", "photo.image": photo()})).decode()
    said = answered(
        version,
        Input(path=str(folder)),
        Input(row={"note": "strong pain", "photo": str(folder / "photo.png")}),
        Input(row={"note": "slept well", "photo": "no/such.png"}),
        Input(data=member),
        Input(row={"photo": str(folder / "photo.png")}),
    )
    assert [one["output"] for one in said] == ["urgent", "urgent", "calm", "urgent", None]
    assert "has only photo" in said[-1]["error"]


def test_parts_that_are_named_are_seen_together_and_in_no_other_way(workspace: Workspace) -> None:
    told_by_the_note(workspace)
    version, report = trained(workspace, parts=["photo", "note"])
    assert (version.card.parts, version.card.ignored_parts) == (PART, ())
    assert all(one["name"].startswith("note + photo") for one in report["candidates"])


@pytest.mark.slow
def test_what_few_validation_examples_do_not_tell_apart_is_decided_out_of_fold(workspace: Workspace) -> None:
    """Here the note decides all of them, alone and together with a picture: as good, and together answers more rows."""
    told_by_the_note(workspace)
    version, report = trained(workspace)
    alone = [one for one in report["candidates"] if one["name"].startswith("note alone") and one["value"] == 1.0]
    assert alone, "the tie that this is about"
    (note,) = [note for note in report["notes"] if "do not tell" in note]
    assert "15 validation examples" in note
    assert version.card.parts == PART
    assert report["validation"]["how"] == "validation"


@pytest.mark.slow
def test_a_part_that_is_worth_less_out_of_fold_is_not_taken_for_a_tie(workspace: Workspace) -> None:
    """Where the label needs both, a part alone may come near on few examples."""
    chance = np.random.default_rng(0)
    pairs = [pair for pair in itertools.product(("pain", "well"), (0, 250)) for _ in range(20)]
    order = chance.permutation(len(pairs))
    labels = ["urgent" if (pairs[i][0] == "pain") and pairs[i][1] else "calm" for i in order]
    rows(workspace, [pairs[i][0] for i in order], [_plain(pairs[i][1]) for i in order], labels)
    version, report = trained(workspace)
    assert version.card.parts == PART
    assert report["validation"]["value"] > 0.9


def _plain(grey: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), grey, np.uint8)).save(out, "PNG")
    return out.getvalue()


def _three_parts(workspace: Workspace, labels: Sequence[str], notes: Sequence[str], greys: Sequence[int]) -> None:
    """With a second note in each row that says nothing."""
    chance = np.random.default_rng(1)
    media = [
        bundle(
            {
                "note.text": note.encode(),
                "photo.image": _plain(grey),
                "remark.text": " ".join(chance.choice(["sun", "rain", "wind", "snow"], 3)).encode(),
            }
        )
        for note, grey in zip(notes, greys, strict=True)
    ]
    make_dataset(workspace, "rounds", "multimodal", {}, labels=labels, splits=thirds(len(labels)), media=media)


@pytest.mark.slow
def test_the_pair_that_tells_together_is_found_among_three_parts(workspace: Workspace) -> None:
    """Planted: the label is whether note and photo differ, which neither tells alone; the remark says nothing."""
    chance = np.random.default_rng(0)
    facts = [(bool(chance.integers(2)), bool(chance.integers(2))) for _ in range(240)]
    notes = [f"{'strong pain' if pain else 'slept well'} {i}" for i, (pain, _) in enumerate(facts)]
    greys = [(200 if bright else 40) + int(chance.integers(30)) for _, bright in facts]
    _three_parts(workspace, ["odd" if pain != bright else "even" for pain, bright in facts], notes, greys)
    version, report = trained(workspace)
    values = {one["name"]: one["value"] for one in report["candidates"] if one["value"] is not None}
    alone = max(value for name, value in values.items() if " alone" in name and not name.startswith("mean"))
    pair = max(value for name, value in values.items() if name.startswith("note + photo:"))
    assert pair > 0.9 > 0.7 > alone
    assert set(PART) <= set(version.card.parts)
    assert report["validation"]["value"] > 0.9


@pytest.mark.slow
def test_where_no_part_tells_anything_no_combination_pretends_to(workspace: Workspace) -> None:
    chance = np.random.default_rng(0)
    labels = ["odd" if chance.integers(2) else "even" for _ in range(240)]
    notes = [" ".join(chance.choice(["pain", "well", "calm", "cough"], 2)) for _ in labels]
    _three_parts(workspace, labels, notes, chance.integers(0, 250, 240).tolist())
    version, _ = trained(workspace)
    test = load_examples(workspace.folders, resolve(workspace.database, "rounds"), ("test",))
    given = predictor.load(version.path).predict(test)
    right = sum(one.output == example.label for one, example in zip(given, test, strict=True))
    assert abs(right / len(test) - 0.5) < 0.2, "three standard errors"
