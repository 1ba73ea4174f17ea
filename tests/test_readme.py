"""What the README shows runs as it is written."""

import re
import shlex
from pathlib import Path

import pytest

from astray.experiments.__main__ import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_python_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    monkeypatch.chdir(tmp_path)  # what they write goes there
    names: dict = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["rows"]["outcome"].notna().all()
    shown = re.search(r'reset\(seed=0\) +# "(.*)"', README)[1]
    env = names["gym"].make("astray/CheeseCorner-v0", shift=0.0)
    assert env.reset(seed=0)[0] == shown


def test_every_file_is_in_the_layout():
    (layout,) = blocks("text")
    for folder in ("envs", "agents", "experiments"):
        for path in (ROOT / folder).glob("*.py"):
            assert path.name in layout or path.name == "__init__.py", f"README's layout lacks {folder}/{path.name}"
    for name in re.findall(r"\b[a-z_]+\.py\b", layout):
        assert any((ROOT / folder / name).exists() for folder in ("envs", "agents", "experiments")), name


def test_the_study_is_measured(tmp_path, monkeypatch, capsys):
    (study,) = (block for block in blocks("python") if "STUDY" in block)
    path = tmp_path / "curious.py"
    path.write_text(study)
    monkeypatch.setattr("sys.argv", ["astray", "run", str(path), "--dry-run", "--jobs", "1"])
    main()
    assert re.search(
        r"21 cells.*plain .* 10 .*102,400.*curious .*About \d+ (s|min) with", capsys.readouterr().out, re.DOTALL
    )


@pytest.mark.parametrize("line", [line for block in blocks("sh")[1:] for line in block.splitlines()])
def test_commands_parse(line, monkeypatch, capsys):
    command = shlex.split(line, comments=True)
    assert command[0] == "astray"
    monkeypatch.setattr("sys.argv", [*command, "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
