"""On which side of an episode an answer lies: it follows from its group, whatever asked about it."""

from __future__ import annotations

from collections import defaultdict

from speciate.datasets.sources.answer_log import LoggedExample, LogQuery, split_of
from speciate.predictions.reading import LoggedAnswer


def _answer(group: str | None, number: int, drawn: str) -> LoggedExample:
    row = {"speed": number} | ({"machine": group} if group is not None else {})
    answer = LoggedAnswer(
        id=f"pred-{number}", at=0.0, model="m@v1", generation=1, modality="tabular", input={"row": row}, output="a",
        confidence=0.5, error=False, ms=1.0, given=None, redacted=0, left_out=(),
    )  # fmt: skip
    return LoggedExample(answer, "a", "human", drawn)


def test_a_group_lies_in_one_split_also_what_was_asked_about_for_its_doubt() -> None:
    sides: dict[str, set[str]] = defaultdict(set)
    for part in ("train", "judge"):
        query = LogQuery("triage", labelled=True, part=part, group="machine")
        for machine in range(200):
            for number, drawn in enumerate(("random", "uncertain") * 3):
                if (split := split_of(_answer(f"m{machine}", number, drawn), query)) is not None:
                    sides[f"m{machine}"].add(split)
    assert {len(each) for each in sides.values()} == {1}
    assert set.union(*sides.values()) == {"train", "validation", "test"}


def test_without_groups_only_random_draws_validate() -> None:
    query = LogQuery("triage", labelled=True, part="train")
    found = {drawn: {split_of(_answer(None, n, drawn), query) for n in range(300)} for drawn in ("random", "uncertain")}
    assert found == {"random": {"train", "validation", None}, "uncertain": {"train"}}
