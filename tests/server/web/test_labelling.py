"""The queue of labels that are lists: what the page begins with, what it shows, and what it stores."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html import unescape
from typing import Any

import pytest
from PIL import Image

from speciate import use_cases
from speciate.jobs.pool import Pool
from speciate.models import registry, sealed
from speciate.models.model_card import ModelCard
from speciate.predictions.log import AnsweringModel, AnswerLog
from speciate.predictions.log_files import log_folder
from speciate.predictions.reading import feedback
from speciate.settings import Log
from speciate.use_cases import Definition, Objective
from speciate.workspace.workspace import Workspace
from tests.server.apps import make_app
from tests.server.web.conftest import Served


@pytest.fixture
def served(workspace: Workspace) -> Iterator[Served]:
    """With a process that decodes."""
    pool = Pool(workspace.folders, workspace.settings, size=1)
    served = Served(workspace, replace(make_app(workspace), pool=pool))
    yield served
    served.pages.close()
    pool.close()


BOX = {"label": "car", "score": 0.8, "box": [8, 4, 20, 10]}


def _png() -> str:
    made = io.BytesIO()
    Image.new("RGB", (64, 40), "navy").save(made, "PNG")
    return base64.b64encode(made.getvalue()).decode()


def _logged(
    served: Served, use_case: str, task: str, metric: str, labels: Sequence[str], item: dict[str, Any], output: Any
) -> str:
    """One logged answer of a version that is registered for it; its id."""
    workspace, modality = served.workspace, "image" if "data" in item else "text"
    definition = Definition(name=use_case, task=task, objective=Objective(metric=metric))
    workspace.database.transact(lambda tx: use_cases.define(tx, definition, policy="auto"))
    staged = workspace.folders.runs / f"staged-{use_case}"
    staged.mkdir(parents=True)
    (staged / "weights.txt").write_text("none")
    card = ModelCard(
        name=f"{use_case}-model", task=task, modality=modality, method="classical", labels=tuple(labels),
        id=sealed.seal(staged),
    )  # fmt: skip
    ref = workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, staged)).ref
    log = AnswerLog(log_folder(workspace.folders, use_case), Log(), workspace.clock)
    (name,) = log.ids(1)
    answer = {"output": output, "confidence": 0.5, "error": None}
    assert log.note([name], [{"id": "0", **item}], [answer], AnsweringModel(ref, 1, modality), 1.0)
    log.close()
    return name


def _stored(served: Served, use_case: str) -> list[Any]:
    served.pages.close()  # what waits is added
    rows = feedback(log_folder(served.workspace.folders, use_case))
    return [row.label for row in rows]


def _given(served: Served, use_case: str, name: str, label: object) -> dict[str, Any]:
    reader = served.reader("decide")
    csrf = reader.get(f"/use-cases/{use_case}/queue").csrf
    fields = {"csrf": csrf, "prediction": name, "label": json.dumps(label), "drawn": "random", "parts": "yes",
              "model": f"{use_case}-model@v1", "numeric": "no"}  # fmt: skip
    answer = reader.post(f"/use-cases/{use_case}/label", fields)
    told: dict[str, Any] = json.loads(answer.body)
    return told


def test_boxes_begin_with_the_models_own_and_are_stored_as_data_has_them(served: Served) -> None:
    item = {"data": _png()}
    name = _logged(served, "traffic", "object-detection", "map_50", ("bus", "car"), item, [BOX])
    reader = served.reader()
    page = reader.get("/use-cases/traffic/queue").html
    (shown,) = re.findall(r'data-boxes="([^"]+)"', page)
    assert json.loads(unescape(shown)) == [{"label": "car", "box": BOX["box"]}]
    assert 'viewBox="0 0 64 40"' in page
    assert 'data-class="bus"' in page
    image = reader.get(f"/asked/traffic/{name}/image.png")
    assert image.body.startswith(b"\x89PNG")
    assert image.headers["content-security-policy"].startswith("default-src 'none'")
    assert reader.get(f"/asked/traffic/{name}/sound.wav").status in (400, 404)
    assert reader.get("/asked/traffic/pred-none/image.png").status == 404
    label = [{"category": "bus", "bbox": [1, 2, 30, 20]}]
    assert _given(served, "traffic", name, label) == {"held": name}
    assert _stored(served, "traffic") == [label]


def test_words_begin_with_the_models_tags(served: Served) -> None:
    output = ["O", "PLACE"]
    name = _logged(
        served, "names", "token-classification", "token_accuracy", ("O", "PLACE"), {"text": "to <b>Oslo"}, output
    )
    page = served.reader().get("/use-cases/names/queue").html
    assert re.findall(r'data-tag="(\w+)">([^<]+)<', page) == [("O", "to"), ("PLACE", "&lt;b&gt;Oslo")]
    assert _given(served, "names", name, ["O", "O"]) == {"held": name}
    assert _stored(served, "names") == [["O", "O"]]


ROAD = {"labels": ["road"], "size": [2, 2], "rle": [1, 1, 0, 3]}
RUNS = {"size": [2, 4], "counts": "134"}


def _segmented(served: Served, output: Any = ROAD) -> str:
    return _logged(served, "streets", "image-segmentation", "dice", ("road", "sky"), {"data": _png()}, output)


def test_a_mask_begins_with_the_models_own_and_is_stored_as_data_has_it(served: Served) -> None:
    name = _segmented(served)
    page = served.reader().get("/use-cases/streets/queue").html
    (shown,) = re.findall(r'data-mask="([^"]+)"', page)
    assert json.loads(unescape(shown)) == ROAD
    assert 'data-size="64,40"' in page
    assert "/static/mask.js" in page
    label = [{"category": "sky", "segmentation": RUNS}]
    assert _given(served, "streets", name, label) == {"held": name}
    assert _stored(served, "streets") == [label]


@pytest.mark.parametrize(
    "label",
    [[{"category": "sky"}], [{"segmentation": RUNS}], [{"category": "sky", "segmentation": {**RUNS, "counts": "14"}}],
     ["sky"], [{"category": "sky", "segmentation": {"size": [1, 1], "counts": "~"}}]],
)  # fmt: skip
def test_what_is_no_mask_is_refused_before_it_is_kept(served: Served, label: object) -> None:
    assert "The label is no mask" in _given(served, "streets", _segmented(served), label)["error"]
    assert _stored(served, "streets") == []


def test_a_label_that_the_log_would_not_take_is_refused_at_once(served: Served) -> None:
    label = [{"category": "sky", "segmentation": RUNS}] * 400
    assert "too many parts or edges" in _given(served, "streets", _segmented(served), label)["error"]


@pytest.mark.parametrize(
    "output", [None, "road", {**ROAD, "rle": [7, 4]}, {**ROAD, "rle": [1, 2]}, {**ROAD, "size": 3}]
)
def test_an_answer_that_is_no_mask_begins_an_empty_one(served: Served, output: object) -> None:
    _segmented(served, output)
    (shown,) = re.findall(r'data-mask="([^"]+)"', served.reader().get("/use-cases/streets/queue").html)
    assert json.loads(unescape(shown))["labels"] == []


def test_a_label_that_no_page_makes_is_not_asked_for(served: Served) -> None:
    _logged(served, "names", "token-classification", "token_accuracy", ("O",), {"text": "one word"}, ["O"])
    page = served.reader().get("/use-cases/names/queue").text
    assert "No page makes such a label yet" in page
    assert "Give" not in page.split("No page makes")[0].split("Label", 1)[1]


@pytest.mark.parametrize("label", ["not a list", 3])
def test_what_is_no_list_is_refused(served: Served, label: object) -> None:
    name = _logged(served, "names", "token-classification", "token_accuracy", ("O",), {"text": "a"}, ["O"])
    assert "The label is no list" in _given(served, "names", name, label)["error"]


def test_an_image_is_shown_beside_its_question(served: Served) -> None:
    name = _logged(served, "animals", "image-classification", "accuracy", ("cat", "dog"), {"data": _png()}, "cat")
    page = served.reader().get("/use-cases/animals/queue").html
    assert f'<img src="/asked/animals/{name}/image.png"' in page
    assert 'data-give="dog"' in page
