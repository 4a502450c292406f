"""Jobs through a client, as a user's agent calls them."""

from __future__ import annotations

import json
from typing import Any

from speciate.server.client import Client
from tests.documentation import calls_in, page


def ended(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """The result of the job that a tool starts."""
    return result_of(client, client.call(tool, **arguments)["job"])


def result_of(client: Client, job: str) -> dict[str, Any]:
    """Wait for a job, which must succeed."""
    view = client.call("wait_for_job", job=job, timeout_seconds=45)
    while view["state"] not in ("succeeded", "failed", "cancelled", "dead"):
        view = client.call("wait_for_job", job=job, timeout_seconds=45)
    assert view["state"] == "succeeded", json.dumps(view)
    result: dict[str, Any] = view["result"]
    return result


def answers_of_page(client: Client, name: str) -> dict[str, dict[str, Any]]:
    """Make the calls of a guide, one after another. Tool -> its last answer, or the result of its job."""
    answers = {}
    for call in calls_in(page(name)):
        answer = client.call(call.tool, **call.arguments)
        answers[call.tool] = result_of(client, answer["job"]) if "job" in answer else answer
    return answers
