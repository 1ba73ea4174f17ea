"""Choosing a study, and what of it to run: the options of ``astray run``."""

import copy
import json
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from tyro.conf import UseAppendAction

import astray.experiments
from astray.envs import InputError
from astray.envs.errors import choose
from astray.envs.loading import module_at
from astray.experiments.study import Arm, Study, file_name


@dataclass(frozen=True)
class Selection:
    """What of a study to run; by default all of it, as the study says.

    Attributes:
        arms: Only these arms.
        policies: Only the arms with these policies.
        seeds: Training seeds of every arm.
        train_shifts: Train shifts of every arm.
        set: Fields of the study or of every arm, as field=value; a dot reaches into one, as in arguments.size=7.
    """

    arms: tuple[str, ...] | None = None
    policies: tuple[str, ...] | None = None
    seeds: int | None = None
    train_shifts: tuple[float, ...] | None = None
    set: Annotated[tuple[str, ...], UseAppendAction] = ()

    def of(self, study: Study) -> Study:
        """The study with fewer arms and other fields.

        Raises:
            InputError: names what is not known or not allowed.
        """
        arms = _chosen("arms", self.arms, study.arms, [file_name(arm.name) for arm in study.arms])
        arms = _chosen("policies", self.policies, arms, [arm.policy for arm in arms])
        changes: dict[str, Any] = {}
        if self.seeds is not None:
            changes["seeds"] = self.seeds
        if self.train_shifts is not None:
            changes["train_shifts"] = tuple(dict.fromkeys(map(float, self.train_shifts)))
        assignments = [_parse(assignment) for assignment in self.set]
        arms = tuple(replace(arm, **changes | _changes(arm, assignments)) for arm in arms)
        return replace(study, arms=arms, **_changes(study, assignments))


def _chosen(option: str, wanted: Sequence[str] | None, arms: Sequence[Arm], names: Sequence[str]) -> tuple[Arm, ...]:
    """The arms whose names are wanted."""
    if wanted is None:
        return tuple(arms)
    if not wanted:
        raise InputError(f"{option}: at least one is needed")
    known = tuple(dict.fromkeys(names))
    chosen = {choose(option, file_name(name), known) for name in wanted}
    return tuple(arm for arm, name in zip(arms, names, strict=True) if name in chosen)


OF_STUDY, OF_ARM = ({each.name for each in fields(kind)} - {"arms", "name"} for kind in (Study, Arm))


def _parse(assignment: str) -> tuple[list[str], str]:
    """The dotted path and the value of ``field=value``."""
    path, equals, text = assignment.partition("=")
    if not equals:
        raise InputError(f"set={assignment!r} must be field=value")
    names = path.strip().split(".")
    choose("set", names[0], tuple(sorted(OF_STUDY | OF_ARM)))
    return names, text


def _changes(owner: Study | Arm, assignments: list[tuple[list[str], str]]) -> dict[str, Any]:
    """The fields of a study or an arm that assignments change; what both have is set in the study."""
    own = OF_STUDY if isinstance(owner, Study) else OF_ARM - OF_STUDY
    changes: dict[str, Any] = {}
    for (name, *inner), text in assignments:
        if name in own:
            changes[name] = _value(owner, name, inner, text, changes.get(name, getattr(owner, name)))
    return changes


def _value(owner: Study | Arm, name: str, inner: list[str], text: str, old: Any) -> Any:
    """A field's new value, read as JSON (or as it stands, for a text) and checked against the field's type."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if inner:
        *parents, last = inner
        node = changed = copy.deepcopy(old)
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
        value = changed
    kind = TypeAdapter(get_type_hints(type(owner))[name], config=ConfigDict(arbitrary_types_allowed=True))
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise InputError(f"set: {'.'.join([name, *inner])}={text} is not allowed ({reason}); it was {old!r}") from None


def studies() -> tuple[str, ...]:
    """Command-line names of the studies of this package: the files in this folder that define ``STUDY``."""
    names = [module.name for module in pkgutil.iter_modules(astray.experiments.__path__) if module.name != "__main__"]
    modules = {name: import_module(f"astray.experiments.{name}") for name in names}
    return tuple(name.replace("_", "-") for name, module in modules.items() if hasattr(module, "STUDY"))


def load_study(source: str) -> Any:
    """What defines a study: its name in this package, a Python file with a ``STUDY``, or a world as FILE.py:CLASS.

    Returns:
        A module, or for a world an object, with ``STUDY``.

    Raises:
        InputError: there is none.
    """
    if ".py:" in source:
        from astray.experiments.world_study import own_world_study  # which imports torch

        path, _, name = source.rpartition(":")
        return SimpleNamespace(STUDY=own_world_study(f"{Path(path).resolve()}:{name}"))
    if not source.endswith(".py"):
        name = choose("study", source, studies())
        return import_module(f"astray.experiments.{name.replace('-', '_')}")
    module = module_at(source, "study")
    if not isinstance(getattr(module, "STUDY", None), Study):
        raise InputError(f"study={source!r} defines no STUDY")
    return module
