"""Recipe `replay`: a network goes on with a new version and learns again from earlier examples, so that it keeps them.

Experience replay (Chaudhry et al. 2019, "On Tiny Episodic Memories in Continual Learning"). The buffer is drawn anew
each time from the data that the model's line learned from, and repeated until it is `share` of an epoch: there each
batch has the new and the old in that proportion, in the mean. Without a buffer it is plain fine-tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from speciate.datasets import registration
from speciate.datasets.loading.loader import Example, load_examples
from speciate.training.continual import buffer, going_on
from speciate.training.network.choosing import Method
from speciate.training.selection import Chosen
from speciate.training.specs import ReplayParameters
from speciate.training.study import Study

AGAIN = "again:"
"""What the ids of replayed examples begin with."""


def fit(study: Study, parameters: ReplayParameters) -> Chosen:
    return going_on.fit(study, parameters, method(parameters))


def method(parameters: ReplayParameters) -> Method:
    return going_on.method(parameters, partial(rehearse, parameters=parameters), going_on.truths_alone)


def rehearse(study: Study, parameters: ReplayParameters) -> None:
    """Draw the buffer and add it to what there is to learn."""
    payload = study.payload
    drawn = buffer.draw(
        study.folders, buffer.name_of(payload.spec.name), payload.manifest, payload.base_learned_from or (),
        payload.target, parameters.buffer_size, parameters.policy, payload.spec.seed,
    )  # fmt: skip
    if drawn is None:
        study.notes.append("Nothing is replayed: no earlier training example is wanted, or the new version has all.")
        return
    operation = buffer.provenance(drawn, payload.spec.base_model or "", parameters.policy, payload.spec.seed)
    manifest = drawn.sealed.manifest
    study.beside = registration.made(
        drawn.sealed, operation=operation, report={"ok": manifest.rows}, result={}, parents=sorted(drawn.of)
    )
    old = [
        example._replace(id=f"{AGAIN}{example.id}", split="train") for example in load_examples(study.folders, manifest)
    ]
    old, times = study.learn_too(old), 1
    if old and parameters.share:
        times = max(1, round(parameters.share / (1 - parameters.share) * len(study.train) / len(old)))
    study.found["replay"] = {
        "dataset": manifest.name, "examples": len(old), "times": times, "from": drawn.of, "labels": drawn.labels,
        "available": drawn.available, "policy": parameters.policy,
    }  # fmt: skip
    study.train += old * times


def replayed(examples: Sequence[Example]) -> list[Example]:
    """Those of the buffer, each once."""
    return list({each.id: each for each in examples if each.id.startswith(AGAIN)}.values())
