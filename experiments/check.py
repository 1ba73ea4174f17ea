"""``astray check``: the contract, run on one world and told in the terminal."""

import traceback
from pathlib import Path

from rich.console import Console

from astray.envs import World
from astray.experiments.contract import Check, ContractError, Subject, subjects
from astray.experiments.contract_levels import CHECKS


def check_world(kind: type[World]) -> int:
    """Runs every check on a world and its variants, and says what is broken.

    Returns:
        The exit status: 0 if nothing is broken, else 1.
    """
    console = Console(highlight=False, soft_wrap=True)
    broken = 0
    for subject in subjects(kind):
        arguments = ", ".join(f"{name}={value!r}" for name, value in subject.arguments)
        console.print(f"[bold]{kind.__name__}[/bold]({arguments})", markup=True)
        for check in CHECKS:
            with console.status(check.__name__.replace("_", " ")):
                problem, note = _run(check, subject)
            broken += problem is not None
            mark = "[red]broken[/red]" if problem else "[green]ok[/green]    "
            summary = (check.__doc__ or "").partition("\n")[0]
            console.print(f"  {mark} {summary}")
            for line in (problem or note or "").splitlines():
                console.print(f"         {line}", markup=False)
    console.print(f"{broken} broken" if broken else "nothing broken")
    return 1 if broken else 0


def _run(check: Check, subject: Subject) -> tuple[str | None, str | None]:
    """What is broken, and what else is to be told."""
    try:
        return None, check(subject)
    except ContractError as error:
        return str(error), None
    except Exception as error:  # a world of one's own may fail in any way, and its author wants to know where
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        return f"expected: no error\ngot: {type(error).__name__}: {error}\nto mend: see {where}: {place.line}", None
