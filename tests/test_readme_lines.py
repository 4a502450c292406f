"""The first lines of the README lead a newcomer to a promoted model."""

from __future__ import annotations

import subprocess
import sys

import pytest

from evals.readme_lines import ROOT, first_lines


def test_the_first_block_begins_with_a_workspace_and_ends_with_an_answer() -> None:
    lines = first_lines((ROOT / "README.md").read_text())
    assert [line.split()[1] for line in lines] == ["init", "call", "call", "call", "call"]
    assert [line.split()[2] for line in lines[1:]] == ["create_dataset", "define_use_case", "specialize", "predict"]
    with pytest.raises(ValueError, match="no block"):
        first_lines("```sh\nmake demo\n```\n")


@pytest.mark.slow
def test_the_first_lines_bring_a_model_into_production_that_answers() -> None:
    command = [sys.executable, "-m", "evals.readme_lines"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
