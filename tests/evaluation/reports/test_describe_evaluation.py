"""`describe_evaluation` as an agent calls it: little by default, more when asked for, images where they tell more."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from mcp import Client
from mcp_types import TextResourceContents
from PIL import Image

from speciate.datasets import version_rows
from speciate.evaluation.reports import describe_evaluation as describe
from speciate.evaluation.reports.report import Value
from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.server.mcp.app import Server
from speciate.server.mcp.render import compact, document
from speciate.server.tool_api import App
from speciate.tools.evaluation import describe_evaluation
from speciate.workspace.workspace import Workspace
from tests import data
from tests.evaluation import handmade, world
from tests.evaluation.handmade import answer, compared, decision, report, row

MODELS = [f"a-model-with-a-name-{i:02}@v1" for i in range(20)]
METRICS = ("accuracy", "f1_macro", "balanced_accuracy")
MOST_TOKENS = 4000


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    workspace = Workspace(tmp_path_factory.mktemp("describe") / "w")
    pool = Pool(workspace.folders, workspace.settings, size=1)
    _store_twenty(workspace)
    _store_digits(workspace, tmp_path_factory.mktemp("digits"))
    yield App(workspace, Engine(workspace), pool)
    pool.close()
    workspace.close()


def _store_twenty(workspace: Workspace) -> None:
    chance = random.Random(2)
    rows = [
        row(
            name, 0.9123456 - i / 50, metrics=dict.fromkeys(METRICS, Value(value=0.8123456, interval=(0.7, 0.9), n=100))
        )
        for i, name in enumerate(MODELS)
    ]
    pairs = [
        compared(a, b, -(0.0123456 * (j - i))) for i, a in enumerate(MODELS) for j, b in enumerate(MODELS) if i < j
    ]
    told = report(rows, pairs, decision=decision(MODELS[-1], MODELS[0]), use_case="naming")
    references = {f"ex-{i}": chance.choice(["yes", "no", "maybe"]) for i in range(200)}
    said = [
        answer(name, one, chance.choice(["yes", "no", "maybe"]), confidence=chance.random())
        for name in MODELS for one in references
    ]  # fmt: skip
    previews = ["a text of some length " * 10 for _ in references]
    handmade.store(workspace, told, references, said, previews=previews, name="evaluation-twenty")


def _store_digits(workspace: Workspace, folder: Path) -> None:
    """Answers to an ingested dataset of images, all of them wrong."""
    manifest = data.ingest(workspace, "digits", source=str(data.digit_folder(folder, 40)), label="folder")
    rows = version_rows.read(workspace.folders, manifest, ["id", "label"], usable=True).to_pylist()
    references = {one["id"]: one["label"] for one in rows}
    said = [
        answer("eyes@v1", name, "0" if reference != "0" else "1", confidence=0.5)
        for name, reference in references.items()
    ]
    told = report([row("eyes@v1", 0.0)], dataset=manifest.ref)
    handmade.store(workspace, told, references, said, name="evaluation-digits")


def tokens(app: App, **asked: object) -> int:
    view, *_ = describe_evaluation(app, "evaluation-twenty", **asked)  # type: ignore[arg-type]
    return len(compact(document(view))) // 4


def test_twenty_models_cost_few_tokens_unless_more_is_asked_for(app: App) -> None:
    assert tokens(app) < MOST_TOKENS
    assert tokens(app, show=["all_models", "metrics"]) > MOST_TOKENS


def test_the_best_models_are_shown_with_those_that_the_question_is_about(app: App) -> None:
    (view,) = describe_evaluation(app, "evaluation-twenty")
    assert [one.model for one in view.leaderboard] == [*MODELS[:10], MODELS[-1]]
    assert view.models_left_out == 9
    assert {one.candidate for one in view.comparisons} == {*MODELS[1:10], MODELS[-1]}
    assert all(one.metrics == {} for one in view.leaderboard)
    (whole,) = describe_evaluation(app, "evaluation-twenty", show=["all_models", "metrics"])
    assert len(whole.leaderboard) == 20
    assert set(whole.leaderboard[0].metrics) == set(METRICS)
    assert whole.models_left_out is None


def test_holm_counts_all_comparisons_also_those_that_are_left_out(app: App) -> None:
    (view,) = describe_evaluation(app, "evaluation-twenty")
    assert [one.p_holm for one in view.comparisons] == pytest.approx([0.19] * 10)  # 19 of 0.01 each


def test_parts_are_given_where_they_are_asked_for(app: App) -> None:
    (plain,) = describe_evaluation(app, "evaluation-twenty")
    assert (plain.confusion, plain.calibration, plain.disagreements, plain.untrusted) == (None,) * 4
    (view,) = describe_evaluation(app, "evaluation-twenty", show=["confusion", "calibration", "disagreements"])
    assert [one.model for one in view.confusion or ()] == [MODELS[-1], MODELS[0]]
    assert sum(count for _, _, count, *_ in (view.calibration or ())[0].rows) == 200
    assert sum((view.disagreements or {}).values()) == 200
    assert view.untrusted is not None
    assert len(view.untrusted.candidate_better or ()) == 5
    assert set(view.pareto.front) | set(view.pareto.dominated) == set(MODELS)


def test_wrong_images_come_as_a_numbered_sheet(app: App) -> None:
    view, sheet = describe_evaluation(app, "evaluation-digits", errors=5)
    assert view.untrusted is not None
    assert len(view.untrusted.worst_examples or ()) == 5
    image = Image.open(io.BytesIO(sheet.data))
    assert max(image.size) <= 1024
    many, wide = describe_evaluation(app, "evaluation-digits", errors=40)
    assert many.wrong == 40
    assert max(Image.open(io.BytesIO(wide.data)).size) <= 1024


def test_captions_number_the_examples_and_say_what_was_taken_for_what() -> None:
    told = describe.captions(
        [{"id": "a", "truth": "3.14159", "output": 2.5}, {"id": "b", "truth": "cat", "error": "no"}]
    )
    assert told == {"a": "1: 3.142, not 2.5", "b": "2: cat, no answer"}


def test_a_page_shows_the_images_themselves(app: App) -> None:
    view, *_ = describe_evaluation(app, "evaluation-digits", page=True)
    assert view.page is not None
    text = Path(view.page).read_text()
    assert text.count('<img src="data:image/png;base64,') == 24


def test_texts_and_tables_are_told_by_their_words(app: App, flowers: Workspace) -> None:
    assert len(describe_evaluation(app, "evaluation-twenty", errors=3)) == 1
    made = world.evaluate_models(flowers, models=["points"], use_case="flowering", latency=False)["evaluation"]
    pool = Pool(flowers.folders, flowers.settings, size=1)
    (view,) = describe_evaluation(App(flowers, Engine(flowers), pool), made, errors=2, page=True)
    pool.close()
    assert view.untrusted is not None
    assert (view.untrusted.worst_examples or ())[0]["preview"].startswith("x: ")
    assert Path(view.page or "").read_text().count("<blockquote>") >= 24


def test_a_client_reads_the_page_as_html_and_the_report_as_json(app: App) -> None:
    async def read(address: str) -> TextResourceContents:
        with anyio.fail_after(120):
            async with Client(Server(app).mcp) as client:
                found = (await client.read_resource(f"speciate://evaluations/{address}")).contents[0]
        assert isinstance(found, TextResourceContents)
        return found

    page = anyio.run(read, "evaluation-twenty/page")
    assert page.mime_type == "text/html"
    assert page.text.startswith("<!DOCTYPE html>")
    told = anyio.run(read, "evaluation-twenty")
    assert told.mime_type == "application/json"
    assert json.loads(told.text)["metric"] == "accuracy"
