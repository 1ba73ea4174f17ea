"""Worlds and studies that are named by a module or a file."""

import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from astray.envs.errors import InputError
from astray.envs.world import World


def world_class(world: str | type[World]) -> type[World]:
    """A world's class, or the class that "module:Class" or "path/to/file.py:Class" names.

    Raises:
        InputError: there is none.
    """
    if not isinstance(world, str):
        return world
    source, _, name = world.rpartition(":")
    module = module_at(source, "world") if source.endswith(".py") else import_module(source)
    found = getattr(module, name, None)
    if not isinstance(found, type) or not issubclass(found, World):
        mine = [key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, World)]
        raise InputError(f"world={world!r}: {source} defines no World {name!r}, only {', '.join(mine) or 'none'}")
    return found


def module_at(source: str, what: str) -> ModuleType:
    """The module of a Python file, loaded once.

    Args:
        source: its path.
        what: it defines, for messages.

    Raises:
        InputError: it is not there, or cannot be read as Python.
    """
    path = Path(source).resolve()
    if not path.is_file():
        raise InputError(f"{what}={source!r} is not there; give the path of a Python file")
    name = f"{what}_at_{path.stem}"
    if name in sys.modules and sys.modules[name].__file__ == str(path):
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # so that what it defines can be sent to other processes
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]  # a half of it must not be found the next time
        if isinstance(error, SyntaxError):
            raise InputError(f"{what}={source!r}, line {error.lineno}: {error.msg}") from None
        raise
    return module
