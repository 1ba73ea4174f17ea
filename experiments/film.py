"""Films of a policy: an animated GIF with the picture, what the model reads, and how likely each action was."""

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from astray.agents.acting import StochasticAgent
from astray.envs import InputError, World
from astray.envs.levels import Levels
from astray.experiments.drawing import COLOURS, FRAME, GREY, INK
from astray.experiments.files import whole
from astray.experiments.levels import check_seed
from astray.experiments.play import ROW, begin_each, ending, happened, watch

WIDTH, MARGIN, LINE, LETTER = 640, 20, 20, 15
PICTURE = 360
"""Pixels: the frame's width, its margin, the height of lines and letters, the largest side of the picture."""
FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
FONT, BOLD = (ImageFont.truetype(FONTS / f"DejaVuSansMono{name}.ttf", LETTER) for name in ("", "-Bold"))
COLUMNS = int((WIDTH - 2 * MARGIN) / FONT.getlength("m"))
SIGN = b"astray film"
"""How the comment in a film begins."""


@dataclass
class Frame:
    """What one frame shows.

    Attributes:
        title: in bold letters above.
        picture: of the world, or None if it has none.
        lines: what the model reads, each line short enough.
        probabilities: of each action; None after the last step.
        action: the one that is taken.
        note: what happens by it.
    """

    title: list[str]
    picture: Image.Image | None
    lines: list[str]
    probabilities: np.ndarray | None
    action: int
    note: list[str]


def check_out(path: Path) -> None:
    """Refuses to write a film where it should not be.

    Raises:
        InputError: the file does not end in .gif, or there is one that is no film of ours.
    """
    if path.suffix != ".gif":
        raise InputError(f"out={str(path)!r} must end in .gif")
    if path.is_dir() or (path.exists() and SIGN not in path.read_bytes()):
        raise InputError(f"out={str(path)!r} is there and was not written by `astray film`: choose another name")


def write_film(
    path: Path,
    agent: StochasticAgent,
    world: World,
    name: str,
    seed: int = 0,
    levels: Levels | None = None,
    episodes: int = 3,
    delay: float = 0.8,
) -> None:
    """Writes a film of some episodes; a film that is there already is replaced.

    Args:
        path: where to, ending in .gif.
        agent: the policy.
        world: of one row, with the observation that the policy sees.
        name: of the policy, as the film tells it.
        seed: of levels and actions.
        levels: given levels, played in turn, in place of the seed's.
        episodes: how many.
        delay: seconds that a frame stays; the last of an episode stays three times as long.

    Raises:
        InputError: an argument is not allowed, or another file is there.
    """
    if episodes < 1:
        raise InputError(f"episodes={episodes} must be at least 1")
    if delay < 0.02:
        raise InputError(f"delay={delay} must be at least 0.02 seconds, the least that a GIF can show")
    check_seed(seed)
    check_out(path)
    frames = film_frames(agent, world, name, seed, levels, episodes)
    images = draw_frames(frames, world.action_texts)
    times = [round(1000 * delay * (3 if frame.probabilities is None else 1)) for frame in frames]
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as temporary:
        comment = SIGN + f" {world.slug()} --policy {name}".encode()
        images[0].save(
            temporary, "GIF", save_all=True, append_images=images[1:], duration=times, loop=0, comment=comment
        )


def film_frames(
    agent: StochasticAgent, world: World, name: str, seed: int, levels: Levels | None, episodes: int
) -> list[Frame]:
    """Plays, and keeps what every frame shows."""
    rng = np.random.default_rng(seed)
    frames: list[Frame] = []
    for episode in begin_each(world, seed, levels, episodes):
        level_class = world.classify(world.level)[0][0]
        head = f"{world.slug()}, {name}, episode {episode + 1} of {episodes} ({level_class})"
        total = 0.0
        for moment in watch(agent, world, rng, _viewer(world)):
            total += moment.reward
            picture, lines = moment.view
            title = _wrapped(f"{head}, step {moment.number}")
            note = happened(moment.events, moment.reward).splitlines()
            frames.append(Frame(title, picture, lines, moment.probabilities, moment.action, note))
        picture, lines = _viewer(world)()
        frames.append(Frame(_wrapped(head), picture, lines, None, -1, _wrapped(ending(world, total))))
    return frames


def _viewer(world: World) -> Callable[[], tuple[Image.Image | None, list[str]]]:
    """Looks at a world of one row: its picture, and the lines to read; a world without pictures is told in words."""
    has_pictures = type(world).image is not World.image

    def look() -> tuple[Image.Image | None, list[str]]:
        text = world.sentences(ROW)[0]
        if has_pictures:
            return _fitted(Image.fromarray(world.image())), _wrapped(text)
        return None, _wrapped(text if world.ascii() == text else f"{world.ascii()}\n{text}")

    return look


def _fitted(picture: Image.Image) -> Image.Image:
    """A picture made larger by a whole number, or smaller until it fits."""
    width, height = WIDTH - 2 * MARGIN, PICTURE
    times = min(width // picture.width, height // picture.height)
    if times >= 1:
        return picture.resize((times * picture.width, times * picture.height), Image.Resampling.NEAREST)
    picture.thumbnail((width, height), Image.Resampling.BOX)
    return picture


def _wrapped(text: str) -> list[str]:
    """Lines that fit into a frame."""
    return [part for line in text.splitlines() for part in textwrap.wrap(line, COLUMNS) or [""]]


def draw_frames(frames: Sequence[Frame], action_texts: Sequence[str]) -> list[Image.Image]:
    """Frames as pictures of one size, each part at the same height in all of them."""
    above = max(len(frame.title) for frame in frames)
    pictured = max((frame.picture.height + MARGIN for frame in frames if frame.picture), default=0)
    reads, notes = (max(len(getattr(frame, part)) for frame in frames) for part in ("lines", "note"))
    lines = MARGIN + above * LINE + MARGIN // 2 + pictured
    bars = lines + reads * LINE + MARGIN // 2
    below = bars + len(action_texts) * LINE + MARGIN // 2
    images = []
    for frame in frames:
        image = Image.new("RGB", (WIDTH, below + notes * LINE + MARGIN), "white")
        pen = ImageDraw.Draw(image)
        _write(pen, frame.title, MARGIN, INK, BOLD)
        if frame.picture:
            left = (WIDTH - frame.picture.width) // 2
            image.paste(frame.picture, (left, MARGIN + above * LINE + MARGIN // 2))
        _write(pen, frame.lines, lines, INK, FONT)
        if frame.probabilities is None:
            _write(pen, frame.note, bars, INK, BOLD)
        else:
            _draw_bars(pen, bars, action_texts, frame.probabilities, frame.action)
            _write(pen, frame.note, below, INK, BOLD)
        images.append(image)
    return images


def _write(pen: ImageDraw.ImageDraw, lines: Sequence[str], top: int, colour: str, font: ImageFont.FreeTypeFont) -> None:
    for number, line in enumerate(lines):
        pen.text((MARGIN, top + number * LINE), line, colour, font)


def _draw_bars(
    pen: ImageDraw.ImageDraw, top: int, texts: Sequence[str], probabilities: np.ndarray, action: int
) -> None:
    """A bar for each action's probability, with a mark and another colour for the one that is taken."""
    left = MARGIN + int(FONT.getlength("> ") + max(FONT.getlength(text) for text in texts)) + LETTER
    right = WIDTH - MARGIN - int(FONT.getlength(" 1.00"))
    for number, (text, share) in enumerate(zip(texts, probabilities.tolist(), strict=True)):
        y = top + number * LINE
        taken = number == action
        pen.text((MARGIN, y), f"{'>' if taken else ' '} {text}", INK if taken else GREY, BOLD if taken else FONT)
        pen.rectangle((left, y + 3, right, y + LINE - 4), outline=FRAME)
        if share > 0:
            end = left + max(1, round(share * (right - left)))
            pen.rectangle((left, y + 3, end, y + LINE - 4), fill=COLOURS["proxy" if taken else "intended"])
        pen.text((right, y), f" {share:.2f}", INK if taken else GREY, BOLD if taken else FONT)
