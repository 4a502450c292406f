"""What every rule must hold, whatever the numbers."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.errors import SpeciateError
from speciate.tasks import input_ranges
from speciate.training.merging import merge_weights
from speciate.training.merging.merge_spec import METHODS, MergeMethod, usual_weights
from speciate.training.merging.merge_weights import Rule, agree_on_sign, drop_and_rescale, keep_largest, slerp

torch = pytest.importorskip("torch")
SEEDS = st.integers(0, 10_000)


def drawn(seed: int, count: int = 1, size: int = 40) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator) for _ in range(count)]


def rule(method: MergeMethod, count: int, **settings: Any) -> Rule:
    weights = settings.pop("weights", None) or usual_weights(method, ["m"] * count, None)
    return Rule(method, tuple(weights), **settings)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_a_soup_of_one_is_itself_and_of_equals_is_that_one_to_the_bit(seed: int) -> None:
    (one,) = drawn(seed)
    assert torch.equal(rule("soup", 1)("w", [one], None), one)
    assert torch.equal(rule("soup", 3)("w", [one, one.clone(), one.clone()], None), one)


@given(SEEDS, st.lists(st.floats(0.1, 5), min_size=2, max_size=5))
@settings(max_examples=30, deadline=None)
def test_a_soup_is_the_weighted_mean(seed: int, weights: list[float]) -> None:
    many = drawn(seed, len(weights))
    expected = sum(w * t.double() for w, t in zip(weights, many, strict=True)) / sum(weights)
    found = rule("soup", len(weights), weights=weights)("w", many, None)
    assert torch.allclose(found.double(), expected, atol=1e-5)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_slerp_ends_in_its_two_models_and_keeps_the_length_between(seed: int) -> None:
    first, second = drawn(seed, 2)
    second = second * first.norm() / second.norm()
    assert torch.equal(slerp(first, second, 0), first)
    assert torch.equal(slerp(first, second, 1), second)
    for t in (0.2, 0.5, 0.9):
        assert math.isclose(float(slerp(first, second, t).norm()), float(first.norm()), rel_tol=1e-4)


def test_slerp_of_what_points_the_same_way_or_nowhere_is_a_straight_line() -> None:
    (one,) = drawn(1)
    assert torch.allclose(slerp(one, 3 * one, 0.5), 2 * one)
    assert torch.allclose(slerp(torch.zeros(4), torch.ones(4), 0.25), torch.full((4,), 0.25))


def test_slerp_by_hand() -> None:
    found = slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 1 / 3)
    assert torch.allclose(found, torch.tensor([math.cos(math.pi / 6), math.sin(math.pi / 6)]))


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_task_arithmetic_of_nothing_is_the_base_and_of_one_whole_change_the_model(seed: int) -> None:
    base, one, two = drawn(seed, 3)
    assert torch.equal(rule("task_arithmetic", 2, weights=(0.0, 0.0))("w", [one, two], base), base)
    assert torch.allclose(rule("task_arithmetic", 1, weights=(1.0,))("w", [one], base), one, atol=1e-6)
    away = rule("task_arithmetic", 1, weights=(-1.0,))("w", [one], base)
    assert torch.allclose(away, 2 * base - one, atol=1e-5)


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_ties_of_equal_models_untrimmed_is_that_model(seed: int) -> None:
    base, one = drawn(seed, 2)
    found = rule("ties", 2, density=1.0)("w", [one, one.clone()], base)
    assert torch.allclose(found, one, atol=1e-6)


def test_ties_keeps_the_large_and_what_agrees_in_sign() -> None:
    """Figure 1 of Yadav et al. in numbers: a small change is trimmed, a sign is elected, the outvoted are excluded."""
    changes = [torch.tensor([4.0, 0.1, -1.0]), torch.tensor([2.0, 3.0, 3.0])]
    trimmed = [keep_largest(each, 2 / 3) for each in changes]
    assert trimmed[0].tolist() == [4.0, 0.0, -1.0]
    assert trimmed[1].tolist() == [0.0, 3.0, 3.0]
    assert agree_on_sign(trimmed, (0.5, 0.5)).tolist() == [4.0, 3.0, 3.0]


def test_where_signs_cancel_nothing_changes() -> None:
    assert agree_on_sign([torch.tensor([1.0]), torch.tensor([-1.0])], (0.5, 0.5)).tolist() == [0.0]


def test_dare_leaves_out_its_share_and_is_the_same_on_average() -> None:
    change = torch.ones(200_000)
    left = drop_and_rescale(change, 0.25, "0 a w")
    assert set(left.unique().tolist()) == {0.0, 4.0}
    assert float((left != 0).float().mean()) == pytest.approx(0.25, abs=0.01)
    assert float(left.mean()) == pytest.approx(1, abs=0.03)


def test_the_chance_of_dare_is_the_seeds_the_models_and_the_tensors_and_no_one_elses() -> None:
    change = torch.ones(500)
    assert torch.equal(drop_and_rescale(change, 0.5, "0 a w"), drop_and_rescale(change, 0.5, "0 a w"))
    for other in ("1 a w", "0 b w", "0 a v"):
        assert not torch.equal(drop_and_rescale(change, 0.5, "0 a w"), drop_and_rescale(change, 0.5, other))


@pytest.mark.parametrize("method", METHODS)
def test_what_the_base_lacks_is_averaged(method: MergeMethod) -> None:
    one, two = drawn(3, 2)
    found = rule(method, 2, weights=(1.0, 1.0))("head/weight", [one, two], None)
    expected = slerp(one, two, 0.5) if method == "slerp" else (one + two) / 2
    assert torch.allclose(found, expected, atol=1e-6)


# Any folders of safetensors: shards, small numbers, whole numbers, and how much memory they take.

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
    merge_weights.merge_folders([one], None, Rule("soup", (1.0,)), tmp_path / "out")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (one / name).read_bytes()


@pytest.mark.parametrize("both", [True, False])
def test_a_merge_knows_what_all_of_its_models_saw(tmp_path: Path, *, both: bool) -> None:
    one, two = folder(tmp_path / "a", network(0)), folder(tmp_path / "b", network(1))
    input_ranges.save(input_ranges.ranges_of([{"age": 3}], ["age"]), one)
    if both:
        input_ranges.save(input_ranges.ranges_of([{"age": 9}], ["age"]), two)
    merge_weights.merge_folders([one, two], None, HALF, tmp_path / "out")
    found = input_ranges.load(tmp_path / "out")
    assert found == ({"age": input_ranges.ColumnRange(low=3, high=9)} if both else {})


def test_shards_need_not_be_cut_alike(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "a", network(0), shards=2), folder(tmp_path / "b", network(1))
    merge_weights.merge_folders([one, two], None, HALF, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 2
    found = read(tmp_path / "out")
    for name, value in network(0).items():
        assert torch.allclose(found[name], (value + network(1)[name]) / 2, atol=1e-6), name


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_small_numbers_are_merged_in_float32_and_kept_as_they_were(tmp_path: Path, kind: str) -> None:
    dtype = getattr(torch, kind)
    one, two = folder(tmp_path / "a", network(0, dtype)), folder(tmp_path / "b", network(1, dtype))
    merge_weights.merge_folders([one, two], None, HALF, tmp_path / "out")
    for name, value in read(tmp_path / "out").items():
        assert value.dtype == dtype
        exact = (network(0, dtype)[name].float() + network(1, dtype)[name].float()) / 2
        assert torch.equal(value, exact.to(dtype)) or torch.allclose(value.float(), exact, rtol=2**-8), name


def test_whole_numbers_must_agree(tmp_path: Path) -> None:
    places = {"positions": torch.arange(4)}
    one, two = folder(tmp_path / "a", network(0) | places), folder(tmp_path / "b", network(1) | places)
    merge_weights.merge_folders([one, two], None, HALF, tmp_path / "out")
    assert torch.equal(read(tmp_path / "out")["positions"], torch.arange(4))
    other = folder(tmp_path / "c", network(1) | {"positions": torch.arange(1, 5)})
    with pytest.raises(SpeciateError, match="whole numbers"):
        merge_weights.merge_folders([one, other], None, HALF, tmp_path / "out2")


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    spoilt = network(1)
    spoilt["layer.bias"][3] = float("nan")
    one, two = folder(tmp_path / "a", network(0)), folder(tmp_path / "b", spoilt)
    with pytest.raises(SpeciateError, match="not finite"):
        merge_weights.merge_folders([one, two], None, HALF, tmp_path / "out")


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for content in (b"", b"\x00" * 8, b"\xff" * 16, b"\x02" + b"\x00" * 7 + b"[]"):
        (tmp_path / "a" / "model.safetensors").write_bytes(content)
        with pytest.raises(SpeciateError, match="safetensors"):
            merge_weights.stored_tensors(tmp_path / "a")


_MEASURED = """
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from speciate.training.merging import merge_weights
from speciate.training.merging.merge_weights import Rule
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
def on_tensor(name):
    peak[0] = max(peak[0], held())
folders = [root / str(model) for model in range(4)]
rule = Rule("ties", (1 / 3,) * 3, density=0.5)
merge_weights.merge_folders(folders[1:], folders[0], rule, root / "out", on_tensor=on_tensor)
print(peak[0] - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux how much memory is held")
def test_memory_is_that_of_a_tensor_and_not_of_a_model(tmp_path: Path) -> None:
    """Four models of 160 MB, in tensors of 4 MB."""
    done = subprocess.run([sys.executable, "-c", _MEASURED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 110, done.stdout
