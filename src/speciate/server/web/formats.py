"""Numbers, times and names as the pages show them; the templates use these as filters."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from speciate.errors import SpeciateError
from speciate.evaluation.pages import formatting
from speciate.evaluation.pages.inline_charts import Whisker
from speciate.evaluation.pages.page_data import model_explained, model_name
from speciate.models.model_card import ModelCard
from speciate.server.tool_api import NextAction
from speciate.server.web.glossary import explained
from speciate.training.planning.estimates import OWN_COSTS


class NavItem(NamedTuple):
    name: str
    path: str
    also: tuple[str, ...] = ()
    """Beginnings of further addresses that belong to it."""
    act: str = "LOOK"


NAV = (
    NavItem("Use cases", "/", ("/use-cases",)),
    NavItem("Data", "/data", ("/examples",)),
    NavItem("Runs", "/runs"),
    NavItem("Models", "/models", ("/evaluations",)),
    NavItem("Approvals", "/approvals"),
    NavItem("Audit", "/audit", ("/requests",)),
    NavItem("Signing keys", "/keys", act="ENROLL"),
    NavItem("Settings", "/settings", act="INSPECT"),
)


def as_whisker(row: Any) -> Whisker:
    """A difference with its interval, of a comparison or of a slice."""
    delta, interval = (row["delta"], row["interval"]) if isinstance(row, dict) else (row.delta, row.interval)
    return Whisker(delta, (interval[0], interval[1]) if interval else None)


def model_page(model: str) -> str | None:
    """The page of a registered version; None where it is not registered."""
    name, at, version = model.partition("@v")
    plain = at and version.isdigit() and ":" not in name and "+" not in name and "/" not in name
    return f"/models/{name}/v{version}" if plain else None


_COLOURS = {
    **dict.fromkeys(("succeeded", "approved", "applied", "serving", "survived"), "good"),
    **dict.fromkeys(("failed", "dead", "denied", "broken", "refused"), "bad"),
    **dict.fromkeys(("running", "starting", "loading", "pending", "provisional", "needs_approval"), "busy"),
}


def state_class(state: str) -> str:
    """How the state of a job, of a promotion or of an approval is coloured; the word stands there, too."""
    return _COLOURS.get(state, "still")


def run_variant(step: str | None, kind: str) -> str:
    """What tells runs of one kind apart.

    >>> run_variant("train/probe-minilm", "train"), run_variant("evaluate/2", "evaluate"), run_variant(None, "ingest")
    ('probe-minilm', '2', '')
    """
    return step[len(kind) :].lstrip("/-") if step and step.startswith(kind) else ""


def made_by(card: ModelCard) -> str:
    """The method, and which of its ways: `classical-thorough`."""
    options = card.recipe.get("parameters") or {}
    return "-".join([card.method, *(name for name in OWN_COSTS if options.get(name))])


class NextStep(NamedTuple):
    words: str
    href: str | None
    """The page where it is done or seen."""
    call: str
    """The same for an agent."""


def next_step(step: NextAction) -> NextStep:
    given = step.arguments
    known = {
        "describe_evaluation": ("See why its best model was not promoted", f"/evaluations/{given.get('evaluation')}"),
        "list_approvals": ("An approval waits for a person", "/approvals?state=pending"),
        "wait_for_job": ("A run is under way", f"/runs/{given.get('job')}"),
        "control_job": ("A run is paused: resume it", f"/runs/{given.get('job')}"),
        "rollback_model": ("What serves broke its bake: roll back", f"/use-cases/{given.get('use_case')}/production"),
        "promote_model": ("The canary survived its bake: give it all requests", None),
        "predict": ("A model serves: ask it something, and the clock stops", None),
        "describe_dataset": ("Make a dataset, or look at one", "/data"),
        "list_options": ("Train: ask your agent for specialize, or choose a method", None),
        "manage_data": ("The disk is nearly full: free some of it", None),
    }  # fmt: skip
    told, href = known.get(step.tool, (formatting.as_words(step.tool).capitalize(), None))
    arguments = ", ".join(f"{name}={value!r}" for name, value in given.items())
    return NextStep(told, href, f"{step.tool}({arguments})")


_CALL = re.compile(r"\bcall\b|\w\(\w*=?", re.IGNORECASE)
"""What tells an agent which tool comes next."""
_DATA, _RUNS, _EVALUATIONS = ("All data", "/data"), ("All runs", "/runs"), ("All evaluations", "/models")
_LISTS = {
    "describe_dataset": _DATA, "query_dataset": _DATA, "get_job": _RUNS, "list_jobs": _RUNS, "control_job": _RUNS,
    "describe_model": ("All models", "/models"), "list_approvals": ("All approvals", "/approvals"),
    "describe_evaluation": _EVALUATIONS,
}  # fmt: skip


class PageAdvice(NamedTuple):
    words: str
    links: dict[str, str]
    """Address -> words."""


def without_calls(advice: str) -> str:
    return " ".join(each for each in re.split(r"(?<=[.!?]) ", advice) if not _CALL.search(each))


def page_advice(error: SpeciateError, address: str) -> PageAdvice:
    """What a person at a page does about a refusal, which says to an agent which call comes next."""
    places = [_LISTS[call.tool] for call in error.next if call.tool in _LISTS]
    here = next((item for item in NAV[1:] if address.startswith((item.path, *item.also))), NAV[0])
    return PageAdvice(without_calls(error.advice), {href: told for told, href in [*places, (here.name, here.path)]})


FILTERS = {
    "duration": formatting.format_duration, "ago": formatting.format_ago, "bytes": formatting.format_bytes,
    "ms": formatting.format_ms, "words": formatting.as_words, "short": formatting.shorten,
    "cell": formatting.format_cell, "pretty": formatting.format_json, "sentence": formatting.as_sentence,
    "state_class": state_class, "run_variant": run_variant, "made_by": made_by,
    "as_whisker": as_whisker, "model_page": model_page, "model_name": model_name,
    "model_explained": model_explained, "next_step": next_step, "page_advice": page_advice,
    "without_calls": without_calls,
    "number": formatting.format_number, "difference": formatting.format_difference,
    "interval": formatting.format_interval, "usd": formatting.format_usd, "count": formatting.format_count,
    "percent": formatting.format_percent, "minute": formatting.format_minute, "answer": formatting.format_answer,
    "p_value": formatting.format_p_value, "explained": explained,
}  # fmt: skip
