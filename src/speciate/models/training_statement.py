"""What is said of what a model of others learned from: by its card, or by whoever registered it. It is never proof.

Nobody here has seen that training. So a statement can speak against a model (it names the very examples), and it can
tell a person what to think; it cannot show that some examples were not there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from speciate import foreign_files
from speciate.errors import Code, SpeciateError

STATEMENT = "training_statement.json"
"""In the folder of a version that was registered with a statement: the same weights with another one are another
version."""
_NAME = re.compile(r"[\w][\w.\-/@:+ ]{0,99}", re.ASCII)
_DAY = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")
_FRONT = re.compile(r"\A---\r?\n(.*?)\r?\n---", re.DOTALL)
_LISTED = re.compile(
    r"^datasets:[ \t]*(?:\[(?P<line>[^\]\n]*)\]|(?P<items>(?:\r?\n[ \t]*-[ \t]*\S[^\n]*)+))", re.MULTILINE
)
_LONGEST_README = 1_000_000  # bytes
_MOST, _SHOWN = 50, 4


class TrainingStatement(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    card: tuple[str, ...] = Field((), description="Datasets that its publisher's card names.")
    trained_on: tuple[str, ...] = Field((), description="What whoever registered it says that it learned from.")
    until: str | None = Field(None, description="Nothing that it learned from is said to be later.")
    shared: tuple[str, ...] = Field((), description="Of these, where the examples themselves come from.")

    @property
    def named(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.trained_on, *self.card)))

    def sentence(self) -> str:
        """What is stated, as the end of a sentence; empty where nothing is."""
        parts = []
        if self.card:
            parts.append(f"its card names {_listed(self.card)}")
        if self.trained_on:
            parts.append(f"whoever registered it names {_listed(self.trained_on)}")
        if self.until:
            parts.append(f"nothing later than {self.until} is said to be in it")
        if self.shared:
            parts.append(f"these examples come from {_listed(self.shared)}, too")
        return "; ".join(parts)


def of_card(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Datasets that the front matter of a README names."""
    named = metadata.get("datasets")
    return _names([named] if isinstance(named, str) else named if isinstance(named, list) else [])


def of_readme(readme: Path) -> tuple[str, ...]:
    """`of_card`, without a library that reads YAML. Empty where there is none that can be read."""
    try:
        text = foreign_files.read(readme, _LONGEST_README).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ()
    front = _FRONT.match(text)
    found = _LISTED.search(front[1]) if front else None
    if found is None:
        return ()
    listed = found["line"].split(",") if found["line"] is not None else found["items"].split("\n")
    return _names([re.sub(r"^[ \t]*-", "", each).strip().strip("'\"") for each in listed])


def check(trained_on: Sequence[str], until: str | None) -> None:
    """Raise INVALID for a statement of a form that nothing can be compared with."""
    for name in trained_on:
        if _NAME.fullmatch(name) is None:
            raise SpeciateError(
                Code.INVALID,
                f"{name[:100]!r} is no name of a dataset.",
                "Name datasets of this workspace, as 'reviews' or 'reviews@v2', or of the hub, as 'org/name'.",
            )
    if until is not None and _DAY.fullmatch(until) is None:
        raise SpeciateError(
            Code.INVALID, f"{until[:40]!r} is no date.", "Write it as '2024', '2024-06' or '2024-06-30'."
        )


def write(folder: Path, trained_on: Sequence[str], until: str | None) -> None:
    """Nothing where nothing is stated."""
    if trained_on or until:
        (folder / STATEMENT).write_text(json.dumps({"trained_on": list(trained_on), "until": until}, indent=1))


def source_name(name: str) -> str:
    """`hf:org/name@main` and `org/name` are one."""
    return name.partition(":")[2].partition("@")[0].lower() if ":" in name else name.partition("@")[0].lower()


def _names(listed: Sequence[Any]) -> tuple[str, ...]:
    found = [each for each in listed if isinstance(each, str) and _NAME.fullmatch(each)]
    return tuple(dict.fromkeys(found))[:_MOST]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
