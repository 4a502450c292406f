"""Policies as LeRobot saves them: what they do at each step is what LeRobot's own classes do, which
evals/lerobot_policies.py has written down in lerobot.json."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torchvision")

from safetensors.numpy import load_file, save_file

from speciate.errors import SpeciateError
from speciate.models.policies.acting import Policy
from speciate.models.policies.policy_folder import read_policy
from speciate.models.published.architectures import check_head, find_head
from speciate.models.published.asking import ask
from speciate.models.published.published_model import load_model
from tests.models.policies.doubles import POLICIES, episode, measured, write

LEROBOT = {
    name: np.array(each) for name, each in json.loads((Path(__file__).parent / "lerobot.json").read_text()).items()
}


def numbers(name: str) -> int:
    found = read_policy(POLICIES[name])
    assert found is not None
    return sum(found.numbers.values())


def acted(folder: Path, episodes: list[dict[str, Any]]) -> list[np.ndarray]:
    model = load_model(folder, check_head(folder, "policy"))
    return [np.array(each.output["actions"]) for each in ask(model, episodes)]


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_does_at_each_step_what_lerobots_own_does(name: str, older: bool, tmp_path: Path) -> None:
    folder = write(tmp_path / "policy", POLICIES[name], older=older)
    head = find_head(folder)
    assert head is not None
    assert (head.adapter, head.task, head.modality) == ("policy", "behaviour-cloning", "episode")
    wanted = LEROBOT[name]
    shown = [measured(episode(steps, seed), numbers(name)) for steps, seed in ((len(wanted), 0), (3, 5))]
    first, other = acted(folder, shown)
    assert first == pytest.approx(wanted, abs=1e-5)
    assert len(other) == 3
    assert acted(folder, shown[1:])[0] == pytest.approx(other, abs=1e-5)  # whatever is asked beside it


@pytest.mark.parametrize("name", POLICIES)
def test_step_by_step_it_acts_as_over_the_whole_episode(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "policy", POLICIES[name])
    model = load_model(folder, check_head(folder, "policy"))
    whole = measured(episode(13), numbers(name))
    wanted = np.array(ask(model, [whole])[0].output["actions"])
    model.processor._plans.clear()
    for step in range(13):
        first = model.config.first_shown(step)
        part = {name: whole[name][first : step + 1] for name in ("times", "state", "action")}
        camera = whole["cameras"]["top"]
        seen = {"frames": camera["frames"][first : step + 1], "steps": np.arange(step + 1 - first, dtype=np.int32)}
        shown = {**whole, **part, "cameras": {"top": seen}}
        assert ask(model, [shown])[0].output["actions"][-1] == pytest.approx(wanted[step], abs=1e-5)


@pytest.mark.parametrize("name", ["act", "diffusion"])
def test_weights_that_do_not_match_are_refused_by_name(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "policy", POLICIES[name])
    whole = load_file(folder / "model.safetensors")
    victim = next(each for each in whole if each.endswith("weight") and whole[each].ndim == 2)
    changed = {
        "lacks": {each: values for each, values in whole.items() if each != victim},
        "has no place for": whole | {"extra.weight": whole[victim]},
        "has another shape of": whole | {victim: whole[victim][:-1]},
    }
    for verb, weights in changed.items():
        save_file(weights, folder / "model.safetensors")
        with pytest.raises(SpeciateError, match="extra" if "place" in verb else re.escape(f"it {verb} {victim}")):
            load_model(folder, check_head(folder, "policy"))


def test_a_config_of_a_network_that_the_file_does_not_hold_takes_no_memory(tmp_path: Path) -> None:
    folder = write(tmp_path / "policy", POLICIES["act averaged"])
    large = POLICIES["act averaged"] | {"dim_model": 16_000, "dim_feedforward": 16_000, "n_encoder_layers": 60}
    (folder / "config.json").write_text(json.dumps(large))
    with pytest.raises(SpeciateError, match="are not those of their policy"):
        load_model(folder, check_head(folder, "policy"))


def test_without_statistics_it_is_refused_and_names_what_is_missing(tmp_path: Path) -> None:
    folder = write(tmp_path / "policy", POLICIES["act"])
    for path in folder.glob("policy_*"):
        path.unlink()
    with pytest.raises(SpeciateError, match=r"the mean and std of observation\.images\.top are in none of its files"):
        load_model(folder, check_head(folder, "policy"))


def test_an_episode_of_another_robot_is_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "policy", POLICIES["act"])
    model = load_model(folder, check_head(folder, "policy"))
    with pytest.raises(ValueError, match="measures 5 numbers, and it reads 8"):
        ask(model, [measured(episode(3), 5)])
    with pytest.raises(ValueError, match="no camera 'top'"):
        ask(model, [episode(3) | {"cameras": {}}])


@pytest.mark.parametrize(
    "change",
    [
        {"type": "pi0"},
        {"vision_backbone": "vit"},
        {"n_action_steps": 7},
        {"output_features": {}},
        {"n_obs_steps": 3},
        {"n_encoder_layers": 10**9},
        {"dim_model": 10**9},
        {"chunk_size": 10**9},
    ],
)
def test_a_policy_of_another_kind_or_shape_has_no_head(change: dict[str, Any], tmp_path: Path) -> None:
    folder = write(tmp_path / "policy", POLICIES["act"])
    (folder / "config.json").write_text(json.dumps(POLICIES["act"] | change))
    assert find_head(folder) is None


@pytest.mark.parametrize("older", [False, True])
def test_a_saved_policy_comes_back_with_the_same_weights_and_statistics(older: bool, tmp_path: Path) -> None:
    folder = write(tmp_path / "policy", POLICIES["diffusion"], older=older)
    policy: Policy = load_model(folder, check_head(folder, "policy")).processor
    (tmp_path / "saved").mkdir()
    policy.save_pretrained(tmp_path / "saved")
    shown = [measured(episode(9), 8)]
    assert acted(tmp_path / "saved", shown)[0] == pytest.approx(acted(folder, shown)[0], abs=0)
