"""The audit with its head checked, and the settings, which pages show and never change."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from pydantic import BaseModel

from speciate.governance import approval_keys, authorization
from speciate.governance import audit as rows
from speciate.server.web.visit import Visit
from speciate.settings import Settings

_PAGE, _REQUESTS = 100, 300
_OF_SETTINGS = frozenset({"settings", "differences", "roots", "private_hosts", "executors", "trust"})
"""Keys of evidence that hold what stands in settings.toml: folders, hosts and clusters of this machine."""
_OF_DEPOTS = ("allow", "disallow", "send")
HIDDEN = "for who may see settings"
_TERMINAL = {
    "policy": "speciate policy auto | person", "policies": "speciate policy person --use-case NAME",
    "private_hosts": "speciate hosts add HOST", "roots": "edit settings.toml, then: speciate policy --confirm",
    "cage": "edit settings.toml, then: speciate policy --confirm",
    "trust": "edit settings.toml, then: speciate policy --confirm",
}  # fmt: skip


def audit(visit: Visit) -> Mapping[str, object]:
    use_case = visit.asked("use_case")
    found = [_row(visit, row) for row in rows.newest(visit.database, use_case, _PAGE)]
    verdict = rows.verify(visit.database)
    return {
        "title": "Audit", "use_case": use_case, "verdict": verdict, "page": _PAGE,
        "rows": [(row, _evidence(visit, row)) for row in found],
    }  # fmt: skip


def _row(visit: Visit, row: rows.Row) -> rows.Row:
    """A row without the depot of a place, which what was allowed or sent may name: other hosts hold no `/`."""
    if visit.may("INSPECT") or row.action not in _OF_DEPOTS:
        return row
    return row._replace(before=_without_depot(row.before), after=_without_depot(row.after))


def _without_depot(told: str | None) -> str | None:
    datasets, to, host = (told or "").partition(" to ")
    return f"{datasets}{to}{HIDDEN}" if "/" in host else told


def _evidence(visit: Visit, row: rows.Row) -> Mapping[str, object]:
    found = approval_keys.evidence_of(row)
    return found if visit.may("INSPECT") else {name: without_settings(found[name], name) for name in found}


def without_settings(value: object, name: str = "") -> object:
    """Evidence as it is shown to who may not see settings."""
    if name in _OF_SETTINGS or (name == "host" and "/" in str(value)):
        return HIDDEN
    if isinstance(value, Mapping):
        return {inner: without_settings(each, str(inner)) for inner, each in value.items()}
    return [without_settings(each) for each in value] if isinstance(value, list) else value


def requests(visit: Visit) -> Mapping[str, object]:
    """Who asked for what over the network."""
    return {"title": "Requests", "requests": visit.parts.requests.newest(_REQUESTS)}


def settings(visit: Visit) -> Mapping[str, object]:
    authority = authorization.authority_of(visit.app.workspace)
    in_force = authority.settings()
    return {
        "title": "Settings", "settings": _shown(in_force), "worth": authority.sentence(),
        "problems": authority.problems, "keys": sorted(authority.keys.values(), key=lambda key: key.name),
        "folder": str(visit.app.workspace.folders.root), "terminal": _TERMINAL,
    }  # fmt: skip


@functools.cache
def descriptions() -> Mapping[str, str]:
    """Setting -> what it does: the string below its field, which Python drops; the first line of a section's class."""
    [body] = [
        node.body for node in ast.parse(inspect.getsource(Settings)).body if isinstance(node, ast.ClassDef)
    ]  # fmt: skip
    found = {
        name: (field.annotation.__doc__ or "").strip().partition("\n")[0]
        for name, field in Settings.model_fields.items()
        if inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel)
    }
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(text.value.value).split()).replace("`", "")
    return found


class ShownSetting(NamedTuple):
    name: str
    value: Any
    default: bool
    """Whether that is its default."""
    told: str
    """What it does."""


def _shown(in_force: Settings) -> list[ShownSetting]:
    default, told = Settings(), descriptions()
    return [
        ShownSetting(
            name,
            value,
            value == getattr(default, name, None) or value == default.model_dump(mode="json")[name],
            told.get(name, ""),
        )
        for name, value in in_force.model_dump(mode="json").items()
    ]
