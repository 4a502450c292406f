"""transformers without what no answer needs: what is left out, and that nothing else changes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from speciate.environment import clean_environment

pytest.importorskip("transformers")
NEEDLESS = ("boto3", "scipy", "sympy", "torch._dynamo", "torch.distributed.tensor", "torchvision")
_ANSWER = """
import hashlib, json, sys
from speciate.models.backbones import lean_import
lean = sys.argv[1] == "lean"
if lean:
    lean_import.import_networks()
import torch
from transformers import AutoModel, BertConfig, ViTConfig
answers = []
for config, inputs in (
    (BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=50),
     {"input_ids": torch.arange(8).reshape(2, 4), "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])}),
    (ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=8,
               patch_size=4), {"pixel_values": torch.arange(192.0).reshape(1, 3, 8, 8) / 192}),
):
    torch.manual_seed(0)
    network = AutoModel.from_config(config).eval()
    with torch.inference_mode():
        answers.append(hashlib.sha256(network(**inputs).last_hidden_state.numpy().tobytes()).hexdigest())
there = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
optimizer = torch.optim.AdamW(network.parameters())
network(**inputs).last_hidden_state.sum().backward()
optimizer.step()
answers.append(hashlib.sha256(next(network.parameters()).detach().numpy().tobytes()).hexdigest())
import scipy.optimize
from torch._dynamo import explain
print(json.dumps({"there": there, "answers": answers, "distributed": torch.distributed.is_available()}))
"""


_AT_ONCE = """
import importlib.util, json, threading
from transformers.utils import import_utils
from speciate.models.backbones import lean_import
find, both, inside, most = importlib.util.find_spec, threading.Barrier(2), [], []

def ask():
    inside.append(1)
    most.append(len(inside))
    try:
        both.wait(1)
    except threading.BrokenBarrierError:  # the other one has to wait until this one is done
        pass
    inside.pop()

ask.cache_clear = lambda: None
import_utils.is_scipy_available = ask
threads = [threading.Thread(target=lean_import.hide_libraries) for _ in range(2)]
for each in threads:
    each.start()
for each in threads:
    each.join()
print(json.dumps({"at once": max(most), "finds": importlib.util.find_spec is find}))
"""
_ANOTHER_VERSION = """
import json, sys
from transformers.utils import import_utils
del import_utils.is_torchvision_v2_available
import_utils.is_torch_distributed_available = import_utils.is_torch_distributed_available.__wrapped__
from speciate.models.backbones import lean_import
lean_import._NETWORKS = ("transformers.modeling_utils", "transformers.no_such_module")
lean_import.import_networks()
from transformers import AutoModel, BertConfig
network = AutoModel.from_config(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=50))
print(json.dumps({"made": len(list(network.parameters())) > 0}))
"""


_MASKS = """
import json
from speciate.models.backbones import lean_import
lean_import.import_whole()
lean_import.import_networks()  # as for a network that needs less, which is asked first
from transformers.models.mask2former import modeling_mask2former
from transformers.utils import is_torchvision_available
whole = [hasattr(modeling_mask2former, "linear_sum_assignment"), is_torchvision_available()]
print(json.dumps({"whole": whole}))
"""

_ADAPTED = """
import json
from types import SimpleNamespace
from speciate.models.backbones import lean_import
lean_import.import_networks()
from transformers import AutoModel, BertConfig
network = AutoModel.from_config(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=50))
from speciate.training.hyperparameters import LoraParameters
from speciate.training.recipes import lora_full
lora_full._add_adapters(SimpleNamespace(module=network, base_model="x"), LoraParameters())
learn = [name for name, weight in network.named_parameters() if weight.requires_grad]
print(json.dumps({"all": bool(learn) and all("lora" in name for name in learn)}))
"""


def answers(how: str) -> dict[str, Any]:
    return printed(_ANSWER, how, json.dumps(NEEDLESS))


def printed(program: str, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    given: dict[str, Any] = json.loads(done.stdout)
    return given


@pytest.mark.slow(reason="all families of published models are asked so in the slow suite")
def test_networks_answer_and_learn_as_with_all_libraries_which_are_there_for_whoever_asks() -> None:
    lean, whole = answers("lean"), answers("whole")
    assert lean["there"] == []
    assert "torch._dynamo" in whole["there"], "then leaving it out would save nothing"
    assert lean["answers"] == whole["answers"]
    assert lean["distributed"] == whole["distributed"]


def test_a_network_that_was_imported_lean_takes_adapters_in_a_process_that_nothing_was_imported_in_before() -> None:
    assert printed(_ADAPTED)["all"]


def test_of_two_threads_one_at_a_time_replaces_functions() -> None:
    assert printed(_AT_ONCE) == {"at once": 1, "finds": True}


@pytest.mark.slow(reason="a whole import of transformers")
def test_a_process_that_is_to_have_all_leaves_nothing_out_for_its_first_network() -> None:
    pytest.importorskip("torchvision")
    assert printed(_MASKS)["whole"] == [True, True]


@pytest.mark.slow(reason="for another version of transformers; two processes with torch")
def test_networks_are_made_by_a_transformers_that_asks_and_imports_otherwise() -> None:
    assert printed(_ANOTHER_VERSION)["made"]
