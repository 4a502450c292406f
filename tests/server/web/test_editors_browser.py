"""Labels that are drawn, in a real browser: a mask by mouse, finger and keys, boxes dragged to another place and size,
words tagged with a finger.

Needs Chromium and the extra `browser`; without them these tests say so and are skipped.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from speciate.jobs.pool import Pool
from speciate.modalities.segmentation_masks import mask_of, to_runs
from speciate.predictions.log_files import log_folder
from speciate.predictions.reading import feedback
from speciate.tasks.families.segmentation import region_mask
from speciate.workspace.workspace import Workspace
from tests.server.apps import make_app
from tests.server.web.conftest import Served
from tests.server.web.test_browser import WATCH, Tab, chromium, note_problems
from tests.server.web.test_labelling import BOX, _logged, _scanned, photo_mask

pytestmark = pytest.mark.slow
__all__ = ["chromium"]
WIDE, HIGH = 64, 40


@pytest.fixture
def served(workspace: Workspace) -> Iterator[Served]:
    pool = Pool(workspace.folders, workspace.settings, size=1)
    served = Served(workspace, replace(make_app(workspace), pool=pool))
    yield served
    served.pages.close()
    pool.close()


@pytest.fixture(params=["mouse", "finger"])
def tab(served: Served, chromium: Any, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """In a window of a desk, and on a phone that is touched."""
    touched = request.param == "finger"
    size = {"width": 390, "height": 844} if touched else {"width": 1200, "height": 900}
    context = chromium.new_context(has_touch=touched, is_mobile=touched, viewport=size)
    context.add_init_script(WATCH)
    page, problems = context.new_page(), list[str]()
    note_problems(page, problems)
    page.goto(served.link("decide"))
    page.wait_for_url("**/", timeout=30_000)
    yield Tab(page, problems, page.url.rstrip("/"))
    assert problems == []
    context.close()


def _png() -> str:
    made = io.BytesIO()
    Image.new("RGB", (WIDE, HIGH), "navy").save(made, "PNG")
    return base64.b64encode(made.getvalue()).decode()


def _drag(tab: Tab, selector: str, begin: tuple[float, float], end: tuple[float, float]) -> None:
    """From one place of an element to another, in shares of its size; by a finger where the context has one."""
    box = tab.page.query_selector(selector).bounding_box()
    (x, y), (to_x, to_y) = ((box["x"] + a * box["width"], box["y"] + b * box["height"]) for a, b in (begin, end))
    steps = [(x + (to_x - x) * n / 6, y + (to_y - y) * n / 6) for n in range(7)]
    if not tab.page.evaluate("matchMedia('(pointer: coarse)').matches"):
        tab.page.mouse.move(*steps[0])
        tab.page.mouse.down()
        for each in steps[1:]:
            tab.page.mouse.move(*each)
        tab.page.mouse.up()
        return
    touch = tab.page.context.new_cdp_session(tab.page)
    for kind, each in [("touchStart", steps[0]), *(("touchMove", each) for each in steps[1:]), ("touchEnd", None)]:
        points = [{"x": each[0], "y": each[1]}] if each else []
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    touch.detach()


def _queue(tab: Tab, use_case: str) -> Any:
    page = tab.go(f"/use-cases/{use_case}/queue?strategy=random")
    page.wait_for_load_state("load")
    return page


def _give(served: Served, tab: Tab, use_case: str) -> Any:
    """Press Give, and what is stored of it."""
    tab.page.click("#give")
    tab.until(lambda: tab.page.query_selector("#undo"), "the label is held")
    served.pages.close()
    [row] = feedback(log_folder(served.workspace.folders, use_case))
    return row.label


def _masks(label: list[dict[str, Any]]) -> dict[str, Any]:
    return {each["category"]: region_mask(each["segmentation"], (HIGH, WIDE), (HIGH, WIDE)) for each in label}


def test_a_mask_is_painted_corrected_and_stored(served: Served, tab: Tab) -> None:
    left = {"labels": ["road"], "size": [4, 4], "rle": [1, 2, 0, 2] * 4}
    _logged(served, "streets", "image-segmentation", "dice", ("road", "sky"), {"data": _png()}, left)
    page = _queue(tab, "streets")
    assert page.inner_text("#covers") == "road 50 %", "it begins with the model's own"
    page.click("[data-class=sky]")
    _drag(tab, "#mask canvas.on", (0.7, 0.5), (0.9, 0.5))
    tab.until(lambda: "sky" in page.inner_text("#covers"), "painted")
    page.click("#unpaint")
    assert page.inner_text("#covers") == "road 50 %", "a stroke is taken back"
    _drag(tab, "#mask canvas.on", (0.7, 0.5), (0.9, 0.5))
    page.click("#eraser")
    _drag(tab, "#mask canvas.on", (0.02, 0.1), (0.4, 0.1))
    tab.until(lambda: "road 50 %" not in page.inner_text("#covers"), "erased")
    masks = _masks(_give(served, tab, "streets"))
    sky, road = masks["sky"], masks["road"]
    assert sky[20, 44:58].all()
    assert not sky[:, :40].any()
    assert not sky[:8].any()
    assert road[30, :32].all()
    assert not road[4, 3:24].any()
    assert not (road & sky).any()


def test_a_mask_is_painted_by_keys_alone(served: Served, tab: Tab) -> None:
    empty = {"labels": [], "size": [1, 1], "rle": [0, 1]}
    _logged(served, "streets", "image-segmentation", "dice", ("road", "sky"), {"data": _png()}, empty)
    page = _queue(tab, "streets")
    assert page.inner_text("#covers") == "Nothing is marked."
    page.keyboard.press("2")
    page.focus("#mask canvas.on")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("z")
    page.keyboard.press("z")
    assert page.inner_text("#covers") == "Nothing is marked."
    page.keyboard.press("Space")
    page.keyboard.press("e")
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    tab.until(lambda: page.query_selector("#undo"), "the label is held")
    served.pages.close()
    [row] = feedback(log_folder(served.workspace.folders, "streets"))
    assert row.label == [] or {each["category"] for each in row.label} == {"sky"}


def test_a_volume_is_painted_slice_by_slice(served: Served, tab: Tab) -> None:
    _scanned(served, {"labels": ["organ"], "size": [2, 1, 1], "rle": [1, 1, 0, 1]})
    page = _queue(tab, "scans")
    tab.until(lambda: page.get_attribute("#mask", "data-drawn"), "a slice is drawn")
    wide, high, deep = map(int, (page.get_attribute("#mask", "data-size") or "").split(","))
    assert page.inner_text("#covers") == "organ 50 %", "it begins with the model's own"
    middle = deep // 2
    page.click("[data-class=lesion]")
    _drag(tab, "#mask canvas.on", (0.6, 0.5), (0.8, 0.5))
    page.keyboard.press("PageUp")
    page.keyboard.press("PageUp")
    assert f"axial {middle + 3}/{deep}" in page.inner_text("#where")
    before = page.inner_text("#where")
    page.fill("#level", "0.2")
    assert page.inner_text("#where") != before, "the level is another"
    _drag(tab, "#mask canvas.on", (0.6, 0.5), (0.8, 0.5))
    page.click("#unpaint")
    page.click("#unpaint")
    assert f"axial {middle + 1}/{deep}" in page.inner_text("#where"), "where the stroke was that is taken back"
    assert page.inner_text("#covers") == "organ 50 %"
    _drag(tab, "#mask canvas.on", (0.6, 0.5), (0.8, 0.5))
    found = mask_of(_give(served, tab, "scans"))
    assert found.labels == ["organ", "lesion"]
    assert (found.pixels[:middle] == 1).all()
    assert (found.pixels[middle, high // 2, round(wide * 0.65) : round(wide * 0.75)] == 2).all()
    assert not (found.pixels[middle + 1 :] == 2).any()


def _hold(tab: Tab, across: float) -> None:
    """The left button, on the mask, pressed and moved a little."""
    box = tab.page.query_selector("#mask canvas.on").bounding_box()
    x, y = box["x"] + across * box["width"], box["y"] + box["height"] / 2
    tab.page.mouse.move(x, y)
    tab.page.mouse.down()
    tab.page.mouse.move(x + 3, y)


def _during_a_stroke(served: Served, tab: Tab) -> Any:
    """The page of a street whose left half is road, while sky is being painted on its right half."""
    left = {"labels": ["road"], "size": [4, 4], "rle": [1, 2, 0, 2] * 4}
    _logged(served, "streets", "image-segmentation", "dice", ("road", "sky"), {"data": _png()}, left)
    page = _queue(tab, "streets")
    page.click("[data-class=sky]")
    _hold(tab, 0.8)
    return page


def test_a_label_given_during_a_stroke_has_all_of_it(served: Served, tab: Tab) -> None:
    page = _during_a_stroke(served, tab)
    page.keyboard.press("Enter")
    tab.until(lambda: page.query_selector("#undo"), "the label is held")
    served.pages.close()
    [row] = feedback(log_folder(served.workspace.folders, "streets"))
    assert {each["category"] for each in row.label} == {"road", "sky"}


def test_a_label_of_a_volume_given_during_a_stroke_keeps_what_this_slice_alone_has(served: Served, tab: Tab) -> None:
    _scanned(served, {"labels": ["organ"], "size": [1, 1, 1], "rle": [0, 1]})
    page = _queue(tab, "scans")
    tab.until(lambda: page.get_attribute("#mask", "data-drawn"), "a slice is drawn")
    page.click("[data-class=organ]")
    _drag(tab, "#mask canvas.on", (0.2, 0.5), (0.3, 0.5))
    page.click("[data-class=lesion]")
    _hold(tab, 0.8)
    page.keyboard.press("Enter")
    tab.until(lambda: page.query_selector("#undo"), "the label is held")
    served.pages.close()
    [row] = feedback(log_folder(served.workspace.folders, "scans"))
    assert sorted(mask_of(row.label).labels) == ["lesion", "organ"]


def test_keys_during_a_stroke_leave_the_shares_as_they_are(served: Served, tab: Tab) -> None:
    page = _during_a_stroke(served, tab)
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowRight")
    page.mouse.up()
    page.keyboard.down("Space")
    _hold(tab, 0.7)
    page.keyboard.down("Space")
    page.mouse.up()
    page.keyboard.up("Space")
    for _ in range(9):
        page.keyboard.press("z")
    assert page.inner_text("#covers") == "road 50 %"


def test_what_is_drawn_upon_is_zoomed_about_the_pointer(served: Served, tab: Tab) -> None:
    empty = {"labels": [], "size": [1, 1], "rle": [0, 1]}
    _logged(served, "streets", "image-segmentation", "dice", ("road", "sky"), {"data": _png()}, empty)
    page = _queue(tab, "streets")
    box = page.query_selector("#mask").bounding_box()
    for _ in range(3):
        page.click('[data-zoom-by="+"]')
    larger = page.query_selector("#mask").bounding_box()
    assert larger["width"] > 2.5 * box["width"]
    sheet = page.query_selector(".sheet").bounding_box()
    x, y = sheet["x"] + sheet["width"] / 2, sheet["y"] + sheet["height"] / 2
    share = (x - larger["x"]) / larger["width"], (y - larger["y"]) / larger["height"]
    assert share == pytest.approx((0.5, 0.5), abs=0.03), "what was in the middle stays there"
    page.keyboard.press("[")
    page.mouse.click(x, y)
    [made] = _give(served, tab, "streets")
    inside = region_mask(made["segmentation"], (HIGH, WIDE), (HIGH, WIDE))
    rows, columns = np.nonzero(inside)
    assert (rows.mean() + 0.5, columns.mean() + 0.5) == pytest.approx((HIGH / 2, WIDE / 2), abs=2)


def test_the_mask_of_a_real_photo_of_four_megapixels_comes_back_as_it_was(served: Served, tab: Tab) -> None:
    inside, image = photo_mask(), io.BytesIO()
    Image.fromarray((inside * 255).astype(np.uint8)).save(image, "PNG")
    begins = {"labels": ["sky"], "size": list(inside.shape), "rle": to_runs(inside.astype(np.uint8))}
    item = {"data": base64.b64encode(image.getvalue()).decode()}
    _logged(served, "streets", "image-segmentation", "dice", ("road", "sky"), item, begins)
    _queue(tab, "streets")
    [made] = _give(served, tab, "streets")
    assert (region_mask(made["segmentation"], inside.shape, inside.shape) == inside).all()


def test_boxes_are_dragged_to_another_place_and_size_and_deleted(served: Served, tab: Tab) -> None:
    boxes = [BOX, {"label": "bus", "score": 0.5, "box": [40, 20, 20, 16]}]
    _logged(served, "traffic", "object-detection", "map_50", ("bus", "car"), {"data": _png()}, boxes)
    page = _queue(tab, "traffic")
    _drag(tab, "#boxes", (18 / WIDE, 9 / HIGH), (28 / WIDE, 14 / HIGH))
    _drag(tab, "#boxes", (38 / WIDE, 19 / HIGH), (46 / WIDE, 29 / HIGH))
    page.click('#boxes [data-place="1"]')
    page.click("#remove")
    [made] = _give(served, tab, "traffic")
    assert made["category"] == "car"
    assert np.allclose(made["bbox"], [18, 9, 28, 20], atol=1.5)


def test_words_are_tagged_by_a_drag(served: Served, tab: Tab) -> None:
    text, output = {"text": "from New York to Oslo"}, ["O"] * 5
    _logged(served, "names", "token-classification", "token_accuracy", ("O", "PLACE"), text, output)
    page = _queue(tab, "names")
    boxes = [each.bounding_box() for each in page.query_selector_all("#tags [role=option]")]
    area = page.query_selector("#tags").bounding_box()

    def middle(place: int) -> tuple[float, float]:
        box = boxes[place]
        return ((box["x"] + box["width"] / 2 - area["x"]) / area["width"],
                (box["y"] + box["height"] / 2 - area["y"]) / area["height"])  # fmt: skip

    _drag(tab, "#tags", middle(1), middle(2))
    page.click("[data-class=PLACE]")
    assert _give(served, tab, "names") == ["O", "PLACE", "PLACE", "O", "O"]
