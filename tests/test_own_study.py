"""A study that is a file of its own, with a world, a reward and a curiosity module of its own."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from test_study import resumed_at, rows

from astray.experiments.cell import run_cell
from astray.experiments.selection import load_study

OWN = """
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from astray.agents import RND
from astray.envs.cheese_corner import CheeseCorner
from astray.experiments import Study
from test_study import TINY


class Pantry(CheeseCorner):
    goals = {"cheese": "reached_cheese", "corner": "entered_corner"}


def pay(transitions):
    if Path(os.environ["BROKEN"]).exists():
        raise FileNotFoundError("no such reward")
    return transitions.happened["cheese"]


RND_01 = {"rnd": partial(RND, weight=0.1)}
CURIOUS = replace(TINY.arms[0], name="curious", extrinsic="cheese - 0.01*step", intrinsic=RND_01)
OWN = replace(TINY.arms[0], name="own", extrinsic=pay, train_shifts=(0.5,), seeds=1)
STUDY = replace(TINY, name="own", world=Pantry, arms=(CURIOUS, OWN))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A study file with its own world, reward and curiosity; as in a user's folder."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    monkeypatch.setenv("BROKEN", str(tmp_path / "broken"))
    path = tmp_path / "own study.py"
    path.write_text(OWN)
    yield path
    sys.modules.pop("study_at_own study", None)


def test_a_study_by_path_where_one_of_six_cells_raises(own, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "astray.experiments", "run", str(own), "--out", str(folder)]
    (tmp_path / "broken").touch()
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 1
    assert "astray: 1 cells failed (own-shift0.5-seed0)" in first.stderr.splitlines()[-1]
    assert "no such reward" in (folder / "rows" / "own-shift0.5-seed0.error.txt").read_text()
    finished = {path: path.stat().st_mtime_ns for path in (folder / "rows").glob("*.parquet")}
    assert len(finished) == 5
    config = json.loads((folder / "config.json").read_text())
    assert config["world"].endswith("Pantry") and config["arms"][1]["extrinsic"].endswith("pay")
    assert config["arms"][0]["intrinsic"]["rnd"] == {"call": "astray.agents.rnd.RND", "weight": 0.1}

    (tmp_path / "broken").unlink()
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert {path.name for path in (folder / "rows").glob("*.parquet")} - {path.name for path in finished} == {
        "own-shift0.5-seed0.parquet"
    }
    assert not list((folder / "rows").glob("*.error.txt"))
    assert set(rows(folder)["arm"]) == {"references", "curious", "own"}


def test_curiosity_goes_on_in_the_middle_of_what_it_has_still_to_learn_from(own, tmp_path):
    study = load_study(str(own)).STUDY
    # A rollout is 256 steps and the modules learn every 512, so that every other checkpoint falls in between.
    arm = replace(study.arms[0], test_every=256, train_shifts=(0.0,), seeds=1)
    study = replace(study, arms=(arm,))
    (cell,) = study.cells()

    class StoppedError(Exception):
        pass

    def stop(steps):
        if steps >= 1280:
            raise StoppedError

    for name in ("whole", "stopped"):
        for part in ("rows", "episodes", "maps", "timings"):
            (tmp_path / name / part).mkdir(parents=True)
    run_cell(study, cell, tmp_path / "whole", lambda steps: None)
    with pytest.raises(StoppedError):
        run_cell(study, cell, tmp_path / "stopped", stop)
    assert resumed_at(study, cell, tmp_path / "stopped") == (1024, 1024)
    path = f"rows/{cell.name}.parquet"
    assert_frame_equal(pd.read_parquet(tmp_path / "whole" / path), pd.read_parquet(tmp_path / "stopped" / path))
