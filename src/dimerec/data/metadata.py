"""Titles and categories of items, from a table of their own."""

from typing import Any

import polars as pl

from dimerec.data import columns as cols
from dimerec.data.tables import open_table
from dimerec.errors import DataError
from dimerec.vocabulary import Item

TITLES = ["title", "name", "item_name", "movie_title", "product_title", "caption"]
CATEGORIES = ["categories", "category", "genres", "genre"]


def describe(source: Any, ids: pl.Series) -> list[Item]:
    """What the table `source` knows of each of `ids`, in their order.

    Categories are a list, or text separated by "|"; of an item described twice the first counts.

    Raises:
        DataError: the table cannot be read, lacks a column, or describes none of `ids`.
    """
    table = open_table(source)
    item = cols.first_alias(table.columns, [*cols.ALIASES["item"], "id"])
    title = cols.first_alias(table.columns, TITLES)
    categories = cols.first_alias(table.columns, CATEGORIES)
    if item is None or (title is None and categories is None):
        raise DataError(
            f"{table.name}: items need an item id column and a title or categories column; "
            f"found: {', '.join(table.columns)}"
        )
    raw = table.read([c for c in (item, title, categories) if c])
    described = {"id": cols.ids(table, raw, item).cast(ids.dtype, strict=False)}
    try:
        described["title"] = (raw[title] if title else _nothing(raw)).cast(pl.String)
        described["categories"] = _lists(raw[categories] if categories else _nothing(raw))
    except pl.exceptions.PolarsError as e:
        raise DataError(
            f"{table.name}: titles are texts and categories lists of texts, but the columns "
            f"{title!r} and {categories!r} hold something else"
        ) from e
    known = pl.DataFrame(described).unique("id", keep="first", maintain_order=True)
    found = ids.alias("id").to_frame().join(known, on="id", how="left", maintain_order="left")
    if found["title"].null_count() == found["categories"].null_count() == found.height:
        raise DataError(
            f"{table.name}, column {item!r}: describes none of the log's items "
            f"(the log has ids such as {ids[0]!r}, it has {raw[item][0]!r})"
        )
    return [
        Item(title=t, categories=tuple(c or ()))
        for t, c in zip(found["title"].to_list(), found["categories"].to_list(), strict=True)
    ]


def _nothing(frame: pl.DataFrame) -> pl.Series:
    return pl.repeat(None, frame.height, dtype=pl.String, eager=True)


def _lists(values: pl.Series) -> pl.Series:
    if not isinstance(values.dtype, pl.List):
        values = values.cast(pl.String).str.split("|")
    listed = values.cast(pl.List(pl.String)).list.eval(pl.element().str.strip_chars())
    return listed.list.eval(pl.element().filter(pl.element() != ""))
