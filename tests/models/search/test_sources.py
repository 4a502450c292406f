"""Each source that is installed here, read for real."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import pytest

from speciate import vocabulary
from speciate.errors import SpeciateError
from speciate.models.search import index, price_list, sources, timm_results
from speciate.models.search.package_code import literal_calls, literal_tables
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


def test_models_that_speak_are_found_by_their_task_and_those_that_play_music_are_not() -> None:
    entries = list(sources.find("transformers").entries())
    speaking = {each.ref for each in entries if "text-to-speech" in each.tasks}
    assert "hf:facebook/mms-tts-eng" in speaking
    assert {"hf:suno/bark", "hf:nari-labs/Dia-1.6B", "hf:microsoft/speecht5_tts"} <= speaking
    assert "hf:microsoft/speecht5_asr" not in speaking
    assert not [ref for ref in speaking if "musicgen" in ref]


def test_the_shipped_table_has_what_transformers_says_of_tasks() -> None:
    shipped = {row["ref"]: set(row["tasks"] or ()) for row in index.read(index.SHIPPED).to_pylist()}
    for task, name in (
        ("text-to-speech", "hf:facebook/mms-tts-eng"),
        ("time-series-forecasting", "hf:google/timesfm-2.0-500m-pytorch"),
        ("image-text-to-text", "hf:Qwen/Qwen2.5-Omni-7B"),
    ):  # fmt: skip
        assert task in shipped[name]
    assert shipped["hf:facebook/sam-vit-huge"] == {"feature-extraction"}, "an OCR model is made with its image encoder"


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


def test_tables_in_code_are_read_as_far_as_they_are_literals(tmp_path: Path) -> None:
    file = tmp_path / "tables.py"
    file.write_text(
        "import sys\nsys.exit('it ran')\n"
        "NAMED = {'a': 'org/a', 'b': build(), 'c': {'model': ('org/c', '1'), 'impl': Class, 'more': {'x': 1}}}\n"
        "OTHER = {'a': 1}\nNAMED_TOO = list()\n"
    )
    table = {"a": "org/a", "c": {"model": ("org/c", "1"), "more": {"x": 1}}}
    assert literal_tables(file, ("NAMED", "NAMED_TOO")) == {"NAMED": table}
    file.write_text("def (")
    assert literal_tables(file, ("NAMED",)) == {}


def test_timms_results_count_for_the_images_that_weights_are_published_for(tmp_path: Path) -> None:
    (tmp_path / "results-imagenet.csv").write_text(
        "model,img_size,top1,top1_err,top5,top5_err,param_count,crop_pct,interpolation\n"
        'net.one,288,81.5,18.5,95.2,4.8,"1,014.45",1.000,bicubic\n'
        "net.one,224,80.1,19.9,94.9,5.1,14.45,0.900,bicubic\n"
        "net.gone,224,70.0,30.0,90.0,10.0,1.0,0.900,bicubic\n"
    )
    (tmp_path / "results-imagenet-real.csv").write_text("model,img_size,top1,top5\nnet.one,224,86.0,97.0\n")
    (entry,) = timm_results.read_results(tmp_path, {"net.one": timm_results.Published(224, "timm/net.one")})
    assert (entry.ref, entry.hub) == ("timm:net.one", "timm/net.one")
    assert [(each.benchmark, each.metric, each.value) for each in entry.published] == [
        ("ImageNet-1K", "acc@1", 80.1), ("ImageNet-1K", "acc@5", 94.9), ("ImageNet-ReaL", "acc@1", 86.0),
    ]  # fmt: skip
    with pytest.raises(OSError, match=r"results-imagenet\.csv"):
        list(timm_results.read_results(tmp_path / "nowhere", {}))


def test_a_price_list_tells_what_a_model_reads_and_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {
        "gemini/looks": {
            "litellm_provider": "gemini", "mode": "chat", "supports_vision": True, "input_cost_per_token": 3e-7,
            "output_cost_per_token": 2.5e-6, "max_input_tokens": 1000,
        },
        "listens": {"litellm_provider": "openai", "mode": "audio_transcription", "input_cost_per_second": 0.0001},
        "recraft/draws": {"litellm_provider": "recraft", "mode": "image_generation", "output_cost_per_image": 0.04},
        "mistral/reads": {"litellm_provider": "mistral", "mode": "ocr", "ocr_cost_per_page": 0.002},
        "free": {"litellm_provider": "openai", "mode": "chat", "output_cost_per_token": 0, "max_input_tokens": "many"},
        "high/1024-x-1024/draws": {"litellm_provider": "openai", "mode": "image_generation"},
        "elsewhere": {"litellm_provider": "some cloud", "mode": "chat"},
    }  # fmt: skip
    monkeypatch.setattr(price_list, "_table", lambda: listed)
    found = {entry.ref: entry for entry in price_list.PRICE_LIST.entries()}
    assert list(found) == ["api:openai/free", "api:google/looks", "api:openai/listens", "api:mistral/reads",
                           "api:recraft/draws"]  # fmt: skip
    looks = found["api:google/looks"]
    assert (looks.tasks, looks.modalities) == (("text-generation", "image-text-to-text"), ("text", "image"))
    assert (looks.usd_per_1m_input, looks.usd_per_1m_output, looks.context_tokens) == (0.3, 2.5, 1000)
    assert (found["api:openai/listens"].modalities, found["api:openai/listens"].usd_per_minute) == (("audio",), 0.006)
    assert (found["api:recraft/draws"].usd_per_image, found["api:mistral/reads"].usd_per_image) == (0.04, 0.002)
    assert (found["api:openai/free"].usd_per_1m_output, found["api:openai/free"].context_tokens) == (None, None)


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
