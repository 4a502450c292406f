"""Each source that is installed here, read for real."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import pytest

from speciate import vocabulary
from speciate.errors import SpeciateError
from speciate.models.search import sources
from speciate.models.search.package_sources import literal_calls
from speciate.refs import model_ref
from tests.models.hub_server import serving


@pytest.mark.parametrize("name", sorted(set(sources.SOURCES) - {"hub"}))
def test_a_source_tells_what_makes_sense_and_the_same_each_time(name: str) -> None:
    source = sources.find(name)
    if not source.installed():
        pytest.skip(f"{source.package} is not installed")
    entries = list(source.entries())
    assert entries[:50] == list(islice(source.entries(), 50))
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
    assert list(literal_calls(file, "ModelMeta")) == [
        {"name": "org/one", "n_parameters": 1000},
        {"name": "org/two", "languages": ["eng"]},
    ]
    assert "models" not in sys.modules
    file.write_text("def (")
    assert list(literal_calls(file, "ModelMeta")) == []


def test_the_hub_is_listed_page_by_page_with_what_each_card_says(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    with serving({f"org/m{i}": {"model.safetensors": b""} for i in range(5)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        found = list(sources.find("hub").entries())
        assert [entry.ref for entry in found] == [f"hf:org/m{i}" for i in range(5)]
        assert len([line for line in hub.asked if "/api/models" in line]) == 3
        first = found[0]
        assert (first.license, first.parameters, first.downloads) == ("Apache-2.0", 12, 7)
        assert (first.tasks, first.modalities, first.base_model) == (
            ("text-classification",),
            ("text",),
            "hf:org/parent",
        )
        assert sources.find("hub").origin() == hub.endpoint.removeprefix("http://")


def test_how_a_model_was_made_from_another_comes_from_the_field_the_tags_or_the_card(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("huggingface_hub")
    with serving({f"org/m{i}": {} for i in range(4)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.card = {}
        hub.more = {
            "org/m0": {"baseModels": {"relation": "quantized", "models": [{"_id": "1", "id": "org/base"}]}},
            "org/m1": {"tags": ["base_model:org/base", "base_model:merge:org/base"]},
            "org/m2": {"cardData": {"base_model": ["org/base"], "base_model_relation": "adapter"}},
            "org/m3": {"cardData": {"base_model": "org/base"}, "tags": ["base_model:sideways:org/base"]},
        }
        found = [(entry.base_model, entry.relation) for entry in sources.find("hub").entries()]
    assert found == [("hf:org/base", relation) for relation in ("quantized", "merge", "adapter", None)]


@pytest.mark.parametrize("how", ["shut", pytest.param("broken", marks=pytest.mark.slow)])  # the client waits long
def test_a_hub_that_does_not_answer_is_one_clear_error(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    with serving({"org/m": {}}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        setattr(hub, how, 1_000)
        with pytest.raises(SpeciateError, match="could not be fetched"):
            list(sources.find("hub").entries())
