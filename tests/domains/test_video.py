"""Videos from files to a decision, through the tools: what moves whither, which no single frame tells."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from speciate.datasets.loading.loader import Example, load_examples
from speciate.datasets.versions import Manifest, resolve
from speciate.modalities.image import IMAGE
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets.operations.world import curate, read
from tests.documentation import calls_in, page
from tests.domains.calling import ended
from tests.modalities.video_samples import DIRECTIONS, clip, encode, moving
from tests.server.processes import Daemons

COPIES = 12
BROKEN = {
    "no-index.mp4": ("error", "Its index (moov) is missing or cut"),
    "half.m4v": ("partial", "bytes where its boxes end at"),
    "most.webm": ("partial", "bytes where its segment ends at"),
    "letter.mp4": ("error", "Not an MP4, MOV, Matroska, WebM or AVI file."),
    "empty.mp4": ("error", "empty"),
    "endless.mp4": ("refused", "72,000 seconds, more than 43,200."),
    "vast.avi": ("refused", "Frames of 8000 x 8000 pixels"),
}


def directions(folder: Path, count: int) -> list[dict[str, Any]]:
    """`count` clips in MP4, WebM and MKV with a labels file; the first twelve again, smaller and in another codec; and
    files that are none."""
    folder.mkdir()
    rows = []
    speeds = np.random.default_rng(7).uniform(1.5, 3, count).tolist()
    for place, speed in enumerate(speeds):
        name = [*DIRECTIONS][(5 * place + place // 8) % 4]
        way = speed * DIRECTIONS[name][0], speed * DIRECTIONS[name][1]
        file = f"{place:03}.{'mkv' if place % 3 else 'mp4'}"
        (folder / file).write_bytes(clip(place, way, format="matroska" if place % 3 else "mp4"))
        rows.append({"file": file, "way": name, "copy_of": ""})
        if place < COPIES:
            again = encode(moving(place, way), "webm", "libvpx-vp9", gop=5, size=(40, 40), crf="30")
            (folder / f"again-{place:03}.webm").write_bytes(again)
            rows.append({"file": f"again-{place:03}.webm", "way": name, "copy_of": file})
    with (folder / "labels.csv").open("w", newline="") as file_:
        writer = csv.DictWriter(file_, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def broken(folder: Path) -> None:
    whole = clip(1000, (2, 0))
    (folder / "no-index.mp4").write_bytes(whole[: len(whole) // 2])
    first = clip(1001, (2, 0), index_first=True)
    (folder / "half.m4v").write_bytes(first[: int(len(first) * 0.75)])
    film = encode(moving(1002, (2, 0)), "webm", "libvpx-vp9")
    (folder / "most.webm").write_bytes(film[: int(len(film) * 0.95)])
    (folder / "letter.mp4").write_text("Dear all, this is no video.\n" * 20)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "endless.mp4").write_bytes(encode(moving(1003, (2, 0))[:2], times=[0, 20 * 3600]))
    vast = bytearray(encode(moving(1004, (2, 0))[:2], "avi", "rawvideo"))
    at = vast.index(b"strf") + 8  # width and height of the header of bitmaps
    vast[at + 4 : at + 12] = (8_000).to_bytes(4, "little") * 2
    (folder / "vast.avi").write_bytes(bytes(vast))


def across(rows: list[dict[str, Any]], splits: list[str]) -> int:
    """How many copies lie in another split than what they are copies of."""
    place = dict(zip((row["source"] for row in rows), splits, strict=True))
    return sum(place[row["source"]] != place[row["copy_of"]] for row in rows if row["copy_of"])


def ingested(workspace: Workspace, folder: Path) -> Manifest:
    labels = {"path": str(folder / "labels.csv"), "key": "file", "column": "way"}
    data.ingest(workspace, "ways", source=folder, labels=labels)
    return resolve(workspace.database, "ways")


def test_each_file_that_is_no_video_is_named_and_the_rest_goes_in(workspace: Workspace, tmp_path: Path) -> None:
    directions(tmp_path / "ways", 12)
    broken(tmp_path / "ways")
    ingested(workspace, tmp_path / "ways")
    found = {row["source"]: row for row in read(workspace, "ways").to_pylist()}
    assert len(found) == 24 + len(BROKEN)
    for name, (quality, said) in BROKEN.items():
        assert found[name]["quality"] == quality, found[name]
        assert said in found[name]["reason"]
    assert sum(row["quality"] == "ok" for row in found.values()) == 24


def test_copies_in_another_codec_never_cross_a_split_nor_do_windows_of_one_video(
    workspace: Workspace, tmp_path: Path
) -> None:
    directions(tmp_path / "ways", 24)
    ingested(workspace, tmp_path / "ways")
    dealt = {"op": "split", "fractions": {"train": 0.5, "test": 0.5}, "seed": 3}
    rows = curate(workspace, "ways@v1", dealt).rows.to_pylist()
    splits = [row["split"] for row in rows]
    assert across(rows, splits) == 0
    assert across(rows, np.random.default_rng(0).permutation(splits).tolist()) > 0
    windows = curate(workspace, "ways@v1", {"op": "window", "frames": 5}, dealt).rows.to_pylist()
    assert len(windows) == 3 * len(rows)
    places = {(row["copy_of"] or row["source"], row["split"]) for row in windows}
    assert len(places) == 24
    chance = np.random.default_rng(0).permutation([row["split"] for row in windows]).tolist()
    assert len({(row["copy_of"] or row["source"], name) for row, name in zip(windows, chance, strict=True)}) > 24


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Daemons]:
    daemons = Daemons(tmp_path / "workspace")
    daemons.workspace.mkdir()
    yield daemons
    daemons.close()


def calls() -> list[dict[str, Any]]:
    """The arguments of the calls in docs/video.md, in their order."""
    return [call.arguments for call in calls_in(page("video.md"))]


def by_one_frame(examples: list[Example]) -> float:
    """The accuracy on the test split of a classical model that sees the middle frame alone."""
    seen = {split: [each for each in examples if each.split == split] for split in ("train", "test")}

    def frames(split: str) -> Any:
        return np.stack([IMAGE.describe(each.media["frames"][len(each.media["frames"]) // 2]) for each in seen[split]])

    fitted = LogisticRegression(max_iter=1000).fit(frames("train"), [each.label for each in seen["train"]])
    return float(np.mean(fitted.predict(frames("test")) == [each.label for each in seen["test"]]))


@pytest.mark.slow
def test_from_files_to_a_decision(daemons: Daemons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    client = daemons.connect()
    directions(tmp_path / "ways", 240)
    broken(tmp_path / "ways")
    create, curated, define, specialize = calls()
    made = ended(client, "create_dataset", **create)
    assert {name: made["report"][name] for name in ("ok", "partial", "refused", "error")} == {
        "ok": 252, "partial": 2, "refused": 2, "error": 3,
    }  # fmt: skip
    steps = ended(client, "curate_dataset", **curated)["steps"]
    assert steps[0]["after"] == 240 + len(BROKEN)
    client.call("preview_dataset", dataset="ways", count=4)
    client.call("define_use_case", **define)
    found = ended(client, "specialize", **specialize)
    best = max(each["value"] for each in found["candidates"])
    assert found["decision"]["verdict"] == "promote", found
    (tmp_path / "new.mp4").write_bytes(clip(5000, (0, -2)))
    (answer,) = client.call("predict", model=found["model"], inputs=[{"path": str(tmp_path / "new.mp4")}])[
        "predictions"
    ]
    assert answer["untrusted"]["output"] == "up"
    for format_ in ("folder", "webdataset", "parquet"):
        out = str(tmp_path / "out" / format_)
        ended(client, "export_dataset", dataset="ways", format=format_, path=out)
        back = ended(client, "create_dataset", name=f"back-{format_}", source=out)
        described = client.call("describe_dataset", dataset=back["dataset"])
        assert (described["modality"], described["quality"]["ok"]) == ("video", 240)
    daemons.close()
    workspace = Workspace(daemons.workspace, settings=Settings())
    examples = load_examples(workspace.folders, resolve(workspace.database, "ways"))
    workspace.close()
    still = by_one_frame(examples)
    print(f"classical, of the clip: {best:.3f}; of one frame: {still:.3f}")
    assert still < 0.5 < best
