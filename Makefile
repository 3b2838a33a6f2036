# make demo       install, then train on the built-in synthetic cohort
# make test       install, then test
# make test-long  single tests that take minutes
# make test-kills  five kills of real processes in the middle of a run
# make test-faults  all kills, rough weather and a hostile site: an hour; writes the tables of docs/reliability.md
# make bundle     the wheel and all that it needs, for hospitals without a package index
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: demo test test-long test-kills test-faults bundle lint quality clean

demo: $(INSTALLED)
	$(BIN)/mtsunet-simulate

test: $(INSTALLED) lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-long: $(INSTALLED)
	$(BIN)/python -m pytest -m long -n 2 --dist loadfile --no-loadscope-reorder

test-kills: $(INSTALLED)
	$(BIN)/python -m pytest -m kills -n 2 --dist worksteal tests/faults

test-faults: $(INSTALLED)
	$(BIN)/python -m pytest -m faults -n 2 --dist worksteal tests/faults

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bundle: $(INSTALLED)
	rm -rf bundle
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --constraint constraints.txt --wheel-dir bundle torch
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --constraint constraints.txt --wheel-dir bundle .

quality: $(INSTALLED)
	$(BIN)/python -m benchmarks.quality

# torch first and by its exact version, so that no other package chooses a build for it
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) runs bundle
