"""A run that is watched in a real browser: its curves and its log go on, and each update brings what is new alone.

Needs Chromium and the extra `browser`; without them this test says so and is skipped.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.web.conftest import Served
from tests.server.web.test_browser import WATCH, Tab, chromium, note_problems

pytestmark = pytest.mark.slow
__all__ = ["chromium"]


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
