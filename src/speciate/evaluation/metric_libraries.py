"""Which libraries metrics need, and how to install them. A missing one takes its own metrics away and no others."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

from speciate.errors import Code, SpeciateError
from speciate.vocabulary import Metric

INSTALL = "pip install 'speciate[metrics]'"


def lacks_library(metric: Metric) -> bool:
    return metric.library is not None and importlib.util.find_spec(metric.library) is None


def check_libraries(metrics: Iterable[Metric]) -> None:
    """MISSING_EXTRA where one of them cannot be computed with what is installed."""
    for metric in metrics:
        if metric.library and lacks_library(metric):
            raise missing_library(metric.library)


def missing_library(library: str) -> SpeciateError:
    return SpeciateError(Code.MISSING_EXTRA, f"The library {library} is not installed.", f"Run: {INSTALL}")
