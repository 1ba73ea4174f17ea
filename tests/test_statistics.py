import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from astray.envs import InputError
from astray.experiments.statistics import (
    Interval,
    Mode,
    bimodal,
    clopper_pearson,
    hierarchical_bootstrap,
    modes,
    paired_difference,
    probability_of_improvement,
    rate_interval,
    t_interval,
)

RATES = st.lists(st.integers(0, 16).map(lambda successes: successes / 16), min_size=2, max_size=8)
NUMBERS = st.lists(st.floats(-100, 100), min_size=2, max_size=8)


def rng():
    return np.random.default_rng(0)


def ends(interval):
    return interval.low, interval.high


def by_seed_and_level(values):
    """A matrix of seeds and levels as a series."""
    values = np.asarray(values, dtype=float)
    index = pd.MultiIndex.from_product([range(values.shape[0]), range(values.shape[1])], names=["seed", "level"])
    return pd.Series(values.ravel(), index)


# Student's t


def test_t_interval_by_hand():
    # mean .5, sd .1, t(.975; 2) = 4.302653: half width 4.302653 * .1 / sqrt(3)
    found = t_interval([0.4, 0.5, 0.6])
    assert (found.n, found.missing, found.method) == (3, 0, "Student's t over seeds")
    assert found.mean == pytest.approx(0.5)
    assert ends(found) == pytest.approx((0.5 - 0.248414, 0.5 + 0.248414), abs=1e-6)


@given(NUMBERS)
def test_t_interval_is_scipys(values):
    assume(np.std(values) > 1e-6)
    assert ends(t_interval(values)) == pytest.approx(tuple(stats.ttest_1samp(values, 0).confidence_interval()))


def test_t_interval_is_clipped_to_the_range_of_the_values():
    assert t_interval([0.9, 1.0], within=(0, 1)).high == 1.0
    assert t_interval([0.0, 0.1], within=(0, 1)).low == 0.0
    assert t_interval([0.0, 0.1], within=(-1, 1)).low < 0


@pytest.mark.parametrize("interval", [t_interval, lambda rates: rate_interval(rates, 8)])
def test_one_seed_has_no_interval_and_none_no_mean(interval):
    one = interval([0.7])
    assert (one.mean, one.n) == (0.7, 1) and math.isnan(one.low) and math.isnan(one.high)
    assert str(one) == "0.70 (1 seed)"
    none = interval([math.nan])
    assert (none.n, none.missing) == (0, 1) and math.isnan(none.mean)


def test_missing_values_are_counted_and_never_averaged_as_zero():
    assert t_interval([0.5, math.nan, 0.5]) == Interval(0.5, 0.5, 0.5, 2, 1, "Student's t over seeds")
    found = rate_interval([0.5, math.nan, 0.5], [64, 0, 64])
    assert (found.mean, found.n, found.missing) == (0.5, 2, 1)
    assert "2 seeds, 1 missing" in str(found)


def test_values_outside_the_range_are_refused():
    with pytest.raises(InputError, match="must be from 0 to 1"):
        t_interval([0.5, 1.5], within=(0, 1))
    with pytest.raises(InputError, match="must be from 0 to 1"):
        rate_interval([0.5, -0.5], 8)


# rates


def test_clopper_pearson_by_hand():
    # no success of n: the upper end solves (1 - p)**n = .025
    assert clopper_pearson(0, 10) == pytest.approx((0, 1 - 0.025**0.1))
    assert clopper_pearson(10, 10) == pytest.approx((0.025**0.1, 1))


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_clopper_pearson_is_scipys(counts):
    exact = stats.binomtest(*counts).proportion_ci(0.95, method="exact")
    assert clopper_pearson(*counts) == pytest.approx((exact.low, exact.high))


@pytest.mark.parametrize(("successes", "n"), [(3, 2), (-1, 5), (0, 0)])
def test_clopper_pearson_refuses_impossible_counts(successes, n):
    with pytest.raises(InputError, match=f"successes={successes}"):
        clopper_pearson(successes, n)


def test_rate_interval_by_hand():
    # p = .5, sd**2 / n = .01 / 3, t(.975; 29) = 2.045230, t(.975; 2) = 4.302653:
    # effective = .25 / (.01 / 3) * (2.045230 / 4.302653)**2 = 16.9460 episodes, 8.4730 of them successes
    found = rate_interval([0.4, 0.5, 0.6], 10)
    low, high = stats.beta.ppf(0.025, 8.4730, 9.4730), stats.beta.ppf(0.975, 9.4730, 8.4730)
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, low, high), abs=1e-5)


def test_seeds_that_agree_are_pooled():
    assert ends(rate_interval([0.5] * 4, 32)) == pytest.approx(clopper_pearson(64, 128))
    assert ends(rate_interval([0.0] * 5, 128)) == pytest.approx(clopper_pearson(0, 640))
    assert ends(rate_interval([0.5, 0.5], [2, 6])) == ends(rate_interval([0.5, 0.5], 3))  # harmonic mean


def test_rate_interval_of_seeds_at_0_and_1_is_about_that_of_the_seeds_alone():
    found = rate_interval([0, 1] * 15, 128)
    low, high = clopper_pearson(15, 30)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03)
    assert found.high - found.low >= high - low


def test_rate_interval_of_a_difference_is_that_of_a_rate_stretched():
    rates = np.array([0.4, 0.5, 0.75])
    rate, difference = rate_interval(rates, 16), rate_interval(2 * rates - 1, 16, within=(-1, 1))
    assert ends(difference) == pytest.approx((2 * rate.low - 1, 2 * rate.high - 1))


def test_a_rate_of_no_episode_is_refused():
    with pytest.raises(InputError, match="at least 1"):
        rate_interval([0.5, 0.5], [8, 0])


@given(RATES, st.randoms())
def test_rate_interval_has_a_width_and_holds_the_mean_whatever_the_order(rates, random):
    found = rate_interval(rates, 16)
    assert 0 <= found.low <= found.mean <= found.high <= 1 and found.low < found.high
    random.shuffle(rates)
    assert ends(rate_interval(rates, 16)) == pytest.approx(ends(found))


@given(RATES)
def test_rate_interval_treats_failures_as_successes_of_failing(rates):
    found, mirrored = rate_interval(rates, 16), rate_interval([1 - rate for rate in rates], 16)
    assert ends(mirrored) == pytest.approx((1 - found.high, 1 - found.low))


# bootstrap


def test_bootstrap_of_seeds_and_levels_that_agree_has_no_width():
    assert ends(hierarchical_bootstrap(np.full((5, 8), 0.25), rng(), draws=200)) == (0.25, 0.25)


def test_bootstrap_sees_levels_where_seeds_agree():
    values = np.tile([0.0, 0.0, 1.0, 1.0] * 16, (6, 1))  # all seeds fail on the same half of the levels
    assert t_interval(values.mean(axis=1)).low == 0.5
    found = hierarchical_bootstrap(values, rng())
    assert found.mean == 0.5
    # 64 levels at 0 or 1: a standard error of .5 / 8, and the quantiles of t with 5 degrees for 6 seeds
    half = math.sqrt(6 / 5) * stats.t.ppf(0.975, 5) * 0.5 / 8
    assert ends(found) == pytest.approx((0.5 - half, 0.5 + half), abs=0.02)


def test_bootstrap_agrees_with_t_where_levels_do_not_matter():
    values = np.repeat(rng().normal(size=(40, 1)), 4, axis=1)
    assert ends(hierarchical_bootstrap(values, rng())) == pytest.approx(ends(t_interval(values[:, 0])), abs=0.03)


def test_bootstrap_keeps_missing_values_out():
    values = np.array([[1.0, math.nan], [1.0, 1.0], [math.nan, math.nan]])
    assert hierarchical_bootstrap(values, rng(), draws=200) == Interval(
        1.0, 1.0, 1.0, n=2, missing=1, method="hierarchical bootstrap over seeds and levels"
    )


def test_bootstrap_is_the_same_for_the_same_draws():
    values = rng().random((5, 12))
    assert hierarchical_bootstrap(values, rng(), 500) == hierarchical_bootstrap(values, rng(), 500)


def test_bootstrap_wants_a_matrix():
    with pytest.raises(InputError, match=r"shape \(3,\)"):
        hierarchical_bootstrap([0.1, 0.2, 0.3], rng())


# differences


def test_pairs_take_out_what_seeds_share():
    first = pd.Series({0: 0.9, 1: 0.5, 2: 0.1})
    found = paired_difference(first, first - 0.1)
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    unmatched = paired_difference(first, pd.Series({0: 0.5, 1: 0.5, 7: 0.5}))
    assert (unmatched.n, unmatched.missing, unmatched.method) == (2, 2, "Student's t over pairs of seeds")


def test_differences_are_on_common_levels():
    first = by_seed_and_level([[1, 1, 0], [1, 0, 0]])
    second = by_seed_and_level([[0, 1], [0, 0]])  # without the third level
    found = paired_difference(first, second)
    assert found.mean == pytest.approx(0.5) and found.n == 2
    second.loc[(1, 0)] = math.nan  # seed 1 is left with level 1, where both are 0
    assert paired_difference(first, second).mean == pytest.approx(0.25)


def test_seeds_without_partners_are_compared_as_two_groups():
    first, second = [0.2, 0.4, 0.5, 0.3], [0.6, 0.9, 0.7]
    found = paired_difference(pd.Series(first), pd.Series(second, index=[10, 11, 12]))
    welch = stats.ttest_ind(first, second, equal_var=False).confidence_interval()
    assert ends(found) == pytest.approx((welch.low, welch.high))
    assert (found.n, found.method) == (3, "Welch's t over seeds")


def test_groups_are_compared_on_common_levels():
    first = by_seed_and_level([[1, 1, 0], [1, 0, 0]])
    second = by_seed_and_level([[0, 1], [0, 0]]).rename(index={0: 10, 1: 11}, level=0)
    found = paired_difference(first, second)
    assert found.mean == pytest.approx(0.75 - 0.25) and found.n == 2


def test_a_single_pair_has_a_difference_and_no_interval():
    found = paired_difference(pd.Series({0: 0.9}), pd.Series({0: 0.5}))
    assert (found.mean, found.n) == (pytest.approx(0.4), 1) and math.isnan(found.low)


@given(RATES, RATES)
def test_a_difference_turns_around(first, second):
    found = paired_difference(pd.Series(first), pd.Series(second))
    turned = paired_difference(pd.Series(second), pd.Series(first))
    assert (turned.mean, turned.low, turned.high) == pytest.approx((-found.mean, -found.high, -found.low))


def test_values_of_several_checkpoints_are_refused():
    with pytest.raises(InputError, match="second has several values"):
        paired_difference(pd.Series([0.1]), pd.Series([0.1, 0.2], index=[0, 0]))


@given(RATES, RATES)
def test_probability_of_improvement_is_that_of_mann_and_whitney(first, second):
    found = probability_of_improvement(first, second)
    assert found.mean == pytest.approx(stats.mannwhitneyu(first, second).statistic / (len(first) * len(second)))
    assert 0 <= found.low <= found.mean <= found.high <= 1 and found.low < found.high
    turned = probability_of_improvement(second, first)
    assert (turned.mean, turned.low, turned.high) == pytest.approx((1 - found.mean, 1 - found.high, 1 - found.low))


def test_probability_of_improvement_by_hand():
    # two above two others: (1 - low)**2 = t**2 * V(low), t(.975; 2) = 4.302653, k = 1
    found = probability_of_improvement([3, 4], [1, 2])
    low = found.low
    spread = low * (1 - low) * (1 + (1 - low) / (2 - low) + low / (1 + low)) / 4
    assert (found.mean, found.high) == (1, 1)
    assert low < 1 and (1 - low) ** 2 == pytest.approx(4.302653**2 * spread, rel=1e-5)


def test_probability_of_improvement_of_one_seed_has_no_interval():
    found = probability_of_improvement([0.5, math.nan], [0.25, 0.5])
    assert (found.mean, found.n, found.missing) == (0.75, 1, 1) and math.isnan(found.low)


# modes


def test_seeds_in_two_groups_are_told_as_shares():
    low, high = modes([0.9, -0.8, 1.0, math.nan, -0.9, 0.8])
    assert low == Mode(pytest.approx(-0.85), 2, 0.4, *clopper_pearson(2, 5))
    assert high == Mode(pytest.approx(0.9), 3, 0.6, *clopper_pearson(3, 5))
    assert bimodal([-0.9, -0.8, 0.9])


def test_seeds_in_one_group():
    (only,) = modes([0.1, 0.5, 0.9])
    assert (only.mean, only.n, only.share) == (pytest.approx(0.5), 3, 1)
    assert not bimodal([0.1, 0.5, 0.9]) and not bimodal([0.3, math.nan])
    assert modes([math.nan]) == []


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=12))
def test_every_seed_is_in_one_group(values):
    groups = modes(values)
    assert sum(mode.n for mode in groups) == len(values)
    assert sum(mode.share for mode in groups) == pytest.approx(1)
    assert sum(mode.share * mode.mean for mode in groups) == pytest.approx(np.mean(values), abs=1e-12)
    assert all(after.mean - before.mean > 0.5 for before, after in pairwise(groups))
