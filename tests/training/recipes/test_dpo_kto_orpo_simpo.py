"""Methods that learn from pairs: which way they move a model, and what is no pair."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from speciate.errors import SpeciateError
from speciate.modalities.messages import conversation
from speciate.models.language import chat_templates
from speciate.models.language.chat_templates import ChatFormat
from speciate.server.client import Client
from speciate.training.language.durable_trainer import DurableTrainer
from speciate.training.recipes.preference import PairTokens, interleaved, verdict_rows
from speciate.workspace.workspace import Workspace
from tests.domains.calling import ended
from tests.models.language.world import messages, tiny_model, tiny_tokenizer
from tests.server.processes import Daemons
from tests.training.language.world import attempt, base, make_pairs, payload, run

GIVEN = {
    "changes": "full",
    "num_train_epochs": 3,
    "batch_size": 10,
    "learning_rate": 2e-3,
    "max_new_tokens": 4,
    "judged": 0,
}


def _run(workspace: Workspace, folder: Path, method: str, **given: Any) -> dict[str, Any]:
    asked = payload(
        workspace, name="chooser", dataset="pairs", method=method, hyperparameters=GIVEN | given,
        base_model=base(folder / "base"), resources={"cpu": 1},
    )  # fmt: skip
    report: dict[str, Any] = run(attempt(workspace, asked, "job-x"))["report"]
    return report


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("dpo", {}), pytest.param("dpo", {"loss_type": "ipo"}, marks=pytest.mark.slow),
        pytest.param(
            "dpo", {"rpo_alpha": 0.5, "label_smoothing": 0.1, "loss_type": "robust"},
            marks=pytest.mark.slow(reason="options of dpo, which is the first; what they may be is checked below"),
        ),
        ("orpo", {}), ("simpo", {}),
    ],
)  # fmt: skip
def test_the_better_answer_of_held_out_pairs_becomes_likelier(
    workspace: Workspace, tmp_path: Path, method: str, given: dict[str, Any]
) -> None:
    make_pairs(workspace)
    held = _run(workspace, tmp_path, method, **given)["training"]["held"]
    assert held["rewards/accuracies"] == 1.0
    assert held["rewards/margins"] > 0


def test_good_answers_become_likelier_than_bad_ones(workspace: Workspace, tmp_path: Path) -> None:
    make_pairs(workspace)
    held = _run(workspace, tmp_path, "kto")["training"]["held"]
    assert held["rewards/chosen"] > held["rewards/rejected"]


@pytest.mark.parametrize("each_is_the_better_as_often", [False, True])
def test_pairs_that_one_answer_to_all_would_satisfy_are_said(
    workspace: Workspace, tmp_path: Path, each_is_the_better_as_often: bool
) -> None:
    """As pairs of a model's mistakes are: what it says too seldom is the better answer, whatever is asked."""
    names = ("film", "news", "product")
    if each_is_the_better_as_often:
        right = [names[at % 3] for at in range(60)]
        wrong = [names[(at + 1 + at // 3 % 2) % 3] for at in range(60)]
    else:
        right = ["product" if at % 5 else "news" for at in range(60)]
        wrong = ["news" if at % 5 == 1 else "film" for at in range(60)]
    make_pairs(workspace, chosen=right, rejected=wrong)
    notes = " ".join(_run(workspace, tmp_path, "dpo", max_steps=1)["notes"])
    assert (
        "100% of 50 training pairs are told apart by their answers alone" in notes
    ) is not each_is_the_better_as_often
    assert ("'product' is the better one in 40 of the 40 where it stands" in notes) is not each_is_the_better_as_often


def test_what_is_no_pair_is_left_out_and_said(workspace: Workspace, tmp_path: Path) -> None:
    """Every fifth has the same answers, one has none; a whole conversation stands for its last turn."""
    same = ("Yes ", "SURE")
    worse: list[str | None] = [same[at % 2] if at % 5 == 0 else "no" for at in range(60)]
    worse[1], worse[2] = None, messages("is 2 good?", "no")
    make_pairs(workspace, rejected=worse)
    notes = " ".join(_run(workspace, tmp_path, "dpo", max_steps=1)["notes"])
    assert "1 training examples have no 'rejected' and are excluded" in notes
    assert "10 training examples have two answers that are the same and are excluded" in notes


def test_pairs_that_are_none_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    make_pairs(workspace, rejected=["Yes", "sure"] * 30)
    with pytest.raises(SpeciateError, match="No training example of pairs@v1 has two different answers"):
        _run(workspace, tmp_path, "dpo")


def test_a_column_that_is_not_there_is_refused_before_a_job(workspace: Workspace, tmp_path: Path) -> None:
    make_pairs(workspace)
    with pytest.raises(SpeciateError, match="no column 'worse'") as refusal:
        _run(workspace, tmp_path, "dpo", rejected="worse")
    assert "rejected" in refusal.value.message + refusal.value.recovery


@pytest.mark.parametrize(("pairs", "together"), [(4, 2), (5, 4), (30, 16), (14, 16), (33, 8), (100, 2), (7, 14)])
def test_the_distance_of_kto_is_measured_by_answers_to_other_questions(pairs: int, together: int) -> None:
    rows = interleaved(pairs, together)
    assert sorted(rows) == sorted((place, good) for place in range(pairs) for good in (True, False))
    assert [good for _, good in rows] == [True, False] * pairs
    for start in range(0, len(rows), together):
        batch = [place for place, _ in rows[start : start + together]]
        assert all(batch[at] != batch[at - 1] for at in range(len(batch)))


def test_a_dropout_that_trl_would_take_away_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    make_pairs(workspace)
    with pytest.raises(SpeciateError, match="dropout"):
        _run(workspace, tmp_path, "dpo", changes="lora", lora_dropout=0.1)


def test_kto_needs_two_answers_in_memory(workspace: Workspace, tmp_path: Path) -> None:
    make_pairs(workspace)
    with pytest.raises(SpeciateError, match="per_device_train_batch_size"):
        _run(workspace, tmp_path, "kto", per_device_train_batch_size=1)
    with pytest.raises(SpeciateError, match="one answer in memory at a time") as refusal:
        _run(workspace, tmp_path, "kto", batch_size=15, per_device_train_batch_size=2)
    assert "even batch_size" in refusal.value.recovery


@pytest.mark.parametrize(
    "given", [{"label_smoothing": 0.1}, {"label_smoothing": 0.1, "loss_type": "ipo"}, {"loss_type": "robust"}]
)
def test_a_smoothing_that_would_do_nothing_is_refused(
    workspace: Workspace, tmp_path: Path, given: dict[str, Any]
) -> None:
    make_pairs(workspace)
    with pytest.raises(SpeciateError, match="smoothing"):
        _run(workspace, tmp_path, "dpo", **given)


@pytest.mark.parametrize(
    "method", ["dpo", "kto", *(pytest.param(each, marks=pytest.mark.slow) for each in ("orpo", "simpo"))]
)
def test_what_is_learned_of_a_pair_is_what_the_model_is_asked_and_answers(
    workspace: Workspace, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the token: no other beginning, and nothing behind the end of an answer."""
    seen: list[dict[str, Any]] = []
    step = DurableTrainer.training_step

    def watched(self: Any, model: Any, inputs: Any, items: Any = None) -> Any:
        seen.append(inputs)
        return step(self, model, inputs, items)

    monkeypatch.setattr(DurableTrainer, "training_step", watched)
    make_pairs(workspace)
    _run(workspace, tmp_path, method, max_steps=1)
    tokenizer = tiny_tokenizer()
    wanted = {
        tuple(
            chat_templates.tokenize_example(
                tokenizer, conversation(f"is {at} good?"), said, ChatFormat(), "completion"
            ).ids[:-1]
        )
        for at in range(60)
        for said in ("yes", "sure", "no")
    }  # the last is the template's line break
    batch = seen[0]
    pairs = [("input_ids", "attention_mask")] if "input_ids" in batch else [
        (f"{each}_input_ids", f"{each}_attention_mask") for each in ("chosen", "rejected")
    ]  # fmt: skip
    rows = [
        tuple(ids[mask.bool()].tolist())
        for name, masked in pairs
        for ids, mask in zip(batch[name], batch[masked], strict=True)
    ]
    assert len(rows) in (10, 20)
    assert set(rows) <= wanted


def test_each_question_of_kto_is_given_the_answer_to_another_one() -> None:
    found = [PairTokens([at], [100 + at], [200 + at]) for at in range(9)]
    rows = verdict_rows(found, seed=3, together=6)
    assert len(rows) == 18
    for start in range(0, 18, 6):
        some = rows.select(range(start, start + 6))
        assert sorted(some["KL_completion_ids"]) == sorted(some["completion_ids"])
        assert all(
            ids[0] % 100 != asked[0] for ids, asked in zip(some["KL_completion_ids"], some["prompt_ids"], strict=True)
        )
    assert rows["prompt_ids"] != verdict_rows(found, seed=4, together=6)["prompt_ids"]


QUICK: dict[str, Any] = {"changes": "full", "batch_size": 8, "learning_rate": 3e-3, "judged": 8, "max_new_tokens": 8}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    daemons = Daemons(tmp_path / "workspace")
    daemons.workspace.mkdir()
    monkeypatch.chdir(tmp_path)
    yield daemons.connect()
    daemons.close()


@pytest.mark.slow
def test_answers_of_an_evaluation_become_pairs_a_judge_and_a_model_that_it_teaches(
    client: Client, tmp_path: Path
) -> None:
    """Through the tools: the pairs train a reward model, by which a model is then trained."""
    rows = [
        {"prompt": f"is {colour} {at} good?", "completion": right, "old": right if at % 4 else "no idea", "new": wrong}
        for at in range(40)
        for colour, right, wrong in (("red", "yes", "no"), ("blue", "no", "yes"))
    ]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, rows)))
    made = ended(client, "create_dataset", name="asked", source="asked.jsonl", inputs=["prompt"])["dataset"]
    every = ended(
        client, "curate_dataset", dataset=made, steps=[{"op": "split", "fractions": {"test": 1.0}}]
    )["dataset"]  # fmt: skip
    client.call("define_use_case", name="yes-or-no", task="text-generation", objective={"metric": "exact_match"})
    judged = ended(
        client, "evaluate_models", models=["column:old", "column:new"], dataset=every, use_case="yes-or-no"
    )  # fmt: skip
    pairs = ended(
        client, "curate_dataset", dataset=every,
        steps=[
            {"op": "preferences", "evaluation": judged["evaluation"]},
            {"op": "split", "fractions": {"train": 0.7, "validation": 0.3}, "seed": 1},
        ],
    )["dataset"]  # fmt: skip
    base = tiny_model(tmp_path / "base")
    judge = ended(
        client, "train_model", name="judge", dataset=pairs, method="reward", base_model=base,
        hyperparameters=QUICK | {"num_train_epochs": 8, "max_new_tokens": 4},
    )  # fmt: skip
    assert judge["report"]["task"] == "preference"
    board = ended(client, "evaluate_models", models=["judge"], dataset=f"{pairs}:validation")["report"]
    print(judge["report"]["validation"], board["ranking"] if "ranking" in board else board.keys())
    said = [{"text": messages("is red 3 good?", answer)} for answer in ("yes", "no")]
    good, bad = client.call("predict", model="judge", inputs=said)["predictions"]
    assert isinstance(good["untrusted"]["output"], float)
    assert isinstance(bad["untrusted"]["output"], float)
    for method, more in (
        ("dpo", {}),
        ("grpo", {"max_steps": 2, "num_generations": 4, "rewards": [{"kind": "model", "model": "judge"}]}),
    ):
        report = ended(
            client, "train_model", name=method, dataset=pairs, method=method, base_model=base,
            hyperparameters=QUICK | more,
        )["report"]  # fmt: skip
        assert report["training"]["ended"] == "finished"
    assert report["watched"]["rewards"]["model"]["failures"] == {}
    assert report["watched"]["end"]["reward"] != 0
