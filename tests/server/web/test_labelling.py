"""The queue of labels that are lists: what the page begins with, what it shows, and what it stores."""

from __future__ import annotations

import base64
import io
import json
import re
import wave
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html import unescape
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_image

from speciate import modalities, use_cases
from speciate.datasets.loading.loader import Example
from speciate.errors import SpeciateError
from speciate.jobs.pool import Pool
from speciate.modalities.audio_answers import encode_audio
from speciate.modalities.image_answers import encode_image
from speciate.modalities.segmentation_masks import mask_cell
from speciate.models import registry, sealed
from speciate.models.model_card import ModelCard
from speciate.predictions.log import AnsweringModel, AnswerLog
from speciate.predictions.log_files import log_folder
from speciate.predictions.reading import feedback
from speciate.server.control.dispatch import perform
from speciate.serving.label_questions import parse_label
from speciate.serving.record_feedback import KnownAnswers
from speciate.settings import Log
from speciate.tasks.families.segmentation import Segmentation, region_mask
from speciate.tasks.task import TaskTerms
from speciate.use_cases import Definition, Objective
from speciate.workspace.workspace import Workspace
from tests.modalities.nifti_samples import organ, packed, written
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
    served: Served, use_case: str, task: str, metric: str, labels: Sequence[str], item: dict[str, Any], output: Any,
    medium: str = "image",
) -> str:  # fmt: skip
    """One logged answer of a version that is registered for it; its id."""
    workspace, modality = served.workspace, medium if "data" in item else "text"
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
RUNS = {"size": [40, 64], "counts": [100, 50, 2410]}


def _segmented(served: Served, output: Any = ROAD, data: str | None = None) -> str:
    return _logged(served, "streets", "image-segmentation", "dice", ("road", "sky"), {"data": data or _png()}, output)


def test_a_mask_begins_with_the_models_own_and_is_stored_as_data_has_it(served: Served) -> None:
    name = _segmented(served)
    page = served.reader().get("/use-cases/streets/queue").html
    (shown,) = re.findall(r'data-mask="([^"]+)"', page)
    assert json.loads(unescape(shown)) == ROAD
    assert 'data-size="64,40,1"' in page
    assert "/mask.js" in page
    label = [{"category": "sky", "segmentation": RUNS}]
    assert _given(served, "streets", name, label) == {"held": name}
    assert _stored(served, "streets") == [label]


def photo_mask() -> npt.NDArray[np.bool_]:
    """Of a real photo of 4 megapixels: what is bright in it."""
    photo = Image.fromarray(load_sample_image("china.jpg")).convert("L").resize((2448, 1632))
    return np.asarray(photo.filter(ImageFilter.GaussianBlur(6))) > 128


def scan(side: int = 24) -> str:
    return base64.b64encode(packed(written(organ(1, side=side).voxels))).decode()


def _scanned(served: Served, output: Any = None) -> str:
    return _logged(
        served, "scans", "volume-segmentation", "dice", ("organ", "lesion"), {"data": scan()}, output, "nifti"
    )


def test_the_mask_of_a_volume_is_stored_as_training_reads_it(served: Served) -> None:
    begins = {"labels": ["organ"], "size": [2, 2, 2], "rle": [1, 4, 0, 4]}
    name = _scanned(served, begins)
    page = served.reader().get("/use-cases/scans/queue").html
    (shown,), (size,) = (re.findall(rf'data-{each}="([^"]+)"', page) for each in ("mask", "size"))
    assert json.loads(unescape(shown)) == begins
    wide, high, deep = map(int, size.split(","))
    assert served.reader().get(f"/asked/scans/{name}/volume.bin").status == 200
    pixels = np.zeros((deep, high, wide), np.uint8)
    pixels[3:5, 2:9, 4:12] = 2
    cell = mask_cell(pixels, ["organ", "lesion"])
    assert _given(served, "scans", name, cell) == {"held": name}
    [label] = _stored(served, "scans")
    media = modalities.find("nifti").decode(base64.b64decode(scan()))
    example = Example("a", media, label, "", "train", {})
    read = Segmentation.evaluation_example(example, label, TaskTerms())
    assert read is not None
    assert (read.target["labels"], read.target["size"]) == (["lesion"], [deep, high, wide])


def _cell(*size: int) -> str:
    return mask_cell(np.ones(size, np.uint8), ["organ"])


@pytest.mark.parametrize(
    "cell",
    ["no mask", "{}", json.dumps({"labels": ["a"], "size": [9_000] * 3, "runs": ""}), "[" * 9_000,
     '{"labels":[],"size":[1e999,1,1],"runs":""}', _cell(0, 1, 1), _cell(2, 2, 2),
     [{"category": "organ", "segmentation": RUNS}]],
)  # fmt: skip
def test_what_is_no_mask_of_a_volume_is_refused(served: Served, cell: object) -> None:
    assert "The label is no mask" in _given(served, "scans", _scanned(served), cell)["error"]


def test_the_mask_of_a_real_photo_of_four_megapixels_is_stored(served: Served) -> None:
    inside = photo_mask()
    changes = np.flatnonzero(np.diff(inside.T.ravel().astype(np.int8))) + 1
    runs = np.diff([*([0] if inside[0, 0] else []), 0, *changes, inside.size]).tolist()
    label = [{"category": "sky", "segmentation": {"size": [1632, 2448], "counts": runs}}]
    assert len(str(label)) > 40_000
    image = io.BytesIO()
    Image.fromarray((inside * 255).astype(np.uint8)).save(image, "PNG")
    name = _segmented(served, data=base64.b64encode(image.getvalue()).decode())
    assert _given(served, "streets", name, label).keys() == {"held"}
    [stored] = _stored(served, "streets")
    assert (region_mask(stored[0]["segmentation"], inside.shape, inside.shape) == inside).all()


@pytest.mark.parametrize(
    "label",
    [[{"category": "sky"}], [{"segmentation": RUNS}], [{"category": "sky", "segmentation": {**RUNS, "counts": "14"}}],
     ["sky"], [{"category": "sky", "segmentation": {"size": [1, 1], "counts": "~"}}], _cell(1, 40, 64),
     [{"category": "sky", "segmentation": {"size": [64, 40], "counts": [2560]}}],
     [{"category": "sky", "segmentation": {**RUNS, "size": [float("inf"), 1]}}]],
)  # fmt: skip
def test_what_is_no_mask_is_refused_before_it_is_kept(served: Served, label: object) -> None:
    assert "The label is no mask" in _given(served, "streets", _segmented(served), label)["error"]
    assert _stored(served, "streets") == []


def test_a_label_that_the_log_would_not_take_is_refused_at_once(served: Served) -> None:
    label = [{"category": "sky", "segmentation": RUNS}] * 3_500
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


def test_what_is_nested_too_deep_is_refused(served: Served) -> None:
    with pytest.raises(SpeciateError, match="The label is no list"):
        parse_label("[" * 200_000, KnownAnswers("segmentation", ()), numeric=False, parts=True)


@pytest.mark.parametrize("label", ["not a list", 3])
def test_what_is_no_list_is_refused(served: Served, label: object) -> None:
    name = _logged(served, "names", "token-classification", "token_accuracy", ("O",), {"text": "a"}, ["O"])
    assert "The label is no list" in _given(served, "names", name, label)["error"]


def test_an_image_is_shown_beside_its_question(served: Served) -> None:
    name = _logged(served, "animals", "image-classification", "accuracy", ("cat", "dog"), {"data": _png()}, "cat")
    page = served.reader().get("/use-cases/animals/queue").html
    assert f'<img src="/asked/animals/{name}/image.png"' in page
    assert 'data-give="dog"' in page


def test_an_answer_that_a_watch_asks_about_says_so(served: Served) -> None:
    name = _logged(served, "animals", "image-classification", "accuracy", ("cat", "dog"), {"data": _png()}, "cat")
    page = served.reader().get("/use-cases/animals/queue").text
    assert "watch" not in page.split("To the content")[1].split("Keys")[0]
    values = ["animals", 1, name, "random", 0.0]
    served.workspace.database.transact(
        lambda tx: tx.execute("INSERT INTO label_requests VALUES (?, ?, ?, ?, ?)", values)
    )
    page = served.reader().get("/use-cases/animals/queue").text
    assert "1 answer waits · the watch asks about 1" in page
    assert "its watch asks" in page


def test_a_row_is_shown_by_its_columns(served: Served) -> None:
    item = {"row": {"rooms": 3, "street <b>": "Lane"}}
    _logged(served, "houses", "tabular-regression", "mae", (), item, 9.0, "tabular")
    page = served.reader().get("/use-cases/houses/queue")
    assert "<dt>rooms</dt><dd>3</dd><dt>street &lt;b&gt;</dt><dd>Lane</dd>" in page.html


def test_a_label_goes_to_no_other_use_case_than_its_page_is_of(served: Served) -> None:
    name = _logged(served, "animals", "image-classification", "accuracy", ("cat", "dog"), {"data": _png()}, "cat")
    _logged(served, "traffic", "object-detection", "map_50", ("bus", "car"), {"data": _png()}, [BOX])
    with pytest.raises(SpeciateError, match="is no answer of traffic"):
        perform(served.control, {"action": "labels", "use_case": "traffic", "prediction": name, "label": "dog"})
    perform(served.control, {"action": "labels", "use_case": "animals", "prediction": name, "label": "dog"})
    assert (_stored(served, "animals"), _stored(served, "traffic")) == (["dog"], [])


@pytest.mark.parametrize("kind", ["audio", "image"])
def test_what_models_made_of_a_text_is_heard_or_seen_side_by_side(served: Served, kind: str) -> None:
    audio = kind == "audio"
    task, metric = ("text-to-speech", "mel_cepstral_distortion") if audio else ("text-to-image", "frechet_distance")
    tone = np.sin(np.arange(1600) / 9).astype(np.float32) / 2
    outputs = [
        encode_audio(tone * size, 16_000) if audio else encode_image(np.full((4, 4, 3), int(size * 200), np.uint8))
        for size in (1.0, 0.5)
    ]
    first = _logged(served, "making", task, metric, (), {"text": "good day"}, outputs[0])
    log = AnswerLog(log_folder(served.workspace.folders, "making"), Log(), served.workspace.clock)
    (second,) = log.ids(1)
    answer = {"output": outputs[1], "confidence": None, "error": None}
    about = AnsweringModel("making-model@v2", 2, "text")
    assert log.note([second], [{"id": "0", "text": "good day"}], [answer], about, 1.0)
    log.close()
    reader, file = served.reader(), "sound.wav" if audio else "image.png"
    page = reader.get("/use-cases/making/queue").html
    for name, size in ((first, 1.0), (second, 0.5)):
        address = f"/answered/making/{name}/{file}"
        assert f'src="{address}"' in page
        assert f"<{'audio controls' if audio else 'img'}" in page
        sent = reader.get(address)
        assert sent.headers["content-type"].startswith(f"{kind}/")
        assert sent.headers["content-security-policy"].startswith("default-src 'none'")
        if audio:
            with wave.open(io.BytesIO(sent.body)) as heard:
                samples = np.frombuffer(heard.readframes(heard.getnframes()), "<i2") / 32_767
            assert np.allclose(samples, tone * size, atol=1e-3)
        else:
            assert (np.asarray(Image.open(io.BytesIO(sent.body)))[..., :3] == int(size * 200)).all()
        assert reader.get(f"/answered/making/{name}/{'image.png' if audio else 'sound.wav'}").status == 404
    assert "making-model@v2" in page
    assert "sha256" not in page
    assert reader.get(f"/answered/making/pred-none/{file}").status == 404
