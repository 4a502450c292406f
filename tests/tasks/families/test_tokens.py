"""A tag for each word or residue."""

from __future__ import annotations

import numpy as np
import pytest

from speciate.tasks.families.tokens import Tokens
from speciate.tasks.task import TaskTerms, predict_examples
from tests.tasks.world import again, examples, learned

TEXT, PROTEIN, SEQUENCE, CAPITALS = examples("Ada met Bob .", "MKVL", "MKVLA", "IBM")


@pytest.mark.parametrize("cell", [["B", "O", "B", "O"], '["B", "O", "B", "O"]', "B O B O"])
def test_a_text_has_a_tag_for_each_word(cell: object) -> None:
    posed = Tokens.evaluation_example(TEXT, cell, TaskTerms())
    assert posed is not None
    assert posed.target == ["B", "O", "B", "O"]


@pytest.mark.parametrize("cell", [["H", "H", "C", "C"], '["H", "H", "C", "C"]', "H H C C", "HHCC"])
def test_a_protein_has_a_tag_for_each_residue(cell: object) -> None:
    posed = Tokens.evaluation_example(PROTEIN, cell, TaskTerms(modality="protein"))
    assert posed is not None
    assert posed.target == ["H", "H", "C", "C"]


def test_numbers_are_tags_and_a_word_of_capitals_is_a_word() -> None:
    posed = Tokens.evaluation_example(TEXT, [0, 1, 0, 2], TaskTerms())
    assert posed is not None
    assert posed.target == ["0", "1", "0", "2"]
    assert Tokens.evaluation_example(CAPITALS, ["ORG"], TaskTerms()) is not None
    assert Tokens.evaluation_example(CAPITALS, "  ", TaskTerms()) is None


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (["O"], "1 tags for 4 "),
        ("O O O O O", "5 tags for 4 "),
        (["O", None, "O", "O"], "is no tag"),
        (7.0, "is no list of tags"),
        ("[O, O", "begins like a JSON list"),
    ],
)
def test_what_does_not_line_up_is_said(cell: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tokens.evaluation_example(TEXT, cell, TaskTerms())
    with pytest.raises(ValueError, match="3 tags for 4 words or residues, 'M K V L'"):
        Tokens.evaluation_example(PROTEIN, "HHC", TaskTerms(modality="protein"))


def test_a_head_learns_tags_of_units_and_padding_is_no_training_example() -> None:
    random = np.random.default_rng(1)
    media = [random.normal(size=(random.integers(1, 9), 3)).astype(np.float32) for _ in range(60)]
    targets = [["up" if x > 0 else "down" for x in medium[:, 0]] for medium in media]
    task_head = Tokens.fit(targets, {})
    scores, losses = learned(task_head, media[:40], targets[:40])
    assert losses[-1] < losses[0] / 3
    found = scores(media[40:])
    assert [len(each) for each in found] == [len(medium) for medium in media[40:]]
    task_head = task_head.calibrated(found, task_head.encode_targets(targets[40:]))
    made = task_head.predictions(found)
    right = np.concatenate(
        [np.array(one.output) == np.array(target) for one, target in zip(made, targets[40:], strict=True)]
    )
    assert right.mean() > 0.9
    assert made[0].confidence is not None
    assert again(task_head) == task_head


def test_units_that_a_network_did_not_see_get_the_commonest_tag() -> None:
    for example in (TEXT, PROTEIN):
        task_head = Tokens.fit([["O", "O", "B"]], {"modality": "protein" if example is PROTEIN else "text"})
        (made,) = predict_examples(task_head, [np.array([[9.0, 0.0]])], [example])
        assert made.output == ["B", "O", "O", "O"]
    media = [np.ones((2, 3), np.float32)] * 2  # shorter than their tags
    _, losses = learned(task_head, media, [["O", "B", "O"]] * 2, 1)
    assert np.isfinite(losses[0])


def test_the_baseline_tags_every_unit() -> None:
    words, residues = (Tokens.baseline([["O", "O", "B"]], TaskTerms(modality=each)) for each in ("text", "protein"))
    assert words(TEXT).output == ["O"] * 4
    assert words(TEXT._replace(media="SOCCER")).output == ["O"]  # capitals, as residues are
    assert residues(SEQUENCE).output == ["O"] * 5
