"""Other labels for a published head: the rows of its last layers are laid anew by name.

With as many labels as before the shapes match, and the old rows would stand under new names. So rows are never taken by
shape. Tensors that depend on the labels are those whose shape differs between two empty models with n and n + 1 labels.
A label whose meaning is known keeps its row. A new label's row starts at zero, and its bias at zero or at the constant
that the architecture begins with, as detectors do: most places hold nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from speciate.errors import Code, SpeciateError
from speciate.models.published import label_map
from speciate.models.published.architectures import Adapter
from speciate.models.published.label_map import tag_stem

if TYPE_CHECKING:
    import torch

RowSources = Mapping[str, tuple[int, ...]]
"""Label -> places of the published labels that mean it; () of a new one."""


class RelabelledModule(NamedTuple):
    module: torch.nn.Module
    tensors: tuple[str, ...]
    """Parameters that depend on the labels."""


def row_sources(
    published: Sequence[str], wanted: Sequence[str], adapter: Adapter, table: Mapping[str, str] | None = None
) -> dict[str, tuple[int, ...]]:
    """Which published rows stand for each wanted label: by `table` (published label -> wanted), else by spelling and
    synonyms. Likeness never decides. Of tags the prefixes must agree, unless the wanted ones have none.

    >>> row_sources(["NEGATIVE", "POSITIVE"], ["bad", "good", "mixed"], "text-classification")
    {'bad': (0,), 'good': (1,), 'mixed': ()}
    """
    if adapter == "token-classification":
        return _tag_sources(published, wanted, table)
    pairs = label_map.decide(tuple(dict.fromkeys(published)), tuple(wanted), table).pairs
    return {label: tuple(place for place, name in enumerate(published) if pairs.get(name) == label) for label in wanted}


def kept_labels(sources: RowSources) -> list[str]:
    return [label for label, places in sources.items() if places]


def relabel(module: torch.nn.Module, sources: RowSources) -> RelabelledModule:
    """The network with the labels of `sources`, in their order. Every tensor that does not depend on the labels is the
    published one, to the bit. INVALID for a head whose rows are not one for each label."""
    import torch

    network: Any = module
    labels = tuple(sources)
    tensors = label_tensors(module)
    before = tuple(str(network.config.id2label[place]) for place in range(network.config.num_labels))
    if before == labels and all(places == (place,) for place, places in enumerate(sources.values())):
        return RelabelledModule(module, tensors)
    made: Any = type(network)(_with_labels(network.config, labels))
    old, new = dict(network.state_dict()), dict(made.state_dict())
    _check_same_names(old, new)
    of_labels = _names_of_labels(module)
    rows = {name: _rows(name, old[name], new[name], sources, len(before)) for name in of_labels.parameters}
    with torch.no_grad():
        for name, tensor in new.items():
            if name in rows:
                tensor.copy_(rows[name])
            elif name not in of_labels.buffers:
                tensor.copy_(old[name])
    made.generation_config = getattr(network, "generation_config", None)
    return RelabelledModule(made.eval(), tensors)


def label_tensors(module: torch.nn.Module) -> tuple[str, ...]:
    """Parameters whose shape the number of labels decides, each under its first name; () of a head without labels."""
    every = _names_of_labels(module).parameters
    return tuple(name for name, _ in module.named_parameters() if name in every)


class _NamesOfLabels(NamedTuple):
    parameters: frozenset[str]
    """Under all their names, as layers of a decoder may share one."""
    buffers: frozenset[str]
    """Weights of labels in a loss, say: they are as the architecture makes them."""


def _names_of_labels(module: torch.nn.Module) -> _NamesOfLabels:
    found: list[frozenset[str]] = []
    small, large = _empty(module, 0), _empty(module, 1)
    for one, other in (
        (small.named_parameters(remove_duplicate=False), large.named_parameters(remove_duplicate=False)),
        (small.named_buffers(remove_duplicate=False), large.named_buffers(remove_duplicate=False)),
    ):
        wide = {name: tuple(each.shape) for name, each in other}
        found.append(frozenset(name for name, each in one if wide.get(name) != tuple(each.shape)))
    return _NamesOfLabels(*found)


def _empty(module: Any, more: int) -> Any:
    """The network with so many more labels than it has, and without memory for weights."""
    import torch

    labels = [f"label {place}" for place in range(module.config.num_labels + more)]
    with torch.device("meta"):
        return type(module)(_with_labels(module.config, labels))


def _with_labels(config: Any, labels: Sequence[str]) -> Any:
    made = copy.deepcopy(config)
    made.num_labels = len(labels)  # timm's wrapper keeps a count of its own
    made.id2label = dict(enumerate(labels))
    made.label2id = {label: place for place, label in enumerate(labels)}
    if hasattr(made, "label_names"):
        made.label_names = list(labels)
    if hasattr(made, "num_classes"):
        made.num_classes = len(labels)
    return made


def _rows(name: str, old: torch.Tensor, fresh: torch.Tensor, sources: RowSources, before: int) -> torch.Tensor:
    """`fresh`: as the architecture starts it. A row beyond the labels ("no object") stands last, and is kept."""
    extra = fresh.shape[0] - len(sources)
    if extra not in (0, 1) or old.shape[0] != before + extra or old.shape[1:] != fresh.shape[1:]:
        raise SpeciateError(
            Code.INVALID,
            f"The head's tensor {name!r} has {old.shape[0]} rows for {before} labels: which row is which label's is "
            "not known.",
            "Call train_model again with hyperparameters={'head': 'new'}: a head of our own is put on its network.",
        )
    rows = fresh.clone()
    if rows.ndim > 1 or not bool((rows == rows[0]).all()):  # a bias that is drawn says nothing
        rows.zero_()
    for place, known in enumerate(sources.values()):
        if len(known) == 1:
            rows[place] = old[known[0]]
        elif known:
            rows[place] = old[list(known)].mean(0)
    if extra:
        rows[-1] = old[-1]
    return rows


def _check_same_names(old: Mapping[str, torch.Tensor], new: Mapping[str, torch.Tensor]) -> None:
    apart = sorted(set(old) ^ set(new))
    if apart:
        raise SpeciateError(
            Code.INVALID,
            f"With other labels this architecture has other weights: {', '.join(apart[:3])}.",
            "Call train_model again with hyperparameters={'head': 'new'}: a head of our own is put on its network.",
        )


def _tag_sources(
    published: Sequence[str], wanted: Sequence[str], table: Mapping[str, str] | None
) -> dict[str, tuple[int, ...]]:
    given = None if table is None else {tag_stem(name): tag_stem(label) for name, label in table.items()}
    stems, targets = (tuple(dict.fromkeys(map(tag_stem, each))) for each in (published, wanted))
    pairs = label_map.decide(stems, targets, given).pairs
    prefixed = any(label_map.has_prefix(tag) for tag in wanted)

    def means(name: str, tag: str) -> bool:
        same = pairs.get(tag_stem(name)) == tag_stem(tag)
        return same and (not prefixed or name[: -len(tag_stem(name))] == tag[: -len(tag_stem(tag))])

    return {tag: tuple(place for place, name in enumerate(published) if means(name, tag)) for tag in wanted}
