"""The figures of a run: those that its rows can fill, their captions, and the commands that draw them again."""

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from astray.envs import InputError, find_world
from astray.experiments import sums
from astray.experiments.charts import plot_matrix, plot_modes, plot_posterior, plot_preference
from astray.experiments.curves import AXES, FIRST, Axis, curve_points, on_shared_levels, plot_curve
from astray.experiments.drawing import save_figure, sign
from astray.experiments.files import read_json
from astray.experiments.maps import plot_maps
from astray.experiments.metrics import CAPABLE, last_checkpoint, over_seeds
from astray.experiments.overlay import plot_overlay
from astray.experiments.posterior import COLUMNS
from astray.experiments.statistics import SPLIT

GROUPS = (
    f"Where seeds fall into groups, with a stretch of more than {SPLIT} between them, each group has a dash with its "
    "share of the seeds, and there is neither mean nor interval."
)


@dataclass(frozen=True)
class Run:
    """What the figures of a run are drawn from.

    Attributes:
        folder: the run folder as the user named it, for the commands.
        config: the study's fields, with the goals' names in "goals".
        rows: all episodes.
        maps: entries of `maps.json`; older runs have none.
    """

    folder: Path
    config: Mapping[str, Any]
    rows: pd.DataFrame
    maps: Sequence[Mapping[str, Any]] = field(default_factory=list)

    @property
    def goals(self) -> tuple[str, str]:
        """The names of the intended and the proxy goal."""
        intended, proxy, *_ = [*self.config.get("goals", ("cheese", "corner")), "no other goal"]
        return intended, proxy

    def command(self, name: str) -> str:
        """The command that draws a figure again."""
        return f"astray curve {shown(self.folder)} --figure {name}"


def shown(folder: Path) -> str:
    """A folder's name as one types it, in text that can be drawn and printed whatever the locale is."""
    return shlex.quote(os.fsencode(folder).decode(errors="replace"))


def read_maps(folder: Path) -> list[dict[str, Any]]:
    """The maps of a run folder; none where there is no such file."""
    path = folder / "maps.json"
    return read_json(path) if path.exists() else []


def draw_figures(run: Run) -> list[tuple[str, Figure, str]]:
    """Name, figure and caption of every figure that a run can fill, in the order of the page."""
    return [(name, _drawn(run, name, make), caption) for name, (make, caption) in _offers(run).items()]


def draw(folders: Sequence[Path], name: str = "train_shift", out: Path | None = None) -> Path:
    """Draw and save one figure of a run, or the curves of several runs over each other.

    Args:
        folders: one or more run folders.
        name: of one run, any figure of its page; of several, "train_shift", "step" or "margin".
        out: the file, its ending left out (default: into the run's figures; for several runs, here).

    Returns:
        The file without its ending.

    Raises:
        InputError: a folder is no run folder, or there is no such figure; the sentence lists those that there are.
        OSError: a file is damaged or cannot be written.
    """
    from astray.experiments.run import open_run  # which imports this module, for the page

    opened = {folder: open_run(folder) for folder in folders}
    if out is not None and out.suffix in (".png", ".svg"):
        out = out.with_suffix("")
    if len(opened) > 1:
        if name not in AXES:
            raise InputError(f"figure={name!r} of several runs must be one of {', '.join(AXES)}")
        figure = plot_overlay({_short(folder, folders): rows for folder, (_, rows) in opened.items()}, name)
        sign(figure, f"astray curve {' '.join(map(shown, folders))} --figure {name}")
        out = out or Path(f"{name}-of-{'-'.join(folder.resolve().name for folder in opened)}")
        save_figure(figure, out)
        return out
    [(folder, (config, rows))] = opened.items()
    run = Run(folder, config, rows, read_maps(folder))
    offers = _offers(run)
    if name not in offers:
        raise InputError(f"figure={name!r} must be one of those that this run has: {', '.join(offers)}")
    path = out or folder / "figures" / name
    save_figure(_drawn(run, name, offers[name][0]), path)
    if not out and (folder / sums.NAME).exists():
        sums.register(folder, [path.with_name(f"{name}.{ending}") for ending in ("png", "svg")])
    return path


def _drawn(run: Run, name: str, make: Callable[[], Figure]) -> Figure:
    figure = make()
    sign(figure, run.command(name))
    return figure


def _short(folder: Path, folders: Sequence[Path]) -> str:
    """A run's name in a legend: its folder's, where that is no other's too."""
    name = shown(Path(folder.resolve().name))
    return shown(folder) if [each.resolve().name for each in folders].count(name) > 1 else name


def _offers(run: Run) -> dict[str, tuple[Callable[[], Figure], str]]:
    """What a run can fill: by the figure's name, what makes it, and its caption."""
    rows, (intended, proxy) = run.rows, run.goals
    trained = rows.loc[rows["agent"] == "trained"]
    last = last_checkpoint(trained)
    distinguishing = last.loc[last["level_class"] == "distinguishing"]
    numbers = ", ".join(f"{arm} {cell['seed'].nunique()}" for arm, cell in last.groupby("arm"))
    levels = distinguishing["level"].nunique()
    seeds = f"Seeds: {numbers or 'none yet'}. {levels} distinguishing levels, the same for every seed."
    offers: dict[str, tuple[Callable[[], Figure], str]] = {}

    def offer(name: str, make: Callable[..., Figure], *sentences: str) -> None:
        offers[name] = (partial(make, intended=intended, proxy=proxy), " ".join(filter(None, sentences)))

    if trained["train_shift"].nunique() > 1:
        offer(
            "train_shift",
            partial(plot_curve, rows, "train_shift"),
            "What the agent goes for on distinguishing levels, against the share of shifted levels it was trained on "
            "(logarithmic, with 0). Left of each panel, for comparison: random, untrained (on the levels of the tests "
            "during training), state-blind (the trained agent's own action frequencies, replayed, at the lowest train "
            "shift), and an expert for each goal. Each seed's last checkpoint.",
            seeds,
            _method(trained, "train_shift"),
        )
    else:
        offer(
            "outcomes",
            partial(plot_curve, rows, "train_shift"),
            "Share of each outcome per class of levels, all seeds together.",
            seeds,
        )
    if len(distinguishing):
        offer(
            "preference",
            partial(plot_preference, rows),
            "Capability (the share of episodes that reach a goal) against preference (the share that reach the "
            f"{intended} first of those that reach one goal first): a mark per seed, sampled actions. Hollow marks "
            f"are there for comparison. A verdict needs a capability of {CAPABLE}.",
            seeds,
        )
    if trained["step"].nunique() > 1:
        shared = on_shared_levels(trained.loc[trained["level_class"] == "distinguishing"])
        timing = f"Seeds: {numbers}. {shared['level'].nunique()} distinguishing levels that all checkpoints share."
        offer(
            "step",
            partial(plot_curve, rows, "step"),
            "Outcomes on distinguishing levels against training steps (step 0 is the untrained policy), with "
            "success on ambiguous levels as a thin line: competence and goal need not settle at once.",
            timing,
            _method(trained, "step"),
        )
        if trained.groupby("arm")["train_shift"].nunique().max() > 1:
            offer(
                "matrix",
                partial(plot_matrix, rows),
                f"{proxy.capitalize()} first minus {intended} first, for each train shift and training step: mean over "
                "seeds, sampled actions. A cell whose seeds fall into groups is divided among them, and shows how many "
                "seeds each has.",
                timing,
            )
    if len(set(distinguishing["margin"].dropna())) > 1:
        offer(
            "margin",
            partial(plot_curve, rows, "margin"),
            f"Outcomes against margin, the discounted value lost on the {intended} by going for the {proxy} "
            "first. An agent that only confuses close calls fails at small margins; one that pursues the "
            "proxy goal fails at every margin. Up to six bins of about equally many levels, at their means.",
            seeds,
            _method(trained, "margin"),
        )
    if len(set(last["mode"])) > 1:
        offer(
            "modes",
            partial(plot_modes, rows),
            "Actions sampled from the policy, and its most likely ones (greedy). Large marks are means over "
            "seeds, or over each group that seeds fall into; small ones are seeds.",
            seeds,
        )
    if has_posterior(distinguishing):
        offer(
            "posterior",
            partial(plot_posterior, rows),
            f"What explains the actions before any goal was reached: going for the {intended}, going for the {proxy}, "
            "a habit of direction whatever is seen, or none of these. Each episode's posterior (Boltzmann-rational "
            "agents, every candidate equally likely beforehand), mean over episodes; a bar per seed, and below, for "
            "comparison, one for each agent that needs no training.",
            seeds,
        )
    if run.maps:
        levels = len({entry["level"] for entry in run.maps})
        offer(
            "maps",
            partial(plot_maps, run.maps, _glyph_names(run)),
            "One policy per line (seed 0). Visits: steps that an episode stands in a cell, mean of one sampled episode "
            "from every start, on a root scale. Preferred action: the area of an arrow is the probability of its "
            "action at the start of an episode there. Value estimate: the discounted reward that the policy expects.",
            f"{levels} distinguishing level{'s' * (levels > 1)}.",
        )
    return offers


def has_posterior(rows: pd.DataFrame) -> bool:
    """Whether rows have what a goal posterior needs; those of older runs do not."""
    return set(COLUMNS) <= set(rows) and len(rows) > 0


def _method(trained: pd.DataFrame, x: Axis) -> str:
    """How the intervals of a curve were made, and that seeds fall into groups, where they do."""
    points = curve_points(trained.loc[trained["level_class"] == "distinguishing"], x)
    by = ["arm", "train_shift", "mode", "x"]
    tables = [over_seeds(points, by, metric) for metric in FIRST.values()]
    means = pd.concat(tables)
    methods = sorted(set(means.loc[means["n"] > 1, "method"]))
    sentences = [f"Intervals: 95%, {' and '.join(methods)}." if methods else "A single seed has no interval."]
    if max(map(len, means["modes"])) > 1:
        sentences.append(GROUPS)
    return " ".join(sentences)


def _glyph_names(run: Run) -> dict[str, str]:
    """What the glyphs of a world stand for; nothing if the world is not known here."""
    try:
        return dict(getattr(find_world(run.config["world"]), "things", {}))
    except InputError:
        return {}
