"""A model of table rows leaves as one ONNX graph, which gives our numbers where this package is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speciate.errors import SpeciateError
from speciate.exports import export_model
from speciate.exports.card_check import CardError, compare, run_card
from speciate.exports.export_model import ExportModelSpec
from speciate.models import registry
from speciate.models.blend import saved_forms
from speciate.tasks import predictor
from speciate.tasks.predictor import ESTIMATOR
from speciate.training.recipes import configurations
from speciate.training.selection import thorough_search
from speciate.training.selection.thorough_search import LearnerFamily
from speciate.workspace.workspace import Workspace
from tests.exports.test_elsewhere import as_examples, exported, needs_onnx
from tests.training.world import make_dataset, thirds, train_now

pytestmark = needs_onnx
COUNT = 150
ODD = '`odd` "name"'
TASKS: dict[str, tuple[str, Any]] = {
    "two labels": ("tabular-classification", lambda size, odd, red: ["small", "large"][size + odd > 0.3]),
    "three labels": ("tabular-classification", lambda size, odd, red: ["a", "b", "übrig"][int(size > 0) + red]),
    "ranks": ("tabular-ordinal-classification", lambda size, odd, red: str(int(np.clip(round(size + odd), -1, 2)) + 1)),
    "a number": ("tabular-regression", lambda size, odd, red: 40 + 9 * size - 5 * odd * odd + 3 * red),
}


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    """With cells that are missing, and a column that is one in whole numbers."""
    rng = np.random.default_rng(seed)
    return [
        {
            "size": None if rng.random() < 0.15 else float(np.round(rng.normal(), 1)),
            ODD: float(rng.normal()),
            "count": int(rng.integers(0, 4)),
            "colour": None if rng.random() < 0.1 else str(rng.choice(["red", "blue", "", "<missing>"])),
        }
        for _ in range(count)
    ]


def trained(workspace: Workspace, kind: str, settings: dict[str, Any]) -> str:
    task, answer = TASKS[kind]
    made = rows(COUNT, 1)
    labels = [answer(each["size"] or 0.0, each[ODD], each["colour"] == "red") for each in made]
    columns = {name: [each[name] for each in made] for name in made[0]}
    make_dataset(workspace, "rows", "tabular", columns, labels=labels, splits=thirds(COUNT), inputs=list(columns))
    done = train_now(workspace, name="own", dataset="rows", method="classical", task=task, hyperparameters=settings)
    return str(done["model"])


@pytest.mark.parametrize(
    ("kind", "candidate"),
    [
        ("two labels", "logistic"), ("two labels", "svm"), ("three labels", "boosting"), ("ranks", "ridge"),
        ("a number", "boosting"),
        *(
            pytest.param(*more, marks=pytest.mark.slow(reason="each kind and each candidate is in one before"))
            for more in (
                ("two labels", "boosting"), ("three labels", "logistic"), ("three labels", "svm"),
                ("ranks", "logistic"), ("a number", "ridge"), ("a number", "svm"),
            )
        ),
    ],
)  # fmt: skip
def test_rows_are_answered_elsewhere_as_here(workspace: Workspace, tmp_path: Path, kind: str, candidate: str) -> None:
    trained(workspace, kind, {"candidates": [candidate]})
    _is_answered_elsewhere_as_here(workspace, tmp_path)


@pytest.mark.parametrize(
    "kind",
    [
        "two labels",
        *(pytest.param(kind, marks=pytest.mark.slow(reason="as two labels")) for kind in ("three labels", "a number")),
    ],
)
def test_a_mean_of_every_kind_of_learner_is_answered_elsewhere_as_here(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    every = configurations.families

    def one_of_each(*given: Any, **named: Any) -> list[LearnerFamily]:
        kept = ("discriminants", "lines", "kernels", "boosting", "trees")
        return [each._replace(configurations=iter([next(each.configurations)])) for each in every(*given, **named)
                if each.name in kept]  # fmt: skip

    def alike(self: Any, likely: Any, targets: Any, groups: Any, most: int) -> dict[int, float]:
        return dict.fromkeys(range(len(likely)), 1 / len(likely))

    monkeypatch.setattr(configurations, "families", one_of_each)
    monkeypatch.setattr(thorough_search._Search, "_weights", alike)
    model = trained(workspace, kind, {"thorough": True})
    forms = set(saved_forms(registry.resolve(workspace.database, workspace.folders, model).path / ESTIMATOR))
    assert forms == {"linear", "kernel", "trees"} | ({"quadratic"} if "labels" in kind else set())
    _is_answered_elsewhere_as_here(workspace, tmp_path)


def _is_answered_elsewhere_as_here(workspace: Workspace, tmp_path: Path) -> None:
    import onnx

    report = exported(workspace, tmp_path / "out", format="onnx")["report"]
    assert (report["form"], report["checked_on"]) == ("onnx", 16)
    media = [
        *rows(60, 2),
        {"size": 1e9, ODD: -1e9, "count": 7, "colour": "green"},
        {**dict.fromkeys(rows(1, 0)[0]), ODD: 0.25},
    ]
    version = registry.resolve(workspace.database, workspace.folders, "own")
    ours = predictor.load(version.path).predict(as_examples(media))
    found = compare(run_card(tmp_path / "out", media, images=False), ours)
    assert (found.n, found.ties) == (62, 0)
    assert found.largest_difference < 1e-6
    assert len({str(each.output) for each in ours}) > 1
    about = json.loads((tmp_path / "out" / "preprocessing.json").read_text())
    graph = onnx.load(tmp_path / "out" / "model.onnx").graph
    for each in graph.input:
        sides = [side.dim_param or side.dim_value for side in each.type.tensor_type.shape.dim]
        assert sides == about["inputs"][each.name]["shape"]
    assert [*about["numbers"], *about["categories"]] == ["size", ODD, "count", "colour"]
    assert about["missing"] == "<<missing>>", "a text that no cell is"


def test_neighbours_leave_as_a_program_alone(workspace: Workspace, tmp_path: Path) -> None:
    trained(workspace, "two labels", {"candidates": ["neighbours"]})
    with pytest.raises(SpeciateError, match="equally near") as caught:
        export_model.plan(ExportModelSpec(model="own", path=tmp_path / "out", format="onnx"), workspace)
    assert caught.value.next[0].tool == "export_model"
    assert exported(workspace, tmp_path / "out")["report"]["form"] == "sealed"


@pytest.mark.parametrize(("form", "said"), [("onnx", "KeyError: 'size'"), ("safetensors", r"has no \['size'\]")])
def test_a_row_without_a_column_is_no_row_of_missing_cells(
    workspace: Workspace, tmp_path: Path, form: str, said: str
) -> None:
    """A misspelt name would be answered as if the cell were missing, with a label that looks valid."""
    trained(workspace, "two labels", {"candidates": ["logistic"]})
    exported(workspace, tmp_path / "out", format=form)
    card = (tmp_path / "out" / "README.md").read_text()
    assert '"count": 0, "colour": "text"}]' in card, "the row on the card has cells of the kinds that the model reads"
    with pytest.raises(CardError, match=said):
        run_card(tmp_path / "out", [{ODD: 0.25, "Size": 1.0, "count": 7, "colour": "red"}], images=False)
