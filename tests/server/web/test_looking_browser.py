"""What a person does while looking, in a real browser: keys in the label queue and beside an example, an image made
larger, a phone's width, names of channels, addresses that were typed.

Needs Chromium and the extra `browser`; without them these tests say so and are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from speciate.jobs.pool import Pool
from speciate.predictions.log_files import log_folder
from speciate.predictions.reading import feedback
from speciate.server.web.glossary import explained
from speciate.workspace.workspace import Workspace
from tests.evaluation import handmade
from tests.modalities.samples import photo
from tests.server.apps import make_app
from tests.server.web.conftest import Served
from tests.server.web.test_browser import WATCH, Tab, chromium, note_problems
from tests.server.web.test_labelling import _logged
from tests.training.world import make_dataset

pytestmark = pytest.mark.slow
__all__ = ["chromium"]
PHONE = {"width": 390, "height": 844}


@pytest.fixture
def served(workspace: Workspace) -> Iterator[Served]:
    """With a process that decodes."""
    pool = Pool(workspace.folders, workspace.settings, size=1)
    served = Served(workspace, replace(make_app(workspace), pool=pool))
    yield served
    served.pages.close()
    pool.close()


@pytest.fixture
def tab(served: Served, chromium: Any) -> Iterator[Tab]:
    context = chromium.new_context()
    context.add_init_script(WATCH)
    page, problems = context.new_page(), list[str]()
    note_problems(page, problems)
    page.goto(served.link("decide"))
    page.wait_for_url("**/", timeout=30_000)
    yield Tab(page, problems, page.url.rstrip("/"))
    assert problems == []
    context.close()


def test_a_digit_gives_the_class_of_its_name_and_undo_says_to_what(served: Served, tab: Tab) -> None:
    labels = tuple("0123456789")
    _logged(served, "digits", "text-classification", "accuracy", labels, {"text": "a drawn seven"}, "7")
    page = tab.go("/use-cases/digits/queue?strategy=random")
    page.wait_for_load_state("load")
    page.keyboard.press("1")
    tab.until(lambda: page.query_selector("#undo"), "the label is held")
    assert "“a drawn seven”: 1, stored" in page.inner_text("main")
    served.pages.close()
    [row] = feedback(log_folder(served.workspace.folders, "digits"))
    assert row.label == "1"


def photos(served: Served, count: int = 4) -> str:
    labels = ["tree" if place % 2 else "cat" for place in range(count)]
    return make_dataset(
        served.workspace, "photos", "image", {}, labels=labels, splits=["test"] * count, media=[photo()] * count
    ).ref


def test_an_example_has_a_next_and_a_previous_one_of_its_grid(served: Served, tab: Tab) -> None:
    ref = photos(served)
    page = tab.go("/data/photos/v1/examples?label=tree")
    page.click(".sample")
    tab.until(lambda: "photos-000001" in page.url, "the first tree")
    for key, place in (("n", 3), ("k", 1), ("j", 3), ("p", 1)):
        page.wait_for_load_state("load")
        page.keyboard.press(key)
        tab.until(lambda: f"photos-00000{place}" in page.url, f"{key}: past the cats")  # noqa: B023 - at once
        assert "label=tree" in page.url
    page.wait_for_load_state("load")
    page.keyboard.press("?")
    helps = page.inner_text("#keys")
    assert "next and previous page or example" in helps
    assert "skip, in the queue" not in helps, "the list has what does something here"
    tab.go(f"/examples/photos-000001?in={ref}")
    page.wait_for_load_state("load")
    page.keyboard.press("n")
    tab.until(lambda: "photos-000002" in page.url, "without a filter the next of all")


def test_an_image_is_made_larger_where_it_is(served: Served, tab: Tab) -> None:
    ref = photos(served, 1)
    page = tab.go(f"/examples/photos-000000?in={ref}")
    for size in ({"width": 1280, "height": 900}, PHONE):
        page.set_viewport_size(size)
        page.reload()
        tab.until(lambda: page.evaluate("document.querySelector('.viewer img').naturalWidth > 0"), "the image")
        page.wait_for_load_state("networkidle")

        def wide() -> float:
            return float(page.query_selector(".viewer img").bounding_box()["width"])

        begun = wide()
        page.click(".viewer img")
        assert wide() > 2.5 * begun, "by a press"
        page.keyboard.press("0")
        assert wide() == begun, "and back"
        page.keyboard.press("+")
        assert wide() > 1.3 * begun, "by keys"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "within its own box"


def test_channels_have_the_names_of_their_file(served: Served, tab: Tab) -> None:
    rows = "".join(f"{n},{n * n % 7}\n" for n in range(12))
    for name, head in (("named", "pressure,flow\n"), ("bare", "")):
        make_dataset(
            served.workspace, name, "time-series", {}, labels=["a"], splits=["test"], media=[(head + rows).encode()]
        )
    page = tab.go("/examples/named-000000?in=named@v1")
    assert page.inner_text(".viewer .legend").split() == ["pressure", "flow"]
    page = tab.go("/examples/bare-000000?in=bare@v1")
    assert page.inner_text(".viewer .legend").split("\n") == ["1 of 2", "2 of 2"], "nothing is invented"


def test_an_address_with_a_slash_at_its_end_leads_to_the_page(served: Served, tab: Tab) -> None:
    photos(served)
    answer = tab.page.goto(f"{tab.base}/data/photos/v1/examples/?label=cat")
    assert (answer.status, tab.page.url) == (200, f"{tab.base}/data/photos/v1/examples?label=cat")
    missing = tab.page.goto(f"{tab.base}/nothing/")
    assert missing.status == 404
    tab.problems.clear()  # of the one that is missing


def test_the_first_page_of_an_empty_workspace_leads_to_a_first_model(served: Served, tab: Tab) -> None:
    page = tab.go("/")
    begin = page.inner_text("main .begin")
    for step in ("speciate install claude", "speciate call create_dataset", "speciate call specialize"):
        assert step in begin
    assert page.query_selector(".facts") is None, "no row of figures about nothing"
    page.click("main .begin a")
    tab.until(lambda: page.url.endswith("/data"), "and to the pages where it will be seen")
    photos(served)
    page = tab.go("/")
    assert page.query_selector(".begin") is None
    assert page.query_selector(".facts")


def test_settings_are_words_and_say_what_they_do(served: Served, tab: Tab) -> None:
    page = tab.go("/settings")
    for each in page.query_selector_all("main details"):
        each.evaluate("(details) => { details.open = true; }")
    values = " ".join(each.inner_text() for each in page.query_selector_all("main td:nth-child(2)"))
    assert not set("{}[]") & set(values), "no JSON"
    told = page.inner_text("main")
    assert "A person approves each promotion" in told or "a person approves each promotion" in told
    assert "idle exit minutes" in told


def test_words_of_statistics_are_explained_where_they_stand(served: Served, tab: Tab) -> None:
    told = handmade.report([handmade.row("m@v1", 0.8), handmade.row("constant:", 0.6)], use_case=None)
    values = ["it", None, "films@v1", "m@v1", told.model_dump_json(), None, 1.0]
    served.workspace.database.transact(
        lambda tx: tx.execute("INSERT INTO evaluations VALUES (?, ?, ?, ?, ?, ?, ?)", values)
    )
    page = tab.go("/evaluations/it")
    page.click("main .meaning summary")
    assert "What the candidate is compared with" in page.inner_text("main .meaning")
    known = explained("The e-detector of a conformal test and its kernels say: drift.")
    assert list(known) == ["drift", "e-detector", "conformal", "kernel"]
