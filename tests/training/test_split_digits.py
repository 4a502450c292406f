"""The known order on split digits: replay, DER and streaming LDA far above plain fine-tuning, EWC and LwF."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
SCRIPT = Path(__file__).parents[2] / "evals" / "reproduce_split_digits.py"
FAR = 40.0
"""Percent: of the published order the gap is above 60."""


def script() -> Any:
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[SCRIPT.stem] = module  # its named tuples look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_what_replays_is_far_above_what_does_not(tmp_path: Path) -> None:
    evals = script()
    last = {line.way.name: line.last for line in evals.reproduce(tmp_path, evals.WAYS, [0], 10)}
    forgetting = max(last[name] for name in ("naive", "ewc", "lwf"))
    keeping = {name: last[name] for name in ("replay", "der", "der++", "slda")}
    assert forgetting < 30, last  # two of ten
    assert min(keeping.values()) > forgetting + FAR, last
    assert last["der++"] >= last["replay"] - 2, last
    assert last["joint"] >= max(keeping.values()) - 2, last
