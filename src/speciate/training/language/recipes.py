"""The methods that train language models, in one table: what is entered here is entered in specs.py, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from speciate.training.language import sft
from speciate.training.selection import Chosen
from speciate.training.study import Study

LANGUAGE_RECIPES: dict[str, Callable[[Study, Any], Chosen]] = {"sft": sft.fit}
