# Needs nothing but Python >= 3.10 (with venv); everything is installed into .venv at the versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-all clean

demo: .venv/stamp
	$(BIN)/inverse demo --out demo

test: .venv/stamp-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest --timeout 300 -m "not slow"

test-all: .venv/stamp-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest --timeout 1800

# A stamp is written only after a complete install, so that an interrupted one is taken up again.
.venv/stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python >= 3.10 is needed, $(PYTHON) is not; give one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet --editable . --constraint constraints.txt
	touch $@

.venv/stamp-dev: .venv/stamp
	$(PIP) install --quiet --editable '.[dev]' --constraint constraints.txt
	touch $@

clean:
	rm -rf .venv build dist demo inverse.egg-info .mypy_cache .pytest_cache .ruff_cache
	find inverse tests experiments -name __pycache__ -type d -prune -exec rm -rf {} +
