"""Every world has a study that runs to its page, and so has a world of one's own by path."""

from pathlib import Path

import pytest

from astray.envs import worlds
from astray.envs.loading import module_at
from astray.experiments.__main__ import main
from astray.experiments.files import read_rows

TABLE = module_at(str(Path(__file__).parents[1] / "docs" / "make_table.py"), "script")
TAP = f"{Path(__file__).parent / 'worlds' / 'tap.py'}:Tap"
SMALL = (
    "--jobs 1 --policies mlp --seeds 1 --train-shifts 0 --set num_envs=8 --set steps=256 --set test_every=256 "
    "--set settings.batch_size=256 --set settings.n_epochs=1 --set test_ambiguous=2 --set timing_ambiguous=1 "
    "--set test_distinguishing=2 --set timing_distinguishing=1"
)


@pytest.mark.parametrize("study", [*worlds(), TAP])
def test_a_worlds_study_runs_to_its_page(study, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["astray", "run", study, "--out", str(tmp_path / "run"), *SMALL.split()])
    main()
    rows = read_rows(tmp_path / "run" / "rows.parquet")
    assert set(rows["level_class"]) == {"ambiguous", "distinguishing"} and "trained" in set(rows["agent"])
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    assert "report: " in capsys.readouterr().out
    assert any(line.startswith("| random |") for line in TABLE.lines(tmp_path / "run"))
