"""One evaluation as one HTML file: it asks for nothing beside itself, runs no script, and is written by the daemon.

The sandboxed processes send numbers, text and PNGs; the templates beside this file (*.html) make them markup, with
autoescape on all text. Sections that quote cells, answers and errors are in elements with the attribute
`data-untrusted`, for readers that are programs.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from speciate.evaluation.pages import formatting
from speciate.evaluation.pages.page_data import (
    AGREEMENT_WORDS,
    PageData,
    cell_shade,
    describe_gate,
    describe_limits,
    gather,
    has_long_label,
    model_name,
    repeat_arguments,
    signature,
)
from speciate.evaluation.pages.svg_charts import axis, bar
from speciate.jobs.folder import write_whole
from speciate.jobs.pool import Pool
from speciate.sample_size import is_worth_collecting
from speciate.vocabulary import find_metric
from speciate.workspace.workspace import Folders, Workspace

if TYPE_CHECKING:
    from jinja2 import Environment

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


class Section(NamedTuple):
    name: str
    """Where links lead, and the macro of its content in page.html."""
    title: str
    foreign: bool = False
    """It quotes cells and answers."""


def write_page(workspace: Workspace, pool: Pool, evaluation: str, baseline: str | None = None) -> Path:
    """Write the evaluation's page below the workspace's exports, named by its content. None is overwritten.

    Raises NOT_FOUND for an unknown evaluation or baseline.
    """
    text = render_page(gather(workspace, pool, evaluation, baseline))
    folder = folder_of(workspace.folders, evaluation)
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:12]}.html"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    return path


def delete_pages(folders: Folders, evaluation: str) -> None:
    """Delete all pages of an evaluation. They can be made again from what is left of it."""
    folder = folder_of(folders, evaluation)
    for path in folder.glob("*.html"):
        path.unlink(missing_ok=True)


def render_page(data: PageData) -> str:
    """The whole file; the same data give the same bytes."""
    page = environment().get_template("page.html")
    return page.render(data=data, sections=_sections(data), title=data.title, policy=POLICY)


@functools.cache
def environment() -> Environment:
    """Templates with autoescape. Characters of control and of direction are left out of all text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # no start of the daemon waits for it

    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        finalize=formatting.without_controls, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    made.filters |= {
        "number": formatting.format_number, "difference": formatting.format_difference,
        "interval": formatting.format_interval, "p_value": formatting.format_p_value, "usd": formatting.format_usd,
        "count": formatting.format_count, "percent": formatting.format_percent, "in_brackets": formatting.in_brackets,
        "with_interval": formatting.with_interval, "answer": formatting.format_answer,
        "minute": formatting.format_minute, "png": formatting.png_source, "shell_json": formatting.shell_json,
        "model_name": model_name, "spaced": _spaced, "yes_no": _yes_no,
    }  # fmt: skip
    made.globals |= {
        "worth_collecting": is_worth_collecting,
        "find_metric": find_metric, "describe_gate": describe_gate, "describe_limits": describe_limits,
        "repeat_arguments": repeat_arguments, "signature": signature, "has_long_label": has_long_label,
        "cell_shade": cell_shade, "agreement_words": AGREEMENT_WORDS, "axis": axis, "bar": bar,
    }  # fmt: skip
    return made


def _sections(data: PageData) -> list[Section]:
    report = data.report
    every = [
        (Section("asked", "What was asked"), True),
        (Section("verdict", "Verdict"), True),
        (Section("leaderboard", "Leaderboard"), True),
        (Section("comparisons", "Paired comparisons"), bool(data.comparisons)),
        (Section("pareto", "Quality, cost and latency"), len(report.leaderboard) > 1),
        (Section("slices", "Slices", True), bool(data.slices["columns"])),
        (Section("confusion", "Confusion", True), bool(data.confusion)),
        (Section("calibration", "Calibration"), bool(data.calibrated)),
        (Section("worst", "Worst examples", True), True),
        (Section("disagreements", "Where models disagree", True), data.disagreements is not None),
        (Section("notes", "Notes"), bool(report.notes)),
        (Section("method", "How it was measured"), True),
        (Section("repeat", "How to repeat it"), True),
    ]
    return [section for section, there in every if there]


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


def folder_of(folders: Folders, evaluation: str) -> Path:
    """The folder of an evaluation's pages."""
    return folders.exports / "evaluations" / evaluation
