"""What our durable trainer costs beside trl's own with the same settings, in processor time of this process.

Both train the same small model on the same examples, in turns, at two lengths; the differences of a pair at both tell
what each step costs and what is fixed (checkpoint, curves, listeners). Loading, tokens and imports are outside: they
are the same. Processor time and not the clock, as other processes share the machine.

    PYTHONPATH=. OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive python evals/bench/trl_overhead.py [--pairs 5]
        [--steps 15 60] [--hidden 192]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from speciate.datasets.loading.loader import load_examples
from speciate.jobs.run import Run
from speciate.settings import Settings
from speciate.training.language.durable_trainer import make_durable
from speciate.training.language.model_setup import digest, load_base_model, make_session, trainer_arguments
from speciate.training.language.tokenized_examples import choose_prompt_form, find_turns, token_rows, tokenize_splits
from speciate.training.language_hyperparameters import SftParameters
from speciate.training.train_spec import Payload
from speciate.training.training_context import TrainingContext
from speciate.workspace.workspace import Workspace
from tests.training.language.world import attempt, base, make_sums, payload

RATE = 5e-5


class Bench:
    def __init__(self, folder: Path, hidden: int) -> None:
        self.workspace = Workspace(folder / "workspace", settings=Settings(policy="auto"))
        make_sums(self.workspace)
        self.base, self.count = base(folder / "base", hidden=hidden), 0

    def trainer(self, steps: int, ours: bool) -> tuple[Any, Any]:
        """Ready to go, and what it is told."""
        from trl.trainer.sft_config import SFTConfig
        from trl.trainer.sft_trainer import SFTTrainer

        self.count += 1
        given = {"changes": "full", "max_steps": steps, "batch_size": 16, "judged": 0}
        asked = payload(
            self.workspace, name="bench", dataset="sums", method="sft", base_model=self.base, hyperparameters=given,
            resources={"cpu": 1},
        )  # fmt: skip
        run = Run(attempt(self.workspace, asked, f"job-{self.count}"))
        told = Payload.model_validate(run.payload)
        context = TrainingContext(run, told, load_examples(run.folders, told.manifest, ("train",)))
        parameters = told.parameters
        assert isinstance(parameters, SftParameters)
        learner = load_base_model(context, parameters)
        how = choose_prompt_form(
            context, learner.tokenizer, parameters, [each.prompt for each in find_turns(context, context.train)]
        )
        found = tokenize_splits(context, learner.tokenizer, how, parameters, "completion", learner.longest)
        told_by = trainer_arguments(context, parameters, RATE) | (
            {} if ours else {"logging_steps": 10}
        )  # trl's default
        arguments = SFTConfig(**told_by, max_length=None)
        made = (make_durable(SFTTrainer) if ours else SFTTrainer)(
            model=learner.model,
            processing_class=learner.tokenizer,
            args=arguments,
            train_dataset=token_rows(found.train),
        )
        return made, make_session(context, parameters, learner, digest(found))

    def seconds(self, steps: int, ours: bool) -> float:
        made, told = self.trainer(steps, ours)
        began = time.process_time()
        if ours:
            made.begin(told)
            made.go()
        else:
            made.train()
        return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, nargs=2, default=(15, 60))
    parser.add_argument("--hidden", type=int, default=192)
    asked = parser.parse_args()
    short, long = asked.steps
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), asked.hidden)
        bench.seconds(3, ours=True)
        bench.seconds(3, ours=False)
        pairs = []
        for at in range(asked.pairs):
            took = {}
            for steps in (short, long):
                for ours in (True, False) if (at + steps) % 2 else (False, True):
                    took[steps, ours] = bench.seconds(steps, ours)
            more = {steps: took[steps, True] - took[steps, False] for steps in (short, long)}
            each = (more[long] - more[short]) / (long - short)
            bare = (took[long, False] - took[short, False]) / (long - short)
            pairs.append(
                {
                    "each_step_ms": 1000 * each,
                    "fixed_ms": 1000 * (more[short] - short * each),
                    "bare_step_ms": 1000 * bare,
                }
            )
            print(json.dumps({name: round(value, 2) for name, value in pairs[-1].items()}), flush=True)
        middle = {name: statistics.median(pair[name] for pair in pairs) for name in pairs[0]}
        share = middle["each_step_ms"] / middle["bare_step_ms"]
        print(json.dumps({name: round(value, 2) for name, value in middle.items()} | {"step_share": round(share, 4)}))


if __name__ == "__main__":
    main()
