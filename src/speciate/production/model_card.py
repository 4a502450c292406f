"""The card of a model version as Markdown, from facts alone: what made it, how good it was found, what is not known.

The sections are those of Mitchell et al. 2019 ("Model Cards for Model Reporting"), as far as anything is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from speciate.models.card import Card

if TYPE_CHECKING:
    from speciate.production.dossier import Judged

_UNKNOWN = "not known"
_OBLIGATIONS = {
    "Apache-2.0": "Keep the licence and notices; say what was changed.",
    "MIT": "Keep the licence and the notice.",
    "BSD-3-Clause": "Keep the licence and the notice; do not use the makers' names to promote.",
    "CC-BY-4.0": "Name the makers and what was changed.",
    "CC-BY-SA-4.0": "Name the makers; what is made from it goes on under the same licence.",
    "CC-BY-NC-4.0": "Not for commercial use; name the makers.",
    "CC-BY-NC-SA-4.0": "Not for commercial use; name the makers; pass on under the same licence.",
    "GPL-3.0-only": "What is made from it and given away goes on under the same licence, with its source.",
    "AGPL-3.0-only": "As the GPL, also for what is only served.",
    "LicenseRef-gemma": "Its own terms of use hold, also for what is made from it.",
    "LicenseRef-llama3": "Its own terms hold; name it in what is made from it.",
}
"""In a sentence; no legal advice."""


def text(card: Card, evaluations: Sequence[Judged], lineage: Sequence[str], source: str) -> str:
    lines = [f"# {card.ref}", "", "## What it is", ""]
    facts = {
        "task": card.task, "reads": card.modality, "method": card.method, "made from": card.base_model,
        "learned numbers": f"{card.parameters:,}" if card.parameters is not None else None,
        "bytes": f"{card.bytes:,}" if card.bytes is not None else None, "source": source,
        "trained for": card.use_case, "id (sha256)": card.id or None,
    }  # fmt: skip
    lines += [f"- {name}: {value}" for name, value in facts.items() if value is not None]
    lines += ["", "## How good it was found", ""]
    lines += [_line(each) for each in evaluations] or ["No evaluation here holds it: evaluate_models makes one."]
    if card.metrics:
        said = ", ".join(f"{name} {value:.4g}" for name, value in sorted(card.metrics.items()))
        lines += ["", f"On the data that chose it, so slightly optimistic: {said}."]
    if record := card.recipe.get("export"):
        lines += ["", "## What its export was measured by", "", *_export(record)]
    lines += ["", "## What it learned from", ""]
    lines += [f"- {each}" for each in lineage] or [f"Its data are {_UNKNOWN} here."]
    lines += ["", "## Licence", "", _license(card)]
    lines += ["", "## Intended use and limits", "", *_limits(card)]
    return "\n".join(lines) + "\n"


def _export(record: Mapping[str, Any]) -> list[str]:
    said = f"- Made from {record['parent']}; {record['how']}."
    return [said, *(f"- {gate['name']}: {gate['outcome']}, {gate['reason']}" for gate in record["gates"])]


def _line(found: Judged) -> str:
    value = "no value" if found.value is None else f"{found.value:.4g}"
    interval = f" (95 %: {found.interval[0]:.4g} to {found.interval[1]:.4g})" if found.interval else ""
    return f"- {found.metric} {value}{interval} on {found.n} examples of {found.dataset}, {found.evaluation}"


def _license(card: Card) -> str:
    if card.license is None:
        return f"The licence is {_UNKNOWN}. Where a licence is wanted, that counts as none."
    return f"{card.license}. {_OBLIGATIONS.get(card.license, 'Read its terms before use.')}"


def _own(parts: Sequence[str]) -> str:
    """NAME.MODALITY as users call it."""
    return ", ".join(name.rpartition(".")[0] for name in parts)


def _limits(card: Card) -> list[str]:
    said = []
    if card.labels:
        shown = ", ".join(card.labels[:20]) + (" ..." if len(card.labels) > 20 else "")
        said.append(f"- It answers with one of {len(card.labels)} labels ({shown}), whatever it is shown.")
    if card.inputs:
        said.append(f"- It needs {', '.join(card.inputs)} of each example.")
    if card.parts:
        beside = (
            f"; what else a row may bring ({_own(card.ignored_parts)}) is passed over" if card.ignored_parts else ""
        )
        said.append(f"- Of a row it reads {_own(card.parts)}{beside}.")
    if card.dataset:
        said.append(f"- It is judged for data like {card.dataset}; for other data nothing is known.")
    else:
        said.append("- Nothing was measured here on data of yours, unless the list above says so.")
    return said
