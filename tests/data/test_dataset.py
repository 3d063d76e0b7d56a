import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings

from dimerec.data.dataset import Dataset, write
from dimerec.data.splits import Protocol
from dimerec.errors import DataError
from dimerec.vocabulary import Item, Vocabulary
from tests.data.logs import flat, logs, make

SEQUENCES = [[1, 2, 3, 1, 4], [2, 2], [5, 4, 3, 2, 1, 2, 3]]
ENDS = [(3, 4), (0, 2), (0, 0)]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return make(tmp_path / "d", SEQUENCES, ENDS)


def test_what_is_written_is_read(dataset: Dataset) -> None:
    offsets, items = flat(SEQUENCES)
    assert dataset.offsets.tolist() == offsets.tolist() == [0, 5, 7, 14]
    assert dataset.items.dtype == np.int32
    assert dataset.items.tolist() == items.tolist()
    assert dataset.times.tolist() == [0, 1, 2, 3, 4, 0, 1, 0, 1, 2, 3, 4, 5, 6]
    assert dataset.train_end.tolist() == [3, 0, 0]
    assert dataset.valid_end.tolist() == [4, 2, 0]
    assert dataset.vocabulary.ids([1, 5]) == ["i1", "i5"]
    assert dataset.users.ids([3]) == ["u2"]
    assert dataset.metadata() == [Item()] * 5
    dataset.verify()


def test_the_events_stay_on_disk(dataset: Dataset) -> None:
    assert isinstance(dataset.items.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        dataset.items[0] = 2


def test_card_counts_by_hand(dataset: Dataset) -> None:
    card = dataset.card
    assert (card.users, card.items, card.events) == (3, 5, 14)
    assert (card.lengths.mean, card.lengths.median) == (14 / 3, 5.0)
    assert (card.lengths.min, card.lengths.max) == (2, 7)
    train, valid, test = (card.splits[s] for s in ("train", "valid", "test"))
    assert (train.users, train.events, train.queries) == (1, 3, {})
    # valid targets: u0 at 3; u1 at 0 (no history) and 1
    assert (valid.users, valid.events) == (2, 3)
    assert valid.queries == {"every-position": 2, "last": 2, "last-20-percent": 0}
    # test targets: u0 at 4; u2 at 0..6, of which ceil(5.6) = 6 on
    assert (test.users, test.events) == (2, 8)
    assert test.queries == {"every-position": 7, "last": 2, "last-20-percent": 2}


def test_counts_are_training_events_only(dataset: Dataset) -> None:
    assert dataset.counts().tolist() == [0, 1, 1, 1, 0, 0]
    catalogue = dataset.catalogue(7)
    assert (catalogue.size, catalogue.length) == (6, 7)
    assert catalogue.counts.tolist() == [0, 1, 1, 1, 0, 0]


def test_metadata_keeps_titles(tmp_path: Path) -> None:
    titles = [Item("A", ("x", "y")), Item()]
    one = np.array([2], np.int64)
    dataset = write(
        tmp_path / "d",
        vocabulary=Vocabulary([10, 20]),
        users=Vocabulary(["u"]),
        offsets=np.array([0, 2]),
        items=np.array([2, 1]),
        times=np.array([5, 6]),
        train_end=one,
        valid_end=one,
        card={"name": "n", "origin": {"file": "log.csv"}, "protocol": Protocol(name="given")},
        metadata=titles,
    )
    assert dataset.metadata() == titles
    assert dataset.card.origin == {"file": "log.csv"}


@given(log=logs())
@settings(max_examples=25)
def test_queries_against_plain_loops(log: tuple) -> None:
    sequences, ends = log
    with tempfile.TemporaryDirectory() as folder:
        dataset = make(Path(folder) / "d", sequences, ends)
        train = [x for s, (t, _) in zip(sequences, ends, strict=True) for x in s[:t]]
        expected = [0, *(train.count(i) for i in range(1, dataset.vocabulary.size))]
        assert dataset.counts().tolist() == expected
        for split in ("valid", "test"):
            for positions in ("every-position", "last", "last-20-percent"):
                wanted = []
                for row, (s, (t, v)) in enumerate(zip(sequences, ends, strict=True)):
                    segment = range(t, v) if split == "valid" else range(v, len(s))
                    kept = list(segment)[-1:] if positions == "last" else list(segment)
                    if positions == "last-20-percent":
                        kept = [p for p in kept if p >= math.ceil(0.8 * len(s))]
                    wanted += [(row, p) for p in kept if p > 0]
                queries = dataset.queries(split, positions)
                pairs = zip(queries.rows.tolist(), queries.positions.tolist(), strict=True)
                assert list(pairs) == wanted
                assert len(queries) == dataset.card.splits[split].queries[positions]
                everything = slice(0, len(wanted))
                short, seen = queries.histories(everything, 3), queries.seen(everything)
                longest = max((p for _, p in wanted), default=0)
                assert short.dtype == seen.dtype == queries.targets(everything).dtype == np.int64
                assert short.shape == (len(wanted), 3)
                assert seen.shape == (len(wanted), longest)
                for q, (row, p) in enumerate(wanted):
                    past = sequences[row][:p]
                    assert short[q].tolist() == [0, 0, 0, *past][-3:]
                    assert seen[q].tolist() == [0] * (longest - p) + past
                    assert queries.targets(everything)[q] == sequences[row][p]
                assert queries.users(everything).tolist() == [row for row, _ in wanted]


def test_blocks_are_parts_of_the_whole(dataset: Dataset) -> None:
    queries = dataset.queries("test", "every-position")
    whole = queries.histories(slice(0, 7), 4)
    assert np.array_equal(queries.histories(slice(2, 5), 4), whole[2:5])
    assert queries.seen(slice(1, 3)).shape == (2, 2)  # the second user's positions 1 and 2


def test_limit_spreads_evenly(tmp_path: Path) -> None:
    dataset = make(tmp_path / "d", [[1] * 101] * 10, [(0, 0)] * 10)
    full = dataset.queries("test", "every-position")
    some = dataset.queries("test", "every-position", limit=100)
    assert (len(full), len(some)) == (1000, 100)
    at = (some.rows * 100 + some.positions - 1).tolist()
    assert at == list(range(0, 1000, 10))
    assert len(dataset.queries("test", "every-position", limit=5000)) == 1000


def test_digest_follows_the_content(tmp_path: Path) -> None:
    first = make(tmp_path / "a", SEQUENCES, ENDS)
    assert make(tmp_path / "b", SEQUENCES, ENDS).digest == first.digest
    changes = [
        make(tmp_path / "c", [[1, 2, 3, 1, 5], *SEQUENCES[1:]], ENDS),
        make(tmp_path / "e", SEQUENCES, [(3, 5), *ENDS[1:]]),
        make(tmp_path / "f", SEQUENCES, [(2, 4), *ENDS[1:]]),
        make(tmp_path / "g", SEQUENCES, ENDS, users=["u0", "u1", "x"]),
        make(tmp_path / "h", SEQUENCES, ENDS, items=6),
        make(tmp_path / "i", SEQUENCES, ENDS, times=[range(5), (0, 2), range(7)]),
    ]
    assert len({first.digest, *(d.digest for d in changes)}) == 7


def test_verify_finds_a_changed_event(dataset: Dataset) -> None:
    items = np.load(dataset.path / "items.npy")
    items[0] = 2
    np.save(dataset.path / "items.npy", items)
    changed = Dataset.open(dataset.path)  # in range: opening cannot know
    with pytest.raises(DataError, match=r"differ from card\.json's digest"):
        changed.verify()


def _rewrite(name: str, array: np.ndarray):
    return lambda path: np.save(path / f"{name}.npy", array)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "items.npy").unlink(), "items.npy: not a readable array"),
        (lambda p: (p / "card.json").unlink(), "card.json: not the card"),
        (lambda p: (p / "card.json").write_text("[]"), "card.json: not the card"),
        (lambda p: (p / "users.json").write_text("{"), "users.json: not a vocabulary"),
        (lambda p: (p / "times.npy").write_bytes(b""), "times.npy: not a readable array"),
        (
            lambda p: (p / "items.npy").write_bytes((p / "items.npy").read_bytes()[:-4]),
            "items.npy: not a readable array",
        ),
        (_rewrite("items", np.ones(14)), r"items.npy: float64 \(14,\), expected"),
        (_rewrite("items", np.array([object()])), "items.npy: not a readable array"),
        (_rewrite("items", np.full(14, 6, np.int32)), r"items.npy: numbers 6..6, .* 1..5"),
        (_rewrite("items", np.zeros(14, np.int32)), "items.npy: numbers 0..0"),
        (_rewrite("offsets", np.array([0, 5, 7, 13])), r"offsets.npy: runs 0..13, .* 0..14"),
        (_rewrite("offsets", np.array([0, 8, 7, 14])), "offsets.npy: user row 1 has -1"),
        (_rewrite("offsets", np.array([0, 5, 5, 14])), "offsets.npy: user row 1 has 0"),
        (_rewrite("offsets", np.array([0, 14])), "offsets.npy: 2 entries, expected 4"),
        (_rewrite("times", np.arange(3)), "times.npy: 3 entries, expected 14"),
        (_rewrite("train_end", np.array([-1, 0, 0])), "train_end.npy: user row 0 is cut"),
        (_rewrite("valid_end", np.array([2, 2, 0])), "valid_end.npy: user row 0 is cut at 3, 2"),
        (_rewrite("valid_end", np.array([4, 3, 0])), "valid_end.npy: user row 1 is cut at 0, 3"),
    ],
)
def test_open_names_the_broken_file(dataset: Dataset, damage, message: str) -> None:
    damage(dataset.path)
    with pytest.raises(DataError, match=message):
        Dataset.open(dataset.path)


def test_pickled_arrays_are_refused(dataset: Dataset) -> None:
    np.save(dataset.path / "items.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(DataError, match=r"items\.npy"):
        Dataset.open(dataset.path)


def test_another_schema_is_refused(dataset: Dataset) -> None:
    path = dataset.path / "card.json"
    path.write_bytes(msgspec.json.encode(json.loads(path.read_text()) | {"schema": 99}))
    with pytest.raises(DataError, match=r"card\.json: schema 99, but this version reads 1"):
        Dataset.open(dataset.path)


def test_no_dataset_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no dataset directory there"):
        Dataset.open(tmp_path / "nothing")


def test_broken_items_file(dataset: Dataset) -> None:
    (dataset.path / "items.json").write_text('[{"title": "A"}]')
    with pytest.raises(DataError, match=r"items\.json: 1 items, but the vocabulary has 5"):
        dataset.metadata()
    (dataset.path / "items.json").write_text("nonsense")
    with pytest.raises(DataError, match=r"items\.json: not a list of items"):
        dataset.metadata()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_unknown_split(dataset: Dataset, split: str) -> None:
    with pytest.raises(DataError, match=f"no queries of split '{split}': take one of valid, test"):
        dataset.queries(split, "last")


def test_unknown_positions(dataset: Dataset) -> None:
    with pytest.raises(DataError, match="no positions 'first'"):
        dataset.queries("test", "first")


def test_an_existing_path_is_kept(dataset: Dataset) -> None:
    before = dataset.digest
    with pytest.raises(DataError, match="exists already"):
        make(dataset.path, [[1, 2]], [(2, 2)])
    assert Dataset.open(dataset.path).digest == before
    new = make(dataset.path, [[1, 2]], [(2, 2)], overwrite=True)
    assert new.digest != before
    assert sorted(p.name for p in dataset.path.parent.iterdir()) == ["d"]


def test_overwriting_spares_what_is_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="is no dataset"):
        make(tmp_path, [[1, 2]], [(2, 2)], overwrite=True)
    assert (tmp_path / "thesis.txt").exists()


def test_a_failed_writing_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    def full(self: Vocabulary, path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Vocabulary, "write", full)
    with pytest.raises(OSError, match="No space"):
        make(tmp_path / "d", SEQUENCES, ENDS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sequences", "ends", "message"),
    [
        ([[1], []], [(1, 1), (0, 0)], "user row 1 has 0 events"),
        ([[0, 1]], [(2, 2)], r"numbers 0..1"),
        ([[1, 1]], [(2, 1)], "cut at 2, 1"),
        ([], [], "empty"),
    ],
)
def test_broken_promises_are_not_written(tmp_path: Path, sequences, ends, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make(tmp_path / "d", sequences, ends)
    assert list(tmp_path.iterdir()) == []


def test_opening_loads_no_torch(dataset: Dataset) -> None:
    code = (
        "import sys; from dimerec.data.dataset import Dataset;"
        f"Dataset.open({str(dataset.path)!r}).queries('test', 'last');"
        "assert 'torch' not in sys.modules and 'polars' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
