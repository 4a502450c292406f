"""A page holds all of an evaluation, asks for nothing, runs nothing, and shows foreign text as text."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from speciate.datasets.versions import Manifest
from speciate.evaluation.pages.page import render_page, write_page
from speciate.evaluation.pages.page_data import PageData, gather, non_default_options, repeat_arguments
from speciate.evaluation.reports.describe_evaluation import Inspection
from speciate.evaluation.reports.report import GateResult, Report
from speciate.jobs.pool import Pool
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.evaluation import handmade
from tests.evaluation.handmade import answer, compared, decision, report, row
from tests.evaluation.pages.reading import Page

PLANTED = "<script>alert('x')</script><img src=//e.vil/x onerror=alert(1)>\"'&\u202e"
MODELS = ["old@v1", *(f"m{i}@v1" for i in range(19))]
LABELS = [f"{PLANTED}{i}"[-64:] if i % 2 else f"label {i} {'x' * 70}" for i in range(100)]
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def twenty_models() -> Report:
    """With values that are missing, a verdict on each, and foreign words wherever they can be."""
    rows = [row(name, 0.9 - place / 50, errors=place) for place, name in enumerate(MODELS)]
    nothing = {"interval": None, "usd_per_1k": None, "p50_ms": None, "p95_ms": None, "p95_interval": None}
    rows[5] = row(MODELS[5], None, parameters=None, device=None, metrics={}, **nothing)
    pairs = [compared(MODELS[0], name, -0.01 * place) for place, name in enumerate(MODELS) if place]
    verdicts = [decision(name, MODELS[0], "inconclusive") for name in MODELS[1:-1]]
    held = decision(MODELS[-1], MODELS[0]).model_copy(update={"reasons": (PLANTED,)})
    return report(rows, pairs, notes=(PLANTED,), decision=held, decisions=(*verdicts, held))


def store(workspace: Workspace, told: Report, name: str, labels: list[str], **more: Any) -> str:
    references = {f"ex-{i}": labels[i % len(labels)] for i in range(200)}
    said = [
        answer(one.model, example, _said(reference, labels, i, place), confidence=i / 200)
        for place, one in enumerate(told.leaderboard)
        for i, (example, reference) in enumerate(references.items())
    ]
    right = [float(one["output"] == references[one["example"]]) for one in said]
    scores = [
        {"model": one["model"], "example": one["example"], "metric": "accuracy", "value": value}
        for one, value in zip(said, right, strict=True)
    ]
    return handmade.store(workspace, told, references, said, scores=scores, name=name, **more)


def _said(reference: str, labels: list[str], i: int, place: int) -> str | None:
    """Two in three are right, and one in nine is an error."""
    return reference if i % 3 else labels[(i + place) % len(labels)] if i % 9 else None


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, Pool]]:
    workspace = Workspace(tmp_path_factory.mktemp("pages") / "w", settings=Settings())
    pool = Pool(workspace.folders, workspace.settings, size=1)
    columns = {f"site {PLANTED}": [PLANTED if i % 2 else None for i in range(200)]}
    store(workspace, twenty_models(), "evaluation-many", LABELS, columns=columns, previews=[PLANTED] * 200)
    store(workspace, report([row("only@v1", 0.5, p95_ms=None, usd_per_1k=None)]), "evaluation-one", ["yes", "no"])
    yield workspace, pool
    pool.close()
    workspace.close()


@pytest.fixture(scope="module")
def many(world: tuple[Workspace, Pool]) -> PageData:
    found = gather(*world, "evaluation-many")
    return found._replace(thumbnails={one["id"]: PIXEL for one in found.worst["examples"]})


@pytest.fixture(scope="module")
def read(many: PageData) -> Page:
    return Page(render_page(many))


def test_it_refers_to_nothing_beside_itself(read: Page) -> None:
    sources = {value[:22] for _, name, value in read.attributes if name == "src"}
    assert sources == {"data:image/png;base64,"}
    assert all(value.startswith("#") for _, name, value in read.attributes if name == "href")
    loaders = {"link", "script", "iframe", "object", "embed", "form", "video", "audio", "base", "use", "image"}
    assert not loaders & set(read.tags)
    assert not {name for _, name, _ in read.attributes if name in ("srcset", "action", "xlink:href", "background")}


def test_its_style_loads_nothing_either(many: PageData) -> None:
    text = render_page(many)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_it_forbids_what_it_does_not_need(read: Page) -> None:
    (policy,) = [
        attributes["content"] for tag, attributes in read.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]  # fmt: skip
    assert {"default-src 'none'", "img-src data:", "style-src 'unsafe-inline'"} <= set(policy.split("; "))


def test_planted_markup_is_text(read: Page) -> None:
    assert "script" not in read.tags
    assert not [name for _, name, _ in read.attributes if name.startswith("on")]
    shown = PLANTED.removesuffix("\u202e")
    assert read.text.count(shown) >= 20  # in notes, reasons, columns, cells and previews
    assert "\u202e" not in read.text


def test_every_table_has_a_cell_for_each_heading(read: Page) -> None:
    assert len(read.tables) > 10
    for table in read.tables:
        assert set(table.rows) == {table.heads}, table.caption


def test_tables_hold_all_there_is(read: Page) -> None:
    assert len(read.table("The best accuracy first").rows) == len(MODELS)
    assert len(read.table("accuracy: every model against old@v1").rows) == len(MODELS) - 1
    assert len(read.table("Verdicts on the other models").rows) == len(MODELS) - 2
    assert len(read.table("Latency, size and control").rows) == len(MODELS)
    assert len(read.table("By site").rows) == 2


def test_a_matrix_of_a_hundred_labels_shows_those_that_take_part_in_mistakes(many: PageData, read: Page) -> None:
    candidate = many.confusion[0]
    assert len(candidate["labels"]) == 22  # twenty, the others, and no answer
    tables = [table for table in read.tables if table.caption.startswith("Answers by true label")]
    assert [table.heads for table in tables] == [1 + len(found["labels"]) for found in many.confusion]


def test_dominated_models_are_named_with_those_that_dominate_them(many: PageData, read: Page) -> None:
    assert many.pareto.dominated
    assert len(read.table("Dominated models").rows) == len(many.pareto.dominated)
    hollow = [attributes for tag, attributes in read.elements if tag == "circle" and "dominated" in attributes["class"]]
    assert len(hollow) == 2 * len(many.pareto.dominated)  # over cost and over latency


def test_headings_and_links_lead_through_it(read: Page) -> None:
    assert read.tags["h1"] == 1
    assert ("html", "lang", "en") in read.attributes
    ids = [value for _, name, value in read.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert [value for _, name, value in read.attributes if name == "href"] == [f"#{name}" for name in ids]


def test_what_is_seen_can_be_heard(read: Page) -> None:
    images = [attributes for tag, attributes in read.elements if tag == "img"]
    assert images
    assert all(attributes["alt"] for attributes in images)
    drawings = [attributes for tag, attributes in read.elements if tag == "svg"]
    assert all(
        one.get("aria-hidden") == "true" or (one["role"], bool(one["aria-label"])) == ("img", True) for one in drawings
    )
    heads = [attributes for tag, attributes in read.elements if tag == "th"]
    assert all(attributes["scope"] in ("col", "row") for attributes in heads)


def test_one_model_alone_has_a_page_without_comparisons(world: tuple[Workspace, Pool]) -> None:
    found = Page(render_page(gather(*world, "evaluation-one")))
    assert "There is no verdict" in found.text
    assert "Paired comparisons" not in found.text
    assert "Where models disagree" not in found.text
    assert len(found.table("The best accuracy first").rows) == 1
    assert found.table("By the true label").heads == 3


@pytest.mark.parametrize("name", ["evaluation-one", "evaluation-many"])
def test_nothing_says_none_or_nan(world: tuple[Workspace, Pool], name: str) -> None:
    words = Page(render_page(gather(*world, name))).text.split()
    assert not {"None", "nan", "inf", "NaN"} & set(words)


def test_the_same_page_is_one_file_and_another_baseline_another(world: tuple[Workspace, Pool]) -> None:
    first = write_page(*world, "evaluation-many")
    stamp = first.stat().st_mtime_ns
    assert first.is_relative_to(world[0].folders.exports)
    assert write_page(*world, "evaluation-many") == first
    assert first.stat().st_mtime_ns == stamp
    assert write_page(*world, "evaluation-many", "m3@v1") != first


def test_what_a_sandboxed_process_calls_an_image_must_be_one(world: tuple[Workspace, Pool]) -> None:
    class Liar(Pool):
        def ask(self, *_: Any, **__: Any) -> dict[str, Any]:
            drawn = {"a": b"<svg onload=alert(1)>", "b": PIXEL}
            return {"pictures": {name: base64.b64encode(data).decode() for name, data in drawn.items()}}

    inspection = Inspection(world[0], Liar(world[0].folders, world[0].settings), "evaluation-one")
    assert inspection.thumbnails(["a", "b"]) == {}  # the dataset is gone, so nobody is asked
    inspection.manifest = Manifest(
        name="d", version=1, id="d", modality="image", parts=(), columns={}, splits={}, labels={}, rows=0
    )
    assert inspection.thumbnails(["a", "b"]) == {"b": PIXEL}


def test_columns_about_endpoints_appear_where_a_model_has_something_to_say_in_them(
    world: tuple[Workspace, Pool],
) -> None:
    found = gather(*world, "evaluation-one")
    (mine,) = found.report.leaderboard
    plain = Page(render_page(found)).table("Latency, size and control")
    asked = mine.model_copy(update={"ttft_ms": 120.0, "repeats": 3, "nearly_seen": 2})
    public = Page(render_page(found._replace(report=found.report.model_copy(update={"leaderboard": (asked,)}))))
    assert public.table("Latency, size and control").heads == plain.heads + 2
    assert "0, 2 nearly" in public.text


@pytest.mark.parametrize(
    ("spec", "more"),
    [
        ({"models": ["a"], "latency": True, "seed": 3, "pick": "gates", "repeats": 1}, {}),
        ({"models": ["a"], "latency": False, "repeats": 3}, {"latency": False, "repeats": 3}),
    ],
)  # fmt: skip
def test_it_says_how_to_ask_again_with_what_was_not_left_as_it_is(
    world: tuple[Workspace, Pool], spec: dict[str, Any], more: dict[str, Any]
) -> None:
    found = gather(*world, "evaluation-many")
    arguments = repeat_arguments(found._replace(options=non_default_options(spec)))
    assert arguments.pop("models") == [MODELS[0], *MODELS[1:5], *MODELS[6:-1], MODELS[5], MODELS[-1]]
    assert arguments == {"dataset": "gone@v1:test", "metrics": ["accuracy"]} | more


@pytest.mark.parametrize(
    ("rule", "rows", "told"),
    [
        ("better", 100, "About 40 more test rows would settle it (140 in all)."),
        ("better", 0, "About 40 more test rows would settle it."),  # from before rows were noted
        ("fresh_rows", 100, "About 40 fresh test rows would settle it."),  # the others count no more
    ],
)
def test_what_settles_it_is_counted_with_the_rows_that_still_count(
    many: PageData, rule: str, rows: int, told: str
) -> None:
    gate = GateResult.model_validate({"gate": {"rule": rule}, "outcome": "inconclusive", "reason": "cannot tell"})
    made = decision(MODELS[1], MODELS[0], "inconclusive").model_copy(
        update={"gates": (gate,), "needed_examples": 40, "rows": rows}
    )
    shown = many._replace(report=many.report.model_copy(update={"decision": made, "decisions": (made,)}))
    assert told in render_page(shown)
