"""The rule of `regex`, which runs in a cage: a pattern may take time without end on a text made for it."""

from __future__ import annotations

import re
from typing import Any

from speciate.training.language.rewards.rules_cage import Rule


def rule(spec: dict[str, Any]) -> Rule:
    wanted = re.compile(spec["pattern"])
    return lambda answer, truth, cell: float(wanted.fullmatch(answer) is not None)
