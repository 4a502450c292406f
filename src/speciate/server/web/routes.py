"""Every address of the pages, in three tables: what shows a page, what sends bytes, and what changes something.

Each names its act; `governance/roles.py` has whose it is. The guard answers no address that stands in no table, and
`tests/server/web/test_attacks.py` and `test_team.py` try each with everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from starlette.responses import Response
from starlette.routing import compile_path

from speciate.governance.roles import Act
from speciate.server.web import media
from speciate.server.web.pages import (
    approvals,
    data,
    deciding,
    evaluations,
    home,
    keys,
    labelling,
    models,
    runs,
    trail,
    use_case,
)
from speciate.server.web.visit import Visit


class Read(NamedTuple):
    path: str
    template: str
    show: Callable[[Visit], Mapping[str, object] | str]
    """What the template shows, or the address that does. Raises SpeciateError."""
    act: Act = Act.LOOK


class Send(NamedTuple):
    path: str
    send: Callable[[Visit, str | None], Response]
    """The second argument: the Range that was asked for."""
    act: Act = Act.LOOK


class Write(NamedTuple):
    path: str
    act: Act
    do: Callable[[Visit], str | Mapping[str, object]]
    """Does the act; returns where the browser goes next, or, for a script of ours, an answer."""
    about: Callable[[Visit], str | None] = lambda visit: visit.path.get("name")
    """The use case that it is done on. Raises SpeciateError."""
    answers: bool = False
    """Whether a script asks, which wants a refusal as JSON."""
    longest: int = 64 << 10
    """Bytes of its form."""


READS = (
    Read("/", "home.html", home.home),
    Read("/use-cases/{name}", "use_case.html", use_case.use_case),
    Read("/use-cases/{name}/production", "production.html", use_case.production),
    Read("/use-cases/{name}/queue", "queue.html", labelling.queue),
    Read("/runs", "runs.html", runs.listed),
    Read("/runs/{job}", "run.html", runs.run),
    Read("/data", "data.html", data.listed),
    Read("/data/{name}", "dataset.html", data.newest),
    Read("/data/{name}/v{version:int}", "dataset.html", data.version),
    Read("/data/{name}/v{version:int}/examples", "grid.html", data.grid),
    Read("/examples/{id}", "example.html", data.example),
    Read("/evaluations/{id}", "evaluation.html", evaluations.evaluation),
    Read("/evaluations/{id}/examples", "grid.html", evaluations.grid),
    Read("/models", "models.html", models.listed),
    Read("/models/{name}", "model.html", models.newest),
    Read("/models/{name}/v{version:int}", "model.html", models.model),
    Read("/approvals", "approvals.html", approvals.listed),
    Read("/approvals/{id}", "approval.html", approvals.approval),
    Read("/audit", "audit.html", trail.audit),
    Read("/requests", "requests.html", trail.requests, Act.INSPECT),
    Read("/settings", "settings.html", trail.settings, Act.INSPECT),
    Read("/decide", "decide.html", deciding.decide_again, Act.REOPEN),
    Read("/keys", "keys.html", keys.listed, Act.ENROLL),
    Read("/part/badge", "part_badge.html", home.badge),
    Read("/part/home", "part_home.html", home.home),
    Read("/part/runs", "part_runs.html", runs.listed),
    Read("/part/runs/{job}", "part_run.html", runs.run),
    Read("/part/use-cases/{name}/differences", "part_differences.html", use_case.differences),
    Read("/part/data/{name}/v{version:int}/histograms", "part_histograms.html", data.histograms),
    Read("/part/evaluations/{id}/errors", "part_errors.html", evaluations.errors),
    Read("/part/examples/{id}/near", "part_near.html", data.near),
)
SENDS = (
    Send("/sheets/{name}/v{version:int}/{sheet}.png", media.sheet),
    Send("/media/{name}/v{version:int}/{id}/{part}", media.view),
    Send("/asked/{name}/{prediction}/{part}", labelling.asked_file),
    Send("/answered/{name}/{prediction}/{part}", labelling.answered_file),
    Send("/evaluations/{id}/report", evaluations.report),
    Send("/part/runs/{job}/more", runs.more),
)
WRITES = (
    Write("/approvals/{id}/question", Act.ANSWER, approvals.question, approvals.use_case, answers=True),
    Write("/approvals/{id}/answer", Act.ANSWER, approvals.answer, approvals.use_case, answers=True),
    Write("/decide/question", Act.REOPEN, deciding.question, answers=True),
    Write("/decide/answer", Act.REOPEN, deciding.answer, answers=True),
    Write("/keys/begin", Act.ENROLL, keys.begin, answers=True),
    Write("/keys/made", Act.ENROLL, keys.made, answers=True),
    Write("/keys/enroll", Act.ENROLL, keys.enroll, answers=True),
    Write("/runs/{job}/control", Act.RUN, runs.control),
    Write("/use-cases/{name}/rollback", Act.ROLL_BACK, use_case.rollback),
    Write("/use-cases/{name}/label", Act.LABEL, labelling.label, labelling.use_case, answers=True, longest=640 << 10),
    Write("/use-cases/{name}/undo", Act.LABEL, labelling.undo, answers=True),
    Write("/use-cases/{name}/watch", Act.WATCH, use_case.switch_watch),
)
OTHERS = (("GET", "/events", Act.LOOK), ("POST", "/leave", Act.LOOK))
"""What is no page and takes nothing away from anybody else."""

_TABLE = [
    *(("GET", compile_path(each.path)[0], each.act) for each in (*READS, *SENDS)),
    *(("POST", compile_path(each.path)[0], each.act) for each in WRITES),
    *((method, compile_path(path)[0], act) for method, path, act in OTHERS),
]


def act_of(method: str, path: str) -> Act | None:
    """What a request does; None where no table has it."""
    method = "GET" if method == "HEAD" else method
    return next((act for each, pattern, act in _TABLE if each == method and pattern.match(path)), None)
