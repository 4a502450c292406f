"""What the report of a version says: the JSON that a run writes and the version's row keeps.

Stored names: a key that is renamed here would be missing in every report that was made before. A key is left out where
there is nothing to say, and older reports lack those of later times; so whoever reads one from the catalog takes it as
a mapping and asks for each key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict


class MissingLabel(TypedDict):
    """A label that some split lacks."""

    label: str
    examples: int
    splits: list[str]
    why: str


class Dealing(TypedDict, total=False):
    """How a split was made, which rows that are added later need."""

    made_by: str
    fractions: dict[str, float]
    seed: int


class SplitReport(Dealing, total=False):
    """What there is to say of a split."""

    without_split: int
    """Usable rows."""
    texts_across: dict[str, int]
    """Column -> how many of its texts lie in several splits."""
    possible_groups: dict[str, int]
    """Column that may say which rows belong together -> how many of its values lie in several splits."""
    groups_across: int
    identical_after_normalising_across: int
    near_duplicates_across: int | str
    """Or `splits.NOT_CHECKED`."""
    near_duplicates_not_checked: int
    """Examples."""
    label_drift: float
    test_rows: int
    test_units: int
    """Independent ones."""
    units: int
    """Independent ones of all splits."""
    test_groups: int
    """Groups that somebody named; more than units where equal rows join them."""
    copies: int
    """Rows whose content is another row's, where they tie groups together."""
    tied_groups: dict[str, int]
    """Column, or `group_key`, whose groups copies tie together -> how many units there would be without them."""
    highest_target: float | None
    smallest_difference: float | None
    highest_target_at_best: float | None
    near_duplicate_examples: list[list[str]]
    """Pairs of ids."""
    missing_labels: list[MissingLabel]
    telling_inputs: list[dict[str, str | float | int]]
    """Inputs that alone tell the label of the training split, each as `telling_inputs.TellingInput` has it."""
    coarse_copies: list[dict[str, str | int]]
    """Inputs that are a coarser form of the label, each as `telling_inputs.CoarseCopy` has it."""


class ForeignReport(TypedDict, total=False):
    """What quotes the source."""

    reasons: dict[str, int]
    """Why rows are not usable, the most frequent."""
    reasons_shown: str
    renamed: dict[str, str]
    notes: list[str]
    set_aside: dict[str, str]
    """Some refused items with their reasons."""


class StepReport(TypedDict):
    """What a step of a curation did, in rows of every quality."""

    op: str
    before: int
    after: int
    flagged_column: NotRequired[str]
    audit: NotRequired[Mapping[str, object]]
    """Other keys for each operation."""


class VersionReport(TypedDict, total=False):
    ok: int
    partial: int
    refused: int
    error: int
    untrusted: ForeignReport
    split: SplitReport
    set_aside: int
    set_aside_shown: str
    warnings: list[str]
    steps: Sequence[StepReport]
    added: int
    already_there: int
    dropped_before: int
    label_conflicts: int
