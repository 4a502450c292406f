"""What a stream promises of the sequence of ids, and that what it gives are the examples."""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.datasets import next_version
from speciate.datasets.loading.loader import Example, load_examples
from speciate.datasets.loading.stream import Stream, epoch_order, rank_share, step_count
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.workspace.scratch import remove_abandoned
from speciate.workspace.workspace import Folders
from tests.datasets import sealed
from tests.drawn import drawn


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    made = Folders(tmp_path_factory.mktemp("workspace"))
    made.make()
    return made


@pytest.fixture(scope="module")
def texts(folders: Folders) -> Manifest:
    return sealed.texts(folders, 97)


@pytest.fixture(scope="module")
def images(folders: Folders) -> Manifest:
    return sealed.images(folders, 60)


def ids(batches: Iterator[list[Example]]) -> list[list[str]]:
    return [[example.id for example in batch] for batch in batches]


@settings(max_examples=drawn(100, 4), deadline=None)  # some twenty streams each
@given(
    batch=st.integers(1, 40),
    world=st.integers(1, 4),
    seed=st.integers(0, 2**63),
    epoch=st.integers(0, 5),
    shuffle=st.booleans(),
    data=st.data(),
)
def test_who_stops_and_resumes_gets_exactly_the_rest(
    folders: Folders, texts: Manifest, batch: int, world: int, seed: int, epoch: int, shuffle: bool, data: st.DataObject
) -> None:
    seen: list[str] = []
    saved: dict[str, Any] = {}
    for rank in range(world):
        what: dict[str, Any] = {"batch": batch, "world": world, "rank": rank, "seed": seed, "shuffle": shuffle}
        whole = ids(iter(Stream(folders, texts, epoch=epoch, **what)))
        stop = data.draw(st.integers(0, len(whole)))
        first, second = Stream(folders, texts, epoch=epoch, **what), Stream(folders, texts, **what)
        before = ids(itertools.islice(first, stop))
        saved = json.loads(json.dumps(first.state()))
        second.resume(saved)
        assert before + ids(iter(second)) == whole
        assert second.state()["epoch"] == epoch + 1
        assert [len(each) for each in whole[:-1]] == [batch] * (len(whole) - 1)
        seen += [name for each in whole for name in each]
    assert sorted(seen) == [f"t{i:05}" for i in range(97)]


def test_every_rank_can_resume_from_the_state_of_one(folders: Folders, texts: Manifest) -> None:
    streams = [Stream(folders, texts, batch=8, rank=rank, world=3) for rank in range(3)]
    before = [ids(itertools.islice(stream, 2)) for stream in streams]
    after = []
    for rank in range(3):
        resumed = Stream(folders, texts, batch=8, rank=rank, world=3)
        resumed.resume(streams[1].state())
        after.append(ids(iter(resumed)))
    names = [name for run in before + after for batch in run for name in batch]
    assert sorted(names) == [f"t{i:05}" for i in range(97)]


def test_the_sequence_does_not_depend_on_how_the_version_came_about(folders: Folders, texts: Manifest) -> None:
    """In three parts, of one of which rows were taken away, and with rows in another order."""
    whole = sealed.scan_all(folders, texts)
    shuffled = whole.take(np.random.default_rng(1).permutation(97))
    grown = next_version.seal_first(folders, sealed.with_extra(shuffled.slice(0, 40), "extra"), texts)
    for start, count in ((40, 30), (70, 27)):
        grown = next_version.seal_appended(folders, grown.manifest, grown.lanes, shuffled.slice(start, count))
    grown = next_version.seal_changed(folders, grown.manifest, grown.lanes, whole)
    assert grown.manifest.id == texts.id
    assert len(grown.manifest.parts) > 1
    assert ids(iter(Stream(folders, grown.manifest, batch=10))) == ids(iter(Stream(folders, texts, batch=10)))


def test_epochs_follow_each_other_in_other_orders(folders: Folders, texts: Manifest) -> None:
    stream = Stream(folders, texts, batch=50)
    epochs = [ids(iter(stream)) for _ in range(3)]
    assert epochs[2] == ids(iter(Stream(folders, texts, batch=50, epoch=2)))
    flat = [tuple(itertools.chain(*epoch)) for epoch in epochs]
    assert len(set(flat)) == 3
    assert {tuple(sorted(names)) for names in flat} == {tuple(sorted(flat[0]))}


def test_unshuffled_it_gives_what_load_examples_gives(folders: Folders, texts: Manifest, images: Manifest) -> None:
    for manifest in (texts, images):
        with Stream(folders, manifest, batch=7, shuffle=False) as stream:
            streamed = list(itertools.chain.from_iterable(stream))
        for one, other in zip(streamed, load_examples(folders, manifest), strict=True):
            assert one._replace(media=None) == other._replace(media=None)
            assert np.array_equal(one.media, other.media)


def test_splits_and_columns_narrow_it(folders: Folders, texts: Manifest) -> None:
    batch = next(iter(Stream(folders, texts, batch=97, splits=["test"], columns=["number"])))
    assert sorted(example.id for example in batch) == [f"t{i:05}" for i in range(0, 97, 10)]
    assert {(example.split, tuple(example.columns)) for example in batch} == {("test", ("number",))}
    assert all(example.media == f"text {example.id}" for example in batch)


def test_examples_that_are_not_ok_are_left_out(folders: Folders) -> None:
    quality = ["ok", "partial", "ok", "error"]
    rows = sealed.rows({"id": list("abcd"), "quality": quality, "text": list("abcd")})
    manifest = next_version.seal_first(folders, rows, sealed.blank("text", ["text"])).manifest
    assert ids(iter(Stream(folders, manifest, batch=9, shuffle=False))) == [["a", "c"]]


def test_tables_are_the_same_batches(folders: Folders, texts: Manifest) -> None:
    tables, batches = Stream(folders, texts, batch=20, seed=3).tables(), Stream(folders, texts, batch=20, seed=3)
    assert [table["id"].to_pylist() for table in tables] == ids(iter(batches))


def test_the_number_of_workers_changes_nothing(folders: Folders, images: Manifest) -> None:
    runs = []
    for workers, ahead in ((1, 1), (3, 2)):
        with Stream(folders, images, batch=9, workers=workers, ahead=ahead) as stream:
            runs.append([(example.id, example.media.tobytes()) for batch in stream for example in batch])
    assert runs[0] == runs[1]
    assert len(runs[0]) == 60


def test_processes_are_kept_from_one_epoch_to_the_next(folders: Folders, images: Manifest) -> None:
    with Stream(folders, images, batch=9, workers=1) as stream:
        started = []
        for _ in range(2):
            list(stream)
            started.append(sealed.decoders(folders))
        assert started[0] == started[1]
        assert len(started[0]) == 1
    assert not sealed.decoders(folders)


def test_a_state_of_another_sequence_is_refused(folders: Folders, texts: Manifest, images: Manifest) -> None:
    what: dict[str, Any] = {"batch": 10, "seed": 1, "world": 2, "splits": ["train"]}
    state = Stream(folders, texts, **what).state()
    for name, value in {"batch": 11, "seed": 2, "world": 1, "splits": None, "shuffle": False}.items():
        with pytest.raises(SpeciateError, match=f"another sequence of examples: it has {name}") as raised:
            Stream(folders, texts, **what | {name: value}).resume(state)
        assert raised.value.code is Code.INVALID
    with Stream(folders, images, **what) as other, pytest.raises(SpeciateError, match=f"version '{texts.id}'"):
        other.resume(state)
    for wrong in ({"step": 99}, {"step": -1}, {"step": "3"}, {"epoch": None}):
        with pytest.raises(SpeciateError, match="an epoch has 5 batches"):
            Stream(folders, texts, **what).resume(state | wrong)


def test_an_unknown_split_or_column_is_named(folders: Folders, texts: Manifest) -> None:
    for wrong, message in {
        "splits": "no split 'tests'; did you mean 'test'",
        "columns": "no column 'tests'",
    }.items():
        with pytest.raises(SpeciateError, match=message):
            Stream(folders, texts, batch=1, **{wrong: ["tests"]})  # type: ignore[arg-type]  # one of two lists of names
    for numbers in ({"batch": 0}, {"batch": 1, "rank": 1}, {"batch": 1, "size": (8, 8)}):
        with pytest.raises(SpeciateError):
            Stream(folders, texts, **numbers)


def test_rows_lie_in_no_file_that_stays(folders: Folders, texts: Manifest) -> None:
    stream = Stream(folders, texts, batch=10)
    next(iter(stream))
    assert not list(folders.cache.glob("rows-*"))


_CONSUMER = """
import json, os, sys
from pathlib import Path
from speciate.datasets.loading.stream import Stream
from speciate.datasets.versions import Manifest
from speciate.workspace.scratch import remove_abandoned
from speciate.workspace.workspace import Folders

root, saved = Path(sys.argv[1]), Path(sys.argv[2])
manifest = Manifest.model_validate_json(sys.stdin.read())
seen, state = json.loads(saved.read_text()) if saved.exists() else ([], None)
with Stream(Folders(root), manifest, batch=4, seed=5, workers=1) as stream:
    if state:
        stream.resume(state)
    for batch in stream:
        seen += [[example.id, int(example.media.sum())] for example in batch]
        partial = saved.with_suffix(".partial")
        partial.write_text(json.dumps([seen, stream.state()]))
        os.replace(partial, saved)
        print(len(seen), flush=True)
"""


@pytest.mark.slow
def test_a_killed_consumer_that_resumes_has_seen_each_once(folders: Folders, images: Manifest, tmp_path: Path) -> None:
    saved = tmp_path / "saved.json"
    command = [sys.executable, "-c", _CONSUMER, str(folders.root), str(saved)]
    rng = random.Random(0)
    for _ in range(3):
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as consumer:
            assert consumer.stdin is not None
            assert consumer.stdout is not None
            consumer.stdin.write(images.model_dump_json())
            consumer.stdin.close()
            for _ in range(rng.randint(1, 4)):
                assert consumer.stdout.readline()
            consumer.send_signal(signal.SIGKILL)
    subprocess.run(command, input=images.model_dump_json(), text=True, check=True, stdout=subprocess.DEVNULL)
    with Stream(folders, images, batch=4, seed=5) as stream:
        whole = [[example.id, int(example.media.sum())] for batch in stream for example in batch]
    assert json.loads(saved.read_text())[0] == whole


@given(st.text(max_size=8), st.integers(0, 2**40), st.integers(0, 100), st.integers(0, 300))
def test_an_order_visits_each_once_and_is_the_same_again(version: str, seed: int, epoch: int, count: int) -> None:
    first = epoch_order(version, seed, epoch, count)
    assert np.array_equal(np.sort(first), np.arange(count))
    assert np.array_equal(first, epoch_order(version, seed, epoch, count))


def test_the_order_is_fixed_for_good() -> None:
    """A saved state must mean the same sequence on another machine and with another numpy."""
    assert epoch_order("v", 7, 0, 10).tolist() == [7, 9, 3, 2, 8, 5, 0, 1, 6, 4]


def test_version_seed_and_epoch_each_change_the_order() -> None:
    orders = [
        epoch_order("a", 0, 0, 50),
        epoch_order("b", 0, 0, 50),
        epoch_order("a", 1, 0, 50),
        epoch_order("a", 0, 1, 50),
    ]
    assert len({tuple(found.tolist()) for found in orders}) == 4


def test_every_place_is_visited_early_about_as_often() -> None:
    first_halves = [set(epoch_order("v", seed, 0, 40)[:20].tolist()) for seed in range(400)]
    counts = np.bincount([place for half in first_halves for place in half], minlength=40)
    assert abs(counts - 200).max() < 60  # six standard deviations


@given(st.integers(0, 200), st.integers(1, 9), st.integers(1, 5))
def test_ranks_share_an_epoch_without_overlap_or_padding(count: int, batch: int, world: int) -> None:
    places = np.arange(count)
    steps = step_count(count, batch, world)
    shares = [[rank_share(places, step, batch, rank, world) for rank in range(world)] for step in range(steps)]
    assert [place for step in shares for own in step for place in own] == places.tolist()
    for step in shares[:-1]:
        assert {len(own) for own in step} == {batch}
    if shares:
        sizes = [len(own) for own in shares[-1]]
        assert max(sizes) - min(sizes) <= 1
        assert 0 < max(sizes) <= batch


def test_what_a_kill_leaves_of_mapped_rows_goes_at_the_next_start(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    folders.make()
    manifest = sealed.texts(folders, 5)
    code = (
        "import os, signal, sys; from pathlib import Path; import pyarrow as pa\n"
        "from speciate.datasets.loading.stream import map_rows; from speciate.datasets.versions import Manifest\n"
        "from speciate.workspace.workspace import Folders\n"
        "pa.ipc.new_file = lambda *given: os.kill(os.getpid(), signal.SIGKILL)\n"
        "map_rows(Folders(Path(sys.argv[1])), Manifest.model_validate_json(sys.argv[2]), ['id'], None)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path), manifest.model_dump_json()], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list(folders.cache.glob("*/rows.arrow"))
    remove_abandoned(folders.cache)
    assert not list(folders.cache.glob("*/rows.arrow"))
