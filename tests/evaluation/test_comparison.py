"""Two results side by side: read back, refused or tested."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from dimerec.data.splits import Protocol
from dimerec.errors import ConfigError, DataError
from dimerec.evaluation import statistics
from dimerec.evaluation.comparison import FAMILY, compare, read, read_side
from dimerec.evaluation.intervals import difference
from tests.evaluation.cards import scored

USERS = np.repeat(np.arange(150), np.random.default_rng(0).integers(1, 6, 150))


def side(hits: float, seeds: int = 1, **changes):
    """Ranks of a model that finds a target in the first 50 as often as `hits` says."""
    out = []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, int(1000 * hits)])
        found = rng.random(len(USERS)) < hits + 0.02 * rng.normal()
        ranks = np.where(found, rng.integers(1, 51, len(USERS)), 400)
        out.append(scored(ranks, USERS, seed, **changes))
    return out


def test_one_seed_a_side():
    a, b = side(0.6), side(0.3)
    found = compare(a, b)
    assert [o.metric for o in found] == list(FAMILY)
    for one in found:
        assert one.a == pytest.approx(a[0].metrics[one.metric])
        assert one.b == pytest.approx(b[0].metrics[one.metric])
        assert one.difference.value == pytest.approx(one.a - one.b)
        alone = difference(a[0], b[0], one.metric)
        assert one.difference.low == pytest.approx(alone.low)
        assert one.difference.high == pytest.approx(alone.high)
        assert one.relative == pytest.approx((one.a - one.b) / one.b)
        assert one.seeds is None and one.both is None and one.p == one.users.p
    hit = found[2]
    assert hit.metric == "hr@50" and hit.holm < 0.001
    assert (
        hit.d_z > 0.3 and hit.rank_biserial > 0.3 and hit.users.p < 1e-8 and hit.wilcoxon.p < 1e-8
    )


def test_several_seeds_a_side():
    a, b = side(0.42, 4), side(0.4, 4)
    (one,) = compare(a, b, ["ndcg@20"])
    x, y = (np.array([e.metrics["ndcg@20"] for e in s]) for s in (a, b))
    assert one.difference.value == pytest.approx(x.mean() - y.mean())
    assert one.both is not None and one.seeds is not None
    assert one.p == one.both.p == one.holm
    assert one.seeds.df == 3
    assert one.both.df is not None and one.users.df is not None
    assert one.both.df < one.users.df


def test_other_seeds_are_not_paired():
    a, b = side(0.42, 5), side(0.4, 5)
    (one,) = compare(a[:3], b[2:], ["hr@20"])
    assert one.seeds is None and one.both is not None


def test_holm_is_over_the_metrics():
    found = compare(side(0.5), side(0.4))
    assert [o.holm for o in found] == statistics.holm([o.p for o in found])
    assert compare(side(0.5), side(0.4), ["hr@10"])[0].holm == found[0].p


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digest": "e" * 64}, r"dataset \(dddddddddddd and eeeeeeeeeeee\)"),
        ({"trained_on": "e" * 64}, "dataset it was trained on"),
        ({"protocol": Protocol(name="users-8-1-1")}, "protocol .*leave-one-out.*users-8-1-1"),
        ({"positions": "every-position"}, r"positions \(last and every-position\)"),
        ({"split": "valid"}, "split"),
        ({"hide_seen": True, "candidates": "fewer"}, r"candidates .*hiding of seen items \(False"),
    ],
)
def test_what_differs_is_said(changes: dict, message: str):
    with pytest.raises(DataError, match=message) as caught:
        compare(side(0.4), side(0.4, **changes), names=("runs/one", "runs/other"))
    assert "runs/one and runs/other" in str(caught.value)


def test_what_may_differ():
    assert compare(side(0.4), side(0.5, model="other", length=50, sampling={"steps": 1}))


def test_other_users_are_refused():
    other = scored(side(0.4)[0].ranks, USERS[::-1])
    with pytest.raises(DataError, match="different users"):
        compare(side(0.4), [other])


def test_no_such_metric():
    with pytest.raises(ConfigError, match="no metric 'recall@20'"):
        compare(side(0.4), side(0.5), ["recall@20"])


def test_read_is_what_was_written(tmp_path: Path):
    (one,) = side(0.4)
    again = read(one.write(tmp_path))
    assert again.card == one.card and again.metrics == one.metrics
    assert np.array_equal(again.ranks, one.ranks) and np.array_equal(again.users, one.users)
    assert [e.card for e in read_side(tmp_path)] == [one.card]


def test_a_folder_of_seeds_is_read_in_their_order(tmp_path: Path):
    for name, one in zip(("b", "c", "a/deep"), side(0.4, 3)):
        one.write(tmp_path / name)
    assert [e.card.seeds["training"] for e in read_side(tmp_path)] == [0, 1, 2]


def test_what_is_no_side(tmp_path: Path):
    with pytest.raises(DataError, match="no evaluation.json in it or below it"):
        read_side(tmp_path)
    (first, second) = side(0.4, 2)
    first.write(tmp_path / "x")
    first.write(tmp_path / "y")
    with pytest.raises(DataError, match="both of training seed 0"):
        read_side(tmp_path)
    scored(second.ranks, second.users, 1, model="other").write(tmp_path / "y")
    with pytest.raises(DataError, match=r"not seeds of one model.*model \(toy and other\)"):
        read_side(tmp_path)


@pytest.mark.parametrize("name", ["evaluation.json", "ranks.npy"])
def test_a_broken_file_is_named(tmp_path: Path, name: str):
    side(0.4)[0].write(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:100])
    with pytest.raises(DataError, match=name):
        read(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=name):
        read(tmp_path)


def test_ranks_of_another_evaluation_are_refused(tmp_path: Path):
    side(0.4)[0].write(tmp_path)
    short = scored([1, 2], [0, 1]).write(tmp_path / "short")
    (tmp_path / "ranks.npy").write_bytes((short / "ranks.npy").read_bytes())
    with pytest.raises(DataError, match="2 ranks, but evaluation.json speaks of"):
        read(tmp_path)


def test_it_can_be_written_down():
    found = compare(side(0.5, 2), side(0.4, 2))
    assert msgspec.json.decode(msgspec.json.encode(found), type=list[type(found[0])]) == found
