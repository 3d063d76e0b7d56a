import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimerec.batch import SequenceBatch
from dimerec.config import NegativesConfig, RunConfig, TrainingConfig
from dimerec.data.batches import Batches
from dimerec.data.dataset import Dataset
from dimerec.errors import ConfigError, DataError
from tests.data.logs import logs, make


def config(length: int, batch_size: int, seed: int = 0, **negatives) -> RunConfig:
    return RunConfig(
        model="sasrec",
        seed=seed,
        length=length,
        negatives=NegativesConfig(**negatives),
        training=TrainingConfig(batch_size=batch_size),
    )


def rows(*batches: SequenceBatch) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(history, targets) of every row."""
    return [
        (tuple(h), tuple(t))
        for b in batches
        for h, t in zip(b.history.tolist(), b.targets.tolist(), strict=True)
    ]


def epoch(batches: Batches, number: int = 0) -> list[SequenceBatch]:
    first = number * batches.steps_per_epoch
    return [batches.batch(first + s) for s in range(batches.steps_per_epoch)]


def expected(log: tuple, length: int, targets: str) -> list:
    """All examples by plain loops over lists."""
    out = []
    for s, (train, _) in zip(*log, strict=True):
        segment = s[:train]
        if targets == "last":
            for p in range(1, train):
                past = ([0] * length + segment[:p])[-length:]
                out.append((tuple(past), (0,) * (length - 1) + (segment[p],)))
            continue
        end, windows = train, []
        while end >= 2:
            window = segment[max(0, end - length - 1) : end]
            history, following = window[:-1], window[1:]
            pad = [0] * (length - len(history))
            windows.append((tuple(pad + history), tuple(pad + following)))
            end -= length
        out += windows[::-1]
    return out


@given(log=logs(), length=st.integers(1, 6), targets=st.sampled_from(["all", "last"]))
@settings(max_examples=50)
def test_examples_against_plain_loops(log: tuple, length: int, targets) -> None:
    wanted = expected(log, length, targets)
    with tempfile.TemporaryDirectory() as folder:
        dataset = make(Path(folder) / "d", *log)
        if not wanted:
            with pytest.raises(DataError, match="no user has two training events"):
                Batches(dataset, config(length, 4), targets)
            return
        one_at_a_time = Batches(dataset, config(length, 1), targets)
        assert one_at_a_time.steps_per_epoch == one_at_a_time.examples == len(wanted)
        assert Counter(rows(*epoch(one_at_a_time))) == Counter(wanted)
        assert rows(*Batches(dataset, config(length, 4), targets).windows_once()) == wanted
        # every training target, with the event before it, exactly once
        pairs = Counter()
        for history, following in rows(*one_at_a_time.windows_once()):
            pairs.update((h, t) for h, t in zip(history, following, strict=True) if t)
        plain = Counter()
        for s, (train, _) in zip(*log, strict=True):
            plain.update(pairwise(s[:train]))
        assert pairs == plain


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """23 users of 2 to 24 events, each event a distinct item; 276 training targets."""
    sequences, first = [], 1
    for n in range(2, 25):
        sequences.append(list(range(first, first + n)))
        first += n
    return make(tmp_path / "d", sequences, [(len(s), len(s)) for s in sequences])


def test_shapes_and_types(dataset: Dataset) -> None:
    batch = Batches(dataset, config(5, 8, kind="uniform", number=3), "all").batch(0)
    assert batch.history.shape == batch.targets.shape == (8, 5)
    assert batch.negatives.shape == batch.log_q.shape == (3,)
    assert {batch.history.dtype, batch.targets.dtype, batch.negatives.dtype} == {torch.int64}
    assert batch.log_q.dtype == torch.float32


@pytest.mark.parametrize("targets", ["all", "last"])
def test_an_epoch_repeats_nothing_and_drops_the_rest(dataset: Dataset, targets) -> None:
    batches = Batches(dataset, config(5, 8), targets)
    seen = rows(*epoch(batches))
    assert len(seen) == len(set(seen)) == batches.examples // 8 * 8
    assert set(seen) <= set(rows(*batches.windows_once()))
    assert rows(*epoch(batches, 1)) != seen


@pytest.mark.parametrize("targets", ["all", "last"])
def test_a_step_is_a_pure_function(dataset: Dataset, targets) -> None:
    options = config(5, 8, kind="uniform", number=3, private=True)
    ordered, jumping = (Batches(dataset, options, targets) for _ in range(2))
    steps = list(range(3 * ordered.steps_per_epoch))
    first = {s: ordered.batch(s) for s in steps}
    for s in np.random.default_rng(0).permutation(steps).tolist():
        again = jumping.batch(s)
        for name in ("history", "targets", "negatives", "log_q"):
            assert torch.equal(getattr(again, name), getattr(first[s], name))
    other = Batches(dataset, config(5, 8, seed=1, kind="uniform", number=3, private=True), targets)
    assert rows(other.batch(0)) != rows(first[0])
    assert not torch.equal(other.batch(0).negatives, first[0].negatives)
    assert not torch.equal(first[1].negatives, first[0].negatives)


@pytest.mark.parametrize("targets", ["all", "last"])
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_single_process_batch(dataset: Dataset, targets, world: int) -> None:
    options = config(5, 8, kind="uniform", number=3)
    whole = Batches(dataset, options, targets)
    ranks = [Batches(dataset, options, targets, r, world) for r in range(world)]
    for step in range(whole.steps_per_epoch + 1):
        shares = [r.batch(step) for r in ranks]
        assert all(len(s.history) == 8 // world for s in shares)
        assert Counter(rows(*shares)) == Counter(rows(whole.batch(step)))
        assert all(torch.equal(s.negatives, shares[0].negatives) for s in shares)


def test_private_negatives_are_each_ranks_own(dataset: Dataset) -> None:
    options = config(5, 8, kind="uniform", number=3, private=True)
    first, second = (Batches(dataset, options, "all", r, 2).batch(0).negatives for r in (0, 1))
    assert not torch.equal(first, second)


def test_fewer_examples_than_a_batch(tmp_path: Path) -> None:
    dataset = make(tmp_path / "d", [[1, 2, 3], [4, 5]], [(3, 3), (2, 2)])
    batches = Batches(dataset, config(5, 100), "last")
    assert batches.steps_per_epoch == 1
    assert len(batches.batch(0).history) == 3
    assert Counter(rows(batches.batch(0))) == Counter(rows(batches.batch(1)))
    with pytest.raises(DataError, match="3 examples for 4 processes"):
        Batches(dataset, config(5, 100), "last", 0, 4)


def test_a_batch_must_divide_among_the_ranks(dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="batch_size 8 is not a multiple of the 3"):
        Batches(dataset, config(5, 8), "all", 0, 3)


def test_private_negatives_avoid_the_window(tmp_path: Path) -> None:
    dataset = make(tmp_path / "d", [[1, 2, 3, 4], [5, 6, 7]], [(4, 4), (3, 3)])
    options = config(5, 2, kind="uniform", number=40, private=True, exclude="window")
    batch = Batches(dataset, options, "all").batch(0)
    for history, following, negatives in zip(
        *(getattr(batch, n).tolist() for n in ("history", "targets", "negatives")), strict=True
    ):
        window = {*history, *following} - {0}
        drawn = {x for position in negatives for x in position}
        assert drawn == {0, *range(1, 8)} - window


def test_last_draws_private_negatives_for_the_last_column(dataset: Dataset) -> None:
    options = config(5, 8, kind="log-uniform", number=3, private=True)
    batch = Batches(dataset, options, "last").batch(0)
    assert batch.negatives.shape == batch.log_q.shape == (8, 5, 3)
    assert not batch.negatives[:, :-1].any()
    assert (batch.negatives[:, -1] > 0).all()
    assert (batch.log_q[:, -1] < 0).all()


def test_in_batch_negatives_are_the_targets(dataset: Dataset) -> None:
    batch = Batches(dataset, config(5, 8, kind="in-batch", number=1000), "all").batch(0)
    assert sorted(batch.negatives.tolist()) == sorted(batch.targets[batch.targets > 0].tolist())
    assert torch.isfinite(batch.log_q).all()


@pytest.mark.parametrize("targets", ["all", "last"])
def test_in_batch_negatives_may_be_the_other_rows_alone(dataset: Dataset, targets) -> None:
    options = config(5, 8, kind="in-batch", number=1000, exclude="window")
    batch = Batches(dataset, options, targets).batch(0)
    shared = Batches(dataset, config(5, 8, kind="in-batch", number=1000), targets).batch(0)
    assert batch.negatives.shape == batch.log_q.shape == (8, 5, len(shared.negatives))
    windows = torch.cat([batch.history, batch.targets[:, -1:]], 1)
    for row in range(8):
        held = torch.isin(shared.negatives, windows[row])
        expected = shared.negatives.masked_fill(held, 0)
        for column in range(5):
            counts = targets == "all" or column == 4
            assert torch.equal(batch.negatives[row, column], expected * counts)


def test_evaluation_events_are_never_trained_on(tmp_path: Path) -> None:
    dataset = make(tmp_path / "d", [[1, 2, 3, 8, 9]] * 5 + [[7] * 5], [(3, 4)] * 5 + [(0, 0)])
    for targets in ("all", "last"):
        for history, following in rows(*Batches(dataset, config(3, 2), targets).windows_once()):
            assert {*history, *following} <= {0, 1, 2, 3}
