"""Run from another folder, with the built package on the path: it is whole, and not this checkout."""

from pathlib import Path

import gymnasium as gym

import astray
import astray.agents
import astray.experiments
import astray.experiments.report

home = Path(astray.__file__).parents[1]
assert home.name == "site", f"astray was imported from {home}, not from the built package"
for package in (astray.envs, astray.agents, astray.experiments):
    assert Path(package.__file__ or "").is_relative_to(home), package
assert (home / "astray" / "py.typed").exists()
for file in ("report.html.jinja", "world.py.template"):
    assert (home / "astray" / "experiments" / file).exists(), file
assert not (home / "envs").exists() and not (home / "tests").exists()
gym.make("astray/CheeseCorner-v0").reset(seed=0)
print(f"built package: astray {astray.__version__} works")
