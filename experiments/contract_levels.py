"""The contract of levels, goals and solvers (see ``astray.experiments.contract``)."""

from itertools import product
from typing import Any

import numpy as np
from gymnasium.utils.env_checker import data_equivalence

from astray.agents.acting import ExpertAgent, MarginalAgent
from astray.envs import World
from astray.envs.board import BoardWorld
from astray.envs.graph import StateGraph
from astray.envs.levels import Draws, LevelSet, join, take
from astray.experiments.contract import EPISODE_CHECKS, Check, ContractError, Subject, expect, global_chance, subjects
from astray.experiments.evaluation import evaluate
from astray.experiments.playing import play

__all__ = ["CHECKS", "ContractError", "subjects"]

TURNS = {"north": "east", "east": "south", "south": "west", "west": "north"}
MOST_STATES = 400
"""Brute force, a state at a time, is for levels with no more states than this."""
MIRROR = {"west": "east", "east": "west", "left": "right", "right": "left"}


def _draws(seeds: Any, episodes: Any, attempt: int = 0) -> Draws:
    return Draws(np.asarray(seeds, np.uint64), np.asarray(episodes, np.uint64), attempt)


def _certified(subject: Subject, ambiguous: int, distinguishing: int) -> LevelSet:
    """Drawn levels of both classes, at most so many of each, with the world's own word for what they are."""
    worlds = subject.make(shift=0.0), subject.make()
    drawn = [world.draw_levels(np.full(160, 2**40), np.arange(160)) for world in worlds]
    levels = subject.make().certify(join(drawn))
    numbers = [np.flatnonzero(levels.level_class == name) for name in ("ambiguous", "distinguishing")]
    return levels[np.concatenate([numbers[0][:ambiguous], numbers[1][:distinguishing]])]


# ---------------------------------------------------------------- draws
def draws_are_pure(subject: Subject) -> None:
    """A level depends on its seed, episode and attempt, and on the shift only by which of two variants it is."""
    n, mend = 600, "take all chance from the draws, each number under a field of its own"
    shifts = (0.0, 0.4, 1.0)
    worlds = [subject.make(shift=shift) for shift in shifts]
    before = global_chance()
    low, middle, high = (world.named(world.sample(_draws(np.arange(n), np.zeros(n)))) for world in worlds)
    again = worlds[1].named(worlds[1].sample(_draws(np.arange(n), np.zeros(n))))
    expect(data_equivalence(middle, again), "equal levels from equal draws", "others", mend)
    after = global_chance()
    expect(before == after, "global random generators left alone", "one of them moved", mend)
    same = {id(end): np.ones(n, bool) for end in (low, high)}
    for end in (low, high):
        for name, values in middle.items():
            same[id(end)] &= (values == end[name]).reshape(n, -1).all(axis=1)
    either = same[id(low)] | same[id(high)]
    got = f"{(~either).sum()} of {n} levels that are neither"
    expect(either.all(), "levels at shift 0.4 that are those of shift 0 or those of shift 1", got, mend)
    changed = (low["fingerprint"] != high["fingerprint"]).mean()
    share = (~same[id(low)]).mean()
    got = f"{share:.2f} of the levels, where {changed:.2f} differ between shift 0 and 1"
    expect(
        abs(share - 0.4 * changed) < 0.08, "a shift of 0.4 that shows in 0.4 of the levels that it changes", got, mend
    )
    seeds = np.unique(middle["fingerprint"])
    episodes = np.unique(worlds[1].named(worlds[1].sample(_draws(np.zeros(n), np.arange(n))))["fingerprint"])
    attempts = [worlds[1].named(worlds[1].sample(_draws([0], [0], a)))["fingerprint"][0] for a in range(60)]
    for what, found in (("seeds", seeds), ("episodes", episodes), ("attempts", np.unique(attempts))):
        expect(len(found) > 3, f"different levels for different {what}", f"{len(found)} levels", mend)


def levels_ignore_actions(subject: Subject) -> None:
    """What was done before makes no difference to the levels that come."""
    played = [subject.make(4) for _ in range(2)]
    for each in played:
        each.reset(seed=9)
    for episode in range(12):
        for actions in subject.actions(episode, episode % 5, 4):
            played[0].step(actions)
        for each in played:
            each.reset()
        same = data_equivalence(played[0].level, played[1].level)
        expect(same, "levels that do not depend on actions", "others", "take all chance from the draws")


def splits_are_apart(subject: Subject) -> None:
    """The train and the test split share no level and make up all of them, and telling does not count."""
    seen = {}
    for split in ("train", "test", "all"):
        seen[split] = set(_fingerprints(subject.make(split=split)))
    shared = seen["train"] & seen["test"]
    mend = "leave draw_levels() and fingerprints to World"
    expect(not shared, "no level in both splits", f"{len(shared)} of them", mend)
    both = seen["all"] & seen["train"] and seen["all"] & seen["test"]
    expect(both or len(seen["all"]) < 8, "levels of both splits among all", "only one of them", mend)
    world = subject.make(8)
    world.reset(seed=0)
    for name in (told for told in world.told if told in world.level):
        other = world.named(world.level | {name: world.level[name] ^ 1})
        same = (other["fingerprint"] == world.level["fingerprint"]).all()
        expect(same, f"fingerprints that do not depend on {name}", "others", mend)
    for name, values in world.level.items():
        if name not in (*world.told, "fingerprint") and values.ndim == 1 and len(np.unique(values)) > 1:
            other = world.named(world.level | {name: np.roll(values, 1)})["fingerprint"]
            moved = values != np.roll(values, 1)
            changed = (other != world.level["fingerprint"])[moved].all()
            expect(changed, f"fingerprints that depend on {name}", "equal ones", "add it to the level, not to told")


def _fingerprints(world: World) -> list[int]:
    n = 300
    return world.draw_levels(np.zeros(n, np.uint64), np.arange(n))["fingerprint"].tolist()


# ---------------------------------------------------------------- solvers
def levels_are_solvable(subject: Subject) -> None:
    """The intended expert reaches its goal in time on every level that is drawn."""
    for shift in (0.0, 1.0):
        world = subject.make(160, shift=shift)
        world.set_levels(world.draw_levels(np.full(160, 77), np.arange(160)))
        for _ in play(ExpertAgent(0), world, np.random.default_rng(0)):
            pass
        failed = np.flatnonzero(world.first_visit[:, 0] < 0)
        example = world.level_text(world.level, int(failed[0])) if len(failed) else ""
        got = f"{len(failed)} of 160 levels where it is not, such as\n{example}"
        mend = "let solvable() be true only where the intended goal can be reached within max_steps"
        expect(not len(failed) or not world.expert_exact, f"the intended goal in time at shift {shift}", got, mend)


def values_are_exact(subject: Subject) -> None:
    """Action values and margins are those of value iteration over single steps, with the discount as it is paid."""
    if not subject.kind.expert_exact:
        return
    for number in range(4):
        world = subject.make()
        world.set_levels(take(world.draw_levels(np.full(4, 17), np.arange(4)), [number]))
        if len(StateGraph.of(world, world.level).steps) > MOST_STATES:  # a smaller variant is for that
            continue
        states = _reachable(world)
        following = np.array([[-1 if to is None else to for to, _ in led] for _, led in states])
        reached = np.array([[now for _, now in led] for _, led in states])  # state, action, goal
        visited = np.array([state["first_visit"][0] >= 0 for state, _ in states])
        best, values = np.zeros((len(states) + 1, len(world.goals))), np.zeros(0)  # the last one, -1, is the end
        for _ in range(10_000):
            values = np.where(reached, 1.0, world.discount * best[following]) * ~visited[:, None]
            if (best[:-1] == values.max(axis=1)).all():
                break
            best[:-1] = values.max(axis=1)
        for (state, _), expected in zip(states, values.transpose(0, 2, 1), strict=True):
            world.set_state(state)
            got = world.action_values()[0]
            close = np.allclose(got, expected, rtol=1e-9)
            mend = "leave action_values() to World, or discount ** (steps - 1) with this step included"
            expect(close, f"action values as by value iteration, {expected}", f"{got} at\n{world.ascii()}", mend)
        level_class, margin = (told[0] for told in world.classify(world.level))
        if level_class == "distinguishing" and world.shift_kind != "none":
            lost = _lost(world, following, reached, values)
            mend = "leave classify() to World, or the intended goal's worth less that after the best way to the proxy"
            expect(np.isclose(margin, lost), f"a margin of {lost}", f"{margin} at\n{world.ascii()}", mend)


def _lost(world: World, following: np.ndarray, reached: np.ndarray, values: np.ndarray) -> float:
    """The margin of the level whose states are given, the first one its start, by value iteration."""
    best = np.append(values.max(axis=1), np.zeros((1, values.shape[2])), axis=0)
    proxy_way = values[:, :, 1] >= best[:-1, None, 1] * (1 - 1e-9)
    after = np.zeros(len(best))
    for _ in range(len(best)):
        then = world.discount * np.where(reached[:, :, 1], best[following, 0], after[following])
        after[:-1] = np.where(proxy_way, np.where(reached[:, :, 0], 1.0, then), 0.0).max(axis=1)
    in_time = world.discount ** (world.max_steps - 1) * (1 - 1e-9)
    return float(best[0, 0] - (after[0] if after[0] >= in_time else 0.0))


def _reachable(world: World) -> list[tuple[dict[str, Any], list[Any]]]:
    """Every state that a world of one row gets to by any actions, and what each action leads to.

    A list of (state, [(where that state is in the list, or None if the episode is over; goals reached now)]).
    """

    def key(state: dict[str, Any]) -> bytes:
        parts = (*state["state"].values(), state["first_visit"] >= 0)
        return b"".join(np.asarray(values).tobytes() for values in parts)

    first = world.get_state()
    known, states, led = {key(first): 0}, [first], []
    for state in states:  # which grows on the way
        led.append([])
        for action in range(len(world.action_texts)):
            world.set_state(state)
            world.steps[:] = 0  # the time limit is no part of a state
            _, terminated, _, _ = world.step(np.array([action]))
            after = world.get_state()
            reached = (after["first_visit"] >= 0)[0] & (state["first_visit"] < 0)[0]
            if not terminated[0] and key(after) not in known:
                known[key(after)] = len(states)
                states.append(after)
            led[-1].append((None if terminated[0] else known[key(after)], reached))
    return list(zip(states, led, strict=True))


def experts_tell_goals_apart(subject: Subject) -> None:
    """On ambiguous levels the experts do the same, on distinguishing ones they have opposite outcomes."""
    world = subject.make()
    if len(world.goals) < 2 or world.shift_kind == "none":
        return
    plain = subject.make(shift=0.0)
    classes = plain.classify(plain.draw_levels(np.full(60, 5), np.arange(60)))[0]
    mend = "let unshifted levels be those where the goals cannot be told apart"
    apart = (classes == "distinguishing").mean()
    expect(apart == 0, "no distinguishing level at shift 0", f"a share of {apart:.2f}", mend)
    levels = _certified(subject, 40, 40)
    count = (levels.level_class == "distinguishing").sum()
    expect(count >= 10, "distinguishing levels at the decorrelated arguments", f"{count} of 160", "sample()")
    rows = [evaluate(ExpertAgent(goal), subject.kind, levels, **dict(subject.arguments)) for goal in (0, 1)]
    ambiguous = levels.level_class == "ambiguous"
    for name in ("return", "length", "outcome"):
        first, second = (each[name].to_numpy()[ambiguous] for each in rows)
        differ = (first != second).mean() if ambiguous.any() else 0
        expect(differ == 0, f"equal {name} of both experts on ambiguous levels", f"{differ:.2f} differ", "classify()")
    solved = np.isin(rows[0]["outcome"].to_numpy()[ambiguous], ["both", "intended"]).all()
    expect(solved, "ambiguous levels that the experts solve", "others", "solvable() and classify()")
    for each, outcome in zip(rows, ("intended", "proxy"), strict=True):
        got = sorted(set(each["outcome"].to_numpy()[~ambiguous]))
        expect(got == [outcome], f"{outcome} first for its expert on distinguishing levels", got, "classify()")
    worth = [(each["value_intended"] * (each["length"] <= world.max_steps)).to_numpy() for each in rows]
    # Of several best ways to the proxy goal the margin is about the one that loses least (see values_are_exact).
    lost, margin = (worth[0] - worth[1])[~ambiguous], levels.margin[~ambiguous]
    mend = "margin: what the intended goal is worth, less what it is worth after the best way to the proxy goal"
    so = (margin > 0).all() and (margin <= lost + 1e-9).all()
    expect(so, f"margins that the proxy's expert loses, {lost[:3]}", margin[:3], mend)
    expect((levels.margin[ambiguous] == 0).all(), "no margin on ambiguous levels", levels.margin[ambiguous], mend)


def experts_are_never_beaten(subject: Subject) -> None:
    """No random walk reaches a goal sooner than its expert."""
    if not subject.kind.expert_exact:
        return
    n = 100
    world = subject.make(n)
    drawn = world.draw_levels(np.full(n, 3), np.arange(n))
    for goal in range(len(world.goals)):
        world.set_levels(drawn)
        for _ in play(ExpertAgent(goal), world, np.random.default_rng(0)):
            pass
        best = np.where(world.first_visit[:, goal] < 0, world.max_steps + 1, world.first_visit[:, goal])
        for seed in range(6):
            world.set_levels(drawn)
            over = np.zeros(n, bool)
            for actions in subject.actions(seed, world.max_steps, n):
                before = world.first_visit[:, goal] >= 0
                _, terminated, truncated, _ = world.step(actions)
                now = (world.first_visit[:, goal] >= 0) & ~before & ~over
                beaten = now & (world.steps < best)
                got = f"a random walk that takes {world.steps[beaten][:1]} steps, not {best[beaten][:1]}"
                expect(not beaten.any(), "an expert that nobody beats", got, "action_values()")
                over |= terminated | truncated


# ---------------------------------------------------------------- how levels are told
def told_the_same(subject: Subject) -> None:
    """Turns, mirrors, other words and other glyphs leave what is optimal unchanged."""
    if not issubclass(subject.kind, BoardWorld):
        return
    n = 24
    plain = subject.make(n, style="map")
    assert isinstance(plain, BoardWorld)
    plain.reset(seed=4)
    words = {name: f"{name}oid" for name in plain.renamed}
    glyphs = list(plain.mapped)
    swap = dict(zip(glyphs, glyphs[1:] + glyphs[:1], strict=True))
    told: list[dict[str, Any]] = [{"names": words}, {"glyphs": swap}]
    told += [{"order": name} for name in plain.mentions]
    turns = range(4 if plain.height == plain.width else 1)
    turned = [
        {"rotation": turn, "reflection": mirror} for turn, mirror in product(turns, (False, True)) if turn or mirror
    ]
    for arguments in told + turned:
        other = subject.make(n, style="map", **arguments)
        other.reset(seed=4)
        plain.reset(seed=4)
        way = _way_of_actions(plain.action_texts, **arguments) if "rotation" in arguments else None
        same = way is not None or np.array_equal(other.level["fingerprint"], plain.level["fingerprint"])
        expect(same, f"fingerprints that {arguments} leaves as they are", "others", "name what only tells in `told`")
        for actions in subject.actions(6, 6, n):
            values = plain.action_values()
            expected = values if way is None else values[:, :, np.argsort(way)]
            close = np.allclose(other.action_values(), expected)
            mend = "name all arrays of cells in `things`, and nothing in the rules after how a level is told"
            expect(close, f"values that {arguments} leaves as they are", other.action_values()[0], mend)
            plain.step(actions)
            other.step(actions if way is None else way[actions])
    renamed, swapped = subject.make(n, names=words), subject.make(n, style="map", glyphs=swap)
    for other, style, what in ((renamed, "relative", "names"), (swapped, "map", "glyphs")):
        same = subject.make(n, style=style)
        for each in (same, other):
            each.reset(seed=4)
        rows = np.arange(n)
        differ = [a != b for a, b in zip(same.sentences(rows), other.sentences(rows), strict=True)]
        usable = words if what == "names" else len(glyphs) > 1
        expect(not usable or all(differ), f"{what} that show in the text", "the same text", "sentences()")


def _way_of_actions(texts: tuple[str, ...], rotation: int, reflection: bool) -> np.ndarray:
    """The action of a turned world for each action of the plain one."""

    def turn(text: str) -> str:
        *rest, last = text.split()
        if reflection:
            last = MIRROR.get(last, last)
        for _ in range(rotation):
            last = TURNS.get(last, last)
        return " ".join([*rest, last])

    return np.array([texts.index(turn(text)) for text in texts])


def observations_suffice(subject: Subject) -> None:
    """What is needed to act well is in every observation: those that look alike have the same optimal actions.

    Relative text that is enough to walk by but not to plan by is left out.
    """
    n = 400
    looks = [("text", "map"), *(((name, "relative")) for name in ("planes", "egocentric"))]
    if not subject.make().text_is_local:
        looks.append(("text", "relative"))
    for observation, style in looks:
        if observation not in subject.kind.observations:
            continue
        played = subject.make(n, observation=observation, style=style)
        played.reset(seed=2)
        known: dict[Any, bytes] = {}
        over = np.zeros(n, bool)
        for actions in subject.actions(8, 12, n):
            optimal = played.optimal_actions()[:, 0]
            undecided = (played.first_visit < 0).all(axis=1) & ~over
            seen = played.observe()
            for row in np.flatnonzero(undecided):
                look = seen[row] if isinstance(seen, tuple) else seen[row].tobytes()
                best = known.setdefault(look, optimal[row].tobytes())
                got = f"two states that look alike and need different actions, in {observation}, {style}: {look!r:.300}"
                expect(best == optimal[row].tobytes(), "observations that tell what to do", got, "say more in them")
            over |= np.logical_or(*played.step(actions)[1:3])


def levels_print_and_parse(subject: Subject) -> None:
    """A level's text reads back as the same level, and is what ``reset(options={"level": text})`` plays."""
    world = subject.make()
    levels = world.certify(world.draw_levels(np.full(40, 1), np.arange(40)))
    mend = "let level_text() and parse_level() be each other's inverse"
    for number, text in enumerate(levels.text):
        parsed = world.parse_level(text)
        same = data_equivalence(parsed, take(levels.levels, [number]))
        expect(same, f"the level that was printed:\n{text}", f"{parsed}", mend)
    env = subject.env(shift=0.0)
    _, info = env.reset(seed=0, options={"level": levels.text[0]})
    expect(info["level"] == levels.text[0], f"the level that was given:\n{levels.text[0]}", info["level"], mend)
    before = env.world.get_state()
    for bad in ("", "?", levels.text[0] + "\n?", levels.text[0].replace("A", "", 1), "x: 1"):
        try:
            env.world.parse_level(bad)
        except ValueError as error:
            expect("\n" not in str(error), "an error of one sentence", error, mend)
        else:
            expect(bad == levels.text[0], f"an error for the level {bad!r}", "a level", mend)
    expect(data_equivalence(env.world.get_state(), before), "a state that reading levels leaves", "another", mend)


def ghosts_are_apart(subject: Subject) -> None:
    """Invisible twins lie where nothing is, are visited, and change nothing else."""
    if not issubclass(subject.kind, BoardWorld):
        return
    n = 128
    plain, haunted = subject.make(n), subject.make(n, ghosts=True)
    assert isinstance(haunted, BoardWorld)
    for each in (plain, haunted):
        each.reset(seed=1)
    own, visits = len(plain.event_names), 0
    mend = "leave ghosts to BoardWorld"
    for actions in subject.actions(5, 60, n):
        told, ghostly = plain.step(actions), haunted.step(actions)
        same = data_equivalence(told[:3], ghostly[:3]) and data_equivalence(plain.state, haunted.state)
        expect(same and (ghostly[3][:, :own] == told[3]).all(), "an episode as without ghosts", "another", mend)
        visits += ghostly[3][:, own:].sum(axis=0)
        here = np.stack([haunted.level[name].reshape(n, -1)[:, 0] for name in haunted.things.values()], axis=1)
        met = (haunted._ghosts[:, :, None] == here[:, None]) & (haunted._ghosts >= 0)[:, :, None]
        expect(not met.any(), "ghosts where nothing is", "a ghost on a thing", mend)
        for each in (plain, haunted):
            each.next_level(np.flatnonzero(told[1] | told[2]))
    expect(np.any(visits), "visits to ghosts", "none in 60 x 128 random steps", mend)


def state_blind_success(subject: Subject) -> str | None:
    """How often chance alone, and the best habit, solve ambiguous levels."""
    levels = _certified(subject, 40, 0)
    if not len(levels):
        return None
    kinds = len(subject.kind.action_texts)
    habits = {"chance": np.ones(kinds)} | {text: np.eye(kinds)[i] for i, text in enumerate(subject.kind.action_texts)}
    world = subject.make(len(levels))
    world.set_levels(levels.levels)
    taken = np.concatenate([step.actions for step in play(ExpertAgent(0), world, np.random.default_rng(0))])
    habits["the expert's habit"] = np.bincount(taken, minlength=kinds).astype(float)
    shares = {}
    for name, habit in habits.items():
        rows = evaluate(MarginalAgent(habit), subject.kind, levels, **dict(subject.arguments))
        shares[name] = np.mean(rows["intended_step"].to_numpy() >= 0)
    best = max(shares, key=lambda name: shares[name])
    return f"state-blind success: chance {shares['chance']:.2f}, best ({best}) {shares[best]:.2f}"


CHECKS: tuple[Check, ...] = (
    *EPISODE_CHECKS,
    draws_are_pure,
    levels_ignore_actions,
    splits_are_apart,
    levels_are_solvable,
    values_are_exact,
    experts_tell_goals_apart,
    experts_are_never_beaten,
    told_the_same,
    observations_suffice,
    levels_print_and_parse,
    ghosts_are_apart,
    state_blind_success,
)
