"""What a study would cost: cells, steps, and the time that they would take here, from a short measurement."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.table import Table

from astray.experiments.cell import last_tests, make_model
from astray.experiments.display import duration
from astray.experiments.evaluation import evaluate
from astray.experiments.files import write_json
from astray.experiments.run import language_model_dtype
from astray.experiments.study import Arm, Cell, Study

ROLLOUTS = 2
"""Measured of each arm, after its first test; the first of them is not like the others, so two is the least."""


@dataclass(frozen=True)
class Estimate:
    """The cost of an arm.

    Attributes:
        arm: which.
        cells: how many.
        train: seconds of training in each.
        test: seconds of tests in each.
    """

    arm: Arm
    cells: int
    train: float
    test: float


def estimates(study: Study) -> Iterator[Estimate]:
    """Trains two rollouts of each arm's first cell, tests once, and scales up; leaves no files."""
    torch.set_num_threads(1)
    levels, timing_levels = study.levels()
    for arm in study.arms:
        cell = Cell(arm, arm.train_shifts[0], 0)
        arguments = study.arguments | arm.arguments
        with TemporaryDirectory() as folder:
            write_json(Path(folder) / "environment.json", {"language_model_dtype": language_model_dtype(study)})
            model = make_model(study, cell, Path(folder))
            rollout = model.n_steps * model.n_envs
            start = time.monotonic()
            evaluate(model, study.world, timing_levels, ("sampled",), **arguments)
            tested = time.monotonic()
            model.learn(ROLLOUTS * rollout)
            trained = time.monotonic()
            last_tests(study, cell, model, levels)
            end = time.monotonic()
        tests = 1 + arm.steps // arm.test_every
        yield Estimate(
            arm,
            cells=len(arm.train_shifts) * arm.seeds,
            train=(trained - tested) * arm.steps / (ROLLOUTS * rollout),
            test=(tested - start) * tests + end - trained,
        )


def show_estimate(study: Study, jobs: int) -> None:
    """Prints what ``astray run`` would do, and how long it would take."""
    console = Console()
    table = Table(title=f"{study.name}: {len(study.cells()) + 1} cells, the references among them")
    for column in ("arm", "train shifts", "seeds", "cells", "steps", "steps/s", "test time", "all cells"):
        table.add_column(column, justify="left" if column in ("arm", "train shifts") else "right")
    seconds = 0.0
    with console.status("measuring each arm") if console.is_terminal else nullcontext():
        for each in estimates(study):
            arm, own = each.arm, each.cells * (each.train + each.test)
            table.add_row(
                arm.name,
                " ".join(f"{shift:g}" for shift in arm.train_shifts),
                str(arm.seeds),
                str(each.cells),
                f"{arm.steps:,}",
                f"{arm.steps / each.train:,.0f}",
                f"{each.test / (each.train + each.test):.0%}",
                duration(own),
            )
            seconds += own
    console.print(table)
    console.print(f"About {duration(seconds / jobs)} with --jobs {jobs}, if that many cores are free.")
