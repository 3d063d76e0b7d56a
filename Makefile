# The same commands for people and machines. `make` lists them.

PYTHON ?= python3
# Another build of PyTorch, in a new .venv: make install TORCH=torch==2.13.0 TORCH_INDEX=<its index>
TORCH ?= torch==2.13.0
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
EXTRAS ?= dev

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow check bench bench-serving docs clean

help:  ## list these commands
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

install: $(STAMP)  ## make .venv with CPU PyTorch, the package and its tools (TORCH=, PYTHON=)

# PyTorch goes in first and alone; then the rest, held to exactly that build by a constraint. A
# CUDA build is installed only when TORCH asks for it: otherwise the CPU index was out of reach.
$(STAMP): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit((not (3, 11) <= v < (3, 14)) and \
		f"DimeRec needs Python 3.11 to 3.13; {sys.executable} is {v[0]}.{v[1]}. Name another: PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q --no-input --no-compile --retries 1 --no-deps --extra-index-url "$(TORCH_INDEX)" "$(TORCH)"
ifeq ($(origin TORCH),file)
	@$(BIN)/python -c 'import sys; from importlib.metadata import requires; sys.exit(any( \
		r.startswith(("nvidia", "cuda")) for r in requires("torch") or ()) and "$(TORCH) came as a \
	CUDA build, because $(TORCH_INDEX) was not reached. Try again later, or name a build: TORCH=...")' \
		|| { $(PIP) uninstall -q -y torch; exit 1; }
endif
	$(BIN)/python -c 'import importlib.metadata as m; print("torch==" + m.version("torch"))' > $(VENV)/torch.txt
	$(PIP) install -q --no-input --no-compile -c constraints.txt -c $(VENV)/torch.txt -e ".[$(EXTRAS)]"
	$(BIN)/python -c 'import torch; print("PyTorch", torch.__version__)'
	touch $@

demo: $(STAMP)  ## train on MovieLens and compare: table, recommendations, demo/report.html
	$(BIN)/dimerec demo --out demo

test: $(STAMP)  ## the tests, without the slow ones
	$(BIN)/python -m pytest -m "not slow" -n logical --maxprocesses 4 --dist loadfile

test-slow: $(STAMP)  ## the slow tests alone
	$(BIN)/python -m pytest -m slow

check: $(STAMP)  ## format, lint, types, import rules, file sizes, documentation examples
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m tests.tools.file_sizes
	$(BIN)/python -m tests.tools.paper_map --check
	$(BIN)/python -m tests.tools.doc_examples

bench: $(STAMP)  ## the benchmarks: one question a file, JSON in benchmarks/results
	set -e; for file in benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python "$$file"; done

bench-serving: $(STAMP)  ## the highest rate that holds p99 under 10 ms, and 2 and 5 times it
	$(BIN)/python benchmarks/bench_serving.py

docs: $(STAMP)  ## render the generated pages of docs/
	$(BIN)/python -m tests.tools.paper_map
	$(BIN)/python -m tests.tools.promises
	$(BIN)/python -m tests.tools.cost_page
	$(BIN)/python -m tests.tools.model_results
	$(BIN)/python -m tests.tools.result_index
	$(BIN)/dimerec reproduce experiments/*.toml --show --page docs/results.md

clean:  ## remove what the tools left behind, .venv and data aside
	rm -rf build demo dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
