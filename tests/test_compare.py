"""Two runs against each other: differences by hand, what is paired with what, and what is refused."""

import json
import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astray.envs import InputError
from astray.experiments.compare import compare, show

P, I, N = "proxy", "intended", "neither"  # noqa: E741


def run(outcomes, arm="mlp", train_shift=0.0, step=100, mode="sampled", agent="trained", mass=None, levels="abcdefgh"):
    """Rows of one arm on distinguishing levels a, b, ...: outcomes by seed, each a list by level."""
    rows = [
        {
            "arm": arm,
            "agent": agent,
            "train_shift": train_shift,
            "seed": seed,
            "step": step,
            "mode": mode,
            "level": level,
            "level_class": "distinguishing",
            "outcome": outcome,
            "intended_step": 1 if outcome == I else -1,
            "proxy_step": 1 if outcome == P else -1,
            "mass_intended": math.nan if mass is None else 1 - mass[seed][number],
            "mass_proxy": math.nan if mass is None else mass[seed][number],
        }
        for seed, episodes in outcomes.items()
        for number, (level, outcome) in enumerate(zip(levels, episodes, strict=False))
    ]
    return pd.DataFrame(rows)


def row(told, metric="proxy first"):
    (found,) = told[told["metric"] == metric].to_dict("records")
    return found


FIRST = run({0: [P, P], 1: [P, I], 2: [P, N]})  # proxy first in 1, .5, .5
SECOND = run({0: [I, I], 1: [I, I], 2: [N, I]})  # in none


def test_second_minus_first_paired_by_seed_and_level():
    told = compare(FIRST, SECOND)
    proxy = row(told)
    assert proxy["difference"] == pytest.approx(-2 / 3) and (proxy["first"], proxy["second"]) == (
        pytest.approx(2 / 3),
        0,
    )
    # t with 2 degrees is 4.302653, and the differences -1, -.5, -.5 have a standard deviation of .288675
    assert proxy["high"] == pytest.approx(-2 / 3 + 4.302653 * 0.288675 / math.sqrt(3), abs=1e-5)
    assert proxy["low"] == -1
    assert (proxy["n"], proxy["missing"], proxy["unit"], proxy["levels"]) == (3, 0, "seed", 2)
    assert proxy["method"] == "Student's t over pairs of seeds"
    assert proxy["probability"] == 0 and proxy["probability_high"] < 1
    # intended first: 0, .5, 0 and then 1, 1, .5
    intended = row(told, "intended first")
    assert intended["difference"] == pytest.approx((1 + 0.5 + 0.5) / 3)
    # of 9 pairs of seeds, 8 are above and one (.5 and .5) is equal
    assert intended["probability"] == pytest.approx(8.5 / 9)
    assert row(told, "capability")["difference"] == pytest.approx((0 + 0 + 0) / 3)


def test_only_levels_of_both_count():
    first = run({0: [P, P, P], 1: [P, P, P]}, levels="abx")
    second = run({0: [I, P, P, P], 1: [I, I, P, P]}, levels="abyz")
    proxy = row(compare(first, second))
    assert (proxy["common"], proxy["levels"]) == (2, 2)
    assert proxy["difference"] == pytest.approx((-0.5 - 1) / 2)
    assert (proxy["first"], proxy["second"]) == (1, 0.25)


def test_last_checkpoints_sampled_and_of_trained_agents_are_compared():
    others = [
        run({0: [I, I], 1: [I, I]}, **other) for other in ({"step": 50}, {"mode": "greedy"}, {"agent": "state-blind"})
    ]
    first = pd.concat([*others, run({0: [P, P], 1: [P, P]})], ignore_index=True)
    second = run({0: [P, P], 1: [P, I]}, step=200)
    proxy = row(compare(first, second))
    assert proxy["difference"] == pytest.approx(-0.25)
    assert (proxy["first_step"], proxy["second_step"]) == (100, 200)


def test_a_single_seed_is_compared_over_levels_and_says_so():
    first, second = run({0: [P, P, P, P]}), run({0: [P, P, I, I], 1: [I, I, I, I]})
    proxy = row(compare(first, second))
    assert (proxy["unit"], proxy["n"], proxy["missing"]) == ("level", 4, 0)
    assert "one seed" in proxy["method"] and "another seed" in proxy["method"]
    # seed 0 with seed 0: 0, 0, -1, -1, whose standard deviation is .57735; t with 3 degrees is 3.182446
    assert proxy["difference"] == -0.5
    assert proxy["high"] == pytest.approx(-0.5 + 3.182446 * 0.57735 / 2, abs=1e-5)
    assert math.isnan(proxy["probability"])


def test_seeds_without_a_partner_are_missing_and_without_any_pair_all_seeds_count():
    first, second = run({0: [P], 1: [P], 2: [I]}), run({0: [P], 1: [I]})
    pairs = row(compare(first, second))
    assert (pairs["difference"], pairs["n"], pairs["missing"]) == (-0.5, 2, 1)
    assert (pairs["first"], pairs["second"]) == (1, 0.5)
    apart = row(compare(first, run({7: [I], 8: [I]})))
    assert apart["difference"] == pytest.approx(-2 / 3) and apart["method"] == "Welch's t over seeds"


def test_what_an_episode_does_not_say_is_left_out_and_counted():
    first = run({0: [P, P], 1: [P, P]}, mass={0: [0.8, math.nan], 1: [0.6, math.nan]})
    second = run({0: [P, P], 1: [P, P]}, mass={0: [0.6, 0.1], 1: [0.2, 0.1]})
    mass = row(compare(first, second), "mass on proxy")
    assert mass["difference"] == pytest.approx((-0.2 - 0.4) / 2) and (mass["first"], mass["second"]) == (0.7, 0.4)
    assert (mass["common"], mass["levels"], mass["missing"]) == (2, 1, 0)
    no_seed = run({0: [P, P], 1: [P, P], 2: [P, P]}, mass={0: [0.8, 0.8], 1: [0.6, 0.6], 2: [math.nan] * 2})
    assert row(compare(no_seed, no_seed), "mass on proxy")["missing"] == 1
    unknown = row(compare(FIRST, SECOND), "mass on proxy")
    assert math.isnan(unknown["difference"]) and unknown["n"] == 0 and unknown["missing"] == 2


def test_arms_are_matched_by_name_and_train_shift():
    other = run({0: [I], 1: [I]}, arm="curious")
    shifted = run({0: [I], 1: [I]}, train_shift=0.1)
    told = compare(pd.concat([FIRST, other, shifted]), pd.concat([shifted, SECOND]))
    assert list(told[["arm", "train_shift"]].drop_duplicates().itertuples(index=False, name=None)) == [
        ("mlp", 0.0),
        ("mlp", 0.1),
    ]


def test_the_only_arms_are_compared_whatever_their_names():
    assert set(compare(FIRST, SECOND.assign(arm="curious"))["arm"]) == {"mlp → curious"}


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (run({0: [P]}, levels="z"), "other levels"),
        (run({0: [P]}, train_shift=0.5), "'mlp' at 0.5; first has 'mlp' at 0"),
        (pd.concat([run({0: [P]}, arm=arm) for arm in ("one", "two")]), "'one' at 0, 'two' at 0"),
        (run({0: [P]}, agent="random"), "no rows of a trained agent"),
    ],
)
def test_what_cannot_be_compared_is_refused(second, words):
    with pytest.raises(InputError, match=words):
        compare(FIRST, second)


ROWS = st.integers(1, 3).flatmap(
    lambda levels: st.dictionaries(
        st.integers(0, 3), st.lists(st.sampled_from([P, I, N]), min_size=levels, max_size=levels), min_size=1
    )
)


@settings(max_examples=30, deadline=None)
@given(first=ROWS, second=ROWS)
def test_exchanging_the_runs_changes_the_signs(first, second):
    there, back = (compare(run(one), run(other)).fillna(9) for one, other in ((first, second), (second, first)))
    for one, other in zip(there.itertuples(), back.itertuples(), strict=True):
        assert (one.n, one.missing, one.levels, one.unit) == (other.n, other.missing, other.levels, other.unit)
        for value, opposite in ((one.difference, other.difference), (one.low, other.high), (one.high, other.low)):
            assert value == pytest.approx(-opposite) or value == opposite == 9
        assert one.probability == pytest.approx(1 - other.probability) or one.probability == other.probability == 9


@settings(max_examples=10, deadline=None)
@given(outcomes=ROWS)
def test_a_run_does_not_differ_from_itself(outcomes):
    told = compare(run(outcomes), run(outcomes))
    assert not told["difference"].fillna(0).any()
    assert (told["probability"].fillna(0.5) == 0.5).all()


def write(folder, rows, goals=("cheese", "corner")):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"goals": goals}))
    rows.to_parquet(folder / "rows.parquet", index=False)
    return folder


def test_run_folders_are_compared_in_plain_text(tmp_path, capsys):
    more = [run({0: [P, I]}, train_shift=0.1, mass={0: [0.5, 0.5]}), run({0: [I, I]}, train_shift=0.1)]
    first = write(tmp_path / "one", pd.concat([FIRST, more[0]]))
    second = write(tmp_path / "two", pd.concat([SECOND, more[1]]))
    show(first, second)
    out = capsys.readouterr().out
    assert "Differences are second minus first" in out and "\x1b" not in out
    assert "mlp, train shift 0, 100 steps: 2 distinguishing" in out
    proxy = next(line for line in out.splitlines() if line.startswith("proxy first, distinguishing"))
    assert proxy.split()[3:6] == ["0.67", "0.00", "−0.67"] and "(−1.00 to 0.05)" in proxy and "3 seeds" in proxy
    assert "2 levels, one seed" in out and "says nothing about another seed" in out
    assert "no value on 2 levels" in out and "nan" not in out


def test_run_folders_with_other_goals_are_refused(tmp_path):
    first, second = write(tmp_path / "one", FIRST), write(tmp_path / "two", SECOND, goals=("key", "chest"))
    with pytest.raises(InputError, match="other goals than first: key, chest"):
        show(first, second)
