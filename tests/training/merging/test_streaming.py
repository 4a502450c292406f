"""Any folders of safetensors: shards, small numbers, whole numbers, and how much memory they take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from speciate.errors import SpeciateError
from speciate.training.merging import streaming
from speciate.training.merging.rules import Rule

torch = pytest.importorskip("torch")
HALF = Rule("soup", (0.5, 0.5))


def folder(path: Path, tensors: dict[str, Any], shards: int = 1) -> Path:
    from safetensors.torch import save_file

    path.mkdir()
    names = sorted(tensors)
    for shard in range(shards):
        file = "model.safetensors" if shards == 1 else f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        save_file({name: tensors[name] for name in names[shard::shards]}, path / file, {"format": "pt"})
    (path / "config.json").write_text("{}")
    return path


def read(path: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: value for file in sorted(path.glob("*.safetensors")) for name, value in load_file(file).items()}


def network(seed: int, dtype: Any = None) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"embed.weight": (50, 8), "layer.weight": (8, 8), "layer.bias": (8,), "scale": ()}
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def test_a_soup_of_one_is_its_very_bytes(tmp_path: Path) -> None:
    one = folder(tmp_path / "a", network(0))
    streaming.merge([one], None, Rule("soup", (1.0,)), tmp_path / "out")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (one / name).read_bytes()


def test_shards_need_not_be_cut_alike(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "a", network(0), shards=2), folder(tmp_path / "b", network(1))
    streaming.merge([one, two], None, HALF, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 2
    found = read(tmp_path / "out")
    for name, value in network(0).items():
        assert torch.allclose(found[name], (value + network(1)[name]) / 2, atol=1e-6), name


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_small_numbers_are_merged_in_float32_and_kept_as_they_were(tmp_path: Path, kind: str) -> None:
    dtype = getattr(torch, kind)
    one, two = folder(tmp_path / "a", network(0, dtype)), folder(tmp_path / "b", network(1, dtype))
    streaming.merge([one, two], None, HALF, tmp_path / "out")
    for name, value in read(tmp_path / "out").items():
        assert value.dtype == dtype
        exact = (network(0, dtype)[name].float() + network(1, dtype)[name].float()) / 2
        assert torch.equal(value, exact.to(dtype)) or torch.allclose(value.float(), exact, rtol=2**-8), name


def test_whole_numbers_must_agree(tmp_path: Path) -> None:
    places = {"positions": torch.arange(4)}
    one, two = folder(tmp_path / "a", network(0) | places), folder(tmp_path / "b", network(1) | places)
    streaming.merge([one, two], None, HALF, tmp_path / "out")
    assert torch.equal(read(tmp_path / "out")["positions"], torch.arange(4))
    other = folder(tmp_path / "c", network(1) | {"positions": torch.arange(1, 5)})
    with pytest.raises(SpeciateError, match="whole numbers"):
        streaming.merge([one, other], None, HALF, tmp_path / "out2")


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    spoilt = network(1)
    spoilt["layer.bias"][3] = float("nan")
    one, two = folder(tmp_path / "a", network(0)), folder(tmp_path / "b", spoilt)
    with pytest.raises(SpeciateError, match="not finite"):
        streaming.merge([one, two], None, HALF, tmp_path / "out")


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for content in (b"", b"\x00" * 8, b"\xff" * 16, b"\x02" + b"\x00" * 7 + b"[]"):
        (tmp_path / "a" / "model.safetensors").write_bytes(content)
        with pytest.raises(SpeciateError, match="safetensors"):
            streaming.tensors(tmp_path / "a")


_MEASURED = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from speciate.training.merging import streaming
from speciate.training.merging.rules import Rule
torch.set_num_threads(1)
root = Path(sys.argv[1])
for model in range(4):
    (root / str(model)).mkdir()
    tensors = {f"t{i}": torch.full((1_000_000,), float(model + i)) for i in range(40)}
    save_file(tensors, root / str(model) / "m.safetensors")
def held():
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) / 1024
before, peak = held(), [0.0]
def told(name):
    peak[0] = max(peak[0], held())
folders = [root / str(model) for model in range(4)]
streaming.merge(folders[1:], folders[0], Rule("ties", (1 / 3,) * 3, density=0.5), root / "out", told=told)
print(peak[0] - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux how much memory is held")
def test_memory_is_that_of_a_tensor_and_not_of_a_model(tmp_path: Path) -> None:
    """Four models of 160 MB, in tensors of 4 MB."""
    done = subprocess.run([sys.executable, "-c", _MEASURED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 110, done.stdout
