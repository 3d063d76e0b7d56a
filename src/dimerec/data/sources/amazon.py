"""Amazon reviews of 2014 (J. McAuley): 5-core reviews by category, and one full list of ratings.

A reviews file has one JSON object a line. The metadata beside it, where present, has one Python
literal a line (single quotes), as it was published; it is read as a literal and never run.
"""

import ast
from functools import partial

import msgspec
import polars as pl

from dimerec.data.fetch import Remote
from dimerec.data.sources import Counts, Files, Source
from dimerec.data.sources._lines import records, table
from dimerec.errors import DataError

SITE = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles"


class Review(
    msgspec.Struct,
    rename={"user": "reviewerID", "item": "asin", "rating": "overall", "time": "unixReviewTime"},
):
    """What is used of a line of a reviews file."""

    user: str
    item: str
    rating: float
    time: int


class Product(msgspec.Struct):
    """What is used of a line of a metadata file."""

    asin: str
    title: str | None = None
    categories: list[list[str]] = []


def reviews(files: Files, log: str, meta: str) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """`reviews_X_5.json.gz`, and titles and categories of `meta_X.json.gz` where it is there."""
    decode = msgspec.json.Decoder(Review).decode
    columns: tuple[list, list, list, list] = ([], [], [], [])
    user, item, rating, timestamp = (column.append for column in columns)
    for number, line in records(files[log]):
        try:
            review = decode(line)
        except msgspec.DecodeError as e:
            raise DataError(f"{files[log]}, line {number}: not a review ({e})") from e
        user(review.user)
        item(review.item)
        rating(review.rating)
        timestamp(review.time)
    kinds = {"user": pl.String, "item": pl.String, "rating": pl.Float64, "timestamp": pl.Int64}
    events = pl.DataFrame(dict(zip(kinds, columns, strict=True)), schema=kinds)
    return events, _products(files, meta, set(columns[1]))


def ratings(files: Files, log: str, meta: str) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """`ratings_X.csv`: user, item, rating, timestamp, without a header."""
    kinds = {"user": pl.String, "item": pl.String, "rating": pl.Float64, "timestamp": pl.Int64}
    events = table(files[log], kinds, header=False)
    wanted = set(events["item"].unique()) if meta in files else set()
    return events, _products(files, meta, wanted)


def _products(files: Files, meta: str, wanted: set[str]) -> pl.DataFrame | None:
    if meta not in files:
        return None
    rows = []
    for number, line in records(files[meta]):
        try:
            literal = msgspec.json.decode(line) if line[:2] == '{"' else ast.literal_eval(line)
            product = msgspec.convert(literal, Product)
        except (msgspec.MsgspecError, ValueError, SyntaxError, MemoryError, RecursionError) as e:
            raise DataError(f"{files[meta]}, line {number}: not a product ({e})") from e
        if product.asin in wanted:
            flat = dict.fromkeys(name for path in product.categories for name in path)
            rows.append((product.asin, product.title, list(flat)))
    kinds = {"item": pl.String, "title": pl.String, "categories": pl.List(pl.String)}
    return pl.DataFrame(rows, schema=kinds, orient="row").unique("item", maintain_order=True)


def _source(name: str, title: str, log: str, category: str, counts: Counts) -> Source:
    meta = f"meta_{category}.json.gz"
    return Source(
        name=f"amazon-{name}",
        title=f"Amazon reviews 2014, {title}",
        licence="no licence text is published with the data; cite the authors",
        citation="Ruining He and Julian McAuley. 2016. Ups and Downs: Modeling the Visual "
        "Evolution of Fashion Trends with One-Class Collaborative Filtering. WWW '16. "
        "https://doi.org/10.1145/2872427.2883037",
        home="https://cseweb.ucsd.edu/~jmcauley/datasets/amazon/links.html",
        counts=counts,
        log=log,
        others=(meta,),
        parse=partial(reviews if ".json" in log else ratings, log=log, meta=meta),
        remotes=(Remote(f"{SITE}/{log}"), Remote(f"{SITE}/{meta}")),  # no published checksums
    )


def _five_core(name: str, category: str, counts: Counts) -> Source:
    title = category.replace("_", " ") + ", 5-core"
    return _source(name, title, f"reviews_{category}_5.json.gz", category, counts)


SOURCES = [
    _five_core("beauty", "Beauty", Counts(198_502, 22_363, 12_101)),
    _five_core("games", "Video_Games", Counts(231_780, 24_303, 10_672)),
    _five_core("sports", "Sports_and_Outdoors", Counts(296_337, 35_598, 18_357)),
    _five_core("toys", "Toys_and_Games", Counts(167_597, 19_412, 11_924)),
    _source(
        "beauty-ratings",
        "Beauty, all ratings",
        "ratings_Beauty.csv",
        "Beauty",
        Counts(2_023_070, 1_210_271, 249_274),
    ),
]
