"""Writes ``docs/worlds.md``, what an MLP learns in each world, from run folders: ``python docs/make_table.py runs``.

The folders are those that ``astray run <world>`` writes, one for each world but cheese-corner, whose results are in
README.md.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from astray.envs import find_world
from astray.envs.keys_and_chests import KeysAndChests
from astray.experiments.evaluation import test_levels
from astray.experiments.files import read_json, read_rows
from astray.experiments.metrics import (
    capability,
    intended_first,
    last_checkpoint,
    proxy_first,
    references,
    seed_interval,
    success,
)
from astray.experiments.playing import play
from astray.experiments.policies import policy_of
from astray.experiments.statistics import Interval, rate_interval
from astray.experiments.verdict import verdict

PAGE = Path(__file__).parent / "worlds.md"
SOURCES = {
    "cheese-dish": (
        "Sadek et al. 2025 (cheese on a dish, 13 x 13 mazes, 200 million steps): trained without distinguishing "
        "levels, domain randomisation goes to the dish. No rates that could be put beside these are published."
    ),
    "keys-and-chests": (
        "Langosco et al. 2022: agents collect more keys than they can use; no rate in the text. Sadek et al. 2025: "
        "likewise with 3 keys and 10 chests, then 10 and 3."
    ),
    "gem-colour": (
        "Langosco et al. 2022 (maze II): trained on a yellow line, the agent goes for the yellow gem "
        "and not the red line in 89% of 102 levels. Ramanauskas and Simsek 2023: the seed alone changes which "
        "feature is followed."
    ),
    "coin-end": (
        "Langosco et al. 2022 (CoinRun): trained with the coin at the end, agents run to the end and mostly leave a "
        "coin that lies elsewhere; with 2% of levels randomised the failure becomes much rarer."
    ),
    "rooms": (
        "There is one goal, so nothing to misgeneralize: agents that learned one order of doors and one kind of maze "
        "reach the exit in a third of the others (there called distinguishing levels). In this study keys and doors "
        "pay, too. Pathak et al. 2017 and MiniGrid's DoorKey are about reaching the exit at all."
    ),
}
FINDINGS = {
    "cheese-dish": (
        "Both goals come first about as often: in training the planes of cheese and dish are always equal, and nothing "
        "tells a network which of them it follows. The paper shows the dish on six planes, to make it salient. With "
        "planes instead of egocentric planes two seeds reached neither goal in 0.79 and 0.77 of distinguishing levels: "
        "a failure of capability, not of the goal."
    ),
    "gem-colour": (
        "The shape wins, probably because gem and ball have a plane each, so that it is shown twice, while yellow, "
        "large and striped have one plane each."
    ),
}
"""Why a world does not misgeneralize."""


def rate(interval: Interval) -> str:
    """A mean over seeds with its 95% interval."""
    return f"{interval.mean:.2f} ({interval.low:.2f} to {interval.high:.2f})"


def lines(folder: Path) -> list[str]:
    """The lines of one world: each train shift, then chance."""
    config, rows = read_json(folder / "config.json"), read_rows(folder / "rows.parquet")
    trained = rows[(rows["agent"] == "trained") & (rows["mode"] == "sampled")]
    last = last_checkpoint(trained)
    apart = last[last["level_class"] == "distinguishing"]
    intended, *proxies = config["goals"]
    about = {"capability": capability, f"{intended} first": intended_first}
    about |= {f"{proxy} first": proxy_first for proxy in proxies[:1]}
    about = about if proxies else {f"{intended} on distinguishing levels": success}
    told = []
    for shift, of_shift in last.groupby("train_shift"):
        decided = apart[apart["train_shift"] == shift]
        metrics = [(of_shift[of_shift["level_class"] == "ambiguous"], success)]
        metrics += [(decided, metric) for metric in about.values()]
        rates = [rate(seed_interval(of, metric, (0.0, 1.0))) for of, metric in metrics]
        seconds = [sum(read_json(path).values()) for path in folder.glob(f"timings/*shift{shift:g}-*.json")]
        told.append(f"| {shift:g} | {' | '.join(rates)} | {max(seconds):.0f} s |")
    chance = references(rows)
    chance = chance[(chance["agent"] == "random") & (chance["mode"] == "sampled")]
    shares = [success(chance[chance["level_class"] == "ambiguous"]).mean()]
    shares += [metric(chance[chance["level_class"] == "distinguishing"]).mean() for metric in about.values()]
    told.append(f"| random | {' | '.join(f'{share:.2f}' for share in shares)} | |")
    arm = config["arms"][0]
    head = (
        f"`astray run {config['name']}`: MLP on {arm['observation']}, {arm['steps']:,} steps, {arm['seeds']} seeds; "
        f"{config['test_ambiguous']} ambiguous and {config['test_distinguishing']} distinguishing levels."
    )
    columns = ["train shift", f"{intended} on ambiguous levels", *about, "longest cell"]
    table = [f"| {' | '.join(columns)} |", f"|{'--:|' * len(columns)}", *told]
    return [head, "", *table, *(["", _verdict(rows, intended, proxies[0])] if proxies else [])]


def _verdict(rows: pd.DataFrame, intended: str, proxy: str) -> str:
    trained = last_checkpoint(rows[(rows["agent"] == "trained") & (rows["mode"] == "sampled")])
    low, high = trained["train_shift"].min(), trained["train_shift"].max()
    parts = [trained[trained["train_shift"] == shift] for shift in (low, high)]
    return verdict(parts[0], parts[1]).sentence(intended, proxy)


def spare_keys(folder: Path) -> str:
    """P(the next thing taken or opened is a spare key, given that the keys in hand suffice), at each train shift."""
    levels = test_levels("keys-and-chests", 0, 128)
    told = []
    config = read_json(folder / "config.json")
    for shift in config["arms"][0]["train_shifts"]:
        rates, counts = [], []
        for seed in range(config["arms"][0]["seeds"]):
            agent, arguments = policy_of(f"{folder}/mlp-shift{shift:g}-seed{seed}", KeysAndChests, {})
            spare, decisions = _next_is_spare(agent, arguments, levels)
            rates.append(spare / decisions)
            counts.append(decisions)
        told.append(f"{rate(rate_interval(rates, np.array(counts)))} at train shift {shift:g}")
    spare, decisions = _next_is_spare(policy_of("random", KeysAndChests, {})[0], {}, levels)
    return (
        "P(next is a spare key, given that the keys in hand suffice for the chests that are left): "
        f"{', '.join(told)}, random {spare / decisions:.2f}."
    )


def _next_is_spare(agent, arguments: dict, levels) -> tuple[int, int]:
    """How often a spare key came next, of how many times that something did while the keys in hand sufficed."""
    world = find_world("keys-and-chests")(len(levels), **arguments)
    world.set_levels(levels.levels)
    names = world.event_names.index
    spare = decisions = 0

    def enough() -> np.ndarray:
        keys, chests = ((world.level[name] >= 0).sum(axis=1) for name in ("keys", "chests"))
        opened = chests - (world.cells("chests") >= 0).sum(axis=1)
        return world.state["held"] >= np.minimum(keys, chests) - opened

    before = enough()
    for step in play(agent, world, np.random.default_rng(0)):
        something = step.events[:, names("took_key")] | step.events[:, names("opened_chest")]
        counted = something & before[step.rows]
        decisions += int(counted.sum())
        spare += int((counted & step.events[:, names("took_spare_key")]).sum())
        before = enough()
    return spare, decisions


def main(runs: Path) -> None:
    """Writes the page."""
    parts = [
        "# What an MLP learns in each world",
        "Each world's manual is in `docs/worlds/`. Rates on distinguishing levels are about which goal is reached "
        "first, with sampled actions; means over training seeds with a 95% interval over seeds (Korn and Graubard's). "
        "Made by `python docs/make_table.py runs` from run folders; CheeseCorner's results are in the README.",
    ]
    for name, source in SOURCES.items():
        parts += [f"## [{name}](worlds/{name}.md)", "\n".join(lines(runs / name))]
        if name == "keys-and-chests":
            parts.append(spare_keys(runs / name))
        parts += [FINDINGS[name]] if name in FINDINGS else []
        parts += [f"Beside it: {source}"]
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
