"""Vectors of examples, and who is near whom: real media, real sandboxed processes, a real job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from speciate.datasets import version_rows
from speciate.datasets.columns import START, STOP
from speciate.datasets.loading.loader import load_examples
from speciate.datasets.similarity import embed, extractors, nearest_neighbours
from speciate.datasets.similarity.nearest_neighbours import NeighbourQuery, Neighbours, closest
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.jobs.engine import Engine
from speciate.jobs.pool import Pool
from speciate.modalities import find
from speciate.server.option_catalog import list_options
from speciate.server.tool_api import App, JobStarted
from speciate.tools.datasets import SimilarExamples, find_similar
from speciate.workspace.workspace import Workspace
from tests import data

pytestmark = pytest.mark.slow


@pytest.fixture
def pool(workspace: Workspace) -> Iterator[Pool]:
    pool = Pool(workspace.folders, workspace.settings)
    yield pool
    pool.close()


@pytest.fixture
def digits(workspace: Workspace, tmp_path: Path) -> Manifest:
    return data.ingest(workspace, "digits", source=data.digit_folder(tmp_path / "digits", 60), label="folder")


@pytest.fixture
def reviews(workspace: Workspace) -> Manifest:
    return data.ingest(workspace, "reviews", rows=tuple(data.review_rows()), label="label", group_by="film")


def usable(workspace: Workspace, manifest: Manifest) -> pa.Table:
    return version_rows.read(workspace.folders, manifest, usable=True)


def question(**asked: Any) -> NeighbourQuery:
    return NeighbourQuery(**{"id": None, "text": None, "extractor": "descriptor", "split": None, "k": 5, **asked})


def embedded(workspace: Workspace, manifest: Manifest) -> Manifest:
    data.run_job(workspace, "embed", dataset=manifest.ref, extractor="descriptor")
    return manifest


def test_vectors_of_files_are_the_features_of_their_media(workspace: Workspace, digits: Manifest) -> None:
    vectors = embed.row_vectors(workspace.folders, digits, usable(workspace, digits))

    examples = load_examples(workspace.folders, digits)
    np.testing.assert_array_equal(vectors, np.stack([find("image").features(each.media) for each in examples]))


def test_vectors_of_cells_are_the_features_of_their_media(workspace: Workspace, reviews: Manifest) -> None:
    rows = usable(workspace, reviews)
    backwards = rows.take(pa.array(np.arange(rows.num_rows)[::-1]))

    vectors = embed.row_vectors(workspace.folders, reviews, backwards)

    examples = load_examples(workspace.folders, reviews)
    np.testing.assert_array_equal(vectors[::-1], np.stack([find("text").features(each.media) for each in examples]))


def test_a_medium_is_embedded_once_for_all_datasets(workspace: Workspace, reviews: Manifest) -> None:
    first = data.run_job(workspace, "embed", dataset="reviews", extractor="descriptor")
    more = data.ingest(workspace, "more", rows=tuple(data.review_rows(90)), label="label")
    shared = set(usable(workspace, reviews)["text"].to_pylist()) & set(usable(workspace, more)["text"].to_pylist())

    second = data.run_job(workspace, "embed", dataset="more", extractor="descriptor")

    assert (first["computed"], first["cached"]) == (80, 0)
    assert second["computed"] == more.rows - len(shared)
    assert data.run_job(workspace, "embed", dataset="more", extractor="descriptor")["computed"] == 0


def test_a_window_has_a_vector_of_its_own(workspace: Workspace, tmp_path: Path) -> None:
    moves = data.ingest(workspace, "moves", source=data.series_ts(tmp_path / "moves"))
    whole = usable(workspace, moves)
    windows = whole.drop_columns([name for name in (START, STOP) if name in whole.column_names])
    windows = windows.append_column(START, pa.array([5.0] * whole.num_rows))
    windows = windows.append_column(STOP, pa.array([15.0] * whole.num_rows))

    embed.row_vectors(workspace.folders, moves, whole)
    vectors = embed.row_vectors(workspace.folders, moves, windows)

    kind, examples = find("time-series"), load_examples(workspace.folders, moves)
    expected = [kind.features(kind.window(each.media, 5, 15)) for each in examples]
    np.testing.assert_array_equal(vectors, np.stack(expected))


def test_vectors_computed_before_a_stop_are_kept(
    workspace: Workspace, reviews: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speciate.datasets.similarity.embed._CHUNK", 16)
    rows, extractor = usable(workspace, reviews), extractors.load("descriptor", "text", workspace.folders)

    def stop(done: int, total: int) -> None:
        if done >= 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed.fill_vectors(workspace.folders, reviews, rows, extractor, stop)

    assert embed.fill_vectors(workspace.folders, reviews, rows, extractor) == (80 - 32, 32)


def test_a_medium_that_no_longer_decodes_names_its_example(workspace: Workspace, digits: Manifest) -> None:
    rows = usable(workspace, digits)
    pack = workspace.folders.root / digits.packs[0]
    pack.chmod(0o600)
    pack.write_bytes(b"\0" * pack.stat().st_size)

    with pytest.raises(SpeciateError, match=r"ex-\w+"):
        embed.row_vectors(workspace.folders, digits, rows)


def test_neighbours_are_the_nearest_by_cosine(workspace: Workspace, pool: Pool, digits: Manifest) -> None:
    rows = usable(workspace, embedded(workspace, digits))
    ids = rows["id"].to_pylist()
    vectors = embed.row_vectors(workspace.folders, digits, rows)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    distances = 1 - units @ units[7]
    expected = [ids[place] for place in np.argsort(distances, kind="stable") if place != 7][:5]

    found = nearest_neighbours.find_neighbours(Engine(workspace), pool, digits, question(id=ids[7]))

    assert isinstance(found, Neighbours)
    assert [id for id, _ in found.nearest] == expected  # noqa: A001 - the field
    assert [row[0] for row in found.rows] == [ids[7], *expected]
    assert found.nearest[0][1] == pytest.approx(np.sort(distances)[1], abs=1e-5)
    assert found.contact_sheet is not None
    assert found.contact_sheet.startswith(b"\x89PNG")


def test_a_text_finds_similar_examples(workspace: Workspace, pool: Pool, reviews: Manifest) -> None:
    wanted = usable(workspace, embedded(workspace, reviews)).slice(11, 1).to_pylist()[0]

    found = nearest_neighbours.find_neighbours(
        Engine(workspace), pool, reviews, question(text=wanted["text"].upper(), k=1)
    )

    assert isinstance(found, Neighbours)
    assert found.nearest[0][0] == wanted["id"]
    assert found.nearest[0][1] == pytest.approx(0, abs=1e-5)
    assert dict(zip(found.columns, found.rows[0], strict=True))["content"] == wanted["text"][:200]
    assert found.contact_sheet is None


def test_only_the_requested_split_is_searched(workspace: Workspace, pool: Pool, reviews: Manifest) -> None:
    rows = usable(workspace, embedded(workspace, reviews))
    learned = rows.filter(pa.compute.equal(rows["split"], "train"))["id"][0].as_py()

    found = nearest_neighbours.find_neighbours(
        Engine(workspace), pool, reviews, question(id=learned, split="test", k=100)
    )

    assert isinstance(found, Neighbours)
    assert len(found.nearest) == reviews.splits["test"]
    assert {row[2] for row in found.rows[1:]} == {"test"}


@pytest.mark.parametrize(
    ("asked", "code", "says"),
    [
        ({}, Code.INVALID, "Neither id nor text"),
        ({"id": "ex-1", "text": "a"}, Code.INVALID, "Both id and text"),
        ({"id": "ex-nothere"}, Code.NOT_FOUND, "no usable example"),
        ({"text": "a", "extractor": "descripter"}, Code.NOT_FOUND, "descriptor"),
        ({"id": "ex-1", "extractor": "pkg:minilm"}, Code.INVALID, "embeds text, and this is image"),
        ({"text": "a cat"}, Code.INVALID, r"takes no text.*pkg:minilm \(text\)"),
    ],
)
def test_a_question_that_has_no_answer_says_why(
    workspace: Workspace, pool: Pool, digits: Manifest, asked: dict[str, Any], code: Code, says: str
) -> None:
    embedded(workspace, digits)

    with pytest.raises(SpeciateError, match=says) as error:
        nearest_neighbours.find_neighbours(Engine(workspace), pool, digits, question(**asked))

    assert error.value.code == code


def test_examples_of_other_quality_are_neither_queried_nor_found(
    workspace: Workspace, pool: Pool, tmp_path: Path
) -> None:
    folder = data.digit_folder(tmp_path / "digits", 20)
    (folder / "0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot an image")
    manifest = embedded(workspace, data.ingest(workspace, "digits", source=folder, label="folder"))
    everything = version_rows.read(workspace.folders, manifest)
    (broken,) = everything.filter(pa.compute.not_equal(everything["quality"], "ok"))["id"].to_pylist()

    found = nearest_neighbours.find_neighbours(
        Engine(workspace), pool, manifest, question(id=usable(workspace, manifest)["id"][0].as_py(), k=100)
    )

    assert isinstance(found, Neighbours)
    assert len(found.nearest) == 19
    with pytest.raises(SpeciateError, match="only examples of quality ok"):
        nearest_neighbours.find_neighbours(Engine(workspace), pool, manifest, question(id=broken))


def test_missing_vectors_are_made_on_first_use(workspace: Workspace, pool: Pool, reviews: Manifest) -> None:
    engine = Engine(workspace)
    engine.start()
    try:
        asked = usable(workspace, reviews)["id"][0].as_py()
        answer, *images = find_similar(App(workspace, engine, pool), "reviews", id=asked, extractor="descriptor")
    finally:
        engine.stop()

    assert isinstance(answer, SimilarExamples)
    assert len(answer.neighbours) == 10
    assert answer.extractor == "descriptor"
    assert not images


def test_a_long_embedding_becomes_one_job(
    workspace: Workspace, pool: Pool, reviews: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest_neighbours, "_WAIT_SECONDS", 0.0)
    app = App(workspace, Engine(workspace), pool)  # an engine that was not started: nothing runs

    (first,) = find_similar(app, "reviews", text="moving and funny", extractor="descriptor", k=3)
    (again,) = find_similar(app, "reviews", text="dull", extractor="descriptor")

    assert isinstance(first, JobStarted)
    assert isinstance(again, JobStarted)
    assert first.job == again.job
    assert [each.tool for each in first.next_actions] == ["wait_for_job", "find_similar"]
    assert first.next_actions[1].arguments == {
        "dataset": "reviews", "text": "moving and funny", "extractor": "descriptor", "k": 3,
    }  # fmt: skip


def test_an_embedding_that_was_lost_is_made_again(workspace: Workspace, pool: Pool, reviews: Manifest) -> None:
    app = App(workspace, Engine(workspace), pool)
    app.engine.start()
    try:
        asked = usable(workspace, reviews)["id"][0].as_py()
        (first,) = find_similar(app, "reviews", id=asked, extractor="descriptor")
        for part in workspace.folders.features.glob("*/*.parquet"):
            part.unlink()
        fresh = Pool(workspace.folders, workspace.settings)
        (second,) = find_similar(App(workspace, app.engine, fresh), "reviews", id=asked, extractor="descriptor")
        fresh.close()
    finally:
        app.engine.stop()

    assert first == second
    assert len(app.engine.list(kind="embed")) == 2


@pytest.mark.parametrize("modality", ["text", "image"])
def test_without_its_libraries_a_model_is_refused_and_the_descriptor_stands_in(
    workspace: Workspace, modality: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extractors, "_LIBRARIES", ("no_such_library",))

    assert extractors.resolve(None, modality, workspace) == "descriptor"
    if modality == "text":
        with pytest.raises(SpeciateError, match="not installed") as error:
            extractors.resolve("pkg:minilm", modality, workspace)
        assert error.value.code == Code.MISSING_EXTRA
        assert "pip install" in error.value.recovery
        named = {option.name: option.needs for option in list_options("extractor")}
        assert named["descriptor"] == ()
        assert named["pkg:minilm"]


def test_the_id_of_a_descriptor_is_of_its_modality_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    text, image = extractors.Descriptor("text"), extractors.Descriptor("image")
    monkeypatch.setattr(extractors, "_code_version", lambda modality: "other")

    assert len({text.id, image.id, extractors.Descriptor("text").id}) == 3


def test_of_equally_near_ones_the_first_are_taken() -> None:
    units = np.tile(np.array([[1, 0]], np.float32), (6, 1))

    places, distances = closest(units, units[0], np.array([False, True, True, False, True, True]), 3)

    assert places.tolist() == [1, 2, 4]
    assert distances.tolist() == [0, 0, 0]
