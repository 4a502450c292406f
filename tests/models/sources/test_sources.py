"""Each source that is installed here, read for real."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from speciate import vocabulary
from speciate.models import sources
from speciate.models.sources.literals import calls
from speciate.refs import model_ref


@pytest.mark.parametrize("name", sorted(sources.SOURCES))
def test_a_source_tells_what_makes_sense_and_the_same_each_time(name: str) -> None:
    source = sources.find(name)
    if not source.installed():
        pytest.skip(f"{source.package} is not installed")
    entries = list(source.entries())
    assert entries == list(source.entries())
    assert entries
    for entry in entries:
        assert str(model_ref(entry.ref)) == entry.ref
        assert set(entry.tasks) <= set(vocabulary.TASKS)
        assert entry.parameters is None or entry.parameters > 0
    assert len(source.origin()) < 64


def test_code_that_publishes_models_is_read_and_not_run(tmp_path: Path) -> None:
    file = tmp_path / "models.py"
    file.write_text(
        "import sys\nsys.exit('it ran')\nNAME = 'org/one'\n"
        "a = ModelMeta(name=NAME, n_parameters=1_000, loader=build(), license=None)\n"
        "b = other.ModelMeta(name='org/two', languages=['eng'] )\n"
    )
    assert list(calls(file, "ModelMeta")) == [
        {"name": "org/one", "n_parameters": 1000},
        {"name": "org/two", "languages": ["eng"]},
    ]
    assert "models" not in sys.modules
    file.write_text("def (")
    assert list(calls(file, "ModelMeta")) == []
