"""The prepared layout, a folder of Parquet files, and three datasets that exist only so.

`interactions.parquet` has `user_id`, `item_id`, then `timestamp` (Unix seconds) or `position`
(order inside the user), and `rating` where known. `items.parquet` has `item_id`, `title` where
known, and `genres` or `categories`. `splits.parquet` has `user_id` and `split` ("train", "val" or
"valid", "test"). The last two may be missing.
"""

from pathlib import Path

import polars as pl

from dimerec.data.sources import Counts, Files, Source
from dimerec.data.sources.kuairec import SOURCES as KUAIREC
from dimerec.data.sources.yoochoose import SOURCES as YOOCHOOSE
from dimerec.errors import DataError

EVENTS, ITEMS, SPLITS = "interactions.parquet", "items.parquet", "splits.parquet"
PARTS = {"train": "train", "val": "valid", "valid": "valid", "test": "test"}


def folder(place: Path) -> Path | None:
    """The folder in this layout that `place` is, or whose events it is; None when it is not so."""
    place = place.parent if place.name == EVENTS else place
    return place if (place / EVENTS).is_file() else None


def files(place: Path) -> dict[str, Path]:
    """The files of the layout that the folder `place` has."""
    return {n: place / n for n in (EVENTS, ITEMS, SPLITS) if (place / n).is_file()}


def parse(files: Files) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """Events and items, columns named as every source names them."""
    events = _read(files[EVENTS], "user_id", "item_id")
    if not {"timestamp", "position"} & set(events.columns):
        raise DataError(f"{files[EVENTS]}: neither a column timestamp nor position")
    events = events.rename({"user_id": "user", "item_id": "item"})
    if ITEMS not in files:
        return events, None
    items = _read(files[ITEMS], "item_id")
    title = pl.col("title") if "title" in items.columns else pl.lit(None, pl.String)
    named = next((c for c in ("categories", "genres") if c in items.columns), None)
    listed = pl.col(named) if named else pl.lit([], pl.List(pl.String))
    return events, items.select(
        pl.col("item_id").alias("item"), title.alias("title"), listed.alias("categories")
    )


def split(place: Path) -> pl.DataFrame | None:
    """The official split, `user` and `split` ("train", "valid", "test"); None without one."""
    path = place / SPLITS
    if not path.is_file():
        return None
    frame = _read(path, "user_id", "split")
    if strange := set(frame["split"].unique()) - set(PARTS):
        raise DataError(
            f"{path}: split is train, val or test, found {', '.join(map(str, strange))}"
        )
    return frame.select(user="user_id", split=pl.col("split").replace_strict(PARTS))


def _read(path: Path, *required: str) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path, hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError) as e:
        raise DataError(f"{path}: not a whole Parquet file ({str(e).splitlines()[0]})") from e
    if missing := [name for name in required if name not in frame.columns]:
        found = ", ".join(frame.columns)
        raise DataError(f"{path}: no column {', '.join(missing)}; found: {found}")
    return frame


def _source(name: str, title: str, like: Source, counts: Counts) -> Source:
    return Source(
        name=name,
        title=title,
        licence=like.licence,
        citation=like.citation,
        home=like.home,
        counts=counts,
        log=EVENTS,
        others=(ITEMS, SPLITS),
        parse=parse,
        obtain="it exists in the prepared layout only; put its folder, called so, into the folder "
        "that DIMEREC_DATA names, or pass it with --from",
    )


SOURCES = [
    _source(
        "yoochoose-1-64",
        "YooChoose clicks, the latest 1/64 of the sessions, prepared (SR-GNN's way)",
        YOOCHOOSE[0],
        Counts(557_248, 131_491, 17_745),
    ),
    _source(
        "yoochoose-dreamrec",
        "YooChoose as processed for DreamRec, validation and test sessions, prepared",
        YOOCHOOSE[0],
        Counts(112_307, 25_694, 4_721),
    ),
    _source(
        "kuairec-dreamrec",
        "KuaiRec as processed for DreamRec, validation and test sessions, prepared",
        KUAIREC[0],
        Counts(132_341, 18_418, 3_015),
    ),
]
