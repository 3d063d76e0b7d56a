"""Evaluating real bundles on real datasets: metrics, card, files, refusals."""

import json
import math
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from dimerec import bundle as bundles
from dimerec import config as configs
from dimerec import plugins
from dimerec.bundle import Bundle
from dimerec.data import dataset as datasets
from dimerec.data.dataset import Dataset
from dimerec.errors import ConfigError, DataError
from dimerec.evaluation import metrics
from dimerec.evaluation.card import ProtocolCard
from dimerec.evaluation.evaluator import evaluate, ranks
from dimerec.vocabulary import Item, Vocabulary

V, USERS, COLD = 61, 80, 60


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """80 users with 4 to 12 events, leave-one-out; item 60 is nobody's but for two test targets."""
    rng = np.random.default_rng(0)
    n = rng.integers(4, 13, USERS)
    items = rng.integers(1, COLD, n.sum())
    offsets = np.cumsum([0, *n])
    items[offsets[[3, 9]] - 1] = COLD  # the last event of users 2 and 8
    return datasets.write(
        tmp_path_factory.mktemp("data") / "toy",
        vocabulary=Vocabulary([f"i{i}" for i in range(1, V)]),
        users=Vocabulary([f"u{u}" for u in range(USERS)]),
        offsets=offsets,
        items=items,
        times=np.arange(n.sum()),
        train_end=n - 2,
        valid_end=n - 1,
        card={"name": "toy", "protocol": {"name": "leave-one-out"}},
        metadata=[Item(categories=("odd",) if i % 2 else ("even", "more")) for i in range(1, V)],
    )


def made(folder: Path, dataset: Dataset, name: str, length: int = 6) -> Bundle:
    """A bundle with random weights; the popularity model gets the dataset's training counts."""
    config = configs.RunConfig(model=name, length=length, seed=5)
    catalogue = dataset.catalogue(length)
    model = plugins.load("dimerec.models", name).Model(config.model_config(), catalogue)
    if name == "popularity":
        model.counts += catalogue.counts
    rng = torch.Generator().manual_seed(0)
    for weight in model.parameters():  # some layers start at zero, and with them the noise's part
        weight.data += 0.1 * torch.randn(weight.shape, generator=rng)
    return bundles.write(
        folder / name,
        model=model,
        config=config,
        vocabulary=dataset.vocabulary,
        items=dataset.metadata(),
        counts=dataset.counts(),
        origin={"dataset": "toy", "digest": dataset.digest, "protocol": "leave-one-out"},
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def popularity(folder: Path, dataset: Dataset) -> Bundle:
    return made(folder, dataset, "popularity")


@pytest.fixture(scope="module")
def sasrec(folder: Path, dataset: Dataset) -> Bundle:
    return made(folder, dataset, "sasrec")


@pytest.fixture(scope="module")
def generative(folder: Path, dataset: Dataset) -> Bundle:
    return made(folder, dataset, "dimerec")


def test_popularity_by_sorting(popularity: Bundle, dataset: Dataset) -> None:
    result = evaluate(popularity, dataset)
    counts = dataset.counts()[1:]
    last = dataset.items[dataset.offsets[1:] - 1]
    expected = [
        1 + (counts > counts[t - 1]).sum() + ((counts == counts[t - 1]).sum() - 1) / 2 for t in last
    ]
    assert result.ranks.tolist() == expected
    assert result.users.tolist() == list(range(USERS))
    hits = [r for r in expected if r <= 20]
    assert result.metrics["hr@20"] == pytest.approx(len(hits) / USERS)
    ndcg = sum(1 / math.log2(1 + r) for r in hits) / USERS
    assert result.metrics["ndcg@20"] == pytest.approx(ndcg)
    assert result.metrics["coverage@20"] == 20 / (V - 1)  # the same twenty for everybody
    assert result.metrics["categories@100"] == 3.0


def test_what_is_evaluated_is_what_is_served(sasrec: Bundle, dataset: Dataset) -> None:
    """A target is a hit at 10 just when the recommender names it, seen items hidden or not."""
    queries = dataset.queries("test", "every-position")
    whole = slice(0, len(queries))
    targets = dataset.vocabulary.ids(queries.targets(whole).tolist())
    histories = [
        dataset.vocabulary.ids([i for i in row if i]) for row in queries.seen(whole).tolist()
    ]
    recommender = sasrec.recommender()
    for hide_seen in (False, True):
        found = evaluate(sasrec, dataset, hide_seen=hide_seen)
        answers = recommender.recommend(histories, 10, hide_seen=hide_seen)
        served = [t in a.items for t, a in zip(targets, answers)]
        fresh = [not hide_seen or t not in h for t, h in zip(targets, histories)]
        assert sum(fresh) > USERS / 2
        agree = [(r <= 10) == s for r, s, f in zip(found.ranks, served, fresh) if f]
        assert all(agree)
        assert 0 < sum(served) < USERS


def test_noise_follows_the_seed_and_nothing_else(generative: Bundle, dataset: Dataset) -> None:
    first, again = evaluate(generative, dataset), evaluate(generative, dataset)
    assert first.metrics == again.metrics and np.array_equal(first.ranks, again.ranks)
    limited = evaluate(generative, dataset, limit=20)
    kept = np.isin(first.users, limited.users)
    assert kept.sum() == 20
    assert np.array_equal(limited.ranks, first.ranks[kept])
    queries = dataset.queries("test", "every-position")
    model = generative.model()
    alone = ranks(model, queries, length=6, batch=1)
    np.testing.assert_allclose(alone, first.ranks, atol=1)  # an ulp may swap two neighbours
    assert np.mean(alone == first.ranks) > 0.95
    assert model.noise_draws > 0
    assert not np.array_equal(ranks(model, queries, length=6, seed=1), alone)


def test_the_card_says_how(generative: Bundle, dataset: Dataset) -> None:
    card = evaluate(
        generative, dataset, split="valid", positions="last", limit=30, lists=7, seed=9
    ).card
    assert (card.dataset, card.digest) == ("toy", dataset.digest)
    assert card.trained_on == dataset.digest
    assert card.protocol.name == "leave-one-out"
    assert (card.split, card.positions) == ("valid", "last")
    assert (card.queries, card.available, card.users, card.lists) == (30, USERS, 30, 7)
    assert card.candidates == "full catalogue: 60 items"
    assert card.seeds == {"training": 5, "evaluation": 9}
    assert (card.model, card.length) == ("dimerec", 6)
    assert card.sampling == {"samples": 8, "steps": 1}
    assert card.weights == generative.weights_digest
    assert set(card.versions) == {"dimerec", "torch", "numpy", "python"}
    assert card.machine.threads == 1 and card.machine.cpus >= 1
    assert "half" in card.ties and "1e-06" in card.ties


def test_cold_targets_are_scored_and_counted(popularity: Bundle, dataset: Dataset) -> None:
    assert dataset.counts()[COLD] == 0
    result = evaluate(popularity, dataset)
    cold = dataset.items[dataset.offsets[1:] - 1] == COLD
    unseen = dataset.counts()[dataset.items[dataset.offsets[1:] - 1]] == 0
    assert result.card.cold_targets == unseen.sum() >= cold.sum() == 2
    assert (result.ranks[cold] > V - 1 - (dataset.counts()[1:] == 0).sum()).all()


def test_hiding_is_said_and_never_lowers_a_target(sasrec: Bundle, dataset: Dataset) -> None:
    shown, hidden = evaluate(sasrec, dataset), evaluate(sasrec, dataset, hide_seen=True)
    assert (hidden.ranks <= shown.ranks).all() and (hidden.ranks < shown.ranks).any()
    assert hidden.card.hide_seen and "less the user's earlier ones" in hidden.card.candidates


def test_lists_can_be_left_out(sasrec: Bundle, dataset: Dataset) -> None:
    result = evaluate(sasrec, dataset, lists=0)
    assert result.card.lists == 0 and result.card.sampling == {}
    assert set(result.metrics) == set(metrics.summary(result.ranks))
    assert "hr " in result.table()


def test_write_then_read(sasrec: Bundle, dataset: Dataset, tmp_path: Path) -> None:
    result = evaluate(sasrec, dataset)
    result.write(tmp_path / "a" / "b")
    folder = result.write(tmp_path / "a" / "b")  # replaces the first
    assert sorted(p.name for p in folder.iterdir()) == ["evaluation.json", "ranks.npy"]
    content = json.loads((folder / "evaluation.json").read_bytes())
    assert content["metrics"] == result.metrics
    assert msgspec.convert(content["card"], ProtocolCard) == result.card
    pairs = np.load(folder / "ranks.npy", allow_pickle=False)
    assert np.array_equal(pairs["rank"], result.ranks)
    assert np.array_equal(pairs["user"], result.users)


def test_a_folder_that_cannot_be_written_is_a_clear_error(
    sasrec: Bundle, dataset: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        evaluate(sasrec, dataset, lists=0).write(tmp_path / "file")


def test_the_table_shows_what_was_measured(popularity: Bundle, dataset: Dataset) -> None:
    result = evaluate(popularity, dataset, limit=40)
    table = result.table()
    assert f"{result.metrics['ndcg@20']:.2%}" in table
    assert "40 of 80 queries of 40 users" in table
    assert "popularity on toy (leave-one-out), test, every-position" in table
    assert "categories in the top 100: 3.00" in table


def test_another_catalogue_is_refused(sasrec: Bundle, dataset: Dataset, tmp_path: Path) -> None:
    ids = dataset.vocabulary.ids(range(1, V))
    other = datasets.write(
        tmp_path / "other",
        vocabulary=Vocabulary(ids[::-1]),  # the same items, otherwise numbered
        users=dataset.users,
        offsets=dataset.offsets,
        items=dataset.items,
        times=dataset.times,
        train_end=dataset.train_end,
        valid_end=dataset.valid_end,
        card={"name": "toy", "protocol": {"name": "leave-one-out"}},
    )
    with pytest.raises(DataError, match="trained on") as caught:
        evaluate(sasrec, other)
    for digest in (sasrec.vocabulary.fingerprint, other.vocabulary.fingerprint):
        assert digest in str(caught.value)


def test_a_split_without_queries_is_refused(
    sasrec: Bundle, dataset: Dataset, tmp_path: Path
) -> None:
    ends = np.diff(dataset.offsets)
    untested = datasets.write(
        tmp_path / "untested",
        vocabulary=dataset.vocabulary,
        users=dataset.users,
        offsets=dataset.offsets,
        items=dataset.items,
        times=dataset.times,
        train_end=ends - 1,
        valid_end=ends,
        card={"name": "toy", "protocol": {"name": "leave-one-out"}},
    )
    with pytest.raises(DataError, match="no query in split 'test'"):
        evaluate(sasrec, untested)
    result = evaluate(sasrec, untested, split="valid")
    assert result.card.trained_on != result.card.digest
    assert "categories@100" not in result.metrics  # this one knows none


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"split": "train"}, DataError, "valid, test"),
        ({"positions": "all"}, DataError, "every-position"),
        ({"device": "warp"}, ConfigError, "auto, cpu or cuda"),
    ],
)
def test_wrong_choices_name_the_right_ones(
    sasrec: Bundle, dataset: Dataset, settings: dict, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        evaluate(sasrec, dataset, **settings)


def test_another_process_finds_the_same(
    generative: Bundle, dataset: Dataset, tmp_path: Path
) -> None:
    here = evaluate(generative, dataset).write(tmp_path / "here")
    code = (
        "import sys, dimerec\n"
        "b, d, out = sys.argv[1:]\n"
        "dimerec.evaluate(dimerec.Bundle.open(b), dimerec.Dataset.open(d)).write(out)\n"
    )
    command = [sys.executable, "-c", code, generative.path, dataset.path, tmp_path / "there"]
    subprocess.run([str(c) for c in command], check=True)
    for name in ("evaluation.json", "ranks.npy"):
        assert (tmp_path / "there" / name).read_bytes() == (here / name).read_bytes()
