"""The notebook of the docs: its runner, and the whole way as it stands there."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
CELLS = runpy.run_path(str(DOCS / "cells.py"))

SMALL = """\
\"\"\"About the file.\"\"\"
# %% [markdown]
# # Title
#
# Words.

# %%
x = 2
print("two")
x * 3

# %%
y = x
"""


def test_a_cell_shows_what_it_prints_and_the_value_of_its_last_expression() -> None:
    assert CELLS["page"](SMALL) == (
        '# Title\n\nWords.\n\n```python\nx = 2\nprint("two")\nx * 3\n```\n\n```\ntwo\n6\n```\n\n```python\ny = x\n```\n'
    )


def test_the_page_has_the_cells_of_the_script() -> None:
    written = (DOCS / "first-model.md").read_text()
    for cell in CELLS["cells"]((DOCS / "first_model.py").read_text()):
        assert cell.text in written, "python docs/cells.py docs/first_model.py"


@pytest.mark.slow
def test_the_notebook_ends_with_a_model_in_production_that_answers_in_process() -> None:
    shown = CELLS["page"]((DOCS / "first_model.py").read_text())
    assert "('promote', 'tumour-model@v1')" in shown
    assert "('malignant', 'tumour-model@v1')" in shown
