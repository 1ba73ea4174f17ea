"""The page of a run: claim, curves, table, episodes and what was run, rebuilt from the stored rows alone."""

import base64
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from astray.experiments.curves import plot_curve, plot_modes
from astray.experiments.drawing import save_figure
from astray.experiments.files import read_json, read_rows, write_text
from astray.experiments.metrics import (
    Metric,
    capability,
    clopper_pearson,
    conflict_mass,
    intended_first,
    interval,
    last_checkpoint,
    per_seed,
    proxy_first,
    success,
    verdict,
)

DECORRELATED = 1.0  # the train shift whose levels tell the goals apart
GOALS = ("intended", "proxy")
NO_SEEDS = -1  # the seed of agents that are not trained


def write_report(run_folder: str | Path) -> Path:
    """Draw every figure of a run and write its page, `report.html`, which needs no other file.

    Reads `config.json` (the study's fields; "cells" names every cell, "quick" marks a trial), `rows.parquet`,
    and, where they are, `environment.json`, `episodes.json`, `rows/<cell>.parquet` (finished cells) and
    `rows/<cell>.error.txt` (failed ones). May be called while cells are still to come, and again.

    Returns:
        The page's path.

    Raises:
        OSError: the folder has no `config.json` or no `rows.parquet`, or one is damaged.
    """
    folder = Path(run_folder)
    config = read_json(folder / "config.json")
    rows = read_rows(folder / "rows.parquet")
    intended, proxy = config.get("goals", ("cheese", "corner"))
    figures = []
    for name, figure, caption in _figures(rows, intended, proxy):
        save_figure(figure, folder / "figures" / name)
        drawing = base64.b64encode((folder / "figures" / f"{name}.svg").read_bytes()).decode()
        figures.append(dict(svg=drawing, caption=caption))
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("report.html.jinja").render(
        title=rows["study"].iloc[0],
        folder=folder,
        quick=config.get("quick", False),
        cells=_cells(folder, config.get("cells", [])),
        claims=_claims(rows, intended, proxy),
        figures=figures,
        table=_table(rows),
        blind=_blind_success(rows),
        levels=_levels(rows),
        intended=intended,
        proxy=proxy,
        episodes=_read(folder / "episodes.json", absent=[]),
        arms={arm["name"]: _plain(arm) for arm in config.pop("arms", [])},
        study={name: _plain(value) for name, value in config.items() if name != "cells"},
        environment={name: _plain(value) for name, value in _read(folder / "environment.json", absent={}).items()},
        versions={package: version(package) for package in ("astray", "pandas", "scipy", "matplotlib")},
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def _read(path: Path, absent: Any) -> Any:
    """What a JSON file holds, or `absent` where there is no file."""
    return read_json(path) if path.exists() else absent


def _cells(folder: Path, names: list[str]) -> dict[str, Any]:
    """Names of finished and coming cells, and the errors of failed ones."""
    finished = [name for name in names if (folder / "rows" / f"{name}.parquet").exists()]
    errors = {name: folder / "rows" / f"{name}.error.txt" for name in names if name not in finished}
    failed = {name: error.read_text().strip() for name, error in errors.items() if error.exists()}
    coming = [name for name in names if name not in finished and name not in failed]
    return dict(finished=finished, failed=failed, coming=coming)


def _claims(rows: pd.DataFrame, intended: str, proxy: str) -> list[dict[str, Any]]:
    """The verdict of each arm trained on ambiguous levels alone, and whether greedy actions change it."""
    trained = last_checkpoint(rows.loc[rows["agent"] == "trained"])
    claims = []
    for arm, cell in trained.loc[trained["train_shift"] == 0].groupby("arm"):
        control = trained.loc[(trained["arm"] == arm) & (trained["train_shift"] == DECORRELATED)]
        verdicts = {}
        for mode in ("sampled", "greedy"):
            own, other = cell.loc[cell["mode"] == mode], control.loc[control["mode"] == mode]
            if len(own):
                verdicts[mode] = verdict(own, other if len(other) else None)
        claims.append({"arm": arm} | {mode: v.sentence(intended, proxy) for mode, v in verdicts.items()})
    return claims


def _figures(rows: pd.DataFrame, intended: str, proxy: str) -> list[tuple[str, Figure, str]]:
    """Name, figure and caption of every figure that these rows can fill."""
    trained = rows.loc[rows["agent"] == "trained"]
    last = last_checkpoint(trained)
    distinguishing = last.loc[last["level_class"] == "distinguishing"]
    counts = [f"{arm} {len(set(cell['seed']))}" for arm, cell in last.groupby("arm")]
    seeds = f"Seeds: {', '.join(counts)}."
    levels = f"{len(set(distinguishing['level']))} distinguishing levels, the same for every seed."
    method = "Intervals: 95%, Student's t over seeds."
    names = dict(intended=intended, proxy=proxy)
    figures = []
    if trained["train_shift"].nunique() > 1:
        caption = (
            "What the agent goes for on distinguishing levels, against the share of shifted levels it was trained on "
            "(logarithmic, with 0). Left of each panel, agents that learned nothing: random, untrained (on the levels "
            "of the tests during training), state-blind (the trained agent's own action frequencies, replayed, at the "
            f"lowest train shift), and an expert for each goal. Each seed's last checkpoint. {seeds} {levels} {method}"
        )
        figures.append(("train_shift", plot_curve(rows, "train_shift", **names), caption))
    else:
        caption = f"Share of each outcome per class of levels, all seeds together. {seeds} {levels}"
        figures.append(("outcomes", plot_curve(rows, "train_shift", **names), caption))
    if trained["step"].nunique() > 1:
        caption = (
            "Outcomes on distinguishing levels against training steps (step 0 is the untrained policy), with "
            "success on ambiguous levels as a thin line: competence and goal need not settle at once. Only "
            f"levels that all checkpoints were tested on. {seeds} {method}"
        )
        figures.append(("steps", plot_curve(rows, "step", **names), caption))
    if distinguishing["margin"].nunique() > 1:
        caption = (
            f"Outcomes against margin, the discounted value lost on the {intended} by going for the {proxy} "
            "first. An agent that only confuses close calls fails at small margins; one that pursues the "
            "proxy goal fails at every margin. Up to six bins of about equally many levels, at their means. "
            f"{seeds} {levels} {method}"
        )
        figures.append(("margin", plot_curve(rows, "margin", **names), caption))
    if len(set(last["mode"])) > 1:
        caption = (
            "Actions sampled from the policy, and its most likely ones (greedy). Large marks are means over "
            f"seeds, small ones seeds. {seeds} {levels}"
        )
        figures.append(("modes", plot_modes(rows, **names), caption))
    return figures


def _table(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """One line per arm and train shift, then one per reference (and arm, where it has seeds)."""
    trained = rows.loc[rows["agent"] == "trained"]
    cells = last_checkpoint(trained).groupby(["arm", "train_shift"], dropna=False)
    lines = [_line(str(cell["arm"].iloc[0]), cell, reference=False) for _, cell in cells]
    lowest = rows.loc[rows["train_shift"].isna() | (rows["train_shift"] == rows["train_shift"].min())]
    untrained = (lowest["agent"] == "trained") & (lowest["step"] == 0)
    references = lowest.assign(agent=lowest["agent"].mask(untrained, "untrained"))
    references = references.loc[references["agent"] != "trained"]
    for agent, every in references.groupby("agent"):
        if set(every["seed"]) == {NO_SEEDS}:
            lines.append(_line(str(agent), every, reference=True))
        else:
            lines += [_line(f"{arm}, {agent}", own, reference=True) for arm, own in every.groupby("arm")]
    return lines


def _line(name: str, cell: pd.DataFrame, reference: bool) -> dict[str, Any]:
    """A line of the table: one agent at one checkpoint per seed."""
    ambiguous = cell.loc[(cell["level_class"] == "ambiguous") & (cell["mode"] == "sampled")]
    distinguishing = cell.loc[cell["level_class"] == "distinguishing"]
    sampled = distinguishing.loc[distinguishing["mode"] == "sampled"]
    greedy = distinguishing.loc[distinguishing["mode"] == "greedy"]
    shift, seeds = cell["train_shift"].iloc[0], set(cell["seed"]) - {NO_SEEDS}
    return dict(
        name=name,
        reference=reference,
        train_shift="" if pd.isna(shift) else f"{shift:g}",
        seeds=len(seeds) or "",
        rates=[
            _rate(ambiguous, success),
            _rate(sampled, capability),
            _rate(sampled, intended_first),
            _rate(sampled, proxy_first),
            _rate(greedy, capability),
            _rate(greedy, intended_first),
            _rate(greedy, proxy_first),
        ],
        mass=_mass(sampled),
    )


def _rate(rows: pd.DataFrame, metric: Metric) -> tuple[str, str]:
    """A rate and its interval as text: over seeds, or, for agents that are not trained, over episodes."""
    if rows.empty:
        return "", ""
    if set(rows["seed"]) == {NO_SEEDS}:
        rate = metric(rows)
        low, high = clopper_pearson(round(rate * len(rows)), len(rows))
        return f"{rate:.2f}", f"{low:.2f}–{high:.2f}*"
    seeds = interval(per_seed(rows, metric))
    return f"{seeds.mean:.2f}", f"{seeds.low:.2f}–{seeds.high:.2f}" if seeds.n > 1 else "n = 1"


def _mass(rows: pd.DataFrame) -> str:
    """Conflict mass of both goals, means over the seeds that have one."""
    means = [interval(per_seed(rows, lambda seed, goal=goal: conflict_mass(seed, goal))) for goal in GOALS]
    return " / ".join(f"{mean.mean:.2f}" for mean in means) if means[0].n else ""


def _blind_success(rows: pd.DataFrame) -> float | None:
    """The highest success of any seed's state-blind policy on ambiguous levels; None where none was tested."""
    blind = rows.loc[(rows["agent"] == "state-blind") & (rows["level_class"] == "ambiguous")]
    seeds = blind.groupby(["arm", "train_shift", "seed"])
    return max((success(seed) for _, seed in seeds), default=None)


def _levels(rows: pd.DataFrame) -> dict[str, int]:
    """Number of certified levels of each class."""
    levels = rows[["level", "level_class"]].drop_duplicates()
    return {str(name): len(group) for name, group in levels.groupby("level_class")}


def _plain(value: Any) -> str:
    """A field of the study as text."""
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_plain(each)}" for name, each in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_plain, value)) or "none"
    return str(value)
