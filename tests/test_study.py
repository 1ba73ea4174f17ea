"""Studies: the same seed gives the same rows, also after being killed; bad input changes nothing."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from pandas.testing import assert_frame_equal
from safetensors.torch import load_file

from astray.agents import LM_PPO, MLP_PPO, vec_env
from astray.agents.reading import ObservationReader
from astray.experiments import Arm, Study
from astray.experiments.cell import make_model, run_cell
from astray.experiments.checkpoint import newest
from astray.experiments.experience import Experience
from astray.experiments.files import whole, write_folder
from astray.experiments.run import FailedCellsError, check_folder, run_study
from astray.experiments.selection import Selection
from astray.experiments.study import Cell

TINY = Study(
    name="tiny",
    world="cheese-corner",
    arms=(
        Arm(
            name="mlp",
            policy="mlp",
            settings=MLP_PPO | {"n_steps": 16, "batch_size": 128},
            observation="planes",
            num_envs=16,
            steps=2048,
            test_every=512,
            train_shifts=(0.0, 1.0),
            seeds=2,
        ),
    ),
    test_ambiguous=16,
    test_distinguishing=16,
    timing_ambiguous=4,
    timing_distinguishing=8,
)
LANGUAGE = replace(
    TINY,
    arms=(
        Arm(
            name="smollm2 neutral",
            policy="smollm2",
            settings=LM_PPO | {"n_steps": 8, "batch_size": 16, "n_epochs": 1, "policy_kwargs": {"trained_layers": 2}},
            observation="bytes",
            num_envs=4,
            steps=96,
            test_every=32,
            train_shifts=(0.5,),
            seeds=1,
            arguments={"corner_name": "neutral"},
            language_model="smollm2-135m",
        ),
    ),
    test_ambiguous=2,
    test_distinguishing=3,
    timing_ambiguous=1,
    timing_distinguishing=2,
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    run_study(TINY, folder, jobs=2)
    return folder


def rows(folder):
    return pd.read_parquet(folder / "rows.parquet")


def test_a_run_holds_what_it_should(tiny):
    table = rows(tiny)
    cells = TINY.cells()
    names = {"references", *(cell.name for cell in cells)}
    assert {path.stem for path in (tiny / "rows").glob("*.parquet")} == names
    last = table[(table["agent"] == "trained") & (table["step"] == 2048)]
    counts = last.groupby(["arm", "train_shift", "seed", "mode", "level_class"]).size()
    assert len(counts) == 4 * 2 * 2 and (counts == 16).all()  # every arm, seed, mode and class on as many levels
    assert last.groupby(["level_class", "level"]).size().eq(8).all()  # and on the same ones
    assert set(table["step"]) == {0, 512, 1024, 1536, 2048}
    assert set(table["agent"]) == {"trained", "random", "state-blind", "expert: cheese", "expert: corner"}
    assert set(table.loc[table["step"] == 0, "mode"]) == {"sampled", "greedy"}
    config = json.loads((tiny / "config.json").read_text())
    assert config["cells"][0] == "references" and len(config["cells"]) == 5
    assert "</html>" in (tiny / "report.html").read_text()
    assert not [path for path in tiny.rglob("*") if ".tmp" in path.name]
    assert len(list((tiny / "tensorboard").rglob("events.*"))) == 4
    assert len(json.loads((tiny / "episodes.json").read_text())) == 2 * 3


def test_the_same_study_gives_the_same_rows(tiny, tmp_path):
    run_study(TINY, tmp_path / "again", jobs=1)
    assert_frame_equal(rows(tiny), rows(tmp_path / "again"))


def test_arms_of_a_seed_meet_the_same_levels_and_seeds_do_not(tmp_path):
    met = {}
    for cell in TINY.cells():
        env = make_model(TINY, cell, tmp_path).get_env()
        env.reset()
        levels = [env.world.level[name].copy() for name in ("start", "corner", "order")]
        for _ in range(3):
            env.world.reset()
            levels += [env.world.level[name].copy() for name in ("start", "corner", "order")]
        met[cell.train_shift, cell.seed] = np.stack(levels)
    for seed in (0, 1):
        assert (met[0.0, seed] == met[1.0, seed]).all()
    assert (met[0.0, 0] != met[0.0, 1]).any()


def test_a_finished_run_does_nothing(tiny):
    before = {path: path.stat().st_mtime_ns for path in (tiny / "rows").iterdir() if path.suffix == ".parquet"}
    run_study(TINY, tiny, jobs=2)
    assert before == {path: path.stat().st_mtime_ns for path in before}


SCRIPT = """
import sys, pathlib
sys.path.insert(0, {here!r})
from test_study import {study}
from astray.experiments.run import run_study
if __name__ == "__main__":
    run_study({study}, pathlib.Path(sys.argv[1]), jobs=1)
"""


def run_and_kill(study: str, folder: Path, cell: str, steps: int) -> None:
    """Kills a run without warning as soon as a cell has a checkpoint of at least so many steps."""
    script = folder.parent / "script.py"
    script.write_text(SCRIPT.format(here=str(Path(__file__).parent), study=study))
    process = subprocess.Popen([sys.executable, script, folder], start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if any(int(path.name) >= steps for path in (folder / "checkpoints" / cell).glob("[0-9]*")):
            break
        time.sleep(0.005)
    assert process.poll() is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "rows" / f"{cell}.parquet").exists()


def resumed_at(study: Study, cell: Cell, folder: Path) -> tuple[int, int]:
    """Finishes a cell of a killed run; the step of its newest checkpoint, and the first step it reports."""
    newest = max(int(path.name) for path in (folder / "checkpoints" / cell.name).glob("[0-9]*"))
    steps: list[int] = []
    run_cell(study, cell, folder, steps.append)
    return newest, steps[0]


@pytest.mark.parametrize(("number", "steps"), [(0, 512), (1, 1024), (3, 1536)])
def test_killed_and_rerun_gives_the_same_rows_and_repeats_nothing(tiny, tmp_path, number, steps):
    folder = tmp_path / "killed"
    cell = TINY.cells()[number]
    run_and_kill("TINY", folder, cell.name, steps)
    assert not (folder / "rows.parquet").exists()
    checkpoint, first = resumed_at(TINY, cell, folder)
    assert checkpoint >= steps and first == checkpoint
    run_study(TINY, folder, jobs=2)
    assert_frame_equal(rows(tiny), rows(folder))
    assert not [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


def test_a_killed_language_model_run_gives_the_same_rows(tmp_path):
    run_study(LANGUAGE, tmp_path / "whole", jobs=1)
    folder = tmp_path / "killed"
    (cell,) = LANGUAGE.cells()
    run_and_kill("LANGUAGE", folder, cell.name, 32)
    checkpoint, first = resumed_at(LANGUAGE, cell, folder)
    assert first == checkpoint >= 32
    run_study(LANGUAGE, folder, jobs=1)
    assert_frame_equal(rows(tmp_path / "whole"), rows(folder))
    assert rows(folder)["mass_intended"].notna().any()
    assert set(rows(folder)["weights"]) == {
        "",
        *json.loads((folder / "environment.json").read_text())["language_model_weights"].values(),
    }


@pytest.mark.parametrize("broken", ["newest", "all"])
def test_a_broken_checkpoint_is_named_and_passed_over(tiny, tmp_path, broken, capsys):
    folder = tmp_path / "killed"
    cell = TINY.cells()[0]
    run_and_kill("TINY", folder, cell.name, 1024)
    paths = sorted((folder / "checkpoints" / cell.name).glob("[0-9]*"))
    assert len(paths) >= 2
    for path in paths[-1:] if broken == "newest" else paths:
        for weights in path.glob("policy.safetensors"):  # none where the kill came while an old checkpoint went away
            weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    run_cell(TINY, cell, folder, lambda steps: None)
    assert f"{paths[-1]} is broken" in capsys.readouterr().err
    run_study(TINY, folder, jobs=2)
    assert_frame_equal(rows(tiny), rows(folder))


def test_another_configuration_is_refused_with_the_difference(tiny):
    before = (tiny / "config.json").read_text()
    with pytest.raises(ValueError, match=r"arms\[0\].seeds was 2, is 3"):
        run_study(Selection(seeds=3).of(TINY), tiny)
    with pytest.raises(ValueError, match=r"train_shifts was 2 entries, is 1 entries"):
        check_folder(Selection(train_shifts=(0.5,)).of(TINY), tiny)
    assert (tiny / "config.json").read_text() == before


def test_a_folder_of_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match="holds other files"):
        run_study(TINY, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_cell_that_fails_is_told_and_tried_again(tmp_path):
    settings = TINY.arms[0].settings | {"learning_rate": "fast"}
    broken = replace(TINY, arms=(replace(TINY.arms[0], settings=settings, train_shifts=(0.0,), seeds=1),))
    folder = tmp_path / "broken"
    with pytest.raises(FailedCellsError, match="mlp-shift0-seed0"):
        run_study(broken, folder)
    error = folder / "rows" / "mlp-shift0-seed0.error.txt"
    assert "Traceback" in error.read_text()
    assert (folder / "rows" / "references.parquet").exists()
    assert "mlp-shift0-seed0" in (folder / "report.html").read_text()


def test_what_was_met_in_training_is_counted():
    envs = vec_env("cheese-corner", 1, observation="planes", shift=1.0)
    met = Experience(ObservationReader(envs.observation_space), list(envs.goals), envs.event_names)
    envs.reset()
    level = envs.world.parse_level("X....\n.....\nA....\n.....\n..C..\nfirst: corner")
    for script in ((0, 0, 1), (0, 0, 1, 1, 1, 1, 3, 3)):  # into the corner and away; into it, then to the cheese
        envs.world.set_levels(level)
        for action in script:
            observations, _, _, infos = envs.step(np.array([action]))
            met.meet(observations, infos)
    # The first episode did not end. In the second both goals were reached, and never together.
    counts = {"episodes": 1, "cheese": 1, "corner": 1, "contradictions": 2, "reached_cheese": 1, "entered_corner": 2}
    places = 2 + 4 + 1  # cells that were gone to in the first script; new ones in the second; the next episode's start
    expected = {f"met_{name}": count for name, count in counts.items()}
    columns = met.columns()
    assert {name: columns[name] for name in expected} == expected
    assert columns["met_observations"] == places
    other = Experience(ObservationReader(envs.observation_space), list(envs.goals), envs.event_names)
    other.set_state(met.get_state())
    assert other.columns() == columns
    met.tested()
    assert met.columns()["met_observations"] == 0 and met.columns()["met_episodes"] == 1


def test_what_was_met_stands_in_the_rows(tiny):
    trained = rows(tiny)
    trained = trained[trained["agent"] == "trained"].groupby(["train_shift", "seed", "step"]).first()
    assert (trained["met_episodes"].diff()[trained.index.get_level_values("step") > 0] > 0).all()
    both, apart = (trained.xs(shift)["met_contradictions"] for shift in (0.0, 1.0))
    assert (both == 0).all() and (apart.groupby("seed").last() > 0).all()
    assert rows(tiny).query("agent == 'random'")["met_episodes"].isna().all()


def test_an_arm_begins_with_the_policy_of_another(tmp_path):
    first = replace(TINY.arms[0], name="first", steps=512, seeds=1, train_shifts=(0.0,))
    second = replace(first, name="second", train_shifts=(0.5, 1.0), begins_with="first")
    with pytest.raises(ValueError, match="begins_with='first' must be an arm before it with at least 1 seeds"):
        replace(TINY, arms=(second, first))
    study = replace(TINY, arms=(first, second))
    run_study(study, tmp_path / "run", jobs=2)
    assert set(rows(tmp_path / "run")["arm"]) == {"references", "first", "second"}
    trained = load_file(newest(tmp_path / "run" / "checkpoints" / "first-shift0-seed0") / "policy.safetensors")
    for cell in study.cells()[1:]:
        begun = make_model(study, cell, tmp_path / "run").policy.state_dict()
        assert begun.keys() == trained.keys() and all(torch.equal(begun[name], trained[name]) for name in begun)


def test_going_on_under_other_circumstances_is_told_and_kept(tiny, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(tiny, folder)
    run_study(TINY, folder)
    assert [path.name for path in folder.glob("environment*")] == ["environment.json"]
    monkeypatch.setattr("astray.experiments.run.commit", lambda: "0123abc")
    run_study(TINY, folder)
    assert "other circumstances" in capsys.readouterr().err
    assert json.loads((folder / "environment-2.json").read_text())["commit"] == "0123abc"
    run_study(TINY, folder)
    assert len(list(folder.glob("environment*"))) == 2


def test_two_runs_in_one_folder(tmp_path):
    from filelock import FileLock

    folder = tmp_path / "busy"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TINY.config()))
    with FileLock(folder / ".lock"), pytest.raises(ValueError, match="in use"):
        run_study(TINY, folder)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "rows"
    path.write_text("old")
    with pytest.raises(OSError, match="disk"), whole(path) as temporary:
        temporary.write_text("half")
        raise OSError("no space on disk")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]

    def fill(folder):
        (folder / "a").write_text("half")
        raise OSError("no space on disk")

    with pytest.raises(OSError, match="disk"):
        write_folder(tmp_path / "checkpoint", fill)
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_file_of_rows_is_named(tiny, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(tiny, folder)
    path = folder / "rows" / f"{TINY.cells()[0].name}.parquet"
    content = bytearray(path.read_bytes())
    content[100:110] = bytes(10)  # in the first column's pages
    path.write_bytes(content)
    with pytest.raises(OSError, match=re.escape(str(path))):
        run_study(TINY, folder)


def test_what_was_removed_is_made_again(tiny, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(tiny, folder)
    removed = ["config.json", "environment.json", f"rows/{TINY.cells()[0].name}.parquet"]
    for name in removed:
        (folder / name).unlink()
    run_study(TINY, folder)
    assert f"gone: {', '.join(sorted(removed))}" in capsys.readouterr().err
    assert_frame_equal(rows(tiny), rows(folder))
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"no config\.json"):
        run_study(Selection(seeds=1).of(TINY), folder)


def test_a_cell_that_is_killed_is_told(tmp_path):
    folder = tmp_path / "run"
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(here=str(Path(__file__).parent), study="TINY"))
    process = subprocess.Popen([sys.executable, script, folder], stderr=subprocess.PIPE, text=True)
    cell = folder / "checkpoints" / TINY.cells()[0].name
    while not list(cell.glob("[0-9]*")):
        time.sleep(0.01)
    for child in psutil.Process(process.pid).children(recursive=True):
        if not child.children() and "forkserver" in " ".join(child.cmdline()):
            child.kill()
            break
    assert "1 cells failed" in process.communicate(timeout=200)[1] and process.returncode == 1
    assert "out of memory?" in (folder / "rows" / f"{TINY.cells()[0].name}.error.txt").read_text()
