"""``astray check``: the contract, run on one world or curiosity module and told in the terminal."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from astray.agents import Curiosity
from astray.envs import InputError, World, find_world
from astray.envs.loading import module_at
from astray.experiments import contract
from astray.experiments.conformance import reads
from astray.experiments.conformance_subjects import subjects
from astray.experiments.conformance_training import CHECKS as MODULE_CHECKS
from astray.experiments.contract import ContractError
from astray.experiments.contract_levels import CHECKS as WORLD_CHECKS


def check(name: str) -> int:
    """Checks the world or curiosity module of this name: FILE.py:CLASS, or the name or id of a world.

    Returns:
        The exit status: 0 if nothing is broken, else 1.

    Raises:
        InputError: there is none.
    """
    kind = _class_in_file(name) if ".py:" in name else find_world(name)
    return check_module(kind) if issubclass(kind, Curiosity) else check_world(kind)


def _class_in_file(name: str) -> type[World] | type[Curiosity]:
    source, _, wanted = name.rpartition(":")
    classes = {key: value for key, value in vars(module_at(source, "subject")).items() if isinstance(value, type)}
    known = {key: value for key, value in classes.items() if issubclass(value, World | Curiosity)}
    if wanted not in known:
        there = ", ".join(known) or "none"
        raise InputError(f"subject={name!r}: {source} defines no World or Curiosity {wanted!r}, only {there}")
    return known[wanted]


def check_world(kind: type[World]) -> int:
    """Runs every check on a world and its variants, and says what is broken.

    Returns:
        The exit status: 0 if nothing is broken, else 1.
    """
    console = Console(highlight=False, soft_wrap=True)
    broken = 0
    for subject in contract.subjects(kind):
        arguments = ", ".join(f"{name}={value!r}" for name, value in subject.arguments)
        console.print(f"[bold]{kind.__name__}[/bold]({arguments})", markup=True)
        broken += sum(_shown(check, subject, console)[0] is not None for check in WORLD_CHECKS)
    return _ended(broken, console)


def check_module(kind: type[Curiosity]) -> int:
    """Runs every check on a curiosity module, in all environments that it can read, and says what is broken.

    Returns:
        The exit status: 0 if nothing is broken, else 1.
    """
    console = Console(highlight=False, soft_wrap=True)
    broken, read = 0, False
    for subject in subjects(kind):
        console.print(f"[bold]{kind.__name__}[/bold] on {subject.place}", markup=True)
        problem, passed_over = _shown(reads, subject, console)
        broken += problem is not None
        if problem or passed_over:
            continue
        read = True
        broken += sum(_shown(check, subject, console)[0] is not None for check in MODULE_CHECKS)
    if not read:
        console.print("it can be used on none of them")
    return _ended(broken or int(not read), console)


def _shown(check: Callable[[Any], str | None], subject: Any, console: Console) -> tuple[str | None, str | None]:
    """Runs a check and tells what came out: what is broken, and what else there is to say."""
    with console.status(check.__name__.replace("_", " ")):
        problem, note = outcome(check, subject)
    mark = "[red]broken[/red]" if problem else "[green]ok[/green]    "
    summary = (check.__doc__ or "").partition("\n")[0]
    console.print(f"  {mark} {summary}")
    for line in (problem or note or "").splitlines():
        console.print(f"         {line}", markup=False)
    return problem, note


def _ended(broken: int, console: Console) -> int:
    console.print(f"{broken} broken" if broken else "nothing broken")
    return 1 if broken else 0


def outcome(check: Callable[[Any], str | None], subject: Any) -> tuple[str | None, str | None]:
    """What a check finds broken, and what else it tells; whatever it raises is something broken."""
    try:
        return None, check(subject)
    except ContractError as error:
        return str(error), None
    except Exception as error:  # a world or module of one's own may fail in any way, and its author wants to know where
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        return f"expected: no error\ngot: {type(error).__name__}: {error}\nto mend: see {where}: {place.line}", None
