"""Labels that a split lacks, and shares of a split that are not what was asked for: what no figure of that split tells.

Examples that belong together stay together, so a class whose examples are all alike lies in one split, and whatever is
measured in the others (accuracy, baselines, how many further test examples are needed) says nothing of it. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from speciate.datasets.columns import FINGERPRINT
from speciate.datasets.split import Members, components

_KEPT, _NAMED, _LONGEST = 50, 5, 40
_LEAST, _MUCH = 1.5, 0.25
"""A split differs much from its share by as many examples at least, and by this part of what it should have."""

_Places = npt.NDArray[np.intp]


def missing(rows: pa.Table, members: Members, *, made: bool) -> list[dict[str, Any]]:
    """`{label, examples, splits, why}` of labels that some split lacks, the commonest first, at most 50. `rows`: usable
    ones, as `members` has them. `made`: whether the split was made here.

    Numbers are no classes, nor are texts most of which occur once.
    """
    label = rows["label"]
    if pa.types.is_floating(label.type):
        return []
    labels, splits = label.cast(pa.string()).to_pylist(), rows["split"].to_pylist()
    counts = Counter(each for each in labels if each is not None)
    there = dict.fromkeys(name for name in ("train", "validation", "test") if name in set(splits))
    if len(there) < 2 or 2 * sum(count == 1 for count in counts.values()) > counts.total():
        return []
    both = set(zip(labels, splits, strict=True))
    lacking = {each: [name for name in there if (each, name) not in both] for each in counts}
    found = sorted((each for each in counts if lacking[each]), key=lambda each: (-counts[each], each))
    component = components(members) if found and made else np.zeros(0, np.int64)
    said = []
    for each in found[:_KEPT]:
        places = np.array([place for place, other in enumerate(labels) if other == each])
        why = _why(rows, members, component, places, len(there)) if made else "the source's own split has it so"
        said.append({"label": each, "examples": counts[each], "splits": lacking[each], "why": why})
    return said


def warnings(found: Sequence[Mapping[str, Any]], splits: Iterable[str] | None = None) -> list[str]:
    """A sentence for each label, five at most, and one that counts the rest. `splits`: only of these; None: of all."""
    wanted = None if splits is None else set(splits)
    concerned = [one for one in found if wanted is None or wanted & set(one["splits"])]
    said = []
    for one in concerned[:_NAMED]:
        lacking = [name for name in one["splits"] if wanted is None or name in wanted]
        what = ["no model can learn it"] if "train" in lacking else []
        if set(lacking) - {"train"}:
            what.append("accuracy, baselines and the test examples needed, as measured there, say nothing of it")
        said.append(
            f"No example labelled {_short(one['label'])} lies in {' or '.join(map(repr, lacking))}, for {one['why']}: "
            f"{', and '.join(what)}."
        )
    if len(concerned) > _NAMED:
        said.append(
            f"{len(concerned) - _NAMED} further labels lack a split; describe_dataset names them in split_audit."
        )
    return said


def of_report(report: Mapping[str, Any], splits: Iterable[str] | None = None) -> list[str]:
    """The same of a version's report; nothing where it is from before such labels were noted."""
    return warnings(report.get("split", {}).get("missing_labels", ()), splits)


def uneven(splits: Iterable[str | None], fractions: Mapping[str, float]) -> list[str]:
    """A warning, where the share of a split differs much from what was asked for; an empty one has a warning of its own
    (`splitting.empty_splits`), which explains the others."""
    sizes = Counter(name for name in splits if name is not None)
    total, whole = sizes.total(), sum(fractions.values())
    said = []
    if any(not sizes[name] for name, fraction in fractions.items() if fraction > 0):
        return []
    for name, fraction in fractions.items():
        wanted = total * fraction / whole
        if abs(sizes[name] - wanted) > max(_LEAST, _MUCH * wanted):
            said.append(f"{name!r} has {sizes[name]} ({sizes[name] / total:.0%}) instead of {fraction / whole:.0%}")
    if not said:
        return []
    return [f"Of {total} usable examples {', '.join(said)}: groups and near-duplicates stay together."]


def _why(rows: pa.Table, members: Members, component: npt.NDArray[np.int64], places: _Places, splits: int) -> str:
    count, together = len(places), len(np.unique(component[places]))
    if count == 1:
        return "it is the only one"
    if together == 1:
        return f"its {count} examples {_alike(rows.take(pa.array(places)), members, places)}"
    if together < splits:
        stay = f", of which {together} sets stay together as groups or near-duplicates" if together < count else ""
        return f"it has {count} examples{stay}"
    return f"the shares left none of its {count} examples, in {together} sets that stay together"


def _alike(rows: pa.Table, members: Members, places: _Places) -> str:
    group = rows["group_key"]
    if not group.null_count and len(group.unique()) == 1:
        return "are of one group"
    if len(rows[FINGERPRINT].unique()) == 1:
        return "are identical"
    near = np.isin(members.pairs, places).all(axis=1).any() if len(members.pairs) else False
    return "are near-duplicates of one another and stay together" if near else "stay together as groups or copies"


def _short(label: str) -> str:
    return repr(label if len(label) <= _LONGEST else f"{label[:_LONGEST]}...")
