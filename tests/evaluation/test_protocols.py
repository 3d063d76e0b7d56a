"""One bundle under every protocol: each row is what its definition says."""

from pathlib import Path

import numpy as np
import pytest

from dimerec.bundle import Bundle
from dimerec.data.dataset import Dataset
from dimerec.errors import DataError
from dimerec.evaluation import metrics
from dimerec.evaluation.evaluator import evaluate
from dimerec.evaluation.protocols import DEFINITIONS, NAMES, rescore, whole_batches
from dimerec.evaluation.ranking import best, ranks
from dimerec.evaluation.sets import score_sets, set_queries
from tests.evaluation.toys import made, whole_users


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return whole_users(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Bundle:
    return made(tmp_path_factory.mktemp("bundles"), dataset, "comirec")


def test_every_protocol_has_its_row(bundle: Bundle, dataset: Dataset, monkeypatch):
    monkeypatch.setattr("dimerec.evaluation.protocols.CANDIDATES", 30)  # of 120 items
    rows = {r.name: r for r in rescore(bundle, dataset)}
    assert tuple(rows) == NAMES == tuple(d.name for d in DEFINITIONS)
    for name, positions in (("full-ranking", "every-position"), ("leave-one-out", "last")):
        plain = evaluate(bundle, dataset, positions=positions, lists=0).metrics
        for n in metrics.CUTOFFS:
            assert rows[name].hr[n] == rows[name].recall[n] == plain[f"hr@{n}"]
            assert rows[name].ndcg[n] == plain[f"ndcg@{n}"]
    users = int((dataset.valid_end < np.diff(dataset.offsets)).sum())
    assert rows["leave-one-out"].queries == rows["one-against-100"].queries == users
    asked, wanted = set_queries(dataset)
    sets = score_sets(best(bundle.model(), asked, 50, length=8), wanted, metrics.CUTOFFS)
    for name in ("comirec", "comirec-corrected"):
        assert rows[name].queries == users
        assert (rows[name].ndcg, rows[name].hr) == (sets[name].ndcg, sets[name].hr)
    assert rows["one-against-100"].hr[50] == 1.0  # one of 31
    digest = rows["one-against-100"].candidates_digest
    assert digest is not None and len(digest) == 64
    again = rescore(bundle, dataset, ("one-against-100",), seed=5)
    assert again[0].candidates_digest == digest


def test_dreamrec_sees_ten_items_and_drops_an_unfull_batch(dataset: Dataset, tmp_path: Path):
    every = dataset.queries("test", "every-position")
    kept = whole_batches(every, dataset)
    assert len(kept) == len(every) // 100 * 100 < len(every)
    assert np.array_equal(kept.rows, every.rows[: len(kept)])
    assert len(whole_batches(kept, dataset, size=1000)) == len(kept)
    long = made(tmp_path, dataset, "comirec", length=12)
    (row,) = rescore(long, dataset, ("dreamrec",))
    found = ranks(long.model(), kept, length=10)
    assert row.queries == len(kept)
    assert row.hr[20] == metrics.hr(found, 20).mean()
    twelve = ranks(long.model(), kept, length=12)
    assert not np.array_equal(found, twelve)  # so that the next line can tell them apart
    assert row.ndcg[50] == metrics.ndcg(found, 50).mean() != metrics.ndcg(twelve, 50).mean()


def test_what_cannot_be_scored_is_said(bundle: Bundle, dataset: Dataset):
    with pytest.raises(DataError, match="no protocol 'best'.*one-against-100"):
        rescore(bundle, dataset, ("best",))
    with pytest.raises(DataError, match="no 119 others|no 110 others|leave one-against"):
        rescore(bundle, dataset, ("one-against-100",))


def test_definitions_say_what_divides_ndcg():
    assert all(d.normaliser and d.targets and d.candidates for d in DEFINITIONS)
    assert "legacy" in {d.name: d for d in DEFINITIONS}["one-against-100"].note
