"""Names of timm's networks, read from its source as text: its import takes torch along, which a plan has not.

A name may carry a tag after a dot, `resnet18.a1_in1k`, which says whose weights; what tags there are the network's own
code knows.
"""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path

from speciate.errors import Code, SpeciateError, unknown

_REGISTERED = re.compile(r"^@register_model\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
_DEPRECATED = re.compile(r"register_model_deprecations\(__name__, \{(.*?)\n\}\)", re.DOTALL)
_OLD_NAME = re.compile(r"^\s*['\"](\w+)['\"]\s*:", re.MULTILINE)


@cache
def timm_names() -> frozenset[str]:
    """Empty where timm is not installed."""
    found = importlib.util.find_spec("timm")
    if found is None or found.origin is None:
        return frozenset()
    names = set[str]()
    for file in sorted((Path(found.origin).parent / "models").glob("*.py")):
        text = file.read_text(errors="replace")
        names |= {*_REGISTERED.findall(text)}
        names |= {name for block in _DEPRECATED.findall(text) for name in _OLD_NAME.findall(block)}
    return frozenset(names)


def check_timm_name(base_model: str) -> None:
    """`timm:NAME`. MISSING_EXTRA without timm, NOT_FOUND with near names."""
    name = base_model.removeprefix("timm:").partition(".")[0]
    if importlib.util.find_spec("timm") is None:
        raise SpeciateError(
            Code.MISSING_EXTRA, "The library timm is not installed.", "Run: pip install 'speciate[vision]'"
        )
    if name not in timm_names():
        raise unknown(
            "timm model", name, timm_names(), "Call again with a name that timm has: search_models(sources=['timm'])."
        )
