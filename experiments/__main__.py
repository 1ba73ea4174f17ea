"""The command line: ``astray worlds | play | run | report | curve | compare | doctor``."""

import os
import sys
from pathlib import Path
from typing import Annotated

import tyro

from astray.envs import InputError, worlds
from astray.experiments.selection import Selection, load_study


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
    selection: Annotated[Selection, tyro.conf.arg(name="")],
    jobs: int = max(1, os.cpu_count() or 1),
    out: Path | None = None,
    quick: bool = False,
    dry_run: bool = False,
) -> None:
    """Train at several shifts, test on certified levels, write rows, curves and page. A rerun continues.

    Args:
        study: Name of a study, or path of a Python file that defines STUDY.
        selection: What of it to run.
        jobs: Cells at once, one process with one thread each.
        out: Run folder (default: runs/STUDY, or runs/STUDY-quick).
        quick: The study's short form.
        dry_run: Only say what would be run, and how long it would take.
    """
    module = load_study(study)
    if quick and not hasattr(module, "QUICK"):
        raise InputError(f"quick: study={study!r} defines no QUICK")
    chosen = selection.of(module.QUICK if quick else module.STUDY)
    if dry_run:
        from astray.experiments.estimate import show_estimate

        show_estimate(chosen, jobs)
        return
    from astray.experiments.run import run_study

    folder = out or Path("runs") / f"{Path(study).stem}{'-quick' if quick else ''}"
    run_study(chosen, folder, jobs, source=study if study.endswith(".py") else None)
    print(f"report: {folder / 'report.html'}")


def report(folder: Annotated[Path, tyro.conf.Positional]) -> None:
    """Rebuild every figure and the page from the stored rows.

    Args:
        folder: A run folder.
    """
    from astray.experiments.run import republish

    republish(folder)
    print(f"report: {folder / 'report.html'}")


def curve(
    folders: Annotated[list[Path], tyro.conf.Positional],
    figure: str = "train_shift",
    out: Path | None = None,
) -> None:
    """Draw one figure of a run, or the curves of several runs over each other.

    Args:
        folders: Run folders.
        figure: Of one run, any figure of its page; of several, "train_shift", "step" or "margin".
        out: The file without its ending, for PNG and SVG (default: the run's figures, or FIGURE-of-RUNS here).
    """
    from astray.experiments.figures import draw

    print(f"figure: {draw(folders, figure, out)}.png, .svg")


def compare(
    first: Annotated[Path, tyro.conf.Positional],
    second: Annotated[Path, tyro.conf.Positional],
) -> None:
    """What differs between two runs, paired by level: second minus first, with intervals.

    Args:
        first: A run folder.
        second: Another.
    """
    from astray.experiments.compare import show

    show(first, second)


def doctor() -> None:
    """Versions, device, threads, models, and what would be slow here and why."""
    from astray.experiments.doctor import show

    sys.exit(show())


def main() -> None:
    """Runs the command line. Exit status 2 for bad input, 1 for what goes wrong later, 130 for Ctrl-C."""
    if sys.getfilesystemencoding() != "utf-8":  # TensorBoard and Matplotlib take no other names of files
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, "-m", "astray.experiments", *sys.argv[1:]])
    commands = {
        "worlds": show_worlds,
        "play": play,
        "run": run,
        "report": report,
        "curve": curve,
        "compare": compare,
        "doctor": doctor,
    }
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
