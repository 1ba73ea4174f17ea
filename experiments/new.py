"""Files to start from."""

import keyword
import re
from pathlib import Path
from string import Template

from astray.envs import InputError, worlds
from astray.experiments.files import write_text

TEMPLATE = Path(__file__).with_name("world.py.template")


def write_world(name: str, folder: Path) -> Path:
    """Writes a world to start from, ``<name>.py`` in snake case, and returns its path.

    Args:
        name: in any case: "ice-rink", "ice_rink" or "IceRink".
        folder: where to; made if it is not there.

    Raises:
        InputError: the name is none for a class, or is taken; or the file is there already.
    """
    title = class_name(name)
    file = re.sub(r"(?<!^)(?=[A-Z])", "_", title).lower()
    if keyword.iskeyword(file):
        raise InputError(f"name={name!r} is a word of Python: choose another name")
    if file.replace("_", "-") in worlds():
        raise InputError(f"name={name!r} is a world of astray already: choose another name")
    path = folder / f"{file}.py"
    if path.exists():
        raise InputError(f"{str(path)!r} is there already: choose another name, or another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, Template(TEMPLATE.read_text(encoding="utf-8")).substitute(name=title))
    return path


def class_name(name: str) -> str:
    """The name of a world's class: ice-rink is IceRink.

    Raises:
        InputError: the name is none for a class.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*([-_ ][A-Za-z0-9]+)*", name):
        raise InputError(f"name={name!r} must be words of letters and digits, as ice-rink, ice_rink or IceRink")
    return "".join(word[0].upper() + word[1:] for word in re.split("[-_ ]", name))
