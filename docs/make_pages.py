"""Writes ``docs/worlds/<world>.md`` from the worlds' own manuals: ``python docs/make_pages.py``."""

import inspect
from pathlib import Path
from typing import Any

from astray.envs import World, worlds
from astray.experiments.levels import as_text, draw_levels, shifted

PAGES = Path(__file__).parent / "worlds"


def page(world: type[World]) -> str:
    """A world's page: names, its manual with headings one level down, and three levels as they are printed."""
    lines = [line.rstrip() for line in inspect.cleandoc(world.__doc__ or "").splitlines()]
    # Headings go one level down, and what announces an indented block ends in one colon, as Markdown has it.
    lines = [f"#{line}" if line.startswith("#") else line for line in lines]
    manual = "\n".join(line.removesuffix(":") if line.endswith("::") else line for line in lines)
    title = world.slug().replace("-", " ").capitalize()
    parts = [
        f"# {title}",
        f'`gym.make("{world.id()}")`, or `{world.slug()}` on the command line.',
        "## Manual",
        manual,
        "## Three levels",
        f"`astray levels {world.slug()} --count 1` (or a file of such levels, with `--read FILE`):",
        _levels(world, 1, None),
        f"`astray levels {world.slug()} --count 2 --level-class distinguishing`:",
        _levels(world, 2, "distinguishing"),
    ]
    return "\n\n".join(parts) + "\n"


def _levels(world: type[World], count: int, level_class: str | None) -> str:
    arguments: dict[str, Any] = shifted(world, None, level_class)
    return f"```text\n{as_text(world, draw_levels(world, count, 0, level_class, arguments), arguments)}```"


def main() -> None:
    """Writes every page, and removes those of worlds that are gone."""
    PAGES.mkdir(exist_ok=True)
    pages = {f"{slug}.md": page(world) for slug, world in worlds().items()}
    for old in PAGES.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        (PAGES / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
