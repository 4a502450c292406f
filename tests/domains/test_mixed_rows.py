"""Mixed rows from files to a model in production, by the tools: two parts together tell what neither tells alone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from speciate.datasets import version_rows, versions
from speciate.datasets.splits import audit_split, members_of
from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.server.tool_api import IN_PROCESS, App, DryRun, JobStarted
from speciate.serving.predict import Input
from speciate.settings import Settings
from speciate.tools.datasets import LabelsFile, create_dataset, curate_dataset, preview_dataset, query_dataset
from speciate.tools.evaluation import describe_evaluation, evaluate_models
from speciate.tools.predictions import predict
from speciate.tools.training import specialize, train_model
from speciate.tools.use_cases import define_use_case
from speciate.use_cases import Objective
from speciate.workspace.workspace import Workspace
from tests.documentation import calls_in, page
from tests.domains import medical_files

pytestmark = pytest.mark.slow
DOCS = [call.arguments for call in calls_in(page("mixed-rows.md"))]
"""The arguments of the calls in the docs, in their order."""
TASK = "multimodal-classification"
PARTS = ("hum", "note", "scan")


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    workspace = Workspace(tmp_path / "workspace", settings=Settings(policy="auto"))
    engine, pool = Engine(workspace), Pool(workspace.folders, workspace.settings, size=1)
    engine.start()
    yield App(workspace, engine, pool, IN_PROCESS._replace(folder=tmp_path))
    pool.close()
    engine.stop()
    workspace.close()


def done(app: App, started: JobStarted | DryRun) -> dict[str, Any]:
    assert isinstance(started, JobStarted)
    ended = app.engine.wait(started.job, timeout=500)
    assert ended.result is not None, [ended.error, *(child.error for child in app.engine.children(started.job))]
    return dict(ended.result)


def created(app: App, tmp_path: Path) -> medical_files.Rounds:
    rounds = medical_files.write(tmp_path / "rounds")
    labels = LabelsFile.model_validate(DOCS[0]["labels"])
    made = done(app, create_dataset(app, **{**DOCS[0], "labels": labels}))
    report = made["report"]
    assert (report["ok"], report["set_aside"]) == (257, 0)
    assert "52 of 257 rows lack the part 'hum'." in report["untrusted"]["notes"]
    return rounds


def splits_of(app: App) -> dict[str, str]:
    found = query_dataset(app, "rounds", "SELECT source, split FROM examples", limit=500)
    return {str(name): str(split) for name, split in found.untrusted.rows}


def test_two_parts_tell_what_neither_tells_alone(app: App, tmp_path: Path) -> None:
    rounds = created(app, tmp_path)

    # An image that comes twice, with another note and another answer, lies in one split; drawn at random it would not.
    splits = splits_of(app)
    assert all(splits[a] == splits[b] for a, b in rounds.copies)
    rows = version_rows.read(app.workspace.folders, versions.version(app.workspace.database, "rounds").manifest)
    drawn = list(np.random.default_rng(0).choice(["train", "validation", "test"], rows.num_rows, p=[0.7, 0.15, 0.15]))
    assert audit_split(members_of(rows, "multimodal"), drawn)["near_duplicates_across"] > 3

    curated = done(app, curate_dataset(app, **DOCS[1]))
    told = curated["steps"]
    assert told[0]["before"] - told[0]["after"] == len(rounds.copies)
    assert told[2]["after"] > told[2]["before"]
    assert curated["report"]["split"]["near_duplicates_across"] == curated["report"]["split"]["groups_across"] == 0
    cut = query_dataset(
        app, "rounds", "SELECT max(hum_seconds), count(*) FILTER (hum_seconds IS NULL) > 10 FROM examples"
    )
    assert cut.untrusted.rows == [[0.4, True]]

    shown, picture = preview_dataset(app, "rounds", where="missing IS NOT NULL", count=4)
    assert len(shown.untrusted.rows) == 4
    assert Image.open(io.BytesIO(picture.data)).size == (984, 686)

    define_use_case(app, **{**DOCS[2], "objective": Objective.model_validate(DOCS[2]["objective"])})
    found = done(app, specialize(app, **DOCS[3]))
    assert found["decision"]["verdict"] == "promote", found["decision"]

    # What fusion gains, on examples that none of them has seen.
    alone = {
        part: done(app, train_model(app, f"only-{part}", "rounds", "classical", task=TASK,
                                    hyperparameters={"parts": [part]}))["model"]
        for part in PARTS
    }  # fmt: skip
    judged = done(app, evaluate_models(app, [found["model"], *alone.values()], "rounds:test", use_case="urgency"))
    board = [row.model_dump() for row in describe_evaluation(app, judged["evaluation"])[0].leaderboard]
    values = {str(row["model"]): float(row["value"]) for row in board}
    fused, best_alone = values[found["model"]], max(values[model] for model in alone.values())
    counts = query_dataset(app, "rounds", "SELECT label, count(*) FROM examples WHERE split = 'test' GROUP BY ALL")
    tested = {str(label): int(count) for label, count in counts.untrusted.rows}
    majority = max(tested.values()) / sum(tested.values())
    print({**{name: round(value, 3) for name, value in values.items()}, "majority": round(majority, 3), "n": tested})
    assert fused >= 0.75
    assert fused >= max(best_alone, majority) + 0.15

    picture_of_one = str(rounds.folder / "0002" / "scan.png")
    answers = predict(
        app,
        [
            Input(row={"scan": picture_of_one, "note": "She has strong pain today."}),
            Input(row={"scan": picture_of_one, "note": "She has no pain today."}),
            Input(path=str(rounds.folder / "0002")),
            Input(row={"scan": "/etc/passwd"}),
        ],
        use_case="urgency",
    )
    said = [each.untrusted.output for each in answers.predictions]
    assert said[0] != said[1]
    assert set(said[:3]) <= set(medical_files.URGENCY)
    assert "outside the folders" in str(answers.predictions[3].error)
