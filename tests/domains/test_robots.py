"""From demonstrations of a scripted expert, as a LeRobot dataset, to a policy that is judged by acting: the whole way,
through the tools."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import speciate
from speciate.datasets.loading.loader import Example, load_examples
from speciate.datasets.versions import resolve
from speciate.errors import SpeciateError
from speciate.evaluation.environments import rollouts
from speciate.workspace.workspace import Workspace
from tests.data import ingest, run_job
from tests.domains.lerobot_set import Layout, demonstrations, edit_rows, write
from tests.server.processes import Daemons
from tests.training.world import define

POLICIES = """
import numpy as np


def random(inputs):
    chance = np.random.default_rng(0)
    return [{"output": {"actions": chance.uniform(-1, 1, (len(each["times"]), 2)).tolist()}} for each in inputs]


def expert(inputs):
    from speciate.evaluation.environments.reach import expert as best

    return [{"output": {"actions": [best(row).tolist() for row in each["state"]]}} for each in inputs]
"""
"""Rivals as anybody could write them: one file with functions."""


class Tools:
    """The tools of a workspace, jobs waited for."""

    def __init__(self, workspace: Path) -> None:
        self._client = speciate.connect(workspace)

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        answer = self._client.call(tool, **arguments)
        while "job" in answer and answer.get("state") not in ("succeeded", "failed", "dead", "cancelled", None):
            answer = self._client.call("wait_for_job", job=answer["job"], timeout_seconds=45)
        assert answer.get("state") in ("succeeded", "active", None), answer.get("error") or answer
        found: dict[str, Any] = answer.get("result", answer)
        return found


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tools]:
    """Called from a folder that holds the source."""
    daemons = Daemons(tmp_path / "workspace")
    (tmp_path / "source").mkdir()
    monkeypatch.chdir(tmp_path / "source")
    daemons.workspace.mkdir(mode=0o700)
    yield Tools(daemons.workspace)
    daemons.close()


@pytest.mark.slow
def test_a_cloned_policy_acts_far_better_than_chance_and_below_its_expert(tools: Tools) -> None:
    write(Path("demonstrations"), demonstrations(range(90), noise=0.3), Layout(per_data=40, per_video=25))
    edit_rows(Path("demonstrations/data/chunk-000/file-000.parquet"), lambda rows: rows[1:])  # one step is lost
    Path("policies.py").write_text(POLICIES)

    made = tools.call("create_dataset", name="reach", source="demonstrations")
    counts = {name: made["report"][name] for name in ("ok", "partial", "refused", "error")}
    assert counts == {"ok": 89, "partial": 1, "refused": 0, "error": 0}
    steps = [{"op": "window", "steps": 8}, {"op": "split", "fractions": {"train": 0.6, "validation": 0.1, "test": 0.3}}]
    tools.call("curate_dataset", dataset="reach", steps=steps)
    counted = "SELECT count(*), count(DISTINCT seed), max(steps) FROM examples WHERE quality = 'ok'"
    ((windows, episodes, longest),) = tools.call("query_dataset", dataset="reach", sql=counted)["untrusted"]["rows"]
    assert (episodes, longest) == (89, 8)
    assert windows > 3 * 89
    assert len(tools.call("preview_dataset", dataset="reach", count=4)["untrusted"]["rows"]) == 4

    use_case = {"task": "behaviour-cloning", "objective": {"metric": "success_rate", "target": 0.4}}
    tools.call("define_use_case", name="reacher", incumbent="constant:", **use_case)
    first = tools.call("specialize", use_case="reacher", dataset="reach", budget_minutes=3, methods=["classical"])
    assert first["candidates"][0]["method"] == "classical"
    learning = {"num_train_epochs": 50, "early_stopping_patience": 15, "learning_rate": [3e-3]}
    policy = tools.call(
        "train_model", name="policy", dataset="reach", method="full", base_model="new:bc-mlp", use_case="reacher",
        hyperparameters=learning,
    )["model"]  # fmt: skip
    models = ["constant:", "code:policies.py:random", "code:policies.py:expert", policy]
    asked: dict[str, Any] = {"models": models, "dataset": "reach:test", "use_case": "reacher", "latency": False}
    judged = tools.call("evaluate_models", metrics=["action_mae"], **asked)
    success = {row["model"].partition("@")[0]: row["value"] for row in judged["report"]["leaderboard"]}
    print(success, judged["decision"]["verdict"])
    assert success["code:policies.py:expert"] == 1
    assert success["constant:"] <= 0.1 >= success["code:policies.py:random"]
    assert success["policy"] > 0.4
    compared = next(each for each in judged["report"]["comparisons"] if each["candidate"] == policy)
    assert compared["interval"][0] > 0.2
    assert judged["decision"]["verdict"] in ("promote", "inconclusive")


def test_windows_of_an_episode_never_cross_a_split_and_at_random_they_would(
    workspace: Workspace, tmp_path: Path
) -> None:
    source = write(tmp_path / "set", demonstrations(range(12)), Layout(per_data=12, per_video=12))
    ingest(workspace, "reach", source=str(source))
    run_job(workspace, "curate", dataset="reach", steps=[{"op": "window", "steps": 8}, {"op": "split"}])
    examples = load_examples(workspace.folders, resolve(workspace.database, "reach"))
    assert len(examples) > 30
    placed = [(example.columns["seed"], example.split) for example in examples]
    assert {split for _, split in placed} == {"train", "validation", "test"}
    assert crossing(placed) == 0
    splits = [split for _, split in placed]
    random.Random(0).shuffle(splits)
    assert crossing(list(zip((seed for seed, _ in placed), splits, strict=True))) > 6


def crossing(placed: list[tuple[int, str]]) -> int:
    """Episodes that lie in more than one split."""
    found = defaultdict(set)
    for seed, split in placed:
        found[seed].add(split)
    return sum(len(splits) > 1 for splits in found.values())


@pytest.mark.slow
def test_episodes_of_one_session_stay_together(workspace: Workspace, tmp_path: Path) -> None:
    source = write(tmp_path / "set", demonstrations(range(12)), Layout(per_data=12, per_video=12))
    described = source / "meta/episodes/chunk-000/file-000.parquet"
    edit_rows(described, lambda rows: [{**row, "environment": f"s{row['episode_index'] // 3}"} for row in rows])
    _rename(described, "environment", "session")
    manifest = ingest(workspace, "reach", source=str(source))
    examples = load_examples(workspace.folders, manifest)
    assert {example.group for example in examples} == {"s0", "s1", "s2", "s3"}
    placed = [(int(example.group[1:]), example.split) for example in examples]
    assert crossing(placed) == 0


@pytest.mark.slow
def test_an_exported_dataset_comes_back_with_the_same_steps_frames_and_splits(
    workspace: Workspace, tmp_path: Path
) -> None:
    source = write(tmp_path / "set", demonstrations(range(6)), Layout(per_data=2, per_video=6))
    before = ingest(workspace, "reach", source=str(source))
    target = tmp_path / "out"
    run_job(workspace, "export", dataset="reach", format="lerobot", path=target)
    after = ingest(workspace, "again", source=str(target))
    assert after.splits == before.splits
    one, two = (
        {example.columns["seed"]: example for example in load_examples(workspace.folders, manifest)}
        for manifest in (before, after)
    )
    assert one.keys() == two.keys() == set(range(6))
    for seed, first in one.items():
        second = two[seed]
        assert first.split == second.split
        for name in ("state", "action", "times"):
            assert (first.media[name] == second.media[name]).all()
        assert (first.media["cameras"]["top"]["frames"] == second.media["cameras"]["top"]["frames"]).all()
        assert first.media["about"] == second.media["about"]


@pytest.mark.slow
def test_the_export_is_what_lerobots_own_loaders_expect(workspace: Workspace, tmp_path: Path) -> None:
    """LeRobot itself has no release for this Python: its loaders' calls are repeated here (io_utils.py,
    dataset_metadata.py), with the libraries that they call."""
    import datasets
    import pandas as pd  # type: ignore[import-untyped]  # it ships none

    source = write(tmp_path / "set", demonstrations(range(4)))
    ingest(workspace, "reach", source=str(source))
    root = tmp_path / "out"
    run_job(workspace, "export", dataset="reach", format="lerobot", path=root)
    info = json.loads((root / "meta/info.json").read_text())
    features = {
        key: datasets.Value(each["dtype"]) if each["shape"] == [1]
        else datasets.Sequence(length=each["shape"][0], feature=datasets.Value(each["dtype"]))
        for key, each in info["features"].items() if each["dtype"] != "video"
    }  # fmt: skip
    cache = str(tmp_path / "cache")
    steps = datasets.Dataset.from_parquet(
        [str(path) for path in sorted((root / "data").glob("*/*.parquet"))], features=datasets.Features(features),
        cache_dir=cache,
    )  # fmt: skip
    episodes = datasets.Dataset.from_parquet(
        [str(path) for path in sorted((root / "meta/episodes").glob("*/*.parquet"))], cache_dir=cache
    )
    tasks = pd.read_parquet(root / "meta/tasks.parquet")
    assert len(steps) == info["total_frames"] == sum(episodes["length"])
    assert len(episodes) == info["total_episodes"] == 4
    for episode in episodes:
        rows = steps.select(range(episode["dataset_from_index"], episode["dataset_to_index"]))
        assert set(rows["episode_index"]) == {episode["episode_index"]}
        assert tasks.iloc[rows[0]["task_index"]].name == episode["tasks"][0] == "reach the mark"
        key = "observation.images.top"
        video = info["video_path"].format(
            video_key=key, chunk_index=episode[f"videos/{key}/chunk_index"],
            file_index=episode[f"videos/{key}/file_index"],
        )  # fmt: skip
        assert (root / video).is_file()
    stats = json.loads((root / "meta/stats.json").read_text())
    assert {len(stats["action"][name]) for name in ("mean", "std", "min", "max", "q01", "q99")} == {2}
    assert [len(part) for part in (stats[key]["mean"], stats[key]["mean"][0])] == [3, 1]


@pytest.mark.slow
def test_what_a_policy_answered_leaves_as_actions_beside_the_recorded_ones(
    workspace: Workspace, tmp_path: Path
) -> None:
    """Opened by pyarrow, by the layout that LeRobot documents; LeRobot itself does not install beside this package."""
    source = write(tmp_path / "set", demonstrations(range(8)), Layout(per_data=8, per_video=8))
    ingest(workspace, "reach", source=str(source))
    few = {"candidates": ["ridge"]}
    run_job(workspace, "train", name="policy", dataset="reach", method="classical", hyperparameters=few)
    run_job(workspace, "predict", model="policy@v1", dataset="reach", save_as="acted")
    root = tmp_path / "out"
    report = run_job(workspace, "export", dataset="acted", format="lerobot", path=root, column="prediction")["report"]
    assert "answered by policy@v1" in report["notes"][0]
    info = json.loads((root / "meta/info.json").read_text())
    assert info["features"]["action"] == info["features"]["recorded.action"]
    steps = pa.concat_tables(map(pq.read_table, sorted((root / "data").glob("*/*.parquet"))))
    episodes = pa.concat_tables(map(pq.read_table, sorted((root / "meta/episodes").glob("*/*.parquet")))).to_pylist()
    assert "prediction" not in episodes[0]
    assert info["total_frames"] == steps.num_rows
    assert info["total_episodes"] == len(episodes) == 8
    read = load_examples(workspace.folders, resolve(workspace.database, "acted"))
    given = {each.columns["seed"]: each for each in read}
    for episode in episodes:
        first, stop = episode["dataset_from_index"], episode["dataset_to_index"]
        rows, example = steps.slice(first, stop - first), given[episode["seed"]]
        acted = np.array(json.loads(example.columns["prediction"])["actions"], np.float32)
        assert (np.array(rows["action"].to_pylist(), np.float32) == acted).all()
        assert (np.array(rows["recorded.action"].to_pylist(), np.float32) == example.media["action"]).all()
        assert np.allclose(episode["stats/action/mean"], acted.mean(axis=0), atol=1e-6)
    again = ingest(workspace, "again", source=str(root))
    for example in load_examples(workspace.folders, again):
        acted = json.loads(given[example.columns["seed"]].columns["prediction"])["actions"]
        assert np.allclose(example.media["action"], acted, atol=1e-6)


def test_actions_that_do_not_fit_their_episode_are_left_out_or_refused(workspace: Workspace, tmp_path: Path) -> None:
    source = write(tmp_path / "set", demonstrations(range(4)), Layout(per_data=4, per_video=4))
    described = source / "meta/episodes/chunk-000/file-000.parquet"
    episodes = pq.read_table(described)
    bad: list[Any] = ["", "[[1, 2], [3]]", '{"actions": [[NaN, 1]]}']

    def export(name: str, cells: list[Any]) -> dict[str, Any]:
        pq.write_table(episodes.append_column("acted", pa.array(cells, pa.string())), described)
        ingest(workspace, name, source=str(source))
        spec = {"dataset": name, "format": "lerobot", "path": tmp_path / name, "column": "acted"}
        return dict(run_job(workspace, "export", **spec)["report"])

    length = episodes["length"][3].as_py()
    report = export("one", [*bad, json.dumps([[0.5, 1.0]] * length)])
    assert "3 episodes were left out" in report["notes"][1]
    assert json.loads((tmp_path / "one/meta/info.json").read_text())["total_episodes"] == 1
    with pytest.raises(SpeciateError, match="No cell of the column 'acted' is actions"):
        export("none", [*bad, "text"])
    with pytest.raises(SpeciateError, match="The actions of episode 0 are 1 of 2 numbers"):
        export("short", [*bad, "[[0.5, 1.0]]"])


@pytest.mark.slow
def test_what_was_acted_once_is_not_acted_again(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An evaluation that is repeated, or goes on after a kill, finds the outcomes in what was answered."""
    source = write(tmp_path / "set", demonstrations(range(16)), Layout(per_data=16, per_video=16))
    ingest(workspace, "reach", source=str(source))
    run_job(
        workspace, "train", name="policy", dataset="reach", method="classical", task="behaviour-cloning",
        hyperparameters={"candidates": ["ridge"]},
    )  # fmt: skip
    asked = {"models": ["constant:", "policy"], "dataset": "reach:test", "metrics": ["success_rate"], "latency": False}
    first = run_job(workspace, "evaluate", **asked)["report"]["leaderboard"]
    assert {row["model"]: row["n"] for row in first}.keys() == {"constant:", "policy@v1"}
    acted = list[int]()
    whole = rollouts.RolloutModel._act

    def noted(self: rollouts.RolloutModel, name: str, some: list[Example]) -> list[dict[str, Any]]:
        acted.append(len(some))
        return whole(self, name, some)

    monkeypatch.setattr(rollouts.RolloutModel, "_act", noted)
    again = run_job(workspace, "evaluate", **asked)["report"]["leaderboard"]
    assert [(row["model"], row["value"]) for row in again] == [(row["model"], row["value"]) for row in first]
    tested = resolve(workspace.database, "reach").splits["test"]
    assert acted == [tested]  # the constant answer, which is never recorded


@pytest.mark.slow
def test_success_is_not_asked_of_recordings_that_name_no_environment(workspace: Workspace, tmp_path: Path) -> None:
    source = write(tmp_path / "set", demonstrations(range(8)))
    _rename(source / "meta/episodes/chunk-000/file-000.parquet", "environment", "place")
    ingest(workspace, "reach", source=str(source))
    define(workspace, "reacher", "behaviour-cloning", metric="success_rate")
    with pytest.raises(SpeciateError, match="no column 'environment'"):
        run_job(workspace, "evaluate", models=["constant:"], dataset="reach:test", use_case="reacher")


def _rename(path: Path, old: str, new: str) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    pq.write_table(table.rename_columns([new if name == old else name for name in table.column_names]), path)
