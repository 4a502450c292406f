"""Structures in the place of sequences: whatever learns from residues takes both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from speciate.datasets.loading.loader import Example
from speciate.modalities.biology.protein import PROTEIN, sequence_of
from speciate.models.backbones import architectures
from speciate.tasks.families.tokens import Tokens, UnitFeatures, units
from speciate.tasks.representations import Documents, ngram_choices
from speciate.tasks.task import TaskTerms
from tests.modalities.protein_samples import pdb, small


def example(media: Any) -> Example:
    return Example(id="example", media=media, label=None, group="", split="", columns={})


@pytest.fixture(scope="module")
def both() -> tuple[Any, str]:
    structure = PROTEIN.decode(pdb(small()))
    return structure, sequence_of(structure)


def test_a_tag_stands_for_each_residue_of_both(both: tuple[Any, str]) -> None:
    structure, sequence = both
    assert units(structure, "protein") == units(sequence, "protein") == list(sequence)
    assert len(sequence) == len(structure["coordinates"]) == 40
    posed = Tokens.evaluation_example(example(structure), "H" * 40, TaskTerms(modality="protein"))
    assert posed is not None
    assert posed.target == ["H"] * 40
    with pytest.raises(ValueError, match="39 tags for 40"):
        Tokens.evaluation_example(example(structure), "H" * 39, TaskTerms(modality="protein"))


def test_residues_and_their_runs_are_the_same_of_both(both: tuple[Any, str]) -> None:
    structure, sequence = both
    rows = UnitFeatures("protein").encode([example(structure), example(sequence)])
    dense = rows.matrix.toarray()
    assert rows.counts.tolist() == [40, 40]
    assert (dense[:40] == dense[40:]).all()
    documents = Documents.fit([example(structure), example(sequence)], "protein", ngram_choices("protein")[0])
    counted = documents.encode([example(structure), example(sequence)]).toarray()
    assert np.array_equal(counted[0], counted[1])


def test_a_network_reads_both_as_the_same_tokens(both: tuple[Any, str]) -> None:
    structure, sequence = both
    backbone = architectures.build("new:esm", [structure, sequence], 0)
    first, second = backbone.prepare([structure, sequence], per_unit=True)
    assert first["ids"].tolist() == second["ids"].tolist()
    assert len(first["units"]) == 40
