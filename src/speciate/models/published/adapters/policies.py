"""Published policies of robots: the action at each step of an episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from speciate.models.policies.acting import Policy
from speciate.models.published.published_model import PublishedModel, RawAnswer

_DECIMALS = 6


def act(model: PublishedModel, episodes: Sequence[Any]) -> list[RawAnswer]:
    """`{actions: [T][A]}` for each. Raises ValueError for an episode of another robot."""
    policy: Policy = model.processor
    found = policy.act([policy.look(each) for each in episodes])
    return [RawAnswer({"actions": each.astype(float).round(_DECIMALS).tolist()}) for each in found]
