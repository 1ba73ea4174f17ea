"""The page of a run: claim, curves, tables, maps, episodes and what was run, rebuilt from the stored rows alone."""

import base64
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from astray.experiments.drawing import save_figure
from astray.experiments.figures import Run, draw_figures, read_maps, shown
from astray.experiments.files import read_json, read_rows, write_text
from astray.experiments.machine import MAIN_PACKAGES
from astray.experiments.metrics import last_checkpoint, success
from astray.experiments.tables import action_columns, make_table, outcome_columns, value_columns
from astray.experiments.verdict import verdict

DECORRELATED = 1.0  # the train shift whose levels tell the goals apart
MAIN = ("python", *MAIN_PACKAGES)
OF_ACTIONS = ("posterior", "maps")
"""The figures that stand beside the table of what the actions say."""


def write_report(run_folder: str | Path) -> Path:
    """Draw every figure of a run and write its page, `report.html`, which needs no other file.

    Reads `config.json` (the study's fields; "cells" names every cell, "quick" marks a trial), `rows.parquet`,
    and, where they are, `environment*.json`, `maps.json`, `episodes.json`, `rows/<cell>.parquet` (finished cells) and
    `rows/<cell>.error.txt` (failed ones). May be called while cells are still to come, and again.

    Returns:
        The page's path.

    Raises:
        OSError: the folder has no `config.json` or no `rows.parquet`, or one is damaged.
    """
    folder = Path(run_folder)
    config = read_json(folder / "config.json")
    rows = read_rows(folder / "rows.parquet")
    run = Run(folder, config, rows, read_maps(folder))
    intended, proxy = run.goals
    figures = []
    for name, figure, caption in draw_figures(run):
        save_figure(figure, folder / "figures" / name)
        drawing = base64.b64encode((folder / "figures" / f"{name}.svg").read_bytes()).decode()
        figures.append(dict(name=name, svg=drawing, caption=caption, command=run.command(name)))
    figures.sort(key=lambda figure: figure["name"] in OF_ACTIONS)
    loader = FileSystemLoader(Path(__file__).parent, encoding="utf-8")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    fields = {name: value for name, value in config.items() if name not in ("arms", "cells")}
    page = environment.get_template("report.html.jinja").render(
        title=rows["study"].iloc[0],
        folder=shown(folder),
        quick=config.get("quick", False),
        cells=_cells(folder, config.get("cells", [])),
        claims=_claims(rows, intended, proxy),
        figures=figures,
        of_actions=OF_ACTIONS,
        outcomes=make_table(rows, outcome_columns(intended, proxy)),
        values=make_table(rows, value_columns(rows, intended, proxy)),
        actions=make_table(rows, action_columns(rows, intended, proxy)),
        blind=_blind_success(rows),
        levels=_levels(rows),
        intended=intended,
        proxy=proxy,
        episodes=_read(folder / "episodes.json", absent=[]),
        arms={arm["name"]: _plain({k: v for k, v in arm.items() if k != "name"}) for arm in config.get("arms", [])},
        study={name: _plain(value) for name, value in fields.items()},
        environments=_environments(folder),
        drawn_with={package: version(package) for package in ("astray", "pandas", "scipy", "matplotlib")},
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
    failed = {name: error.read_text(encoding="utf-8").strip() for name, error in errors.items() if error.exists()}
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


def _blind_success(rows: pd.DataFrame) -> float | None:
    """The highest success of any seed's state-blind policy on ambiguous levels; None where none was tested."""
    blind = rows.loc[(rows["agent"] == "state-blind") & (rows["level_class"] == "ambiguous")]
    seeds = blind.groupby(["arm", "train_shift", "seed"])
    return max((float(success(seed).mean()) for _, seed in seeds), default=None)


def _levels(rows: pd.DataFrame) -> dict[str, int]:
    """Number of certified levels of each class."""
    levels = rows[["level", "level_class"]].drop_duplicates()
    return {str(name): len(group) for name, group in levels.groupby("level_class")}


def _environments(folder: Path) -> list[dict[str, Any]]:
    """What each part of the run was made with: packages that matter most, the others, and all else."""
    paths = sorted(folder.glob("environment*.json"), key=lambda path: (len(path.name), path.name))
    told = []
    for environment in map(read_json, paths):
        versions = environment.pop("versions", {})
        main = {name: number for name, number in versions.items() if name.lower().replace("_", "-") in MAIN}
        others = {name: number for name, number in versions.items() if name not in main}
        fields = {name: _plain(value) for name, value in environment.items()}
        told.append(dict(fields=fields, main=_plain(main), others=others))
    return told


def _plain(value: Any) -> str:
    """A value of the configuration as text; what it holds in turn stands in brackets."""
    if isinstance(value, dict) and value:
        held = [(name, _plain(each), isinstance(each, dict | list) and each) for name, each in value.items()]
        return ", ".join(f"{name} ({text})" if nested else f"{name} {text}" for name, text, nested in held)
    if isinstance(value, list) and value:
        return ", ".join(map(_plain, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value in (None, "", [], {}) else str(value)
