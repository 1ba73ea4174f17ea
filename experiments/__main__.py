"""The command line.

``astray worlds | play | levels | film | new | check`` are about worlds,
``run | report | curve | compare`` about studies, and ``doctor`` is about this machine.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from astray.envs import InputError, find_world, worlds
from astray.experiments.selection import Selection, load_study

Assignments = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
"""``--set name=value``, any number of times."""


def show_worlds() -> None:
    """Every world: intended goal, proxy goal, what the shift breaks."""
    for name, world in worlds().items():
        intended, *proxies = world.goals
        text = world.__doc__ or ""
        shift = text.partition("## Shift\n")[2].partition("\n    ## ")[0]
        print(f"{name}  ({world.id()})\n  {text.splitlines()[0]}")
        proxy = ", ".join(proxies) or "none"
        print(f"  intended goal: {intended}; proxy goal: {proxy}; the shift changes: {world.shift_kind}")
        print(f"  {' '.join(shift.split())}")


def play(
    world: Annotated[str, tyro.conf.Positional],
    shift: float = 0.0,
    seed: int = 0,
    style: str | None = None,
    set: Assignments = (),
    level: str | None = None,
    policy: str | None = None,
    greedy: bool = False,
    delay: float = 0.5,
    ansi: bool = True,
) -> None:
    """Walk a level in the terminal, as the model sees it, or watch a policy walk it.

    Args:
        world: Name or id of the world, or FILE.py:CLASS.
        shift: Probability that the level comes from the shifted generator.
        seed: Of the level, and of a policy's actions.
        style: "relative" sentences or a "map".
        set: Another argument of the world, as size=7; may be repeated.
        level: A file of levels, as `astray levels` prints them: they are played in turn.
        policy: Who plays instead of you: "random", "expert:GOAL", a .zip of Stable-Baselines3, or RUN FOLDER/CELL.
        greedy: The policy takes its most probable action.
        delay: Seconds between a policy's steps.
        ansi: Show the picture, and not only what the model reads.
    """
    from astray.experiments.levels import arguments_of, make_world, read_levels
    from astray.experiments.play import play_world, show_policy

    kind = find_world(world)
    arguments = _arguments(shift, style) | arguments_of(kind, set)
    if delay < 0:
        raise InputError(f"delay={delay} must not be negative")
    if policy is None:
        if greedy:
            raise InputError("greedy: only a policy is greedy, give one with --policy")
        levels = read_levels(kind, level, arguments).levels if level else None
        play_world(kind, seed=seed, ansi=ansi, levels=levels, **arguments)
        return
    from astray.experiments.policies import policy_of

    agent, arguments = policy_of(policy, kind, arguments, greedy)
    levels = read_levels(kind, level, arguments).levels if level else None
    show_policy(agent, make_world(kind, 1, **arguments), seed, levels, ansi, delay)


def _arguments(shift: float, style: str | None) -> dict[str, Any]:
    """A world's arguments that have options of their own; a style that is not given is left to the policy."""
    return {"shift": shift} | ({"style": style} if style else {})


def levels(
    world: Annotated[str, tyro.conf.Positional],
    count: int = 4,
    shift: float | None = None,
    seed: int = 0,
    level_class: str | None = None,
    set: Assignments = (),
    read: str | None = None,
) -> None:
    """Print levels as text that can be edited, with class, margin and the steps to each goal; or check such a file.

    Without a class they are the first that `astray play` has with this seed.

    Args:
        world: Name or id of the world, or FILE.py:CLASS.
        count: How many levels.
        shift: Probability of the shifted generator (default: 0; for distinguishing levels the decorrelated arguments).
        seed: Of the levels.
        level_class: Only "ambiguous", "distinguishing" or "neither" levels, all different.
        set: Another argument of the world, as size=7; may be repeated.
        read: Read the levels of this file instead ("-": standard input), check them, and print them.
    """
    from astray.experiments.levels import arguments_of, as_text, draw_levels, read_levels, shifted

    kind = find_world(world)
    arguments = shifted(kind, shift, level_class) | arguments_of(kind, set)
    if read is None:
        shown = draw_levels(kind, count, seed, level_class, arguments)
    elif level_class is None:
        shown = read_levels(kind, read, arguments)
    else:
        raise InputError(f"level_class={level_class!r} chooses among levels that are drawn, not those of --read")
    print(as_text(kind, shown, arguments), end="")


def film(
    world: Annotated[str, tyro.conf.Positional],
    policy: str,
    out: Path,
    episodes: int = 3,
    shift: float = 0.0,
    seed: int = 0,
    style: str | None = None,
    set: Assignments = (),
    level: str | None = None,
    greedy: bool = False,
    delay: float = 0.8,
) -> None:
    """Film a policy: an animated GIF with the picture, what the model reads, and how likely each action was.

    Args:
        world: Name or id of the world, or FILE.py:CLASS.
        policy: "random", "expert:GOAL", a .zip of Stable-Baselines3, or RUN FOLDER/CELL.
        out: The file, ending in .gif; only another film is replaced.
        episodes: How many.
        shift: Probability that a level comes from the shifted generator.
        seed: Of levels and actions.
        style: "relative" sentences or a "map".
        set: Another argument of the world, as size=7; may be repeated.
        level: A file of levels, as `astray levels` prints them: they are played in turn.
        greedy: The policy takes its most probable action.
        delay: Seconds that a step is shown.
    """
    from astray.experiments.film import check_out, write_film
    from astray.experiments.levels import arguments_of, make_world, read_levels
    from astray.experiments.policies import policy_of

    check_out(out)
    kind = find_world(world)
    agent, arguments = policy_of(policy, kind, _arguments(shift, style) | arguments_of(kind, set), greedy)
    given = read_levels(kind, level, arguments).levels if level else None
    write_film(out, agent, make_world(kind, 1, **arguments), policy, seed, given, episodes, delay)
    print(f"film: {out}")


def new(
    what: Annotated[Literal["world"], tyro.conf.Positional],
    name: Annotated[str, tyro.conf.Positional],
    out: Path = Path("."),
) -> None:
    """Write a file to start from: a small world that runs, to be changed line by line.

    Args:
        what: "world".
        name: Of the world, as ice-rink.
        out: The folder that the file is written to.
    """
    from astray.experiments.new import class_name, write_world

    path = write_world(name, out)
    print(f"{what}: {path}\nplay it: astray play {path}:{class_name(name)}")


def check(subject: Annotated[str, tyro.conf.Positional]) -> None:
    """Check a world or a curiosity module; what is broken is told as expected, got, and how to mend it.

    Args:
        subject: FILE.py:CLASS of either, or the name or id of a world.
    """
    from astray.experiments.check import check

    sys.exit(check(subject))


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
        study: Name of a study, path of a Python file that defines STUDY, or a world of your own as FILE.py:CLASS.
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
    run_study(chosen, folder, jobs, source=study if study.endswith(".py") or ".py:" in study else None)
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
        "levels": levels,
        "film": film,
        "new": new,
        "check": check,
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
