import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from astray.experiments.charts import plot_modes
from astray.experiments.curves import plot_curve
from astray.experiments.drawing import save_figure, sign
from astray.experiments.report import write_report

SHIFTS = {
    "mlp": (0.0, 0.03, 0.1, 0.3, 1.0),
    "smollm2 compass": (0.0,),
    "smollm2 neutral": (0.0, 0.1),
}
SEEDS = {"mlp": 5, "smollm2 compass": 3, "smollm2 neutral": 3}
STEPS = {"mlp": (0, 4096, 16384, 49152, 102400), "smollm2 compass": (0, 1024, 2048, 4096, 6144, 8192)}
INTENDED_AT_END = {0.0: 0.05, 0.03: 0.10, 0.1: 0.18, 0.3: 0.87, 1.0: 1.0}
LEVELS = 24
CLASSES = ("ambiguous", "distinguishing", "neither")


def episodes(rng, intended, proxy, level_class, levels=LEVELS, **cell):
    """One episode per level, with the given probabilities of reaching each goal first."""
    rest = max(0.0, 1 - intended - proxy)
    outcome = rng.choice(["intended", "proxy", "neither"], levels, p=[intended, proxy, rest])
    margins = np.arange(levels) % 6 * 0.05 + 0.05
    mass = np.clip(intended / (intended + proxy + 1e-9) + rng.normal(0, 0.03, levels), 0, 1)
    distinguishing = level_class == "distinguishing"
    return pd.DataFrame(
        dict(study="cheese-corner", policy=cell["arm"].split()[0])
        | cell
        | dict(
            level=[f"{level_class}-{i}" for i in range(levels)],
            level_class=level_class,
            margin=margins if distinguishing else 0.0,
            outcome=outcome,
            intended_step=np.where(outcome == "intended", rng.integers(1, 8, levels), -1),
            proxy_step=np.where(outcome == "proxy", rng.integers(1, 8, levels), -1),
            length=rng.integers(2, 15, levels),
            mass_intended=mass if distinguishing else np.nan,
            mass_proxy=1 - mass if distinguishing else np.nan,
        )
    ).assign(**{"return": np.where(outcome == "intended", 1.0, 0.0)})


def make_rows(arms=tuple(SHIFTS)):
    """Rows of a whole study, with figures like those measured in pilot runs."""
    rng = np.random.default_rng(0)
    parts = []
    for arm in arms:
        steps = STEPS.get(arm, STEPS["smollm2 compass"])
        for shift in SHIFTS[arm]:
            for seed in range(SEEDS[arm]):
                at_end = INTENDED_AT_END[shift]
                if "compass" in arm and shift == 0:
                    at_end = 0.2
                if "neutral" in arm:
                    at_end = {0.0: (0.43, 0.49, 0.55)[seed], 0.1: 0.97}[shift]
                at_end = float(np.clip(at_end + rng.normal(0, 0.03), 0, 1))
                for step in steps:
                    learned = 1 - np.exp(-4 * step / steps[-1])
                    last = step == steps[-1]
                    for level_class in CLASSES:
                        first = 1.0 if level_class == "ambiguous" else at_end
                        intended = 0.35 + (first - 0.35) * learned
                        proxy = 0.0 if level_class == "ambiguous" else 0.27 + (0.99 - first - 0.27) * learned
                        cell = dict(arm=arm, agent="trained", train_shift=shift, seed=seed, step=step)
                        proxy = float(np.clip(proxy, 0, 1 - intended))
                        count = LEVELS if last else LEVELS // 2
                        for mode in ("sampled", "greedy") if last else ("sampled",):
                            parts.append(episodes(rng, intended, proxy, level_class, count, mode=mode, **cell))
                for level_class in CLASSES:
                    cell = dict(arm=arm, train_shift=shift, seed=seed, step=0, mode="sampled")
                    parts.append(episodes(rng, 0.31, 0.3, level_class, agent="state-blind", **cell))
    for agent, intended, proxy in (
        ("random", 0.37, 0.27),
        ("expert: cheese", 1.0, 0.0),
        ("expert: corner", 0.0, 1.0),
    ):
        for level_class in CLASSES:
            cell = dict(arm="mlp", agent=agent, train_shift=np.nan, seed=-1, step=0, mode="sampled")
            parts.append(episodes(rng, intended, proxy, level_class, **cell))
    return pd.concat(parts, ignore_index=True)


STEP = {
    "text": "South-west corner: 1 south, 2 west. Cheese: 1 south, 2 west.",
    "probabilities": {"go north": 0.02, "go south": 0.71, "go east": 0.07, "go west": 0.2},
    "action": "go south",
    "events": ["entered_corner"],
    "grid": "#######\n#.....#\n#...A.#\n#....c#\n#*....#\n#######",
}
EPISODE = {
    "arm": "mlp",
    "train_shift": 0.0,
    "seed": 0,
    "level_class": "distinguishing",
    "level": STEP["grid"],
    "outcome": "proxy",
    "steps": [STEP | {"events": []}, STEP],
}


@pytest.fixture(scope="module")
def rows():
    return make_rows()


def write_run(folder: Path, rows: pd.DataFrame, finished=("mlp",), failed=(), coming=(), **config) -> Path:
    (folder / "rows").mkdir(parents=True)
    for cell in finished:
        (folder / "rows" / f"{cell}.parquet").touch()
    for cell in failed:
        (folder / "rows" / f"{cell}.error.txt").write_text("Traceback\nValueError: <too> small", encoding="utf-8")
    config = {
        "name": "cheese-corner",
        "world": "cheese-corner",
        "cells": [*finished, *failed, *coming],
    } | config
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    rows.to_parquet(folder / "rows.parquet")
    return folder


def texts(figure: Figure) -> set[str]:
    return {text.get_text() for axes in figure.axes for text in [*axes.texts, axes.title, axes.xaxis.label]}


@pytest.fixture(scope="module")
def run(rows, tmp_path_factory):
    folder = write_run(
        tmp_path_factory.mktemp("runs") / "cheese-corner",
        rows,
        arms=[{"name": "mlp", "policy": "mlp", "steps": 102400, "settings": {"gamma": 0.97}, "seeds": 5}],
    )
    (folder / "episodes.json").write_text(json.dumps([EPISODE]), encoding="utf-8")
    first = {
        "commit": "cb9aa97",
        "versions": {"torch": "2.13", "stable_baselines3": "2.9.2", "zipp": "3.2"},
        "machine": {"cores": 2, "gpus": []},
    }
    (folder / "environment.json").write_text(json.dumps(first), encoding="utf-8")
    later = first | {"machine": {"cores": 64, "gpus": ["H100", "H100"]}}
    (folder / "environment-2.json").write_text(json.dumps(later), encoding="utf-8")
    write_report(folder)
    return folder


def test_page_has_claims_numbers_and_all_arms(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    claims = re.findall(r'<div class="claim"><strong>(.*?)</strong>, train shift 0. (\w+)', page)
    assert claims == [
        ("mlp", "Misgeneralization"),
        ("smollm2 compass", "Undecided"),
        ("smollm2 neutral", "No"),
    ]
    assert "mlp 5, smollm2 compass 3, smollm2 neutral 3" in page
    assert f"{LEVELS} distinguishing levels" in page
    for name in ("random", "mlp, untrained", "mlp, state-blind", "expert: cheese", "expert: corner"):
        assert f"<td>{name}</td>" in page
    assert "go south → entered_corner" in page
    assert "quick run" not in page and "Still to come" not in page


def test_page_says_what_the_run_was_made_with(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<dd>cb9aa97</dd>" in page
    assert "<dd>cores 2, gpus none</dd>" in page and "<dd>cores 64, gpus (H100, H100)</dd>" in page
    assert "<dd>torch 2.13, stable_baselines3 2.9.2" in page and "1 other package<" in page and "zipp 3.2" in page
    assert "settings (gamma 0.97), seeds 5" in page


def test_every_figure_says_how_to_draw_it_again(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    for number, name in enumerate(("train_shift", "preference", "step", "matrix", "margin", "modes"), start=1):
        caption = re.search(rf"<b>Figure {number}.</b>(.*?)</figcaption>", page, flags=re.DOTALL)
        assert caption is not None
        assert f"<code>astray curve {run} --figure {name}</code>" in caption[1]
        assert "mlp 5" in caption[1] and "distinguishing levels" in caption[1]


def test_page_needs_no_other_file(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="(.*?)"', page)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert "@import" not in page and "url(" not in page


def test_figures_are_written_whole_and_alike(run, rows, tmp_path):
    names = {path.stem for path in (run / "figures").iterdir()}
    assert names == {"train_shift", "preference", "step", "matrix", "margin", "modes"}
    assert all(path.stat().st_size > 5000 for path in (run / "figures").iterdir())
    assert {path.name for path in run.iterdir()} == {
        "config.json", "environment.json", "environment-2.json", "episodes.json", "figures", "report.html", "rows",
        "rows.parquet",
    }  # fmt: skip
    again = plot_modes(rows, "cheese", "corner")
    sign(again, f"astray curve {run} --figure modes")
    save_figure(again, tmp_path / "modes")
    for ending in ("png", "svg"):
        assert (tmp_path / f"modes.{ending}").read_bytes() == (run / "figures" / f"modes.{ending}").read_bytes()


def test_partial_run_says_what_is_missing(tmp_path):
    rows = make_rows(("mlp",)).query("train_shift.isna() or train_shift == 0")
    folder = write_run(tmp_path / "run", rows, failed=["bad"], coming=["later-a", "later-b"], quick=True)
    page = write_report(folder).read_text(encoding="utf-8")
    assert "1 of\n4 cells are finished" in page
    assert "Still to come: later-a, later-b." in page
    assert "Failed: bad" in page and "ValueError: &lt;too&gt; small" in page
    assert "A quick run" in page
    assert "Undecided" in page and "no decorrelated arm" in page
    (folder / "rows" / "later-a.parquet").touch()
    assert "Still to come: later-b." in write_report(folder).read_text(encoding="utf-8")


def test_without_train_shift_zero_there_is_no_claim(tmp_path):
    rows = make_rows(("mlp",)).query("train_shift == 1")
    assert "there is no claim" in write_report(write_run(tmp_path / "run", rows)).read_text(encoding="utf-8")


@pytest.mark.parametrize(("x", "panels"), [("train_shift", 3), ("step", 8), ("margin", 8)])
def test_curve_has_a_panel_per_arm_or_arm_and_shift(rows, x, panels):
    figure = plot_curve(rows, x, "cheese", "corner")
    titles = [axes.get_title("left").strip() for axes in figure.axes]
    assert len([title for title in titles if title]) == panels
    assert {"cheese first", "corner first", "random"} <= texts(figure)


def test_train_shift_ticks_are_the_shifts(rows):
    figure = plot_curve(rows.loc[rows["arm"] == "mlp"])
    ticks = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert sorted(ticks, key=float) == ["0", "0.03", "0.1", "0.3", "1"]


@pytest.mark.parametrize("x", ["train_shift", "step", "margin"])
@pytest.mark.parametrize("left_out", [[], ["train_shift", "arm", "seed", "step", "agent"]])
def test_rows_of_one_model_give_a_figure(rows, x, left_out):
    one = rows.query("arm == 'mlp' and agent == 'trained' and seed == 0 and train_shift == 0 and step == 102400")
    one = one.drop(columns=left_out)
    if x != "margin":
        one = one.assign(train_shift=np.nan)
    figure = plot_curve(one, x)
    figure.savefig(Path("/dev/null"), format="png")
    assert any(axes.patches or axes.lines for axes in figure.axes)


def test_one_seed_has_no_interval_and_no_warning(rows, tmp_path):
    save_figure(plot_curve(rows.loc[rows["seed"] <= 0]), tmp_path / "one-seed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one-seed.png", "one-seed.svg"]


def test_unknown_axis():
    with pytest.raises(ValueError, match="'reward'"):
        plot_curve(pd.DataFrame(), "reward")
