"""Figures: what is drawn where, from rows small enough to work out by hand."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text

from astray.envs import InputError
from astray.experiments.charts import plot_matrix, plot_modes, plot_posterior, plot_preference
from astray.experiments.curves import plot_curve
from astray.experiments.drawing import COLOURS, FRAME, GREY, INK, sign
from astray.experiments.figures import Run, draw, draw_figures, read_maps
from astray.experiments.maps import plot_maps
from astray.experiments.overlay import plot_overlay
from astray.experiments.posterior import TEMPERATURES

LEVELS = 10
GOALS = ("cheese", "corner")


def episodes(intended, proxy, level_class="distinguishing", **cell):
    """Ten levels, of which so many end at each goal."""
    outcome = ["intended"] * intended + ["proxy"] * proxy + ["neither"] * (LEVELS - intended - proxy)
    told = dict(study="s", arm="mlp", agent="trained", train_shift=0.0, seed=0, step=100, mode="sampled") | cell
    rows = pd.DataFrame(
        told
        | dict(
            level=[f"{level_class}-{i}" for i in range(LEVELS)],
            level_class=level_class,
            margin=[0.1, 0.2] * 5,
            outcome=outcome,
            length=5,
        )
    )
    return rows.assign(
        intended_step=np.where(rows["outcome"] == "intended", 3, -1),
        proxy_step=np.where(rows["outcome"] == "proxy", 4, -1),
    )


def split_rows():
    """At train shift 0 all five seeds end at the proxy goal, at 0.1 three at the intended goal and two at the other."""
    parts = [episodes(0, 10, seed=seed, train_shift=0.0) for seed in range(5)]
    parts += [episodes(*((10, 0) if seed < 3 else (0, 10)), seed=seed, train_shift=0.1) for seed in range(5)]
    return pd.concat(parts, ignore_index=True)


def timed_rows():
    """Two train shifts, two steps, two seeds."""
    shares = {(0.0, 0): (2, 2), (0.0, 100): (1, 8), (0.1, 0): (2, 3), (0.1, 100): (9, 0)}
    return pd.concat(
        [
            episodes(*counts, train_shift=shift, step=step, seed=seed)
            for (shift, step), counts in shares.items()
            for seed in range(2)
        ],
        ignore_index=True,
    )


def with_likelihoods(rows):
    """Columns of the posterior in which each episode is clear: its outcome's goal, or noise."""
    flat = [0.0] * len(TEMPERATURES)
    never = [-200.0] * len(TEMPERATURES)
    return rows.assign(
        loglik_intended=[flat if outcome == "intended" else never for outcome in rows["outcome"]],
        loglik_proxy=[flat if outcome == "proxy" else never for outcome in rows["outcome"]],
        loglik_other=[never] * len(rows),
        actions=[[15, 15, 15, 15]] * len(rows),
    )


def entry(**changes):
    """A room of 3 x 3: a wall in the middle, the proxy goal in the first corner and the intended one in the last."""
    return (
        dict(
            arm="mlp",
            train_shift=0.0,
            seed=0,
            level_class="distinguishing",
            level="X..\n.#.\n..C",
            size=3,
            walls=[4],
            glyphs={"0": "X", "8": "C"},
            arrows=[[-1, 0], [1, 0], [0, -1], [0, 1]],
            starts=[1, 2],
            probabilities={"1": [0.0, 0.25, 0.75, 0.0], "2": [0.1, 0.1, 0.7, 0.1]},
            values={"1": 0.9, "2": 0.5},
            visits={"0": 2.0, "1": 1.0, "2": 0.5},
        )
        | changes
    )


def texts(figure):
    """Every text that is drawn, with its colour."""
    return {text.get_text(): text.get_color() for axes in figure.axes for text in axes.texts}


def legend(figure):
    return [text.get_text() for shown in figure.legends for text in shown.get_texts()]


def heights(axes, colour, marker="_"):
    """The heights of marks of one kind and colour, in order of their place."""
    lines = [line for line in axes.lines if line.get_marker() == marker and same_color(line.get_color(), colour)]
    points = [point for line in lines for point in zip(line.get_xdata(), line.get_ydata(), strict=True)]
    return sorted((x, y) for x, y in points if not np.isnan(y))


# -------------------------------------------------------------------------------------------------------------- curves
def test_where_seeds_fall_into_groups_a_curve_has_their_shares_and_no_mean():
    figure = plot_curve(split_rows(), "train_shift", *GOALS)
    axes = figure.axes[0]
    assert heights(axes, COLOURS["intended"]) == [(0.0, 0.0), (0.1, 0.0), (0.1, 1.0)]
    assert heights(axes, COLOURS["proxy"]) == [(0.0, 1.0), (0.1, 0.0), (0.1, 1.0)]
    shares = {(text.get_text(), text.xy[1], text.get_color()) for text in axes.texts if "/" in text.get_text()}
    assert shares == {
        ("2/5", 0.0, COLOURS["intended"]),
        ("3/5", 1.0, COLOURS["intended"]),
        ("3/5", 0.0, COLOURS["proxy"]),
        ("2/5", 1.0, COLOURS["proxy"]),
    }
    bars = [bar for bars in axes.collections for bar in bars.get_segments() if len(bar)]
    assert {x for bar in bars for x, _ in bar} == {0.0}, "there is an interval only where there is a mean"
    assert "3/5 of the seeds" in legend(figure)


def test_seeds_that_agree_have_a_mean_and_no_shares():
    figure = plot_curve(timed_rows(), "train_shift", *GOALS)
    assert heights(figure.axes[0], COLOURS["intended"]) == [(0.0, 0.1), (0.1, 0.9)]
    assert not any("/" in text for text in [*texts(figure), *legend(figure)])


def test_along_the_steps_the_same_groups_are_counted_once():
    parts = [split_rows().query("train_shift == 0.1").assign(step=step) for step in (100, 200, 300)]
    figure = plot_curve(pd.concat(parts, ignore_index=True), "step", *GOALS)
    assert len(heights(figure.axes[0], COLOURS["intended"])) == 6
    shares = [text.get_text() for text in figure.axes[0].texts if text.get_color() == COLOURS["intended"]]
    assert sorted(share for share in shares if "/" in share) == ["2/5", "3/5"]


def test_overlay_has_a_line_per_run_and_arm_and_a_dot_per_seed():
    runs = {"one": timed_rows(), "two": pd.concat([timed_rows(), timed_rows().assign(arm="rnd")])}
    figure = plot_overlay(runs, "train_shift")
    assert [axes.get_title("left") for axes in figure.axes] == ["intended goal first", "proxy goal first"]
    assert legend(figure)[:3] == ["one: mlp", "two: mlp", "two: rnd"]
    lines = [line for line in figure.axes[1].lines if line.get_linestyle() != "None"]
    assert [list(line.get_ydata()) for line in lines] == [[0.8, 0.0]] * 3
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == 3
    dots = [line for line in figure.axes[1].lines if line.get_linestyle() == "None"]
    assert sum(len(line.get_xdata()) for line in dots) == 3 * 4


@pytest.mark.parametrize("x", ["step", "margin"])
def test_overlay_has_panels_for_each_train_shift(x):
    figure = plot_overlay({"one": timed_rows(), "two": timed_rows().query("train_shift == 0")}, x)
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == [
        f"{goal} goal first, train shift {shift}" for shift in ("0", "0.1") for goal in ("intended", "proxy")
    ]


def test_overlay_of_nothing_and_of_an_unknown_axis():
    with pytest.raises(InputError, match="none of these runs"):
        plot_overlay({"one": timed_rows().query("agent == 'random'")})
    with pytest.raises(InputError, match="'reward'"):
        plot_overlay({"one": timed_rows()}, "reward")  # pyright: ignore[reportArgumentType]


# ------------------------------------------------------------------------------------------------------ what seeds want
def test_preference_places_seeds_and_counts_those_that_have_none():
    rows = pd.concat(
        [
            episodes(6, 2, seed=0),
            episodes(0, 0, seed=1),
            episodes(0, 10, agent="expert: corner", arm="references", train_shift=np.nan, seed=-1, step=0),
        ],
        ignore_index=True,
    )
    figure = plot_preference(rows, *GOALS)
    seeds, reference = (line for line in figure.axes[0].lines if line.get_linestyle() == "None")
    assert np.array_equal(np.transpose(seeds.get_data()), [[0.75, 0.8], [np.nan, 0.0]], equal_nan=True)
    assert [list(values) for values in reference.get_data()] == [[0.0], [1.0]]
    assert reference.get_markerfacecolor() == "none"
    bars = [line.get_ydata()[0] for line in figure.axes[0].lines if line.get_label() == "enough for a verdict"]
    assert bars == [0.8]
    assert {"mlp", "train shift 0", "expert", "no preference: 1 seed"} <= set(legend(figure))


def test_matrix_has_a_number_in_every_cell():
    single = timed_rows().query("train_shift == 0").assign(arm="one shift")
    figure = plot_matrix(pd.concat([timed_rows(), single], ignore_index=True), *GOALS)
    panel, bar = figure.axes
    assert panel.get_title("left") == "mlp", "an arm with one train shift has no panel"
    numbers = {tuple(text.get_position()): text.get_text() for text in panel.texts}
    assert numbers == {(0.0, 0.0): "0.00", (1.0, 0.0): "+0.70", (0.0, 1.0): "+0.10", (1.0, 1.0): "−0.90"}
    assert [label.get_text() for label in panel.get_xticklabels()] == ["0", "100"]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["0", "0.1"]
    assert [label.get_text() for label in bar.get_xticklabels()] == ["−1: cheese first", "0", "1: corner first"]


def test_matrix_divides_a_cell_among_groups_of_seeds():
    rows = split_rows()
    panel = plot_matrix(pd.concat([rows.assign(step=0), rows], ignore_index=True), *GOALS).axes[0]
    upper = [patch for patch in panel.patches if patch.get_y() == 0.5 and patch.get_x() >= 0.5]
    assert [round(patch.get_width(), 9) for patch in upper] == [0.6, 0.4]
    assert same_color(upper[0].get_facecolor(), COLOURS["intended"])
    assert same_color(upper[1].get_facecolor(), COLOURS["proxy"])
    assert sorted(text.get_text() for text in panel.texts) == ["+1.00", "+1.00", "2", "2", "3", "3"]


def test_modes_marks_each_group_of_seeds():
    axes = plot_modes(split_rows(), *GOALS).axes[0]
    large = [line for line in axes.lines if line.get_markersize() == 6 and line.get_linestyle() == "None"]
    second = sorted(line.get_xdata()[0] for line in large if round(line.get_ydata()[0]) == 1)
    assert second == [0.0, 0.0, 1.0, 1.0]


def test_posterior_is_a_bar_per_seed_that_sums_to_one():
    rows = pd.concat([episodes(8, 2, seed=0), episodes(0, 10, seed=1)], ignore_index=True)
    random = episodes(0, 0, agent="random", arm="references", train_shift=np.nan, seed=-1, step=0)
    axes = plot_posterior(with_likelihoods(pd.concat([rows, random], ignore_index=True)), *GOALS).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["mlp, train shift 0", "random"]
    bars = pd.DataFrame([(bar.get_y(), bar.get_width(), bar.get_facecolor()) for bar in axes.patches])
    assert np.allclose(bars.groupby(0)[1].sum(), 1.0)
    intended = [width for _, width, colour in bars.itertuples(index=False) if same_color(colour, COLOURS["intended"])]
    proxy = [width for _, width, colour in bars.itertuples(index=False) if same_color(colour, COLOURS["proxy"])]
    assert np.allclose(intended, [0.8, 0.0, 0.0], atol=1e-6)
    assert np.allclose(proxy, [0.2, 1.0, 0.0], atol=1e-6)


# ---------------------------------------------------------------------------------------------------------------- maps
def test_maps_show_visits_actions_and_values():
    figure = plot_maps([entry()], {"X": "corner", "C": "cheese"}, *GOALS)
    visits, actions, values = figure.axes[:3]
    assert [axes.get_title() for axes in figure.axes[:3]] == ["visits", "preferred action", "value estimate"]
    assert visits.get_ylabel() == "mlp\ntrain shift 0"
    nan = np.nan
    for axes, expected in ((visits, [2, 1, 0.5]), (values, [nan, 0.9, 0.5])):
        [image] = [child for child in axes.get_children() if isinstance(child, AxesImage)]
        shown = np.ma.filled(image.get_array(), nan)
        assert np.array_equal(shown, [expected, [nan] * 3, [nan] * 3], equal_nan=True)
    for axes in (visits, actions, values):
        [wall] = axes.patches
        assert (wall.get_x(), wall.get_y()) == (0.5, 0.5)
        assert wall.get_hatch()
        glyphs = {text.get_text(): (text.get_position(), text.get_color()) for text in axes.texts}
        assert glyphs == {"X": ((0, 0), COLOURS["proxy"]), "C": ((2, 2), COLOURS["intended"])}
    assert {"corner", "cheese", "wall", "likeliest action", "other actions"} == set(legend(figure))


def test_an_arrow_points_along_its_action_and_has_the_area_of_its_probability():
    figure = plot_maps([entry(probabilities={"1": [0.0, 0.25, 0.75, 0.0]})], {}, *GOALS)
    [arrows] = figure.axes[1].collections
    shapes = [path.vertices[:-1] for path in arrows.get_paths()]
    area = [abs(np.sum(x * np.roll(y, 1) - y * np.roll(x, 1))) / 2 for x, y in (shape.T for shape in shapes)]
    assert np.allclose(sorted(area), np.array([0, 0, 0.25, 0.75]) / 0.75 * max(area))
    largest = shapes[int(np.argmax(area))]
    assert largest[:, 0].min() < 0.7, "the likeliest action leads west, from column 1"
    assert np.allclose(largest[:, 1].mean(), 0.0)
    assert same_color(arrows.get_facecolors()[np.argmax(area)], INK)
    assert same_color(arrows.get_facecolors()[np.argsort(area)[-2]], FRAME)


def test_maps_of_a_policy_without_values():
    without = {name: value for name, value in entry(arm="lm").items() if name != "values"}
    figure = plot_maps([entry(), without], {}, *GOALS)
    assert texts(figure)["none"] == GREY
    assert [axes.get_title() for axes in plot_maps([without], {}, *GOALS).axes[:2]] == ["visits", "preferred action"]
    assert {"X", "C"} <= set(legend(figure)), "an unknown world's glyphs stand for themselves"


# ----------------------------------------------------------------------------------------------- all figures of a run
@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a run"
    greedy = timed_rows().query("step == 100").assign(mode="greedy")
    write(folder, with_likelihoods(pd.concat([timed_rows(), greedy], ignore_index=True)))
    (folder / "maps.json").write_text(json.dumps([entry(), entry(train_shift=0.1)]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def drawn(folder):
    return draw_figures(load(folder))


def write(folder: Path, rows: pd.DataFrame) -> None:
    folder.mkdir()
    config = {"name": "s", "world": "cheese-corner", "goals": GOALS, "cells": []}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    rows.to_parquet(folder / "rows.parquet")


def load(folder: Path) -> Run:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return Run(folder, config, pd.read_parquet(folder / "rows.parquet"), read_maps(folder))


def test_nothing_is_cut_off_or_too_small(drawn):
    crowded = [
        split_rows(),
        split_rows().assign(mode="greedy"),
        episodes(10, 0, "ambiguous"),
        episodes(2, 2, agent="random", train_shift=np.nan, seed=-1, step=0),
    ]
    long = plot_curve(pd.concat(crowded, ignore_index=True))
    sign(long, f"astray curve {'a-very-long-folder/' * 15} --figure train_shift")
    for figure in [*(figure for _, figure, _ in drawn), plot_overlay({"a": split_rows(), "b": timed_rows()}), long]:
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        drawn_on = figure.get_tightbbox(renderer)
        assert drawn_on.x0 >= 0 and drawn_on.x1 <= figure.get_figwidth()
        assert drawn_on.y0 >= 0 and drawn_on.y1 <= figure.get_figheight()
        sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text() and text not in figure.texts]
        assert min(sizes) >= 7


def test_a_run_has_the_figures_that_its_rows_can_fill(drawn, tmp_path):
    names = [name for name, _, _ in drawn]
    assert names == ["train_shift", "preference", "step", "matrix", "margin", "modes", "posterior", "maps"]
    write(tmp_path / "old", timed_rows().query("step == 100 and train_shift == 0").assign(margin=np.nan))
    assert [name for name, _, _ in draw_figures(load(tmp_path / "old"))] == ["outcomes", "preference"]


def test_captions_say_n_and_method(drawn, folder):
    for name, figure, caption in drawn:
        foot = [text.get_text() for text in figure.texts]
        assert foot == [f"astray curve '{folder}' --figure {name}"], "a folder with a space is quoted"
        if name == "maps":
            assert "1 distinguishing level." in caption
        else:
            assert "Seeds: mlp 2. 10 distinguishing levels" in caption
        assert ("Intervals: 95%, Korn-Graubard over seeds." in caption) == (name in ("train_shift", "step", "margin"))
        assert "fall into groups, with" not in caption


def test_captions_say_where_seeds_fall_into_groups_or_are_single(tmp_path):
    split = Run(tmp_path, {"world": "unknown", "goals": GOALS}, split_rows())
    captions = {name: caption for name, _, caption in draw_figures(split)}
    assert "each group has a dash with its share of the seeds" in captions["train_shift"]
    single = Run(tmp_path, {"world": "unknown", "goals": GOALS}, split_rows().query("seed == 0"))
    captions = {name: caption for name, _, caption in draw_figures(single)}
    assert "A single seed has no interval." in captions["train_shift"]


def test_draw_saves_a_figure_of_a_run(folder, tmp_path):
    assert draw([folder], "matrix") == folder / "figures" / "matrix"
    assert sorted(path.name for path in (folder / "figures").iterdir()) == ["matrix.png", "matrix.svg"]
    assert draw([folder], "maps", tmp_path / "m.v1.png") == tmp_path / "m.v1"
    assert (tmp_path / "m.v1.svg").exists()
    with pytest.raises(InputError, match=r"'reward' must be one of .*train_shift.*maps"):
        draw([folder], "reward")


def test_draw_saves_curves_of_several_runs(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "other", split_rows())
    assert draw([folder, Path("other")]) == Path("train_shift-of-a run-other")
    assert (tmp_path / "train_shift-of-a run-other.png").exists()
    with pytest.raises(InputError, match="'matrix' of several runs must be one of train_shift, step, margin"):
        draw([folder, Path("other")], "matrix")
    with pytest.raises(InputError, match="no run folder"):
        draw([folder, Path("nowhere")])


def test_a_figure_is_drawn_again_with_the_same_bytes(folder, tmp_path):
    first, second = (draw([folder], "posterior", tmp_path / part / "posterior") for part in ("a", "b"))
    for ending in (".png", ".svg"):
        assert first.with_suffix(ending).read_bytes() == second.with_suffix(ending).read_bytes()


def test_sign_makes_room_at_the_foot():
    figure = Figure((8, 3), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel("steps")
    sign(figure, "astray curve run --figure step")
    assert figure.get_figheight() > 3
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    [foot] = figure.texts
    assert foot.get_window_extent(renderer).y1 <= axes.xaxis.label.get_window_extent(renderer).y0
