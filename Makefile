# make demo   from nothing: install, train a small transformer on real text, let it write
# make test   from nothing: install, then linter, type checker and all tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/quickstart

.PHONY: demo test install lint docs bench clean

$(BIN)/kit: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(BIN)/pytest: $(BIN)/kit
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: $(BIN)/pytest

demo: $(BIN)/kit
	$(BIN)/kit build quickstart
	$(BIN)/kit train quickstart --out $(RUN)
	$(BIN)/kit generate $(RUN)/model "def " --max-new-tokens 200 --temperature 0.8 --seed 0
	@echo
	@echo "model      $(RUN)/model"
	@echo "loss plot  $(RUN)/loss.png"
	@echo "metrics    $(RUN)/metrics.jsonl"

lint: $(BIN)/pytest
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest -n auto

bench: $(BIN)/kit
	$(BIN)/python -m tests.benchmarks.suite

docs: $(BIN)/pytest
	$(BIN)/python -m docs.generate

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
