from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from speciate.datasets.versions import resolve, tags
from speciate.errors import SpeciateError
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests import data
from tests.conftest import ManualClock


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed workspace, to be copied."""
    root = tmp_path_factory.mktemp("tags") / "workspace"
    workspace = Workspace(root, ManualClock(), Settings(policy="auto"))
    for count in (20, 24):
        data.ingest(workspace, "reviews", rows=tuple(data.review_rows(count)), label="label")
    workspace.close()
    return root


@pytest.fixture
def reviews(two_versions: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Workspace]:
    with data.copied(two_versions, tmp_path / "workspace", clock) as workspace:
        yield workspace


def test_a_tag_names_a_version_until_it_is_moved_or_taken_away(reviews: Workspace) -> None:
    data.run_job(reviews, "tag", action="tag", ref="reviews@v1", tag="gold")
    assert resolve(reviews.database, "reviews@gold:test").version == 1
    moved = data.run_job(reviews, "tag", action="tag", ref="reviews", tag="gold")
    assert moved == {"dataset": "reviews@v2", "tag": "gold", "was": "reviews@v1"}
    assert resolve(reviews.database, "reviews@gold").version == 2
    data.run_job(reviews, "tag", action="untag", ref="reviews", tag="gold")
    assert tags(reviews.database, "reviews") == {}
    with pytest.raises(SpeciateError, match="no tag 'gold'"):
        resolve(reviews.database, "reviews@gold")


def test_two_tags_can_name_one_version(reviews: Workspace) -> None:
    data.run_job(reviews, "tag", action="tag", ref="reviews@v1", tag="gold")
    data.run_job(reviews, "tag", action="tag", ref="reviews@gold", tag="best")
    assert tags(reviews.database, "reviews") == {"best": 1, "gold": 1}


def test_an_ambiguous_word_is_no_tag(reviews: Workspace) -> None:
    for tag in ("v3", "", "a b", "3", "x" * 65, "gold:test"):
        with pytest.raises(SpeciateError, match="cannot be a tag"):
            data.run_job(reviews, "tag", action="tag", ref="reviews", tag=tag)


def test_only_existing_versions_are_tagged(reviews: Workspace) -> None:
    with pytest.raises(SpeciateError, match="no version 9"):
        data.run_job(reviews, "tag", action="tag", ref="reviews@v9", tag="gold")
    with pytest.raises(SpeciateError, match="has no tag"):
        data.run_job(reviews, "tag", action="untag", ref="reviews", tag="gold")
