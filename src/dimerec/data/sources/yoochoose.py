"""YooChoose (RecSys Challenge 2015): sessions of clicks and of purchases in a shop, six months."""

import polars as pl

from dimerec.data.sources import Counts, Files, Parse, Source
from dimerec.data.sources._lines import Schema, table
from dimerec.errors import DataError

CLICKS, BUYS = "yoochoose-clicks.dat", "yoochoose-buys.dat"
MOMENT = "%Y-%m-%dT%H:%M:%S%.fZ"


def clicks(files: Files) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Events and, as an item's categories, the numbered ones (1..12) it was clicked in.

    The other values say nothing of the kind: 0 is unknown, S a special offer, long numbers brands.
    """
    events = _events(files, CLICKS, {"category": pl.String})
    numbered = pl.col("category").str.contains(r"^([1-9]|1[0-2])$")
    items = (
        events.group_by("item", maintain_order=True)
        .agg(categories=pl.col("category").filter(numbered).unique().sort())
        .select("item", pl.lit(None, pl.String).alias("title"), "categories")
    )
    return events.drop("category"), items


def buys(files: Files) -> tuple[pl.DataFrame, None]:
    """Events with `price` and `quantity`, both 0 where unknown."""
    return _events(files, BUYS, {"price": pl.Int64, "quantity": pl.Int64}), None


def _events(files: Files, name: str, rest: Schema) -> pl.DataFrame:
    path = files[name]
    kinds = {"user": pl.Int64, "timestamp": pl.String, "item": pl.Int64, **rest}
    text = table(path, kinds, header=False)
    events = text.with_columns(
        pl.col("timestamp").str.to_datetime(MOMENT, time_unit="ms", strict=False)
    )
    if events["timestamp"].null_count():
        row = int(events["timestamp"].is_null().arg_max() or 0)
        raise DataError(
            f"{path}, line {row + 1}: timestamp is not like 2014-04-07T10:51:09.277Z: "
            f"{text['timestamp'][row]!r}"
        )
    return events


def _source(name: str, title: str, counts: Counts, log: str, parse: Parse) -> Source:
    return Source(
        name=name,
        title=title,
        licence="CC BY-NC-ND 4.0: non-commercial, not to be passed on changed",
        citation="David Ben-Shimon et al. 2015. RecSys Challenge 2015 and the YOOCHOOSE Dataset. "
        "RecSys '15. https://doi.org/10.1145/2792838.2798723",
        home="https://recsys.acm.org/recsys15/challenge/",
        counts=counts,
        log=log,
        parse=parse,
        obtain="its publisher packs it as .7z, which DimeRec does not unpack. Download "
        "https://s3-eu-west-1.amazonaws.com/yc-rdata/yoochoose-data.7z, run `7z x` on it, and "
        "pass the folder (or the .dat or .dat.gz in it) with --from",
    )


SOURCES = [
    _source(
        "yoochoose-clicks",
        "YooChoose clicks (2014)",
        Counts(33_003_944, 9_249_729, 52_739),
        CLICKS,
        clicks,
    ),
    _source(
        "yoochoose-buys",
        "YooChoose purchases (2014)",
        Counts(1_150_753, 509_696, 19_949),
        BUYS,
        buys,
    ),
]
