# Two commands on a fresh clone: make demo, make test. Each does its own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_WORKERS ?= 2

.PHONY: install demo demo-vllm test check bench docs site engine clean

install: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "qwenhost needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: install
	$(BIN)/qwenhost demo --output-dir demo-out

demo-vllm: install engine
	$(BIN)/python tests/e2e/demo_vllm.py --output-dir demo-out/vllm

# vLLM's CPU build with a tiny model: 3.4 GB, about three minutes, kept outside the clone.
engine: install
	$(BIN)/python tests/e2e/engine_env.py

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check engine
	$(BIN)/pytest -m "not engine" -n $(PYTEST_WORKERS) --cov --cov-report=term:skip-covered
	$(BIN)/pytest -m engine

bench: install
	$(BIN)/python benchmarks/run.py

docs: install
	$(BIN)/python docs/generate

# The documentation as pages that load nothing from another host: build/site/index.html.
site: install
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) dist build demo-out
