"""What is watched in a real browser goes on: a run's curves, progress and log, and every page that shows what changes.

Needs Chromium and the extra `browser`; without them this test says so and is skipped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from speciate.governance import approvals, policy
from speciate.jobs.run import Run
from speciate.models import registry, sealed
from speciate.models.model_card import ModelCard
from speciate.predictions.log import AnsweringModel, AnswerLog
from speciate.predictions.log_files import log_folder
from speciate.settings import Log
from speciate.workspace.database import Transaction
from tests.evaluation import handmade
from tests.modalities.samples import SAMPLES
from tests.promotion import world
from tests.server.web.conftest import Served
from tests.server.web.sights import seen
from tests.server.web.test_browser import WATCH, Tab, chromium, note_problems

pytestmark = pytest.mark.slow
__all__ = ["chromium"]


@pytest.fixture
def tab(served: Served, chromium: Any) -> Iterator[Tab]:
    """A browser that only looks."""
    context = chromium.new_context()
    context.add_init_script(WATCH)
    page, problems = context.new_page(), list[str]()
    note_problems(page, problems)
    page.goto(served.link())
    page.wait_for_url("**/", timeout=30_000)
    yield Tab(page, problems, page.url.rstrip("/"))
    assert problems == []
    context.close()


def listens(tab: Tab) -> None:
    """Wait until the page hears what changes."""
    tab.until(lambda: tab.page.evaluate("window.htmx !== undefined"), "htmx is there")
    tab.page.wait_for_timeout(700)


def test_a_run_whose_worker_writes_only_progress_or_curves_of_a_candidate_is_drawn_on(served: Served, tab: Tab) -> None:
    """By the names that workers write: a network that trains says nothing in its log for minutes."""
    job = served.app.engine.submit("wait", {"name": "for ever"})
    folder = served.app.engine.folder(job)
    folder.create({"job": job.id, "workspace": str(served.workspace.folders.root), "payload": {}})
    page, run = tab.go(f"/runs/{job.id}"), Run(folder)
    listens(tab)
    run.progress(40, 100, "steps")
    tab.until(lambda: "40 of 100 steps" in page.inner_text("main"), "its progress")
    metrics = folder.path / "metrics-candidate-0.jsonl"
    metrics.write_text("".join(json.dumps({"step": n, "loss": 2 - n / 200}) + "\n" for n in range(20)))
    tab.until(lambda: page.query_selector("[data-measure=loss]"), "its curves")
    with metrics.open("a") as file:
        file.write('{"step": 20, "loss": 1.5}\n')
    tab.until(lambda: page.inner_text("[data-measure=loss] span") == "1.5", "what its curves go on with")
    page.wait_for_timeout(700)
    run.progress(60, 100, "steps")
    tab.until(lambda: "60 of 100 steps" in page.inner_text("#far"), "its progress again")


def test_a_part_starts_however_late_htmx_comes(served: Served, tab: Tab) -> None:
    """Also between the two ends of loading: the document is parsed, and an image still on its way."""
    images, scripts, page = list[Any](), list[Any](), tab.page
    page.add_init_script(
        "addEventListener('DOMContentLoaded', () => { window.parsed = true; const late = new Image();"
        "late.src = '/media/held.png'; document.body.append(late); });"
    )

    def hold(route: Any) -> None:
        (scripts if route.request.url.endswith(".js") else images).append(route)

    page.route("**/media/held.png", hold)
    page.route("**/histograms", lambda route: route.fulfill(body='<p class="columns">Counted</p>'))
    page.route("**/htmx.min.js", hold)
    listens(tab)
    name = seen(served.workspace, SAMPLES[0]).ref.replace("@", "/")
    page.goto(f"{tab.base}/data/{name}", wait_until="commit")
    tab.until(lambda: images and scripts and page.evaluate("window.parsed"), "it is parsed, and htmx asked for")
    scripts[0].continue_()
    tab.until(lambda: page.evaluate("window.htmx !== undefined"), "htmx is there")
    tab.until(lambda: page.query_selector(".waits .columns"), "the part")
    assert page.evaluate("document.readyState") == "interactive", "the image is awaited"
    assert page.evaluate("htmx.config.allowEval") is False, "as the page sets it"
    images[0].abort()
    page.wait_for_timeout(200)
    tab.problems.clear()  # of the image


def test_pages_show_what_changes_and_keep_what_their_reader_does(served: Served, tab: Tab) -> None:
    """Use case, production, data, models, approvals, audit: each by an event of its own, without a load."""
    workspace, page = served.workspace, tab.page

    def register() -> None:
        staged = workspace.folders.runs / "staged"
        staged.mkdir(parents=True)
        (staged / "weights.txt").write_text("none")
        card = ModelCard(name="newcomer", task="text-classification", method="classical", id=sealed.seal(staged))
        workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, staged))

    def measure(tx: Transaction) -> None:
        told = handmade.report([handmade.row("m@v1", 0.875)], use_case="digits").model_dump_json()
        values = ["it", "digits", "films@v1", "m", told, None, 1.0]
        tx.execute("INSERT INTO evaluations VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        tx.event("use_case:digits", "evaluation.created", {})

    def ask() -> None:
        world.judge(workspace, "m@v3", baseline="m@v1", evaluation="evaluation-3")
        world.ask_promotion(workspace, "m@v3", policy="person")

    first = served.approval
    steps: tuple[tuple[str, Callable[[], object], str], ...] = (
        ("/data", lambda: seen(workspace, SAMPLES[0]), "see-text"),
        ("/models", register, "newcomer"),
        ("/use-cases/digits", lambda: workspace.database.transact(measure), "0.875"),
        ("/approvals", ask, "m@v3"),
        (
            "/use-cases/digits/production",
            lambda: approvals.decide(workspace, first, True, "grace"),
            "now, move 2",
        ),
        ("/audit", lambda: policy.confirm(workspace, ["none"], "ada", {}), "settings"),
    )
    for path, change, shown in steps:
        tab.go(path)
        listens(tab)
        page.evaluate("window.kept = true")
        assert shown not in page.inner_text("main"), path
        change()
        tab.until(lambda: shown in page.inner_text("main"), f"{path} shows {shown}")  # noqa: B023 - at once
        assert page.evaluate("window.kept"), f"{path} was loaded anew"


def test_a_queue_that_was_empty_shows_what_was_asked_and_a_form_keeps_what_was_typed(served: Served, tab: Tab) -> None:
    page = tab.go("/use-cases/digits/queue")
    listens(tab)
    assert "Nothing waits" in page.inner_text("main")
    page.evaluate(_CUT_OFF_ONCE)
    _log_answer(served, "digits", "m@v1", "a drawn seven")
    tab.until(lambda: page.evaluate("window.cut === true"), "a daemon that ended amid its answer")
    assert "Nothing waits" in page.inner_text("main")
    _log_answer(served, "digits", "m@v1", "a drawn seven")
    tab.until(lambda: "a drawn seven" in page.inner_text("main"), "the answer")
    page.goto(served.link("decide"))
    page.wait_for_url("**/", timeout=30_000)
    approvals.decide(served.workspace, served.approval, True, "grace")
    tab.go("/use-cases/digits/production")
    listens(tab)
    page.fill("input[name=reason]", "it was slow")
    world.judge(served.workspace, "m@v3", baseline="m@v2", evaluation="evaluation-3")
    world.ask_promotion(served.workspace, "m@v3")
    tab.until(lambda: "Roll back m@v3" in page.inner_text("main"), "what would be rolled back is another")
    assert page.input_value("input[name=reason]") == "it was slow"
    assert page.evaluate("document.activeElement.name") == "reason"


_CUT_OFF_ONCE = """() => {
  const whole = window.fetch, cut = (body) => body.error(new TypeError("cut off"));
  window.fetch = async () => {
    window.fetch = whole;
    window.cut = true;
    return new Response(new ReadableStream({ start: cut }));
  };
}"""


def _log_answer(served: Served, use_case: str, model: str, text: str) -> None:
    log = AnswerLog(log_folder(served.workspace.folders, use_case), Log(), served.workspace.clock)
    answer = {"output": "7", "confidence": 0.5, "error": None}
    assert log.note(log.ids(1), [{"id": "0", "text": text}], [answer], AnsweringModel(model, 1, "text"), 1.0)
    log.close()


def test_a_page_of_a_run_draws_on_what_comes(served: Served, chromium: Any) -> None:
    job = served.app.engine.submit("wait", {"name": "for ever"})
    folder = served.app.engine.folder(job)
    folder.outputs.mkdir(parents=True)
    metrics = folder.path / "metrics.jsonl"
    metrics.write_text("".join(json.dumps({"step": n, "loss": 2 - n / 200}) + "\n" for n in range(200)))
    folder.log.write_text("begun\n")
    context = chromium.new_context()
    context.add_init_script(WATCH)
    page, problems, answers = context.new_page(), list[str](), list[Any]()
    note_problems(page, problems)
    page.goto(served.link())
    page.wait_for_url("**/", timeout=30_000)
    tab = Tab(page, problems, page.url.rstrip("/"))
    tab.go(f"/runs/{job.id}")
    tab.until(lambda: page.evaluate("window.htmx !== undefined"), "the stream is open")
    page.wait_for_timeout(600)
    page.on("response", lambda answer: answers.append(answer) if "/part/runs/" in answer.url else None)
    with metrics.open("a") as file:
        file.write('{"step": 400, "loss": 1.5}\n')
    with folder.log.open("a") as file:
        file.write("half of it is done\n")
    tab.until(lambda: "half of it" in page.inner_text(".log"), "the log goes on")
    assert page.text_content("[data-end]") == "step 400"
    ends = page.evaluate(
        "[...document.querySelectorAll('[data-line]')].map((e) => e.points.getItem(e.points.numberOfItems - 1).x)"
    )
    assert ends == [550, 550], "the curve and its mean go on to the right end"
    assert page.inner_text("[data-measure=loss] span") == "1.5"
    assert [("/more" in each.url, len(each.body()) < 2_000) for each in answers] == [(True, True)] * len(answers)
    with metrics.open("a") as file:
        file.write('{"step": 401, "loss": 9}\n')
    tab.until(lambda: any("/more" not in each.url for each in answers), "all anew")
    tab.until(lambda: "best 1.005 at 199" in page.inner_text("main"), "with the best of all lines")
    tab.until(lambda: page.inner_text("[data-measure=loss] span") == "9", "an axis that has room for it")
    assert problems == []
    context.close()


def test_ten_tabs_all_hear_what_changed_and_one_that_closes_leaves_none_deaf(served: Served, chromium: Any) -> None:
    """A browser has six connections to a host, and a stream takes one for as long as its page is open."""
    context = chromium.new_context()
    pages, problems = [context.new_page()], list[str]()
    pages[0].goto(served.link())
    pages[0].wait_for_url("**/", timeout=30_000)
    tab = Tab(pages[0], problems, pages[0].url.rstrip("/"))
    job = served.app.engine.submit("wait", {"name": "for ever"})
    folder = served.app.engine.folder(job)
    folder.outputs.mkdir(parents=True)
    for path in ("/", "/runs", f"/runs/{job.id}", "/runs", "/runs", "/runs", f"/runs/{job.id}", "/runs", "/runs"):
        pages.append(context.new_page())
        note_problems(pages[-1], problems)
        pages[-1].goto(tab.base + path)
    for page in pages:
        tab.until(lambda: page.evaluate("window.htmx !== undefined"), "it listens")  # noqa: B023 - at once
    pages[0].wait_for_timeout(1500)
    for name in ("ada", "grace"):
        submitted = served.app.engine.submit("greet", {"name": name}).id
        lists = [page for page in pages if "/runs/" not in page.url]
        for page in lists:
            tab.until(lambda: submitted in page.inner_text("main"), f"{name} is seen")  # noqa: B023 - at once
        pages.pop(0).close()  # the one that heard for all
        tab = tab._replace(page=pages[0])
        pages[0].wait_for_timeout(700)
    folder.log.write_text("half of it is done\n")
    for page in pages:
        if page.url.endswith(job.id):
            tab.until(lambda: "half of it" in page.inner_text("main"), "both pages of a run")  # noqa: B023 - at once
    assert problems == []
    context.close()
