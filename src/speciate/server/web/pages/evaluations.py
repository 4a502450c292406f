"""An evaluation: its decision, leaderboard, comparisons, slices and confusion, and the grid of what it judged."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import HTMLResponse, Response

from speciate.evaluation.pages.page import POLICY, render_page
from speciate.evaluation.pages.page_data import describe_gate, gather, shaded_matrix
from speciate.evaluation.pages.svg_charts import Scale
from speciate.evaluation.reports.answer_rows import SHOWN
from speciate.evaluation.reports.describe_evaluation import Inspection, against_baseline
from speciate.evaluation.reports.report import GateResult
from speciate.loop.use_case_board import read_board
from speciate.server.web.pages.data import TILES, Tile, cells_of, follow_of
from speciate.server.web.visit import Visit

_PAIRS, _LABELS = 12, 12


def evaluation(visit: Visit) -> Mapping[str, object]:
    name = visit.path["id"]
    found = Inspection(visit.app.workspace, visit.app.pool, name, visit.asked("baseline"))
    report = found.report
    comparisons = against_baseline(report, found.baseline)
    target = next(
        (gate.gate.value for gate in (report.decision.gates if report.decision else ()) if gate.gate.rule == "reaches"),
        None,
    )
    decision = report.decision
    said = {each.reason for each in decision.gates} if decision else set()
    reasons = [each for each in decision.reasons if each not in said] if decision else []
    return {
        "title": f"Evaluation {name}",
        "reasons": reasons,
        "notes": [each for each in report.notes if each not in said and each not in reasons],
        "id": name,
        "report": report,
        "created": found.created,
        "board": read_board(visit.app.workspace, name, target),
        "target": target,
        "baseline": found.baseline,
        "candidate": found.candidate,
        "comparisons": comparisons,
        "difference_scale": Scale.of(end for one in comparisons for end in (0.0, one.delta, *(one.interval or ()))),
        "beside": [each for each in (decision.gates if decision else ()) if _holds_nothing(each)],
        "gates": [(describe_gate(each.gate), each) for each in (decision.gates if decision else ())],
        "dataset": report.dataset.partition(":")[0],
        "manifest": found.manifest,
    }


def _holds_nothing(result: GateResult) -> bool:
    """Whether it is a comparison with a free method, which passes what is not shown to be better."""
    return result.gate.rule == "free_method" and result.outcome == "pass"


def errors(visit: Visit) -> Mapping[str, object]:
    """Slices, confusion and calibration: asked for apart, for the sandbox reads the rows."""
    found = Inspection(visit.app.workspace, visit.app.pool, visit.path["id"], visit.asked("baseline"))
    answers = [row.model.removeprefix("column:") for row in found.report.leaderboard if row.model.startswith("column:")]
    slices = found.ask("slice_metrics:slices_by_columns", but=answers)
    confusion = found.ask("error_analysis:confusion", models=found.pair[:1], pairs=_PAIRS, labels=_LABELS)["models"]
    calibration = found.ask("error_analysis:calibration", models=found.pair)["models"]
    every = [one for cut in slices["columns"] for one in cut["slices"]]
    alone = len(found.pair) == 1
    scale = Scale.of(end for one in every for end in (0.0, one["delta"], *(one["interval"] or ())))
    return {
        "title": "", "id": visit.path["id"], "slices": slices, "alone": alone, "scale": scale,
        "confusion": [shaded_matrix(each) for each in confusion],
        "calibration": [each for each in calibration if each["n"]],
        "candidate": found.candidate, "baseline": found.baseline,
    }  # fmt: skip


def grid(visit: Visit) -> Mapping[str, object]:
    """What was judged, with both models' answers: where they differ, where both err, by the cells of the table."""
    name = visit.path["id"]
    found = Inspection(visit.app.workspace, visit.app.pool, name, visit.asked("baseline"))
    show = visit.one_of("show", SHOWN, "all")
    label, answered, after = visit.asked("label"), visit.asked("answered"), visit.asked("after")
    page = found.ask(
        "answer_rows:judged_page", show=show, label=label, answered=answered, after=after or "", count=TILES
    )
    tiles = [
        Tile(each["id"], each["label"], None, "ok", each["preview"],
             (("candidate", each["candidate"]), ("baseline", each["baseline"])))
        for each in page["examples"]
    ]  # fmt: skip
    shown = [(key, f"{words} {value}") for key, words, value in
             (("label", "label is", label), ("answered", "answered", answered)) if value]  # fmt: skip
    return {
        "title": f"What {name} judged", "manifest": found.manifest, "tiles": tiles,
        "cells": cells_of(visit, found.manifest, [tile.id for tile in tiles]),
        "next": tiles[-1].id if page["more"] else None, "shown": shown, "after": after, "label": label, "split": None,
        "quality": "ok", "words": None, "evaluation": name, "show": show, "totals": page["totals"], "total": None,
        "candidate": found.candidate, "baseline": found.baseline, "labels": [], "splits": [],
        "follow": follow_of(visit),
    }  # fmt: skip


def report(visit: Visit, asked_for: str | None) -> Response:
    """The evaluation as one file, which can be sent to somebody. It brings its own policy, and asks for nothing."""
    text = render_page(gather(visit.app.workspace, visit.app.pool, visit.path["id"]))
    return HTMLResponse(text, headers={"content-security-policy": f"{POLICY}; sandbox; frame-ancestors 'none'"})
