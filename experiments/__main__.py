"""The command line: ``astray worlds | play | run | report``."""

import importlib
import os
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated

import tyro

import astray.experiments
from astray.envs import InputError, worlds
from astray.envs.world import choose


def show_worlds() -> None:
    """Every world: intended goal, proxy goal, what the shift breaks."""
    for name, world in worlds().items():
        intended, *proxies = world.goals
        text = world.__doc__ or ""
        shift = text.partition("## Shift\n")[2].partition("\n    ## ")[0]
        print(f"{name}  ({world.id()})\n  {text.splitlines()[0]}")
        print(f"  intended goal: {intended}; proxy goal: {', '.join(proxies)}; the shift changes: {world.shift_kind}")
        print(f"  {' '.join(shift.split())}")


def play(
    world: Annotated[str, tyro.conf.Positional],
    shift: float = 0.0,
    seed: int = 0,
    size: int = 5,
    layout: str = "open",
    style: str = "relative",
) -> None:
    """Walk a level in the terminal, as the model sees it.

    Args:
        world: Name or id of the world.
        shift: Probability that the level comes from the shifted generator.
        seed: Of the level.
        size: Interior side of the room.
        layout: "open", "walls" or "maze".
        style: "relative" sentences or a "map".
    """
    from astray.experiments.play import play_world

    play_world(world, shift, seed, size=size, layout=layout, style=style)


def run(
    study: Annotated[str, tyro.conf.Positional],
    policies: list[str] | None = None,
    seeds: int | None = None,
    train_shifts: list[float] | None = None,
    jobs: int = max(1, os.cpu_count() or 1),
    out: Path | None = None,
    quick: bool = False,
) -> None:
    """Train at several shifts, test on certified levels, write rows, curves and page. A rerun continues.

    Args:
        study: Name of the study.
        policies: Only these policies.
        seeds: Training seeds of every arm, instead of the study's.
        train_shifts: Train shifts of every arm, instead of the study's.
        jobs: Cells at once, one process with one thread each.
        out: Run folder (default: runs/STUDY, or runs/STUDY-quick).
        quick: The study's short form.
    """
    known = studies()
    module = known[choose("study", study, tuple(known))]
    from astray.experiments.run import run_study
    from astray.experiments.study import select

    chosen = select(module.QUICK if quick else module.STUDY, policies, seeds, train_shifts)
    folder = out or Path("runs") / (f"{study}-quick" if quick else study)
    run_study(chosen, folder, jobs)
    print(f"report: {folder / 'report.html'}")


def report(folder: Annotated[Path, tyro.conf.Positional]) -> None:
    """Rebuild every figure and the page from the stored rows.

    Args:
        folder: A run folder.
    """
    if not (folder / "config.json").exists():
        raise InputError(f"folder={str(folder)!r} is no run folder: it holds no config.json")
    from astray.experiments.run import publish

    publish(folder)
    print(f"report: {folder / 'report.html'}")


def studies() -> dict[str, ModuleType]:
    """Command-line name to module of every study: the files in this folder that define ``STUDY``."""
    names = [module.name for module in pkgutil.iter_modules(astray.experiments.__path__) if module.name != "__main__"]
    modules = {name.replace("_", "-"): importlib.import_module(f"astray.experiments.{name}") for name in names}
    return {name: module for name, module in modules.items() if hasattr(module, "STUDY")}


def main() -> None:
    """Runs the command line. Exit status 2 for bad input, 1 for what goes wrong later, 130 for Ctrl-C."""
    commands = {"worlds": show_worlds, "play": play, "run": run, "report": report}
    try:
        tyro.extras.subcommand_cli_from_dict(commands, prog="astray", description="Goal misgeneralization, measured.")
        sys.stdout.flush()
    except BrokenPipeError:  # who reads us has left, as in `astray worlds | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except InputError as error:
        sys.exit(_failed(error, 2))
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(_failed(error, 1))
    except KeyboardInterrupt:
        sys.exit(_failed("stopped; the same command goes on where it was", 130))


def _failed(error: object, status: int) -> int:
    print(f"astray: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
