"""Titles and categories reach the right items."""

from pathlib import Path

import polars as pl
import pytest

from dimerec.data.metadata import describe
from dimerec.errors import DataError
from dimerec.vocabulary import Item


def test_lists_and_texts_of_categories() -> None:
    ids = pl.Series([1, 2, 3])
    listed = pl.DataFrame(
        {"movieId": [3, 1], "Title": ["C", None], "genres": [["x", " y ", ""], []]}
    )
    assert describe(listed, ids) == [Item(), Item(), Item(title="C", categories=("x", "y"))]
    text = listed.with_columns(genres=pl.Series(["x| y |", None]))
    assert describe(text, ids) == describe(listed, ids)
    numbers = pl.DataFrame({"item": [2], "categories": [[8, 9]]})
    assert describe(numbers, ids)[1] == Item(categories=("8", "9"))
    one = pl.DataFrame({"item": [2, 3], "category": [8, None], "title": ["t", "u"]})
    assert describe(one, ids)[1:] == [Item(title="t", categories=("8",)), Item(title="u")]


def test_a_csv_of_integers_describes_a_log_of_strings_and_the_other_way(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("id,name\n1,one\n2,two\n2,again\n")
    assert describe(path, pl.Series(["2", "b"])) == [Item(title="two"), Item()]
    strings = pl.DataFrame({"id": ["1", "z"], "title": ["one", "zet"]})
    assert describe(strings, pl.Series([1, 2])) == [Item(title="one"), Item()]


def test_what_describes_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="an item id column and a title or categories column"):
        describe(pl.DataFrame({"item": [1], "price": [2]}), pl.Series([1]))
    with pytest.raises(DataError, match="describes none of the log's items .*such as 1, it has 7"):
        describe(pl.DataFrame({"item": [7], "title": ["t"]}), pl.Series([1]))
    with pytest.raises(DataError, match="column 'item', row 2: no id"):
        describe(pl.DataFrame({"item": [7, None], "title": ["t", "u"]}), pl.Series([7]))
    with pytest.raises(DataError, match="'title' and None hold something else"):
        describe(pl.DataFrame({"item": [7], "title": [b"\xff"]}), pl.Series([7]))
