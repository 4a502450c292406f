"""A purge takes away exactly the rows that are or say the same, from every version and file, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from speciate import features
from speciate.datasets import version_rows
from speciate.datasets.content_hash import Lanes, lanes, row_digests, version_id
from speciate.datasets.next_version import SealedVersion, seal_appended, seal_changed, seal_first
from speciate.datasets.versions import Manifest
from speciate.errors import Code, SpeciateError
from speciate.privacy import purge_datasets
from speciate.privacy.purge_datasets import PurgeResult, Target
from speciate.workspace.packs import PackReader, PackWriter
from speciate.workspace.workspace import Folders
from tests.datasets.sealed import blank, rows
from tests.drawn import drawn


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    folders = Folders(tmp_path)
    folders.make()
    return folders


def _people(numbers: list[int], word: str = "says") -> pa.Table:
    """Row n belongs to person n // 3; its content is its own."""
    names = [f"ex{n:04}" for n in numbers]
    columns = {
        "id": names, "group_key": [f"person {n // 3}" for n in numbers], "label": [f"kind {n % 2}" for n in numbers],
        "_content": [f"content {n}" for n in numbers], "text": [f"{word} {n}" for n in numbers],
    }  # fmt: skip
    return rows(columns)


def _named(sealed: SealedVersion, name: str, version: int) -> tuple[Manifest, Lanes]:
    return sealed.manifest.model_copy(update={"name": name, "version": version}), sealed.lanes


def _silent(done: int, total: int, unit: str) -> None:
    pass


def _purge(folders: Folders, versions: list[tuple[Manifest, Lanes]], group: str) -> PurgeResult:
    return purge_datasets.purge(folders, versions, Target(dataset=versions[0][0].name, group=group), _silent)


@settings(max_examples=drawn(25, 8), deadline=None)
@given(
    base=st.sets(st.integers(0, 30), min_size=1),
    added=st.sets(st.integers(31, 45)),
    changed=st.sets(st.integers(0, 45), max_size=3),
    dropped=st.sets(st.integers(0, 45), max_size=4),
    person=st.integers(0, 10),
    hashing=st.sampled_from([1, 2]),
)
def test_each_version_keeps_all_other_rows_and_gets_the_id_of_just_those(
    tmp_path_factory: pytest.TempPathFactory,
    base: set[int], added: set[int], changed: set[int], dropped: set[int], person: int, hashing: int,
) -> None:  # fmt: skip
    folders = Folders(tmp_path_factory.mktemp("workspace"))
    folders.make()
    first = seal_first(folders, _people(sorted(base)), blank("text", ["text"]), hashing)
    second = seal_appended(folders, first.manifest, first.lanes, _people(sorted(added)))
    left = (base | added) - dropped
    assume(left)
    news = [_people(sorted(left - changed)), _people(sorted(left & changed), "now says")]
    third = seal_changed(
        folders, second.manifest, second.lanes, pa.concat_tables([t for t in news if t.num_rows]).sort_by("id")
    )
    versions = [_named(sealed, "made", number) for number, sealed in enumerate((first, second, third), 1)]
    before = {manifest.ref: version_rows.read(folders, manifest) for manifest, _ in versions}

    purged = _purge(folders, versions, f"person {person}")

    after = {each.manifest.ref: each for each in purged.versions}
    for manifest, total in versions:
        whole = before[manifest.ref]
        gone = np.array(whole["group_key"].to_pylist()) == f"person {person}" if whole.num_rows else np.zeros(0, bool)
        kept = whole.filter(pa.array(gone, pa.bool_()))
        expected = whole.filter(pa.array(~gone, pa.bool_()))
        now = after[manifest.ref].manifest if manifest.ref in after else manifest
        rest = version_rows.read(folders, now)
        assert rest.to_pylist() == expected.to_pylist()
        assert now.rows == expected.num_rows
        assert now.id == version_id(lanes(row_digests(expected), hashing))
        assert (now.ref, now.packs) == (manifest.ref, manifest.packs)
        if manifest.ref in after:
            assert after[manifest.ref].rows == kept.num_rows
            assert after[manifest.ref].manifest.labels.keys() == set(expected["label"].to_pylist())
        else:
            assert (kept.num_rows, total.tolist()) == (0, total.tolist())
    for file in set(purge_datasets.sealed_files(folders).files) - set(purged.obsolete):
        assert f"person {person}" not in pq.read_table(folders.root / file)["group_key"].to_pylist()


def test_copies_and_windows_in_other_datasets_go_too_and_what_only_looks_alike_stays(folders: Folders) -> None:
    original = seal_first(folders, _people([0, 1, 2, 3]), blank("text", ["text"]))
    copy = rows(
        {
            "id": ["a", "b", "c", "d"],
            "group_key": ["x", "x", "x", "person 0"],
            "_content": ["content 0", "recoded", "recoded", "other"],
            "_fingerprint": ["print", "print", None, "another"],
            "_start": [None, None, 1.0, None],
            "text": ["", "", "", ""],
        }
    )
    other = seal_first(folders, copy, blank("text", ["text"]).model_copy(update={"name": "other"}))
    versions = [_named(original, "made", 1), _named(other, "other", 1)]
    purged = _purge(folders, versions, "person 0")
    left = {each.manifest.name: version_rows.read(folders, each.manifest)["id"].to_pylist() for each in purged.versions}
    assert left == {"made": ["ex0003"], "other": ["d"]}


@pytest.mark.parametrize("example", ["series", "cut", "cut again"])
def test_a_series_goes_with_all_windows_that_were_cut_from_it_whichever_was_asked_for(
    folders: Folders, example: str
) -> None:
    series = rows({"id": ["series", "other"], "_key": ["k", "l"], "_content": ["1", "2"]})
    cut = rows(
        {
            "id": ["cut", "cut again", "other's"],
            "_key": ["k[0:5]", "k[5:9]", "l[0:5]"],
            "_origin": ["k", "k", "l"],
            "_content": ["3", "4", "5"],
        }
    )
    original = seal_first(
        folders, series.drop_columns(set(series.column_names) & {"_origin"}), blank("time-series", ["id"])
    )
    versions = [_named(original, "made", 1), _named(seal_first(folders, cut, blank("time-series", ["id"])), "made", 2)]
    purged = purge_datasets.purge(folders, versions, Target(dataset="made", example=example), _silent)
    left = [version_rows.read(folders, each.manifest)["id"].to_pylist() for each in purged.versions]
    assert left == [["other"], ["other's"]]


def test_damaged_files_are_passed_over_and_those_that_a_version_needs_are_named(folders: Folders) -> None:
    base = seal_first(folders, _people([0, 1, 4]), blank("text", ["text"]))
    both = seal_appended(folders, base.manifest, base.lanes, _people([2, 5]))
    (file,) = {part.file for part in both.manifest.parts} - {part.file for part in base.manifest.parts}
    (folders.root / file).chmod(0o644)
    (folders.root / file).write_text("PAR1 no longer")
    stray = folders.datasets / "made" / "stray.parquet"
    stray.write_text("text,label")
    lost = folders.packs / "lost.pack"
    lost.write_bytes(b"no index")
    purged = _purge(folders, [_named(base, "made", 1), _named(both, "made", 2)], "person 0")
    assert [(each.manifest.version, each.manifest.rows) for each in purged.versions] == [(1, 1), (2, 3)]
    assert purged.unreadable == [file]
    assert {"datasets/made/stray.parquet", "packs/lost.pack"} < set(purged.obsolete)


def test_packs_and_cached_vectors_lose_what_goes_and_keep_the_rest(folders: Folders) -> None:
    with PackWriter(folders.packs) as writer:
        contents = [writer.add(f"bytes of {n}".encode()) for n in range(4)]
        pack = writer.seal().relative_to(folders.root).as_posix()
    with PackWriter(folders.packs) as writer:
        writer.add(b"bytes of 0")
        alone = writer.seal().relative_to(folders.root).as_posix()
    table = rows({"id": list("abcd"), "group_key": list("xyyy"), "_content": contents})
    sealed = seal_first(folders, table, blank("image", packs=[pack, alone]))
    features.write(folders, "some-encoder", contents, np.eye(4, dtype=np.float32))

    purged = _purge(folders, [_named(sealed, "made", 1)], "x")

    (version,) = purged.versions
    assert set(version.manifest.packs).isdisjoint({pack, alone})
    assert {pack, alone} < set(purged.obsolete)
    with PackReader([folders.root / name for name in version.manifest.packs]) as reader:
        assert [reader.get(content) for content in contents[1:]] == [f"bytes of {n}".encode() for n in (1, 2, 3)]
        assert contents[0] not in reader
    assert features.known(folders, "some-encoder", contents).tolist() == [False, True, True, True]
    assert not any(contents[0].encode() in path.read_bytes() for path in folders.features.rglob("*.parquet"))


def test_the_last_row_may_go(folders: Folders) -> None:
    sealed = seal_first(folders, _people([0, 1]), blank("text", ["text"]))
    (version,) = _purge(folders, [_named(sealed, "made", 1)], "person 0").versions
    assert (version.manifest.rows, version.manifest.splits, version.manifest.labels) == (0, {}, {})
    assert version_rows.read(folders, version.manifest).num_rows == 0


def test_a_purge_that_was_killed_writes_the_same_files_when_it_is_repeated(folders: Folders) -> None:
    versions = [_named(seal_first(folders, _people(list(range(9))), blank("text", ["text"])), "made", 1)]
    once, again = _purge(folders, versions, "person 1"), _purge(folders, versions, "person 1")
    assert once.versions[0].manifest == again.versions[0].manifest
    assert once.obsolete == again.obsolete


def test_only_words_that_nobody_else_says_are_traces(folders: Folders) -> None:
    table = rows(
        {
            "id": list("abc"),
            "group_key": ["jane", "joe", "joe"],
            "label": ["rare", "good", "good"],
            "source": ["in/jane.png", "in/joe.png", "in/ann.png"],
            "mood": ["glad", "glad", "sad"],
        }
    )
    purged = _purge(folders, [_named(seal_first(folders, table, blank("image")), "made", 1)], "jane")
    assert purged.texts == ["in/jane.png", "jane", "jane.png", "rare"]
    assert purged.labels == ["rare"]


def test_a_word_that_a_row_of_another_file_or_dataset_says_is_no_trace(folders: Folders) -> None:
    def sealed(ids: str, label: list[str], name: str) -> tuple[Manifest, Lanes]:
        columns = {"id": list(ids), "group_key": [f"of {each}" for each in ids], "label": label}
        columns["source"] = [f"{name}/{each}.png" for each in ids]
        return _named(seal_first(folders, rows(columns), blank("image")), name, 1)

    made = sealed("abc", ["rare", "common", "shared"], "made")
    total = rows({"id": ["d"], "group_key": ["of d"], "label": ["rare"], "source": ["made/d.png"]})
    grown = _named(seal_appended(folders, *made, total), "made", 2)
    other = sealed("xy", ["shared", "other"], "other")
    assert "rare" not in _purge(folders, [made, grown, other], "of a").texts
    assert "common" in _purge(folders, [made, grown, other], "of b").labels
    assert "shared" not in _purge(folders, [made, grown, other], "of c").texts


def test_names_of_columns_and_words_of_our_own_documents_are_no_traces(folders: Folders) -> None:
    table = rows({"id": list("ab"), "group_key": ["jane", "joe"], "label": ["verdict", "x"], "mood": ["mood", "sad"]})
    version = _named(seal_first(folders, table, blank("image", ["mood"])), "made", 1)
    assert purge_datasets.purge(folders, [version], Target(dataset="made", group="jane"), _silent).texts == ["jane"]


def test_who_still_holds_the_old_manifest_is_told_so(folders: Folders) -> None:
    manifest, total = _named(seal_first(folders, _people([0, 5]), blank("text", ["text"])), "made", 1)
    for name in _purge(folders, [(manifest, total)], "person 0").obsolete:
        (folders.root / name).unlink()
    with pytest.raises(SpeciateError, match="made@v1 is incomplete") as caught:
        version_rows.read(folders, manifest)
    assert caught.value.code is Code.NOT_FOUND


def test_the_survey_counts_what_was_not_asked_for_but_says_the_same(folders: Folders) -> None:
    table = rows(
        {
            "id": list("abcd"),
            "group_key": ["jane", "jane", "joe", "joe"],
            "split": ["train", "test", "test", "train"],
            "_content": ["1", "2", "1", "3"],
        }
    )
    manifest, _ = _named(seal_first(folders, table, blank("text", ["id"])), "made", 1)
    asked = {"root": str(folders.root), "versions": [manifest.model_dump(mode="json")]}
    nothing_else = {"evaluations": [], "unreadable": []}
    seen = purge_datasets.survey(asked | {"target": {"dataset": "made", "group": "jane"}})
    assert seen == {"versions": [["made@v1", 3, 1]], "examples": 3, "outside": 1, **nothing_else}
    seen = purge_datasets.survey(asked | {"target": {"dataset": "made", "example": "d"}})
    assert seen == {"versions": [["made@v1", 1, 1]], "examples": 1, "outside": 0, **nothing_else}


def test_a_training_reads_no_row_without_a_split() -> None:
    splits = ["train", "validation", "test", None, "train"]
    made = rows({"id": list("abcde"), "split": splits, "quality": ["ok", "ok", "ok", "ok", "partial"]})
    assert purge_datasets.count_training_rows(made) == 2
