"""`speciate.load` of a folder that cannot answer: the person hears what the library said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import speciate
from speciate.errors import Code, SpeciateError
from tests.server.processes import Daemons


def test_an_error_of_a_folder_says_what_is_wrong_with_its_files(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\npipeline_tag: text-classification\n---\n")
    (tmp_path / "config.json").write_text('{"id2label": 3}')
    safetensors.numpy.save_file({"weight": np.zeros(2, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(SpeciateError) as refused:
        speciate.load(tmp_path)
    cause = refused.value.__cause__
    assert isinstance(cause, SpeciateError)
    assert cause.foreign
    assert cause.foreign in str(refused.value)


def test_a_folder_without_a_slash_is_told_beside_the_model_that_is_not_there(
    daemons: Daemons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = daemons.connect().workspace
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpeciateError, match="no model 'out', and there is a folder") as refused:
        speciate.load("out", workspace)
    assert (refused.value.code, refused.value.recovery) == (Code.NOT_FOUND, "To load what lies in it, write './out'.")
    with pytest.raises(SpeciateError, match="There is no model 'other'"):
        speciate.load("other", workspace)
