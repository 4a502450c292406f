"""SQL over a version, and contact sheets; forbidden SQL is in tests/security."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from speciate.datasets.inspect.contact_sheet import ask_for_contact_sheet
from speciate.datasets.inspect.describe import ask_for_difference, newest_versions, quality, usable
from speciate.datasets.inspect.query import query
from speciate.datasets.versions import Manifest, Part
from speciate.errors import Code, SpeciateError
from speciate.jobs.pool import Pool
from speciate.workspace.workspace import Workspace
from tests import data
from tests.datasets import sealed


@pytest.fixture(scope="module")
def edited(shared: Workspace) -> tuple[Manifest, Manifest]:
    """Two versions: one label is another, and two rows are gone."""
    rows = data.review_rows()
    first = data.ingest(shared, "edited", rows=tuple(rows), label="label", group_by="film")
    rows[0] = {**rows[0], "label": "bad"}
    return first, data.ingest(shared, "edited", rows=tuple(rows[:-2]), label="label", group_by="film")


def test_a_select_over_examples(shared: Workspace, pool: Pool, reviews: Manifest) -> None:
    page = query(pool, shared.folders, reviews, sql="SELECT label, count(*) AS n FROM examples GROUP BY 1 ORDER BY 1;")
    assert page == (["label", "n"], [["bad", 40], ["good", 40]], None)


def test_a_condition_alone(shared: Workspace, pool: Pool, reviews: Manifest) -> None:
    page = query(pool, shared.folders, reviews, where="film = 'film-3' -- a remark", limit=50)
    assert page.columns[:7] == ["id", "split", "label", "group_key", "quality", "reason", "source"]
    assert {row[3] for row in page.rows} == {"film-3"}


def test_pages_follow_each_other_in_order(shared: Workspace, pool: Pool, reviews: Manifest) -> None:
    seen, cursor = [], None
    while True:
        page = query(
            pool, shared.folders, reviews, sql="SELECT id FROM examples ORDER BY id DESC", limit=30, cursor=cursor
        )
        seen += [row[0] for row in page.rows]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert len(seen) == 80
    assert seen == sorted(seen, reverse=True)
    with pytest.raises(SpeciateError, match="no cursor"):
        query(pool, shared.folders, reviews, cursor="-1; DROP")


def test_the_same_query_is_answered_alike_or_pages_would_overlap(shared: Workspace, pool: Pool) -> None:
    """Sums of fractions show it best: they depend on the order in which rows are taken."""
    count, rng = 400_000, np.random.default_rng(0)
    file = shared.folders.datasets / "large.parquet"
    table = pa.table({"id": np.arange(count).astype(str), "x": rng.normal(size=count)})
    pq.write_table(table, file, row_group_size=40_000)
    part = Part(file=file.relative_to(shared.folders.root).as_posix(), rows=count)
    large = Manifest(name="large", version=1, id="", modality="text", parts=(part,), columns={}, rows=count)
    sql = "SELECT sum(x) FROM examples"
    assert len({query(pool, shared.folders, large, sql=sql).rows[0][0] for _ in range(10)}) == 1


def test_a_split_narrows_the_view(shared: Workspace, pool: Pool, reviews: Manifest) -> None:
    page = query(pool, shared.folders, reviews, sql="SELECT DISTINCT split FROM examples", split="test")
    assert page.rows == [["test"]]


def test_every_type_comes_back_as_json(shared: Workspace, pool: Pool, reviews: Manifest) -> None:
    sql = (
        "SELECT 1.5::DECIMAL(4, 2), DATE '2026-01-02', 'nan'::DOUBLE, [1, NULL], {'a': 'b'}, 'ab'::BLOB, "
        "repeat('x', 5000), uuid() IS NULL, NULL"
    )
    row = query(pool, shared.folders, reviews, sql=sql).rows[0]
    assert row[:6] == [1.5, "2026-01-02", None, [1, None], {"a": "b"}, "2 bytes"]
    assert len(row[6]) == 2001
    assert row[7:] == [False, None]


def test_a_mistake_is_explained(shared: Workspace, pool: Pool, reviews: Manifest) -> None:
    for sql, message in {
        "SELECT lable FROM examples": "Did you mean label",
        "SELECT * FROM example": "the only one is 'examples'",
        "SELEC 1": "syntax error",
        "": "is empty",
        "SELECT 1; SELECT 2": "2 statements",
    }.items():
        with pytest.raises(SpeciateError, match=message):
            query(pool, shared.folders, reviews, sql=sql)


def test_too_many_columns_say_to_name_them(shared: Workspace, pool: Pool, reviews: Manifest) -> None:
    sql = "SELECT " + ", ".join(f"{i} AS c{i}" for i in range(501))
    with pytest.raises(SpeciateError, match="501 columns") as raised:
        query(pool, shared.folders, reviews, sql=sql)
    assert "in the SELECT" in raised.value.recovery
    chosen = query(pool, shared.folders, reviews, sql="SELECT COLUMNS('^fil') FROM examples LIMIT 1")
    assert chosen.columns == ["film"]


def test_a_long_page_ends_early_and_the_cursor_continues(shared: Workspace, pool: Pool, reviews: Manifest) -> None:
    sql = "SELECT range, repeat('x', 1000) FROM range(40)"
    first = query(pool, shared.folders, reviews, sql=sql, limit=500)
    assert len(first.rows) == 11
    following = query(pool, shared.folders, reviews, sql=sql, limit=500, cursor=first.next_cursor)
    assert following.rows[0][0] == 11


def test_every_character_counts_once_whatever_its_script(shared: Workspace, pool: Pool, reviews: Manifest) -> None:
    sql = "SELECT range, repeat('字', 1000) FROM range(40)"
    assert len(query(pool, shared.folders, reviews, sql=sql, limit=500).rows) == 11


def test_a_contact_sheet_is_whole_however_long_its_rows(shared: Workspace, pool: Pool) -> None:
    names = [f"m{i:03}" for i in range(40)]
    pixels = [np.full((8, 8, 3), i, np.uint8) for i in range(40)]
    made = sealed.media(
        shared.folders, "image", [sealed.png(each) for each in pixels], source=[f"{'长' * 400}/{n}" for n in names]
    )
    assert len(ask_for_contact_sheet(pool, shared.folders, made, count=36).rows) == 36
    assert [row[0] for row in ask_for_contact_sheet(pool, shared.folders, made, ids=names).rows] == names


def test_a_contact_sheet_shows_what_the_rows_say(shared: Workspace, pool: Pool, digits: Manifest) -> None:
    sheet = ask_for_contact_sheet(pool, shared.folders, digits, where="label IN ('3', '4')", count=7)
    image = Image.open(io.BytesIO(sheet.png))
    assert max(image.size) <= 1024
    assert len(image.getcolors(100_000) or ()) > 5
    assert {row[1] for row in sheet.rows} == {"3", "4"}
    first = sheet.rows[0][0]
    assert ask_for_contact_sheet(pool, shared.folders, digits, ids=[first]).rows == [sheet.rows[0]]
    with pytest.raises(SpeciateError, match="nothing to show"):
        ask_for_contact_sheet(pool, shared.folders, digits, where="label = 'x'")


def test_differences_between_two_versions(shared: Workspace, pool: Pool, edited: tuple[Manifest, Manifest]) -> None:
    found = ask_for_difference(pool, shared.folders, *edited)
    assert (found.added, found.removed) == (0, 2)
    assert found.changed >= 1
    newest = newest_versions(shared.database, ["edited"])
    assert [entry.manifest.ref for entry in newest] == ["edited@v2"]
    assert usable(newest[0]) == quality(newest[0])["ok"] == 78


def test_a_page_of_another_version_is_refused(shared: Workspace, pool: Pool, edited: tuple[Manifest, Manifest]) -> None:
    older, newer = edited
    first = query(pool, shared.folders, older, limit=5)
    with pytest.raises(SpeciateError, match="page before was of edited@v1") as raised:
        query(pool, shared.folders, newer, limit=5, cursor=first.next_cursor)
    assert raised.value.code is Code.CONFLICT


def test_examples_are_shown_in_the_requested_order(shared: Workspace, pool: Pool, reviews: Manifest) -> None:
    ids = [row[0] for row in query(pool, shared.folders, reviews, sql="SELECT id FROM examples", limit=3).rows]
    wanted = [ids[2], ids[0], ids[1]]
    assert [row[0] for row in ask_for_contact_sheet(pool, shared.folders, reviews, ids=wanted, count=1).rows] == wanted
    with pytest.raises(SpeciateError, match="1 of the ids are not in"):
        ask_for_contact_sheet(pool, shared.folders, reviews, ids=[*wanted, "ex-none"])


def test_the_same_rows_in_other_roles_are_another_version(shared: Workspace) -> None:
    rows = tuple({"letters": "MKWLLAGKRSTE" + "AC"[i % 2] * i, "y": "ab"[i % 2]} for i in range(20))
    first = data.ingest(shared, "sequences", rows=rows, label="y", modality="text", inputs=("letters",))
    second = data.ingest(shared, "sequences", rows=rows, label="y", modality="protein", inputs=("letters",))
    assert (first.ref, second.ref, second.modality) == ("sequences@v1", "sequences@v2", "protein")


def test_a_wrong_column_is_answered_with_those_there_are(shared: Workspace, pool: Pool, reviews: Manifest) -> None:
    for wanted in ({"where": "nowhere = 1"}, {"sql": "SELECT examples.nowhere FROM examples"}):
        with pytest.raises(SpeciateError) as caught:
            query(pool, shared.folders, reviews, **wanted)
        assert "The columns are id, split, label, group_key, quality, reason, source" in caught.value.message
    with pytest.raises(SpeciateError) as caught:
        query(pool, shared.folders, reviews, where="((")
    assert "The columns are" not in caught.value.message
