"""Walking a level in the terminal, with the text that a language model reads."""

from collections.abc import Callable, Sequence

from astray.envs import find_world
from astray.envs.vector import WorldEnv


def play_world(world: str, shift: float, seed: int, read: Callable[[str], str] = input, **arguments: object) -> None:
    """Plays one episode: shows room, text and events, and reads a move a turn until the episode or the input ends.

    Args:
        world: an id or a command-line name.
        shift: of the level.
        seed: of the level.
        read: asks for a line; raises ``EOFError`` at the end of the input.
        **arguments: the world's.
    """
    env = WorldEnv(find_world(world), render_mode="ansi", shift=shift, **arguments)
    text, info = env.reset(seed=seed)
    texts: Sequence[str] = info["action_texts"]
    total, over = 0.0, False
    print(f"{env.world.instruction}\nType a move, its first letter, or q to leave.")
    try:
        while not over:
            print(f"\n{env.render()}\n{text}")
            answer = read("> ").strip().lower()
            if answer in ("q", "quit"):
                return
            action = move_of(answer, texts)
            if action is None:
                print(f"{answer!r} is none of: {', '.join(texts)}")
                continue
            text, reward, terminated, truncated, info = env.step(action)
            total, over = total + reward, terminated or truncated
            print("".join(f"* {event}\n" for event in info["events"]), end="")
    except EOFError:
        return
    print(f"\n{env.render()}\nThe episode is over: return {total:g}, first visits {info['goals']}.")


def move_of(answer: str, texts: Sequence[str]) -> int | None:
    """The action that an answer means: its text, its last word, or that word's first letter; None if none or many."""
    if not answer:
        return None
    for form in (lambda t: t, lambda t: t.split()[-1], lambda t: t.split()[-1][: len(answer)]):
        found = [i for i, text in enumerate(texts) if form(text) == answer]
        if len(found) == 1:
            return found[0]
    return None
