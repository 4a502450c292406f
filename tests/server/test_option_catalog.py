"""What list_options shows of every kind: nothing that is missing a line, nothing that does not suit the task."""

from __future__ import annotations

import importlib.util
from typing import get_args

import pytest

from speciate.server import option_catalog
from speciate.server.option_catalog import Kind, list_options
from speciate.training.train_spec import PARAMETERS
from speciate.vocabulary import TASKS


@pytest.mark.parametrize("kind", get_args(Kind))
def test_every_option_says_what_it_is(kind: Kind) -> None:
    found = list_options(kind)
    assert found
    assert all(option.what for option in found)


@pytest.mark.parametrize("task", [task for task in TASKS if task in {each.name for each in list_options("task")}])
def test_the_options_of_a_task_suit_it(task: str) -> None:
    names = {option.name for option in list_options("metric", task=task)}
    assert TASKS[task].default_metric in names
    assert {option.name for option in list_options("method", task=task)} <= set(PARAMETERS)


def test_a_method_names_the_base_models_that_it_can_take() -> None:
    pytest.importorskip("torch")
    (full,) = list_options("method", "full", "object-detection")
    assert "new:vit" in full.what
    assert "new:resnet" not in full.what  # its states are too coarse to say where something is
    (whole,) = list_options("method", "full", "image-classification")
    assert "new:resnet" in whole.what
    assert "learning_rate" in full.parameters["properties"]


def test_a_method_without_its_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(option_catalog._LIBRARIES, "lora", ("no_such_library", "train"))
    assert importlib.util.find_spec("no_such_library") is None
    assert list_options("method", "lora")[0].needs == ("pip install 'speciate[train]'",)


def test_rewards_and_tasks_of_reasoning_gym_say_what_may_be_set_of_them() -> None:
    (code,) = list_options("reward", "code")
    assert "tests" in code.parameters["properties"]["column"]["default"]
    assert list_options("reward", task="image-classification") == []
    (gym,) = list_options("gym", "chain_sum")
    assert gym.parameters["max_terms"] == "int = 6"
    assert all(each.parameter_names for each in list_options("gym") if each.parameters)


def test_what_learns_about_pictures_is_what_can_be_set_of_that() -> None:
    (sft,) = list_options("method", task="image-text-to-text")
    assert sft.name == "sft"
    assert {"eyes", "side"} <= sft.parameters["properties"].keys()
    assert "packing" not in sft.parameters["properties"]


@pytest.mark.parametrize("kind", ["format", "modality"])
def test_what_an_option_is_is_said_to_the_end_of_its_sentence(kind: Kind) -> None:
    for each in list_options(kind):
        assert each.what.endswith((".", ")")), each.name
