# Two commands: `make demo` and `make test`. Everything lives in $(VENV); a second `make` is instant.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
RUN := $(VENV)/.run-$(shell cksum < constraints.txt | cut -d' ' -f1)
DEV := $(VENV)/.dev-$(shell cksum < constraints.txt | cut -d' ' -f1)
export HF_HUB_DISABLE_TELEMETRY ?= 1

.PHONY: install demo test lint unit newest bench checks coverage docs clean
.DEFAULT_GOAL := install

install: $(DEV)  ## the package and the developers' tools

$(RUN): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "alignlab needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Try: make PYTHON=python3.12"; exit 1; }
	@echo "[1/3] virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "[2/3] PyTorch (the largest part, some hundred megabytes)"
	@$(PIP) install --progress-bar on torch==$$(sed -n 's/^torch==//p' constraints.txt)
	@echo "[3/3] alignlab and its libraries"
	@$(PIP) install --progress-bar on -c constraints.txt -e .
	@rm -f $(VENV)/.run-* $(VENV)/.dev-* && touch $@

$(DEV): $(RUN)
	@echo "[+] developers' tools"
	@$(PIP) install --progress-bar on -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(RUN)  ## align the embedded model and prove it: runs/demo/report.html, within 180 s on two cores
	$(BIN)/alignlab run dialectical --output_dir runs/demo

test: lint unit  ## everything that CI runs, under ten minutes

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m alignlab.cli.docs --check

unit: $(DEV)  # a process per core with one thread each: the tests' models are too small to share
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist worksteal $(ARGS)

newest: $(DEV)  ## both runners' contract with the newest Inspect AI there is, in an environment that is thrown away
	@set -e; away=$$(mktemp -d); trap 'rm -rf "$$away"' EXIT; place='import sysconfig; print(sysconfig.get_path("purelib"))'; \
	$(BIN)/python -m venv "$$away"; \
	$(BIN)/python -c "$$place" > "$$("$$away/bin/python" -c "$$place")/below.pth"; \
	pip="$$away/bin/python -m pip --disable-pip-version-check install -q"; \
	$$pip --no-deps --force-reinstall inspect-ai; $$pip inspect-ai; $$pip --no-deps -e .; \
	"$$away/bin/python" -c 'import inspect_ai; print("inspect-ai", inspect_ai.__version__)'; \
	OMP_NUM_THREADS=1 "$$away/bin/python" -m pytest tests/harness/test_inspect.py $(ARGS)

bench: $(DEV)  ## our speed and memory against TRL and lm-eval, at most 20 minutes on two quiet cores; bench/ holds more
	@$(PIP) install -q -c constraints.txt -e '.[bench]'
	$(BIN)/python bench/training.py $(ARGS)

checks: $(DEV)  ## docs/checks.md, what is shown of each objective, from the tests that show it
	$(BIN)/python tests/proofs.py

coverage: $(DEV)  ## docs/intervals.md, how often the evals' intervals hold a known truth; six minutes
	$(BIN)/python bench/coverage.py
	$(BIN)/python -m alignlab.cli.docs

docs: $(RUN)  ## the method table in README.md and the pages in docs/methods, from the cards
	$(BIN)/python -m alignlab.cli.docs

clean:  ## remove the environment, caches and build leftovers; runs/ stays
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
