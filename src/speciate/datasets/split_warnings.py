"""What the splits of a version lack: empty or uneven ones, few groups to test on, labels without a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from speciate.sample_size import more_of

FEW_UNITS = 20
"""Independent units of a test split below which hardly any comparison is settled."""
_LEAST, _MUCH = 1.5, 0.25
"""A split is uneven if it differs from its share by at least so many examples, and by this part of the share."""
_LARGER_TESTS = (0.3, 0.4, 0.5)
"""Shares that are offered where the usual test split has too few independent units."""
_NAMED, _LONGEST = 5, 40


def warnings_of_report(report: Mapping[str, Any], splits: Iterable[str] | None = None) -> list[str]:
    """The warnings of a version's report; none if it is older than such notes."""
    split = report.get("split", {})
    few = few_units_warnings(split) if splits is None or "test" in splits else []
    return [*few, *missing_label_warnings(split.get("missing_labels", ()), splits)]


def empty_split_warnings(
    sizes: Mapping[str, int], fractions: Mapping[str, float], audit: Mapping[str, Any], *, kept: bool = False
) -> tuple[str, ...]:
    """A warning if no example lies in a wanted split. `sizes`: usable examples of each split. `kept`: rows of an
    earlier version keep their splits."""
    lacking = fractions.keys() - sizes.keys()
    if not (names := [repr(name) for name, fraction in fractions.items() if fraction > 0 and name in lacking]):
        return ()
    message = f"No usable example lies in {' or '.join(names)}"
    if advice := _without_copies(audit):
        return (f"{message}: groups and near-duplicates stay together. {advice}",)
    if kept and int(audit.get("units") or 0) >= sum(fraction > 0 for fraction in fractions.values()):
        return (
            f"{message}: rows keep the split of the version before, and groups that lay in several of its splits went "
            "into one. A step {'op': 'split'} of curate_dataset deals all rows anew.",
        )
    return (f"{message}: groups and near-duplicates stay together, and there are too few of them.",)


def few_units_warnings(audit: Mapping[str, Any]) -> list[str]:
    """A warning where the test split has many rows, but few groups to tell models apart by."""
    rows, units = audit.get("test_rows", 0), audit.get("test_units", 0)
    if not 0 < units < FEW_UNITS or rows < 2 * units:
        return []
    every, groups = int(audit.get("units") or 0), int(audit.get("test_groups") or 0)
    joined = f", and equal or nearly equal rows join their {groups} named ones" if groups > units else ""
    told = f"The {rows} rows of 'test' lie in only {units} group(s)" + (f" of {every}" if every else "")
    ours = str(audit.get("made_by", "")).startswith("speciate")
    copies = _without_copies(audit)
    share = next((each for each in _LARGER_TESTS if each * every >= FEW_UNITS and each * every > 1.2 * units), None)
    advice = copies or (
        f"Test a larger share of them: fractions={_with_test(share)} in create_dataset, or in a step 'split'."
        if share and ours and not joined
        else f"Add rows of at least {more_of(FEW_UNITS - units, units, 'groups')} to it."
    )
    why = "rows of one group" if 0 < groups == units else "groups and near-duplicates"
    return [f"{told}, for {why} stay together{joined}: few verdicts can be reached on them. {advice}"]


def _without_copies(audit: Mapping[str, Any]) -> str:
    """The steps that part the named groups, where equal rows tie them together; else empty."""
    units = (audit.get("tied_groups") or {}).get("group_key")
    if not units:
        return ""
    return (
        f"{audit['copies']:,} rows repeat the content of another one and tie groups together: the steps {{'op': "
        "'deduplicate', 'by': 'content'} and {'op': 'split'} of curate_dataset keep one of each, which gives "
        f"{units:,} groups to split."
    )


def _with_test(share: float) -> dict[str, float]:
    """Fractions with this share of test examples, and a sixth of the rest for validation."""
    validation = round((1 - share) / 6, 2)
    return {"train": round(1 - share - validation, 2), "validation": validation, "test": share}


def missing_label_warnings(found: Sequence[Mapping[str, Any]], splits: Iterable[str] | None = None) -> list[str]:
    """A sentence for each label, five at most, and one that counts the rest. `splits`: only of these; None: of all."""
    wanted = None if splits is None else set(splits)
    concerned = [one for one in found if wanted is None or wanted & set(one["splits"])]
    warnings = []
    for one in concerned[:_NAMED]:
        lacking = [name for name in one["splits"] if wanted is None or name in wanted]
        what = ["no model can learn it"] if "train" in lacking else []
        if set(lacking) - {"train"}:
            what.append("accuracy, baselines and the test examples needed, as measured there, say nothing of it")
        warnings.append(
            f"No example labelled {_shorten_label(one['label'])} lies in {' or '.join(map(repr, lacking))}, for "
            f"{one['why']}: "
            f"{', and '.join(what)}."
        )
    if len(concerned) > _NAMED:
        warnings.append(
            f"{len(concerned) - _NAMED} further labels lack a split; describe_dataset names them in split_audit."
        )
    return warnings


def uneven_split_warnings(sizes: Mapping[str, int], fractions: Mapping[str, float]) -> list[str]:
    """A warning if the share of a split differs much from its fraction. `sizes`: usable examples of each split.

    An empty split has a warning of its own (`empty_split_warnings`), which explains the others.
    """
    total, whole = sum(sizes.values()), sum(fractions.values())
    shares = []
    if any(name not in sizes for name, fraction in fractions.items() if fraction > 0):
        return []
    for name, fraction in fractions.items():
        wanted, size = total * fraction / whole, sizes.get(name, 0)
        if abs(size - wanted) > max(_LEAST, _MUCH * wanted):
            shares.append(f"{name!r} has {size} ({size / total:.0%}) instead of {fraction / whole:.0%}")
    if not shares:
        return []
    return [f"Of {total} usable examples {', '.join(shares)}: groups and near-duplicates stay together."]


def _shorten_label(label: str) -> str:
    return repr(label if len(label) <= _LONGEST else f"{label[:_LONGEST]}...")
