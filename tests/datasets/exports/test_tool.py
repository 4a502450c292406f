"""The tool as an agent calls it, on a real engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from speciate.datasets.exports import FORMATS, find
from speciate.errors import Code, SpeciateError
from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.server.tool_api import App, Caller, DryRun, JobStarted
from speciate.tools.exports import export_dataset
from speciate.tools.options import list_options
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.exports.worlds import seal


@pytest.fixture
def app(workspace: Workspace, tmp_path: Path) -> Iterator[App]:
    rows = [{**row, "split": "train"} for row in data.review_rows(12)]
    seal(workspace, "reviews", rows, inputs=("text",), label="label")
    (tmp_path / "mine").mkdir()
    engine, pool = Engine(workspace), Pool(workspace.folders, workspace.settings, size=1)
    engine.start()
    yield App(workspace, engine, pool, Caller(tmp_path / "mine", "test", "python"))
    pool.close()
    engine.stop()


def test_an_export_is_a_job_that_says_where_it_lies(app: App, tmp_path: Path) -> None:
    checked = export_dataset(app, "reviews@v1:train", "jsonl", "out", dry_run=True)
    assert isinstance(checked, DryRun)
    assert checked.resolved["dataset"] == "reviews@v1"
    assert not (tmp_path / "mine" / "out").exists()
    started = export_dataset(app, "reviews@v1:train", "jsonl", "out")
    assert isinstance(started, JobStarted)
    ended = app.engine.wait(started.job, timeout=120)
    assert ended.result is not None, ended.error
    assert ended.result["path"] == str(tmp_path / "mine" / "out")
    assert len((tmp_path / "mine" / "out" / "data" / "train.jsonl").read_text().splitlines()) == 12


def test_a_path_outside_the_roots_is_refused(app: App) -> None:
    for path in ("../elsewhere", "/etc/out"):
        with pytest.raises(SpeciateError) as raised:
            export_dataset(app, "reviews", "csv", path)
        assert raised.value.code is Code.REFUSED


def test_the_options_are_the_formats_that_there_are(app: App) -> None:
    options = list_options(app, "format").options
    assert [option.name for option in options] == list(FORMATS)
    assert all(option.what and find(option.name).name == option.name for option in options)
