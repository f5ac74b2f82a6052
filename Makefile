# Needs make, git and Python >= 3.11. `uv` is used where it is installed, and fetched into .uv/ where it is not.
UV ?= $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
PYTHON ?= python3
PORT ?= 6006
ARGS ?=
TRAINED = $(if $(ORPO_HOME),$(ORPO_HOME)/,)trained

.DEFAULT_GOAL := help
.PHONY: help setup demo generate train inference serve tensorboard trained-runs check test faults bench

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo '  Flags go in ARGS, for example: make train ARGS="--epochs 2"'

setup: $(filter .uv/bin/uv,$(UV)) ## install everything into .venv
	@$(UV) sync --quiet

.uv/bin/uv:
	@command -v $(PYTHON) >/dev/null || { echo 'error: $(PYTHON) is not installed; install Python 3.11 or newer' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'error: $(PYTHON) is older than 3.11; name a newer one, for example: make PYTHON=python3.12 setup' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo 'error: $(PYTHON) lacks ensurepip; install it (Debian, Ubuntu: apt install python3-venv) or install uv' >&2; exit 1; }
	@echo 'fetching uv into .uv/'
	@$(PYTHON) -m venv .uv && .uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'

demo: setup ## the whole loop on the default model: pairs, training, base and tuned side by side
	$(UV) run orpo/generate.py --limit 400 --batch-size 40 --overwrite
	$(UV) run orpo/train.py --recipe recipes/demo.yaml --overwrite
	$(UV) run orpo/inference.py --summary
	@$(UV) run python -m orpo.command.paths
	@echo 'TensorBoard: make tensorboard, then open http://127.0.0.1:$(PORT)'

generate: setup ## prompts -> preference pairs, into data/preferences
	$(UV) run orpo/generate.py $(ARGS)

train: setup ## preference pairs -> LoRA adapter, into trained/
	$(UV) run orpo/train.py $(ARGS)

inference: setup ## talk to the tuned model, base and tuned side by side
	$(UV) run orpo/inference.py $(ARGS)

serve: setup ## a page to talk, vote and review pairs on, and an endpoint, on 127.0.0.1:8000
	$(UV) run orpo/serve.py $(ARGS)

tensorboard: trained-runs setup ## show the training runs on 127.0.0.1:6006 (PORT=...)
	@$(UV) run python -m orpo.command.ports $(PORT) 'choose another one: make tensorboard PORT=6007'
	@echo 'TensorBoard: http://127.0.0.1:$(PORT) (Ctrl-C stops it)'
	@$(UV) run tensorboard --logdir $(TRAINED) --host 127.0.0.1 --port $(PORT) --load_fast=false

trained-runs:
	@find $(TRAINED) -name 'events.out.tfevents.*' 2>/dev/null | grep -q . || \
		{ echo 'error: $(TRAINED)/ holds no training run yet; make one first: make demo, or make train' >&2; exit 1; }

check: setup ## ruff and mypy, as CI runs them
	$(UV) run ruff check .
	$(UV) run ruff format --check .
	$(UV) run mypy

test: setup ## the tests that need no network, no GPU and little time
	$(UV) run pytest $(ARGS)

faults: setup ## kills, full disks, bad data, endpoints and models: the whole fault suite, about 20 minutes
	$(UV) run pytest -m faults $(ARGS)

bench: setup ## the benchmarks, one after the other
	@for file in benchmarks/*.py; do echo "== $$file"; $(UV) run "$$file" $(ARGS) || exit 1; done
