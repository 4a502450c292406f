"""A model of several estimators over several representations of each example, whose answers are averaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speciate.exports.standalone.classical import Classical
from speciate.models.blend import Blend


class Blended(Classical):
    """`predict(inputs)` gives an answer for each input."""

    def _estimator(self, estimator: Any, path: Path) -> Any:
        from safetensors.numpy import load_file

        return Blend.rebuild(load_file(path))
