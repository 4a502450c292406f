"""The network in a folder, with its weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from speciate.models.backbones import exported


def read_backbone(folder: Path, rebuild: Callable[..., Any]) -> Any:
    from safetensors.torch import load_file

    backbone = rebuild(_settings(folder), folder)
    backbone.module.load_state_dict(load_file(folder / "backbone.safetensors"), strict=True)
    backbone.module.eval().requires_grad_(False)
    return backbone


def read_exported_backbone(folder: Path, rebuild: Callable[..., Any]) -> Any:
    """The backbone of a model whose network is a file of onnxruntime or OpenVINO."""
    return exported.load(_settings(folder), folder, rebuild)


def _settings(folder: Path) -> Any:
    return json.loads((folder / "backbone.json").read_text(encoding="utf-8"))
