"""Plans that a policy makes while it acts: no more than it needs, and each once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from speciate.models.policies import acting
from speciate.models.policies.acting import Policy
from speciate.models.policies.policy_folder import read_policy

_CONFIG = {
    "input_features": {"observation.state": {"type": "STATE", "shape": [2]}},
    "output_features": {"action": {"type": "ACTION", "shape": [2]}},
}


class _Counting(Policy):
    """Without a network: a plan's actions count from 1."""

    def __init__(self, config: Any) -> None:
        self.config, self._plans, self.made = config, OrderedDict(), 0

    def plan(self, windows: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        self.made += len(windows)
        steps = np.arange(1, 1 + self.config.planned + self.config.horizon_start, dtype=np.float32)
        return [np.stack([steps, steps], 1) for _ in windows]


def _act(policy: _Counting, states: Any, steps: int) -> list[list[Any]]:
    """The last action at each step, by episode, as it is shown the steps that it asks for."""
    found = []
    for step in range(steps):
        first = policy.config.first_shown(step)
        times = (np.arange(first, step + 1) / 10).astype(np.float32)
        shown = [
            policy.look({"state": each[first : step + 1], "times": times, "cameras": {}, "about": {"fps": 10}})
            for each in states
        ]
        found.append([each[-1, 0] for each in policy.act(shown)])
    return found


def test_a_diffusion_policy_plans_once_for_each_look() -> None:
    policy = _Counting(read_policy({**_CONFIG, "type": "diffusion", "n_action_steps": 4}))
    states = np.random.default_rng(0).normal(size=(3, 17, 2)).astype(np.float32)
    acted = _act(policy, states, 17)
    assert policy.made == 3 * 5  # at 0, 4, 8, 12 and 16
    assert acted == [[1.0 + step % 4] * 3 for step in range(17)]


def test_plans_that_are_averaged_are_made_once_though_more_than_usual_are_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(acting, "_KEPT", 20)
    config = {**_CONFIG, "type": "act", "chunk_size": 10, "n_action_steps": 1, "temporal_ensemble_coeff": 0.01}
    policy = _Counting(read_policy(config))
    states = np.random.default_rng(0).normal(size=(6, 25, 2)).astype(np.float32)
    _act(policy, states, 25)
    assert policy.made == 6 * 25
    assert len(policy._plans) == 6 * 10


def test_a_plan_that_is_used_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting, "_KEPT", 10)
    config = {**_CONFIG, "type": "act", "chunk_size": 10, "n_action_steps": 10}
    policy = _Counting(read_policy(config))
    states = np.random.default_rng(0).normal(size=(30, 1, 2)).astype(np.float32)
    for each in states:
        _act(policy, [states[0]], 1)
        _act(policy, [each], 1)
    assert policy.made == 30
    monkeypatch.setattr(acting, "_MOST_NUMBERS", 60)  # of three plans
    _act(policy, states, 1)
    assert len(policy._plans) == 3
