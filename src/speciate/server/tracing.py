"""What the command line asks about answers: the label queue, feedback of the person at the terminal, and traces."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from speciate.predictions.feedback import feedback
from speciate.production import labels as labelling
from speciate.production import lineage_picture, logged, origins
from speciate.production.corrections import UnknownClass

if TYPE_CHECKING:
    from speciate.server.service import Service

_DRAW = "speciate.production.lineage_picture:draw"


def labels(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """The next answers to label; or, with `prediction`, one label stored, or why it is `unknown`."""
    workspace, use_case = service.workspace, str(request["use_case"])
    if "prediction" in request:
        given = feedback(
            prediction=request["prediction"], label=request["label"], source="human", by=request["by"],
            drawn=request["drawn"], new_class=request.get("new_class", False),
        )  # fmt: skip
        try:
            return {"recorded": logged.feedback(workspace, given).answer.id}
        except UnknownClass as error:
            return {"unknown": error.message}
    found = labelling.next_labels(workspace, use_case, strategy=request["strategy"], count=int(request["count"]))
    told = labelling.logged(workspace, use_case)
    return {
        "waiting": found.waiting,
        "items": [item._asdict() for item in found.items],
        "agreement": found.agreement._asdict(),
        "quality": [each._asdict() for each in told.quality],
        "missed": told.held.missed,
        "root": str(workspace.folders.root),
    }


def trace(service: Service, request: dict[str, Any]) -> dict[str, Any]:
    """As text, and as a picture where one is asked for (`svg`, or `png` in Base64)."""
    workspace, ref = service.workspace, str(request["ref"])
    if origins.is_answer(ref):
        traced, told = origins.of_answer(workspace, ref), {}
    else:
        found = origins.reach(workspace, service.pool, ref, example=request["example"], group=request["group"])
        traced = found.traced
        told = {"models": list(found.models), "answers": found.answers, "predictions": list(found.ids)}
    answer = {"text": traced.text, **told}
    if request["picture"] == "svg":
        answer["picture"] = lineage_picture.svg(traced.graph, traced.start)
    elif request["picture"] == "png":
        asked = lineage_picture.payload(traced.graph, traced.start)
        data = service.pool.ask_for_file(_DRAW, asked, lambda path, _: path.read_bytes())
        answer["picture"] = base64.b64encode(data).decode()
    return answer
