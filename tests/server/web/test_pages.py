"""What pages say, read without a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import pytest

from speciate import use_cases
from speciate.datasets.inspect import example_pages
from speciate.errors import Call, Code, SpeciateError
from speciate.evaluation.pages import formatting
from speciate.evaluation.pages import inline_charts as charts
from speciate.evaluation.pages.inline_charts import Bin, Line, Place, Whisker
from speciate.evaluation.pages.page_data import shade_step
from speciate.evaluation.reports.report import Decision, GateResult
from speciate.evaluation.reports.shown_media import Cell
from speciate.governance import approvals
from speciate.jobs.folder import RunFolder
from speciate.lineage.graph import Edge, Graph, Node
from speciate.lineage.linked_chart import linked_chart
from speciate.loop.status import Step, status
from speciate.loop.use_case_board import evaluations_of, read_board
from speciate.models import registry, sealed
from speciate.models.model_card import ModelCard
from speciate.server.changes import parts_of
from speciate.server.tool_api import NextAction
from speciate.server.web import site
from speciate.server.web.formats import next_step, page_advice
from speciate.server.web.pages import data
from speciate.server.web.pages.models import page_of
from speciate.server.web.routes import READS
from speciate.server.web.site import environment
from speciate.training.curve_charts import draw_curves
from speciate.use_cases import Definition, Gate, Objective
from speciate.workspace.database import Database, Event, Row, Transaction
from tests.conftest import ManualClock
from tests.evaluation import handmade
from tests.server.web.conftest import Served
from tests.training.world import make_dataset

NASTY = "<script>alert(1)</script>\"'&\u202e"


def test_the_first_page_shows_what_waits_what_serves_and_what_ran(served: Served) -> None:
    reader = served.reader()
    served.app.engine.submit("greet", {"name": "ada"})
    page = reader.get("/")
    assert "Let m@v2 serve digits?" in page.text
    assert re.search(r"digits .*m@v1", page.text)
    assert "greet" in page.text
    assert "looks only" in page.text
    assert reader.get("/part/badge").text == "1"


def test_pages_without_data_say_what_to_do(served: Served) -> None:
    reader = served.reader()
    assert "No dataset yet" in reader.get("/data").text
    assert "No model yet" in reader.get("/models").text
    assert "No evaluation yet" in reader.get("/use-cases/digits").text
    assert "Nothing waits" in reader.get("/use-cases/digits/queue").text
    assert "Nothing watches it" in reader.get("/use-cases/digits/production").text


def test_a_use_case_says_what_to_do_next(served: Served) -> None:
    plain = Definition(name="plain", task="image-classification", objective=Objective(metric="accuracy", target=0.9))
    served.workspace.database.transact(lambda tx: use_cases.define(tx, plain, policy="auto"))
    reader = served.reader()
    for path in ("/use-cases/plain", "/"):
        assert '<a class="link" href="/data"' in reader.get(path).html, path
    assert "specialize" in reader.get("/use-cases/plain").text
    step = next_step(NextAction(tool="cancel_all", arguments={"name": NASTY}))
    assert (step.words, step.href) == ("Cancel all", None)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/use-cases/nobody", 404), ("/runs/job-x", 404), ("/data/none/v1", 404), ("/approvals/approval-x", 404),
     ("/evaluations/evaluation-x", 404), ("/models/none/v1", 404), ("/examples/x", 400), ("/runs?state=odd", 400),
     ("/nothing", 404), ("/data/x/v1/examples?q=" + 500 * "a", 404)],
)  # fmt: skip
def test_what_is_not_there_is_said_plainly(served: Served, path: str, status: int) -> None:
    answer = served.reader().get(path)
    assert answer.status == status
    assert "<main" in answer.html
    said = answer.text.partition("To the content")[2]
    assert not re.search(r"\bcall\b|[a-z]_[a-z]+\(", said, re.IGNORECASE), "what an agent would do"


def test_a_refusal_says_what_a_person_can_do(served: Served) -> None:
    page = served.reader().get("/data/none/v1").html
    assert '<a class="button" href="/data">' in page
    assert served.reader().get("/approvals/approval-x").html.count('<a class="button" href="/approvals">') == 1
    advice = "Call train_model(name='m') again. Or free some of the disk."
    told = page_advice(
        SpeciateError(Code.UNAVAILABLE, "no", advice, next=[Call("get_job", {"job": "a"})]), "/use-cases/x"
    )
    assert told == ("Or free some of the disk.", {"/runs": "All runs", "/": "Use cases"})


def test_a_name_without_a_version_leads_to_the_newest(served: Served) -> None:
    reader = served.reader()
    make_dataset(served.workspace, "films", "tabular", {"n": [1]}, labels=["a"], splits=["test"])
    assert reader.get("/data/films").headers["location"] == "/data/films/v1"
    assert (reader.get("/data/none").status, reader.get("/models/none").status) == (404, 404)


def test_a_part_that_fails_says_so_in_its_place(served: Served) -> None:
    part = served.reader().get("/part/data/none/v1/histograms")
    assert part.status == 200
    assert "This part cannot be shown. There is no dataset" in part.text
    assert "<nav" not in part.html


def test_what_comes_later_can_be_read_without_javascript() -> None:
    for name in ("use_case.html", "dataset.html", "example.html", "evaluation.html"):
        text = (site.STATIC.parent / "templates" / name).read_text()
        later = re.findall(r'hx-get="(/part/[^\n]*?)" hx-trigger="load"', text)
        assert later
        assert re.findall(r'<noscript><a class="link" href="(/part/[^\n]*?)">Show it', text) == later


def test_a_lineage_leads_to_pages_and_escapes_names() -> None:
    nodes = [
        Node("dataset:films@v2", "dataset", "films@v2", {"rows": 3}),
        Node("job:job-1", "job", "job-1", {}),
        Node("model:m@v1", "model", "m@v1", {}),
        Node("base:hf:a/b", "base", NASTY, {}),
    ]
    edges = (Edge("dataset:films@v2", "job:job-1", "read"), Edge("job:job-1", "model:m@v1", "made"),
             Edge("base:hf:a/b", "job:job-1", "began"))  # fmt: skip
    drawn = linked_chart(Graph({each.id: each for each in nodes}, edges), ("model:m@v1",), page_of)
    assert re.findall(r'href="([^"]+)"', drawn) == ["/data/films/v2", "/runs/job-1"]
    assert drawn.count("<path") == 3
    assert "<script>" not in drawn
    assert 'class="node model start"' in drawn


def test_names_that_are_markup_are_text(served: Served) -> None:
    definition = Definition(
        name="plain", task="image-classification", objective=Objective(metric="accuracy", target=0.9),
        description=NASTY,
    )  # fmt: skip
    served.workspace.database.transact(lambda tx: use_cases.define(tx, definition, policy="auto"))
    page = served.reader().get("/use-cases/plain")
    assert "<script>alert" not in page.html
    assert "&lt;script&gt;alert(1)" in page.html
    assert "\u202e" not in page.html
    tile = data.Tile(NASTY, NASTY, None, "ok", NASTY, (("candidate", {"text": NASTY, "confidence": 1, "right": True}),))
    module = environment().get_template("tiles.html").module
    manifest = type("Manifest", (), {"name": NASTY, "version": 1, "ref": NASTY, "numeric": False})()
    for cells in ({}, {tile.id: Cell(NASTY, 1, 0, 2, 1)}):
        drawn = str(module.tile(manifest, tile.id, tile.label, tile.preview, tile.answers, cells, NASTY))  # type: ignore[attr-defined]
        assert ("<svg" in drawn) == bool(cells)
        assert "<script" not in drawn
        assert "\u202e" not in drawn
    assert "<script" not in charts.histogram([Bin(NASTY, 1, "/" + NASTY, 0.0, 1.0)], NASTY)
    assert "<script" not in charts.pareto([Place(NASTY, 1, 1, "candidate", False)], NASTY)


def test_a_run_is_stopped_only_as_it_was_shown(served: Served) -> None:
    reader = served.reader("decide")
    job = served.app.engine.submit("wait", {"name": "for ever"}).id
    page = reader.get(f"/runs/{job}")
    assert "Cancel" in page.text
    fields = {"csrf": page.csrf, "action": "cancel", "attempt": "7"}
    assert reader.post(f"/runs/{job}/control", fields).status == 409
    shown = str(served.app.engine.get(job).attempt)
    assert reader.post(f"/runs/{job}/control", fields | {"attempt": shown}).status == 303
    assert served.app.engine.get(job).state in ("cancelled", "cancelling")
    assert reader.post(f"/runs/{job}/control", fields | {"action": "delete"}).status == 400


def test_a_list_says_why_a_run_failed(served: Served) -> None:
    job = served.app.engine.submit("greet", {"name": "nobody"}).id
    served.app.engine.wait(job, timeout=20)
    for page in ("/runs", "/runs?state=failed", "/", f"/runs/{job}"):
        assert served.reader().get(page).text.count("Nobody can be greeted.") == 1, page


def test_a_run_with_a_verdict_shows_it_and_why_it_ended(served: Served) -> None:
    job = served.app.engine.submit("greet", {"name": "Ada"}).id
    served.app.engine.wait(job, timeout=20)
    assert "verdict" not in served.reader().get(f"/runs/{job}").text
    result = {
        "decision": {"verdict": "hold", "reasons": ["accuracy is 0.7 (0.6 to 0.8): misses 0.9", "and more"]},
        "ended": {"reason": "all_tried", "why": "Every method that suits was tried."},
    }

    def store(transaction: Transaction, texts: list[str]) -> list[None]:
        for text in texts:
            transaction.execute("UPDATE jobs SET result = ? WHERE id = ?", [text, job])
        return [None] * len(texts)

    served.app.workspace.database.write(store, json.dumps(result))
    shown = served.reader().get(f"/runs/{job}").text.split("All of it")[0]
    assert "hold Accuracy is 0.7 (0.6 to 0.8): misses 0.9. And more." in " ".join(shown.split())
    assert "Every method that suits was tried." in shown
    assert "It said nothing." in served.reader().get(f"/runs/{job}").text


def test_an_update_of_a_long_run_brings_what_is_new_alone(served: Served) -> None:
    reader, job = served.reader(), served.app.engine.submit("wait", {"name": "for ever"})
    folder = served.app.engine.folder(job)
    folder.outputs.mkdir(parents=True)
    lines = [json.dumps({"step": n, "loss": 1 / (n + 1), "held_value": n / 2e4}) for n in range(20_000)]
    metrics = folder.path / "metrics.jsonl"
    metrics.write_text("\n".join(lines) + "\n")
    folder.log.write_text("begun\n")
    page = reader.get(f"/runs/{job.id}").html
    shown = dict(re.findall(r'data-(shape|place|after|measures|log)="([^"]*)"', page))

    def more() -> dict[str, Any]:
        answer = reader.get(f"/part/runs/{job.id}/more?{urlencode(shown)}")
        assert len(answer.body) <= 2_000
        found: dict[str, Any] = json.loads(answer.body)
        shown.update({"after": str(found["after"]), "log": str(found["log_end"])} if "after" in found else {})
        return found

    assert (more()["lines"], more()["log"]) == ([], "")
    with metrics.open("a") as file, folder.log.open("a") as log:
        file.writelines(f'{{"step": {n}, "loss": 0.5, "learning_rate": 1e-4}}\n' for n in range(20_000, 20_200))
        file.write('{"step": 20200, "lo')
        log.write("a line of the log\n" * 100)
    found = more()
    assert found["lines"][-1] == {"step": 20_199, "loss": 0.5}
    assert found["again"], "the rest of the log comes with the next one"
    found = more()
    assert (found["lines"], len(found["log"]), found["again"]) == ([], 900, False)
    with metrics.open("a") as file:
        file.write('ss": 0.4}\n')
    assert more()["lines"] == [{"step": 20_200, "loss": 0.4}], "once it is written whole"
    with metrics.open("a") as file:
        file.write('{"step": 20201, "accuracy": 0.4}\n')
    assert more() == {"whole": True}, "a curve that the page does not have"
    metrics.write_text("")
    assert more() == {"whole": True}, "another file"


def _more(served: Served, job: str, shown: Mapping[str, object]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(served.reader().get(f"/part/runs/{job}/more?{urlencode(shown)}").body)
    return found


def _watched(served: Served) -> tuple[str, RunFolder, Callable[[], dict[str, str]]]:
    """A job, its folder, and how its page is opened: what that one knows."""
    reader, job = served.reader(), served.app.engine.submit("wait", {"name": "for ever"})
    folder = served.app.engine.folder(job)
    folder.outputs.mkdir(parents=True)
    folder.log.write_text("begun\n")
    known = r'data-(shape|place|after|measures|log)="([^"]*)"'
    return job.id, folder, lambda: dict(re.findall(known, reader.get(f"/runs/{job.id}").html))


def test_a_page_opened_before_the_first_line_gets_its_curves(served: Served) -> None:
    job, folder, opened = _watched(served)
    shown = opened()
    assert _more(served, job, shown)["lines"] == []
    (folder.path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n')
    assert _more(served, job, shown) == {"whole": True}
    assert "whole" not in _more(served, job, opened())


def test_an_update_of_many_lines_keeps_the_best(served: Served) -> None:
    job, folder, opened = _watched(served)
    folder.create({"payload": {"objective": {"metric": "mae"}}})
    metrics = folder.path / "metrics.jsonl"
    metrics.write_text('{"step": 0, "loss": 1, "held_loss": 1, "held_value": 2.4}\n')
    shown = opened()
    with metrics.open("a") as file:
        for step in range(1, 31):
            judged = {"held_loss": 0.9, "held_value": 0.3 if step == 13 else 0.8} if step % 2 and step < 29 else {}
            file.write(json.dumps({"step": step, "loss": 0.1 if step == 18 else 0.9, **judged}) + "\n")
    lines = _more(served, job, shown)["lines"]
    assert {13, 18, 30} <= {line["step"] for line in lines}
    assert len(lines) < 20


def test_the_best_of_an_error_is_the_least_and_of_what_is_not_known_none_is_said(served: Served) -> None:
    job, folder, _ = _watched(served)
    (folder.path / "metrics.jsonl").write_text(
        "".join(json.dumps({"step": n, "held_value": value}) + "\n" for n, value in enumerate((2.4, 0.9, 0.31, 0.4)))
    )
    page = served.reader().get(f"/runs/{job}")
    assert re.search(r"held value *0\.4", page.text)
    assert "best" not in page.text
    assert "data-best" not in page.html
    folder.create({"payload": {"objective": {"metric": "mae"}}})
    page = served.reader().get(f"/runs/{job}")
    assert "best 0.31 at 2" in page.text
    assert 'data-best="0.31" data-lower' in page.html


def test_a_page_that_is_far_behind_the_log_asks_for_its_end(served: Served) -> None:
    job, folder, opened = _watched(served)
    with folder.log.open("ab") as file:
        file.write("ö".encode()[:1])
    shown = opened()
    assert shown["log"] == "6", "what is cut off comes with the next update"
    assert not _more(served, job, shown)["again"]
    with folder.log.open("ab") as file:
        file.write("ö".encode()[1:] + "né\n".encode() * 3_000)
    brought = "ö" + "né\n" * 3_000
    for _ in range(3):
        found = _more(served, job, shown)
        assert found["again"]
        assert brought.startswith(found["log"])
        brought, shown["log"] = brought[len(found["log"]) :], found["log_end"]
    with folder.log.open("ab") as file:
        file.write(b"x" * 199 * 1_000)
    assert _more(served, job, shown) == {"whole": True}


@pytest.mark.parametrize("number", ["nan", "inf", "-5", "1.5", "1e400", "x", "9" * 50])
def test_what_is_no_place_of_a_file_is_refused(served: Served, number: str) -> None:
    job, *_ = _watched(served)
    for name in ("after", "log"):
        assert served.reader().get(f"/part/runs/{job}/more?{name}={number}").status == 400


def test_the_audit_is_shown_with_its_check(served: Served) -> None:
    page = served.reader().get("/audit")
    assert "1 rows, each bound to the one before it" in page.text
    assert "nothing → m@v1" in page.text
    row = served.workspace.database.read("SELECT evidence FROM audit")[0][0]
    names = [name for name in json.loads(row) if "_" in name]
    assert names
    assert not [name for name in names if name in page.text], "names are words"
    served.workspace.database.transact(lambda tx: tx.execute("UPDATE audit SET actor = 'eve'"))
    assert "was changed after it was written" in served.reader().get("/audit").text


def test_the_audit_shows_its_grounds_whole(served: Served) -> None:
    reason, expires = "because " * 100 + "<b>of it</b>", 1795762740.5
    grounds = json.dumps({"reasons": [reason], "note": reason, "expires": expires, "usd_cap": 12345.678})
    served.workspace.database.transact(lambda tx: tx.execute("UPDATE audit SET evidence = ?", [grounds]))
    page = served.reader().get("/audit")
    assert page.text.count(reason) == 2
    assert formatting.format_minute(expires) in page.text
    assert "12345.678" in page.text


def test_settings_are_read_and_never_written(served: Served) -> None:
    page = served.reader("decide").get("/settings")
    assert "policy" in page.text
    assert "speciate policy auto | person" in page.text
    assert page.html.count("<form") == 1, "to sign out"


def test_curves_keep_the_last_and_the_best_value() -> None:
    lines = [{"step": n, "loss": 1 / (n + 1), "held_value": 0.5 + 0.1 * (n == 70)} for n in range(100)]
    loss, held = draw_curves(lines, 1)
    assert (loss.title, held.title) == ("Loss", "On held-out examples")
    assert [line.thin for line in loss.lines] == [True, False]
    assert loss.lines[-1].points[-1][0] == 99
    assert [tuple(each) for each in loss.found] == [("loss", 0.01, (0.01, 99.0, True))]
    assert [tuple(each) for each in held.found] == [("held_value", 0.5, (0.6, 70.0, False))]
    assert [each.best for each in draw_curves(lines)[1].found] == [None]
    assert len(held.lines) == 1
    assert draw_curves([{"step": 1, "loss": None}, {"step": 2, "loss": "x"}]) == []


def test_conditions_of_a_grid_are_sql_that_says_only_that(served: Served) -> None:
    assert example_pages._text("o'neil\0") == "'o''neil'"
    assert example_pages._quoted('a"b') == '"a""b"'
    assert example_pages._like("50%_\\") == "50\\%\\_\\\\"


def test_numbers_and_times_are_read_easily() -> None:
    told = [formatting.format_duration(seconds) for seconds in (None, 0.31, 41, 158, 9480, 200_000)]
    assert told == ["–", "0.3 s", "41 s", "2 min 38 s", "2 h 38 min", "2 d 7 h"]
    assert [formatting.format_ago(100.0 - s, 100.0) for s in (0, 30, 600)] == ["now", "30 s ago", "10 min ago"]
    assert formatting.format_ago(400.0, 100.0) == "in 5 min"
    assert [formatting.format_bytes(n) for n in (5, 12_731_140, 271e9)] == ["5 B", "12.7 MB", "271 GB"]
    assert formatting.shorten("a" * 60, 20) == "a" * 9 + "…" + "a" * 10
    assert formatting.as_sentence("it was slow") == "It was slow."
    reasons = [formatting.as_sentence(f"{metric} is 0.7") for metric in ("mae", "f1_macro", "accuracy")]
    assert reasons == ["mae is 0.7.", "f1_macro is 0.7.", "Accuracy is 0.7."]


def test_charts_have_words_for_those_who_do_not_see_them() -> None:
    drawn = charts.lines([Line("loss", "candidate", [(0, 1.0), (1, float("nan")), (2, 0.5)])], "Loss")
    assert 'role="img"' in drawn
    assert 'aria-label="Loss"' in drawn
    assert "nan" not in drawn
    assert charts.lines([], "Loss") == ""
    scale = charts.whisker_scale([Whisker(None, None)])
    assert "circle" not in charts.whisker(Whisker(None, None), scale, "candidate")
    assert 'width="0.0%"' in charts.bar(float("nan"))


def test_events_name_the_parts_that_show_them() -> None:
    assert parts_of(Event(1, 0.0, "job-a", "job.started", {})) == ["runs", "job:job-a"]
    assert parts_of(Event(1, 0.0, "approval:x", "approval.decided", {})) == ["approvals", "status", "runs"]
    assert parts_of(Event(1, 0.0, "use_case:x", "alias.moved", {})) == ["status", "use_case"]


def test_the_shade_of_a_cell_tells_rare_mistakes() -> None:
    assert shade_step(0.3, right=False) > shade_step(0.3, right=True)
    assert {shade_step(share, right=True) for share in (0.0, 1.0)} == {0, 3}


def _keep_evaluation(database: Database, values: list[object]) -> None:
    database.transact(lambda tx: tx.execute("INSERT INTO evaluations VALUES (?, ?, ?, ?, ?, ?, ?)", values))


def test_a_use_case_shows_what_was_decided_on_and_not_what_was_asked_for_beside(served: Served) -> None:
    database = served.workspace.database
    rows = [("evaluation-1", "films@v1:test", 1.0), ("evaluation-2", "films@v2:test", 2.0), ("beside", "toys@v1", 3.0)]
    for name, dataset, made in rows:  # the first two have decisions
        _keep_evaluation(database, [name, "digits", dataset, "m@v1", "{}", None, made])
    found = evaluations_of(database, "digits", 9)
    assert [(each.id, each.decided) for each in found] == [
        ("evaluation-2", True), ("evaluation-1", True), ("beside", False),
    ]  # fmt: skip
    engine = served.app.engine
    search, look = engine.submit("greet", {}).id, engine.submit("greet", {"name": "Ada"}).id
    changes = (
        ("UPDATE jobs SET parent = ? WHERE id = ?", search, look),
        ("UPDATE evaluations SET job = ? WHERE id = ?", look, "evaluation-2"),
        ("UPDATE jobs SET result = ? WHERE id = ?", '{"evaluation": "evaluation-1"}', search),
        ("UPDATE decisions SET created = created + 1 WHERE evaluation = ?", "evaluation-2"),
    )
    for change, *values in changes:
        database.transact(lambda tx, change=change, values=values: tx.execute(change, values))
    told = evaluations_of(database, "digits", 9)
    assert [each.id for each in told] == ["evaluation-1", "evaluation-2", "beside"], "of a search, what it told"
    approvals.decide(served.workspace, served.approval, False, "grace")
    (shown,) = status(served.workspace, "digits").use_cases
    assert shown.next_steps == [Step("describe_evaluation", {"evaluation": "evaluation-1"})]
    suites = (None, "films", "films@v2:test", "films@v3", "toys")
    assert [found[0].is_on(suite) for suite in suites] == [True, True, True, False, False]


def test_a_leaderboard_marks_what_serves_however_far_down_it_is(served: Served) -> None:
    rows = [handmade.row("m@v1", 0.5), *(handmade.row(f"other@v{place}", 0.6) for place in range(1, 16))]
    for use_case, tag in (("digits", "production"), (None, "digits@production")):
        told = handmade.report([*rows, handmade.row("m@v2", 0.9)], use_case=use_case)
        board = f"board-{use_case}"
        _keep_evaluation(
            served.workspace.database, [board, use_case, "gone@v1", "m@v1", told.model_dump_json(), None, 9.0]
        )
        leaders = read_board(served.workspace, board, None).lines
        assert {line.row.model: line.serves for line in leaders if line.serves} == {"m@v1": tag}
        assert len(leaders) == 15
    assert re.search(r"m@v1 production", served.reader().get("/use-cases/digits").text)


def test_a_newer_and_worse_run_does_not_hide_the_best_model(served: Served) -> None:
    database = served.workspace.database
    measured = [
        ("first", "films@v1:test", 1.0, [("m@v7", 0.889), ("m@v1", 0.8)]),
        ("on-others", "toys@v1", 2.0, [("m@v8", 0.95)]),
        ("on-chosen-by", "films@v1:validation", 2.5, [("m@v6", 0.99)]),
        ("newest", "films@v1:test", 3.0, [("m@v9", 0.702), ("m@v1", 0.79)]),
    ]  # fmt: skip
    for name, dataset, made, models in measured:
        told = handmade.report([handmade.row(model, value) for model, value in models], use_case="digits")
        told = told.model_copy(update={"dataset": dataset})
        _keep_evaluation(database, [name, "digits", dataset, "m@v1", told.model_dump_json(), None, made])
    board = read_board(served.workspace, "newest", 0.9, with_earlier=True)
    assert [(line.row.model, line.row.value, line.earlier) for line in board.lines] == [
        ("m@v7", 0.889, "first"), ("m@v1", 0.79, None), ("m@v9", 0.702, None),
    ]  # fmt: skip
    assert board.best_elsewhere
    assert (board.best_elsewhere.model, board.best_elsewhere.evaluation) == ("m@v8", "on-others")
    assert [line.row.model for line in read_board(served.workspace, "newest", 0.9).lines] == ["m@v1", "m@v9"]


def test_a_verdict_tells_its_figures_and_no_free_method_gets_a_tick_as_a_gate_does(served: Served) -> None:
    told = handmade.report([handmade.row("m@v1", 0.6), handmade.row("nearest:", 0.61)], use_case="digits")
    gates = [
        GateResult(gate=Gate(rule="unseen"), outcome="pass", reason="none of these examples was seen"),
        GateResult(gate=Gate(rule="not_worse"), outcome="pass", reason="gain 0.3 (0.2 to 0.4): not worse"),
        GateResult(gate=Gate(rule="free_method"), outcome="pass", reason="not shown to be better"),
    ]
    decision = Decision(
        verdict="promote", reasons=tuple(gate.reason for gate in gates), gates=tuple(gates), candidate="m@v1",
        baseline="constant:", dataset="gone@v1", n=9, level=0.95,
    )  # fmt: skip
    told = told.model_copy(update={"decision": decision})
    _keep_evaluation(
        served.workspace.database, ["beside", "digits", "gone@v1", "m@v1", told.model_dump_json(), None, 9.0]
    )
    shown = served.reader().get("/use-cases/digits").text
    assert "promote Gain 0.3 (0.2 to 0.4): not worse. Not shown to be better." in " ".join(shown.split())
    page = served.reader().get("/evaluations/beside")
    assert re.findall(r'<li class="(\w+)">', page.html)[:3] == ["pass", "pass"]
    assert "Not shown to be better." in page.text


def test_the_page_of_a_model_says_how_it_was_made_and_of_which_learners(served: Served) -> None:
    staged = served.workspace.folders.runs / "staged"
    staged.mkdir(parents=True)
    (staged / "weights.txt").write_text("none")
    members = [
        {"learner": "boosting", "settings": "rounds 50", "reads": "columns", "weight": 0.75},
        {"learner": "svm", "settings": "", "reads": NASTY, "weight": 0.25},
    ]
    card = ModelCard(
        name="mean", task="tabular-classification", modality="tabular", method="classical", id=sealed.seal(staged),
        recipe={"parameters": {"thorough": True}, "members": members},
    )  # fmt: skip
    workspace = served.workspace
    workspace.database.transact(lambda tx: registry.register(tx, workspace.folders, card, staged))
    page = served.reader().get("/models/mean/v1")
    shown = " ".join(page.text.split())
    assert "classical-thorough" in shown
    assert "boosting rounds 50 columns 0.75 svm the usual ones" in shown
    assert "<script>alert" not in page.html
    assert "classical-thorough" in served.reader().get("/models").text


def test_every_template_is_used_and_every_page_has_one() -> None:
    known = set(environment().list_templates())
    used = {each.template for each in READS}
    assert used <= known
    helpers = {"base.html", "macros.html", "tiles.html", "view.html", "error.html", "part_error.html", "open.html",
               "login.html"}  # fmt: skip
    assert known - used == helpers


def test_a_label_waits_for_a_moment_and_can_be_taken_back(served: Served) -> None:
    reader = served.reader("decide")
    csrf = reader.get("/").csrf
    fields = {"csrf": csrf, "prediction": "pred-x", "label": "7", "drawn": "random", "model": "m@v1"}
    assert json.loads(reader.post("/use-cases/digits/label", fields).body) == {"held": "pred-x"}
    undone = json.loads(reader.post("/use-cases/digits/undo", {"csrf": csrf}).body)
    assert undone == {"undone": "pred-x"}
    assert json.loads(reader.post("/use-cases/digits/undo", {"csrf": csrf}).body) == {"undone": None}


def test_a_label_that_could_not_be_stored_is_told_once_on_the_queue(served: Served) -> None:
    reader = served.reader("decide")
    csrf = reader.get("/").csrf
    fields = {"csrf": csrf, "label": "7", "drawn": "random", "model": "m@v1"}
    for name in ("pred-x", "pred-y"):  # the second stores the first, which no log knows
        reader.post("/use-cases/digits/label", {**fields, "prediction": name})
    told = [reader.get("/use-cases/digits/queue").text for _ in range(2)]
    assert ["The label of pred-x was not stored" in each for each in told] == [True, False]


def test_a_page_reads_what_was_committed_and_nothing_twice(
    served: Served, monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    reader, read, plain = served.reader(), list[str](), Database._read

    def note(self: Database, sql: str, parameters: Sequence[object]) -> list[Row]:
        read.append(f"{sql} {parameters}")
        return plain(self, sql, parameters)

    monkeypatch.setattr(Database, "_read", note)
    for path in ("/use-cases/digits", "/use-cases/digits/production", "/"):
        served.workspace.database.transact(lambda tx: tx.event("use_case:digits", "test.looked"))
        reader.get(path)
        assert len(read) == len(set(read)) > 0, path
        read.clear()
        clock.advance(30)
        reader.get(path)
        assert [each for each in read if "stamp >= ?" not in each] == [], path
        read.clear()
