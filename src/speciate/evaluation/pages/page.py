"""One evaluation as one HTML file: it asks for nothing beside itself, runs no script, and is written by the daemon.

What came from the caged processes is numbers, text and PNGs; it becomes markup here, where all text is escaped. What
others wrote (cells, answers, errors) stands in elements with the attribute `data-untrusted`, for readers that are no
persons.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from speciate.evaluation.pages import error_sections, leaderboard_sections, verdict_sections
from speciate.evaluation.pages.markup import Markup, bullet_list, element, join_markup
from speciate.evaluation.pages.page_data import PageData, gather, model_name
from speciate.jobs.folder import write_whole
from speciate.jobs.pool import Pool
from speciate.workspace.workspace import Folders, Workspace

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_SECTIONS = (
    verdict_sections.request_section,
    verdict_sections.verdict,
    leaderboard_sections.leaderboard,
    leaderboard_sections.comparisons,
    leaderboard_sections.pareto,
    error_sections.slices,
    error_sections.confusion,
    error_sections.calibration,
    error_sections.mistakes,
    error_sections.disagreements,
    verdict_sections.notes,
    verdict_sections.method,
    verdict_sections.repeat,
)
_FOREIGN = (error_sections.slices, error_sections.confusion, error_sections.mistakes, error_sections.disagreements)
"""Sections that quote cells and answers."""


def render_page(contents: PageData) -> str:
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
    return join_markup(Markup("<!DOCTYPE html>\n"), element("html", head, body, lang="en"), Markup("\n"))


def _models(contents: PageData) -> str:
    count = len(contents.report.leaderboard)
    return model_name(contents.candidate) if count == 1 else f"{count} models"


def _summary(contents: PageData) -> Markup:
    decision = contents.report.decision
    rows = contents.report.leaderboard
    told = [verdict_sections.badge(decision.verdict), " "] if decision else []
    return element(
        "p",
        *told,
        f"{model_name(contents.candidate)} against {model_name(contents.baseline)}. " if len(rows) > 1 else None,
        f"Best: {model_name(rows[0].model)}. Evaluation {contents.evaluation}.",
    )


def _contents(parts: list[Markup]) -> Markup:
    return element("nav", bullet_list([_link(part) for part in parts]), aria_label="Sections")


def _link(part: Markup) -> Markup:
    """To a section, which begins with its heading: `<section ...><h2 id="NAME">TITLE</h2>`."""
    name, _, rest = part.partition('<h2 id="')[2].partition('">')
    return element("a", Markup(rest.partition("</h2>")[0]), href=f"#{name}")


def write_page(workspace: Workspace, pool: Pool, evaluation: str, baseline: str | None = None) -> Path:
    """The file of this evaluation's page: the same page is one file, another one another, and none is overwritten.

    Raises NOT_FOUND for an evaluation or a baseline that is not there.
    """
    text = render_page(gather(workspace, pool, evaluation, baseline))
    folder = _folder(workspace.folders, evaluation)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.html"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    return path


def delete_pages(folders: Folders, evaluation: str) -> None:
    """All pages of an evaluation: they can be made again, of what is left of it."""
    folder = _folder(folders, evaluation)
    for path in folder.glob("*.html"):
        path.unlink(missing_ok=True)


def _folder(folders: Folders, evaluation: str) -> Path:
    return folders.exports / "evaluations" / evaluation


STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1e21; --soft: #5d6470; --line: #d8dce2; --tint: #f4f6f8;
  --candidate: #1559b7; --baseline: #a8500a; --other: #59616d; --good: #17692f; --bad: #b3261e; --doubt: #7a5b00; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e6e8eb; --soft: #a2a9b4; --line: #3a3f47;
  --tint: #1f2329; --candidate: #7db3ff; --baseline: #f0a35e; --other: #a2a9b4; --good: #74cf8f; --bad: #ff9a90;
  --doubt: #e6c45a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
p, ul { margin: .5rem 0; max-width: 60rem; }
nav ul { padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1rem; list-style: none; }
a { color: var(--candidate); }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .5rem 1.5rem; margin: .75rem 0; }
dt { color: var(--soft); font-size: .85rem; } dd { margin: 0; }
.wide { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .9rem; width: max-content; }
.words { width: max-content; max-width: min(36rem, 62vw); } tbody th .words { max-width: min(16rem, 45vw); }
caption { text-align: left; color: var(--soft); padding-bottom: .35rem; white-space: nowrap; }
th, td { padding: .3rem .6rem; text-align: left; vertical-align: middle; border-bottom: 1px solid var(--line); }
thead .words { max-width: 6.5rem; } thead .words:has(svg) { max-width: none; }
thead .number .words { margin-left: auto; }
thead th { font-weight: 600; vertical-align: bottom; color: var(--soft); }
tbody th { font-weight: 500; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
thead .number { white-space: normal; }
svg { display: block; max-width: 100%; height: auto; } td svg, th svg { max-width: none; }
.grid { stroke: var(--line); } .zero { stroke: var(--soft); stroke-dasharray: 3 3; }
.tick, .name { font: 12px system-ui, sans-serif; fill: var(--soft); } .name { fill: var(--ink); }
.whisker { stroke-width: 3; stroke: currentColor; } .thin { stroke-width: 1.5; }
.dot { fill: currentColor; } .curve { fill: none; stroke: currentColor; opacity: .45; }
.candidate { color: var(--candidate); } .baseline { color: var(--baseline); } .other { color: var(--other); }
.dominated.dot { fill: var(--paper); stroke: currentColor; stroke-width: 2; }
tr.candidate > th, tr.baseline > th { font-weight: 700; }
tr.candidate > td, tr.baseline > td, tr.other > td, tr.other > th { color: var(--ink); }
.role { display: block; font-size: .8rem; font-weight: 400; }
.verdict { display: inline-block; padding: .1rem .6rem; border: 2px solid currentColor; border-radius: .4rem;
  font-weight: 700; }
.promote, .pass { color: var(--good); } .hold, .fail { color: var(--bad); } .inconclusive { color: var(--doubt); }
.pass, .fail, td.inconclusive { font-weight: 600; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: flex-start; }
.charts > .wide { min-width: 0; max-width: 100%; } figure { margin: 0; max-width: 100%; }
figcaption { color: var(--soft); font-size: .85rem; max-width: 22rem; }
.matrix td { text-align: center; font-variant-numeric: tabular-nums; min-width: 2.6rem; color: var(--ink); }
.matrix .right { outline: 1px solid var(--soft); outline-offset: -2px; }
.matrix thead th { max-width: 9rem; overflow-wrap: anywhere; color: var(--ink); text-align: center; }
.matrix thead th:first-child { text-align: left; }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: .75rem; padding: 0;
  list-style: none; max-width: none; }
.texts { grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
.examples > li { border: 1px solid var(--line); border-radius: .4rem; padding: .6rem; break-inside: avoid;
  background: var(--tint); font-size: .9rem; }
.examples img { display: block; max-width: 100%; margin: 0 0 .4rem; background: #fff; image-rendering: pixelated; }
.examples dl { grid-template-columns: 1fr; gap: .15rem; margin: 0; }
.examples dl div { display: flex; gap: .4rem; flex-wrap: wrap; } .examples dt { min-width: 4rem; }
blockquote { margin: 0 0 .4rem; padding-left: .5rem; border-left: 3px solid var(--line); white-space: pre-wrap; }
code, pre { font: .85rem/1.45 ui-monospace, monospace; }
pre { background: var(--tint); padding: .75rem; overflow-x: auto; white-space: pre-wrap; }
.note { color: var(--soft); font-size: .9rem; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
:focus-visible { outline: 2px solid var(--candidate); outline-offset: 2px; }
@media print {
  :root { color-scheme: light; --paper: #fff; --ink: #000; --soft: #444; --line: #bbb; --tint: #f6f6f6;
    --candidate: #0b4aa2; --baseline: #8a4000; --other: #555; --good: #0d5524; --bad: #9c1d16; --doubt: #604700; }
  @page { size: A4 landscape; margin: 12mm; }
  body { padding: 0; max-width: none; font-size: 10pt; } nav { display: none; }
  table { font-size: 7.5pt; } th, td { padding: 2pt 4pt; } .wide { overflow: visible; }
  .wide, tr, figure { break-inside: avoid; } h2, h3, caption, section > p { break-after: avoid; }
  * { print-color-adjust: exact; }
}
"""
