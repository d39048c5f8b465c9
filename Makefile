# Everything runs inside .venv, which these rules make themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCHMARKS := $(sort $(wildcard benchmarks/*.py))

.PHONY: demo test test-slow test-claims test-portable lint type format docs bench wheel clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,export,audio,video,tracking,text]'
	@touch $(STAMP)

demo: $(STAMP)  ## 30 labels and many unlabelled pairs of the built-in digits, and a report page
	$(BIN)/xmodal run few-labels --out runs/demo --resume

test: $(STAMP)  ## the whole suite but what is slow, in two processes; a file's tests stay in one of them
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(STAMP)  ## what takes minutes rather than seconds
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[trackers,cluster]'
	XMODAL_REQUIRE_EXTRAS=1 $(BIN)/python -m pytest -m slow

test-claims: $(STAMP)  ## trainings that show what the docs claim, one after the other, with the figures that they print
	$(BIN)/python -m pytest -m claim -s

test-portable: $(STAMP)  ## the numeric tests with other kernels and numbers of threads, and on a busy machine
	$(BIN)/python tests/portable.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	@for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

wheel: $(STAMP)
	$(BIN)/python -m build --no-isolation

clean:
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache
