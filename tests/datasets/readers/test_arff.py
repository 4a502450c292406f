"""ARFF as Weka, UCR and UEA write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scipy.io import arff as scipy_arff

from speciate.datasets.readers.arff import read_arff
from speciate.datasets.readers.formats import Reader
from speciate.datasets.readers.rows import REASON
from speciate.datasets.readers.time_series import reshape_series
from speciate.errors import SpeciateError

UEA = """% a comment
@relation Moves

@attribute relationalAtt relational
  @attribute att0 numeric
  @attribute att1 numeric
  @attribute att2 numeric
@end relationalAtt
@attribute activity {slow,'very fast'}

@data
'1.0,2.0,3.0\\n4,5,?',slow
"7,8,9\\n1,1,1",'very fast'
'1,2,3\\n4,5',slow
'1,2,3\\n4,5,6',unknown
'1,2,3
"""
UCR = "@relation x\n" + "".join(f"@ATTRIBUTE att{i} REAL\n" for i in range(8)) + "@attribute target {1,2}\n@DATA\n"
TABLE = """@relation weather
@attribute 'out look' {sunny, "rainy day"}
@attribute temperature numeric
@attribute note string
@attribute day date 'yyyy-MM-dd'
@data
sunny, 85, 'it\\'s hot, very', 2020-01-01
'rainy day', ?, plain, ?
{1 20, 2 'sparse'}
"""


def rows(path: Path, text: str) -> list[dict[str, Any]]:
    path.write_text(text)
    found: list[dict[str, Any]] = read_arff(path, ()).to_pylist()
    return found


def test_multivariate_series_of_the_uea_archive(tmp_path: Path) -> None:
    found = rows(tmp_path / "a.arff", UEA)
    good = [row for row in found if row[REASON] is None]
    assert [row["label"] for row in good] == ["slow", "very fast"]
    assert good[1]["series"] == [[7, 8, 9], [1, 1, 1]]
    assert str(good[0]["series"]) == "[[1.0, 2.0, 3.0], [4.0, 5.0, None]]"
    assert [row[REASON] for row in found if row[REASON]] == [
        "Line 14: channels of 3, 2 values.",
        "Line 15: 'unknown' is none of the classes that the header declares.",
        "Line 16: a quote is not closed.",
    ]


def test_univariate_series_of_the_ucr_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.arff"
    path.write_text(UCR + "1,2,3,4,5,6,7,8,1\n8,7,6,5,4,3,2,1,2\n")
    found = reshape_series(read_arff(path, ()), Reader(), "time-series", path).to_pylist()
    assert found == [
        {"label": "1", "series": [[1, 2, 3, 4, 5, 6, 7, 8]]},
        {"label": "2", "series": [[8, 7, 6, 5, 4, 3, 2, 1]]},
    ]
    assert found[0]["series"][0] == [*scipy_arff.loadarff(path)[0][0]][:8]


def test_a_table_with_quotes_and_sparse_rows(tmp_path: Path) -> None:
    assert rows(tmp_path / "a.arff", TABLE) == [
        {"out look": "sunny", "temperature": 85, "note": "it's hot, very", "day": "2020-01-01"},
        {"out look": "rainy day", "temperature": None, "note": "plain", "day": None},
        {"out look": "sunny", "temperature": 20, "note": "sparse", "day": None},
    ]


def test_rows_that_do_not_fit_are_bad_rows(tmp_path: Path) -> None:
    found = rows(tmp_path / "a.arff", UCR + "1,2,3\n1,2,3,4,5,6,7,x,1\n1,2,3,4,5,6,7,8,1\n{99 1}\n")
    assert [row["target"] for row in found if row[REASON] is None] == ["1"]
    assert [row[REASON] for row in found if row[REASON]] == [
        "Line 12: 3 cells where the header declares 9.",
        "Line 13: could not convert string to float: 'x'.",
        "Line 15: '99' is no place of an attribute.",
    ]


@pytest.mark.parametrize(
    "text", ["", "@relation x\n@data\n1,2\n", "@attribute a numeric\n", "@attribute\n@data\n", "@attribute a {'b\n"]
)
def test_a_header_that_is_none_is_one_clear_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(SpeciateError, match=r"'a\.arff' cannot be read"):
        rows(tmp_path / "a.arff", text)
