"""Whether an export may carry an alias: by what it showed itself. Its parent's decisions say nothing of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speciate.models.card import EXPORT, Card
from speciate.workspace.database import Transaction

_CARD = "SELECT card FROM model_versions WHERE name = ? AND version = ?"
_GATES = {"reload", "parity", "metric", "latency", "size"}


def lacking(tx: Transaction, ref: str) -> list[str]:
    """Why this version, `name@v3`, may not be promoted as the export that it is; empty for all else."""
    name, _, version = ref.partition("@v")
    rows = tx.execute(_CARD, [name, int(version)]) if version.isdecimal() else []
    return objections(Card.model_validate_json(rows[0][0])) if rows else []


def objections(card: Card) -> list[str]:
    if card.method != EXPORT:
        return []
    record: Mapping[str, Any] = card.recipe.get("export") or {}
    outcomes = {gate["name"]: gate["outcome"] for gate in record.get("gates", ())}
    missed = sorted(name for name in _GATES if outcomes.get(name) != "pass")
    if not missed:
        return []
    return [
        f"{card.ref} is an export, and its record does not show that these gates held: {', '.join(missed)}. Call "
        f"export_model(model={record.get('parent', 'NAME')!r}, ...) again."
    ]
