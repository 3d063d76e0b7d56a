"""Ids and numbers: a bijection that only grows, and says so when asked for the impossible."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dimerec.errors import DataError
from dimerec.vocabulary import Item, Vocabulary

INTEGERS = st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=20)
TEXTS = st.lists(st.text(max_size=6), unique=True, max_size=20)
IDS = st.one_of(INTEGERS, TEXTS)


@given(IDS)
def test_numbers_and_ids_are_inverse(ids: list):
    vocabulary = Vocabulary(ids)
    numbers = vocabulary.numbers(ids)
    assert numbers.dtype == np.int64
    assert numbers.tolist() == list(range(1, len(ids) + 1))
    assert vocabulary.ids(numbers) == ids
    assert vocabulary.ids(int(n) for n in numbers[::-1]) == ids[::-1]
    assert len(vocabulary) == len(ids) == vocabulary.size - 1
    assert all(i in vocabulary for i in ids)


@given(st.one_of(st.tuples(INTEGERS, INTEGERS), st.tuples(TEXTS, TEXTS)))
def test_growing_keeps_the_old_numbers(lists: tuple[list, list]):
    old, new = lists
    before, after = Vocabulary(old), Vocabulary(old).grow(new + old)
    assert after.numbers(old).tolist() == before.numbers(old).tolist()
    assert set(after.ids(range(1, after.size))) == {*old, *new}
    assert len(before) == len(old)


def test_unknown_ids_are_padding():
    vocabulary = Vocabulary(["a", "b"])
    assert vocabulary.numbers(["b", "c", "a", 1]).tolist() == [2, 0, 1, 0]
    assert "c" not in vocabulary
    assert vocabulary.numbers([]).tolist() == []


@pytest.mark.parametrize("number", [0, -1, 3])
def test_numbers_that_stand_for_nothing(number: int):
    with pytest.raises(DataError, match=rf"number {number} .*1\.\.2"):
        Vocabulary(["a", "b"]).ids([1, number])


@pytest.mark.parametrize("ids", [["a", 1], [1.5], [True, False], [None], [np.int64(3)]])
def test_ids_of_other_kinds_are_refused(ids: list):
    from dimerec import vocabulary

    make = getattr(vocabulary.Vocabulary.__init__, "__wrapped__", vocabulary.Vocabulary.__init__)
    with pytest.raises(DataError, match="all integers or all strings, got"):
        make(object.__new__(vocabulary.Vocabulary), ids)


def test_repeated_ids_are_refused():
    with pytest.raises(DataError, match="unique"):
        Vocabulary([1, 2, 1])


def test_what_a_person_typed():
    assert Vocabulary([10, 20]).parse("20") == 20
    assert Vocabulary([10, 20]).parse("abc") == "abc"
    assert Vocabulary(["10", "20"]).parse("20") == "20"
    assert Vocabulary([]).parse("20") == "20"


@given(IDS)
def test_the_fingerprint_is_of_the_ids_in_order(ids: list):
    one = Vocabulary(ids).fingerprint
    assert one == Vocabulary(list(ids)).fingerprint
    assert len(one) == 64
    if len(ids) > 1:
        assert one != Vocabulary(ids[::-1]).fingerprint
    assert one != Vocabulary([*map(str, ids), "one more"]).fingerprint


def test_integers_and_their_texts_differ():
    assert Vocabulary([1, 2]).fingerprint != Vocabulary(["1", "2"]).fingerprint


@pytest.mark.parametrize("ids", [[], [3, -(2**63), 2**63 - 1], ["ä", "\n", '"', "日本", ""]])
def test_a_file_gives_back_what_was_written(tmp_path: Path, ids: list):
    Vocabulary(ids).write(tmp_path / "v.json")
    back = Vocabulary.read(tmp_path / "v.json")
    assert back.ids(range(1, back.size)) == ids
    assert back.fingerprint == Vocabulary(ids).fingerprint


@pytest.mark.parametrize(
    "content", [b"", b"{", b"{}", b"[1.5]", b"[null]", b"[true]", b'[1, "a"]', b"[1, 1]", b"\xff"]
)
def test_a_file_that_is_no_vocabulary_is_named(tmp_path: Path, content: bytes):
    path = tmp_path / "v.json"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        Vocabulary.read(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="absent.json"):
        Vocabulary.read(tmp_path / "absent.json")


def test_an_item_may_be_nameless():
    assert Item() == Item(title=None, categories=())
