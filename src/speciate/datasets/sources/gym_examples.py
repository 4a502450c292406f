"""Examples that reasoning-gym makes, behind `gym:TASK`: questions with answers, and what its scorer needs of each.

    gym:chain_sum
    gym:chain_sum?train=1000&test=300&seed=1&max_terms=3
    gym:gcd+lcm?train=200&gcd.max_value=50

Sizes are those of one task. Each split has a seed of its own, and no question comes twice; questions that differ only
in case and punctuation count as the same while there are enough others. The test split is drawn first, so it stays the
same whatever the others' sizes. Columns are `question`, `answer`, `task` and `entry`, which the reward `gym` reads.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.datasets.sources import reasoning_gym
from speciate.datasets.sources.own_export import MARKER, Marker
from speciate.datasets.sources.packaged_data import generators_kept
from speciate.datasets.sources.reasoning_gym import GymEntry, encode_entry
from speciate.errors import Code, SpeciateError, unknown
from speciate.modalities.text import TEXT

SIZES = {"test": 100, "validation": 100, "train": 500}
"""In the order in which they are drawn."""
_MOST = 100_000
_TRIES = 5
"""Draws for each example that is wanted; a task that repeats itself more often has too few different ones."""
_HOW = "Write gym:TASK or gym:TASK+TASK?train=500&validation=100&test=100&seed=0&SETTING=VALUE&TASK.SETTING=VALUE."


class GymSource(NamedTuple):
    tasks: tuple[str, ...]
    sizes: dict[str, int]
    """Split -> examples of each task."""
    seed: int
    settings: dict[str, dict[str, object]]
    """Task -> its settings."""


def parse(name: str) -> GymSource:
    """The source behind `gym:`. Raises MISSING_EXTRA, NOT_FOUND for tasks and settings, INVALID for other words."""
    named, _, query = name.partition("?")
    tasks = tuple(dict.fromkeys(named.split("+")))
    found = GymSource(tasks, dict(SIZES), 0, {task: {} for task in tasks})
    known = {task: reasoning_gym.find_task(task) for task in tasks}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError as error:
        raise SpeciateError(Code.INVALID, f"'gym:{name}' cannot be read: {error}.", _HOW) from error
    for key, text in pairs:
        if key in SIZES:
            found.sizes[key] = _number(key, text, _MOST)
        elif key == "seed":
            found = found._replace(seed=_number(key, text, 2**31 - 1))
        else:
            task, setting = _parse_setting(key, tasks)
            if setting not in known[task].settings:
                raise unknown(
                    f"setting of {task}", setting, known[task].settings, f"{_HOW} Of {task}: {_settings_text(task)}."
                )
            found.settings[task][setting] = _value(text)
    if not sum(found.sizes.values()):
        raise SpeciateError(Code.INVALID, f"'gym:{name}' asks for no example.", _HOW)
    return found


def write(name: str, folder: Path) -> None:
    """Writes the examples into a folder of ours, as an export is read. INVALID if a task cannot make them."""
    gym = parse(name)
    with generators_kept():
        rows = [row for task in gym.tasks for row in _rows(task, gym)]
    schema = pa.schema([(column, pa.string()) for column in ("question", "answer", "task", "split", "entry")])
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "gym.parquet")
    marker = Marker(format="gym", again=".", modality="text", label="answer", inputs=("question",))
    (folder / MARKER).write_text(marker.model_dump_json())


def _rows(task: str, gym: GymSource) -> Iterator[dict[str, str]]:
    questions, alike = set[str](), set[str]()
    for split, wanted in gym.sizes.items():
        entries = _distinct_entries(_entries(task, gym, split), wanted, questions, alike) if wanted else []
        if len(entries) < wanted:
            raise SpeciateError(
                Code.INVALID,
                f"{task!r} makes only {len(entries)} different questions for {split}, of {wanted}, so set.",
                f"Ask for fewer, or change its settings: {_settings_text(task)}.",
            )
        for entry in entries:
            yield {
                "question": entry["question"], "answer": entry["answer"], "task": task, "split": split,
                "entry": encode_entry(entry),
            }  # fmt: skip


def _distinct_entries(entries: Iterator[GymEntry], wanted: int, questions: set[str], alike: set[str]) -> list[GymEntry]:
    """The first entries whose question is new, compared as the split's audit compares texts.

    If they are too few, also those that are new exactly: to some tasks punctuation is all that matters.
    """
    found, spare = list[GymEntry](), list[GymEntry]()
    for entry in entries:
        if entry["question"] in questions:
            continue
        questions.add(entry["question"])
        same = TEXT.fingerprint(entry["question"])
        (spare if same in alike else found).append(entry)
        alike.add(same)
        if len(found) == wanted:
            break
    return [*found, *spare][:wanted]


def _entries(task: str, gym: GymSource, split: str) -> Iterator[GymEntry]:
    """A long sequence of entries, each with an answer that its scorer accepts."""
    import reasoning_gym

    seed = _seed(gym.seed, task, split)
    random.seed(seed)  # some tasks draw from the process's own generators
    np.random.seed(seed)
    wanted = gym.sizes[split] * _TRIES
    try:
        made: Any = reasoning_gym.create_dataset(task, seed=seed, size=wanted, **gym.settings[task])
        for place in range(wanted):
            found: Any = dict(made[place])
            answer = _answer(made, found)
            if answer is None:
                raise _answerless(task)
            yield found | {"answer": answer}
    except SpeciateError:
        raise
    except Exception as error:
        raise SpeciateError(
            Code.INVALID,
            f"reasoning-gym cannot make {task!r} so: {type(error).__name__}: {error}"[:500],
            f"Its settings: {_settings_text(task)}.",
        ) from error


def _answer(made: Any, entry: Mapping[str, Any]) -> str | None:
    """The entry's own answer; without one, as in puzzles with many solutions, a correct one stored beside it."""
    if entry["answer"] is not None:
        return str(entry["answer"])
    for key, value in entry["metadata"].items():
        if key.startswith(("example", "possible")):
            text = value if isinstance(value, str) else json.dumps(value)
            if made.score_answer(text, entry) == 1:
                return text
    return None


def _answerless(task: str) -> SpeciateError:
    return SpeciateError(
        Code.INVALID, f"{task!r} of reasoning-gym tells no answer to its questions.", "Name another task."
    )


def _seed(seed: int, task: str, split: str) -> int:
    """Far from the seed of the other splits: an example's own seed is this one plus its place."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{task}/{split}".encode()).digest()[:4]) >> 1


def _parse_setting(key: str, tasks: tuple[str, ...]) -> tuple[str, str]:
    task, dot, setting = key.rpartition(".")
    if dot and task in tasks:
        return task, setting
    if dot or len(tasks) > 1:
        raise SpeciateError(
            Code.INVALID, f"{key!r} names no setting of one of the tasks {', '.join(tasks)}.", f"{_HOW}"
        )
    return tasks[0], key


def _number(key: str, text: str, most: int) -> int:
    if not text.isdecimal() or int(text) > most:
        raise SpeciateError(Code.INVALID, f"{key} is {text!r}; it is a number from 0 to {most:,}.", _HOW)
    return int(text)


def _value(text: str) -> Any:
    """The value as JSON if it is valid, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return {"True": True, "False": False, "None": None}.get(text, text)


def _settings_text(task: str) -> str:
    return ", ".join(f"{name}: {how}" for name, how in reasoning_gym.find_task(task).settings.items())[:600]
