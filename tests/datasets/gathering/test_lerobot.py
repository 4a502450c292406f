"""LeRobot datasets cut into episodes: by their own seconds of each video, and named where anything is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speciate.datasets.gathering.lerobot import cut_episodes, is_lerobot
from speciate.datasets.sources import prepare
from speciate.datasets.sources.listing import SourceFile
from speciate.datasets.sources.sandbox_calls import SourceContext
from speciate.errors import SpeciateError
from speciate.jobs.pool import Pool
from speciate.modalities.contract import DecodeError
from speciate.modalities.robotics.episode import EPISODE, Episode
from speciate.workspace.workspace import Workspace
from tests.domains.lerobot_set import CAMERA, USUAL, Demonstration, Layout, demonstrations, edit_rows, video, write

DATA, EPISODES = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"
FIRST_VIDEO = f"videos/{CAMERA}/chunk-000/file-000.mp4"


@pytest.fixture(scope="module")
def demos() -> list[Demonstration]:
    return demonstrations(range(6))


@pytest.fixture
def cutting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], dict[str, Any]]:
    """The sandboxed half, called here; its episodes lie in the working folder."""
    folder = tmp_path / "cut"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return lambda root: cut_episodes({"root": str(root), "budget": 1 << 30})


def decoded(number: int) -> Episode | DecodeError:
    try:
        return EPISODE.decode(Path(f"episode-{number:06}.episode").read_bytes())
    except DecodeError as error:
        return error


def faults() -> dict[int, str]:
    """Number -> reason of those that are no examples."""
    found = {int(path.stem.split("-")[1]): decoded(int(path.stem.split("-")[1])) for path in Path().glob("*.episode")}
    return {number: each.detail for number, each in sorted(found.items()) if isinstance(each, DecodeError)}


def test_the_layout_is_known_by_names_alone() -> None:
    def files(*names: str) -> list[SourceFile]:
        return [SourceFile(Path(name), name, None, None) for name in names]

    assert is_lerobot(files("meta/info.json", DATA))
    assert is_lerobot(files("a/b/meta/info.json", "a/b/meta/episodes.jsonl"))
    assert not is_lerobot(files("meta/info.json", "images/cat.png"))
    assert not is_lerobot(files("info.json", DATA))


@pytest.mark.parametrize(
    ("layout", "again"),
    [
        (USUAL, None),
        (Layout(per_data=1, per_video=6, options=(("g", "250"), ("crf", "18"))), "6 parts"),
        (Layout(per_data=6, per_video=1, options=(("g", "8"), ("crf", "18"), ("bf", "2"))), None),
    ],
    ids=["independent files", "no keyframes between, frames that depend on later ones", "a video each"],
)
def test_each_episode_gets_its_own_steps_and_its_own_seconds_of_the_video(
    demos: list[Demonstration], cutting: Any, tmp_path: Path, layout: Layout, again: str | None
) -> None:
    """Files of data and of video hold other episodes; a shared index would show another episode."""
    answer = cutting(write(tmp_path / "set", demos, layout))
    assert [number for _, number, _ in answer["episodes"]] == list(range(6))
    assert again is None or answer["notes"][0].startswith(again)
    for number, demo in enumerate(demos):
        media = decoded(number)
        assert not isinstance(media, DecodeError), media
        assert (media["state"] == demo.state).all()
        assert (media["action"] == demo.action).all()
        frames = media["cameras"]["top"]["frames"]
        assert len(frames) == len(demo.frames)
        errors = [np.abs(frames.astype(int) - np.stack(each.frames)[: len(frames)]).mean() for each in demos
                  if len(each.frames) >= len(frames)]  # fmt: skip
        own = np.abs(frames.astype(int) - np.stack(demo.frames)).mean()
        assert own == min(errors) < 4
        assert media["about"]["state"][:2] == ["x", "y"]
        assert media["about"]["task"] == "reach the mark"


def test_copied_videos_are_not_encoded_again(demos: list[Demonstration], cutting: Any, tmp_path: Path) -> None:
    answer = cutting(write(tmp_path / "set", demos, Layout(per_video=1)))
    assert answer["notes"] == []


def _lose(path: str) -> Callable[[Path], None]:
    return lambda root: (root / path).unlink()


def _damage(path: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        data = (root / path).read_bytes()
        (root / path).write_bytes(data[: len(data) // 2])

    return damage


def _rows(path: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Callable[[Path], None]:
    return lambda root: edit_rows(root / path, change)


def _declare(number: int, **changed: Any) -> Callable[[Path], None]:
    return _rows(EPISODES, lambda rows: [row | changed if row["episode_index"] == number else row for row in rows])


def _shorter_video(root: Path) -> None:
    """The last ten frames of the first file are lost."""
    demos = demonstrations(range(4))
    frames = [frame for demo in demos for frame in demo.frames]
    (root / FIRST_VIDEO).write_bytes(video(frames[:-10]))


def _nan(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    hit = next(place for place, row in enumerate(rows) if row["episode_index"] == 1) + 4
    return [row | {"action": [float("nan"), 0.0]} if place == hit else row for place, row in enumerate(rows)]


def _late(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {"timestamp": row["timestamp"] + 0.2 * (row["frame_index"] > 5)} if row["episode_index"] == 0 else row
            for row in rows]  # fmt: skip


@pytest.mark.parametrize(
    ("harm", "who", "message"),
    [
        (_lose(FIRST_VIDEO), [0, 1, 2, 3], "is missing"),
        (_damage(FIRST_VIDEO), [0, 1, 2, 3], "cannot be opened"),
        (_shorter_video, [3], "frames from"),
        (_lose(DATA), [0, 1, 2], "with its steps is missing"),
        (_damage(DATA), [0, 1, 2], "with its steps is damaged"),
        (_rows(DATA, lambda rows: [row for row in rows if (row["episode_index"], row["frame_index"]) != (2, 7)]), [2],
         "steps of it where meta/episodes declares"),
        (_rows(DATA, _nan), [1], "action is no number in 1 of"),
        (_rows(DATA, _late), [0], "The timestamp of step 6"),
        (_declare(4, length=99), [4], "declares 99"),
        (_declare(5, **{f"videos/{CAMERA}/from_timestamp": 0.4}), [5], "frames from 0.400"),
        (_declare(2, **{"data/file_index": 1}), [2], "has 0 steps of it"),
    ],
    ids=["video missing", "video damaged", "video short", "data missing", "data damaged", "a row missing", "NaN action",
         "late timestamps", "length", "seconds", "wrong file"],
)  # fmt: skip
def test_faulty_episodes_are_named_and_the_rest_goes_in(
    demos: list[Demonstration], cutting: Any, tmp_path: Path, harm: Callable[[Path], None], who: list[int], message: str
) -> None:
    root = write(tmp_path / "set", demos)
    harm(root)
    cutting(root)
    found = faults()
    assert sorted(found) == who
    assert all(message in reason for reason in found.values()), found


def test_an_episode_whose_columns_are_of_another_type_does_not_keep_the_rest_out(
    demos: list[Demonstration], cutting: Any, tmp_path: Path
) -> None:
    root = write(tmp_path / "set", demos)
    steps = pq.read_table(root / DATA)
    noon = pa.array(["noon"] * steps.num_rows)
    pq.write_table(steps.drop_columns(["timestamp"]).append_column("timestamp", noon), root / DATA)
    answer = cutting(root)
    assert [name for name, reason in answer["excluded"] if "It cannot be cut" in reason] == [
        f"episode-{number:06}.episode" for number in (0, 1, 2)
    ]
    assert not faults()
    assert [number for _, number, _ in answer["episodes"]] == list(range(3, len(demos)))


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("meta/info.json", "{broken", "meta/info.json of the LeRobot dataset is damaged"),
        ("meta/info.json", '{"codebase_version": "v1.6", "fps": 1, "features": {}}', "version 'v1.6'; v3.0 and v2.1"),
        (EPISODES, "PAR1", "meta/episodes of the LeRobot dataset is damaged"),
    ],
)
def test_without_its_description_nothing_can_be_cut(
    demos: list[Demonstration], cutting: Any, tmp_path: Path, path: str, content: str, message: str
) -> None:
    root = write(tmp_path / "set", demos[:2])
    (root / path).write_text(content)
    with pytest.raises(SpeciateError, match=message):
        cutting(root)


def test_a_path_that_leads_out_of_the_dataset_is_not_followed(
    demos: list[Demonstration], cutting: Any, tmp_path: Path
) -> None:
    root = write(tmp_path / "set", demos[:2])
    info = json.loads((root / "meta/info.json").read_text())
    info["data_path"] = "../set/data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    (root / "meta/info.json").write_text(json.dumps(info))
    cutting(root)
    assert all("leads out of the dataset" in reason for reason in faults().values())
    assert len(faults()) == 2


def test_version_2_1_with_a_file_for_each_episode_is_read(
    demos: list[Demonstration], cutting: Any, tmp_path: Path
) -> None:
    root = write(tmp_path / "set", demos[:3], Layout(per_data=3, per_video=1))
    table = pq.read_table(root / DATA)
    shutil.rmtree(root / "data")
    shutil.rmtree(root / "meta/episodes")
    videos = root / "videos/chunk-000" / CAMERA
    videos.mkdir(parents=True)
    (root / "data/chunk-000").mkdir(parents=True)
    for number in range(3):
        rows = table.filter(pa.compute.equal(table["episode_index"], number))
        pq.write_table(rows, root / f"data/chunk-000/episode_{number:06d}.parquet")
        (root / f"videos/{CAMERA}/chunk-000/file-{number:03d}.mp4").rename(videos / f"episode_{number:06d}.mp4")
    info = json.loads((root / "meta/info.json").read_text())
    info |= {
        "codebase_version": "v2.1",
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    (root / "meta/info.json").write_text(json.dumps(info))
    lines = [{"episode_index": n, "tasks": ["reach the mark"], "length": len(demos[n].state)} for n in range(3)]
    (root / "meta/episodes.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (root / "meta/tasks.jsonl").write_text(json.dumps({"task_index": 0, "task": "reach the mark"}))
    cutting(root)
    for number in range(3):
        media = decoded(number)
        assert not isinstance(media, DecodeError), media
        assert (media["action"] == demos[number].action).all()
        assert len(media["cameras"]["top"]["frames"]) == len(demos[number].frames)


def test_a_source_of_two_datasets_and_other_files_lists_every_episode(
    demos: list[Demonstration], workspace: Workspace, tmp_path: Path
) -> None:
    """Through the sandbox, as ingest does it."""
    source = tmp_path / "source"
    write(source / "left", demos[:2])
    write(source / "right", demos[2:5])
    (source / "right/meta/info.json").write_text((source / "right/meta/info.json").read_text().replace("0:3", "0:2"))
    (source / "notes.csv").write_text("a,b\n1,2\n")
    settings = workspace.settings
    context = SourceContext(
        Pool(workspace.folders, settings, size=1), settings.cage, workspace.folders, tmp_path / "work"
    )
    found = prepare.prepare_source(source, context)
    context.pool.close()
    assert found.modality == "episode"
    assert [file.name for file in found.files] == [
        *(f"left/episode-{n:06}.episode" for n in range(2)), *(f"right/episode-{n:06}.episode" for n in range(3))
    ]  # fmt: skip
    assert all(EPISODE.sniff(file.path.read_bytes()[:4096], file.name) for file in found.files)
    assert [name for name, _ in found.excluded] == ["notes.csv"]
