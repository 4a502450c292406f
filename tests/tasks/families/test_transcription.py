"""Speech to text, on sequences whose states spell the text."""

from __future__ import annotations

import numpy as np
import pytest

from speciate.tasks.families.transcription import Transcription
from speciate.tasks.task import TaskTerms
from tests.tasks.world import again, examples, learned

(EXAMPLE,) = examples(np.zeros(3))


def spoken(text: str, random: np.random.Generator) -> np.ndarray:
    """(T, D): each character for one to three states, silence between."""
    states = []
    for character in text:
        sound = np.zeros(6)
        sound[" abc".index(character)] = 1.0
        states += [sound] * int(random.integers(1, 4)) + [np.eye(6)[4]]
    return np.array(states, np.float32)


def test_white_space_is_single_blanks_and_what_is_no_text_is_said() -> None:
    posed = Transcription.evaluation_example(EXAMPLE, " two  words\n", TaskTerms())
    assert posed is not None
    assert posed.target == "two words"
    assert Transcription.evaluation_example(EXAMPLE, " ", TaskTerms()) is None
    with pytest.raises(ValueError, match="is no text"):
        Transcription.evaluation_example(EXAMPLE, 3.0, TaskTerms())


def test_repeated_codes_are_one_character_unless_a_blank_divides_them() -> None:
    task_head = Transcription.fit(["ab"], {})
    codes = np.eye(3)[[0, 1, 1, 0, 1, 2, 2, 0]]
    assert task_head.predictions([codes, np.zeros((0, 3))])[0].output == "aab"
    assert task_head.predictions([np.zeros((0, 3))])[0].output == ""


def test_a_head_learns_to_spell() -> None:
    random = np.random.default_rng(1)
    texts = ["".join(random.choice(list("abc "), 4)).strip() or "a" for _ in range(60)]
    texts = [" ".join(text.split()) for text in texts]
    media = [spoken(text, random) for text in texts]
    task_head = Transcription.fit(texts, {})
    assert task_head.characters == " abc"
    scores, losses = learned(task_head, media[:40], texts[:40], 300)
    assert losses[-1] < losses[0] / 5
    made = [one.output for one in task_head.predictions(scores(media[40:]))]
    assert np.mean([said == text for said, text in zip(made, texts[40:], strict=True)]) > 0.8
    assert again(task_head) == task_head


def test_padding_anywhere_in_the_sequence_changes_no_loss() -> None:
    import torch

    from speciate.models.backbones.contract import States

    task_head = Transcription.fit(["ab"], {})
    torch.manual_seed(0)
    head, sequence = task_head.head(4), torch.randn(1, 5, 4)
    mask = torch.tensor([[True, True, False, True, True]])
    (encoded,) = task_head.encode_targets(["ab"])
    pooled = torch.zeros(1, 4)
    with_gap = task_head.loss(head, States(sequence, mask, pooled), [encoded])
    without = task_head.loss(head, States(sequence[mask][None], mask[mask][None], pooled), [encoded])
    assert with_gap.item() == pytest.approx(without.item())


def test_what_cannot_be_spelt_gives_no_gradient_and_no_nan() -> None:
    task_head = Transcription.fit(["ab"], {})
    media = [np.ones((1, 6), np.float32)] * 2
    _, losses = learned(task_head, media, ["abab", "xyz"], 2)  # longer than its states; of no known character
    assert losses == [0, 0]


def test_the_baseline_is_the_commonest_text() -> None:
    assert Transcription.baseline(["b", "a", "b"], TaskTerms())(EXAMPLE).output == "b"
