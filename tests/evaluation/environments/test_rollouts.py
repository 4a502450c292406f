"""Models that act: the same seed gives the same episode, side by side as alone, here and in a sandbox."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speciate.datasets.loading.loader import Example
from speciate.errors import Code, SpeciateError
from speciate.evaluation import environments
from speciate.evaluation.environments import simulators
from speciate.evaluation.environments.reach import Reach, ReachBySight, expert
from speciate.evaluation.environments.rollouts import RolloutModel, rollout_identity, with_rollouts
from speciate.evaluation.environments.simulators import open_simulators
from speciate.modalities.robotics.episode import EPISODE
from speciate.sandbox.client import SandboxClient
from speciate.tasks.task import Prediction

PENDULUM = "gymnasium:Pendulum-v1"


def example(seed: int, environment: str = "reach", **columns: Any) -> Example:
    media = EPISODE.admit({"state": [[0.0] * 8] * 3})
    return Example(f"ex-{seed}", media, None, "", "test", {"environment": environment, "seed": seed, **columns})


class Policy:
    """Remembers what it was shown."""

    def __init__(self, choose: Any) -> None:
        self.choose, self.shown = choose, list[list[Any]]()

    def __call__(self, examples: Sequence[Example]) -> list[Prediction]:
        self.shown.append([example.media for example in examples])
        return [
            Prediction({"actions": [list(map(float, self.choose(row))) for row in example.media["state"]]}, None, None)
            for example in examples
        ]


def outcomes(choose: Any, examples: list[Example], folder: Path) -> list[dict[str, Any]]:
    return [made.output["rollout"] for made in RolloutModel(Policy(choose), folder, "required")(examples)]


def test_the_expert_arrives_and_who_stands_still_does_not(tmp_path: Path) -> None:
    seeds = [example(seed) for seed in range(40)]
    assert all(outcome["success"] == 1 for outcome in outcomes(expert, seeds, tmp_path))
    assert all(outcome["success"] == 0 for outcome in outcomes(lambda row: (0, 0), seeds, tmp_path))


def test_the_disc_stands_in_the_way() -> None:
    """Who goes straight for the mark mostly hits it."""
    hits = 0
    for seed in range(40):
        world = Reach()
        seen, _ = world.reset(seed=seed)
        ended = cut = False
        while not ended and not cut:
            place, speed, mark, _ = seen.reshape(4, 2)
            seen, _, ended, cut, info = world.step(3 * (0.8 * (mark - place) - speed))
        hits += ended and not info["is_success"]
    assert hits > 20


def test_the_same_seed_is_the_same_episode_alone_and_beside_others(tmp_path: Path) -> None:
    together = outcomes(expert, [example(seed) for seed in (5, 6, 7)], tmp_path)
    alone = [outcomes(expert, [example(seed)], tmp_path)[0] for seed in (5, 6, 7)]
    assert together == alone
    assert len({outcome["return"] for outcome in together}) == 3


def test_a_model_is_shown_one_step_without_actions_of_those_that_still_go_on(tmp_path: Path) -> None:
    policy = Policy(expert)
    RolloutModel(policy, tmp_path, "required")([example(seed) for seed in range(5)])
    first, *later = policy.shown
    assert [len(media["times"]) for media in first] == [3] * 5  # the recordings themselves
    assert all(media["state"].shape == (1, 8) and not media["action"].size for some in later for media in some)
    assert len(later[0]) == 5
    assert len(later[-1]) < 5


def test_a_policy_that_plans_is_shown_the_steps_since_it_last_looked_and_what_time_it_is(tmp_path: Path) -> None:
    policy = Policy(expert)
    looks = RolloutModel(policy, tmp_path, "required", lambda step: max(0, step - step % 4 - 1))
    made = looks([example(3)])[0].output["rollout"]
    assert made == outcomes(expert, [example(3)], tmp_path)[0]  # the last of the actions is the one that counts
    acted = [some[0] for some in policy.shown[1:]]
    assert [len(media["times"]) for media in acted[:10]] == [1, 2, 3, 4, 2, 3, 4, 5, 2, 3]
    assert [round(float(media["times"][-1])) for media in acted] == list(range(len(acted)))
    for before, media in itertools.pairwise(acted):
        assert (media["state"][-2] == before["state"][-1]).all()


def test_a_camera_is_there_where_the_recording_had_one(tmp_path: Path) -> None:
    one = example(3)
    seen: dict[str, Any] = {"frames": np.zeros((3, 64, 64, 3), np.uint8), "steps": np.arange(3, dtype=np.int32)}
    one.media["cameras"] = {"top": seen}
    policy = Policy(expert)
    RolloutModel(policy, tmp_path, "required")([one])
    world = Reach()
    world.reset(seed=3)
    assert (policy.shown[1][0]["cameras"]["top"]["frames"][0] == world.render()).all()


def test_by_sight_neither_mark_nor_disc_is_measured() -> None:
    plain, sight = Reach().reset(seed=9)[0], ReachBySight().reset(seed=9)[0]
    assert sight.tolist() == plain[:4].tolist()


def test_a_window_that_begins_later_and_a_recording_of_no_simulator_are_not_acted(tmp_path: Path) -> None:
    later, other = example(1, window_start=8.0), example(2)._replace(columns={})
    made = RolloutModel(Policy(expert), tmp_path, "required")([later, other])
    assert ["rollout" in one.output for one in made] == [False, False]


def test_only_a_metric_that_wants_it_lets_a_model_act_and_is_recorded_apart(tmp_path: Path) -> None:
    policy = Policy(expert)
    assert with_rollouts(policy, [example(1)], ["action_mae"], tmp_path, tmp_path) is policy
    assert rollout_identity("id", ["action_mae"]) == "id" != rollout_identity("id", ["success_rate"])


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("reech", Code.NOT_FOUND, "did you mean 'reach'"),
        ("os.system", Code.NOT_FOUND, "os.system"),
        ("gymnasium:Pendulum-v1", Code.MISSING_EXTRA, r"speciate\[simulators\]"),
    ],
)
def test_an_environment_that_is_not_there_is_refused_by_name(
    name: str, code: Code, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda library: None)
    with pytest.raises(SpeciateError, match=said) as caught:
        with_rollouts(Policy(expert), [example(1, name)], ["success_rate"], tmp_path, tmp_path)
    assert caught.value.code is code


def test_gymnasium_runs_in_a_sandbox_and_repeats_itself(tmp_path: Path) -> None:
    environments.check_environment(PENDULUM)
    first = outcomes(lambda row: (row[0],), [example(seed, PENDULUM) for seed in (1, 2)], tmp_path)
    again = outcomes(lambda row: (row[0],), [example(2, PENDULUM)], tmp_path)
    assert first[1] == again[0]
    assert first[0]["steps"] == 200
    assert first[0]["return"] < -100
    assert not list(tmp_path.glob("sandbox-*"))


def test_an_environment_that_does_not_exist_there_says_so(tmp_path: Path) -> None:
    with (
        open_simulators("gymnasium:NoSuchThing-v0", tmp_path, "required", look=False) as simulators,
        pytest.raises(SpeciateError, match="NoSuchThing"),
    ):
        simulators.begin([0])


def test_a_process_that_ends_is_named_with_what_ended_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying(SandboxClient):
        def __init__(self, *given: Any, **more: Any) -> None:
            super().__init__(*given, **more)
            self.interrupt()

    monkeypatch.setattr(simulators, "SandboxClient", Dying)
    with (
        open_simulators(PENDULUM, tmp_path, "required", look=False) as begun,
        pytest.raises(SpeciateError, match="SIGKILL ended it"),
    ):
        begun.begin([0])
