"""Intervals with the training seed as the unit. Numbers in, intervals of 95% out.

What each interval covers, and where it fails, was simulated: docs/statistics.md.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import optimize, special

from astray.envs import InputError

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2
SPLIT = 0.5  # an empty stretch this wide between neighbouring seeds, and one mean no longer describes them


@dataclass(frozen=True)
class Interval:
    """A mean over training seeds with its interval.

    Attributes:
        mean: mean of the values that are there; NaN if there is none.
        low: lower end; NaN with fewer than two values.
        high: upper end; NaN with fewer than two values.
        n: number of values that are there; of two groups of seeds, that of the smaller one.
        missing: number of NaN values, which are in neither the mean nor `n`.
        method: how the ends were computed, for a caption.
    """

    mean: float
    low: float
    high: float
    n: int
    missing: int = 0
    method: str = ""

    def __str__(self) -> str:
        seeds = f"{self.n} seed{'s' * (self.n != 1)}"
        if self.missing:
            seeds += f", {self.missing} missing"
        if self.n > 1:
            seeds = f"95% interval {self.low:.2f} to {self.high:.2f}, {seeds}"
        return f"{self.mean:.2f} ({seeds})".replace("-", "−")


def t_interval(values: Iterable[float], within: tuple[float, float] = (-math.inf, math.inf)) -> Interval:
    """Student's t interval over seeds: ``mean +- t * sd / sqrt(n)``, clipped to `within`.

    Colas et al. 2018 (arXiv:1806.08295) find percentile bootstraps too narrow for a handful of seeds. Seeds that are
    all equal give an interval of no width, and skewed ones too short a one: for bounded values see `rate_interval`.

    Args:
        values: one value per seed; NaN is counted as missing.
        within: the range that the values can take.

    Raises:
        InputError: a value outside `within`.
    """
    present, missing = _present(values, within)
    n, method = len(present), "Student's t over seeds"
    mean = float(present.mean()) if n else math.nan
    if n < 2:
        return Interval(mean, math.nan, math.nan, n, missing, method)
    half = _t(n - 1) * float(present.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, max(mean - half, within[0]), min(mean + half, within[1]), n, missing, method)


def rate_interval(rates: Iterable[float], episodes: ArrayLike, within: tuple[float, float] = (0.0, 1.0)) -> Interval:
    """Interval over seeds of a rate: Clopper and Pearson's with the effective number of episodes.

    ``effective = min(episodes of all seeds, p * (1 - p) / (sd**2 / n) * (t[episodes - 1] / t[n - 1])**2)``, where p is
    the mean over n seeds and t the quantile of Student's distribution; the ends are those of ``p * effective``
    successes in ``effective`` trials (Korn and Graubard 1998, for proportions in clustered samples). Seeds that agree
    as chance would have it are pooled, so that even equal seeds are not certain of anything; seeds at 0 and 1 count
    for hardly more than themselves; between the two it is Student's t, bent to stay within the range.

    It needs no test of whether seeds agree. Such a test would pool them just when their spread is small by luck. The
    wider of Student's t and the pooled interval needs none either, but is too short for rates near 0 and 1, where
    seeds are skewed: docs/statistics.md has both.

    Args:
        rates: one value per seed; NaN is counted as missing.
        episodes: how many episodes each rate is the mean of, or one number for all.
        within: the range that the values can take; ``(-1, 1)`` for a difference of two rates of the same episodes.

    Returns:
        The interval; its ends are NaN for a single seed, whose episodes say nothing about other seeds.

    Raises:
        InputError: a value outside `within`, or a rate of no episode.
    """
    every = np.fromiter(rates, dtype=float)
    present, missing = _present(every, within)
    counts = np.broadcast_to(np.asarray(episodes, dtype=float), every.shape)[~np.isnan(every)]
    if (counts < 1).any():
        raise InputError(f"episodes={counts} must be at least 1 for each seed that has a rate")
    n, method = len(present), "Korn-Graubard over seeds"
    mean = float(present.mean()) if n else math.nan
    if n < 2:
        return Interval(mean, math.nan, math.nan, n, missing, method)
    low, width = within[0], within[1] - within[0]
    share = (mean - low) / width
    pooled = n**2 / float((1 / counts).sum())  # seeds weigh the same, whatever their number of episodes
    variance = float(present.var(ddof=1)) / n / width**2
    effective = pooled
    if variance > 0:
        effective = min(pooled, share * (1 - share) / variance * (_t(pooled - 1) / _t(n - 1)) ** 2)
    ends = _binomial_ends(share * effective, effective)
    return Interval(mean, low + width * ends[0], low + width * ends[1], n, missing, method)


def clopper_pearson(successes: int, n: int) -> tuple[float, float]:
    """Exact binomial interval (Clopper and Pearson 1934) of a share of n independent things.

    For agents without training seeds, such as the random one, where the episode is the unit; and for shares of seeds.

    Raises:
        InputError: not ``0 <= successes <= n`` with ``n >= 1``.
    """
    if not (n >= 1 and 0 <= successes <= n):
        raise InputError(f"successes={successes} must be from 0 to n={n}, and n at least 1")
    return _binomial_ends(successes, n)


def hierarchical_bootstrap(values: ArrayLike, rng: np.random.Generator, draws: int = 10_000) -> Interval:
    """Bootstrap over seeds and levels, for statements about other levels of the same world too.

    Each draw takes seeds with replacement, and levels with replacement that are the same for all of its seeds, since
    seeds are tested on common levels: what makes a level hard then stays common (the pigeonhole bootstrap, Owen 2007).
    Levels drawn for each seed apart would average it out, and the interval would be too short. The value of a draw is
    the mean over its seeds of each one's mean over the levels that it has.

    Percentiles of so few seeds are too narrow by ``sqrt((n - 1) / n)`` and by the difference of Student's t from the
    normal; the quantiles are moved out to make up for both (the expanded percentile interval, Hesterberg 2015). With
    that it is sound from 5 seeds on, save for skewed ones, by the simulation in docs/statistics.md; without, from 30.
    `rate_interval` and `t_interval` speak about the given levels alone, and are the intervals of figures.

    Args:
        values: ``[seeds, levels]``, NaN where a seed has no value; a seed without any is counted as missing.
        rng: source of the draws.
        draws: how many.

    Raises:
        InputError: `values` is no matrix.
    """
    every = np.asarray(values, dtype=float)
    if every.ndim != 2:
        raise InputError(f"values has shape {every.shape}; it must be a matrix of seeds and levels")
    present = every[~np.isnan(every).all(axis=1)]
    (n, levels), missing = present.shape, len(every) - len(present)
    method = "hierarchical bootstrap over seeds and levels"
    mean = float(np.nanmean(present, axis=1).mean()) if n else math.nan
    if n < 2:
        return Interval(mean, math.nan, math.nan, n, missing, method)
    means = _drawn_means(present, _draw_counts(n, draws, rng), _draw_counts(levels, draws, rng))
    low, high = _expanded_ends(means, n)
    return Interval(mean, low, high, n, missing, method)


def paired_difference(first: pd.Series, second: pd.Series, within: tuple[float, float] = (-1.0, 1.0)) -> Interval:
    """Interval over seeds of ``first - second``, on the levels that both have.

    Seeds that both have are pairs: the difference is taken on each of their common levels, averaged within the seed,
    and Student's t is over seeds, which takes out what a seed and a level do to both. A seed that has no partner
    counts as missing. Where fewer than two seeds are in both, pairing is not possible: then each seed's mean over the
    common levels goes into Welch's t (1947), as two groups of seeds.

    Seeds that all have the same difference give an interval of no width: they agree, which is not certainty.

    Args:
        first: values indexed by seed, or by (seed, level).
        second: likewise.
        within: the range that the differences can take; ``(-1, 1)`` for rates.

    Raises:
        InputError: an index that names a seed, or a seed and level, twice.
    """
    for name, values in (("first", first), ("second", second)):
        if not values.index.is_unique:
            what = "a seed" if values.index.nlevels == 1 else "a level of a seed"
            raise InputError(f"{name} has several values for {what}; it must have one, of one checkpoint and mode")
    first, second = first.astype(float), second.astype(float)
    differences = _seed_means(first - second)  # NaN where only one of the two has a value
    if differences.count() >= 2:
        return replace(t_interval(differences, within), method="Student's t over pairs of seeds")
    if first.index.nlevels > 1:
        levels = [values.dropna().index.get_level_values(1) for values in (first, second)]
        common = levels[0].intersection(levels[1])
        first, second = (values.loc[values.index.isin(common, level=1)] for values in (first, second))
    return _welch(_seed_means(first), _seed_means(second), within)


def probability_of_improvement(first: Iterable[float], second: Iterable[float]) -> Interval:
    """How likely a seed of `first` exceeds one of `second`: ``P(X > Y) + P(X = Y) / 2``.

    Mann and Whitney's ``U / (n * m)``, as in Agarwal et al. 2021 (arXiv:2108.13264). The ends solve ``|estimate -
    theta| = t * sqrt(V(theta))`` for theta, where ``V(theta) = theta * (1 - theta) * (1 + k * ((1 - theta) /
    (2 - theta) + theta / (1 + theta))) / (n * m)`` and ``k = (n + m) / 2 - 1`` (Newcombe 2006, part 2, method 5), with
    Student's t of ``n + m - 2`` degrees in place of the normal quantile. Unlike the bootstrap, it has a width where
    one group lies wholly above the other.

    Args:
        first: one value per seed; NaN is counted as missing.
        second: likewise.
    """
    x, missing_x = _present(first)
    y, missing_y = _present(second)
    n, missing, method = min(len(x), len(y)), missing_x + missing_y, "Newcombe's method 5 over seeds"
    estimate = float((np.sign(x[:, None] - y) + 1).mean() / 2) if n else math.nan
    if n < 2:
        return Interval(estimate, math.nan, math.nan, n, missing, method)
    k, t = (len(x) + len(y)) / 2 - 1, _t(len(x) + len(y) - 2)

    def excess(theta: float) -> float:
        spread = theta * (1 - theta) * (1 + k * ((1 - theta) / (2 - theta) + theta / (1 + theta)))
        return (estimate - theta) ** 2 - t**2 * spread / (len(x) * len(y))

    # at 0 and 1 the spread vanishes, and an estimate there is a solution itself: the other one is looked for
    edge = 1e-9
    low = 0.0 if estimate == 0 else optimize.root_scalar(excess, bracket=(0, min(estimate, 1 - edge))).root
    high = 1.0 if estimate == 1 else optimize.root_scalar(excess, bracket=(max(estimate, edge), 1)).root
    return Interval(estimate, low, high, n, missing, method)


@dataclass(frozen=True)
class Mode:
    """A group of seeds.

    Attributes:
        mean: of its seeds' values.
        n: number of its seeds.
        share: of all seeds that have a value.
        low: lower end of the share's interval (Clopper and Pearson over seeds).
        high: upper end.
    """

    mean: float
    n: int
    share: float
    low: float
    high: float


def modes(values: Iterable[float]) -> list[Mode]:
    """The groups that seeds fall into: apart where a stretch wider than `SPLIT` has no seed.

    Args:
        values: one value per seed; NaN belongs to no group.

    Returns:
        The groups from the lowest to the highest: one if the seeds are not bimodal, none if there is no value.
    """
    present = np.sort(_present(values)[0])
    groups = np.split(present, np.flatnonzero(np.diff(present) > SPLIT) + 1)
    return [
        Mode(float(group.mean()), len(group), len(group) / len(present), *clopper_pearson(len(group), len(present)))
        for group in groups
        if len(group)
    ]


def bimodal(values: Iterable[float]) -> bool:
    """Whether seeds fall into two groups or more; see `modes`."""
    return len(modes(values)) > 1


def _present(values: Iterable[float], within: tuple[float, float] = (-math.inf, math.inf)) -> tuple[np.ndarray, int]:
    """The values that are there, and how many are missing."""
    every = np.fromiter(values, dtype=float)
    present = every[~np.isnan(every)]
    rounding = 1e-9
    if ((present < within[0] - rounding) | (present > within[1] + rounding)).any():
        raise InputError(f"values {present} must be from {within[0]:g} to {within[1]:g}")
    return np.clip(present, *within), len(every) - len(present)


def _t(degrees: float) -> float:
    """Quantile of Student's distribution that leaves `TAIL` above it."""
    return float(special.stdtrit(degrees, 1 - TAIL))


def _binomial_ends(successes: float, n: float) -> tuple[float, float]:
    """Clopper and Pearson's ends, by the beta distribution, which needs no whole numbers."""
    low = special.betaincinv(successes, n - successes + 1, TAIL) if successes > 0 else 0.0
    high = special.betaincinv(successes + 1, n - successes, 1 - TAIL) if successes < n else 1.0
    return float(low), float(high)


def _draw_counts(n: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of n things is in each of the bootstrap's draws: ``float64[draws, n]``."""
    return rng.multinomial(n, np.full(n, 1 / n), draws).astype(float)


def _drawn_means(values: np.ndarray, seed_counts: np.ndarray, level_counts: np.ndarray) -> np.ndarray:
    """Bootstrapped means ``[draws]`` of ``values[seeds, levels]``, by how often a draw has each seed and each level."""
    there = ~np.isnan(values)
    weights = level_counts @ there.T  # [draws, seeds]: how many values a seed has on a draw's levels
    sums = level_counts @ np.where(there, values, 0).T
    means = np.divide(sums, weights, out=np.zeros_like(sums), where=weights > 0)
    counts = np.where(weights > 0, seed_counts, 0)  # a seed without a value on these levels is not in the draw
    totals = counts.sum(axis=1)
    return (counts * means).sum(axis=1)[totals > 0] / totals[totals > 0]


def _expanded_ends(means: np.ndarray, n: int) -> tuple[float, float]:
    """Quantiles of bootstrapped means of n seeds, moved out to where Student's t would have them."""
    tail = float(special.ndtr(-math.sqrt(n / (n - 1)) * _t(n - 1)))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _seed_means(values: pd.Series) -> pd.Series:
    """Means over levels, where the index has them; NaN for a seed without a value."""
    return cast(pd.Series, values.groupby(level=0).mean())


def _welch(first: pd.Series, second: pd.Series, within: tuple[float, float]) -> Interval:
    """Welch's t interval of the difference between two groups of seeds."""
    (x, missing_x), (y, missing_y) = _present(first), _present(second)
    n, missing, method = min(len(x), len(y)), missing_x + missing_y, "Welch's t over seeds"
    mean = float(x.mean() - y.mean()) if n else math.nan
    if n < 2:
        return Interval(mean, math.nan, math.nan, n, missing, method)
    parts = np.array([x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)])
    half = 0.0
    if parts.any():
        degrees = float(parts.sum() ** 2 / (parts**2 / [len(x) - 1, len(y) - 1]).sum())
        half = _t(degrees) * math.sqrt(parts.sum())
    return Interval(mean, max(mean - half, within[0]), min(mean + half, within[1]), n, missing, method)
