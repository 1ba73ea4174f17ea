"""How often the intervals of `astray.experiments.statistics` hold the true value, by simulation.

``python benchmarks/intervals.py`` prints the tables of docs/statistics.md: nominal 95% intervals of 4,000 simulated
studies per entry, with n training seeds each. An entry below .93 is bold.
"""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from scipy import special

from astray.experiments.statistics import (
    TAIL,
    Interval,
    _draw_counts,  # the bootstrap's own arithmetic, for draws that all studies share, since drawing takes the most time
    _drawn_means,
    _expanded_ends,
    bimodal,
    clopper_pearson,
    paired_difference,
    probability_of_improvement,
    rate_interval,
    t_interval,
)

STUDIES, EPISODES, DRAWS = 4000, 128, 2000
SEEDS = (3, 5, 10, 30)
WIDTH_AT = 5  # seeds
RATES = (0.05, 0.25, 0.5, 0.75, 0.95)
ENOUGH = 0.93

Array = np.ndarray
Ends = Array  # [studies, 2]


def ends(interval: Callable[..., Interval | tuple[float, float]], *studies: Iterable) -> Ends:
    """Of an interval in each study."""
    found = (interval(*study) for study in zip(*studies, strict=True))
    return np.array([(each.low, each.high) if isinstance(each, Interval) else each for each in found])


def percentiles(draws: Array) -> Ends:
    """The percentile bootstrap's ends, from ``[studies, draws]``."""
    return np.quantile(draws, [TAIL, 1 - TAIL], axis=1).T


def percentile_bootstrap(values: Array, rng: np.random.Generator) -> Ends:
    """Means of seeds drawn with replacement, as rliable has them."""
    n = values.shape[1]
    return percentiles(values @ _draw_counts(n, DRAWS, rng).T / n)


def pooled(rates: Array) -> Ends:
    """Clopper and Pearson's interval of all episodes together."""
    n = EPISODES * rates.shape[1]
    return ends(clopper_pearson, np.rint(rates.mean(axis=1) * n).astype(int), [n] * len(rates))


def wider(first: Ends, second: Ends) -> Ends:
    """The hull of two intervals."""
    return np.column_stack([np.minimum(first[:, 0], second[:, 0]), np.maximum(first[:, 1], second[:, 1])])


class Table:
    """Collects coverage and mean width, and prints them."""

    def __init__(self, title: str, methods: list[str]):
        self.title, self.methods = title, methods
        self.coverage: dict[str, list[list[float]]] = {}
        self.width: dict[str, list[list[float]]] = {}

    def add(self, row: str, truth: float, found: list[Ends]) -> None:
        """What the methods found at one number of seeds; call it for each of `SEEDS` in turn."""
        rounding = 1e-12
        holds = [np.mean((each[:, 0] <= truth + rounding) & (truth - rounding <= each[:, 1])) for each in found]
        self.coverage.setdefault(row, []).append([float(share) for share in holds])
        self.width.setdefault(row, []).append([float((each[:, 1] - each[:, 0]).mean()) for each in found])

    def print(self) -> None:
        """As Markdown: coverage of each method at each number of seeds, and its mean width at `WIDTH_AT` of them."""
        heads = [f"{method}, n = {', '.join(map(str, SEEDS))} (width)" for method in self.methods]
        print(f"### {self.title}\n\n| values | {' | '.join(heads)} |")
        print(f"|---|{'---|' * len(heads)}")
        for row in self.coverage:
            cells = []
            for place in range(len(self.methods)):
                shares = [shown(at_n[place]) for at_n in self.coverage[row]]
                cells.append(f"{' '.join(shares)} ({self.width[row][SEEDS.index(WIDTH_AT)][place]:.2f})")
            print(f"| {row} | {' | '.join(cells)} |")
        print(flush=True)


def shown(share: float) -> str:
    """A coverage, bold where it is too low."""
    text = f"{share:.3f}".lstrip("0")
    return text if share >= ENOUGH else f"**{text}**"


def shares(rng: np.random.Generator) -> Table:
    """Shares of n independent seeds."""
    table = Table("Shares of n seeds (modes), or of n episodes of an agent without seeds", ["Clopper-Pearson"])
    for p in RATES:
        for n in SEEDS:
            table.add(f"p = {p}", p, [ends(clopper_pearson, rng.binomial(n, p, STUDIES), [n] * STUDIES)])
    return table


def rates(rng: np.random.Generator) -> Table:
    """Means over n seeds of rates of 128 episodes."""
    methods = ["`rate_interval`", "`t_interval`", "wider of t and pooled", "percentile bootstrap"]
    table = Table(f"Rates of {EPISODES} episodes per seed, mean over n seeds", methods)

    def beta(a: float, b: float) -> Callable[[int], Array]:
        return lambda n: rng.beta(a, b, (STUDIES, n))

    def two(share: float, low: float, high: float) -> Callable[[int], Array]:
        return lambda n: np.where(rng.random((STUDIES, n)) < share, high, low)

    populations: dict[str, tuple[Callable[[int], Array], float]] = {}
    for p in RATES:
        populations[f"seeds agree, p = {p}"] = (lambda n, p=p: np.full((STUDIES, n), p)), p
    for correlation in (0.02, 0.1, 0.3):  # of two episodes of a seed: the seeds' variance over p * (1 - p)
        for p in RATES:
            size = 1 / correlation - 1
            populations[f"Beta, p = {p}, correlation {correlation}"] = beta(size * p, size * (1 - p)), p
    populations["Beta(2, 2)"] = beta(2, 2), 0.5
    populations["skewed: Beta(.5, 4.5)"] = beta(0.5, 4.5), 0.1
    populations["bimodal: Beta(.2, .2)"] = beta(0.2, 0.2), 0.5
    populations["two points: half at .05, half at .95"] = two(0.5, 0.05, 0.95), 0.5
    populations["two points: a fifth at .95, else .05"] = two(0.2, 0.05, 0.95), 0.23
    populations["two points: a tenth at 0, else .97"] = two(0.1, 0.97, 0.0), 0.873
    for row, (population, truth) in populations.items():
        for n in SEEDS:
            values = rng.binomial(EPISODES, population(n)) / EPISODES
            t = ends(lambda seeds: t_interval(seeds, (0, 1)), values)
            ours = ends(rate_interval, values, [EPISODES] * STUDIES)
            table.add(row, truth, [ours, t, wider(t, pooled(values)), percentile_bootstrap(values, rng)])
    for n in SEEDS:
        values = rng.beta(2, 2, (STUDIES, n))
        t = ends(lambda seeds: t_interval(seeds, (0, 1)), values)
        ours = ends(rate_interval, values, [EPISODES] * STUDIES)
        hull = wider(t, pooled(values))
        table.add("Beta(2, 2), no episodes", 0.5, [ours, t, hull, percentile_bootstrap(values, rng)])
    return table


def levels(rng: np.random.Generator) -> Table:
    """Rates over seeds and levels, as statements about all levels of a world."""
    methods = ["`hierarchical_bootstrap`", "its plain percentiles", "levels drawn per seed", "`rate_interval`"]
    table = Table(f"Rates on {EPISODES} levels that n seeds share, for all seeds and all levels of the world", methods)
    populations = {
        "seeds differ": (0, 1, 0),
        "seeds and levels differ": (0, 1, 1),
        "levels differ, seeds little": (0, 0.3, 2),
        "both differ, low rate": (-2, 1, 1),
        "seeds differ much, very low rate": (-5, 2, 0),
    }
    for row, (mean, seed_spread, level_spread) in populations.items():  # of the logit of an episode's chance
        logits = mean + np.hypot(seed_spread, level_spread) * np.random.default_rng(0).normal(size=10**6)
        truth = float(special.expit(logits).mean())
        for n in SEEDS:
            seed_counts, level_counts = _draw_counts(n, DRAWS, rng), _draw_counts(EPISODES, DRAWS, rng)
            found: list[list[tuple[float, float]]] = [[], [], []]
            seed_rates = np.empty((STUDIES, n))
            for study in range(STUDIES):
                seeds, level = rng.normal(size=(n, 1)), rng.normal(size=EPISODES)
                chance = special.expit(mean + seed_spread * seeds + level_spread * level)
                values = (rng.random(chance.shape) < chance).astype(float)
                seed_rates[study] = values.mean(axis=1)
                means = _drawn_means(values, seed_counts, level_counts)
                # levels drawn anew for each seed of a draw: for outcomes of 0 and 1, a binomial number of successes
                apart = rng.binomial(EPISODES * seed_counts.astype(int), seed_rates[study]).sum(axis=1)
                found[0].append(_expanded_ends(means, n))
                found[1].append(tuple(np.quantile(means, [TAIL, 1 - TAIL])))
                found[2].append(_expanded_ends(apart / (n * EPISODES), n))
            ours = ends(rate_interval, seed_rates, [EPISODES] * STUDIES)
            table.add(row, truth, [*map(np.array, found), ours])
    return table


def verdicts(rng: np.random.Generator) -> Table:
    """Proxy first minus intended first, the difference that a verdict is about."""
    table = Table(
        f"Proxy first minus intended first, {EPISODES} episodes per seed, mean over n seeds",
        ["`rate_interval` within (-1, 1)", "`t_interval`"],
    )
    for proxy, intended in ((0.05, 0.9), (0.4, 0.4), (0.6, 0.3), (0.9, 0.05), (0.98, 0.01)):
        for correlation in (0, 0.02, 0.1):
            for n in SEEDS:
                chances = np.broadcast_to([proxy, intended, 1 - proxy - intended], (STUDIES, n, 3))
                if correlation:
                    size = 1 / correlation - 1
                    chances = rng.dirichlet(size * chances[0, 0], (STUDIES, n))
                outcomes = rng.multinomial(EPISODES, chances)
                values = (outcomes[..., 0] - outcomes[..., 1]) / EPISODES
                ours = ends(lambda seeds: rate_interval(seeds, EPISODES, (-1, 1)), values)
                t = ends(lambda seeds: t_interval(seeds, (-1, 1)), values)
                table.add(f"proxy {proxy}, intended {intended}, correlation {correlation}", proxy - intended, [ours, t])
    return table


def differences(rng: np.random.Generator) -> Table:
    """Rates of two runs with the same seeds, compared as pairs and as two groups."""
    table = Table(
        f"Difference of two rates of {EPISODES} episodes, n seeds each",
        ["`paired_difference`, same seeds", "`paired_difference`, other seeds (Welch)"],
    )

    def welch(first: Array, second: Array) -> Interval:
        return paired_difference(pd.Series(first), pd.Series(second, index=-1 - np.arange(len(second))))

    def pair(first: Array, second: Array) -> Interval:
        return paired_difference(pd.Series(first), pd.Series(second))

    populations: dict[str, tuple[tuple[float, float], tuple[float, float], bool]] = {
        "Beta(2, 2), each its own": ((2, 2), (2, 2), False),
        "Beta(2, 2), the same seeds' rates": ((2, 2), (2, 2), True),
        "Beta(8, 2) and Beta(2, 2)": ((8, 2), (2, 2), False),
        "rates near 0: Beta(.5, 9.5) and Beta(1, 9)": ((0.5, 9.5), (1, 9), False),
        "rates near 0 and 1: Beta(.5, 9.5) and Beta(9.5, .5)": ((0.5, 9.5), (9.5, 0.5), False),
        "bimodal: Beta(.2, .2), each its own": ((0.2, 0.2), (0.2, 0.2), False),
        "bimodal and not: Beta(.2, .2) and Beta(8, 2)": ((0.2, 0.2), (8, 2), False),
    }
    for row, (first, second, same) in populations.items():
        truth = first[0] / sum(first) - second[0] / sum(second)
        for n in SEEDS:
            x = rng.beta(*first, (STUDIES, n))
            y = x if same else rng.beta(*second, (STUDIES, n))
            x, y = (rng.binomial(EPISODES, each) / EPISODES for each in (x, y))
            table.add(row, truth, [ends(pair, x, y), ends(welch, x, np.roll(y, 1, axis=0))])  # another study's seeds
    return table


def improvements(rng: np.random.Generator) -> Table:
    """Probability that a seed of one group exceeds one of another."""
    table = Table("Probability of improvement, n seeds each", ["`probability_of_improvement`", "percentile bootstrap"])

    def normal(mean: float, spread: float = 1) -> Callable[[tuple[int, int]], Array]:
        return lambda shape: rng.normal(mean, spread, shape)

    def beta(a: float, b: float) -> Callable[[tuple[int, int]], Array]:
        return lambda shape: rng.binomial(EPISODES, rng.beta(a, b, shape)) / EPISODES

    def two(share: float, noise: float = 0.0) -> Callable[[tuple[int, int]], Array]:
        return lambda shape: (rng.random(shape) < share) + rng.normal(0, noise, shape)

    populations = {
        "normal, equal": (normal(0), normal(0)),
        "normal, one sd apart": (normal(1), normal(0)),
        "normal, two sd apart": (normal(2), normal(0)),
        "normal, three sd apart": (normal(3), normal(0)),
        "normal, spreads 3 and 1": (normal(0, 3), normal(0)),
        "rates, Beta(8, 2) and Beta(2, 2)": (beta(8, 2), beta(2, 2)),
        "rates, bimodal: Beta(.2, .2), equal": (beta(0.2, 0.2), beta(0.2, 0.2)),
        "rates, apart: Beta(9, 1) and Beta(1, 9)": (beta(9, 1), beta(1, 9)),
        "two points with ties, half and half": (two(0.5), two(0.5)),
        "two points with ties, .8 and .2": (two(0.8), two(0.2)),
        "bimodal around the other: 0 or 1 against .5": (two(0.5, 0.03), normal(0.5, 0.03)),
    }
    for row, (first, second) in populations.items():
        many = np.sort(second((1, 10**6))[0])
        sample = first((1, 10**6))[0]
        truth = float(np.mean(np.searchsorted(many, sample) + np.searchsorted(many, sample, side="right"))) / 2e6
        for n in SEEDS:
            x, y = first((STUDIES, n)), second((STUDIES, n))
            wins = (np.sign(x[:, :, None] - y[:, None, :]) + 1) / 2
            first_counts, second_counts = _draw_counts(n, DRAWS, rng), _draw_counts(n, DRAWS, rng)
            drawn = np.array([(first_counts @ each * second_counts).sum(axis=1) / n**2 for each in wins])
            table.add(row, truth, [ends(probability_of_improvement, x, y), percentiles(drawn)])
    return table


def print_flags(rng: np.random.Generator) -> None:
    """How often seeds are told as groups in place of a mean."""
    print("### Share of studies whose seeds are flagged as bimodal\n")
    print(f"| rates of seeds | n = {', '.join(map(str, SEEDS))} |\n|---|---|")
    populations: dict[str, Callable[[tuple[int, int]], Array]] = {
        "Beta(2, 2)": lambda shape: rng.beta(2, 2, shape),
        "uniform": rng.random,
        "Beta(.2, .2)": lambda shape: rng.beta(0.2, 0.2, shape),
        "half near .05, half near .95": lambda shape: np.where(rng.random(shape) < 0.5, 0.05, 0.95),
        "a fifth near .95, else .05": lambda shape: np.where(rng.random(shape) < 0.2, 0.95, 0.05),
    }
    for name, population in populations.items():
        flagged = [np.mean([bimodal(seeds) for seeds in population((STUDIES, n))]) for n in SEEDS]
        print(f"| {name} | {' '.join(f'{share:.3f}' for share in flagged)} |")
    print(flush=True)


def main() -> None:
    """Prints the tables."""
    error = np.sqrt(0.95 * 0.05 / STUDIES)
    print(
        f"{STUDIES:,} simulated studies per entry, standard error {error:.4f} at .95; **below {ENOUGH}** is bold; in "
        f"brackets the mean width at n = {WIDTH_AT}; bootstraps of {DRAWS:,} draws.\n"
    )
    print_flags(np.random.default_rng(2026))
    for number, table in enumerate((shares, rates, levels, verdicts, differences, improvements)):
        table(np.random.default_rng([2026, number])).print()


if __name__ == "__main__":
    main()
