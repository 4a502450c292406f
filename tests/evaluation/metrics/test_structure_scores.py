"""Scores of predicted structures, held to Biopython, tmtools and biotite on an entry of the archive."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from Bio.SVDSuperimposer import SVDSuperimposer
from scipy.spatial.transform import Rotation
from tmtools import tm_align

from speciate.errors import SpeciateError
from speciate.evaluation.metrics.structure_scores import lddt, rmsd, tm_score
from speciate.evaluation.reports import report
from speciate.evaluation.scorers import scorer as scorers
from speciate.modalities.biology import protein_structures
from speciate.workspace.workspace import Workspace
from tests import data
from tests.modalities.protein_samples import deposited
from tests.training.world import define

Places = npt.NDArray[np.float64]
_COLUMNS = ("column:near", "column:far")


@pytest.fixture(scope="module")
def chain() -> Places:
    """The alpha carbons of 147 residues."""
    media = protein_structures.read(deposited("2gtl.pdb")).structure
    places, residues = protein_structures.alpha_carbons(media)
    return places[media["chain"][residues] == 0]


def moved(places: Places, seed: int, noise: float, hinge: float = 0.0) -> Places:
    """Turned as a whole, its second half by `hinge` radians more, each atom shaken."""
    chance = np.random.default_rng(seed)
    bent = places.copy()
    half = len(places) // 2
    bent[half:] = Rotation.from_rotvec([0, 0, hinge]).apply(bent[half:] - bent[half]) + bent[half]
    turned = Rotation.random(random_state=seed).apply(bent)
    return np.asarray(turned + chance.normal(0, noise, places.shape) + chance.uniform(-50, 50, 3))


def asked(reference: Places, answer: Places) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"truth": json.dumps(reference.tolist())}, {"output": answer.tolist()}


CASES = [(0.0, 0.0), (0.3, 0.0), (1.0, 0.4), (2.0, 0.0), (0.5, 1.2), (3.0, 2.0), (8.0, 1.0), (25.0, 0.0)]


@pytest.mark.parametrize(("noise", "hinge"), CASES)
def test_scores_are_those_of_the_libraries(chain: Places, noise: float, hinge: float) -> None:
    import biotite.structure as biotite  # slow to import: matplotlib

    answer = moved(chain, 1, noise, hinge)
    given = asked(chain, answer)
    superimposer = SVDSuperimposer()
    superimposer.set(chain, answer)
    superimposer.run()
    assert rmsd(*given) == pytest.approx(superimposer.get_rms(), abs=1e-9)
    fitted, _ = biotite.superimpose(chain, answer)
    assert rmsd(*given) == pytest.approx(biotite.rmsd(chain, fitted), abs=1e-4)
    letters = "A" * len(chain)
    theirs = tm_align(answer, chain, letters, letters, [letters, letters]).tm_norm_chain2
    assert tm_score(*given) >= theirs - 0.005
    assert tm_score(*given) <= theirs + 0.02  # TM-align stops its own search early, too
    atoms = [biotite.AtomArray(len(chain)) for _ in range(2)]
    for array, places in zip(atoms, (chain, answer), strict=True):
        array.coord = places.astype(np.float32)
        array.res_id = np.arange(1, len(chain) + 1)
        array.chain_id[:] = "A"
    assert lddt(*given) == pytest.approx(biotite.lddt(*atoms), abs=1e-3)


def test_the_same_structure_is_perfect_and_its_mirror_image_is_not(chain: Places) -> None:
    given = asked(chain, moved(chain, 2, 0.0))
    assert rmsd(*given) == pytest.approx(0, abs=1e-4)
    assert tm_score(*given) == pytest.approx(1)
    assert lddt(*given) == 1
    mirrored = asked(chain, chain * (1, 1, -1))
    assert rmsd(*mirrored) > 5
    assert tm_score(*mirrored) < 0.5


def test_residues_that_the_reference_does_not_know_do_not_count(chain: Places) -> None:
    answer = moved(chain, 3, 0.5)
    rows: list[Any] = chain.tolist()
    wrong = answer.copy()
    wrong[5], rows[5] = (900, 0, 0), None
    kept = np.delete(np.arange(len(chain)), 5)
    for score in (rmsd, tm_score, lddt):
        wanted = score(*asked(chain[kept], answer[kept]))
        assert score({"truth": rows}, {"output": wrong.tolist()}) == pytest.approx(wanted)


@pytest.mark.parametrize("output", [[[0, 0, 0]], "[]", "[[1, 2]]", [None] * 147, "no JSON", 7, None])
def test_an_answer_that_is_no_structure_of_this_protein_has_no_score(chain: Places, output: Any) -> None:
    found = scorers.find_scorer("package:lddt")
    (said,) = found.score_all(None, [{"example": {"truth": chain.tolist()}, "prediction": {"output": output}}])  # type: ignore[arg-type]  # writes nothing
    assert not isinstance(said, dict)
    assert said.failure == "raised"


def test_models_that_predict_places_are_compared_by_them(workspace: Workspace, chain: Places) -> None:
    rows = tuple(
        {"text": f"the fold of protein {number}", "truth": json.dumps(part.tolist()),
         "near": json.dumps(moved(part, number, 0.3).tolist()), "far": json.dumps(moved(part, number, 6.0).tolist()),
         "split": "test"}
        for number, part in enumerate(chain[start : start + 60] for start in range(0, 80, 10))
    )  # fmt: skip
    data.ingest(workspace, "folds", rows=rows, inputs=("text",))
    define(workspace, "folding", "text-generation", metric="exact_match", target_column="truth")
    result = data.run_job(
        workspace, "evaluate", models=list(_COLUMNS), dataset="folds", use_case="folding",
        scorer="package:tm_score", latency=False,
    )  # fmt: skip
    rows_of = {name: report.find_report(workspace.database, result["evaluation"]).row(name) for name in _COLUMNS}
    (metric,) = [name for name in rows_of["column:near"].metrics if name.startswith("package:tm_score@")]
    near, far = (rows_of[name].metrics[metric].value for name in _COLUMNS)
    assert near is not None
    assert far is not None
    assert near > 0.8 > 0.4 > far


def test_they_are_found_by_name_and_say_what_is_better() -> None:
    found = {name: scorers.find_scorer(f"package:{name}") for name in ("rmsd", "tm_score", "lddt")}
    assert [scorer.better for scorer in found.values()] == ["lower", "higher", "higher"]
    assert found["tm_score"].signature.startswith("package:tm_score@")
    with pytest.raises(SpeciateError, match="tm_score"):
        scorers.find_scorer("package:tm_scor")
