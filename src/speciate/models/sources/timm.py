"""Image encoders and classifiers of timm: every set of pretrained weights that it names.

The package tells neither sizes nor how good weights are. Sizes are counted on networks without memory (torch's device
`meta`), which takes minutes for all, so whoever builds an index brings those that are known already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from speciate.models.licenses import spdx
from speciate.models.sources.contract import Entry, Packaged


class Timm(Packaged):
    name, what, package = "timm", "image encoders and classifiers with weights on the Hugging Face hub", "timm"

    def entries(self) -> Iterator[Entry]:
        from timm.models import get_pretrained_cfg, list_pretrained

        for name in sorted(list_pretrained()):
            config = get_pretrained_cfg(name)
            if config is None:
                continue
            architecture, _, tag = name.partition(".")
            tasks = ("image-classification",) if config.num_classes and "in1k" in tag else ()
            yield Entry(
                ref=f"timm:{name}",
                what=f"{architecture} {tag} {config.description or ''} {config.notes or ''}".strip(),
                access="weights",
                tasks=(*tasks, "feature-extraction"),
                modalities=("image",),
                license=spdx(config.license),
                hub=config.hf_hub_id.partition("@")[0] if config.hf_hub_id else None,
            )


def parameters(names: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """(architecture, learned numbers) of those that `names` lacks."""
    import timm
    import torch
    from timm.models import list_models

    for architecture in list_models():
        if architecture in names:
            continue
        try:
            with torch.device("meta"):
                network = timm.create_model(architecture, pretrained=False)
        except Exception:  # noqa: BLE001 - some need libraries or arguments of their own: then it stays unknown
            continue
        yield architecture, sum(weights.numel() for weights in network.parameters())


SOURCE = Timm()
