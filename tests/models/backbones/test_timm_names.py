"""Names of timm's networks are read from its source: those that timm itself has, and near ones for a misspelt name."""

from __future__ import annotations

import pytest

from speciate.errors import Code, SpeciateError
from speciate.models.backbones.timm_names import check_timm_name, timm_names

timm = pytest.importorskip("timm")


def test_the_names_are_those_that_timm_has() -> None:
    assert set(timm.list_models()) <= timm_names()
    assert all(timm.is_model(name) for name in timm_names())


@pytest.mark.parametrize("name", ["timm:resnet18", "timm:resnet18.a1_in1k", "timm:tv_resnet50"])
def test_a_name_with_a_tag_and_an_old_name_are_known(name: str) -> None:
    check_timm_name(name)


def test_a_misspelt_name_leads_to_near_ones() -> None:
    with pytest.raises(SpeciateError, match="no timm model 'resnett18'; did you mean 'resnet18'") as refused:
        check_timm_name("timm:resnett18")
    assert refused.value.code is Code.NOT_FOUND
