"""Faults: damage is named, a full disk leaves no half-written file, and no environment changes the rows.

``benchmarks/faults.py`` tries many more, from outside.
"""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from astray.experiments.cell import run_cell
from astray.experiments.run import open_run, republish
from astray.experiments.selection import load_study

STUDY = """
from astray.agents import MLP_PPO
from astray.experiments import Arm, Study

SETTINGS = MLP_PPO | {"n_steps": 16, "batch_size": 128, "n_epochs": 1}
MLP = Arm("mlp", "mlp", SETTINGS, "planes", num_envs=8, steps=128, test_every=128, train_shifts=(0.0, 1.0), seeds=1)
SMALL = {"test_ambiguous": 2, "test_distinguishing": 2, "timing_ambiguous": 1, "timing_distinguishing": 1}
STUDY = Study(name="small", world="cheese-corner", arms=(MLP,), **SMALL)
"""


def run(study, folder, jobs="1", **environment):
    command = [sys.executable, "-m", "astray.experiments", "run", str(study), "--jobs", jobs, "--out", str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, errors="replace", env=os.environ | environment)
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(scope="module")
def study_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "small.py"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def finished(study_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(study_file, folder)
    return folder


def test_no_environment_changes_the_rows(finished, tmp_path):
    home = tmp_path / "Käse und Mäuse"
    home.mkdir()
    (home / "Übung 1.py").write_text(STUDY)
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    elsewhere = {"TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "12345"}
    run(home / "Übung 1.py", home / "zweiter Läufer", jobs="2", **ascii_only, **elsewhere)
    theirs = pd.read_parquet(home / "zweiter Läufer" / "rows.parquet")
    assert_frame_equal(pd.read_parquet(finished / "rows.parquet"), theirs, check_exact=True)


def damaged(content: bytes, rng: np.random.Generator):
    """With a bit flipped, and with the end cut off."""
    flipped = bytearray(content)
    flipped[rng.integers(len(content))] ^= 1 << rng.integers(8)
    yield bytes(flipped)
    yield content[: rng.integers(len(content))]


def test_damage_to_any_file_of_a_run_is_named(finished, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    rng = np.random.default_rng(0)
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
    kinds = {
        ".json",
        ".parquet",
        ".safetensors",
        ".png",
        ".svg",
        ".html",
        ".0",
        "",
    }  # events of TensorBoard, SHA256SUMS
    assert {path.suffix for path in paths} == kinds
    open_run(folder)
    assert capsys.readouterr().err == ""
    for path in paths:
        content = path.read_bytes()
        for bad in damaged(content, rng):
            path.write_bytes(bad)
            try:
                open_run(folder)
                said = capsys.readouterr().err
            except OSError as error:
                said = f"{error}{capsys.readouterr().err}"
            name = str(path.relative_to(folder))
            # A changed path or sum speaks of another file.
            assert name in said or (name == "SHA256SUMS" and said), name
        path.write_bytes(content)


def test_what_is_made_from_other_files_is_made_again(finished, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    for name in ("rows.parquet", "report.html"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    republish(folder)
    said = capsys.readouterr().err
    assert f"{folder / 'rows.parquet'} is damaged" in said and f"{folder / 'report.html'} is damaged" in said
    assert (folder / "rows.parquet").read_bytes() == (finished / "rows.parquet").read_bytes()
    open_run(folder)
    assert capsys.readouterr().err == ""


class FullDisk:
    """Writes, flushes and renames of whole files, which find no space from the ``first`` on."""

    def __init__(self, monkeypatch, first):
        self.first, self.count = first, 0
        monkeypatch.setattr(os, "fsync", self.limited(lambda handle: None))  # a real flush only takes time
        for owner, name in ((Path, "write_bytes"), (Path, "write_text"), (os, "replace")):
            monkeypatch.setattr(owner, name, self.limited(getattr(owner, name)))

    def limited(self, call):
        def limited(*arguments, **more):
            self.count += 1
            if self.count >= self.first:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(*arguments, **more)

        return limited


def test_a_cell_goes_on_after_a_full_disk(study_file, tmp_path, monkeypatch):
    study = load_study(str(study_file)).STUDY
    cell = study.cells()[0]

    def run_in(folder):
        for part in ("rows", "episodes", "maps", "timings"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        steps: list[int] = []
        try:
            run_cell(study, cell, folder, steps.append)
        finally:
            assert not [path for path in folder.rglob("*") if ".tmp" in path.name]
        return steps

    rows = f"rows/{cell.name}.parquet"
    with monkeypatch.context() as patches:
        disk = FullDisk(patches, first=10**6)
        run_in(tmp_path / "whole")
    assert disk.count > 50
    for first in range(1, disk.count + 1):
        folder = tmp_path / "full"
        with monkeypatch.context() as patches, pytest.raises(OSError, match="No space left"):
            FullDisk(patches, first)
            run_in(folder)
        checkpoints = sorted((folder / "checkpoints" / cell.name).glob("[0-9]*"))
        newest = int(checkpoints[-1].name) if checkpoints else 0
        assert [*run_in(folder), cell.arm.steps][0] == newest, first  # nothing is repeated
        assert (folder / rows).read_bytes() == (tmp_path / "whole" / rows).read_bytes(), first
        shutil.rmtree(folder)
