# Two commands on a fresh machine: `make quickstart` and `make test`. `make help` lists the rest.

PYTHON ?= python3
DATA ?= ../shared/data
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
PEERS := .peers
ONLY ?=

.DELETE_ON_ERROR:
.PHONY: help setup quickstart experiments realdata bench test lint unit integration clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(VENV)/installed  ## make .venv with the pinned packages (done once)

quickstart: setup  ## the main job: runs/quickstart/report.html; goes on where it stopped
	$(BIN)/python -m sml_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

experiments: setup  ## the other arms and controls, with the same report
	$(BIN)/python -m sml_jax.main --config=configs/experiments.py --workdir=runs/experiments

realdata: setup  ## what the checkers say of real rows (DATA=FOLDER), as kept in results/real_tasks
	mkdir -p results/real_tasks
	$(BIN)/python benchmarks/verify_references.py --data_dir=$(DATA) | tee results/real_tasks/references.txt
	$(BIN)/python benchmarks/leak_table.py --data_dir=$(DATA) | tee results/real_tasks/leaks.txt
	$(BIN)/python benchmarks/turn_kinds.py | tee results/real_tasks/turn_kinds.txt

bench: setup $(PEERS)/transformers/installed $(PEERS)/tunix/installed  ## speed beside peers (installs them in .peers); ONLY=TEXT for some rows
	$(BIN)/python benchmarks/compare.py --peers=$(PEERS) --only="$(ONLY)"

test: lint unit integration  ## everything that .ci/run checks

lint: $(VENV)/installed_dev  ## ruff
	$(BIN)/ruff check

unit: $(VENV)/installed_dev  ## the tests of the parts
	$(BIN)/python -m pytest -m "not integration" -n 2 --dist loadfile

integration: $(VENV)/installed_dev  ## the tests that run the program as a user would
	$(BIN)/python -m pytest -m integration

clean:  ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is not Python 3.11 or newer; name one that is: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || \
	  { echo "error: $(PYTHON) cannot make a virtual environment; on Debian: apt install python3-venv" >&2; exit 1; }
	$(PIP) -r requirements.txt
	@# The package itself, so that it is found from any folder: a path, and nothing to build.
	@echo "$(CURDIR)" > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/sml_jax.pth"
	@touch $@

$(VENV)/installed_dev: requirements-dev.txt $(VENV)/installed
	$(PIP) -r requirements-dev.txt
	@touch $@

$(PEERS)/%/installed: benchmarks/requirements-%.txt
	$(PYTHON) -m venv --clear $(PEERS)/$*
	$(PEERS)/$*/bin/python -m pip --disable-pip-version-check install --quiet -r $<
	@touch $@
