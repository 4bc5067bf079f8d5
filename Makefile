# Two commands on a fresh clone: make demo, make test. Each does its own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime
STAMP := $(VENV)/.installed
PYTEST_WORKERS ?= 2
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
  --custom-compile-command 'make lock' pyproject.toml

.PHONY: install demo demo-vllm test check bench docs site engine lock dist sbom fuzz clean

install: $(STAMP)

# From the locks, every file by its hash: what the tests passed with is what is installed. Users of the package get
# the ranges of pyproject.toml, so that it fits beside what they have.
$(RUNTIME): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "qwenhost needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

$(STAMP): $(RUNTIME) requirements-dev.lock
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements-dev.lock
	@touch $@

# A demo needs what the program needs and none of what its tests need.
demo: $(RUNTIME)
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
	$(BIN)/python tests/layer_coverage.py
	$(BIN)/pytest -m engine

# An hour of one core, after which build/fuzz.json says how many examples each target had and what was found.
FUZZ_S ?= 3600
fuzz: install
	@mkdir -p build
	QWENHOST_FUZZ_S=$(FUZZ_S) QWENHOST_FUZZ_REPORT=$(CURDIR)/build/fuzz.json \
		nice -n 10 $(BIN)/pytest tests/fuzz -q -p no:cacheprovider

bench: install
	$(BIN)/python benchmarks/run.py

docs: install
	$(BIN)/python docs/generate

# The documentation as pages that load nothing from another host: build/site/index.html.
site: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Newer versions of everything, within the ranges of pyproject.toml. requirements.lock is what runs with the program,
# requirements-dev.lock the same and all that tests, pages and releases need.
lock: install
	$(LOCK) --extra dev --extra docs --extra release --output-file requirements-dev.lock
	$(LOCK) --constraint requirements-dev.lock --output-file requirements.lock

# Wheel and source archive, the same bytes from the same commit, and what the wheel brings along.
dist: install
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct 2>/dev/null || echo 1577836800) \
	  $(BIN)/python -m build --no-isolation --outdir dist .

sbom: install
	@mkdir -p dist
	$(BIN)/python -W ignore -m cyclonedx_py requirements --pyproject pyproject.toml --mc-type application --output-reproducible \
	  --output-file dist/qwenhost.cdx.json requirements.lock

clean:
	rm -rf $(VENV) dist build demo-out
