"""One evaluation as one HTML file: it asks for nothing beside itself, runs no script, and is written by the daemon.

What came from the caged processes is numbers, text and PNGs; it becomes markup here, where all text is escaped. What
others wrote (cells, answers, errors) stands in elements with the attribute `data-untrusted`, for readers that are no
persons.
"""

from __future__ import annotations

from speciate.evaluation.pages import behaviour, method, standings, verdict
from speciate.evaluation.pages.contents import Contents, called
from speciate.evaluation.pages.markup import Markup, element, joined, listed
from speciate.evaluation.pages.style import STYLE

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_SECTIONS = (
    verdict.asked, verdict.verdict,
    standings.leaderboard, standings.comparisons, standings.pareto,
    behaviour.slices, behaviour.confusion, behaviour.calibration, behaviour.mistakes, behaviour.disagreements,
    method.notes, method.method, method.repeat,
)  # fmt: skip
_FOREIGN = (behaviour.slices, behaviour.confusion, behaviour.mistakes, behaviour.disagreements)
"""Sections that quote cells and answers."""


def page(contents: Contents) -> str:
    """The whole file; the same contents give the same bytes."""
    report = contents.report
    title = f"{report.metric} of {_models(contents)} on {report.dataset}"
    made = [(make, part) for make in _SECTIONS if (part := make(contents)) is not None]
    parts = [part for _, part in made]
    shown = [element("div", part, data_untrusted=True) if make in _FOREIGN else part for make, part in made]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", Markup(STYLE)),
    )
    body = element(
        "body",
        element("header", element("h1", title), _summary(contents), _contents(parts)),
        element("main", *shown),
    )
    return joined(Markup("<!DOCTYPE html>\n"), element("html", head, body, lang="en"), Markup("\n"))


def _models(contents: Contents) -> str:
    count = len(contents.report.leaderboard)
    return called(contents.candidate) if count == 1 else f"{count} models"


def _summary(contents: Contents) -> Markup:
    decision = contents.report.decision
    rows = contents.report.leaderboard
    told = [verdict.badge(decision.verdict), " "] if decision else []
    return element(
        "p", *told, f"{called(contents.candidate)} against {called(contents.baseline)}. " if len(rows) > 1 else None,
        f"Best: {called(rows[0].model)}. Evaluation {contents.evaluation}.",
    )  # fmt: skip


def _contents(parts: list[Markup]) -> Markup:
    return element("nav", listed([_link(part) for part in parts]), aria_label="Sections")


def _link(part: Markup) -> Markup:
    """To a section, which begins with its heading: `<section ...><h2 id="NAME">TITLE</h2>`."""
    name, _, rest = part.partition('<h2 id="')[2].partition('">')
    return element("a", Markup(rest.partition("</h2>")[0]), href=f"#{name}")
