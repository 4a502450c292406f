"""The README.md of an exported model: the card of production/model_card.py below the YAML front matter that the hub
reads, and the lines of Python that load it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from speciate import hub
from speciate.models.backbones.shared import ABOUT_HEAD, HEAD, Written
from speciate.models.card import Card
from speciate.vocabulary import TASKS

_METRICS_SHOWN = 20
_POOLED = {
    "mean": 'mask = batch["attention_mask"].unsqueeze(-1)\npooled = (states * mask).sum(1) / mask.sum(1)',
    "first": "pooled = states[:, 0]",
    "max": 'mask = batch["attention_mask"].unsqueeze(-1)\npooled = states.masked_fill(mask == 0, -1e9).amax(1)',
    "patches": "pooled = states[:, 1:].mean(1)  # of the patches, without the class token",
}
_PREPARED = {
    "text": ("AutoTokenizer", 'batch = prepare(["a text"], padding=True, truncation=True, return_tensors="pt")'),
    "protein": ("AutoTokenizer", 'batch = prepare(["MKTAYIAK"], padding=True, truncation=True, return_tensors="pt")'),
    "image": ("AutoImageProcessor", 'batch = prepare([picture], return_tensors="pt")  # a picture of Pillow, in RGB'),
}
_LINEAR = ("classification", "multi-label", "regression")
"""Families whose head is one layer over the pooled states."""


def text(card: Card, body: str, written: Written, evaluations: Sequence[dict[str, Any]] = ()) -> str:
    """`body`: the card as Markdown; `evaluations`: measured values for the front matter, as `model-index` has them."""
    parts = [_front_matter(card, written, evaluations), body.rstrip(), "", "## Loading it", ""]
    parts += [*written.notes, ""]
    if written.form == "transformers" and card.modality in _PREPARED:
        parts += ["```python", _program(card, written), "```", ""]
    return "\n".join(parts)


def _front_matter(card: Card, written: Written, evaluations: Sequence[dict[str, Any]]) -> str:
    """Scalars as JSON, which YAML contains: no name can mean anything else in it."""
    lines = ["---", f"library_name: {'speciate' if written.form == 'sealed' else 'transformers'}"]
    lines += _license(card.license)
    if card.task in TASKS:
        lines.append(f"pipeline_tag: {_quoted(card.task)}")
    if (base := _base(card)) is not None:
        lines.append(f"base_model: {_quoted(base)}")
    lines += ["tags:", "- speciate", *([f"- {_quoted(card.modality)}"] if card.modality else [])]
    if evaluations:
        index = [{"name": card.ref, "results": list(evaluations[:_METRICS_SHOWN])}]
        lines.append(f"model-index: {json.dumps(index, ensure_ascii=False)}")
    return "\n".join([*lines, "---", ""])


def _license(license: str | None) -> list[str]:  # noqa: A002 - as cards call it
    """The hub writes SPDX ids in small letters, and has names of its own for none of the others."""
    if license is None:
        return []
    if license.startswith("LicenseRef-") or " " in license:
        return ["license: other", f"license_name: {_quoted(license)}"]
    return [f"license: {_quoted(license.lower())}"]


def _base(card: Card) -> str | None:
    """On the hub, as far as it is from there."""
    said = str(card.recipe.get("repository") or (card.base_model or "").removeprefix("hf:").partition("@")[0])
    return said if hub.is_repository(said) else None


def _program(card: Card, written: Written) -> str:
    kind, prepared = _PREPARED[str(card.modality)]
    lines = [
        "import torch",
        f"from transformers import AutoModel, {kind}",
        "",
        'folder = "."  # where this file lies',
        f"prepare = {kind}.from_pretrained(folder)",
        "model = AutoModel.from_pretrained(folder).eval()",
        prepared,
        "with torch.no_grad():",
        "    states = model(**batch).last_hidden_state",
    ]
    if written.pooling in _POOLED:
        lines += _POOLED[written.pooling].splitlines()
        if HEAD in written.files:
            lines += _of_the_head()
    return "\n".join(lines)


def _of_the_head() -> list[str]:
    return [
        "",
        "import json",
        "from pathlib import Path",
        "from safetensors.torch import load_file",
        "",
        f'about = json.loads((Path(folder) / "{ABOUT_HEAD}").read_text())["readout"]',
        f'head = load_file(Path(folder) / "{HEAD}")',
        f'if about["family"] in {_LINEAR!r}:',
        '    logits = pooled @ head["weight"].T + head["bias"]',
        'if about["family"] == "classification":',
        '    chances = (logits.double() / about["temperature"]).softmax(-1)',
        '    answers = [about["labels"][place] for place in chances.argmax(-1)]',
    ]


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
