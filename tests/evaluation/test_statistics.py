"""Tests over users and seeds: against SciPy and statsmodels, and on simulated worlds of no effect."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec
from statsmodels.stats.multitest import multipletests

from dimerec.errors import ConfigError, DataError
from dimerec.evaluation import statistics


def world(seed: int, users: int = 60, seeds: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two sides `[S, Q]` that differ, and users of 1 to 9 queries, in no order."""
    rng = np.random.default_rng(seed)
    who = rng.permutation(np.repeat(np.arange(users) * 7, rng.integers(1, 10, users)))
    level = rng.normal(size=users)[who // 7]
    a = level + rng.normal(size=(seeds, len(who)))
    b = 0.8 * level - 0.1 + rng.normal(size=(seeds, len(who)))
    return a, b, who


def test_one_query_a_user_is_the_ordinary_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(1, 40)), rng.normal(0.3, 1, size=(1, 40))
    found = statistics.over_users(a, b, rng.permutation(40))
    theirs = stats.ttest_rel(a[0], b[0])
    assert found.statistic == pytest.approx(theirs.statistic)
    assert found.p == pytest.approx(theirs.pvalue)
    assert found.df == theirs.df == 39
    assert [found.low, found.high] == pytest.approx(list(theirs.confidence_interval()))


def test_many_queries_a_user_is_the_cluster_robust_t_test():
    a, b, who = world(1)
    found = statistics.over_users(a, b, who)
    gap = (a - b)[0]
    theirs = OLS(gap, np.ones(len(gap))).fit(
        cov_type="cluster", cov_kwds={"groups": who}, use_t=True
    )
    # their correction for the number of parameters is (N - 1) / (N - 1) here
    assert found.statistic == pytest.approx(float(theirs.tvalues[0]))
    assert found.p == pytest.approx(float(theirs.pvalues[0]))
    assert [found.low, found.high] == pytest.approx(list(theirs.conf_int()[0]))


def test_wilcoxon_of_the_users_means():
    a, b, who = world(2)
    gaps = [float((a - b)[0][who == u].mean()) for u in np.unique(who)]
    gaps[0] = 0.0
    a[0][who == 0] = b[0][who == 0]
    theirs: Any = stats.wilcoxon(gaps)
    found = statistics.wilcoxon(a, b, who)
    assert (found.statistic, found.p) == pytest.approx((theirs.statistic, theirs.pvalue))


def test_over_seeds_it_is_the_paired_t_test_of_the_seeds_means():
    a, b, _ = world(3, seeds=5)
    theirs = stats.ttest_rel(a.mean(axis=1), b.mean(axis=1))
    found = statistics.over_seeds(a, b)
    assert (found.statistic, found.p, found.df) == pytest.approx(
        (theirs.statistic, theirs.pvalue, 4)
    )


@pytest.mark.parametrize(("seeds", "gap"), [(5, 0.0), (8, 0.3)])
def test_users_and_seeds_is_the_fit_of_crossed_random_effects(seeds: int, gap: float):
    """On a balanced table the mean squares are what restricted likelihood gives, too."""
    rng = np.random.default_rng(12)
    users, sides = 30, []
    for side in (gap, 0.0):
        sides.append(side + 0.6 * rng.normal(size=(seeds, 1)) + rng.normal(size=(seeds, users)))
    shared = rng.normal(size=users)  # what makes a user like side a better
    a, b = sides[0] + shared / 2, sides[1] - shared / 2
    found = statistics.over_users_and_seeds(a, b, np.arange(users))
    assert found.low is not None and found.high is not None and found.df is not None
    error = (found.high - found.low) / 2 / stats.t.ppf(0.975, found.df)
    y = np.concatenate([a.ravel(), b.ravel()])
    side = np.repeat([0.5, -0.5], seeds * users)
    run = np.repeat(np.arange(2 * seeds), users)
    user = np.tile(np.arange(users), 2 * seeds)
    runs = (run[:, None] == np.arange(2 * seeds)).astype(float)
    tastes = (user[:, None] == np.arange(users)) * side[:, None]
    levels = (user[:, None] == np.arange(users)).astype(float)
    names = [
        [[f"{kind}{i}" for i in range(m.shape[1])]] for kind, m in (("r", runs), ("t", tastes))
    ]
    random = VCSpec(["run", "taste"], names, [[runs], [tastes]])
    fixed = np.column_stack([side, levels])
    theirs = MixedLM(y, fixed, groups=np.zeros(len(y)), exog_vc=random)
    fit = theirs.fit(reml=True, method="lbfgs")
    assert found.statistic * error == pytest.approx(float(fit.fe_params[0]))
    assert error == pytest.approx(float(fit.bse_fe[0]), rel=0.02)


def alarms(test, draw, times: int = 400) -> float:
    """How often `test` finds a difference at 5 % in worlds that `draw` makes without one."""
    rng = np.random.default_rng(8)
    return float(np.mean([test(*draw(rng)) < 0.05 for _ in range(times)]))


def clustered(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits of one seed a side; a user likes one side or the other, for all of 1 to 20 queries."""
    who = np.repeat(np.arange(80), rng.integers(1, 21, 80))
    taste = rng.normal(0, 0.3, 80)[who]
    a = rng.random((1, len(who))) < np.clip(0.5 + taste, 0, 1)
    b = rng.random((1, len(who))) < np.clip(0.5 - taste, 0, 1)
    return a.astype(float), b.astype(float), who


def test_no_false_alarms_where_queries_cluster_and_a_naive_test_has_many():
    naive = alarms(lambda a, b, who: stats.ttest_rel(a[0], b[0]).pvalue, clustered)
    assert naive > 0.3
    assert 0.02 < alarms(lambda *w: statistics.over_users(*w).p, clustered) < 0.08
    assert 0.02 < alarms(lambda *w: statistics.wilcoxon(*w).p, clustered) < 0.08


def seeded(spread: float, seeds: int, tastes: float = 0.5):
    """Worlds in which training seeds move a whole side by `spread`."""

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        size = rng.integers(1, 8, 100)
        who = np.repeat(np.arange(100), size)
        sides = [
            spread * rng.normal(size=(seeds, 1))
            + tastes * rng.normal(size=100)[who]
            + rng.normal(size=(seeds, len(who)))
            for _ in range(2)
        ]
        return sides[0], sides[1], who

    return draw


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_no_false_alarms_where_seeds_differ_and_a_test_over_users_has_many(seeds: int):
    world = seeded(0.2, seeds)
    only_users = alarms(lambda *w: statistics.over_users(*w).p, world)
    assert only_users > 0.15
    assert 0.02 < alarms(lambda *w: statistics.over_users_and_seeds(*w).p, world) < 0.08


@pytest.mark.parametrize(("seeds", "spread", "tastes"), [(2, 0.05, 0), (3, 0, 0.5), (5, 0, 0)])
def test_nor_where_either_level_is_quiet(seeds: int, spread: float, tastes: float):
    """There it may find too few: the components are small and unknown."""
    world = seeded(spread, seeds, tastes)
    assert alarms(lambda *w: statistics.over_users_and_seeds(*w).p, world) < 0.08


def test_over_users_and_seeds_finds_what_is_there():
    draw = seeded(0.05, 5)

    def shifted(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        a, b, who = draw(rng)
        return a + 0.4, b, who

    assert alarms(lambda *w: statistics.over_users_and_seeds(*w).p, shifted, 100) > 0.9


@given(st.lists(st.integers(0, 100), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None)
def test_holm_is_bonferroni_over_every_subset(percent: list[int]):
    """The closed family: a hypothesis falls when each subset that holds it falls."""
    p = [n / 100 for n in percent]
    subsets = [s for k in range(len(p)) for s in itertools.combinations(range(len(p)), k + 1)]
    wanted = [
        max(min(1.0, len(s) * min(p[j] for j in s)) for s in subsets if i in s)
        for i in range(len(p))
    ]
    assert statistics.holm(p) == pytest.approx(wanted)


@pytest.mark.parametrize("seed", range(3))
def test_holm_is_that_of_statsmodels(seed: int):
    p = np.random.default_rng(seed).integers(0, 30, 12) / 200  # some are equal
    theirs: Any = multipletests(p, method="holm")[1]
    assert statistics.holm(p.tolist()) == pytest.approx(theirs.tolist())


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_effect_sizes_by_hand():
    users = np.array([0, 0, 1, 2, 3])
    a = np.array([[1.0, 0.0, 3.0, 1.0, 2.0], [1.0, 2.0, 3.0, 1.0, 2.0]])
    b = np.array([[0.0, 0.0, 0.0, 2.0, 2.0]])
    gaps = np.array([1.0, 3.0, -1.0, 0.0])  # the users' means, seeds averaged
    assert statistics.user_means(a.mean(axis=0) - b[0], users) == pytest.approx(gaps)
    assert statistics.cohen(a, b, users) == pytest.approx(0.75 / np.std(gaps, ddof=1))
    # ranks of |1|, |3|, |-1|: 1.5, 3, 1.5
    assert statistics.rank_biserial(a, b, users) == pytest.approx((1.5 + 3 - 1.5) / 6)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_swapping_the_sides_turns_the_sign(seed: int):
    a, b, who = world(seed, users=8, seeds=2)
    for test in (statistics.over_users, statistics.over_users_and_seeds):
        one, other = test(a, b, who), test(b, a, who)
        assert one.p == pytest.approx(other.p)
        assert one.statistic == pytest.approx(-other.statistic)
    assert statistics.wilcoxon(a, b, who).p == pytest.approx(statistics.wilcoxon(b, a, who).p)
    for effect in (statistics.cohen, statistics.rank_biserial):
        assert effect(a, b, who) == pytest.approx(-effect(b, a, who))


def test_the_order_of_the_queries_is_nothing():
    a, b, who = world(5, seeds=3)
    order = np.random.default_rng(0).permutation(len(who))
    for test in (statistics.over_users, statistics.wilcoxon, statistics.over_users_and_seeds):
        assert test(a[:, order], b[:, order], who[order]).p == pytest.approx(test(a, b, who).p)


def test_two_equal_sides():
    a, _, who = world(6, seeds=2)
    a[1] = a[0]  # a model that no seed moves
    for test in (statistics.over_users, statistics.wilcoxon, statistics.over_users_and_seeds):
        assert test(a, a, who).p == 1.0
    assert statistics.over_seeds(a, a).p == 1.0
    assert statistics.cohen(a, a, who) == statistics.rank_biserial(a, a, who) == 0.0


def test_a_difference_that_never_varies():
    a, _, who = world(7)
    found = statistics.over_users(np.round(a) + 1.0, np.round(a), who)
    assert found.p == 0.0 and found.low == found.high == 1.0
    assert statistics.cohen(np.round(a) + 1.0, np.round(a), who) == np.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, b, w: statistics.over_users(a[:, :1], b[:, :1], w[:1]), "two users"),
        (lambda a, b, w: statistics.over_users(a, b, w[:-1]), "users of"),
        (lambda a, b, w: statistics.over_users(a[0], b[0], w), "a row a seed"),
        (lambda a, b, w: statistics.over_seeds(a, b), "two or more"),
        (lambda a, b, w: statistics.over_users_and_seeds(a, b, w), "two or more of each side"),
        (lambda a, b, w: statistics.holm([0.1, 1.2]), "within 0..1"),
    ],
)
def test_what_cannot_be_tested_is_refused(call, message: str):
    with pytest.raises(DataError, match=message):
        call(*world(9))


def test_without_scipy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy", None)
    with pytest.raises(ConfigError, match=r"dimerec\[experiments\]"):
        statistics.over_users(*world(10))
